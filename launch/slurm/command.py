"""`python -m launch submit`: command line -> request -> queued job, and a summary."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from job import checks, config
from job.config import Config
from job.errors import Refused
from job.run import folder as run_folder
from job.runtime import environment, package
from launch import parsing, sites
from launch.console import announce, warn
from launch.runs import explanations
from launch.slurm import client, filesystems, offline, queueing, script, snapshot
from launch.slurm import submission as slurm
from launch.slurm.client import Answer
from launch.slurm.submission import Array, Request, Submission

REASON_DELAYS = (0.0, 1.0, 2.0)
"""Seconds before each check of the reason why a job that was just queued is pending."""
UNDECIDED = ("None", "PartitionConfig")
"""Reasons that Slurm reports before its scheduler has considered the job."""


def submit(arguments: argparse.Namespace) -> int:
    """Queue the requested job, or print its batch script."""
    environment.load_dotenv()
    words = parsing.job_words(arguments)
    settings = config.parse(words)
    checks.check(settings)
    run = Path(settings.run.output_dir or run_folder.new_path(config.run_name(words))).absolute()
    requested = request(arguments, config.settled(settings), run, is_new=settings.run.output_dir is None)
    queue(requested, arguments, arguments.flags, _summary)
    return 0


def request(
    arguments: argparse.Namespace, settings: Config, run: Path, *, is_new: bool = False, array: Array | None = None
) -> Request:
    """The request from the launcher's flags; Refused without --gpus."""
    return Request(
        config=settings,
        gpus=parsing.gpus_per_node(arguments.gpus),
        tasks=arguments.tasks,
        nodes=1 if arguments.nodes is None else arguments.nodes,
        run=run,
        is_new=is_new,
        stamp=time.strftime("%Y%m%d-%H%M%S"),
        array=array,
    )


def queue(
    request: Request,
    arguments: argparse.Namespace,
    flags: Sequence[str],
    summary: Callable[[Submission, Answer], str],
) -> None:
    """Queue `request` and print its summary; with --dry_run, only print it. `flags` are recorded for `rerun`."""
    environment.refuse_accelerate_plans(os.environ)
    site = sites.read(vars(arguments), os.environ)
    if site.setup:
        script.check_setup(site.setup)
    code = snapshot.describe(package.ROOT)
    directory = Path.cwd()

    def plan(request: Request) -> Submission:
        return slurm.plan(request, site, os.environ, directory, code)

    planned = plan(request)
    if code.untracked:
        warn(f"git does not track {_shortened(code.untracked)}: left out of the job's code")
    if arguments.dry_run:
        print(planned)
        return
    for settings in request.configs:
        offline.check(settings, os.environ)
    needed = [request.run, directory, *([Path(sys.executable)] if site.container == "none" else [])]
    for path, kind in filesystems.local(needed):
        warn(f"{path} is on this machine's own disk ({kind}): a node that does not share it cannot run the job")
    answer = queueing.submit(request, plan, flags, lambda *queued: announce(summary(*queued)))
    with contextlib.suppress(KeyboardInterrupt):  # the job is queued: only the warning is skipped
        _warn_if_never_starting(answer)


def _summary(submission: Submission, answer: Answer) -> str:
    number, run = answer.id, submission.run
    return (
        f"submitted {number}\nrun       {run}\nlog       {run}/jobs/{number}/{number}_0_log.out and .err\n"
        f"cancel    python -m launch cancel {shlex.quote(str(run))}"
    )


def _warn_if_never_starting(answer: Answer) -> None:
    """Warn if the job is pending for a reason that keeps it pending forever."""
    reason = _pending_reason(answer)
    pending = explanations.pending(reason)
    if pending.never_starts and reason != "JobHeldUser":
        warn(f"job {answer.id} {pending} ({reason})")


def _pending_reason(answer: Answer) -> str:
    """Slurm's reason why the job is pending, for which it may need a moment; `None`, as Slurm spells it, if unknown."""
    for pause in REASON_DELAYS:
        time.sleep(pause)
        try:
            jobs = [job for job in client.my_jobs(answer.cluster) if job.id.partition("_")[0] == answer.id]
        except Refused:
            break  # the job is queued: only the warning is skipped
        if not jobs or jobs[0].state != "PENDING":
            break
        if jobs[0].reason not in UNDECIDED:
            return jobs[0].reason
    return "None"


def _shortened(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
