"""Entrypoint of the container image: runs the job on all visible GPUs, or the CPU, under `make train`'s supervisor.

    docker run --gpus all muster --dataset_name yelp_review_full
    docker run --gpus all muster predict --model_name_or_path runs/latest/model --test_file new.csv

All arguments are the job's; `predict` is a recipe. The number of processes follows from the container's GPUs. The
supervisor forwards signals and reaps processes, so it can be process 1, with or without an init. The kernel drops
signals that process 1 does not handle: the handlers here cover the time until the supervisor installs its own.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import MutableMapping, Sequence

from job.runtime import contract

HF_HOME = "/tmp/huggingface"
"""As in the Dockerfile."""
APPTAINER = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER")
"""Variables that Apptainer, or its older name, sets in a container."""
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


def main(words: Sequence[str]) -> int:
    """Run the job with the arguments `words`, or the demo without any; returns the job's exit code."""
    for number in ENDING:
        signal.signal(number, lambda n, _: os._exit(128 + n))
    os.environ[contract.IN_IMAGE] = "1"
    leave_shared_cache(os.environ)
    from launch import cli  # takes tenths of a second

    return cli.main(["local", "--", *words])


def leave_shared_cache(environ: MutableMapping[str, str]) -> None:
    """In Apptainer, /tmp is the host's and shared by all users: use the default cache, in the user's own home."""
    if any(name in environ for name in APPTAINER) and environ.get("HF_HOME") == HF_HOME:
        del environ["HF_HOME"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
