"""Rejects models that keep statistics of the rows that they are trained on, such as batch normalization.

What such a model computes of a row in training depends on the other rows of its micro-batch: the gradient of a global
batch would change with its split, and each process would keep statistics of its own rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from job.errors import Refused

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def refuse(model: PreTrainedModel, row: dict[str, torch.Tensor]) -> None:
    """Refused if training on a row changes a buffer and, by that, what the model computes. The model is not changed.

    I-BERT records ranges that it does not use until it is quantized.
    """
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    if not any(buffer.is_floating_point() for buffer in before.values()):
        return
    was_training = model.training
    try:
        with torch.no_grad():
            expected = _logits(model.eval(), row)
            _logits(model.train(), row)
            changed = [name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])]
            if not changed or torch.allclose(_logits(model.eval(), row), expected, equal_nan=True):
                return
    finally:
        model.train(was_training)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(before[name])
    raise Refused(f"{type(model).__name__} keeps statistics of the rows of a batch ({changed[0]}), so its training "
                  "would depend on how batches are split: choose another model")  # fmt: skip


def _logits(model: PreTrainedModel, row: dict[str, torch.Tensor]) -> torch.Tensor:
    return model.forward(**row).logits  # not __call__, which may be compiled
