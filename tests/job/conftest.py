"""For all tests of the job: nothing is downloaded, and caches are temporary."""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from job.runtime.console import log
from job.runtime.environment import OFFLINE

COUNTED = ("trials", "resumes", "mismatches")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what is promised to the bit is promised of the CPU
os.environ.update(dict.fromkeys(OFFLINE, "1"))  # the libraries read these once, at their import


@pytest.fixture
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of `datasets`, for this test alone."""
    import datasets

    cache = tmp_path / "datasets-cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    return cache


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table of `make test-faults`: what tests have recorded as (kind of fault, trials, resumes, mismatches)."""
    table: dict[str, Counter[str]] = {}
    for report in [report for reports in terminalreporter.stats.values() for report in reports]:
        for name, value in getattr(report, "user_properties", ()):
            if name == "faults" and report.when == "call":
                kind, *numbers = value
                table.setdefault(kind, Counter()).update(dict(zip(COUNTED, numbers, strict=True)))
    table["all"] = sum(table.values(), Counter())
    width = max(map(len, table))
    for kind, counts in table.items() if len(table) > 1 else ():
        terminalreporter.write_line(f"{kind:{width}}  " + "  ".join(f"{counts[name]:3} {name}" for name in COUNTED))


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """The lines of the job's log, without their time."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.levelname} {record.getMessage()}")

    handler = Lines()
    log.addHandler(handler)
    yield lines
    log.removeHandler(handler)
