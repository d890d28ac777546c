"""The verbs about runs that are there: their words on the command line."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from job.errors import Refused
from launch import sites
from launch.runs import folders

RUN = "a run: its folder, its name in runs/, a job id or `latest`"
LAUNCHER_FLAGS = ("gpus", "nodes", "tasks", *(known.name for known in fields(sites.Site)))


def add(verbs: Any) -> None:
    """Add the verbs to the launcher's parser."""
    for add_one in (_add_status, _add_logs, _add_cancel, _add_rerun, _add_results, _add_compare):
        add_one(verbs)


def _add(verbs: Any, name: str, help: str, usage: str) -> argparse.ArgumentParser:
    return verbs.add_parser(name, help=help, allow_abbrev=False, usage=f"python -m launch {name} {usage}")


def _no_job_flags(verb: str, job: list[str]) -> None:
    if job:
        raise Refused(f"`{verb}` takes no flags of the job")


# ---------------------------------------------------------------------------------------------------------------------
# status


def _add_status(verbs: Any) -> None:
    parser = _add(verbs, "status", "how far the runs are, or one run in full", "[FOLDER | RUN] [--watch] [--json]")
    parser.add_argument("target", nargs="?", help=f"a folder of runs (default: {folders.RUNS}) or {RUN}")
    parser.add_argument("--watch", action="store_true", help="look again every 10 s, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _status(arguments: argparse.Namespace, job: list[str]) -> int:
    from launch.runs import status

    _no_job_flags("status", job)
    return status.show(arguments.target or str(folders.RUNS), as_json=arguments.json, watch=arguments.watch)


# ---------------------------------------------------------------------------------------------------------------------
# logs


def _add_logs(verbs: Any) -> None:
    parser = _add(verbs, "logs", "what the ranks of a run wrote", "[RUN] [-f] [--rank N] [--json]")
    parser.add_argument("run", nargs="?", help=f"{RUN} (default)")
    parser.add_argument("-f", "--follow", action="store_true", help="print more as it comes, until the run has ended")
    parser.add_argument("--rank", type=_rank, metavar="N", help="only what this rank wrote")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line")


def _rank(text: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", text):
        raise argparse.ArgumentTypeError(f"takes a rank's number, not {text!r}")
    return int(text)


def _logs(arguments: argparse.Namespace, job: list[str]) -> int:
    from launch.runs import logs

    _no_job_flags("logs", job)
    return logs.show(
        arguments.run or folders.LATEST, rank=arguments.rank, follow=arguments.follow, as_json=arguments.json
    )


# ---------------------------------------------------------------------------------------------------------------------
# cancel


def _add_cancel(verbs: Any) -> None:
    parser = _add(verbs, "cancel", "save and end runs", "(RUN... | --queued) [--json]")
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"{RUN}, here the newest submission")
    parser.add_argument("--queued", action="store_true", help=f"all runs of {folders.RUNS}/ that wait")
    parser.add_argument("--json", action="store_true", help="print what became of each as JSON")


def _cancel(arguments: argparse.Namespace, job: list[str]) -> int:
    from launch.runs import cancel

    _no_job_flags("cancel", job)
    return cancel.cancel(arguments.runs, queued=arguments.queued, as_json=arguments.json)


# ---------------------------------------------------------------------------------------------------------------------
# rerun


def _add_rerun(verbs: Any) -> None:
    usage = "RUN [launcher flags] [--dry_run] [-- changed job flags]"
    parser = _add(verbs, "rerun", "the same settings and launcher flags again", usage)
    parser.add_argument("run", metavar="RUN", help=f"{RUN}, here the newest submission")
    for name in LAUNCHER_FLAGS:
        parser.add_argument(f"--{name}", metavar="X", help="as of the verb that started the run")
    parser.add_argument("--dry_run", action="store_true", help="print what would be started")


def _rerun(arguments: argparse.Namespace, job: list[str]) -> int:
    from launch import cli
    from launch.runs import rerun

    made = rerun.plan(arguments.run, job)
    before, _ = cli.parser().parse_known_args([made.verb, *made.flags])
    flags = rerun.merged(vars(before), vars(arguments))
    print(made, file=sys.stderr, flush=True)
    return cli.main([made.verb, str(made.settings), *flags, "--", *made.job()])


# ---------------------------------------------------------------------------------------------------------------------
# results


def _add_results(verbs: Any) -> None:
    parser = _add(verbs, "results", "the finished runs, best first", "[FOLDER] [--by NUMBER] [--csv | --json]")
    parser.add_argument("folder", nargs="?", help=f"a folder of runs (default: {folders.RUNS})")
    parser.add_argument("--by", metavar="NUMBER", help="sort by this number, as f1_macro (default: what decided)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_const", const="csv", dest="form", help="print CSV, unrounded")
    form.add_argument("--json", action="store_const", const="json", dest="form", help="print JSON")


def _results(arguments: argparse.Namespace, job: list[str]) -> int:
    from launch.runs import results

    _no_job_flags("results", job)
    return results.show(Path(arguments.folder or folders.RUNS), arguments.by or None, arguments.form or "table")


# ---------------------------------------------------------------------------------------------------------------------
# compare


def _add_compare(verbs: Any) -> None:
    parser = _add(
        verbs, "compare", "two runs on the same rows, and the rows that changed", "A B [--by NUMBER] [--json]"
    )
    parser.add_argument("a", metavar="A", help=RUN)
    parser.add_argument("b", metavar="B", help="another")
    parser.add_argument("--by", metavar="NUMBER", help="compare by this number (default: what decided)")
    parser.add_argument("--json", action="store_true", help="print JSON, with every row that changed")


def _compare(arguments: argparse.Namespace, job: list[str]) -> int:
    from launch.runs import compare

    _no_job_flags("compare", job)
    return compare.show(arguments.a, arguments.b, arguments.by or None, as_json=arguments.json)


VERBS: dict[str, Callable[[argparse.Namespace, list[str]], int]] = {
    "status": _status,
    "logs": _logs,
    "cancel": _cancel,
    "rerun": _rerun,
    "results": _results,
    "compare": _compare,
}
OWN_FLAGS = {
    "status": ("--watch", "--json"),
    "logs": ("--follow", "--rank", "--json"),
    "cancel": ("--queued", "--json"),
    "rerun": (*(f"--{name}" for name in LAUNCHER_FLAGS), "--dry_run"),
    "results": ("--by", "--csv", "--json"),
    "compare": ("--by", "--json"),
}
