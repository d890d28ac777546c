"""`python -m launch sweep`: a sweep as a value, then what is missing of it: one Slurm array, or runs here."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import fields

from job import config
from job.errors import Refused
from job.runtime import environment, files
from launch import parsing, sites
from launch.local import command as local
from launch.sweeps import progress, values, workstation
from launch.sweeps import sweep as sweeps
from launch.sweeps.progress import Progress
from launch.sweeps.sweep import Element, Sweep

RESOURCES = ("gpus", "nodes", "tasks", *(known.name for known in fields(sites.Site)))


def sweep(arguments: argparse.Namespace) -> int:
    """Start the runs of the sweep that are missing or have failed, or print what would be started."""
    environment.refuse_unjoined_tasks(os.environ)
    environment.load_dotenv()
    made = _made(arguments)
    sweeps.refuse_others(made)
    found = progress.look(made)
    here = arguments.local or shutil.which("sbatch") is None
    if arguments.dry_run:
        print(made)
        print(f"# there already: {found}")
    else:
        _say(made, found)
    if not found.to_start:
        return 0
    return _run_here(arguments, made, found.to_start) if here else _queue(arguments, made, found.to_start)


def _made(arguments: argparse.Namespace) -> Sweep:
    """The sweep that the command line asks for."""
    if bool(arguments.grid) == bool(arguments.search):
        raise Refused("give either --grid 'learning_rate=2e-5,5e-5 seed=1,2,3' or --search "
                      "'learning_rate=1e-5..1e-3:log' with --trials N")  # fmt: skip
    words = parsing.job_words(arguments)
    name = config.run_name(words)
    if arguments.grid:
        if arguments.trials is not None:
            raise Refused("--trials is for --search: a grid has a run for each combination")
        grid = values.grid(arguments.grid)
        return sweeps.grid(sweeps.base(words, [*grid]), name, grid)
    if arguments.trials is None:
        raise Refused("--search needs --trials N: how many runs there are")
    space = values.space(arguments.search)
    return sweeps.trials(sweeps.base(words, [*space]), name, space, arguments.trials)


def _say(made: Sweep, found: Progress) -> None:
    print(f"sweep     {made.folder}: {len(made.elements)} runs, {made.what}")
    if found.left_alone:
        print(f"there     {found}")
    if not found.to_start:
        print(f"nothing to start; results: python -m launch results {made.folder}", flush=True)


def _queue(arguments: argparse.Namespace, made: Sweep, elements: Sequence[Element]) -> int:
    """One array of `elements`."""
    from launch.slurm import command as slurm
    from launch.slurm.submission import Array

    if arguments.parallel == 0:
        raise Refused("--parallel must be above 0, not 0")
    array = Array({one.number: one.config for one in elements}, arguments.parallel or len(elements))
    request = slurm.request(arguments, made.base, made.folder, array=array)
    is_new = not made.folder.exists()
    if not arguments.dry_run:
        sweeps.write(made, arguments.flags)
    try:
        queued = slurm.queue(request, arguments, _resources(arguments))
    except Refused:
        if is_new and not [*made.folder.glob("submitted-*")]:  # rejected before sbatch was called
            files.remove(made.folder)
        raise
    if queued is None:
        return 0
    _, answer = queued
    at_a_time = f", {arguments.parallel} at a time" if (arguments.parallel or len(elements)) < len(elements) else ""
    print(
        f"submitted {answer.id}: {_runs(elements)}{at_a_time}\n"
        f"status    python -m launch status {made.folder}\n"
        f"cancel    python -m launch cancel {answer.id}",
        flush=True,
    )
    return 0


def _run_here(arguments: argparse.Namespace, made: Sweep, elements: Sequence[Element]) -> int:
    for name in ("nodes", *(known.name for known in fields(sites.Site))):
        if getattr(arguments, name):
            raise Refused(f"--{name} is for Slurm, and this sweep runs on this machine: leave it out")
    planned = workstation.schedule(
        made,
        elements,
        gpus=arguments.gpus,
        tasks=arguments.tasks,
        parallel=arguments.parallel,
        machine=local.look(os.environ),
        devices=local.named_gpus(os.environ),
    )
    if arguments.dry_run:
        print(planned)
        return 0
    local.require_training()
    sweeps.write(made, arguments.flags)
    code = workstation.run(planned)
    print(f"results   python -m launch results {made.folder}", file=sys.stderr, flush=True)
    return code


def _resources(arguments: argparse.Namespace) -> list[str]:
    """The flags of the verb `submit` among those given: a single run is started again with them."""
    return [f"--{name}={value}" for name in RESOURCES if (value := getattr(arguments, name)) not in (None, "")]


def _runs(elements: Sequence[Element]) -> str:
    numbers = [str(element.number) for element in elements]
    shown = ", ".join(numbers[:12]) + (", ..." if len(numbers) > 12 else "")
    return f"{len(numbers)} run{'s' if len(numbers) > 1 else ''}: {shown}"
