"""A sweep as a value: runs of one recipe that differ in some settings, in numbered folders inside the sweep's folder.

`sweep.json` in the sweep's folder lists the elements, with the run folder and settings of each. A grid has all
combinations of the given values. In a search, each element is a trial, whose settings are chosen when it starts
(job/run/trial.py).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job import checks, config
from job.config import Config
from job.errors import Refused
from job.run import space as search
from job.run import trial
from job.run.space import Range, Space
from job.runtime import files
from launch.runs.folders import RUNS, SWEEP

MAX_ELEMENTS = 10_000
NOT_FOR_SWEEPS = {
    "overwrite_output_dir": "a sweep continues where it was: delete its folder to start over",
    "resume_from_checkpoint": "each run resumes from its own newest checkpoint",
    "output_file": "each run would write the same file",
    "push_to_hub": "each run would upload its model: upload one that has finished, with `python -m launch local "
    "RUN/config.yaml -- --output_dir RUN --push_to_hub --hub_model_id NAME`",
}
"""Settings that a sweep rejects -> the reason."""


@dataclass(frozen=True)
class Element:
    """One run of a sweep."""

    number: int
    settings: Mapping[str, Any]
    """The settings in which it differs from the others; empty for a search."""
    config: Config
    """All its settings."""
    run: Path
    """Run folder."""

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.settings.items())


@dataclass(frozen=True)
class Sweep:
    """A grid or a search: its folder and its runs."""

    folder: Path
    base: Config
    """The settings that all runs have in common."""
    grid: Mapping[str, Sequence[Any]]
    """Empty for a search."""
    space: Space
    """Empty for a grid."""
    elements: tuple[Element, ...]

    def __str__(self) -> str:
        lines = [f"# sweep {self.folder}: {len(self.elements)} runs, {self.description}"]
        return "\n".join([*lines, *(f"# {element.number}  {element}".rstrip() for element in self.elements)])

    @property
    def description(self) -> str:
        """What varies, for messages."""
        if self.space:
            return "trials of " + " ".join(f"{name}={one}" for name, one in self.space.items())
        return " x ".join(f"{len(values)} {name}" for name, values in self.grid.items())

    @property
    def choices(self) -> list[Config]:
        """Settings that the trials of a search may get, with each choice in one of them; empty for a grid."""
        return [config.from_dict(chosen, base=self.base) for chosen in _each_choice(self.space)]

    def identity(self) -> dict[str, Any]:
        """The values, of JSON types, that distinguish this sweep from others."""
        known = config.fields()
        settings = {k: v for k, v in config.as_dict(self.base).items() if known[k][1].metadata["changes_result"]}
        varied = [*self.grid, *self.space]
        values: dict[str, Any] = {"settings": {k: v for k, v in settings.items() if k not in varied}}
        values |= (
            {"search": search.as_json(self.space)}
            if self.space
            else {"grid": {k: list(v) for k, v in self.grid.items()}}
        )
        return json.loads(json.dumps(values))


def grid(base: Config, name: str, varied: Mapping[str, Sequence[Any]]) -> Sweep:
    """All combinations of the values in `varied`; the last setting varies fastest.

    Args:
        base: the common settings; output_dir is the sweep's folder. The default is in runs/, named after the settings.
        name: start of the default folder's name.
        varied: name of a setting -> its values.

    Raises:
        Refused: the job would reject an element.
    """
    _refuse_too_many(math.prod(map(len, varied.values())))
    combinations = [dict(zip(varied, chosen, strict=True)) for chosen in itertools.product(*varied.values())]
    sweep = _build(base, name, varied, {}, combinations)
    for element in sweep.elements:
        _check(element.config, "--grid", element.settings)
    return sweep


def trials(base: Config, name: str, space: Space, number: int) -> Sweep:
    """A search with `number` trials; Refused if the job rejects a choice, or an end of a range."""
    if not (base.training.do_train and base.training.do_eval):
        raise Refused("a search needs runs that train and are evaluated: leave out --no_do_train and --no_do_eval")
    if number < 1:
        raise Refused(f"--trials must be above 0, not {number}")
    _refuse_too_many(number)
    sweep = _build(base, name, {}, space, [{}] * number)
    for changed in _each_choice(space):
        _check(config.from_dict(changed, base=sweep.base), "--search", changed)
    return sweep


def _each_choice(space: Space) -> list[dict[str, Any]]:
    """Settings of trials in which each choice, and each end of a range, occurs."""
    ends = {name: (one.low, one.high) if isinstance(one, Range) else one.values for name, one in space.items()}
    first = {name: values[0] for name, values in ends.items()}
    return [{**first, name: value} for name, values in ends.items() for value in values]


def write(sweep: Sweep, flags: Sequence[str]) -> None:
    """Create the folder and its files. The trials of a search get the path of the study that chooses their settings.

    Raises:
        Refused: the folder contains another sweep, or cannot be written.
    """
    refuse_others(sweep)
    try:
        sweep.folder.mkdir(parents=True, exist_ok=True)
        table = [{"run": element.run.name, "settings": dict(element.settings)} for element in sweep.elements]
        files.write_json(sweep.folder / SWEEP, {**sweep.identity(), "elements": table, "flags": list(flags)})
        files.write_text(sweep.folder / "config.yaml", config.to_yaml(sweep.base))
        if sweep.space:
            for element in sweep.elements:
                element.run.mkdir(exist_ok=True)
                trial.prepare(element.run, sweep.space, sweep.folder)
    except OSError as error:
        raise Refused(f"{sweep.folder} cannot be written: {error.strerror}") from None


def refuse_others(sweep: Sweep) -> None:
    """Refused if the folder contains anything but this sweep. A search may be continued with more trials."""
    try:
        if not sweep.folder.exists():
            return
    except OSError as error:  # for example a name that is too long
        raise Refused(
            f"{sweep.folder} cannot be read ({error.strerror}): choose another folder with -- --output_dir"
        ) from None
    table = files.read_json(sweep.folder / SWEEP)
    if not table:
        if sweep.folder.is_dir() and not any(sweep.folder.iterdir()):
            return
        raise Refused(f"{sweep.folder} exists and is not a sweep: choose another folder with -- --output_dir")
    mine = sweep.identity()
    if differing := sorted(name for name in ("settings", "grid", "search") if table.get(name) != mine.get(name)):
        before, now = table.get(differing[0]) or {}, mine.get(differing[0]) or {}
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        raise Refused(f"{sweep.folder} holds a sweep with another {', '.join(names)}: choose another folder with "
                      "-- --output_dir")  # fmt: skip
    if sweep.grid and (order := [*table["grid"]]) != [*sweep.grid]:  # the runs would have other numbers
        raise Refused(f"{sweep.folder} has the settings of --grid in another order: give them as {', '.join(order)}, "
                      "or choose another folder with -- --output_dir")  # fmt: skip


def base(words: Sequence[str], varied: Sequence[str]) -> Config:
    """The common settings of the runs, from the job's command line.

    Raises:
        Refused: a setting is not allowed in a sweep, or is also varied.
    """
    common = config.parse(words)
    defaults, given = config.as_dict(config.Config()), config.as_dict(common)
    for name, why in NOT_FOR_SWEEPS.items():
        if given[name] != defaults[name]:
            raise Refused(f"--{name} is not for a sweep: {why}")
    flags = {word.partition("=")[0].removeprefix("--").replace("-", "_") for word in words if word.startswith("--")}
    if both := sorted(flags & set(varied)):
        raise Refused(f"--{both[0]} is given and varies: leave it out of one of the two")
    return config.settled(common)


def _refuse_too_many(number: int) -> None:
    if number > MAX_ELEMENTS:
        raise Refused(f"{number} runs are too many for one sweep: {MAX_ELEMENTS} at most")


def _build(
    base: Config, name: str, grid: Mapping[str, Sequence[Any]], space: Space, settings: Sequence[Mapping[str, Any]]
) -> Sweep:
    output_dir = base.run.output_dir
    base = config.from_dict({"output_dir": None}, base=base)
    digest = files.digest(Sweep(Path(), base, grid, space, ()).identity())
    folder = Path(output_dir or RUNS / f"{name}-sweep-{digest[:8]}").absolute()
    elements = [_element(base, number, own, folder / str(number)) for number, own in enumerate(settings)]
    return Sweep(folder, base, grid, space, tuple(elements))


def _element(base: Config, number: int, settings: Mapping[str, Any], run: Path) -> Element:
    own = {**settings, **trial.settings(run)}
    return Element(number, own, config.settled(config.from_dict(own, base=base)), run)


def _check(settings: Config, flag: str, own: Mapping[str, Any]) -> None:
    """Refused if the job would reject a run; the message names the run's own settings if they are the reason."""
    try:
        checks.check(settings)
    except Refused as error:
        if not any(name in str(error) for name in own):
            raise
        raise Refused(f"{flag} {' '.join(f'{name}={value}' for name, value in own.items())}: {error}") from None
