"""On every process: job/train.py with limits of two seconds, whose main process is slower than that, once.

The default group, which is Accelerate's, has the short limit too. The first argument says in what it is slow:
`tokenize`, `write` (the first checkpoint), or `between-steps`, an agreement between two steps.
"""

import datetime
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from job.runtime import environment

environment.prepare()

import torch

from job import distributed, train
from job.data import tokenization
from job.run import checkpoints

SECONDS = 4
SLOW, FLAGS = sys.argv[1], sys.argv[2:]
slept: list[float] = []
distributed.STEP_LIMIT = datetime.timedelta(seconds=2)
init_process_group = torch.distributed.init_process_group


def init_with_short_limit(*arguments: Any, **options: Any) -> None:
    init_process_group(*arguments, **{**options, "timeout": distributed.STEP_LIMIT})


def slow(module: Any, name: str) -> None:
    """The main process sleeps before its first call of this function."""
    original = getattr(module, name)

    def slowly(*arguments: Any) -> Any:
        if torch.distributed.get_rank() == 0 and not slept:
            slept.append(SECONDS)
            time.sleep(SECONDS)
        return original(*arguments)

    setattr(module, name, slowly)


torch.distributed.init_process_group = init_with_short_limit
if SLOW == "between-steps":
    accelerator = distributed.start(train.Config())
    if accelerator.is_main_process:
        time.sleep(SECONDS)
    distributed.all_reduce_any(accelerator, False)
else:
    slow(*{"tokenize": (tokenization, "tokenize"), "write": (checkpoints, "write")}[SLOW])
    sys.exit(train.main(FLAGS))
