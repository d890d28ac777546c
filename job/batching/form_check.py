"""Checks that batched rows give the same results as rows computed one by one: hidden states, logits and gradients.

A few rows of all splits are compared (job/batching/form_sample.py). Errors are measured in fp32. Under mixed precision
that form is compared too; its error may then be a few times that of rows computed one by one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from accelerate import Accelerator

from job import distributed
from job.batching import collate, form_sample, oom
from job.batching.collate import Collate, Padding
from job.data.dataset import Split
from job.errors import Refused

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3
"""Relative errors allowed in fp32, a hundred times the rounding error."""
LOGITS_TOLERANCE = 0.05
"""The same for logits under mixed precision, where the rounding error of a few outputs is not measured well."""
NOISE = 4
"""How many times the rounding error of single rows a form's error may be, under mixed precision."""


FAILURES = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError)
"""What a model's own code raises on inputs that it does not support."""


@contextmanager
def refusing_failures(model: PreTrainedModel, what: str) -> Iterator[None]:
    """Refused if the model's own code fails, except when it runs out of memory or the device fails."""
    try:
        yield
    except FAILURES as error:
        if oom.is_out_of_memory(error) or isinstance(error, torch.AcceleratorError):
            raise
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise Refused(f"{type(model).__name__} {what} ({said}): choose another model") from error


@dataclass(frozen=True)
class Outputs:
    """Outputs of a model for some rows, in fp32.

    Attributes:
        hidden: [tokens, H] for each row, from the base model; only the first token if its output has no others.
        logits: [rows, C].
        gradient: of every parameter that has one; empty without a backward pass.
    """

    hidden: tuple[torch.Tensor, ...]
    logits: torch.Tensor
    gradient: dict[str, torch.Tensor]

    def finite(self) -> bool:
        return bool(torch.isfinite(self.logits).all()) and all(bool(torch.isfinite(h).all()) for h in self.hidden)


class Check:
    """Compares forms of the forward pass with rows computed one by one, which are computed only once."""

    def __init__(
        self,
        model: PreTrainedModel,
        padding: Padding,
        splits: Sequence[Split],
        accelerator: Accelerator,
        backward: bool,
    ) -> None:
        """`model`: on the device, as loaded. The single rows are computed now, before a form changes the model."""
        self._model, self._accelerator, self._backward = model, accelerator, backward
        self._sample = form_sample.sample(splits)
        self._left = padding.left
        self._mixed = accelerator.mixed_precision != "no" or accelerator.device.type == "cuda"
        alone = partial(collate.padded, replace(self._sample.split, pad_to=None), padding)
        single = self._sample.alone
        with distributed.raise_on_all(accelerator), refusing_failures(model, "cannot compute a row of the data"):
            try:
                self._exact = self._compute(alone, single, exactly=True, seed=0)
            except AssertionError:  # Reformer computes gradients in training mode only
                self._backward = False
                self._exact = self._compute(alone, single, exactly=True, seed=0)
            self._usual = self._compute(alone, single, exactly=False, seed=0) if self._mixed else self._exact

    def conclusive(self) -> bool:
        """Whether the outputs of single rows are finite on every process, so that they can be compared; a collective.

        One device may give a NaN where another does not: processes that differ would choose different forms.
        """
        finite = self._exact.finite() and self._usual.finite()
        return not distributed.all_reduce_any(self._accelerator, not finite)

    def disagreement(self, make: Callable[[Split], Collate], kind: Literal["packed", "padded", "equal"]) -> str | None:
        """How a form differs from single rows, in words, the same on every process; None if it does not.

        Args:
            make: the form's collate function of a split; the model takes these inputs.
            kind: of the form.
        """
        batches = [self._sample.together] if kind != "equal" else self._sample.pairs
        found = self._compared(make(self._sample.split), batches, kind)
        return distributed.first_error(self._accelerator, found)

    def _compared(self, make: Collate, batches: Sequence[np.ndarray], kind: str) -> str | None:
        on_cpu = self._accelerator.device.type == "cpu"
        try:
            if on_cpu or not self._mixed:  # a GPU uses different kernels for fp32
                error = _difference(self._compute(make, batches, exactly=True, seed=1), self._exact, self._exact)
                if error is not None:
                    return f"{kind} rows differ from rows computed one by one: {error}"
            if self._mixed:
                error = _difference(self._compute(make, batches, exactly=False, seed=1), self._exact, self._usual)
                if error is not None:
                    return f"{kind} rows differ from rows computed one by one: {error}"
        except FAILURES as raised:
            return f"the {kind} forward pass fails ({' '.join(str(raised).split())[:200]})"
        return None

    def _compute(self, make: Collate, batches: Sequence[np.ndarray], exactly: bool, seed: int) -> Outputs:
        """The outputs of the sample's rows: the first row of each batch, or all rows if there is only one batch."""
        model, device = self._model, self._accelerator.device
        hidden: list[torch.Tensor] = []
        logits: list[torch.Tensor] = []
        with _as_it_was(model, device), _captured_hidden_states(model) as captured, ExitStack() as precision:
            torch.manual_seed(seed)
            precision.enter_context(torch.set_grad_enabled(self._backward))
            precision.enter_context(_exact_products() if exactly else self._accelerator.autocast())
            for rows in batches:
                counted = len(rows) if len(batches) == 1 else 1
                inputs = collate.moved(make(rows), device)[0]
                output = model._call_impl(**inputs).logits[:counted].float()  # bypasses torch.compile
                if self._backward:
                    (output * _weights(output)).sum().backward()
                logits.append(output.detach())
                if captured:
                    mask = inputs["packed"].mask if "packed" in inputs else inputs["attention_mask"]
                    lengths = self._sample.split.lengths[rows[:counted]].tolist()
                    hidden += _rows_of(captured.pop(), lengths, mask.shape[1], self._left)
            gradient = {n: p.grad.float() for n, p in model.named_parameters() if p.grad is not None}
        return Outputs(tuple(hidden), torch.cat(logits), gradient)


