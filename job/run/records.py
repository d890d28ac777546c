"""metrics.jsonl: a JSON object a line, in order, each once, also over interruptions.

A line that a full disk does not take is held, written with a later one, and part of every checkpoint until then: a
record is no reason to end a run, and none may be missing in the end.
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
        """`resumed` is what `state` gave: the file is cut back to that moment. None: it begins empty."""
        self._file = path.open("ab", buffering=0)
        self._held = b"" if resumed is None else str(resumed["held"]).encode()
        self._file.truncate(0 if resumed is None else min(resumed["bytes"], path.stat().st_size))
        self._file.seek(0, os.SEEK_END)

    def add(self, values: Mapping[str, Any]) -> None:
        self._held += (json.dumps(values, allow_nan=False) + "\n").encode()
        with contextlib.suppress(OSError):
            self.flush()

    def flush(self) -> None:
        """Write what is held.

        Raises:
            OSError: the disk does not take it; it is still held.
        """
        while self._held:
            self._held = self._held[self._file.write(self._held) :]

    def state(self) -> dict[str, Any]:
        """How far the file is, on the disk itself, and what it lacks."""
        with contextlib.suppress(OSError):
            self.flush()
            os.fsync(self._file.fileno())
        return {"bytes": self._file.tell(), "held": self._held.decode()}

    def close(self) -> None:
        self._file.close()
