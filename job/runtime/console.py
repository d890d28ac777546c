"""Lines for the reader, on stderr. A log that cannot be written must not end a run.

The log may lie on the disk that is full, and `2>&1 | tee log` ends with the Ctrl-C that is meant for the job. Libraries
write there too, so the streams themselves are made patient.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any, TextIO, cast


class Patient:
    """A stream like `stream`, on which what cannot be written now is tried again with the next or lost."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def install() -> None:
    """Make stdout and stderr of this process patient; doing it twice is doing it once."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Patient):
            setattr(sys, name, cast(TextIO, Patient(stream)))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
