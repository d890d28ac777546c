"""On every process: job/train.py with limits of two seconds, whose main process tokenizes for longer than that.

The default group, which is Accelerate's, has the short limit too. With the argument "between-steps" the main process is
late for an agreement between two steps instead.
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

SECONDS = 4
slept: list[float] = []
distributed.STEP_LIMIT = datetime.timedelta(seconds=2)
init_process_group, tokenize = torch.distributed.init_process_group, tokenization.tokenize


def init_with_short_limit(*arguments: Any, **options: Any) -> None:
    init_process_group(*arguments, **{**options, "timeout": distributed.STEP_LIMIT})


def tokenize_slowly(*arguments: Any) -> Any:
    if torch.distributed.get_rank() == 0 and not slept:
        slept.append(SECONDS)
        time.sleep(SECONDS)
    return tokenize(*arguments)


torch.distributed.init_process_group = init_with_short_limit
setattr(tokenization, "tokenize", tokenize_slowly)  # noqa: B010

if sys.argv[1] == "between-steps":
    accelerator = distributed.start(train.Config())
    if accelerator.is_main_process:
        time.sleep(SECONDS)
    distributed.all_reduce_any(accelerator, False)
else:
    sys.exit(train.main(sys.argv[1:]))
