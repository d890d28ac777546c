"""The command that resumes a run, for the messages of a run that ended before its time."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator

from job.config import Run
from job.errors import Interrupted
from job.run import folder as run_folder
from job.run.folder import RunFolder
from job.runtime import contract


def command(folder: RunFolder, run: Run) -> str:
    """What the user has to run. Without --output_dir the same command would start another run, in a new folder; with
    what applies to one start only, it would start again from where that did."""
    where = shlex.quote(run_folder.shown(folder.path))
    if (folder.path / contract.JOBS).is_dir() and not _is_plain_docker_run():
        return f"`{contract.LAUNCHER} rerun {where}`"
    named = f" with --output_dir {where}" * (run.output_dir is None)
    once = "overwrite_output_dir" if run.overwrite_output_dir else "resume_from_checkpoint"
    is_given = run.overwrite_output_dir or run.resume_from_checkpoint != "auto"
    without = f" without --{once}" * is_given
    return f"the same command{named}{without}"


def _is_plain_docker_run() -> bool:
    """Whether the user started the image: the launcher that made the record is in the container, out of reach."""
    owner = os.environ.get(contract.OWNER, "")
    return contract.IN_IMAGE in os.environ and not owner.startswith(contract.DOCKER)


@contextlib.contextmanager
def with_command(folder: RunFolder, run: Run) -> Iterator[None]:
    """Inside this context, an Interrupted error is given the command that resumes this run."""
    try:
        yield
    except Interrupted as error:
        error.command = command(folder, run)
        raise
