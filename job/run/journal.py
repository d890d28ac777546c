"""The journal of a search: one line per operation of Optuna, appended by all trials.

An append that is cut off, by a full disk or with its node, leaves half a line. Optuna would write the next operation
behind it, and from then on no trial could read the journal. So the lock that each append takes removes half a line
first. No reader is misled: Optuna reads a line only when it is complete.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from job.errors import Refused


class MendingLock:
    """A lock of Optuna's journal, which removes half a line at the end of `journal` when it is acquired."""

    def __init__(self, lock: Any, journal: Path) -> None:
        self._lock, self._journal = lock, journal

    def acquire(self) -> bool:
        self._lock.acquire()
        try:
            drop_half_line(self._journal)
        except BaseException:
            self._lock.release()
            raise
        return True

    def release(self) -> None:
        self._lock.release()


def drop_half_line(journal: Path) -> None:
    """Remove what follows the last line's end."""
    with open(journal, "r+b") as file:
        content = file.read()
        complete = content.rfind(b"\n") + 1
        if complete < len(content):
            file.truncate(complete)


def refuse_damage(journal: Path) -> None:
    """Refused if a complete line is not JSON; half a line at the end is removed by the next append."""
    lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            json.loads(line)
        except ValueError:
            raise Refused(f"{journal}: line {number} is damaged: when none of the search's runs is active, delete that "
                          "line, and start the sweep again") from None  # fmt: skip
