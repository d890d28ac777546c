"""What must be the same: on all processes of a job, and as it was when the checkpoint to resume from was saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator

from job import distributed
from job.data.dataset import Data
from job.errors import Refused
from job.model import lora
from job.model.lora import Adapter
from job.run import checkpoints
from job.training import state, step_end

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

NOT_COMPARED = {"_name_or_path", "transformers_version"}
"""Keys of a model's config.json that do not change what it computes."""
SHOWN = 3


def refuse_differing_data(accelerator: Accelerator, read: Data) -> None:
    """Refused, on every process, if the examples or tokens are not the same on all of them."""
    mine = (read.fingerprint, *(split.tokens._fingerprint for split in read.splits))
    if len(set(distributed.gather_objects(accelerator, mine))) > 1:
        raise Refused("the processes read different data or tokenizers: give all machines the same files")


def refuse_differing_weights(accelerator: Accelerator, model: torch.nn.Module) -> None:
    """Refused, on every process, if the model's weights are not the same on all of them.

    For a model that is not trained: in training, DDP sends those of the main process to all.
    """
    if accelerator.num_processes == 1:
        return
    if len(set(distributed.gather_objects(accelerator, lora.digest(model.state_dict(), ())))) > 1:
        raise Refused("the processes load different weights of the model: give all machines the same files")


def refuse_other_precision(resumed: Path | None, precision: str) -> None:
    """Refused if the checkpoint was saved in another precision: where --mixed_precision is unset, the launcher decides
    at each start."""
    if resumed is None:
        return
    before = checkpoints.read_state(resumed).get(state.PRECISION, precision)  # earlier versions did not record it
    if before != precision:
        raise Refused(f"{resumed.name} was saved in mixed precision {before}, and this start has {precision}: start it "
                      f"with accelerate launch --mixed_precision {before}, or choose another --output_dir")  # fmt: skip


def refuse_other_data(resumed: Path | None, read: Data) -> None:
    """Refused if the examples or tokens differ from those that the checkpoint was made with."""
    if resumed is None:
        return
    before, now = checkpoints.read_state(resumed)["data"], step_end.fingerprints(read)
    for name, what in {"source": "data", "tokens": "tokenizer"}.items():
        if before[name] != now[name]:
            raise Refused(f"the {what} changed since {resumed.name} was saved: restore it, choose another "
                          "--output_dir, or start over with --overwrite_output_dir")  # fmt: skip


def refuse_other_model(resumed: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Refused if the checkpoint's weights, or its groups of trained ones, are not those of the model: it is intact, and
    must not count as one that cannot be loaded."""
    difference = state.misfit(model, checkpoints.shapes(resumed, state.MODEL))
    groups = [len(group["params"]) for group in checkpoints.read_state(resumed)["groups"]]
    if difference is None and groups != [len(group["params"]) for group in optimizer.param_groups]:
        difference = "other weights are trained"
    if difference is not None:
        raise Refused(f"{resumed.name} does not fit the model ({difference}): start with the model and the versions of "
                      "the libraries that saved it, choose another --output_dir, or start over with "
                      "--overwrite_output_dir")  # fmt: skip


def refuse_other_settings(resumed: Path | None, pretrained: PreTrainedConfig) -> None:
    """Refused if the model's config.json differs from that of the checkpoint's model, in dropout for example, which its
    weights do not show."""
    if resumed is None:
        return
    before = checkpoints.read_state(resumed).get(step_end.MODEL_SETTINGS, {})  # earlier versions did not record them
    changed = sorted(_differing(before, step_end.model_settings(pretrained)))
    if changed:
        raise Refused(f"the model's config.json changed since {resumed.name} was saved ({', '.join(changed[:SHOWN])}): "
                      "restore it, choose another --output_dir, or start over with --overwrite_output_dir")  # fmt: skip


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Names of the settings that are in both and differ. Another version of Transformers may add or remove some."""
    for name in (before.keys() & now.keys()) - NOT_COMPARED:
        if isinstance(before[name], Mapping) and isinstance(now[name], Mapping):
            yield from _differing(before[name], now[name])
        elif before[name] != now[name]:
            yield name


def refuse_other_base(resumed: Path | None, adapter: Adapter | None) -> None:
    """Refused if the frozen weights are not those that the adapters of the checkpoint were trained with."""
    if resumed is None or adapter is None:
        return
    if checkpoints.read_state(resumed)["base"] != adapter.base:
        raise Refused(f"the base model changed since {resumed.name} was saved: restore it, choose another "
                      "--output_dir, or start over with --overwrite_output_dir")  # fmt: skip
