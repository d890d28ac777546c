"""The verbs about runs that are there: their words on the command line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any

from job.errors import Refused
from launch.runs import folders


def add(verbs: Any) -> None:
    """Add the verbs to the launcher's parser."""
    status = verbs.add_parser(
        "status",
        help="how far the runs are, or one run in full",
        allow_abbrev=False,
        usage="python -m launch status [FOLDER | RUN] [--watch] [--json]",
    )
    status.add_argument("target", nargs="?", help=f"a folder of runs (default: {folders.RUNS}) or {RUN}")
    status.add_argument("--watch", action="store_true", help="look again every 10 s, until Ctrl-C")
    status.add_argument("--json", action="store_true", help="print JSON")
    logs = verbs.add_parser(
        "logs",
        help="what the ranks of a run wrote",
        allow_abbrev=False,
        usage="python -m launch logs [RUN] [-f] [--rank N]",
    )
    logs.add_argument("run", nargs="?", help=f"{RUN} (default)")
    logs.add_argument("-f", "--follow", action="store_true", help="print more as it comes, until the run has ended")
    logs.add_argument("--rank", type=_rank, metavar="N", help="only what this rank wrote")
    cancel = verbs.add_parser(
        "cancel",
        help="save and end runs",
        allow_abbrev=False,
        usage="python -m launch cancel RUN... | --queued",
    )
    cancel.add_argument("runs", nargs="*", metavar="RUN", help=f"{RUN}, here the newest submission")
    cancel.add_argument("--queued", action="store_true", help=f"all runs of {folders.RUNS}/ that wait")


def _rank(text: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", text):
        raise argparse.ArgumentTypeError(f"takes a rank's number, not {text!r}")
    return int(text)


def _status(arguments: argparse.Namespace, job: list[str]) -> int:
    from launch.runs import status

    _no_job_flags("status", job)
    return status.show(arguments.target or str(folders.RUNS), as_json=arguments.json, watch=arguments.watch)


def _logs(arguments: argparse.Namespace, job: list[str]) -> int:
    from launch.runs import logs

    _no_job_flags("logs", job)
    return logs.show(arguments.run or folders.LATEST, rank=arguments.rank, follow=arguments.follow)


def _cancel(arguments: argparse.Namespace, job: list[str]) -> int:
    from launch.runs import cancel

    _no_job_flags("cancel", job)
    return cancel.cancel(arguments.runs, queued=arguments.queued)


def _no_job_flags(verb: str, job: list[str]) -> None:
    if job:
        raise Refused(f"`{verb}` takes no flags of the job")


RUN = "a run: its folder, its name in runs/, a job id or `latest`"
VERBS: dict[str, Callable[[argparse.Namespace, list[str]], int]] = {"status": _status, "logs": _logs, "cancel": _cancel}
OWN_FLAGS = {"status": ("--watch", "--json"), "logs": ("--follow", "--rank"), "cancel": ("--queued",)}
