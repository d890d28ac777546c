"""Forward passes without padding: the sequences of a micro-batch laid end to end, [1, T] for all of them.

Every layer but attention treats tokens alone, so only attention must know where a sequence ends. Transformers hands
keyword arguments of the model down to its attention function: a function registered there keeps the sequences apart,
and the model stays its own: its forward, its modules, its weights, its DDP hooks. The last layer computes the first
token of each sequence only, the one that these classification heads read.

The library's own way (position_ids that start anew, flash attention) runs with one attention kernel only and, with
others, silently lets sequences see each other. Hence the rule here: a model is packed if its class is known, and if
rows computed both ways agree at the start of this very run. Else its micro-batches are padded, and a line says why.

    b  sequences     T  tokens of all of them     H  heads     D  channels of a head

On a CPU in bf16 each new T costs the compiling of matrix products (attention.MULTIPLE): there T is filled up to a
multiple, with padding behind the last sequence that nothing reads.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator

from job import distributed
from job.batching import collate
from job.batching.collate import Collate, Tensors
from job.config import Config
from job.data.dataset import Split
from job.model import cpu_attention, cuda_attention
from job.run import manifest
from job.run.folder import RunFolder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NAME = "muster_packed"
CHECKED_ROWS = 4


class Layout(NamedTuple):
    """Where the sequences of a micro-batch lie.

    Attributes:
        lengths: of the sequences, in their order.
        bounds: int32[b + 1], where each begins, and where the last one ends.
    """

    lengths: tuple[int, ...]
    bounds: torch.Tensor


@dataclass(frozen=True)
class Form:
    """How micro-batches are laid out in this run.

    Attributes:
        padded_because: None where they are packed.
        model: on the device, unwrapped.
        tokenizer: of the model.
        multiple: of which the tokens of a packed micro-batch are; 0 where they are padded.
    """

    padded_because: str | None
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    multiple: int

    @property
    def packed(self) -> bool:
        return self.padded_because is None

    def collate(self, split: Split) -> Collate:
        """What makes tensors of this split's rows."""
        if self.packed:
            return partial(packed, split, self.model, self.multiple)
        return partial(collate.padded, split, self.tokenizer)

    def __str__(self) -> str:
        return "packed" if self.packed else f"padded: {self.padded_because}"


def choose(
    config: Config, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, split: Split, accelerator: Accelerator
) -> Form:
    """Packed if it is asked for, known for the model and gives what the padded form gives; the same on every process.

    Args:
        config: of the run.
        model: as prepared by `accelerator`.
        tokenizer: of the model.
        split: rows to compute both ways.
        accelerator: of the run.
    """
    alone = accelerator.unwrap_model(model)
    reason = _asked_otherwise(config, split) or unsupported(alone) or _no_kernel(accelerator.device)
    multiple = (
        cpu_attention.MULTIPLE if accelerator.device.type == "cpu" and accelerator.mixed_precision == "bf16" else 1
    )
    if reason is None:
        disable = enable(alone)
        reason = distributed.first_told(accelerator, disagreement(alone, tokenizer, split, multiple))
        if reason is not None:
            disable()
    return Form(reason, alone, tokenizer, 0 if reason else multiple)


def keep(form: Form, accelerator: Accelerator, folder: RunFolder) -> None:
    """Say and write into the manifest which form the run has."""
    if accelerator.is_main_process:
        print(f"forward  {form}", file=sys.stderr, flush=True)
        manifest.amend(folder, forward=str(form))


def _asked_otherwise(config: Config, split: Split) -> str | None:
    if not config.model.packing:
        return "--no_packing"
    if split.width is not None:
        return "--pad_to_max_length"
    if config.model.attn_implementation is not None:
        return f"--attn_implementation {config.model.attn_implementation}"
    if config.model.torch_compile:
        return "--torch_compile would compile anew for the lengths of every micro-batch"
    return None


