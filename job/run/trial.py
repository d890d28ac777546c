"""A trial of a search: a run whose settings Optuna chooses at its first start, and whose score is reported to Optuna.

The trials of a search share a journal in the sweep's folder, which needs no server and no lock of the kernel's. Each
run's own `trial.json` says which trial it is, so a restart has the same settings. Optuna is imported where it is used:
login nodes do not have it. The objective is always minimised: the sign of a score that is better if greater is changed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job import config as configuration
from job.config import Config
from job.errors import Refused
from job.run import lock
from job.run import space as search
from job.run.folder import RunFolder
from job.run.space import Choices, Space
from job.runtime import contract, files

if TYPE_CHECKING:
    from optuna import Study

FILE = contract.TRIAL
JOURNAL = "study.journal"
STUDY = "sweep"
WHOLE_RUN = 1000
"""Steps of a trial in Optuna's sense: evaluations are compared at the same share of the run, for any number of
steps."""


@dataclass(frozen=True)
class Trial:
    """A trial that has its settings."""

    run: Path
    number: int
    """In the study."""
    settings: Mapping[str, Any]

    def report(self, score: float, *, greater: bool, progress: float) -> bool:
        """Tell an evaluation; whether the run should be pruned.

        Args:
            score: the number that decides which model is best.
            greater: whether more of it is better.
            progress: share of the run's steps that is done.
        """
        from optuna.trial import Trial as Asked

        study = _study(self.run)
        asked = Asked(study, study.get_trials(deepcopy=False)[self.number]._trial_id)
        step = round(WHOLE_RUN * progress)
        if step not in asked._get_latest_trial().intermediate_values:  # after a restart it is there already
            asked.report(-score if greater else score, step)
        return progress < 1 and asked.should_prune()

    def end(self, *, pruned: bool = False) -> None:
        """Tell how the run ended: with its best evaluation, or pruned. Once is enough."""
        from optuna.trial import TrialState

        study = _study(self.run)
        reported = study.get_trials(deepcopy=False)[self.number].intermediate_values.values()
        scores = [value for value in reported if not math.isnan(value)]
        if pruned or not scores:
            study.tell(self.number, state=TrialState.PRUNED, skip_if_finished=True)
        else:
            study.tell(self.number, min(scores), skip_if_finished=True)
        _write(self.run, {**_read(self.run), "ended": "pruned" if pruned else "finished"})
        if pruned:
            files.remove(RunFolder(self.run).checkpoints)


def prepare(run: Path, space: Space, sweep: Path) -> None:
    """Make the run in folder `run` a trial of the search in `sweep`; one that is a trial already stays as it is."""
    if not (run / FILE).exists():
        journal = os.path.relpath(sweep / JOURNAL, run)
        _write(run, {"journal": journal, "lock": _usable_lock(sweep), "search": search.as_json(space)})


def is_trial(run: Path) -> bool:
    """Whether the run in this folder is a trial."""
    return (run / FILE).exists()


def was_pruned(run: Path) -> bool:
    """Whether the run in this folder is a trial that has been pruned."""
    return _read(run).get("ended") == "pruned"


def settings(run: Path) -> dict[str, Any]:
    """The settings that the trial in this folder has been given; none before it has started, or where it is none."""
    found = _read(run).get("settings", {})
    return found if isinstance(found, dict) else {}


def ask(run: Path, config: Config) -> tuple[Trial | None, Config]:
    """The trial that the run in this folder is, and its settings; None, and `config` as it is, where it is none.

    At the first start Optuna is asked. To be called on the main process alone.

    Raises:
        Refused: Optuna is missing, the trial's file cannot be read, or another run is active in the folder.
    """
    if not is_trial(run):
        return None, config
    lock.acquire(run)
    known = _read(run)
    if "search" not in known:
        raise Refused(f"{run / FILE} cannot be read: delete {run} and start the sweep again")
    if "settings" not in known:
        asked = _study(run, config.training.seed).ask(_distributions(search.from_json(known["search"])))
        known = {**known, "number": asked.number, "settings": asked.params}
        _write(run, known)
    own = configuration.from_dict(known["settings"], base=config, origin=str(run / FILE))
    return Trial(run, known["number"], known["settings"]), own


def _distributions(space: Space) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for name, one in space.items():
        if isinstance(one, Choices):
            found[name] = CategoricalDistribution(one.values)
        else:
            kind: Any = IntDistribution if isinstance(one.low, int) and isinstance(one.high, int) else FloatDistribution
            found[name] = kind(one.low, one.high, log=one.log)
    return found


def _study(run: Path, seed: int = 0) -> Study:
    """The study of all trials. Each run samples with a seed of its own: those that start together differ."""
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock
    except ImportError:
        raise Refused("a search needs the package optuna: run `make setup`, or pip install -e '.[train]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    known = _read(run)
    journal = str((run / known["journal"]).resolve())
    locks: dict[str, Callable[[str], Any]] = {"symlink": JournalFileSymlinkLock, "open": JournalFileOpenLock}
    storage = JournalStorage(JournalFileBackend(journal, locks[known["lock"]](journal)))
    number = int(run.name) if run.name.isdigit() else 0
    sampler = optuna.samplers.TPESampler(seed=seed + number)
    pruner = optuna.pruners.MedianPruner()
    with contextlib.suppress(
        KeyError
    ):  # made already, which is asked first: two that create it at once are distinguished
        return optuna.load_study(study_name=STUDY, storage=storage, sampler=sampler, pruner=pruner)
    return optuna.create_study(
        study_name=STUDY, storage=storage, sampler=sampler, pruner=pruner, direction="minimize", load_if_exists=True
    )


def _usable_lock(folder: Path) -> str:
    """How the journal can be locked on this file system: by a link, on any NFS, or where there are none by a file."""
    probe = folder / f".lock-{os.getpid()}"
    try:
        probe.symlink_to(FILE)
    except OSError:
        return "open"
    probe.unlink()
    return "symlink"


def _read(run: Path) -> dict[str, Any]:
    try:
        found = json.loads((run / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(run: Path, values: Mapping[str, Any]) -> None:
    files.write_json(run / FILE, values)
