"""How many GPUs a run on this machine uses: those in CUDA_VISIBLE_DEVICES, else those that nvidia-smi lists.

The CPU is used only if it was requested, or if nothing indicates a GPU and torch, in the job, finds none either: a
driver that fails after an update must not mean days of training on the CPU.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile

from job.errors import Refused
from job.runtime import gpus
from job.runtime.gpus import CPU_INSTEAD, MASK, REPAIR

DEVICE = re.compile(r"\d+|(GPU|MIG)-[\w/-]+")
NAME_THEM = f"name the GPUs, as in {MASK}=0,1"


@dataclass(frozen=True)
class Gpus:
    """The GPUs of this machine."""

    visible: int
    """GPUs that CUDA would show to a process."""
    names: tuple[str, ...] | None = None
    """Their names in CUDA_VISIBLE_DEVICES; None: it is not set."""
    cpu_requested: bool = False
    """Whether the environment requests the CPU."""
    problem: str = ""
    """Why they cannot be counted; empty if they can."""

    def to_use(self, asked: int | None) -> int:
        """The number of GPUs to use: as requested, else all; Refused if there are fewer, or nobody knows."""
        if asked == 0:
            return 0
        if self.problem:
            raise Refused(self.problem)
        if asked is not None and asked > self.visible:
            raise Refused(f"--gpus {asked}: only {self.visible} are visible (in {MASK}, else nvidia-smi -L; none with "
                          "ACCELERATE_USE_CPU=true)")  # fmt: skip
        return self.visible if asked is None else asked

    def cpu_is_requested(self, asked: int | None, tasks: int | None) -> bool:
        """Whether the user requested the CPU, by --gpus 0, --tasks or the environment."""
        return asked == 0 or tasks is not None or self.cpu_requested


def inspect(environ: Mapping[str, str]) -> Gpus:
    """The GPUs of this machine, without importing torch."""
    mask = environ.get(MASK)
    if gpus.cpu_is_requested(environ):
        return Gpus(0, () if mask is not None else None, cpu_requested=True)
    return _listed() if mask is None else _named(mask)


def _named(mask: str) -> Gpus:
    """Like CUDA, only up to the first invalid name, such as -1."""
    names = tuple(takewhile(DEVICE.fullmatch, (name.strip() for name in mask.split(","))))
    if not names:
        return Gpus(0, problem=f"{MASK}={mask} names no GPU: {NAME_THEM}; {CPU_INSTEAD}")
    if len(set(names)) < len(names):
        return Gpus(0, problem=f"{MASK}={mask} names a GPU twice, and CUDA then shows none: name each once")
    return Gpus(1 if any(name.startswith("MIG-") for name in names) else len(names), names)


def _listed() -> Gpus:
    listing = gpus.listed()
    if listing.failure:
        return Gpus(0, problem=f"nvidia-smi fails ({listing.failure}): {REPAIR}, or {NAME_THEM}; {CPU_INSTEAD}")
    if not listing.gpus and (there := gpus.in_driver()):
        return Gpus(0, problem=f"the NVIDIA driver has {there} GPU(s), but nvidia-smi is missing or shows none: put it "
                    f"on PATH, start a container with --gpus all, or {NAME_THEM}; {CPU_INSTEAD}")  # fmt: skip
    return Gpus(1 if listing.has_mig else listing.gpus)  # CUDA shows a single MIG device, and no GPU in addition
