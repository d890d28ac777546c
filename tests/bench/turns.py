"""Turns: how contestants in processes of their own compute one at a time and are timed by the same clock.

A contestant is plain user code that knows nothing of this. After every optimizer step PyTorch calls a hook here, which
counts steps, reads the clock and, at the end of a turn, tells the conductor and blocks until the next one. What is
timed is therefore the whole period of a step: data, forward, backward, clipping, optimizer, schedule, logging.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def counter() -> torch.Tensor:
    """0, where the model will be: a count that moved to the device in the first step would be compiled twice."""
    return torch.zeros((), dtype=torch.int64, device="cuda" if torch.cuda.is_available() else "cpu")


class Turns:
    """The contestant's end of the conversation with the conductor.

    Each message out is one JSON line: "first" after the first optimizer step, "train" after the last step of each turn,
    "evaluation" after each timed evaluation, "end". After each but the last, the process waits for a line.

    Attributes:
        total_steps: optimizer steps to run: one, then `warmup` untimed and `steps` timed ones in each round.
        steps_per_turn, warmup, rounds: turns after the first step, the steps of each, and how many of these, the
            first, are not timed.
        evaluations: how often to evaluate after training; counts down.
    """

    def __init__(
        self,
        out: IO[str],
        steps: int,
        rounds: int,
        warmup: int,
        evaluations: int,
        trimmed: bool,
        started: float,
        **_: Any,
    ) -> None:
        self._out, self._steps, self.warmup, self._started = out, steps, warmup, started
        self.steps_per_turn, self.rounds, self._done = warmup + steps, rounds, 0
        self.evaluations, self._trimmed = evaluations, trimmed
        self.total_steps = 1 + (rounds * self.steps_per_turn if rounds else steps)
        self._mark = (0.0, 0, 0)
        self._computed, self._real = counter(), counter()
        register_optimizer_step_post_hook(self._stepped)

    def watch(self, model: PreTrainedModel) -> None:
        """Count the tokens that the model's embedding is given in training, and how many of them are no padding."""
        padding: int = model.config.pad_token_id

        def count(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            if module.training:  # tensors, not Python numbers: a compiled model would be compiled again for each value
                self._computed = self._computed + given[0].numel()
                self._real = self._real + given[0].ne(padding).sum()

        model.get_input_embeddings().register_forward_pre_hook(count)

    def pause(self, kind: str, **values: Any) -> None:
        """Tell the conductor and wait for the next turn; release cached memory for the others first."""
        if self._trimmed:
            with suppress(AttributeError):  # where the C library is not glibc
                ctypes.CDLL(None).malloc_trim(0)
        self.tell(kind, **values)
        if not sys.stdin.readline():
            raise SystemExit("the conductor is gone")

    def tell(self, kind: str, **values: Any) -> None:
        self._out.write(json.dumps({"kind": kind, **values}) + "\n")
        self._out.flush()

    @contextmanager
    def evaluation(self, examples: int) -> Iterator[None]:
        """Time one evaluation of this many examples."""
        begun = self.clock()
        yield
        self.evaluated(examples, self.clock() - begun)

    def evaluated(self, examples: int, seconds: float) -> None:
        """Report an evaluation that was timed elsewhere; evaluations beyond the requested ones are not a turn."""
        if self.evaluations:
            self.evaluations -= 1
            self.pause("evaluation", examples=examples, seconds=seconds)

    def _stepped(self, *_: Any) -> None:
        self._done += 1
        into = (self._done - 1) % self.steps_per_turn if self.rounds else -1
        if self._done == 1:
            self.clock()
            self.pause("first", seconds=time.time() - self._started)
        elif into == 0 and self._done <= self.total_steps:
            begun, computed, real = self._mark
            seconds = self.clock() - begun
            computed, real = int(self._computed) - computed, int(self._real) - real
            self.pause("train", steps=self._steps, seconds=seconds, computed=computed, real=real)
        if into in (0, self.warmup):
            self._mark = (self.clock(), int(self._computed), int(self._real))

    @staticmethod
    def clock() -> float:
        """Seconds, after the GPU has finished all its work."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()
