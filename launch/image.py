"""What the container image starts: the job on all GPUs that it sees, or the CPU, under the supervisor of `make train`.

    docker run --gpus all muster --dataset_name yelp_review_full
    docker run --gpus all muster predict --model_name_or_path runs/latest/model --test_file new.csv

All words are the job's, `predict` a recipe like others; how many processes there are follows from what the container
was given. The supervisor passes signals on and reaps, so that this is a good process 1 with or without an init of the
container's. Process 1 ignores signals that nobody handles: until the supervisor does, a request to stop would be lost,
hence the handlers here.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


def main(words: Sequence[str]) -> int:
    """Train or predict as the job's `words` say, nothing at all meaning the demo; the job's exit code."""
    for number in ENDING:
        signal.signal(number, lambda n, _: os._exit(128 + n))
    from launch import cli  # takes tenths of a second

    return cli.main(["local", "--", *words])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
