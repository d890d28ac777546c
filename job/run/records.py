"""metrics.jsonl: one JSON object per line, in order, each record exactly once, even across interruptions.

If the disk is full, a line is kept in memory, written together with a later one, and included in every checkpoint until
then: a record must not end a run, and none may be missing in the end.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Records:
    """The file, open for appending."""

    def __init__(self, path: Path, resumed: Mapping[str, Any] | None = None) -> None:
        """`resumed` is an earlier result of `state`: the file is truncated to that point. None: start empty."""
        self._file = path.open("ab", buffering=0)
        self._held = b"" if resumed is None else str(resumed["held"]).encode()
        self._file.truncate(0 if resumed is None else min(resumed["bytes"], path.stat().st_size))
        self._file.seek(0, os.SEEK_END)

    def add(self, values: Mapping[str, Any]) -> None:
        self._held += (json.dumps(values, allow_nan=False) + "\n").encode()
        with contextlib.suppress(OSError):
            self.flush()

    def flush(self) -> None:
        """Write the pending lines.

        Raises:
            OSError: they could not be written and are still pending.
        """
        while self._held:
            self._held = self._held[self._file.write(self._held) :]

    def state(self) -> dict[str, Any]:
        """The size of the file on disk, and the pending lines."""
        with contextlib.suppress(OSError):
            self.flush()
            os.fsync(self._file.fileno())
        return {"bytes": self._file.tell(), "held": self._held.decode()}

    def close(self) -> None:
        self._file.close()
