"""Checkpoints on disk: complete or absent.

    checkpoints/step-00000100/    model, optimizer, rng, evaluation .safetensors; state.json; config.yaml; manifest.json

A checkpoint is written to a temporary folder, with a manifest of sizes and checksums, flushed to disk and renamed. Only
then are older ones removed, so the previous one survives a kill or a full disk at any moment. The newest checkpoint
that matches its manifest is loaded (checkpoint_choice.py), so there is no pointer that can be wrong. Tensors are
safetensors and the rest is JSON: loading a checkpoint cannot run code. Alternative considered: Accelerate's save_state,
which removes old states first, pickles the random states and ignores errors when reading them.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from job.run import folder as run_folder
from job.runtime import files
from job.runtime.console import log

NAME = re.compile(r"step-(\d{8,})")
MANIFEST, STATE, CONFIG = "manifest.json", "state.json", "config.yaml"
ASIDE, TRASH_PREFIX = run_folder.ASIDE, ".old-"

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Snapshot:
    """The content of a checkpoint.

    Attributes:
        step: number of optimizer steps done.
        best_step: step of the best evaluation so far, 0 for none; the checkpoint of that step is kept too.
        tensors: file name without .safetensors -> tensor name -> tensor on the CPU that shares no memory.
        state: plain JSON values.
        config: text of config.yaml.
    """

    step: int
    best_step: int
    tensors: Mapping[str, Tensors]
    state: Mapping[str, Any]
    config: str


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def write(parent: Path, snapshot: Snapshot, keep: int) -> int:
    """Write `snapshot` to `parent`, then remove all but the `keep` newest checkpoints and the best ones they refer to.

    Returns:
        Its size in bytes.

    Raises:
        OSError, SafetensorError: it could not be written; existing checkpoints are unchanged.
    """
    parent.mkdir(exist_ok=True)
    final = parent / name(snapshot.step)
    aside = parent / f"{ASIDE}{final.name}-{os.getpid()}"
    files.remove(aside)
    try:
        aside.mkdir()
        size = _fill(aside, snapshot)
        _replace(aside, final)
        files.flush(parent)
    finally:
        files.remove(aside)
    _rotate(parent, keep)
    return size


def name(step: int) -> str:
    return f"step-{step:08d}"


def step_of(folder: Path) -> int:
    """The step in the name of a checkpoint folder."""
    return int(folder.name.removeprefix("step-"))


def _fill(folder: Path, snapshot: Snapshot) -> int:
    """Write all files, then the manifest with their checksums, and flush them to disk. Returns the size in bytes."""
    for file, tensors in snapshot.tensors.items():
        save_file(dict(tensors), folder / f"{file}.safetensors")
    (folder / STATE).write_text(json.dumps(snapshot.state), encoding="utf-8")
    (folder / CONFIG).write_text(snapshot.config, encoding="utf-8")
    files.set_default_mode(folder)
    written = sorted(folder.iterdir())
    for path in written:
        files.flush(path)
    listed = {path.name: {"bytes": path.stat().st_size, "sha256": files.sha256(path)} for path in written}
    manifest = {"step": snapshot.step, "best_step": snapshot.best_step, "files": listed}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    files.flush(folder / MANIFEST)
    files.flush(folder)
    return sum(path.stat().st_size for path in written)


def _replace(aside: Path, final: Path) -> None:
    """Rename `aside` to `final`. An older checkpoint of the same step is trash, which is removed only after that."""
    if final.exists():
        final.rename(_trash_path(final))
    aside.rename(final)


def _rotate(parent: Path, keep: int) -> None:
    """Keep the `keep` newest checkpoints, and the best one that each refers to: without it, it cannot be resumed
    from."""
    existing = steps(parent)
    kept = {*existing[-keep:], *(best_step(parent / name(step)) for step in existing[-keep:])}
    for step in existing:
        if step not in kept:
            folder = parent / name(step)
            folder.rename(_trash_path(folder))  # a partly removed one must not look complete
    for path in parent.glob(f"{TRASH_PREFIX}*"):
        discard(path)


def _trash_path(folder: Path) -> Path:
    """A new path, to which a checkpoint is renamed before it is removed."""
    return folder.with_name(f"{TRASH_PREFIX}{folder.name}-{time.time_ns()}")


def discard(path: Path) -> None:
    """Remove what is no longer needed. A failure is only logged, as over NFS for a file that somebody still reads."""
    try:
        files.remove(path)
    except OSError as error:
        log.warning(f"{path} is no longer needed, but could not be removed: {error.strerror}")


def best_step(folder: Path) -> int:
    """The best step in the manifest of `folder`; 0 if it cannot be read."""
    try:
        return int(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["best_step"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


class Writer:
    """Writes snapshots in the background, one at a time; a failure is logged and does not end the run.

    A snapshot of the best evaluation that could not be written is retried before any later one is written: its weights
    exist nowhere else, and later checkpoints need it.
    """

    def __init__(self, parent: Path, keep: int) -> None:
        self.pending_retry: Snapshot | None = None
        self.bytes = 0
        self._parent, self._keep = parent, keep
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._job: Future[int] | None = None
        self._writing: Snapshot | None = None
        self._failing = False

    def save(self, snapshot: Snapshot) -> None:
        """Start writing `snapshot` after the previous one is done."""
        self.wait()
        if self.pending_retry is not None and (
            snapshot.best_step != self.pending_retry.step or snapshot.step == self.pending_retry.step
        ):
            self.pending_retry = None
        self._writing = snapshot
        self._job = self._pool.submit(self._write, snapshot)

    def wait(self) -> bool:
        """Wait until the last snapshot is on disk; False if it could not be written."""
        job, snapshot, self._job = self._job, self._writing, None
        if job is None or snapshot is None:
            return not self._failing
        try:
            self.bytes = job.result()
        except (OSError, SafetensorError, RuntimeError) as error:
            if snapshot.best_step == snapshot.step:
                self.pending_retry = snapshot
            self._warn_once(
                f"the checkpoint of step {snapshot.step} could not be written "
                f"({' '.join(str(error).split())}); older ones are untouched, training continues"
            )
            return False
        if self._failing:
            log.info(f"the checkpoint of step {snapshot.step} could be written again")
        self._failing = False
        return True

    def close(self) -> bool:
        """Wait for the last snapshot and end the thread; False if it could not be written."""
        written = self.wait()
        self._pool.shutdown()
        return written

    def _write(self, snapshot: Snapshot) -> int:
        if self.pending_retry is not None:
            write(self._parent, self.pending_retry, self._keep)
            self.pending_retry = None
        return write(self._parent, snapshot, self._keep)

    def _warn_once(self, line: str) -> None:
        """Warn at the first failure only: a disk may stay full for hours, and each save fails."""
        if not self._failing:
            log.warning(line)
        self._failing = True


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def steps(parent: Path) -> list[int]:
    """The steps of the checkpoints in `parent`, ascending; damaged ones are included."""
    matches = (NAME.fullmatch(path.name) for path in parent.iterdir()) if parent.is_dir() else ()
    return sorted(int(match[1]) for match in matches if match)


def read(folder: Path) -> Snapshot:
    """Read an intact checkpoint."""
    tensors = {path.stem: load_file(path) for path in sorted(folder.glob("*.safetensors"))}
    state = read_state(folder)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    config = (folder / CONFIG).read_text(encoding="utf-8")
    return Snapshot(manifest["step"], manifest["best_step"], tensors, state, config)


def shapes(folder: Path, file: str) -> dict[str, tuple[int, ...]]:
    """The sizes of the tensors in `file` of a checkpoint, by name; the tensors are not read."""
    with safe_open(folder / f"{file}.safetensors", framework="pt") as opened:
        return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118


def read_state(folder: Path) -> dict[str, Any]:
    """The content of a checkpoint's state.json."""
    return json.loads((folder / STATE).read_text(encoding="utf-8"))
