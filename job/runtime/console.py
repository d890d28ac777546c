"""Output on stderr: the log, and the last line of a job that fails.

A log that cannot be written must not end a run: its disk may be full, and in `2>&1 | tee log` tee ends with the Ctrl-C
that is meant for the job. Libraries write to stderr too, so the streams themselves ignore such errors.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO, cast

from job.runtime import contract

NOTICE_SECONDS = 5.0
"""An operation that takes longer than this is announced."""


class TolerantStream:
    """Wraps a stream and drops text that cannot be written."""

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


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the current sys.stderr."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore the error: a log that cannot be written must not end a run."""


class _Lines(logging.Formatter):
    """Starts each line of a message with time, level and, except on rank 0, the rank."""

    def format(self, record: logging.LogRecord) -> str:
        rank = os.environ.get("RANK", "0")
        level = record.levelname if rank == "0" else f"{record.levelname} rank {rank}"
        head = f"{self.formatTime(record, '%Y-%m-%d %H:%M:%S')} {level} "
        return "\n".join(f"{head}{line}".rstrip() for line in super().format(record).split("\n"))


def _logger() -> logging.Logger:
    logger = logging.getLogger("muster")
    if not logger.handlers:
        handler = _StderrHandler()
        handler.setFormatter(_Lines())
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger


log = _logger()
"""The job's log."""


def escape_on_stdout() -> None:
    """Print what the encoding of stdout lacks as escapes, which are valid in JSON too; it is an error otherwise."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        codecs.register_error("json escapes", _json_escapes)
        sys.stdout.reconfigure(errors="json escapes")


def replace_closed() -> None:
    """Open the null device as stdin, stdout or stderr if it is closed, as after `>&-`: the next file that is opened
    would get its number, and what is printed would be written to that file."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, this one
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _json_escapes(error: UnicodeError) -> tuple[str, int]:
    """An error handler of `codecs`: the replacement, and where to continue."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def install() -> None:
    """Wrap stdout and stderr of this process in TolerantStream. Idempotent."""
    escape_on_stdout()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, TolerantStream):
            setattr(sys, name, cast(TextIO, TolerantStream(stream)))


def last_line(text: str) -> None:
    """Print why the job ends, without time and level, so that it looks the same under every launcher."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def notice(what: str) -> Iterator[None]:
    """Announce `what` in the log of rank 0 if it takes longer than NOTICE_SECONDS."""
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    timer = threading.Timer(NOTICE_SECONDS, log.info, [f"{what} ..."])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def traceback_wanted() -> bool:
    """Whether MUSTER_TRACEBACK=1 requests tracebacks of one-line errors."""
    return os.environ.get(contract.TRACEBACK, "") == "1"
