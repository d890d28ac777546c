"""What the libraries that load data raise, as one line for the user."""

from __future__ import annotations

import textwrap


def loading_errors() -> tuple[type[Exception], ...]:
    """What `datasets`, pyarrow and the hub's client raise for data that is missing, damaged or out of reach."""
    import pyarrow
    import yaml
    from datasets.exceptions import DatasetsError

    # A data set's description of itself may be damaged in any way, and scripts are refused with a RuntimeError.
    damaged = (ValueError, KeyError, TypeError, RuntimeError, yaml.YAMLError)
    return (OSError, pyarrow.ArrowException, DatasetsError, *damaged)


def one_line(error: BaseException) -> str:
    """What an error says; a library's wrapper around another error says nothing."""
    said = error.__cause__ if type(error).__name__ == "DatasetGenerationError" and error.__cause__ else error
    return textwrap.shorten(str(said), 200, placeholder=" ...") or type(said).__name__
