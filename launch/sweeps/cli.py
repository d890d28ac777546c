"""The verb `sweep`: its arguments."""

from __future__ import annotations

import argparse

from launch import parsing
from launch.slurm import cli as slurm


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parsing.add_recipe(parser)
    parser.add_argument("--grid", metavar="X", help="all combinations of values: 'learning_rate=2e-5,5e-5 seed=1,2,3'")
    parser.add_argument("--search", metavar="X", help="ranges to search: 'learning_rate=1e-5..1e-3:log seed=1..9'")
    parser.add_argument("--trials", type=parsing.count, metavar="N", help="runs of a search")
    parser.add_argument("--parallel", type=parsing.count, metavar="N", help="runs at a time, at most")
    parser.add_argument("--local", action="store_true", help="run on this machine even if there is Slurm")
    parser.add_argument("--dry_run", action="store_true", help="print what would be started")
    slurm.add_resources(parser)


def sweep(arguments: argparse.Namespace) -> int:
    """Start the missing and failed runs of a sweep, on Slurm or on this machine."""
    from launch.sweeps import command

    return command.sweep(arguments)
