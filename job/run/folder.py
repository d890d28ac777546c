"""The run folder: its files, each complete or absent.

Also the rule for a second start in the same folder: the same configuration resumes, or reports that the run has
finished; a different one is rejected, unless --overwrite_output_dir is set.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from job import config as configuration
from job.config import Config
from job.errors import Interrupted, Refused
from job.run import format as run_format
from job.run import latest, lock
from job.runtime import contract, files

ASIDE = ".new-"
"""Prefix of the name of a checkpoint that is still being written."""
CONTENTS = (
    *("results.json", "checkpoints", "model", "adapter", "predictions.parquet", "test_predictions.parquet"),
    *("metrics.jsonl", "tensorboard", "report.html", "report", "manifest.json", "status.json"),
)
"""What a run leaves besides config.yaml, in the order in which it is removed: after a kill meanwhile there is neither a
finished run that lacks a part nor a checkpoint without its manifest."""

WRITTEN_BY_LAUNCHER = {"status.json", "report.html"}
"""Of these, what the launcher writes too, perhaps at this moment."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.parquet"

    @property
    def test_predictions(self) -> Path:
        return self.path / "test_predictions.parquet"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def report_files(self) -> Path:
        """What report.html is made of besides the other files, and its pictures as PNG."""
        return self.path / "report"

    @property
    def data(self) -> Path:
        """The task, and statistics of the data."""
        return self.report_files / "data.json"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    def is_finished(self) -> bool:
        """Whether results.json exists. It is written last, so then everything else exists too."""
        return self.results.is_file()

    def holds_checkpoints(self) -> bool:
        """Whether there is a checkpoint, even a damaged one."""
        return any(not path.name.startswith(ASIDE) for path in self.checkpoints.glob("*"))

    def holds_work(self) -> bool:
        """Whether deleting the folder would lose something: not if the run ended before its first record."""
        kept = (self.results, self.predictions, self.test_predictions, self.model, self.checkpoints)
        return any(path.exists() for path in kept) or (self.metrics.is_file() and self.metrics.stat().st_size > 0)