def unsupported(model: PreTrainedModel) -> str | None:
    """Why this model has no packed form; None if it has one."""
    name = type(model).__name__
    if name not in FAMILIES or not type(model).__module__.startswith("transformers.models."):
        return f"no packed form of {name} is known here"
    if getattr(model.config, "is_decoder", False) or getattr(model.config, "add_cross_attention", False):
        return "the model is configured as a decoder"
    return None


def _no_kernel(device: torch.device) -> str | None:
    return None if device.type in ("cpu", "cuda") else f"there is no kernel for {device.type}"


def disagreement(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, split: Split, multiple: int) -> str | None:
    """Compute a few rows packed and padded; what is wrong with the packed ones, None if nothing. Draws no randomness.

    The yardstick is the run's own precision: how far the padded logits are from those in fp32.
    """
    rows = _short_and_various(split.lengths)
    padded = collate.moved(collate.padded(split, tokenizer, rows), model.device)[0]
    end_to_end = collate.moved(packed(split, model, multiple, rows), model.device)[0]
    was_training = model.training
    model.eval()
    try:
        own = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=own), torch.no_grad():
            exact = type(model).forward(model, **padded).logits.float()  # around the autocast of the prepared forward
            noise = torch.linalg.vector_norm(model(**padded).logits.float() - exact)
            error = torch.linalg.vector_norm(model(**end_to_end).logits.float() - exact)
    except RuntimeError as raised:  # a GPU or a shape that the kernel does not take
        return f"the packed forward pass fails ({' '.join(str(raised).split())[:200]})"
    finally:
        model.train(was_training)
    allowed = 4 * noise + 1e-4 * torch.linalg.vector_norm(exact)
    return None if bool(error <= allowed) else f"computed both ways, rows of the data differ by {float(error):.2g}"


