"""Errors of the libraries that load data, as one line for the user."""

from __future__ import annotations

import textwrap


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
    cause = error.__cause__ if type(error).__name__ == "DatasetGenerationError" and error.__cause__ else error
    return textwrap.shorten(str(cause), 200, placeholder=" ...") or type(cause).__name__
