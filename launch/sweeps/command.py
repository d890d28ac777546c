"""`python -m launch sweep`: plans a sweep, then starts its missing runs: as one Slurm array, or on this machine."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from job import config
from job.errors import Refused
from job.runtime import environment, files
from launch import parsing, sites
from launch.console import note
from launch.local import command as local
from launch.slurm.cli import RESOURCES
from launch.slurm.client import Answer
from launch.slurm.submission import Array
from launch.sweeps import active, progress, values, workstation
from launch.sweeps import sweep as sweeps
from launch.sweeps.progress import Progress
from launch.sweeps.sweep import Element, Sweep


def sweep(arguments: argparse.Namespace) -> int:
    """Start the missing and failed runs of the sweep, or print what would be started."""
    environment.refuse_unjoined_tasks(os.environ)
    environment.load_dotenv()
    requested = _requested(arguments)
    sweeps.refuse_others(requested)
    local_only = arguments.local or shutil.which("sbatch") is None
    clusters = "" if local_only else sites.read(vars(arguments), os.environ).clusters
    current = progress.read(requested, clusters)
    if arguments.dry_run:
        print(requested)
        print(f"# there already: {current}")
    else:
        _print_summary(requested, current)
    if not current.to_start:
        return 0
    start = _run_locally if local_only else _queue
    return start(arguments, requested, current.to_start)


def _requested(arguments: argparse.Namespace) -> Sweep:
    """The sweep from the command line."""
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


def _print_summary(sweep: Sweep, current: Progress) -> None:
    print(f"sweep     {sweep.folder}: {len(sweep.elements)} runs, {sweep.description}")
    if current.left_alone:
        print(f"existing  {current}")
    if not current.to_start:
        print(f"nothing to start; results: python -m launch results {shlex.quote(str(sweep.folder))}", flush=True)


def _queue(arguments: argparse.Namespace, sweep: Sweep, elements: Sequence[Element]) -> int:
    """Queue `elements` as one array."""
    from launch.slurm import command as slurm

    if arguments.parallel == 0:
        raise Refused("--parallel must be above 0, not 0")
    configs = {element.number: element.config for element in elements}
    array = Array(configs, arguments.parallel or len(elements), tuple(sweep.choices))
    request = slurm.request(arguments, sweep.base, sweep.folder, array=array)
    is_new = not sweep.folder.exists()
    if not arguments.dry_run:
        sweeps.write(sweep, arguments.flags)
    try:
        slurm.queue(request, arguments, _resources(arguments), lambda _, answer: _summary(answer, array, sweep.folder))
    except Refused:
        if is_new and not [*sweep.folder.glob("submitted-*")]:  # rejected before sbatch was called
            files.remove(sweep.folder)
        raise
    return 0


def _summary(answer: Answer, array: Array, folder: Path) -> str:
    numbers = sorted(array.configs)
    at_a_time = f", {array.parallel} at a time" if array.parallel < len(numbers) else ""
    return (
        f"submitted {answer.id}: {_shortened(numbers)}{at_a_time}\n"
        f"status    python -m launch status {shlex.quote(str(folder))}\n"
        f"cancel    python -m launch cancel {shlex.quote(str(folder))}"
    )


def _run_locally(arguments: argparse.Namespace, sweep: Sweep, elements: Sequence[Element]) -> int:
    for name, value in {"nodes": arguments.nodes, **sites.given(arguments)}.items():
        if value is not None:
            raise Refused(f"--{name} is for Slurm, and this sweep runs on this machine: leave it out")
    planned = workstation.schedule(
        sweep,
        elements,
        gpus=arguments.gpus,
        tasks=arguments.tasks,
        parallel=arguments.parallel,
        machine=local.inspect_machine(os.environ),
        busy=active.devices(sweep),
    )
    if arguments.dry_run:
        print(planned)
        return 0
    local.require_training()
    sweeps.write(sweep, arguments.flags)
    code = workstation.run(planned)
    note(f"results   python -m launch results {shlex.quote(str(sweep.folder))}")
    return code


def _resources(arguments: argparse.Namespace) -> list[str]:
    """The given flags that the verb `submit` has too; `rerun` of a single run uses them."""
    given = {name: value for name in RESOURCES if (value := getattr(arguments, name)) is not None}
    return [f"--{name}={value}" for name, value in given.items() if value != "" or name in sites.EMPTIED]


def _shortened(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:12])) + (", ..." if len(numbers) > 12 else "")
    return f"{len(numbers)} run{'s' if len(numbers) > 1 else ''}: {shown}"
