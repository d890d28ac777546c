"""Progress bars, shown on terminals only: in a log file a bar would be thousands of carriage returns."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from job.runtime.console import log


@contextlib.contextmanager
def bar(what: str, total: int, done: int = 0, *, unit: str = "it", shown: bool = True) -> Iterator[tqdm[None]]:
    """A bar with rate and time left, below the log. Nothing is shown without a terminal or if not `shown`."""
    shown = shown and _has_width()
    with logging_redirect_tqdm([log]) if shown else contextlib.nullcontext(), tqdm(
        total=total, initial=done, desc=what, unit=unit, dynamic_ncols=True, mininterval=0.2, leave=False,
        disable=not shown,
    ) as made:  # fmt: skip
        yield made


def _has_width() -> bool:
    """Whether stderr is a terminal of known width: on others a bar is blank."""
    try:
        return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except OSError:
        return False
