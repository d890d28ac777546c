"""Errors of the libraries that load data, as one line for the user."""

from __future__ import annotations

import contextlib
import errno
import textwrap
from collections.abc import Iterator
from pathlib import Path

from job.errors import Refused

WRAPPERS = ("DatasetGenerationError", "SplitsNotFoundError")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def loading_errors() -> tuple[type[Exception], ...]:
    """What `datasets`, pyarrow and the hub client raise for data that is missing, damaged or unreachable."""
    import pyarrow
    import yaml
    from datasets.exceptions import DatasetsError

    # A dataset's metadata may be damaged in any way, and dataset scripts raise a RuntimeError.
    damaged = (ValueError, KeyError, TypeError, RuntimeError, yaml.YAMLError)
    return (OSError, pyarrow.ArrowException, DatasetsError, *damaged)


def one_line(error: BaseException) -> str:
    """The message of an error, or of its cause if it is only a library's wrapper."""
    cause = error.__cause__ if type(error).__name__ in WRAPPERS and error.__cause__ else error
    return textwrap.shorten(str(cause), 200, placeholder=" ...") or type(cause).__name__


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from or while handling, and so on; each once, as a chain may be a circle."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        yield cause
        cause = cause.__cause__ or cause.__context__


@contextlib.contextmanager
def full_disk_refused(cache: Path) -> Iterator[None]:
    """Report that the disk of a cache folder is full in one line, regardless of the library that raises the error."""
    try:
        yield
    except Exception as error:
        if not any(getattr(cause, "errno", None) in DISK_FULL for cause in causes(error)):
            raise
        raise Refused(
            f"the disk of {cache} is full: make room there, or set HF_HOME to a folder on a larger disk"
        ) from error
