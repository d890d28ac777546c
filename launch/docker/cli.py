"""The verb `docker`: its arguments -> a plan, which is executed or printed."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

from job import checks, config
from job.runtime import environment
from launch import parsing
from launch.docker import command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parsing.add_recipe(parser)
    parser.add_argument("--gpus", type=parsing.count, metavar="N", help="number of GPUs; 0: use the CPU (default: all)")
    parser.add_argument("--image", type=image, metavar="NAME", help=f"name of the image (default: {command.IMAGE})")
    parser.add_argument("--dry_run", action="store_true", help="only print the command")


def image(text: str) -> str:
    """An image's name; the default for an empty value, which an unset make variable gives."""
    if not re.fullmatch(r"([a-zA-Z0-9][\w.:/@-]*)?", text):
        raise argparse.ArgumentTypeError(f"takes the name of an image, not {text!r}")
    return text or command.IMAGE


def train(arguments: argparse.Namespace) -> int:
    """Train in a container; this process is replaced by the docker client."""
    dotenv = environment.load_dotenv()
    words = parsing.job_words(arguments)
    settings = config.parse(words)
    checks.check(settings)
    here = Path.cwd()
    machine = command.inspect_machine(os.environ, dotenv)
    image = arguments.image or command.IMAGE
    request = command.request(words, settings, arguments.gpus, image, arguments.flags, here)
    plan = command.plan(request, machine, here)
    if arguments.dry_run:
        print(plan)
        return 0
    if arguments.gpus is None and not machine.gpus.visible:
        print("no GPU found: training on the CPU", file=sys.stderr, flush=True)
    return command.run(plan, request.image, command.writable(request, machine, here))
