"""`status`: the runs of a folder as a table, or one run in detail."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live

from job import config
from job.errors import Refused
from launch.runs import failures, folders, reading, results, states, tables
from launch.runs.states import View, duration

MOST_SETTINGS = 4
"""Maximum number of setting columns in the table; --json and the details of a run have all settings."""
WATCH_SECONDS = 10.0


@dataclass(frozen=True)
class Look:
    """The runs at one moment."""

    views: Sequence[View]
    sweeps: Mapping[Path, Sequence[View]]
    """Folder of a sweep -> its runs."""
    problem: str
    """Why Slurm did not answer; empty if it did."""

    def all(self) -> list[View]:
        return [*self.views, *(view for views in self.sweeps.values() for view in views)]


def show(target: str, *, as_json: bool, watch: bool) -> int:
    """Print the runs in a folder, or one run; returns 0. Refused if there is no such run."""
    if as_json and watch:
        raise Refused("--json prints once: leave out --watch, or repeat `status --json`")
    if sweep := folders.find_sweep(target):
        target = str(sweep)
    one = None if target == str(folders.RUNS) or _is_folder_of_runs(target) else folders.find(target)
    if as_json:
        values = [as_dict(view) for view in _look(target, one).all()]
        tables.write(json.dumps(values[0] if one else values, indent=2, ensure_ascii=False))
    elif watch:
        _watch(target, one)
    else:
        tables.show(_shown(target, one))
    return 0


def as_dict(view: View) -> dict[str, Any]:
    """A run as JSON values."""
    run = view.run
    return {
        "run": run.name,
        "path": str(run.path),
        "job": run.job.id if run.job else None,
        "launcher": run.job.launcher if run.job else None,
        "state": view.state,
        "step": run.step,
        "steps": run.steps,
        "seconds_left": view.seconds_left,
        "score": {run.score.name: run.score.value} if run.score else None,
        "restarts": run.restarts,
        "nodes": view.slurm.nodes if view.slurm else None,
        "note": view.note,
        "settings": dict(run.settings),
    }


def rows(views: Sequence[View]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of runs."""
    names = differing([view.run.settings for view in views])[:MOST_SETTINGS]
    columns = ["run", "job", "state", "step", "left", "score", *names, "note"]
    return columns, [[*_cells(view), *(_setting(view, name) for name in names), view.note] for view in views]


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the settings that change the result and differ between the runs with known settings."""
    known = [values for values in settings if values]
    return [name for name in results.RESULT_SETTINGS if len({repr(values.get(name)) for values in known}) > 1]


def facts(view: View) -> dict[str, str]:
    """Details of one run, and why it ended."""
    run, job = view.run, view.run.job
    error = failures.first_error(run) if view.state in ("FAILED", "LOST", "NEEDS_HUMAN", "STOPPED") else None
    lines = {
        "run": str(run.path),
        "state": view.state,
        "note": view.note,
        "job": _job(view),
        "log": str(job.folder) if job else "",
        "step": _step(view),
        "time left": _left(view),
        "score": f"{run.score}{'' if view.state == 'DONE' else ' (best so far)'}" if run.score else "",
        "settings": _own_settings(view),
    }
    if error is not None:
        by = "" if error.rank is None else f"rank {error.rank}: "
        lines |= {"error": by + error.line, "in": str(error.log)}
    reasons = " ".join(filter(None, (view.note, run.reason, error.line if error else "")))
    return {**lines, "try": failures.advice(view.state, reasons).replace("RUN", folders.reference(run.path))}


def _is_folder_of_runs(target: str) -> bool:
    return reading.is_folder(Path(target)) and not folders.is_run(Path(target))


def _look(target: str, one: Path | None) -> Look:
    """The runs, newest first; those of a sweep by their numbers. All are read together, so Slurm is asked once."""
    if one is None and folders.is_sweep(Path(target)):
        paths = folders.elements(Path(target))
        views, problem = states.read(paths, time.time())
        return Look(sorted(views, key=lambda view: paths.index(view.run.path)), {}, problem)
    alone = [one] if one else folders.below(Path(target))
    in_sweeps = {} if one else {sweep: folders.elements(sweep) for sweep in folders.sweeps(Path(target))}
    views, problem = states.read([*alone, *(path for paths in in_sweeps.values() for path in paths)], time.time())
    by_path = {view.run.path: view for view in views}
    sweeps = {sweep: [by_path.pop(path) for path in paths] for sweep, paths in in_sweeps.items()}
    return Look([*by_path.values()], sweeps, problem)


def _watch(target: str, one: Path | None) -> None:
    """Refresh until Ctrl-C; in a pipe each refresh is printed below the previous one."""
    console = tables.console()
    with contextlib.suppress(KeyboardInterrupt):
        if not console.is_terminal:
            while True:
                tables.show(_shown(target, one))
                time.sleep(WATCH_SECONDS)
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(_shown(target, one), refresh=True)
                time.sleep(WATCH_SECONDS)


def _shown(target: str, one: Path | None) -> Group:
    look = _look(target, one)
    views, problem = look.views, look.problem
    if one:
        return Group(tables.page({**facts(views[0]), "Slurm": f"did not answer: {problem}" if problem else ""}))
    sweeps = [_sweep(path, views) for path, views in look.sweeps.items()]
    if not views and not sweeps:
        return Group(f"no runs in {target}/: start one with `make train` or `make submit`")
    columns, body = rows(views)
    shown: list[RenderableType] = [tables.table(columns, body, right=("step", "left"))] if views else []
    if sweeps:
        gap = [""] if views else []
        shown += [*gap, tables.table(["sweep", "runs", "states"], sweeps, right=("runs",))]
    warnings = [f"\n{states.SILENT}: {problem}"] if problem else []
    return Group(*shown, *warnings)


def _sweep(path: Path, views: Sequence[View]) -> list[str]:
    """A sweep as a row of the table: its name, number of runs, and their states."""
    counts = Counter(view.state for view in views)
    if missing := folders.not_started(path):
        counts["not started"] = len(missing)
    return [path.name, str(counts.total()), ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))]


def _cells(view: View) -> list[str]:
    run = view.run
    return [run.name, str(run.job or "-"), view.state, _step(view), _left(view) or "-", str(run.score or "-")]


def _step(view: View) -> str:
    run = view.run
    return f"{run.step}/{run.steps}" if run.steps else str(run.step) if run.step else "-"


def _left(view: View) -> str:
    return "" if view.seconds_left is None else duration(view.seconds_left)


def _setting(view: View, name: str) -> str:
    return tables.setting(view.run.settings[name]) if name in view.run.settings else ""


def _job(view: View) -> str:
    job = view.run.job
    if job is None:
        return ""
    where = view.slurm.nodes if view.slurm and view.slurm.nodes else job.host
    limit = view.slurm.time_left if view.slurm and view.slurm.runs else ""
    parts = [
        f"{job.launcher} {job.id}",
        f"on {where}" if where else "",
        f"submitted {job.time[:16].replace('T', ' ')} UTC" if job.time else "",
        f"{limit} until its time limit" if limit else "",
        f"restarted {view.run.restarts}x" if view.run.restarts else "",
    ]
    return ", ".join(filter(None, parts))


def _own_settings(view: View) -> str:
    """The settings that differ from the defaults."""
    defaults = config.as_dict(config.Config())
    own = {k: v for k, v in view.run.settings.items() if k in defaults and v != defaults[k] and v not in (None, [])}
    return "  ".join(
        f"{name}={value if not isinstance(value, list) else ','.join(value)}" for name, value in own.items()
    )
