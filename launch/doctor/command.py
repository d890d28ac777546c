"""`python -m launch doctor`: checks whether a job could run, on this machine or the cluster, and prints a report."""

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
from launch import parsing, sites
from launch.console import note
from launch.doctor import checks, job, login, workstation
from launch.doctor.checks import FAILED, FOLDER, HERE, OK, REQUEST, TOOLS, Check, Finding, Line, Problem
from launch.doctor.cli import WAIT_SECONDS
from launch.local import command as local
from launch.runs.folders import RUNS
from launch.slurm import script


def doctor(arguments: argparse.Namespace) -> int:
    """Print a line per check; returns 2 if a check failed."""
    environment.load_dotenv()
    folder = (RUNS / f".doctor-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}").absolute()
    if arguments.local or login.is_workstation():
        why = "" if arguments.local else ": no Slurm here"
        print(f"checks of this machine only{why}", file=sys.stderr, flush=True)
        check = _check_workstation
    else:
        check = _check_cluster
    try:
        report = check(arguments, folder)
    except KeyboardInterrupt:
        _clean_up(folder, keep=False)
        raise
    if report is None:
        return 0
    print(as_json(report) if arguments.json else text(report), flush=True)
    failed = sum(line.state == FAILED for line in report)
    if failed:
        logs = f"; logs are in {folder}" if folder.exists() else ""
        print(f"{failed} of {len(report)} checks failed{logs}", file=sys.stderr, flush=True)
    _clean_up(folder, keep=failed > 0)
    return Refused.exit_code if failed else 0


def _check_workstation(arguments: argparse.Namespace, folder: Path) -> list[Line] | None:
    nodes = None if arguments.nodes == 1 else arguments.nodes
    given = {"nodes": nodes, "wait": arguments.wait, **sites.given(arguments)}
    if flags := [f"--{name} {value}" for name, value in given.items() if value is not None]:
        raise Refused(f"{flags[0]} needs a job on Slurm, and only this machine is checked: remove it")
    machine = local.inspect_machine(os.environ)
    gpus = machine.gpus.to_use(arguments.gpus)
    parsing.refuse_tasks(gpus, arguments.tasks)
    local.require_training()
    request = workstation.Request(gpus, gpus or arguments.tasks or 1, folder)
    if arguments.dry_run:
        print(_listed(checks.LOCAL))
        print(f"# {request.processes} processes: {' '.join(request.command())}")
        return None
    findings: list[Finding] = []
    if _run_check(HERE, lambda: login.folder(folder), findings):
        on_cpu = machine.gpus.cpu_is_requested(arguments.gpus, arguments.tasks)
        findings += workstation.run(request, {**os.environ, **({"ACCELERATE_USE_CPU": "true"} if on_cpu else {})})
    return checks.lines(checks.LOCAL, findings, _expected(request.processes))


def _check_cluster(arguments: argparse.Namespace, folder: Path) -> list[Line] | None:
    gpus = parsing.gpus_per_node(arguments.gpus)
    site = sites.read(vars(arguments), os.environ)
    if site.setup:
        script.check_setup(site.setup)
    nodes = 1 if arguments.nodes is None else arguments.nodes
    wait = WAIT_SECONDS if arguments.wait is None else arguments.wait
    request = job.Request(gpus, arguments.tasks, nodes, wait, folder, Path.cwd())
    planned = job.plan(request, site, os.environ)
    if arguments.dry_run:
        print(f"{_listed(checks.CLUSTER)}\n{planned.plan}")
        return None
    login_checks: tuple[tuple[Check, Callable[[], str]], ...] = (
        (TOOLS, login.tools),
        (REQUEST, lambda: login.request(planned.asked, site.partition, site.clusters)),
        (FOLDER, lambda: login.folder(folder)),
    )
    findings: list[Finding] = []
    if all(_run_check(check, examine, findings) for check, examine in login_checks):
        findings += job.run(planned, note)
    return checks.lines(checks.CLUSTER, findings, {FOLDER.name: nodes, **_expected(request.processes)})


def _run_check(check: Check, examine: Callable[[], str], findings: list[Finding]) -> bool:
    """Whether a check of this machine passes; a failure, or a result with details, is added to `findings`."""
    try:
        detail = examine()
    except Problem as problem:
        findings.append(Finding(check.name, FAILED, problem.detail, problem.remedy))
        return False
    if detail:
        findings.append(Finding(check.name, OK, detail))
    return True


def _expected(processes: int) -> dict[str, int]:
    """Name of a check -> number of processes that report on it."""
    return dict.fromkeys((check.name for check in checks.RANK_CHECKS), processes)


def text(report: Sequence[Line]) -> str:
    """The report as a table of state, check and detail; remedies are on a second line."""
    width = max(len(line.check.name) for line in report)
    lines = []
    for line in report:
        lines.append(f"{line.state:<6}  {line.check.name:<{width}}  {line.detail}")
        if line.remedy:
            lines.append(f"{'':<6}  {'':<{width}}  remedy: {line.remedy}")
    return "\n".join(lines)


def as_json(report: Sequence[Line]) -> str:
    return json.dumps([line.as_json() for line in report], indent=2)


def _listed(planned: Sequence[Check]) -> str:
    width = max(len(check.name) for check in planned)
    return "\n".join(f"# {check.name:<{width}}  {check.promise}" for check in planned)


def _clean_up(folder: Path, keep: bool) -> None:
    """Remove the folder, or with `keep`, which keeps the logs, only the copied code."""
    shutil.rmtree(folder / "code" if keep else folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()  # unless there are runs
