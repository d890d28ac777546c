"""Warnings and notes of the launcher, on stderr, one line each."""

import contextlib
import os
import sys


def warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def note(text: str) -> None:
    """Print a line. A closed pipe or terminal must neither end the work nor change the exit code."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def announce(text: str) -> None:
    """Print to stdout, or to stderr if stdout cannot be written: what is not seen to be queued is queued again.

    Raises:
        BrokenPipeError: the reader has closed the pipe, so it has seen what it wants.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_stdout()
        warn(f"stdout cannot be written ({error.strerror}); it would say:")
        print(text, file=sys.stderr, flush=True)


def discard_stdout() -> None:
    """Drop what is printed from now on, and what could not be written: Python writes it again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
