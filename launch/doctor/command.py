"""What would keep a job from running, here or on the cluster: checks made in order, and a report."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from job.errors import Refused
from job.runtime import environment
from launch import sites
from launch.doctor import checks, job, login, workstation
from launch.doctor.checks import FAILED, FOLDER, HERE, OK, REQUEST, TOOLS, Check, Finding, Line, Problem
from launch.local import command as local
from launch.runs.folders import RUNS
from launch.slurm import script


def doctor(arguments: argparse.Namespace) -> int:
    """Print a line for each check; 2 if one failed."""
    environment.load_dotenv()
    folder = (RUNS / f".doctor-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}").absolute()
    if arguments.local or login.is_workstation():
        why = "" if arguments.local else ": no Slurm here"
        print(f"checks of this machine alone{why}", file=sys.stderr, flush=True)
        found = _workstation(arguments, folder)
    else:
        found = _cluster(arguments, folder)
    if found is None:
        return 0
    print(as_json(found) if arguments.json else text(found), flush=True)
    failed = sum(line.state == FAILED for line in found)
    if failed:
        logs = f"; logs are in {folder}" if folder.exists() else ""
        print(f"{failed} of {len(found)} checks failed{logs}", file=sys.stderr, flush=True)
    _tidy(folder, keep=failed > 0)
    return Refused.exit_code if failed else 0


def _workstation(arguments: argparse.Namespace, folder: Path) -> list[Line] | None:
    local.require_training()
    gpus = local.gpus(arguments.gpus, local.look(os.environ).gpus)
    request = workstation.Request(gpus, gpus or arguments.tasks or 1, folder)
    if arguments.dry_run:
        print(_listed(checks.LOCAL))
        print(f"# {request.processes} processes: {' '.join(request.command())}")
        return None
    found: list[Finding] = []
    if _examine(HERE, lambda: login.folder(folder), found):
        found += workstation.run(request, os.environ)
    return checks.lines(checks.LOCAL, found, _expected(request.processes))


def _cluster(arguments: argparse.Namespace, folder: Path) -> list[Line] | None:
    if arguments.gpus is None:
        raise Refused("say how many GPUs a node has: --gpus N, or --gpus 0 --tasks N for CPUs")
    at = sites.read(vars(arguments), os.environ)
    if at.setup:
        script.check_setup(at.setup)
    nodes = 1 if arguments.nodes is None else arguments.nodes
    request = job.Request(arguments.gpus, arguments.tasks, nodes, arguments.wait or 0, folder, Path.cwd())
    planned = job.plan(request, at, os.environ)
    if arguments.dry_run:
        print(f"{_listed(checks.CLUSTER)}\n{planned.plan}")
        return None
    here: tuple[tuple[Check, Callable[[], str]], ...] = (
        (TOOLS, login.tools),
        (REQUEST, lambda: login.request(planned.plan, at.partition)),
        (FOLDER, lambda: login.folder(folder)),
    )
    found: list[Finding] = []
    if all(_examine(check, examine, found) for check, examine in here):
        found += job.run(planned, _tell)
    return checks.lines(checks.CLUSTER, found, {FOLDER.name: nodes, **_expected(request.processes)})


def _examine(check: Check, examine: Callable[[], str], found: list[Finding]) -> bool:
    """Whether a check of this machine holds; its finding is added, unless there is nothing to say."""
    try:
        detail = examine()
    except Problem as problem:
        found.append(Finding(check.name, FAILED, problem.detail, problem.remedy))
        return False
    if detail:
        found.append(Finding(check.name, OK, detail))
    return True


def _expected(processes: int) -> dict[str, int]:
    """How many processes answer each check."""
    return dict.fromkeys((check.name for check in checks.OF_RANKS), processes)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def text(found: Sequence[Line]) -> str:
    """The report: state, check, what was found; the remedy below."""
    width = max(len(line.check.name) for line in found)
    lines = []
    for line in found:
        lines.append(f"{line.state:<6}  {line.check.name:<{width}}  {line.detail}")
        if line.remedy:
            lines.append(f"{'':<6}  {'':<{width}}  remedy: {line.remedy}")
    return "\n".join(lines)


def as_json(found: Sequence[Line]) -> str:
    return json.dumps([line.as_json() for line in found], indent=2)


def _listed(known: Sequence[Check]) -> str:
    width = max(len(check.name) for check in known)
    return "\n".join(f"# {check.name:<{width}}  {check.promise}" for check in known)


def _tidy(folder: Path, keep: bool) -> None:
    """Nothing stays of a machine in order; logs stay where something failed."""
    shutil.rmtree(folder / "code" if keep else folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()  # unless there are runs
