"""Warnings and notes of the launcher, on stderr, one line each."""

import contextlib
import sys


def warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def note(text: str) -> None:
    """Print a line that ends the work: a reader who has closed the pipe must not change the exit code."""
    with contextlib.suppress(BrokenPipeError):
        print(text, file=sys.stderr, flush=True)
