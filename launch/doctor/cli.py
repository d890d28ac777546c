"""The verb `doctor`: its arguments."""

from __future__ import annotations

import argparse

from launch import parsing
from launch.slurm.cli import add_site_flags

WAIT_SECONDS = 600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpus", type=parsing.count, metavar="N", help="GPUs per node; 0: use the CPU")
    parser.add_argument("--nodes", type=parsing.count, metavar="N", help="number of nodes (default: 1)")
    parser.add_argument("--tasks", type=parsing.count, metavar="N", help="processes per node on the CPU (default: 1)")
    parser.add_argument("--local", action="store_true", help="check only this machine, without a Slurm job")
    parser.add_argument("--wait", type=parsing.count, metavar="SECONDS",
                        help=f"how long the job may wait for its start (default: {WAIT_SECONDS})")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--dry_run", action="store_true", help="only print the checks and the batch script")
    add_site_flags(parser)


def doctor(arguments: argparse.Namespace) -> int:
    """Run the checks and print the report."""
    from launch.doctor import command  # imports submitit

    return command.doctor(arguments)
