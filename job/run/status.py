"""status.json: the state of a run, for users and for the launcher's `status`.

A thread writes the heartbeat, so that a run with a long step or a long tokenization does not look dead. If the disk is
full, the old status remains: a heartbeat must not end a run.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from job.errors import NeedsHuman, Pruned, Stopped
from job.run import lock
from job.run.folder import RunFolder
from job.runtime import files


class Status:
    """The status of a run: `step` of `steps` (None until known). Only the main process writes it."""

    def __init__(self, folder: RunFolder, main: bool) -> None:
        self.step = 0
        self.steps: int | None = None
        self._folder, self._main = folder, main
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    @classmethod
    def of_finished(cls, folder: RunFolder) -> Status:
        """The status of a run that has finished before, with the steps that it recorded."""
        status, before = cls(folder, main=True), lock.read_status(folder.path)
        status.step, status.steps = before.get("step", 0), before.get("steps")
        return status

    def write(self, state: str, reason: str = "") -> None:
        """Replace status.json. `state` is RUNNING, STOPPED, DONE, FAILED or NEEDS_HUMAN; times are UTC."""
        if self._main:
            value = {"state": state, "step": self.step, "steps": self.steps, "reason": reason, "owner": lock.owner(),
                     "heartbeat": files.utc_now("milliseconds")}  # fmt: skip
            with contextlib.suppress(OSError):
                files.write_json(self._folder.status, value)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """RUNNING with a heartbeat inside this context; then DONE, or the state and reason of the error."""
        self.write("RUNNING")
        self._thread.start()
        try:
            yield
        except BaseException as error:
            self._stop_heartbeat()
            self.end(error)
            raise
        self._stop_heartbeat()
        self.write("DONE")

    def end(self, error: BaseException) -> None:
        """Write the state and reason of a run that ended with an error."""
        self.write(_state(error), _reason(error))

    def _stop_heartbeat(self) -> None:
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        while self._main and not self._ended.wait(lock.HEARTBEAT_SECONDS):
            self.write("RUNNING")


def _state(error: BaseException) -> str:
    if isinstance(error, Stopped | Pruned):
        return "STOPPED" if isinstance(error, Stopped) else "DONE"
    return "NEEDS_HUMAN" if isinstance(error, NeedsHuman) else "FAILED"


def _reason(error: BaseException) -> str:
    if isinstance(error, Pruned):
        return "pruned"
    text = " ".join(str(error).split())
    return text if isinstance(error, Stopped) else f"{type(error).__name__}: {text}"[:500]
