"""The parts of the batch script: resources, site flags, and the lines before and after srun.

A private function of submitit combines them to the text, so that a dry run prints exactly what would be queued, even
where Slurm is not installed. Alternative considered: a second template in addition to submitit's.
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
from launch import parsing, sites
from launch.sites import Site

HERE = Path(__file__).parent
RESERVED = (
    *("array", "chdir", "container-image", "error", "export", "no-kill", "no-requeue", "open-mode", "output"),
    *("parsable", "test-only", "wait", "wrap"),
)
"""sbatch flags that the launcher sets itself, or that would break stopping and resuming a job."""
LAUNCHER_FLAGS = {
    **{name: f"--{name}" for name in ("partition", "account", "qos", "constraint", "time", "wckey", "nodes")},
    **{"gpus": "--gpus", "gpus-per-node": "--gpus", "ntasks": "--tasks", "ntasks-per-node": "--tasks"},
    **{"cpus-per-task": "--cpus_per_task", "job-name": "--job_name", "signal": "--signal_delay"},
}
"""sbatch flag -> the launcher's flag for it."""
MASKING = ("gpus-per-task", "gpus-per-socket", "gpu-bind", "ntasks-per-gpu", "tres-bind", "tres-per-task")
"""sbatch flags that would show a process only some of its node's GPUs."""


def resources(site: Site, *, gpus: int, tasks: int | None, nodes: int, name: str) -> dict[str, Any]:
    """The requested resources. Every task sees all GPUs of its node: NCCL needs their real numbers."""
    if nodes == 0:
        raise Refused("--nodes must be above 0, not 0")
    parsing.refuse_tasks(gpus, tasks)
    requested = {name: getattr(site, name) for name in ("partition", "account", "qos", "constraint")}
    if gpus and site.gres:
        requested["gres"] = f"{site.gres}:{gpus}"
    elif gpus:
        requested["gpus_per_node"] = gpus
    minutes, delay = sites.minutes(site.time), int(site.signal_delay)
    if 60 * minutes <= delay:
        raise Refused(f"--time {site.time} is within --signal_delay {delay} (seconds): the job would be stopped "
                      "as it starts; raise --time or lower --signal_delay")  # fmt: skip
    return {
        **{name: value for name, value in requested.items() if value},
        "job_name": site.job_name or re.sub(r"[^A-Za-z0-9._=,:@%+-]", "-", name),
        "time": minutes,
        "nodes": nodes,
        "ntasks_per_node": gpus or tasks or 1,
        "cpus_per_task": int(site.cpus_per_task),
        "signal_delay_s": delay,
        "wckey": site.wckey or None,
    }


def site_flags(site: Site, token: str) -> dict[str, str | bool]:
    """The flags in --sbatch, and the comment with `token`, by which the job can be found."""
    flags = sites.sbatch_flags(site.sbatch)
    for name, value in flags.items():
        _refuse_flag(name, value, site)
    return {**flags, "comment": f"{flags['comment']} {token}" if flags.get("comment") else token}


def _refuse_flag(name: str, value: str | bool, site: Site) -> None:
    """Refused for a flag that --sbatch must not contain; like sbatch, this accepts abbreviated flags."""
    rejected = (*RESERVED, *LAUNCHER_FLAGS, *MASKING)
    matches = [flag for flag in rejected if flag == name] or [flag for flag in rejected if flag.startswith(name)]
    if name == "gres" and (site.gres or "gpu" in str(value)):
        raise Refused("--sbatch --gres: the launcher has a flag for GPUs, --gpus with --gres")
    if not matches:
        return
    if matches[0] in LAUNCHER_FLAGS:
        raise Refused(f"--sbatch --{name}: the launcher has a flag for it, {LAUNCHER_FLAGS[matches[0]]}")
    if matches[0] in MASKING:
        raise Refused(f"--sbatch --{name}: a process would see only some GPUs of its node, and NCCL needs all of "
                      "them; --gpus N gives each node N GPUs and N processes")  # fmt: skip
    raise Refused(f"--sbatch --{name}: the launcher sets this itself, or relies on it")


def check_setup(setup: str) -> None:
    """Refused if the lines of --setup are not valid bash."""
    try:
        done = subprocess.run(["bash", "-n"], input=f"{setup}\n", capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return  # no bash on this machine; the nodes have it
    if done.returncode:
        reason = re.sub(r"^(bash|-bash): (line \d+: )?", "", done.stderr.strip().splitlines()[0])
        raise Refused(f"--setup {setup!r} is not valid shell code: {reason}")


def setup(site: Site, *, run: str, directory: Path, token: str, python: str, variables: Mapping[str, str]) -> list[str]:
    """Lines before srun.

    Args:
        site: the site; its setup command is one of the lines.
        run: run folder, quoted for the shell.
        directory: working directory.
        token: identifies this submission in status.json.
        python: the interpreter that must exist on the nodes; empty in a container.
        variables: environment variables of the worker.
    """
    quoted_directory, interpreter = shlex.quote(str(directory)), shlex.quote(python)
    checks = [f'cd {quoted_directory} || fail 1 "the working directory is not on this node" "$(hostname)"']
    if python:
        checks.append(f'[ -x {interpreter} ] || fail 127 "the Python environment is not on this node" "$(hostname)"')
    return [
        *(HERE / "functions.sh").read_text(encoding="utf-8").splitlines(),
        f"submission={token}",
        f"run={run}",
        f'status="$run/{contract.STATUS}"',
        f'marker="$run/{contract.JOBS}/$job/{contract.REQUEUE}"',
        f'link_logs "$run/{contract.JOBS}"',
        'rm -f "$marker"',
        *checks,
        *(setup_lines(site.setup) if site.setup else []),
        *(f"export {name}={shlex.quote(value)}" for name, value in variables.items() if value),
    ]


def setup_lines(line: str) -> list[str]:
    """The site's setup line, with traps: one ends the job if a command fails, the other reports that the shell exits.

    `set -e` would also apply inside functions and sourced files and break `conda activate`; an ERR trap does not.
    """
    return [
        """in_setup=yes; trap 'leave_setup "$?" "$BASH_COMMAND"' EXIT""",
        """trap 'check_setup "$?" "$BASH_COMMAND"' ERR""",
        line,
        'rc=$?; trap - ERR; in_setup=; [ "$rc" = 0 ] || check_setup "$rc" "its last command"',
    ]


def batch_logs(run: Path, job: str) -> dict[str, str]:
    """Where Slurm writes what the batch script prints: `run` and `job` may contain its patterns.

    Not in the job's folder, whose name is known only when sbatch has answered: a job that starts before the folder
    exists ends at once and has no log. The batch script links the logs into the folder.
    """
    log = run / contract.JOBS / f"batch-{job}"
    return {"output": f"{log}.out", "error": f"{log}.err"}


def teardown() -> list[str]:
    """Lines after srun."""
    return ["rc=$?", *(HERE / "requeue.sh").read_text(encoding="utf-8").splitlines()]


def text(parameters: Mapping[str, Any], python: str, folder: Path, elements: int | None) -> str:
    """The batch script; `python` is the command that starts the worker, `elements` the size of an array."""
    command = f"{python} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    return batch({"map_count": elements, **parameters}, command, folder)


def batch(parameters: Mapping[str, Any], command: str, folder: Path) -> str:
    """The batch script that starts `command` in each task; logs are written to `folder`."""
    from submitit.slurm.slurm import _make_sbatch_string

    return _make_sbatch_string(command=command, folder=folder, **parameters) + "\n"
