"""Runs Slurm's programs, so that only their flags say what they do.

They also read variables: with SQUEUE_PARTITION in the user's profile, squeue hides the jobs of other partitions, and a
hidden job would be taken for a lost one and submitted again. sbatch passes its environment on to the job; what that is
cleared of is said where a job is queued.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL

OPTIONS = ("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_", "SINFO_")
"""Prefixes of variables that Slurm's programs read as options; a job also has many that describe it."""
ACCESS = ("SLURM_CONF", "SLURM_JWT")
"""Variables by which the programs find their cluster and prove who the user is."""


class NoAnswerError(Exception):
    """A program that cannot be started, or did not end in time."""


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without the options of Slurm's programs."""
    return {name: value for name, value in environ.items() if name in ACCESS or not name.startswith(OPTIONS)}


def run(
    command: Sequence[str], seconds: float, *, script: str = "", directory: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of Slurm's programs, which reads `script`.

    Raises:
        NoAnswerError: it cannot be started, or has not ended after `seconds`.
    """
    pipe, program = subprocess.PIPE, command[0]
    try:
        process = subprocess.Popen(
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            cwd=directory,
            env=environment(os.environ),
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError:
        raise NoAnswerError(f"{program} is not installed here") from None
    except OSError as error:
        raise NoAnswerError(f"{program} cannot be started: {error.strerror}") from None
    with process:
        try:
            out, err = process.communicate(script, timeout=seconds)
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, SIGKILL)  # the site's wrapper, and the processes that it started
            if isinstance(error, subprocess.TimeoutExpired):
                raise NoAnswerError(f"{program} did not answer in {seconds:.0f} s") from None
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)
