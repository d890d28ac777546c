"""The table of `make test-models`: family, form as the run printed it, largest differences of a probability."""

from __future__ import annotations

import os
from typing import Any

from job.runtime.environment import OFFLINE

os.environ.update(dict.fromkeys(OFFLINE, "1"))  # the libraries read these once, at their import


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [report for reports in terminalreporter.stats.values() for report in reports if hasattr(report, "when")]
    rows = [
        (name, form, differences, report.outcome)
        for report in reports
        if report.when == "call"
        for kind, (name, form, differences) in getattr(report, "user_properties", ())
        if kind == "family"
    ]
    width = max((len(name) for name, *_ in rows), default=0)
    for name, form, differences, outcome in sorted(rows):
        terminalreporter.write_line(f"{name:{width}}  {outcome}  {form}  {differences}")
