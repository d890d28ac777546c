"""The run folder: what stands where, written so that a file is complete or not there.

The rule for a second start in the same folder lives here too: the same configuration goes on (or says that it is
finished), another one is refused unless asked to overwrite.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from job import config as configuration
from job.config import Config
from job.errors import JobError, Refused
from job.run import lock
from job.runtime.environment import ROOT

TOKEN_LIMIT = "max_tokens_per_device"
PACKAGES = ("torch", "transformers", "datasets", "evaluate", "accelerate", "tokenizers", "numpy", "scikit-learn")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
ASIDE = ".new-"
"""How the name of a checkpoint that is still being written begins."""
CONTENTS = (
    *("config.yaml", "manifest.json", "metrics.jsonl", "results.json", "status.json", "predictions.parquet"),
    *("test_predictions.parquet", "model", "checkpoints", "tensorboard"),
)


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
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    def is_finished(self) -> bool:
        """results.json is written last, so its being there says that all the rest is."""
        return self.results.is_file()

    def holds_checkpoints(self) -> bool:
        """Whether a run got so far that it can go on; checkpoints that turn out to be damaged count too."""
        return any(not path.name.startswith(ASIDE) for path in self.checkpoints.glob("*"))

    def holds_work(self) -> bool:
        """Whether something would be lost with the folder: not where a run ended before its first record."""
        kept = (self.results, self.predictions, self.test_predictions, self.model, self.checkpoints)
        return any(path.exists() for path in kept) or (self.metrics.is_file() and self.metrics.stat().st_size > 0)


def new_path(name: str) -> Path:
    """A run folder that is not there yet: runs/<name>-<time>."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    path = Path("runs") / f"{name}-{stamp}"
    number = 1
    while path.exists():
        number += 1
        path = Path("runs") / f"{name}-{stamp}-{number}"
    return path.absolute()


def claim(folder: RunFolder, config: Config) -> bool:
    """Make the folder this run's alone, created if need be; what a run without a checkpoint left there is removed.

    Returns:
        Whether this very run is finished already.

    Raises:
        Refused: another run's folder, one in which a run is going on, files that are no run's, or a folder that cannot
            be written.
    """
    path = folder.path
    if path.exists() and not path.is_dir():
        raise Refused(f"--output_dir {path} is a file")
    try:
        path.mkdir(parents=True, exist_ok=True)
        _refuse_others(folder, config)
        lock.take(path)
        _refuse_others(folder, config)  # once more: it may have become another's in between
        if folder.is_finished() and not config.run.overwrite_output_dir:
            return True
        if config.run.overwrite_output_dir or not folder.holds_checkpoints():
            for name in CONTENTS:
                remove(path / name)
        write_text(folder.config, configuration.to_yaml(config))
    except OSError as error:
        raise Refused(f"--output_dir {path} cannot be written: {error.strerror}") from error
    return False


def as_continued(folder: RunFolder, config: Config) -> Config:
    """`config` for a requeued job's next start: to overwrite, or to go on from a certain checkpoint, was asked once."""
    if not lock.succeeds(folder.path):
        return config
    run = dataclasses.replace(config.run, overwrite_output_dir=False, resume_from_checkpoint="auto")
    return dataclasses.replace(config, run=run)


def _refuse_others(folder: RunFolder, config: Config) -> None:
    if folder.config.is_file():
        differing = configuration.differing_settings(_own_configuration(folder), config)
        if differing and folder.holds_work() and not config.run.overwrite_output_dir:
            raise Refused(
                f"{folder.path} holds a run with another {', '.join(differing)}: choose another --output_dir, or "
                "delete that run with --overwrite_output_dir"
            )
    else:
        strangers = sorted(p.name for p in folder.path.iterdir() if p.name != "jobs" and not p.name.startswith("."))
        if strangers:  # a folder `model` there may be all that someone has
            raise Refused(f"{folder.path} holds files that are no run's ({strangers[0]}): choose another --output_dir")


def _own_configuration(folder: RunFolder) -> Config:
    """The configuration of the run in `folder`; Refused if its config.yaml is not one of ours."""
    try:
        return configuration.load_recipe(str(folder.config))
    except Refused:
        raise Refused(
            f"{folder.path} holds files that are no run's (config.yaml): choose another --output_dir"
        ) from None


