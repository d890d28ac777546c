"""The command that resumes a run, for the messages of a run that ended before its time."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator

from job.config import Run
from job.errors import Interrupted
from job.run import folder as run_folder
from job.run.folder import RunFolder
from job.runtime import contract


def command(folder: RunFolder, run: Run) -> str:
    """What the user has to run. Without --output_dir the same command would start another run, in a new folder."""
    where = shlex.quote(run_folder.shown(folder.path))
    if (folder.path / contract.JOBS).is_dir():
        return f"`{contract.LAUNCHER} rerun {where}`"
    named = f" with --output_dir {where}" * (run.output_dir is None)
    without = " without --overwrite_output_dir" * run.overwrite_output_dir
    return f"the same command{named}{without}"


@contextlib.contextmanager
def named(folder: RunFolder, run: Run) -> Iterator[None]:
    """Inside this context, an Interrupted error is given the command that resumes this run."""
    try:
        yield
    except Interrupted as error:
        error.command = command(folder, run)
        raise