def _rows_of(hidden: torch.Tensor, lengths: Sequence[int], width: int, left: bool) -> list[torch.Tensor]:
    """The tokens of each row of [b, width, H]; only the first token of an output with another width."""
    if hidden.shape[1] != width:
        return list(hidden[: len(lengths), :1])
    return [row[-n:] if left else row[:n] for row, n in zip(hidden, lengths, strict=False)]


def _weights(logits: torch.Tensor) -> torch.Tensor:
    """[C], weights of the sum of logits whose gradient is compared; each logit has a different weight."""
    return torch.arange(logits.shape[1], device=logits.device).cos()


def _difference(found: Outputs, exact: Outputs, usual: Outputs) -> str | None:
    """Which part of `found` is further from `exact` than rounding explains; `usual` shows the rounding error."""
    rounded = usual is not exact
    for row, true, near in zip(found.hidden, exact.hidden, usual.hidden, strict=True):
        n = min(len(row), len(true))
        if (error := _excess([row[:n]], [true[:n]], [near[:n]], TOLERANCE)) is not None:
            return f"hidden states by {error:.2g} of their size"
    tolerance = LOGITS_TOLERANCE if rounded else TOLERANCE
    if (error := _excess([found.logits], [exact.logits], [usual.logits], tolerance)) is not None:
        return f"logits by {error:.2g} of their size"
    if found.gradient.keys() != exact.gradient.keys():
        return f"parameters with a gradient: {sorted(found.gradient.keys() ^ exact.gradient.keys())[:2]}"
    of_found, of_exact, of_usual = ([o.gradient[name] for name in exact.gradient] for o in (found, exact, usual))
    if (error := _excess(of_found, of_exact, of_usual, GRADIENT_TOLERANCE)) is not None:
        return f"gradients by {error:.2g} of their size"
    return None


def _excess(
    found: Sequence[torch.Tensor], exact: Sequence[torch.Tensor], usual: Sequence[torch.Tensor], tolerance: float
) -> float | None:
    """The joint relative error of some tensors, if it is too large or NaN; else None."""
    size = _norm(exact)
    error = _norm([f - e for f, e in zip(found, exact, strict=True)])
    noise = _norm([u - e for u, e in zip(usual, exact, strict=True)])
    return None if error <= NOISE * noise + tolerance * size else error / max(size, 1e-30)


def _norm(tensors: Sequence[torch.Tensor]) -> float:
    if not tensors:
        return 0.0
    return float(torch.stack([torch.linalg.vector_norm(tensor.float()) for tensor in tensors]).norm())


@contextmanager
def _captured_hidden_states(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Appends the base model's output [b, L, H] to the list in each forward pass."""
    captured: list[torch.Tensor] = []

    def capture(base: Any, args: Any, output: Any) -> None:
        hidden = getattr(output, "last_hidden_state", None)
        hidden = output[0] if hidden is None else hidden
        if isinstance(hidden, torch.Tensor) and hidden.dim() == 3:
            captured.append(hidden.detach().float())

    hook = model.base_model.register_forward_hook(capture)
    try:
        yield captured
    finally:
        hook.remove()


@contextmanager
def _as_it_was(model: PreTrainedModel, device: torch.device) -> Iterator[None]:
    """Evaluation mode inside this context; afterwards, mode, gradients and random states are restored."""
    was_training, states = model.training, (random.getstate(), np.random.get_state())
    model.eval()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        model.train(was_training)
        model.zero_grad(set_to_none=True)
        random.setstate(states[0])
        np.random.set_state(states[1])


@contextmanager
def _exact_products() -> Iterator[None]:
    """Without TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
