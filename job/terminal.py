"""Lines for the reader, on stderr. A log that cannot be written must not end a run.

The log may lie on the disk that is full, and `2>&1 | tee log` ends with the Ctrl-C that is meant for the job.
"""

from __future__ import annotations

import contextlib
import os
import sys


def say(text: str) -> None:
    """Print `text`; what is not taken now is tried again with the next."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def close() -> None:
    """Drop what nobody takes: at the end the interpreter would make the exit code 120 of it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