def require_space(folder: RunFolder, weights: int) -> None:
    """Refused if the disk cannot take two checkpoints (weights, AdamW's two moments) and the model: 7 x `weights`.

    The checkpoints that are there already take room that the next ones get.
    """
    there = sum(path.stat().st_size for path in folder.checkpoints.rglob("*") if path.is_file())
    free = shutil.disk_usage(folder.path).free + there
    if free < 7 * weights:
        raise Refused(
            f"the disk of {folder.path} has {free / 1e6:,.0f} MB free and the run takes {7 * weights / 1e6:,.0f} MB: "
            "make room, or choose another --output_dir"
        )


def discard_if_new(folder: RunFolder, config: Config) -> None:
    """Remove a folder that was named by us and holds nothing: a refused request leaves no trace."""
    if config.run.output_dir is None and not folder.holds_work():
        remove(folder.path)


def point_latest(folder: RunFolder) -> None:
    """runs/latest -> this run, for a folder that was named by us. A link that cannot be made is no error."""
    aside = folder.path.parent / f".latest-{os.getpid()}"
    try:
        aside.symlink_to(folder.path.name)
        aside.replace(folder.path.parent / "latest")
    except OSError:
        aside.unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step: a reader sees the old or the new, never a part."""
    publish(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Like write_text; floats as JSON numbers, NaN refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def publish(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` make a file or folder aside, then rename it to `path`."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    remove(aside)
    try:
        write(aside)
        for made in aside.iterdir() if aside.is_dir() else ():
            flush(made)
        flush(aside)
        if aside.is_dir():
            remove(path)
        aside.replace(path)
    finally:
        remove(aside)


@contextlib.contextmanager
def needing_room(folder: RunFolder) -> Iterator[None]:
    """Within, what a full or lost disk prevents ends the job with one line.

    Raises:
        JobError: in place of an error that says so; libraries written in Rust have no OSError for it.
    """
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split())
        number = error.errno if isinstance(error, OSError) else None
        if number not in NO_ROOM and not any(f"os error {n})" in text for n in NO_ROOM):
            raise
        raise JobError(f"{folder.path} cannot be written ({text}): make room, then start the same command again, which "
                       "goes on from the newest checkpoint") from error  # fmt: skip


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def honour_umask(folder: Path) -> None:
    """Give the files of `folder` the usual mode: safetensors leaves its own readable by the owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.iterdir():
        path.chmod(0o666 & ~umask)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def now(precision: str = "seconds") -> str:
    """The time in UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec=precision)


# ---------------------------------------------------------------------------------------------------------------------
# Manifest


def manifest(*, seed: int, world_size: int, device: str, fingerprint: str, before: Mapping[str, Any]) -> dict[str, Any]:
    """Where, when and from what a run was made. Environment variables are left out: they may hold secrets.

    `before` is the manifest of the start that this one goes on from, or empty.
    """
    return {
        "git": git_state(),
        "image": os.environ.get("MUSTER_IMAGE_DIGEST"),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "host": socket.gethostname(),
        "device": device,
        "world_size": world_size,
        "threads": int(os.environ.get("OMP_NUM_THREADS", "0")),
        "dataset_fingerprint": fingerprint,
        "seed": seed,
        "started": before.get("started", now()),
        "ended": None,
        "restarts": before.get("restarts", -1) + 1,
        **({TOKEN_LIMIT: before[TOKEN_LIMIT]} if TOKEN_LIMIT in before else {}),
    }


def token_limit(folder: RunFolder, limit: int) -> int:
    """`limit`, or the lower one that this run came to by running out of memory."""
    kept = json.loads(folder.manifest.read_text(encoding="utf-8")).get(TOKEN_LIMIT)
    return limit if kept is None else min(limit, kept)


def amend_manifest(folder: RunFolder, **values: Any) -> None:
    """Add what became known after the run's start."""
    write_json(folder.manifest, {**json.loads(folder.manifest.read_text(encoding="utf-8")), **values})


def git_state() -> dict[str, Any] | None:
    """Commit of the code, whether it was edited and, for a submitted snapshot, the edits; None outside a checkout."""
    snapshot = ROOT / ".snapshot.json"
    if snapshot.is_file():
        return json.loads(snapshot.read_text(encoding="utf-8"))
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
