"""Checks this machine's GPUs before the processes join.

Without these checks, a GPU that PyTorch cannot use is silently ignored and the job trains on the CPU for days, and
processes that have no GPU of their own fail with CUDA's "invalid device ordinal".
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass

import torch

from job.errors import Refused
from job.runtime import gpus
from job.runtime.gpus import CPU_INSTEAD, REPAIR

OLDEST_DRIVER = {13: 580, 12: 525, 11: 450}
"""CUDA's major version -> the oldest NVIDIA driver branch that supports it."""


@dataclass(frozen=True)
class Devices:
    """The GPUs of a machine.

    Attributes:
        processes: processes of this job on this machine.
        visible: GPUs that torch can use.
        present: GPUs that the driver lists, including those hidden from this process.
        failure: why nvidia-smi fails; empty if it does not, or is not installed.
        mask: CUDA_VISIBLE_DEVICES; None if it is not set.
        driver: version of the NVIDIA driver; empty if there is none.
        torch: version of torch.
        cuda: CUDA version that torch was built for; None for a build without CUDA.
        capability: compute capability of the first visible GPU, e.g. (7, 5).
        oldest_capability: oldest compute capability that torch was built for.
    """

    processes: int = 1
    visible: int = 0
    present: int = 0
    failure: str = ""
    mask: str | None = None
    driver: str = ""
    torch: str = ""
    cuda: str | None = None
    capability: tuple[int, int] = (0, 0)
    oldest_capability: tuple[int, int] = (0, 0)


def check() -> None:
    """Refused if the machine has, or may have, GPUs that the processes cannot use, unless the CPU was requested."""
    if not gpus.cpu_is_requested(os.environ):
        reason = problem(look())
        if reason is not None:
            raise Refused(reason)


def problem(devices: Devices) -> str | None:
    """Why not every process can have a GPU, in one line; None if each can, or if the machine has no GPU."""
    if devices.visible == 0:
        return _unusable(devices) if devices.present or devices.failure or devices.mask else None
    if devices.capability < devices.oldest_capability:
        return (f"this GPU has compute capability {_dotted(devices.capability)}, but torch {devices.torch} is built "
                f"for {_dotted(devices.oldest_capability)} and newer: install a torch built for an older CUDA, or "
                f"{CPU_INSTEAD}")  # fmt: skip
    if devices.processes > devices.visible:
        hidden = f" (CUDA_VISIBLE_DEVICES={devices.mask})" if devices.mask is not None else ""
        return (f"{devices.processes} processes on this machine see {devices.visible} GPU(s){hidden}: start one for "
                "each GPU, and let each process see all of them (no --gpus-per-task, no --gpu-bind)")  # fmt: skip
    return None


def _unusable(devices: Devices) -> str:
    there = f"this machine has {devices.present} GPU(s)" if devices.present else "torch sees no GPU"
    if devices.failure:
        return f"{there}, and nvidia-smi fails ({devices.failure}): {REPAIR}, or {CPU_INSTEAD}"
    if devices.present and devices.cuda is None:
        return (f"{there}, but torch {devices.torch} is built without CUDA: install one that is built with it, or "
                f"{CPU_INSTEAD}")  # fmt: skip
    major = int(devices.cuda.split(".")[0]) if devices.cuda else 0
    oldest = OLDEST_DRIVER.get(major, 0)
    if devices.driver and int(devices.driver.split(".")[0]) < oldest:
        return (f"{there}, but NVIDIA driver {devices.driver} is too old for torch {devices.torch}, built for CUDA "
                f"{major}: it needs driver {oldest} or newer, or install a torch built for CUDA {major - 1}; "
                f"{CPU_INSTEAD}")  # fmt: skip
    if devices.mask is not None:
        return f"{there}, and CUDA_VISIBLE_DEVICES={devices.mask} shows none: correct it, or {CPU_INSTEAD}"
    return (f"{there}, but torch {devices.torch} cannot use them: see what python -c 'import torch; torch.cuda.init()' "
            f"says, or {CPU_INSTEAD}")  # fmt: skip


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


# ---------------------------------------------------------------------------------------------------------------------
# The facts


def look() -> Devices:
    """The GPUs of this machine. nvidia-smi runs only if torch sees no GPU."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("WORLD_SIZE") or 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of an old driver; `problem` reports it in one line
        visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    listing = gpus.Listing() if visible else gpus.listed()
    return Devices(
        processes=processes,
        visible=visible,
        present=visible or listing.gpus or gpus.in_driver(),
        failure=listing.failure,
        mask=os.environ.get("CUDA_VISIBLE_DEVICES"),
        driver="" if visible else gpus.driver_version(),
        torch=torch.__version__,
        cuda=torch.version.cuda,
        capability=torch.cuda.get_device_capability() if visible else (0, 0),
        oldest_capability=_oldest_capability() if visible else (0, 0),
    )


def _oldest_capability() -> tuple[int, int]:
    """The oldest compute capability that torch has code for; (0, 0) if unknown, as for AMD GPUs."""
    known = [re.fullmatch(r"(?:sm|compute)_(\d+)(\d)[a-z]?", name) for name in torch.cuda.get_arch_list()]
    return min(((int(match[1]), int(match[2])) for match in known if match), default=(0, 0))
