"""The verbs for existing runs: their arguments."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from job.errors import Refused
from job.runtime import files
from launch.runs import folders
from launch.slurm.cli import RESOURCES

RUN = "a run: its folder, or, for one in runs/, its name, its job id or `latest`"


# ---------------------------------------------------------------------------------------------------------------------
# status


def add_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="RUN", nargs="?", help=f"a folder of runs (default: {folders.RUNS}) or {RUN}")
    parser.add_argument("--watch", action="store_true", help="refresh every 10 s until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="print JSON")


def status(arguments: argparse.Namespace) -> int:
    from launch.runs.status import show

    return show(arguments.target or str(folders.RUNS), as_json=arguments.json, watch=arguments.watch)


# ---------------------------------------------------------------------------------------------------------------------
# logs


def add_logs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", nargs="?", help=f"{RUN} (default)")
    parser.add_argument("--follow", "-f", action="store_true", help="follow the log until the run has ended")
    parser.add_argument("--rank", type=_rank, metavar="N", help="only the log of this rank")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")


def _rank(text: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", text):
        raise argparse.ArgumentTypeError(f"takes the number of a rank, not {text!r}")
    return int(text)


def logs(arguments: argparse.Namespace) -> int:
    from launch.runs.logs import show

    run = arguments.run or folders.LATEST
    return show(run, rank=arguments.rank, follow=arguments.follow, as_json=arguments.json)


# ---------------------------------------------------------------------------------------------------------------------
# cancel


def add_cancel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"{RUN} (here the newest submission)")
    parser.add_argument("--queued", action="store_true", help=f"all queued runs in {folders.RUNS}/")
    parser.add_argument("--json", action="store_true", help="print the final state of each as JSON")


def cancel(arguments: argparse.Namespace) -> int:
    from launch.runs.cancel import cancel as cancel_runs

    return cancel_runs(arguments.runs, queued=arguments.queued, as_json=arguments.json)


# ---------------------------------------------------------------------------------------------------------------------
# rerun


def add_rerun(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help=f"{RUN} (here the newest submission)")
    for name in RESOURCES:
        parser.add_argument(f"--{name}", metavar="X", help="as for the verb that started the run")
    parser.add_argument("--dry_run", action="store_true", help="only print what would be started")


def rerun(arguments: argparse.Namespace) -> int:
    from launch import cli, verbs  # which import this module
    from launch.runs.rerun import merged, plan

    if sweep := folders.find_sweep(arguments.run):
        return _rerun_sweep(sweep, arguments)
    planned = plan(arguments.run, arguments.job)
    before, _ = verbs.VERBS[planned.verb].parser().parse_known_args(planned.flags)
    flags = merged(vars(before), vars(arguments))
    print(planned, file=sys.stderr, flush=True)
    return cli.main([planned.verb, str(planned.settings), *flags, "--", *planned.job()])


def _rerun_sweep(sweep: Path, arguments: argparse.Namespace) -> int:
    """Run the same `sweep` command again, which starts the missing and failed runs."""
    from launch import cli, verbs
    from launch.runs.rerun import merged

    if arguments.job:
        raise Refused(f"{sweep} is a sweep, and its settings are fixed: name one of its runs, as {sweep}/0")
    recorded = files.read_json(sweep / folders.SWEEP).get("flags", [])
    before, _ = verbs.VERBS["sweep"].parser().parse_known_args(recorded)
    flags = merged(vars(before), vars(arguments))
    return cli.main(["sweep", str(sweep / "config.yaml"), *flags, "--", "--output_dir", str(sweep)])


# ---------------------------------------------------------------------------------------------------------------------
# results


def add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", nargs="?", help=f"a folder of runs (default: {folders.RUNS})")
    parser.add_argument(
        "--by", metavar="METRIC", help="sort by this metric, e.g. f1_macro (default: metric_for_best_model)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_const", const="csv", dest="form", help="print CSV, unrounded")
    form.add_argument("--json", action="store_const", const="json", dest="form", help="print JSON")


def results(arguments: argparse.Namespace) -> int:
    from launch.runs.results import show

    folder, form = arguments.folder or str(folders.RUNS), arguments.form or "table"
    sweep = folders.find_sweep(folder)
    rows = show(sweep or Path(folder), arguments.by or None, form)
    if sweep is not None and form == "table":
        from launch.sweeps import summary  # which imports `results`

        summary.show(sweep, rows)
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# compare


def add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help=RUN)
    parser.add_argument("b", metavar="B", help="another run")
    parser.add_argument("--by", metavar="METRIC", help="compare by this metric (default: metric_for_best_model)")
    parser.add_argument("--json", action="store_true", help="print JSON, with every changed row")


def compare(arguments: argparse.Namespace) -> int:
    from launch.runs.compare import show

    return show(arguments.a, arguments.b, arguments.by or None, as_json=arguments.json)


# ---------------------------------------------------------------------------------------------------------------------
# report


def add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", nargs="?", help=f"{RUN} (default)")


def report(arguments: argparse.Namespace) -> int:
    from launch.runs.report import write

    return write(arguments.run or folders.LATEST)
