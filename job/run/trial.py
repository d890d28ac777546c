"""A trial of a search: a run whose settings are chosen by Optuna, and whose evaluations are reported to Optuna.

The trials of a search share a journal file in the sweep's folder, which needs no server and no kernel file locks. Each
run folder has a `trial.json` with its trial number and settings, so a restart uses the same settings. Optuna is
imported only where it is used, because login nodes do not have it. The objective is always minimized: scores for which
greater is better are negated.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job import config as configuration
from job.config import Config
from job.errors import Refused
from job.run import journal, lock
from job.run import space as search
from job.run.folder import RunFolder
from job.run.space import Choices, Space
from job.runtime import contract, files

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

FILE = contract.TRIAL
JOURNAL = "study.journal"
STUDY = "sweep"
SEEDS = 2**32
"""The number of seeds that numpy takes."""
WHOLE_RUN = 1000
"""The number of steps that Optuna sees for a whole run. The pruner compares trials at the same step, so it compares
runs at the same share of their steps, even if their numbers of steps differ."""


@dataclass(frozen=True)
class Trial:
    """A trial with settings from Optuna."""

    run: Path
    number: int
    """Its number in the study."""
    settings: Mapping[str, Any]

    def report(self, score: float, *, greater: bool, progress: float) -> bool:
        """Report an evaluation; returns whether the run should be pruned.

        Args:
            score: the metric that decides which model is best.
            greater: whether a greater score is better.
            progress: completed share of the run's steps.

        Raises:
            Refused: the search does not know this trial.
        """
        from optuna.trial import Trial as OptunaTrial

        study = _study(self.run)
        trial = OptunaTrial(study, self._recorded(study)._trial_id)
        step = round(WHOLE_RUN * progress)
        if step not in trial._get_latest_trial().intermediate_values:  # a restart may evaluate a step again
            trial.report(-score if greater else score, step)
        return progress < 1 and trial.should_prune()

    def end(self, *, pruned: bool = False) -> None:
        """Report the end of the run: its best evaluation, or that it was pruned. The second time it does nothing."""
        if "ended" not in _read(self.run):
            self._tell(pruned)
        if pruned:
            files.remove(RunFolder(self.run).checkpoints)

    def _tell(self, pruned: bool) -> None:
        from optuna.trial import TrialState

        study = _study(self.run)
        reported = self._recorded(study).intermediate_values.values()
        scores = [value for value in reported if not math.isnan(value)]
        if pruned or not scores:
            study.tell(self.number, state=TrialState.PRUNED, skip_if_finished=True)
        else:
            study.tell(self.number, min(scores), skip_if_finished=True)
        _write(self.run, {**_read(self.run), "ended": "pruned" if pruned else "finished"})

    def _recorded(self, study: Study) -> FrozenTrial:
        """This trial in the study; Refused if the study has no trial of its number and settings."""
        trials = study.get_trials(deepcopy=False)
        if self.number < len(trials) and trials[self.number].params == self.settings:
            return trials[self.number]
        raise _unknown(self.run)


def prepare(run: Path, space: Space, sweep: Path) -> None:
    """Make the run in folder `run` a trial of the search in `sweep`; does nothing if it is one already."""
    if not (run / FILE).exists():
        path = os.path.relpath(sweep / JOURNAL, run)
        _write(run, {"journal": path, "lock": _usable_lock(sweep), "search": search.as_json(space)})


def is_trial(run: Path) -> bool:
    """Whether the run in this folder is a trial."""
    return os.path.exists(run / FILE)  # noqa: PTH110 (Path's raises for a name too long)


def was_pruned(run: Path) -> bool:
    """Whether the run in this folder is a trial that was pruned."""
    return _read(run).get("ended") == "pruned"


def settings(run: Path) -> dict[str, Any]:
    """The settings that Optuna chose for the trial in this folder; {} before its first start, and for other runs."""
    chosen = _read(run).get("settings", {})
    return chosen if isinstance(chosen, dict) else {}


def ask(run: Path, config: Config) -> tuple[Trial | None, Config]:
    """The trial of this run folder, and `config` with its settings; (None, `config`) if the run is not a trial.

    At the first start, Optuna chooses the settings. Call on the main process only.

    Raises:
        Refused: Optuna is missing, the trial's file cannot be read, the search does not know the trial, or another run
            is active in the folder.
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
    trial = Trial(run, known["number"], known["settings"])
    if "ended" not in known:
        trial._recorded(_study(run))
    return trial, own


def _distributions(space: Space) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    distributions: dict[str, Any] = {}
    for name, values in space.items():
        if isinstance(values, Choices):
            distributions[name] = CategoricalDistribution(values.values)
        else:
            integers = isinstance(values.low, int) and isinstance(values.high, int)
            kind: Any = IntDistribution if integers else FloatDistribution
            distributions[name] = kind(values.low, values.high, log=values.log)
    return distributions


def _study(run: Path, seed: int = 0) -> Study:
    """The study of all trials. Each run has its own sampler seed, so runs that start together get different
    settings. Refused if the journal is damaged, or missing although the trial is in it."""
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock
    except ImportError:
        raise Refused("a search needs the package optuna: run `make setup`, or pip install -e '.[train]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    known = _read(run)
    path = (run / known["journal"]).resolve()
    if "number" in known and not path.exists():
        raise _unknown(run)
    journal.refuse_damage(path)
    locks: dict[str, Callable[[str], Any]] = {"symlink": JournalFileSymlinkLock, "open": JournalFileOpenLock}
    lock_of_optuna: Any = journal.MendingLock(locks[known["lock"]](str(path)), path)
    storage = JournalStorage(JournalFileBackend(str(path), lock_of_optuna))
    number = int(run.name) if run.name.isdigit() else 0
    sampler = optuna.samplers.TPESampler(seed=(seed + number) % SEEDS)
    pruner = optuna.pruners.MedianPruner()
    with contextlib.suppress(KeyError):  # does not exist yet
        return optuna.load_study(study_name=STUDY, storage=storage, sampler=sampler, pruner=pruner)
    return optuna.create_study(
        study_name=STUDY, storage=storage, sampler=sampler, pruner=pruner, direction="minimize", load_if_exists=True
    )


def _unknown(run: Path) -> Refused:
    return Refused(f"the search that chose the settings of {run} is not in {(run / _read(run)['journal']).resolve()}: "
                   f"move both back, or delete {run / FILE} to resume the run on its own")  # fmt: skip


def _usable_lock(folder: Path) -> str:
    """How to lock the journal on this file system: "symlink", which works on any NFS, or "open" if it has no links."""
    probe = folder / f".lock-{os.getpid()}"
    try:
        probe.symlink_to(FILE)
    except OSError:
        return "open"
    probe.unlink()
    return "symlink"


def _read(run: Path) -> dict[str, Any]:
    return files.read_json(run / FILE)


def _write(run: Path, values: Mapping[str, Any]) -> None:
    files.write_json(run / FILE, values)
