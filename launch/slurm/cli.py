"""The verb `submit`: its arguments."""

from __future__ import annotations

import argparse
from dataclasses import fields

from launch import parsing, sites

RESOURCES = ("gpus", "nodes", "tasks", *(known.name for known in fields(sites.Site)))
"""Names of the flags of `add_resources`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parsing.add_recipe(parser)
    parser.add_argument("--dry_run", action="store_true", help="only print the batch script")
    add_resources(parser)


def add_resources(parser: argparse.ArgumentParser) -> None:
    """The flags for the resources that a job requests."""
    parser.add_argument("--gpus", type=parsing.count, metavar="N", help="GPUs per node; 0: train on the CPU")
    parser.add_argument("--nodes", type=parsing.count, metavar="N", help="number of nodes (default: 1)")
    parser.add_argument("--tasks", type=parsing.count, metavar="N", help="processes per node on the CPU (default: 1)")
    add_site_flags(parser)


def add_site_flags(parser: argparse.ArgumentParser) -> None:
    site = parser.add_argument_group("site flags", "also read from the environment or .env, e.g. MUSTER_PARTITION")
    for known in fields(sites.Site):
        default = f" (default: {known.default})" if known.default else ""
        site.add_argument(f"--{known.name}", metavar="X", help=known.metadata["help"].replace("%", "%%") + default)


def submit(arguments: argparse.Namespace) -> int:
    """Queue the job, or print its batch script."""
    from launch.slurm import command  # imports submitit

    return command.submit(arguments)
