"""The verb `local`: its arguments -> a plan, which is executed or printed."""

from __future__ import annotations

import argparse
import os
import shlex
from dataclasses import replace
from pathlib import Path

from job import checks, config
from job.errors import Refused
from job.runtime import contract, environment
from launch import parsing
from launch.console import warn
from launch.local import command, jobs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parsing.add_recipe(parser)
    parser.add_argument("--gpus", type=parsing.count, metavar="N", help="number of GPUs; 0: use the CPU (default: all)")
    parser.add_argument("--tasks", type=parsing.count, metavar="N", help="number of processes on the CPU (default: 1)")
    parser.add_argument("--dry_run", action="store_true", help="only print the command")


def train(arguments: argparse.Namespace) -> int:
    """Train on this machine and return the job's exit code."""
    environment.refuse_unjoined_tasks(os.environ)
    command.refuse_processes_of_another_launcher(os.environ)
    environment.load_dotenv()
    words = parsing.job_words(arguments)
    settings = config.parse(words)
    checks.check(settings)
    machine = command.inspect_machine(os.environ)
    request = command.Request(words, settings.training.mixed_precision, arguments.gpus, arguments.tasks)
    plan = command.plan(request, machine, Path.cwd())
    if arguments.dry_run:
        print(plan)
        return 0
    command.require_training()
    tasks = machine.gpus.to_use(arguments.gpus) or arguments.tasks or 1
    flags = shlex.split(os.environ.get(contract.LAUNCHER_FLAGS, "")) or arguments.flags
    begun = jobs.begin(settings, config.run_name(words), flags, tasks, os.environ)
    if contract.IN_IMAGE in os.environ and jobs.is_lost_with_container(begun.run):
        warn(f'{begun.run} is inside the container and is removed with it: mount a folder, as in --volume "$PWD:/work"')
    code = command.run(replace(plan, environment=(*plan.environment, *begun.environment)), begun.log)
    if code == Refused.exit_code:
        begun.discard_if_new()
    return code
