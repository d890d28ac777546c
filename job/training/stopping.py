"""The vote at the end of a step and before each evaluation batch: stop now, save now, or continue.

A signal may reach only one process, and clocks differ. So each process votes, and the most urgent vote applies to all.
The vote uses the CPU: Accelerate's check_trigger would wait for the GPU in every step. A process that does not reach
the next vote in time hangs and is ended.
"""

from __future__ import annotations

import contextlib
import faulthandler
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from job import distributed
from job.config import Run
from job.errors import Stopped
from job.runtime import signals


@dataclass
class Pace:
    """Times of the main process, in seconds.

    Attributes:
        polled: time of the last poll.
        saved: time at which the last checkpoint was started.
        longest: longest time between two polls.
        save: longest time for which a checkpoint delayed training.
    """

    polled: float
    saved: float
    longest: float = 0.0
    save: float = 0.0


class StopVote:
    """Every process must poll it the same number of times."""

    def __init__(self, run: Run, accelerator: Accelerator) -> None:
        self._run, self._main = run, accelerator.is_main_process
        several = accelerator.num_processes > 1
        self._group = distributed.step_group() if several else None
        self._pace = Pace(time.monotonic(), time.monotonic())

    def poll(self) -> bool:
        """Whether a checkpoint is due; the same result on every process.

        Raises:
            Stopped: on every process, if one of them should stop.
        """
        self._note_time()
        votes = torch.tensor([self._reason(), int(self._save_is_due())])
        if self._group is not None:
            torch.distributed.all_reduce(votes, torch.distributed.ReduceOp.MAX, group=self._group)
        reason, save = votes.tolist()
        if reason:
            raise Stopped(signals.in_words(reason))
        return bool(save)

    def saved(self, seconds: float) -> None:
        """A checkpoint was started and delayed training by `seconds`."""
        now = time.monotonic()
        self._pace.saved = self._pace.polled = now
        self._pace.save = max(self._pace.save, seconds)

    @contextlib.contextmanager
    def untimed(self) -> Iterator[None]:
        """Inside this context there is no time limit: a slow disk is waited for. After it, the next step has its own
        limit."""
        faulthandler.cancel_dump_traceback_later()
        yield
        self._limit_step()

    def close(self) -> None:
        """End the polls: what follows has no time limit."""
        faulthandler.cancel_dump_traceback_later()

    def _note_time(self) -> None:
        now = time.monotonic()
        self._pace.longest = max(self._pace.longest, now - self._pace.polled)
        self._pace.polled = now
        self._limit_step()

    def _limit_step(self) -> None:
        """End this process if it does not reach the next poll in time."""
        if self._run.step_timeout_minutes:
            faulthandler.dump_traceback_later(60 * self._run.step_timeout_minutes, exit=True, file=2)

    def _reason(self) -> int:
        if self._main and self._run.max_minutes is not None:
            lead = 2 * (self._pace.longest + self._pace.save)
            if signals.seconds() + lead > 60 * self._run.max_minutes:
                return signals.reason() or signals.TIME_LIMIT
        return signals.reason()

    def _save_is_due(self) -> bool:
        minutes = self._run.save_minutes
        return self._main and minutes is not None and time.monotonic() - self._pace.saved > 60 * minutes
