"""job/train.py, which interrupts itself: FAULTS lists `rank:moment:number:signal`, separated by spaces.

    step:7          after optimizer step 7
    batch:7         before micro-batch 7 of all evaluations of this start, from 0
    begin:7         in the save of step 7: its folder is there and empty
    filled:7        ... all files are there, the name is not
    placed:7        ... before older ones are removed
    doomed:7        ... the one of the same step that it replaces was moved away
    merged:0        after adapters were merged, before the last evaluation

The signal may be `SIGSTOP`, `SIGKILL`, ..., or `HANG`: the process sleeps.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from job.runtime import signals

signals.install()

from job import train
from job.runtime import environment

environment.prepare()

from job.evaluation import prediction
from job.model import lora
from job.run import checkpoints, tracking

FAULTS = [tuple(fault.split(":")) for fault in os.environ["FAULTS"].split()]


def reached(moment: str, number: int) -> None:
    """Do what is due now, once: a failed save is retried."""
    for fault in [fault for fault in FAULTS if fault[:3] == (os.environ.get("RANK", "0"), moment, str(number))]:
        FAULTS.remove(fault)
        for what in fault[3:]:
            while what == "HANG":
                time.sleep(1)
            os.kill(os.getpid(), getattr(signal, what))
            time.sleep(0.1)  # a signal reaches one thread first: this one must not continue meanwhile


def hook(module: Any, name: str, before: Callable[..., None] | None, after: Callable[..., None] | None = None) -> None:
    """Call `before` and `after` with the arguments of a function of the job, whenever it is called."""
    original = getattr(module, name)

    def hooked(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(*args)
        result = original(*args, **kwargs)
        if after is not None:
            after(*args)
        return result

    setattr(module, name, hooked)


def step_of(folder: Path) -> int:
    return int(folder.name.split("-")[2])


hook(tracking.Recorder, "train_step", None, lambda recorder: reached("step", recorder.step))
hook(checkpoints, "_fill", lambda folder, _: reached("begin", step_of(folder)))
hook(checkpoints, "_replace", lambda aside, _: reached("filled", step_of(aside)))
hook(checkpoints, "_rotate", lambda parent, _: reached("placed", max(checkpoints.steps(parent))))
hook(Path, "rename", None, lambda _, to: reached("doomed", step_of(to)) if to.name.startswith(".old-") else None)
hook(lora.Adapter, "merge", None, lambda _: reached("merged", 0))

batches = 0
predict = prediction.predict


def counted(*args: Any) -> Any:
    def between() -> None:
        global batches
        reached("batch", batches)
        batches += 1
        args[-1]()

    call: Any = predict
    return call(*args[:-1], between)


prediction.predict = counted  # type: ignore[assignment]

if __name__ == "__main__":
    code = train.main(sys.argv[1:])
    signals.ignore()
    sys.exit(code)
