"""Shared by the verbs' command lines: a parser with one-line errors, and arguments that several verbs have."""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

from job.errors import Refused

MAX_DIGITS = 6
"""Digits of the largest number that a flag takes."""


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise Refused(re.sub(r"^argument (--[a-z_]+): ", r"\1 ", message) + "; --help lists the flags")

    def long_flags(self) -> list[str]:
        """Its flags that start with two dashes, in order of declaration."""
        return [flag for flag in self._option_string_actions if flag.startswith("--")]


def add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", metavar="RECIPE", nargs="?", help="a recipe or a YAML file; with no arguments the demo runs"
    )


def job_words(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The job's command line: the recipe, if given, and the arguments after `--`."""
    return (arguments.recipe, *arguments.job) if arguments.recipe else tuple(arguments.job)


def count(text: str) -> int | None:
    """An integer of up to six digits; None for an empty value, which an unset make variable gives."""
    if not text.strip():
        return None
    if not re.fullmatch("[0-9]+", text.strip()):
        raise argparse.ArgumentTypeError(f"takes an integer, not {text!r}")
    if len(text.strip()) > MAX_DIGITS:
        raise argparse.ArgumentTypeError(f"takes an integer below {10**MAX_DIGITS:,}, not {text!r}")
    return int(text)


def gpus_per_node(asked: int | None) -> int:
    """--gpus of a job on Slurm; Refused without it: a login node does not show what the nodes have."""
    if asked is None:
        raise Refused("say how many GPUs a node has: --gpus N, or --gpus 0 --tasks N for CPUs")
    return asked


def refuse_tasks(gpus: int, tasks: int | None) -> None:
    """Refused if --tasks is 0, or given where GPUs decide the number of processes."""
    if tasks == 0:
        raise Refused("--tasks must be above 0, not 0")
    if gpus and tasks is not None:
        raise Refused("--tasks applies to the CPU only, GPUs have one process each: remove it, or add --gpus 0")
