"""The cases: names, limits and what each promises. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        name: of the function in cases.py.
        promise: what it shows, for the table.
        seconds: after which it is ended.
        needs_gpu: whether it means nothing on the CPU.
        alone: whether nothing else may run at the same time, because it measures.
        least_seconds: that must be left for it to begin.
    """

    name: str
    promise: str
    seconds: float = 150
    needs_gpu: bool = True
    alone: bool = False
    least_seconds: float = 20


CASES = (
    Case("machine", "the packages load, the GPU computes: versions and ceilings", 60, alone=True),
    Case("cudnn", "padded attention does not plan for a new shape", 60, alone=True),
    Case("kernels", "attention of every mask, dtype and head size is that of fp64, its dropout is dropout"),
    Case("compiled", "packed and compiled in a few graphs, losses are those of the plain model", 240),
    Case("losses", "24 steps on the GPU follow those of the CPU, in every precision and form", 240, needs_gpu=False),
    Case("families", "packed = padded: losses, predictions of each family, bf16, fp16, TF32", 300, needs_gpu=False),
    Case("lora", "packed = padded, with the base model in bf16", needs_gpu=False),
    Case("waits", "no step waits for the device"),
    Case("overflow", "fp16: steps that overflow change nothing and are counted"),
    Case("memory", "out of memory anywhere in a step or an evaluation: smaller passes, the same losses"),
    Case("stop", "stopped and resumed is as if never stopped; to the bit where kernels are deterministic"),
    Case("nccl", "a process group over NCCL starts, trains and ends"),
    Case("two_ranks", "two processes on one GPU give the losses of one"),
    Case("rejected", "a GPU for which there is no process, or none for a process, is one line"),
)
