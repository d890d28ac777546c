"""What the verbs' command lines have in common: a parser that rejects in one line, and arguments of several verbs."""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

from job.errors import Refused


class Parser(argparse.ArgumentParser):
    """argparse that rejects in one line, without printing its usage first."""

    def error(self, message: str) -> NoReturn:
        raise Refused(re.sub(r"^argument (--[a-z_]+): ", r"\1 ", message) + "; --help lists the flags")

    def long_flags(self) -> list[str]:
        """Its flags that begin with two dashes, in the order declared."""
        return [flag for flag in self._option_string_actions if flag.startswith("--")]


def add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", metavar="RECIPE", nargs="?", help="a recipe's name or a YAML file; nothing at all: the demo"
    )


def job_words(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The job's command line: the recipe, if one is given, and what follows `--`."""
    return (arguments.recipe, *arguments.job) if arguments.recipe else tuple(arguments.job)


def count(text: str) -> int | None:
    """A whole number; nothing, as an unset variable gives it, is not given."""
    if not text.strip():
        return None
    if not re.fullmatch("[0-9]{1,4}", text.strip()):
        raise argparse.ArgumentTypeError(f"takes a whole number, not {text!r}")
    return int(text)
