"""The verbs of the launcher: one line each in VERBS."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from job.runtime import contract
from launch import recipes
from launch.docker import cli as docker
from launch.doctor import cli as doctor
from launch.local import cli as local
from launch.local import prefetch
from launch.parsing import Parser
from launch.runs import cli as runs
from launch.slurm import cli as slurm
from launch.sweeps import cli as sweeps

PROGRAM = contract.LAUNCHER


@dataclass(frozen=True)
class Verb:
    """One verb of the command line."""

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    """Executes the verb and returns the exit code. In addition to the parsed arguments, the namespace has `job`, the
    arguments after `--`, and `flags`, the launcher's own arguments as typed."""
    takes_job_flags: bool = False

    def parser(self) -> Parser:
        """The parser of the arguments between the verb and `--`."""
        description = f"{self.help[0].upper()}{self.help[1:]}."
        parser = Parser(prog=f"{PROGRAM} {self.name}", description=description, allow_abbrev=False)
        if self.takes_job_flags:
            parser.epilog = f"Job flags follow `--`; `{PROGRAM} local -- --help` lists them."
        self.add_arguments(parser)
        return parser


def _no_arguments(_: argparse.ArgumentParser) -> None:
    pass


VERBS = {
    verb.name: verb
    for verb in (
        Verb("local", "train on this machine", local.add_arguments, local.train, takes_job_flags=True),
        Verb("submit", "queue the job on a Slurm cluster", slurm.add_arguments, slurm.submit, takes_job_flags=True),
        Verb("sweep", "train runs with different settings", sweeps.add_arguments, sweeps.sweep, takes_job_flags=True),
        Verb("docker", "train in a container of the image", docker.add_arguments, docker.train, takes_job_flags=True),
        Verb(
            "prefetch",
            "download what a job needs from the hub",
            prefetch.add_arguments,
            prefetch.prefetch,
            takes_job_flags=True,
        ),
        Verb("doctor", "check what would keep a job from running", doctor.add_arguments, doctor.doctor),
        Verb("recipes", "list the recipes", _no_arguments, recipes.show),
        Verb("status", "show the progress of all runs, or one run in detail", runs.add_status, runs.status),
        Verb("logs", "print the logs of a run", runs.add_logs, runs.logs),
        Verb("cancel", "stop runs after saving a checkpoint", runs.add_cancel, runs.cancel),
        Verb("rerun", "start a run again with the same settings", runs.add_rerun, runs.rerun, takes_job_flags=True),
        Verb("results", "list the finished runs, best first", runs.add_results, runs.results),
        Verb("compare", "compare two runs row by row", runs.add_compare, runs.compare),
        Verb("report", "write report.html of a run, even while it trains", runs.add_report, runs.report),
    )
}


def overview() -> str:
    """The output of `--help` without a verb."""
    width = max(map(len, VERBS))
    lines = (f"  {verb.name:<{width}}  {verb.help}" for verb in VERBS.values())
    return "\n".join(
        [
            f"usage: {PROGRAM} VERB [RECIPE] [launcher flags] [-- job flags]",
            "\nFine-tune on this machine or on a cluster.\n",
            *lines,
            f"\n`{PROGRAM} VERB --help` lists the flags of a verb.",
        ]
    )
