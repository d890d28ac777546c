"""The state of training, which a checkpoint captures and a resumed run restores.

Weights, optimizer, schedule, gradient scaler and the random states of every process. The order of the examples needs no
state: it is a function of seed and epoch. Only the main process reads and writes checkpoints, and broadcasts them: the
run folder need not be shared by all machines, and no rank can miss a file.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from torch.optim.lr_scheduler import LRScheduler

from job import distributed
from job.model import lora
from job.model.lora import Adapter
from job.run.checkpoints import Snapshot, Tensors

MODEL, OPTIMIZER, RNG = "model", "optimizer", "rng"
PRECISION = "mixed_precision"
VALUES = ("groups", "schedule", "scaler", "processes")


@dataclass(frozen=True)
class TrainState:
    """What a step changes: the prepared model (DDP if there are several processes), optimizer, and schedule.

    `adapter`: of a model whose own weights are frozen.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    adapter: Adapter | None = None


def capture(training: TrainState, accelerator: Accelerator) -> tuple[dict[str, Tensors], dict[str, Any]]:
    """(tensors by file, plain values) of the state, copied to the CPU. Call it on every process."""
    gathered = distributed.gather_objects(accelerator, _random_states())
    if not accelerator.is_main_process:
        return {}, {}
    optimizer = training.optimizer.state_dict()
    moments = {
        f"{number}.{key}": _copy(value) for number, kept in optimizer["state"].items() for key, value in kept.items()
    }
    states = {f"{rank}.{key}": value for rank, mine in enumerate(gathered) for key, value in mine.items()}
    tensors: dict[str, Tensors] = {
        MODEL: weights(accelerator.unwrap_model(training.model)),
        OPTIMIZER: moments,
        RNG: states,
    }
    values = {
        "groups": optimizer["param_groups"],
        "schedule": training.schedule.state_dict(),
        "scaler": None if accelerator.scaler is None else accelerator.scaler.state_dict(),
        "processes": accelerator.num_processes,
        PRECISION: accelerator.mixed_precision,
    }
    if training.adapter is not None:
        values["base"] = training.adapter.base
    return tensors, values


def restore(snapshot: Snapshot | None, training: TrainState, accelerator: Accelerator) -> None:
    """Restore the state in `snapshot`, which is None on all but the main process.

    If the number of processes has changed, the random states cannot be assigned to processes: each process then starts
    a new random stream, the same at every such start.
    """
    step, values = distributed.broadcast_from_main(accelerator, lambda: _plain(cast(Snapshot, snapshot)))
    kept = {
        file: distributed.broadcast_tensors(accelerator, None if snapshot is None else snapshot.tensors[file])
        for file in (MODEL, OPTIMIZER, RNG)
    }
    load_weights(accelerator.unwrap_model(training.model), kept[MODEL])
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in kept[OPTIMIZER].items():
        number, _, key = name.partition(".")
        on_cpu = not tensor.dim() or tensor.device.type == "cpu"  # AdamW's step counter always is
        # Copied, as the optimizer keeps it: it may be mapped from the checkpoint, which NFS could not remove then.
        moments.setdefault(int(number), {})[key] = _copy(tensor) if on_cpu else tensor
    training.optimizer.load_state_dict({"state": moments, "param_groups": values["groups"]})
    training.schedule.load_state_dict(values["schedule"])
    if accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(values["scaler"])
    if values["processes"] == accelerator.num_processes:
        prefix = f"{accelerator.process_index}."
        mine = {name.removeprefix(prefix): t for name, t in kept[RNG].items() if name.startswith(prefix)}
        _set_random_states(mine)
    else:
        torch.manual_seed(int(np.random.SeedSequence([step, accelerator.process_index]).generate_state(1)[0]))


def _plain(snapshot: Snapshot) -> tuple[int, dict[str, Any]]:
    return snapshot.step, {name: value for name, value in snapshot.state.items() if name in VALUES}


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, copied to the CPU; tied ones once, because safetensors rejects shared tensors.

    If adapters are trained, frozen weights are omitted: they are those of the base model.
    """
    seen: set[int] = set()
    kept = {}
    left_out = _frozen(model)
    for name, tensor in model.state_dict().items():
        if name not in left_out and (tensor.data_ptr() not in seen or tensor.numel() == 0):
            kept[name] = _copy(tensor)
        seen.add(tensor.data_ptr())
    return kept


def _frozen(model: torch.nn.Module) -> set[str]:
    if not lora.is_in(model):
        return set()
    return {name for name, parameter in model.named_parameters(remove_duplicate=False) if not parameter.requires_grad}


def load_weights(model: torch.nn.Module, tensors: Tensors) -> None:
    """The inverse of `weights`.

    Raises:
        RuntimeError: a weight is missing, unknown or of another size.
    """
    difference = misfit(model, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    if difference is not None:
        raise RuntimeError(f"the checkpoint does not fit the model: {difference}")
    model.load_state_dict(tensors, strict=False)


def misfit(model: torch.nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """How copied weights of these sizes differ from those of the model that `weights` copies; None if they do not."""
    state = model.state_dict()
    there = {state[name].data_ptr() for name in shapes if name in state}
    absent = state.keys() - shapes.keys() - _frozen(model)
    for what, names in {
        "is not in the model": [name for name in shapes if name not in state],
        "is missing": [name for name in absent if state[name].data_ptr() not in there],
        "is of another size": [name for name in shapes if name in state and state[name].shape != shapes[name]],
    }.items():
        if names:
            return f"{min(names)} {what}"
    return None


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _random_states() -> dict[str, torch.Tensor]:
    """The states of every random generator that a forward pass may use, as tensors."""
    version, words, gauss = random.getstate()
    assert version == 3
    _, keys, position, has_gauss, cached = np.random.get_state()
    states = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(words, dtype=torch.int64),
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.tensor([*np.asarray(keys).tolist(), position, has_gauss], dtype=torch.int64),
        "numpy_gauss": torch.tensor([cached], dtype=torch.float64),
    }
    return states | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _set_random_states(states: Tensors) -> None:
    torch.set_rng_state(states["torch"].cpu())
    gauss = states["python_gauss"].tolist()
    random.setstate((3, tuple(states["python"].tolist()), gauss[0] if gauss else None))
    *keys, position, has_gauss = states["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, np.uint32), position, has_gauss, states["numpy_gauss"].item()))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())
