"""Records of a run while it trains: metrics.jsonl, trackers, and a progress bar or log lines.

The loop passes tensors; every logging_steps they are converted to numbers here, which waits for the device. On a
terminal there is a progress bar, in a log file one line per record.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from job.run import progress
from job.run.context import RunContext
from job.run.records import Records
from job.run.trackers import Trackers
from job.runtime import memory
from job.runtime.console import log


@dataclass(frozen=True)
class Step:
    """What a record says of its last step alone."""

    grad_norm: torch.Tensor | float
    learning_rate: float
    epoch: float


@dataclass
class Window:
    """Sums over the steps since the last record, and the last of these steps; None if there was none."""

    last: Step | None = None
    loss: torch.Tensor | None = None
    weight: float = 0.0
    examples: int = 0
    real_tokens: int = 0
    computed_tokens: int = 0
    started: float = 0.0
    stall: float = 0.0


class Recorder:
    """Records the progress of a run. Only the main process writes; on other processes nothing is recorded."""

    def __init__(self, context: RunContext, steps: int, resumed: Mapping[str, Any] | None = None) -> None:
        """`steps`: of the whole run. `resumed`: result of `state` in the checkpoint; metrics.jsonl is truncated to that
        point."""
        self._accelerator, self._status = context.accelerator, context.status
        self._trackers = Trackers(context.accelerator)
        self._every, self.steps = context.config.run.logging_steps, steps
        self._main = context.accelerator.is_main_process
        self._window = Window(started=time.monotonic())
        self.step, self.examples, self.tokens, self.seconds, self.stall = 0, 0, 0, 0.0, 0.0
        self._skipped = torch.zeros((), dtype=torch.int64, device=context.accelerator.device)
        if resumed is not None:
            self._resume(resumed)
        self._records = Records(context.folder.metrics, resumed and resumed["records"]) if self._main else None
        self.peak_memory = memory.anonymous_bytes()
        self._open = contextlib.ExitStack()
        self._bar = self._open.enter_context(progress.bar("training", steps, self.step, unit="step", shown=self._main))
        self._status.step, self._status.steps = self.step, steps

    def _resume(self, state: Mapping[str, Any]) -> None:
        self.step, self.examples, self.tokens = state["step"], state["examples"], state["tokens"]
        self.seconds, self.stall = state["seconds"], state["stall"]
        self._skipped += state.get("skipped", 0)
        window = state["window"]
        if window.get("last") is not None:
            self._window.last = Step(**window["last"])
        if window["loss"] is not None:
            self._window.loss = torch.tensor(window["loss"], device=self._accelerator.device)
        self._window.weight = window.get("weight", window["examples"])
        self._window.examples, self._window.real_tokens = window["examples"], window["real_tokens"]
        self._window.computed_tokens, self._window.stall = window["computed_tokens"], window["stall"]
        self._window.started -= window["seconds"]

    def state(self) -> dict[str, Any]:
        """The exact state as plain values; the records so far are on disk."""
        window = self._window
        return {
            "step": self.step,
            "examples": self.examples,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "stall": self.stall,
            "skipped": int(self._skipped),
            "records": None if self._records is None else self._records.state(),
            "window": {
                "last": None
                if window.last is None
                else {**vars(window.last), "grad_norm": float(window.last.grad_norm)},
                "loss": None if window.loss is None else window.loss.item(),
                "weight": window.weight,
                "examples": window.examples,
                "real_tokens": window.real_tokens,
                "computed_tokens": window.computed_tokens,
                "stall": window.stall,
                "seconds": time.monotonic() - window.started,
            },
        }

    def stalled(self, seconds: float) -> None:
        """A checkpoint delayed training by `seconds`."""
        self._window.stall += seconds
        self.stall += seconds

    def train_step(
        self,
        *,
        loss: tuple[torch.Tensor, float],
        grad_norm: torch.Tensor,
        learning_rate: float,
        epoch: float,
        examples: int,
        tokens: tuple[int, int],
    ) -> None:
        """Record one optimizer step: (summed loss, what it is divided by), gradient norm, (real, computed) tokens."""
        if self._accelerator.scaler is not None:  # it skips a step whose gradients are not finite
            self._skipped += ~torch.isfinite(grad_norm)
        window = self._window
        window.last = Step(grad_norm, learning_rate, epoch)
        window.loss = loss[0] if window.loss is None else window.loss + loss[0]
        window.weight += loss[1]
        window.examples += examples
        window.real_tokens += tokens[0]
        window.computed_tokens += tokens[1]
        self.step += 1
        self._status.step = self.step
        self.examples += examples
        self.tokens += tokens[0]
        self._bar.update()
        if self.step % self._every == 0 or self.step == self.steps:
            self._record_window(window.last)

    def _record_window(self, last: Step) -> None:
        window = self._window
        assert window.loss is not None
        loss, norm = window.loss.item(), float(last.grad_norm)  # the only place that waits for the device
        seconds = time.monotonic() - window.started
        self._end_window()
        self._record(
            {
                "step": self.step,
                "epoch": round(last.epoch, 4),
                "split": "train",
                "loss": loss / window.weight,
                "learning_rate": last.learning_rate,
                "grad_norm": norm,
                "examples_per_second": round(window.examples / seconds, 2),
                "tokens_per_second": round(window.real_tokens / seconds, 1),
                "padding_fraction": round(1 - window.real_tokens / window.computed_tokens, 4),
                "checkpoint_stall_seconds": round(window.stall, 4),
                **self.skipped,
            }
        )

    @property
    def skipped(self) -> dict[str, int]:
        """{"skipped_steps": number of steps so far whose gradients overflowed in fp16}; {} in other precisions."""
        return {} if self._accelerator.scaler is None else {"skipped_steps": int(self._skipped)}

    def _end_window(self) -> None:
        self.peak_memory = max(self.peak_memory, memory.anonymous_bytes())
        now = time.monotonic()
        self.seconds += now - self._window.started
        self._window = Window(started=now)

    def evaluated(self, epoch: float, scores: Mapping[str, float], best: bool, seconds: float) -> None:
        """Record an evaluation; its `seconds` do not count as training."""
        self._window.started += seconds
        self._record({"step": self.step, "epoch": round(epoch, 4), "split": "eval", **scores, "best": best})

    def merged(self, step: int, epoch: float, scores: Mapping[str, float]) -> None:
        """Take in the evaluation of the model of `step` with its adapters merged."""
        self._record({"step": step, "epoch": round(epoch, 4), "split": "merged", **scores})

    def finish(self) -> None:
        """End the time of training, and record the steps since the last record: early stopping may leave some."""
        if self._window.last is None:
            self._end_window()
        else:
            self._record_window(self._window.last)

    def flush(self) -> None:
        """Write all pending records.

        Raises:
            OSError: metrics.jsonl could not be written.
        """
        if self._records is not None:
            self._records.flush()

    def close(self) -> None:
        self._open.close()
        if self._records is not None:
            self._records.close()

    def _record(self, values: dict[str, Any]) -> None:
        numbers = {k: v for k, v in values.items() if isinstance(v, int | float) and k != "step"}
        self._trackers.log({f"{values['split']}/{k}": v for k, v in numbers.items()}, step=values["step"])
        if self._records is None:
            return
        self._records.add({k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in values.items()})
        self._show(values)

    def _show(self, values: Mapping[str, Any]) -> None:
        if values["split"] == "train" and not self._bar.disable:
            self._bar.set_postfix_str(f"loss {values['loss']:.3f}, {values['examples_per_second']:.1f} examples/s")
        else:
            log.info(line(values, self.steps))


def line(values: Mapping[str, Any], steps: int) -> str:
    """One record as a line of text."""
    head = f"step {values['step']}/{steps}  epoch {values['epoch']:.2f}  {values['split']:5}  loss {values['loss']:.4f}"
    if values["split"] == "train":
        skipped = f"  {values['skipped_steps']} steps skipped" if values.get("skipped_steps") else ""
        return (f"{head}  lr {values['learning_rate']:.2e}  grad norm {values['grad_norm']:.2f}  "
                f"{values['examples_per_second']:.1f} examples/s{skipped}")  # fmt: skip
    shown = {k: v for k, v in values.items() if k not in ("step", "epoch", "split", "loss", "best")}
    numbers = "  ".join(f"{name} {v:.4f}" if isinstance(v, float) else f"{name} {v}" for name, v in shown.items())
    return f"{head}  {numbers}{'  (best so far)' if values.get('best') else ''}"
