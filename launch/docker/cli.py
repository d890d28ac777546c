"""The verb `docker`: the command line's words -> a plan, carried out or printed."""

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
    parser.add_argument("--gpus", type=parsing.count, metavar="N", help="GPUs to use; 0: none (default: all)")
    parser.add_argument("--image", type=image, metavar="NAME", help=f"the image (default: {command.IMAGE})")
    parser.add_argument("--dry_run", action="store_true", help="print the command, start nothing")


def image(text: str) -> str:
    """An image's name; nothing, as an unset variable gives it, means the usual one."""
    if not re.fullmatch(r"([a-zA-Z0-9][\w.:/@-]*)?", text):
        raise argparse.ArgumentTypeError(f"takes an image's name, not {text!r}")
    return text or command.IMAGE


def train(arguments: argparse.Namespace) -> int:
    """Train in a container: this process becomes docker's client."""
    dotenv = environment.load_dotenv()
    words = parsing.job_words(arguments)
    settings = config.parse(words)
    checks.check(settings)
    here = Path.cwd()
    machine = command.look(os.environ, dotenv)
    request = command.request(words, settings, arguments.gpus, arguments.image or command.IMAGE, here)
    plan = command.plan(request, machine, here)
    if arguments.dry_run:
        print(plan)
        return 0
    if not machine.gpus:
        print("no GPU can be seen here: the container has the CPU", file=sys.stderr, flush=True)
    return command.run(plan, request.image, command.writable(request, machine, here))
