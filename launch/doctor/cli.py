"""The verb `doctor`: its words on the command line."""

from __future__ import annotations

import argparse

from launch import parsing
from launch.slurm.cli import add_site_flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpus", type=parsing.count, metavar="N", help="GPUs of a node; 0: the CPU")
    parser.add_argument("--nodes", type=parsing.count, metavar="N", help="nodes (default: 1)")
    parser.add_argument("--tasks", type=parsing.count, metavar="N", help="processes of a node on the CPU (default: 1)")
    parser.add_argument("--local", action="store_true", help="check this machine alone, without a Slurm job")
    parser.add_argument("--wait", type=parsing.count, metavar="SECONDS", default=600,
                        help="how long the job may wait for its start (default: 600)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--dry_run", action="store_true", help="print the checks and the batch script, start nothing")
    add_site_flags(parser)


def doctor(arguments: argparse.Namespace) -> int:
    """Make the checks and print the report."""
    from launch.doctor import command  # imports submitit

    return command.doctor(arguments)
