"""The form of a run's forward passes: packed, padded, or micro-batches of rows of equal length.

A row's prediction must not depend on the rows that it is batched with. Whether it does cannot be seen reliably in the
model's class. So the start of a run computes a few rows one by one, without padding, and uses the first form that gives
the same results: packed, padded, equal lengths. A model for which no form does is rejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from accelerate import Accelerator

from job.batching import collate, form_check
from job.batching.collate import Collate, PackedFormat, Padding
from job.batching.planner import EQUAL, PADDED, Shape
from job.config import Config
from job.data.dataset import Split
from job.errors import Refused
from job.model import cuda_attention, packing
from job.model.cpu_attention import BF16_MULTIPLE
from job.model.loading import attention_dropout

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PADDED_LEFT = ("xlnet",)
"""Model types that need padding on the left; all others are padded on the right, regardless of their tokenizer."""


@dataclass(frozen=True)
class Form:
    """How micro-batches are laid out in this run.

    Attributes:
        shape: of the tensors.
        packing: how rows are packed, if they are.
        padding: how rows are padded, if they are.
        reason: why rows are not packed; None if they are.
    """

    shape: Shape
    packing: PackedFormat
    padding: Padding
    reason: str | None = None

    @property
    def packed(self) -> bool:
        return self.shape.kind == "packed"

    def collate(self, split: Split) -> Collate:
        """The function that makes tensors from this split's rows."""
        if self.packed:
            return partial(collate.packed, split, self.packing)
        return partial(collate.padded, split, self.padding)

    def __str__(self) -> str:
        name = "micro-batches of equal length" if self.shape.kind == "equal" else self.shape.kind
        return name if self.reason is None else f"{name}: {self.reason}"


def choose(
    config: Config,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    splits: Sequence[Split],
    accelerator: Accelerator,
) -> Form:
    """The first form that gives the same results as rows computed one by one; the same on every process.

    Moves the model to the device and, if it will be packed, prepares it for that. The model is otherwise unchanged: no
    gradients remain and no random numbers are drawn. The tokenizer's padding side is set to the one that is used.

    Args:
        config: of the run.
        model: before `accelerator.prepare`.
        tokenizer: of the model.
        splits: all splits of the run.
        accelerator: of the run.

    Raises:
        Refused: on every process: no form does, or --pad_to_max_length requests one that does not.
    """
    model.to(accelerator.device)
    form = _packed_form(model, tokenizer, splits, accelerator)
    tokenizer.padding_side = "left" if form.padding.left else "right"
    reason = _against_packing(config, model, splits, accelerator) or packing.obstacle(model)
    check = form_check.Check(model, form.padding, splits, accelerator, backward=config.training.do_train)
    if not check.conclusive():
        return replace(form, shape=PADDED, reason="the model's outputs are not finite")
    if reason is None:
        disable = packing.enable(model)
        reason = check.disagreement(form.collate, "packed")
        if reason is None:
            return form
        disable()
    padded = replace(form, shape=PADDED, reason=reason)
    found = check.disagreement(padded.collate, "padded")
    if found is None:
        return padded
    name = type(model).__name__
    if any(split.pad_to is not None for split in splits):
        raise Refused(f"--pad_to_max_length: padding changes the results of {name}: remove it")
    equal = replace(form, shape=EQUAL, reason=f"padding changes the results of {name}")
    if check.disagreement(equal.collate, "equal") is not None:
        raise Refused(f"{name}: the result for a row is random or depends on other rows ({found}), so predictions are "
                      "not reproducible: choose another model")  # fmt: skip
    return equal


def _packed_form(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, splits: Sequence[Split], accelerator: Accelerator
) -> Form:
    on_cpu = accelerator.device.type == "cpu"
    padding = Padding(
        token_id=_required(tokenizer.pad_token_id),
        type_id=tokenizer.pad_token_type_id,
        left=model.config.model_type in PADDED_LEFT,
    )
    packed = PackedFormat(
        pad_token_id=padding.token_id,
        padding_position=packing.padding_position(model),
        round_to=BF16_MULTIPLE if on_cpu and accelerator.mixed_precision == "bf16" else 1,
        longest=max(int(split.lengths.max()) for split in splits),
        with_lengths=on_cpu,
    )
    return Form(Shape("packed", packed.round_to), packed, padding)


def _required(pad_token_id: int | None) -> int:
    assert pad_token_id is not None  # job/model/loading.py gives the tokenizer one
    return pad_token_id


def _against_packing(
    config: Config, model: PreTrainedModel, splits: Sequence[Split], accelerator: Accelerator
) -> str | None:
    """Why the settings rule out packing; None if they do not."""
    device = accelerator.device.type
    if not config.model.packing:
        return "--no_packing"
    if any(split.pad_to is not None for split in splits):
        return "--pad_to_max_length"
    if config.model.attn_implementation is not None:
        return f"--attn_implementation {config.model.attn_implementation}"
    if config.model.torch_compile and device == "cpu":
        return "--torch_compile would recompile for every batch shape on a CPU"
    if device not in ("cpu", "cuda"):
        return f"no packed attention kernel for {device}"
    in_fp32 = device == "cuda" and accelerator.mixed_precision == "no"
    if in_fp32 and config.training.do_train and attention_dropout(model.config):
        return cuda_attention.NO_DROPOUT
    return None
