"""job/train.py with something watched or changed: `python -m tests.gpu.watch [WHAT ...] RUN FLAGS [RUN FLAGS ...]`.

Several lists of flags are as many runs, one after the other; the first that fails is the last. WHAT is of

gib=1.5           PyTorch's allocator has that much of the GPU: a real out-of-memory error at any place
waits             an operation that waits for the device, in steps 3 to 20, is an error
scale=1099511627776  the first loss scale of fp16
deterministic     deterministic kernels only
gloo              processes that share a GPU talk over gloo, which NCCL cannot
peak              prints the most memory that was held
graphs            prints how many graphs were compiled; one too many to compile is an error
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partialmethod
from typing import Any

from job import train as job
from job.runtime import environment, signals

FIRST, LAST = 3, 20
RUN = "RUN"
"""Between lists of flags; torchrun drops a `--`."""


def gib(amount: str) -> None:
    import torch

    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(float(amount) * 2**30 / total)


def waits() -> None:
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    done = [0]

    def stepped(*_: object) -> None:
        done[0] += 1
        torch.cuda.set_sync_debug_mode("error" if FIRST <= done[0] < LAST else "default")
        if done[0] == FIRST:
            refuses_to_wait()

    def refuses_to_wait() -> None:
        try:
            torch.zeros((), device="cuda").item()
        except RuntimeError:
            return
        raise AssertionError("PyTorch does not notice a wait")

    register_optimizer_step_post_hook(stepped)


def scale(first: str) -> None:
    from torch.amp import GradScaler

    setattr(GradScaler, "__init__", partialmethod(GradScaler.__init__, init_scale=float(first)))  # noqa: B010


def deterministic() -> None:
    import torch

    torch.use_deterministic_algorithms(True)


def gloo() -> None:
    import os

    from accelerate.state import PartialState

    os.environ.update(LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    prepare = PartialState._prepare_backend

    def prepared(self: PartialState, *args: Any, **options: Any) -> tuple[str, Any]:
        return "gloo", prepare(self, *args, **options)[1]

    PartialState._prepare_backend = prepared


def peak() -> None:
    import atexit

    import torch

    atexit.register(lambda: print("peak bytes", torch.cuda.max_memory_allocated(), flush=True))


def graphs() -> None:
    import atexit

    import torch
    from torch._dynamo.utils import counters

    torch._dynamo.config.fail_on_recompile_limit_hit = True

    def counted() -> None:
        print(f"graphs {counters['stats']['unique_graphs']}, breaks {sum(counters['graph_break'].values())}")

    atexit.register(counted)


CHANGES: dict[str, Callable[..., None]] = {
    change.__name__: change for change in (gib, waits, scale, deterministic, gloo, peak, graphs)
}


def _split(argv: list[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in argv:
        if word == RUN:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def main(argv: list[str]) -> int:
    changes, *runs = _split(argv)
    signals.install()  # torchrun ends the others when one process ends, also while they import
    environment.prepare()
    for what in changes:
        name, _, value = what.partition("=")
        CHANGES[name](*([value] if value else []))
    from accelerate.state import AcceleratorState

    for flags in runs:
        AcceleratorState._reset_state(reset_partial_state=True)
        code = job.main(flags)
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
