"""The batch script's parts: resources, lines before srun, lines after it, flags of the site.

submitit makes the text of them, by its own (private) function, so that the dry run prints exactly what is queued also
where no Slurm is installed. Alternative considered: a second template next to submitit's.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.errors import Refused
from job.runtime import contract
from launch import sites
from launch.sites import Site

HERE = Path(__file__).parent
OURS = (
    *("array", "chdir", "container-image", "error", "export", "no-kill", "no-requeue", "open-mode", "output"),
    *("parsable", "test-only", "wait", "wrap"),
)
"""Flags of sbatch that the launcher sets itself or that would break the way a job stops and resumes."""
LAUNCHERS = {
    **{name: f"--{name}" for name in ("partition", "account", "qos", "constraint", "time", "wckey", "nodes")},
    **{"gpus": "--gpus", "gpus-per-node": "--gpus", "ntasks": "--tasks", "ntasks-per-node": "--tasks"},
    **{"cpus-per-task": "--cpus_per_task", "job-name": "--job_name", "signal": "--signal_delay"},
}
"""Flags of sbatch for which the launcher has a flag."""
MASKING = ("gpus-per-task", "gpus-per-socket", "gpu-bind", "ntasks-per-gpu", "tres-bind", "tres-per-task")
"""Flags of sbatch that would let a process see only some of its node's GPUs."""


def resources(at: Site, *, gpus: int, tasks: int | None, nodes: int, name: str) -> dict[str, Any]:
    """What the job asks of the cluster. Every task sees all GPUs of its node: a mask would misname them to NCCL."""
    for flag, value in {"--nodes": nodes, "--tasks": tasks}.items():
        if value == 0:
            raise Refused(f"{flag} must be above 0")
    if gpus and tasks is not None:
        raise Refused("--tasks applies to the CPU only, GPUs have one process each: remove it, or add --gpus 0")
    asked = {name: getattr(at, name) for name in ("partition", "account", "qos", "constraint")}
    if gpus and at.gres:
        asked["gres"] = f"{at.gres}:{gpus}"
    elif gpus:
        asked["gpus_per_node"] = gpus
    minutes, delay = sites.minutes(at.time), int(at.signal_delay)
    if 60 * minutes <= delay:
        raise Refused(f"--time {at.time} is within --signal_delay {delay} (seconds): the job would be stopped "
                      "as it starts; raise --time or lower --signal_delay")  # fmt: skip
    return {
        **{name: value for name, value in asked.items() if value},
        "job_name": at.job_name or re.sub(r"[^A-Za-z0-9._=,:@%+-]", "-", name),
        "time": minutes,
        "nodes": nodes,
        "ntasks_per_node": gpus or tasks or 1,
        "cpus_per_task": int(at.cpus_per_task),
        "signal_delay_s": delay,
        "wckey": at.wckey or None,
    }


def site_flags(at: Site, token: str) -> dict[str, str | bool]:
    """The words of --sbatch, and the comment by which the job is found again."""
    flags = sites.sbatch_flags(at.sbatch)
    for name, value in flags.items():
        _refuse_flag(name, value, at)
    return {**flags, "comment": f"{flags['comment']} {token}" if flags.get("comment") else token}


def _refuse_flag(name: str, value: str | bool, at: Site) -> None:
    """Refused for what is not the site's to set; sbatch takes any unambiguous beginning of a flag for the flag."""
    meant = [known for known in (*OURS, *LAUNCHERS, *MASKING) if known == name] or [
        known for known in (*OURS, *LAUNCHERS, *MASKING) if known.startswith(name)
    ]
    if name == "gres" and (at.gres or "gpu" in str(value)):
        raise Refused("--sbatch --gres: the launcher has a flag for GPUs, --gpus with --gres")
    if not meant:
        return
    if meant[0] in LAUNCHERS:
        raise Refused(f"--sbatch --{name}: the launcher has a flag for it, {LAUNCHERS[meant[0]]}")
    if meant[0] in MASKING:
        raise Refused(f"--sbatch --{name}: a process would see only some GPUs of its node, and NCCL needs all of "
                      "them; --gpus N gives each node N GPUs and N processes")  # fmt: skip
    raise Refused(f"--sbatch --{name}: the launcher sets this itself, or relies on it")


def check_setup(setup: str) -> None:
    """Refused where bash cannot read the lines of --setup."""
    try:
        done = subprocess.run(["bash", "-n"], input=f"{setup}\n", capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return  # no bash here: the cluster's nodes have one
    if done.returncode:
        reason = re.sub(r"^(bash|-bash): (line \d+: )?", "", done.stderr.strip().splitlines()[0])
        raise Refused(f"--setup {setup!r} is no shell command: {reason}")


def setup(at: Site, *, run: str, directory: Path, token: str, python: str, variables: Mapping[str, str]) -> list[str]:
    """Lines before srun.

    Args:
        at: the site, whose own setup is part of it.
        run: run folder, as a word of the shell.
        directory: working directory.
        token: identifies this submission in status.json.
        python: the interpreter that the nodes must have; empty in a container.
        variables: environment of the worker.
    """
    place, interpreter = shlex.quote(str(directory)), shlex.quote(python)
    checks = [f'cd {place} || fail 1 "the working directory is not on this node" "$(hostname)"']
    if python:
        checks.append(f'[ -x {interpreter} ] || fail 127 "the Python environment is not on this node" "$(hostname)"')
    return [
        *(HERE / "functions.sh").read_text(encoding="utf-8").splitlines(),
        f"submission={token}",
        f"run={run}",
        f'status="$run/{contract.STATUS}"',
        f'marker="$run/{contract.JOBS}/$job/{contract.REQUEUE}"',
        'rm -f "$marker"',
        *checks,
        *(_checked(at.setup) if at.setup else []),
        *(f"export {name}={shlex.quote(value)}" for name, value in variables.items() if value),
    ]


def _checked(line: str) -> list[str]:
    """The site's line, which ends the job where one of its commands fails.

    `set -e` would hold in functions and sourced files too, and break `conda activate`; an ERR trap does not.
    """
    return [
        """trap 'check_setup "$?" "$BASH_COMMAND"' ERR""",
        line,
        'rc=$?; trap - ERR; [ "$rc" = 0 ] || check_setup "$rc" "its last command"',
    ]


def teardown() -> list[str]:
    """Lines after srun."""
    return ["rc=$?", *(HERE / "requeue.sh").read_text(encoding="utf-8").splitlines()]


def text(parameters: Mapping[str, Any], python: str, folder: Path, elements: int | None) -> str:
    """The script; `python`: shell words that start the worker, `folder`: submitit's, `elements`: of an array."""
    command = f"{python} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    return batch({"map_count": elements, **parameters}, command, folder)


def batch(parameters: Mapping[str, Any], command: str, folder: Path) -> str:
    """The script that starts `command` in each task; logs go into `folder`."""
    from submitit.slurm.slurm import _make_sbatch_string

    return _make_sbatch_string(command=command, folder=folder, **parameters) + "\n"
