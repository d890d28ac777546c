"""Shared by the verbs' command lines: a parser with one-line errors, and arguments that several verbs have."""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

from job.errors import Refused


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
    """An integer; None for an empty value, which an unset make variable gives."""
    if not text.strip():
        return None
    if not re.fullmatch("[0-9]{1,4}", text.strip()):
        raise argparse.ArgumentTypeError(f"takes an integer, not {text!r}")
    return int(text)
