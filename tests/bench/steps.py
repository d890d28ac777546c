"""Times a contestant's steps from outside, in the process of several contestants; see gpu.py.

Offers a contestant what turns.Turns offers, but waits for nobody.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.optim.optimizer import register_optimizer_step_post_hook

from tests.bench.turns import Turns, counter


class Steps:
    """What was measured of one contestant.

    Attributes:
        total_steps: optimizer steps to run: one, then warm-up, timed and profiled ones.
        warmup, steps_per_turn, rounds, evaluations: as contestants.py asks for them.
        seconds, real, computed: of the timed steps: how long they took, and their tokens without and with padding.
        host_seconds: of a step, what the host did but wait for the device. device_seconds: of a step, kernels and
            copies. kernels: number of these. All seen by the profiler, which adds a little to the host's time.
        evaluated_examples, evaluated_seconds: of the evaluation.
    """

    def __init__(self, steps: int, warmup: int, profiled: int) -> None:
        self.warmup, self.rounds, self.evaluations = warmup, 1, 1
        self.steps_per_turn = warmup + steps + profiled
        self.total_steps = 1 + self.steps_per_turn
        self.seconds = self.host_seconds = self.device_seconds = self.evaluated_seconds = 0.0
        self.real = self.computed = self.evaluated_examples = self.kernels = 0
        self._begin, self._end, self._profiled = 1 + warmup, 1 + warmup + steps, profiled
        self._done, self._mark = 0, (0.0, 0, 0)
        self._profiler: Any = None
        self._computed, self._real = counter(), counter()
        self._hook = register_optimizer_step_post_hook(self._stepped)

    clock = staticmethod(Turns.clock)
    watch = Turns.watch

    def close(self) -> None:
        self._hook.remove()
        if self._profiler is not None:  # the row ended in a profiled step
            self._profiler.stop()
            self._profiler = None

    @contextmanager
    def evaluation(self, examples: int) -> Iterator[None]:
        begun = self.clock()
        yield
        self.evaluated(examples, self.clock() - begun)

    def evaluated(self, examples: int, seconds: float) -> None:
        self.evaluations = 0
        self.evaluated_examples, self.evaluated_seconds = examples, seconds

    def _stepped(self, *_: Any) -> None:
        self._done += 1
        if self._done == self._begin:
            self._mark = (self.clock(), int(self._computed), int(self._real))
        elif self._done == self._end:
            begun, computed, real = self._mark
            self.seconds = self.clock() - begun
            self.computed, self.real = int(self._computed) - computed, int(self._real) - real
            self._start_profiler()
        elif self._done == self.total_steps:
            self._stop_profiler()

    def _start_profiler(self) -> None:
        if torch.cuda.is_available():
            self._profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
            self._profiler.start()
            self._mark = (self.clock(), 0, 0)

    def _stop_profiler(self) -> None:
        if self._profiler is None:
            return
        wall = time.perf_counter() - self._mark[0]
        self.clock()
        self._profiler.stop()
        events = self._profiler.key_averages()
        device = [e for e in events if e.device_type == DeviceType.CUDA and "Sync" not in e.key]
        waits = sum(e.self_cpu_time_total for e in events if "Synchronize" in e.key)
        self.device_seconds = sum(e.self_device_time_total for e in device) / 1e6 / self._profiled
        self.kernels = sum(e.count for e in device) // self._profiled
        self.host_seconds = wall / self._profiled - waits / 1e6 / self._profiled
        self._profiler = None
