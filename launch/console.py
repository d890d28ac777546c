"""Warnings and notes of the launcher, on stderr, one line each."""

import contextlib
import sys


def warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def note(text: str) -> None:
    """Print a line that ends the work: a closed pipe or terminal must not change the exit code."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