def _short_and_various(lengths: np.ndarray) -> np.ndarray:
    """int64[<= CHECKED_ROWS], rows of the shorter half, longest first: the check should cost no second."""
    shorter = np.argsort(-lengths, kind="stable")[len(lengths) // 2 :]
    return shorter[np.unique(np.linspace(0, len(shorter) - 1, CHECKED_ROWS).astype(np.int64))]


# ---------------------------------------------------------------------------------------------------------------------
# Inputs


def packed(split: Split, model: PreTrainedModel, multiple: int, indices: np.ndarray) -> Tensors:
    """Model inputs and labels of some examples, laid end to end and filled up to a multiple.

    Returns:
        input_ids, position_ids and, where the model has them, token_type_ids: int64[1, T]; packed: Layout; labels as
        in job.batching.collate.
    """
    padding_position = _padding_position(model)
    lengths = tuple(split.lengths[indices].tolist())
    rows = {name: np.concatenate(values).astype(np.int64) for name, values in split.rows(indices).items()}
    starts = np.fromiter(accumulate(lengths, initial=0), dtype=np.int32)
    rows["position_ids"] = _positions(rows["input_ids"], starts, padding_position)
    padding = {"input_ids": model.config.pad_token_id or 0, "position_ids": padding_position or 0}
    filler = -int(starts[-1]) % multiple
    inputs: dict[str, Any] = {
        name: torch.from_numpy(np.pad(row, (0, filler), constant_values=padding.get(name, 0)))[None]
        for name, row in rows.items()
    }
    inputs["packed"] = Layout(lengths, torch.from_numpy(starts))
    return inputs, collate.labels(split, indices)


def _positions(ids: np.ndarray, starts: np.ndarray, padding_position: int | None) -> np.ndarray:
    """int64[T], from 0 in each sequence; RoBERTa's: from behind the padding token, which a text may also hold."""
    lengths = np.diff(starts)
    if padding_position is None:
        return np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    real = ids != padding_position
    before = np.concatenate([[0], np.cumsum(real)])
    return np.where(real, before[1:] - np.repeat(before[starts[:-1]], lengths), 0) + padding_position


def _padding_position(model: PreTrainedModel) -> int | None:
    """The token and position of padding in a RoBERTa; None for models that count positions from 0."""
    return getattr(model.base_model.embeddings, "padding_idx", None)


# ---------------------------------------------------------------------------------------------------------------------
# The model


def enable(model: PreTrainedModel) -> Callable[[], None]:
    """Let `model` take packed inputs too; padded ones are computed as before. What is saved of it does not change.

    The model must be one that `unsupported` knows nothing against. Returns what undoes it.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)  # nothing to mask, and so None, where nothing is padded
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    encoder_name, last_layer = FAMILIES[type(model).__name__]
    encoder = getattr(model.base_model, encoder_name)
    last = encoder.layer[-1]
    last.forward = partial(last_layer, last)
    hook = encoder.register_forward_hook(_sequences_as_rows, with_kwargs=True)

    def disable() -> None:
        hook.remove()
        del last.forward
        model.set_attn_implementation(before)

    return disable


def _sequences_as_rows(encoder: torch.nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
    """[1, b, H * D] -> [b, 1, H * D], of which the head takes [:, 0]."""
    if kwargs.get("packed") is not None:
        output.last_hidden_state = output.last_hidden_state.transpose(0, 1)
    return output


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed: Layout | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' attention function: [1, H, T, D] each -> [1, T, H, D]; SDPA for padded inputs."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if packed is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return _attend(q, k, v, packed, dropout)[None], None


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, dropout: float
) -> torch.Tensor:
    """Attention within each sequence: [T, H, D], or [b, H, D] for the queries of first tokens alone."""
    scale = query.shape[-1] ** -0.5
    if query.device.type == "cpu":
        return cpu_attention.attend(query, key, value, layout.lengths, dropout, scale)
    return cuda_attention.attend(query, key, value, layout.bounds, max(layout.lengths), dropout, scale)


def _first_tokens(hidden: torch.Tensor, layout: Layout) -> torch.Tensor:
    return hidden.index_select(1, layout.bounds[:-1])


def _attend_from_first(
    first: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, own: Any, dropout: float
) -> torch.Tensor:
    """Projections [1, b, H * D] and [1, T, H * D] -> [1, b, H * D]."""
    q, k, v = (x[0].unflatten(-1, (-1, own.attention_head_size)) for x in (first, key, value))
    return _attend(q, k, v, layout, dropout if own.training else 0.0).flatten(1)[None]


def _last_of_bert(
    layer: Any, hidden: torch.Tensor, *args: Any, packed: Layout | None = None, **kwargs: Any
) -> torch.Tensor:
    """The last layer of BERT, RoBERTa or ELECTRA: [1, T, H * D] -> [1, b, H * D]."""
    if packed is None:
        return type(layer).forward(layer, hidden, *args, **kwargs)
    own, first = layer.attention.self, _first_tokens(hidden, packed)
    context = _attend_from_first(own.query(first), own.key(hidden), own.value(hidden), packed, own, own.dropout.p)
    return layer.feed_forward_chunk(layer.attention.output(context, first))


def _last_of_distilbert(
    layer: Any, hidden: torch.Tensor, *args: Any, packed: Layout | None = None, **kwargs: Any
) -> torch.Tensor:
    """Likewise, of DistilBERT."""
    if packed is None:
        return type(layer).forward(layer, hidden, *args, **kwargs)
    own, first = layer.attention, _first_tokens(hidden, packed)
    context = _attend_from_first(own.q_lin(first), own.k_lin(hidden), own.v_lin(hidden), packed, own, own.dropout.p)
    attended = layer.sa_layer_norm(own.out_lin(context) + first)
    return layer.output_layer_norm(layer.ffn(attended) + attended)


FAMILIES: dict[str, tuple[str, Callable[..., torch.Tensor]]] = {
    "BertForSequenceClassification": ("encoder", _last_of_bert),
    "RobertaForSequenceClassification": ("encoder", _last_of_bert),
    "XLMRobertaForSequenceClassification": ("encoder", _last_of_bert),
    "CamembertForSequenceClassification": ("encoder", _last_of_bert),
    "ElectraForSequenceClassification": ("encoder", _last_of_bert),
    "DistilBertForSequenceClassification": ("transformer", _last_of_distilbert),
}
"""Class of the model -> (name of its encoder, its last layer for packed inputs)."""