def new_path(name: str) -> Path:
    """The path of a new run folder: runs/<name>-<time>."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    path = Path("runs") / f"{name}-{stamp}"
    number = 1
    while path.exists():
        number += 1
        path = Path("runs") / f"{name}-{stamp}-{number}"
    return path.absolute()


def make_new(name: str) -> Path:
    """Create the folder of `new_path`; runs that start in the same second get different folders."""
    while True:
        path = new_path(name)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            refuse_blocked(path)
            continue
        except OSError as error:
            raise Refused(
                f"{path.parent} cannot be written ({error.strerror}): choose another folder with --output_dir"
            ) from None
        return path


def refuse_blocked(path: Path) -> None:
    """Refused if something else is where `path` or a folder above it must be: mkdir would fail with any name below."""
    for place in (path, *path.parents):
        if os.path.lexists(place) and not os.path.isdir(place):  # noqa: PTH112, an unreadable folder is no error here
            raise Refused(
                f"{place} is in the way (not a folder, or a link to nothing): move it, or choose another folder with "
                "--output_dir"
            )


def claim(folder: RunFolder, config: Config) -> bool:
    """Lock the folder for this run, creating it if needed. Files of a run without a checkpoint are removed.

    Returns:
        Whether this run has already finished.

    Raises:
        Refused: the folder belongs to another run, a run is active in it, it contains other files, or it cannot be
            written.
    """
    path = folder.path
    refuse_others(folder, config)
    if path.exists() and not path.is_dir():
        raise Refused(f"--output_dir {path} is a file")
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire(path)
        refuse_others(folder, config)  # again: another run may have taken it before the lock
        for half_written in files.half_written(path, {"config.yaml", *CONTENTS} - WRITTEN_BY_LAUNCHER):
            files.remove(half_written)
        if folder.is_finished() and not config.run.overwrite_output_dir:
            return True
        if config.run.overwrite_output_dir or not folder.holds_checkpoints():
            for name in CONTENTS:
                files.remove(path / name)
        # Until here the old config.yaml says that the files are those of a run: a start may be killed while it removes.
        files.write_text(folder.config, configuration.to_yaml(config))
    except OSError as error:
        raise Refused(f"--output_dir {path} cannot be written: {error.strerror}") from error
    return False


def as_continued(folder: RunFolder, config: Config) -> Config:
    """`config` for a requeued job: overwriting, or resuming from a given checkpoint, applies to the first start
    only."""
    if not lock.is_requeue(folder.path):
        return config
    run = dataclasses.replace(config.run, overwrite_output_dir=False, resume_from_checkpoint="auto")
    return dataclasses.replace(config, run=run)


def refuse_others(folder: RunFolder, config: Config) -> None:
    """Refused if `folder` contains the work of another run, or other files, or cannot be read."""
    try:
        _refuse_other_work(folder, config)
    except OSError as error:  # also from Path.is_dir, for a name that is too long
        raise Refused(f"--output_dir {folder.path} cannot be read ({error.strerror}): choose another") from None


def _refuse_other_work(folder: RunFolder, config: Config) -> None:
    if not folder.path.is_dir():
        return
    if folder.config.is_file():
        _refuse_other_version(folder, config)
        differing = configuration.differing_settings(_own_configuration(folder), config)
        if differing and folder.holds_work() and not config.run.overwrite_output_dir:
            raise Refused(
                f"{folder.path} contains a run with a different {', '.join(differing)}: choose another --output_dir, "
                "or delete that run with --overwrite_output_dir"
            )
    else:
        others = sorted(
            p.name
            for p in folder.path.iterdir()
            if p.name not in (contract.JOBS, contract.STATUS, contract.TRIAL) and not p.name.startswith(".")
        )
        if others:  # a folder `model` there may be somebody's only copy
            raise Refused(
                f"{folder.path} contains files that do not belong to a run ({others[0]}): choose another --output_dir"
            )


def _refuse_other_version(folder: RunFolder, config: Config) -> None:
    """Refused if an unfinished run of another version would be resumed."""
    other = run_format.difference(folder.manifest)
    resumes = folder.holds_checkpoints() and not folder.is_finished() and not config.run.overwrite_output_dir
    if other and resumes:
        raise Refused(
            f"{folder.path} contains an unfinished run of {other}: resume it with that version (git in its "
            "manifest.json), choose another --output_dir, or start over with --overwrite_output_dir"
        )


def _own_configuration(folder: RunFolder) -> Config:
    """The configuration of the run in `folder`; Refused if its config.yaml was not written by a run."""
    try:
        return configuration.load_recipe(str(folder.config))
    except Refused:
        other = run_format.difference(folder.manifest)
        held = f"a run of {other}" if other else "files that do not belong to a run (config.yaml)"
        raise Refused(f"{folder.path} contains {held}: choose another --output_dir") from None


def require_space(folder: RunFolder, model: int, trained: int) -> None:
    """Refused if the disk has no space for two checkpoints (trained weights, AdamW's two moments) and the model.

    The space of existing checkpoints counts as free, because new ones replace them; those in quarantine stay.

    Args:
        model: bytes of all weights.
        trained: bytes of the weights that are trained.
    """
    there = sum(path.stat().st_size for path in folder.checkpoints.glob("step-*/*"))
    free = shutil.disk_usage(folder.path).free + there
    needed = model + 6 * trained
    if free < needed:
        raise Refused(
            f"the disk of {folder.path} has {free / 1e6:,.0f} MB free, but the run needs {needed / 1e6:,.0f} MB: "
            "free some space, or choose another --output_dir"
        )


def discard_if_new(folder: RunFolder, config: Config, latest_before: str | None) -> None:
    """After a rejected request, which leaves no trace: point runs/latest to the run before again, and remove an empty
    folder that this process created."""
    if folder.holds_work():
        return
    if latest.name(folder.path) == folder.path.resolve().name != latest_before:
        latest.link(folder.path, latest_before)
    if config.run.output_dir is None and contract.RUN_FOLDER not in os.environ:
        files.remove(folder.path)


def shown(path: Path) -> str:
    """`path` relative to the working directory if it is below it, else as it is."""
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)


@contextlib.contextmanager
def interrupted_by_disk_errors(folder: RunFolder) -> Iterator[None]:
    """Inside this context, DISK_ERRORS are raised as Interrupted. Libraries in Rust raise no OSError for them."""
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split())
        number = error.errno if isinstance(error, OSError) else None
        if number not in files.DISK_ERRORS and not any(f"os error {n})" in text for n in files.DISK_ERRORS):
            raise
        raise Interrupted(f"{folder.path} cannot be written ({text}): free some space, then run") from error
