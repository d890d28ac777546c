"""Checkpoints on disk: complete or not there.

    checkpoints/step-00000100/    model, optimizer, rng, evaluation .safetensors; state.json; config.yaml; manifest.json
    checkpoints/quarantine/       those that did not verify

A checkpoint is written aside, flushed to the disk, given a manifest of sizes and checksums, renamed, and only then are
older ones removed: at any moment of a kill or a full disk, the previous one still exists. What is loaded is the
newest that verifies, so no pointer to it can be wrong. Tensors are safetensors and the rest is JSON: nothing in a
checkpoint can run code. Alternative considered: Accelerate's save_state, which removes old states first, pickles
the random states and is silent when they cannot be read.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from job.errors import NeedsHuman, Refused
from job.run import folder as run_folder
from job.runtime import files
from job.runtime.console import log

NAME = re.compile(r"step-(\d{8,})")
MANIFEST, STATE, CONFIG, ATTEMPTS, QUARANTINE = (
    "manifest.json", "state.json", "config.yaml", "attempts.json", "quarantine")  # fmt: skip
ASIDE, TRASH_PREFIX = run_folder.ASIDE, ".old-"
ATTEMPTS_ALLOWED = 2

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds.

    Attributes:
        step: optimizer steps done.
        best_step: the step of the best evaluation so far, 0 for none: that checkpoint is kept too.
        tensors: file name without .safetensors -> tensor's name -> tensor on the CPU, shared with nothing.
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
    """Publish `snapshot` below `parent`, then remove all but the `keep` newest and their best; returns its bytes.

    Raises:
        OSError, SafetensorError: it could not be written; what was there before still is.
    """
    parent.mkdir(exist_ok=True)
    final = parent / name(snapshot.step)
    aside = parent / f"{ASIDE}{final.name}-{os.getpid()}"
    files.remove(aside)
    try:
        aside.mkdir()
        size = _fill(aside, snapshot)
        _put_in_place(aside, final)
        files.flush(parent)
    finally:
        files.remove(aside)
    _rotate(parent, keep)
    return size


def name(step: int) -> str:
    return f"step-{step:08d}"


def step_of(folder: Path) -> int:
    """The step of a checkpoint, by its folder's name."""
    return int(folder.name.removeprefix("step-"))


def _fill(folder: Path, snapshot: Snapshot) -> int:
    """Write every file, then the manifest with their checksums, all flushed to disk; returns the bytes."""
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


def _put_in_place(aside: Path, final: Path) -> None:
    """Rename; one that another start of this run wrote at the same step goes only when the new one is there."""
    trash = _trash_path(final)
    if final.exists():
        final.rename(trash)
    aside.rename(final)
    files.remove(trash)


def _rotate(parent: Path, keep: int) -> None:
    """Leave the `keep` newest, and the best of each: without it, an older one could not take a damaged one's place."""
    there = steps(parent)
    kept = {*there[-keep:], *(_best_step(parent / name(step)) for step in there[-keep:])}
    for step in there:
        if step not in kept:
            folder = parent / name(step)
            files.remove(folder.rename(_trash_path(folder)))  # no half of it can be taken for a whole one


def _trash_path(folder: Path) -> Path:
    """Where a checkpoint is moved to be removed: nothing is there."""
    path = folder.with_name(f"{TRASH_PREFIX}{folder.name}-{os.getpid()}")
    files.remove(path)
    return path


def _best_step(folder: Path) -> int:
    """The step of the best evaluation when `folder` was written; 0 if it does not say."""
    try:
        return int(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["best_step"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


class Writer:
    """Writes snapshots in the background, one at a time; a failure is logged and does not end the run.

    A snapshot of the best evaluation that could not be written is retried: the weights of that step exist nowhere else,
    so it is written before any later one, which would be useless without it.
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
        """Begin to write `snapshot`, once the one before is done."""
        self.wait()
        if self.pending_retry is not None and (
            snapshot.best_step != self.pending_retry.step or snapshot.step == self.pending_retry.step
        ):
            self.pending_retry = None
        self._writing = snapshot
        self._job = self._pool.submit(self._write, snapshot)

    def wait(self) -> bool:
        """Until the last snapshot is on the disk; False where it could not be written."""
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
        """Finish what is being written and end the thread; False where it could not be written."""
        written = self.wait()
        self._pool.shutdown()
        return written

    def _write(self, snapshot: Snapshot) -> int:
        if self.pending_retry is not None:
            write(self._parent, self.pending_retry, self._keep)
            self.pending_retry = None
        return write(self._parent, snapshot, self._keep)

    def _warn_once(self, line: str) -> None:
        """A disk stays full for hours, in which each save fails."""
        if not self._failing:
            log.warning(line)
        self._failing = True


# ---------------------------------------------------------------------------------------------------------------------
# Finding and reading


def steps(parent: Path) -> list[int]:
    """The steps of the checkpoints below `parent`, ascending, whole or not."""
    found = (NAME.fullmatch(path.name) for path in parent.iterdir()) if parent.is_dir() else ()
    return sorted(int(match[1]) for match in found if match)


def newest(parent: Path) -> Path | None:
    """The newest usable checkpoint, or None where there never was one; clears what killed saves left.

    One that does not verify, whose best checkpoint does not, or that twice ended its reader, is moved to quarantine.
    To be called by the owner of the run folder only.

    Raises:
        NeedsHuman: there are checkpoints and none is usable.
    """
    _clear_debris(parent)
    found = steps(parent)
    for step in reversed(found):
        fault = _fault(parent, step)
        if fault is None:
            return parent / name(step)
        _quarantine(parent, step)
        log.warning(f"checkpoint {name(step)} {fault}; moved to {parent / QUARANTINE}, the one before it is used")
    if found or _quarantined(parent):
        raise NeedsHuman(f"none of the checkpoints of {parent.parent} can be used, see {parent / QUARANTINE}: restore "
                         "one from a backup, or start over with --overwrite_output_dir")  # fmt: skip
    return None


def chosen(parent: Path, path: Path) -> Path:
    """The checkpoint asked for by path; newer ones are moved to quarantine, as the run resumes from before them.

    Raises:
        Refused: it is not a complete checkpoint of this run.
    """
    match = NAME.fullmatch(path.name)
    if match is None or path.resolve().parent != parent.resolve() or not path.is_dir():
        raise Refused(f"--resume_from_checkpoint {path} is no checkpoint of this run: those are in {parent}; without "
                      "the flag the newest is taken")  # fmt: skip
    fault = _fault(parent, int(match[1]))
    if fault is not None:
        raise Refused(f"--resume_from_checkpoint {path} {fault}: choose another, or leave the flag out")
    _clear_debris(parent)
    for step in steps(parent):
        if step > int(match[1]):
            _quarantine(parent, step)
            log.info(f"{name(step)} is newer than the checkpoint asked for: moved to {parent / QUARANTINE}")
    return path


def read(folder: Path) -> Snapshot:
    """What `folder`, a checkpoint that verifies, holds."""
    tensors = {path.stem: load_file(path) for path in sorted(folder.glob("*.safetensors"))}
    state = read_state(folder)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    config = (folder / CONFIG).read_text(encoding="utf-8")
    return Snapshot(manifest["step"], manifest["best_step"], tensors, state, config)


def read_state(folder: Path) -> dict[str, Any]:
    """The plain values of a checkpoint."""
    return json.loads((folder / STATE).read_text(encoding="utf-8"))


def begin_attempt(folder: Path) -> None:
    """Note that `folder` is about to be loaded: one that ends its reader twice is not tried a third time."""
    tried = _attempts(folder.parent)
    files.write_json(folder.parent / ATTEMPTS, {**tried, folder.name: tried.get(folder.name, 0) + 1})


def end_attempt(folder: Path) -> None:
    """It was loaded, so later errors do not count against it."""
    files.remove(folder.parent / ATTEMPTS)


def _fault(parent: Path, step: int) -> str | None:
    """What is wrong with a checkpoint, or None."""
    folder = parent / name(step)
    fault = _unlike_manifest(folder)
    if fault is not None:
        return fault
    if _attempts(parent).get(folder.name, 0) >= ATTEMPTS_ALLOWED:
        return f"ended the run {ATTEMPTS_ALLOWED} times while it was being loaded"
    best = _best_step(folder)
    if best not in (0, step) and _unlike_manifest(parent / name(best)) is not None:
        return f"needs the best one, {name(best)}, which is not whole"
    return None


def _unlike_manifest(folder: Path) -> str | None:
    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        for file, entry in listed.items():
            path = folder / file
            if path.stat().st_size != entry["bytes"] or files.sha256(path) != entry["sha256"]:
                return f"is damaged ({file} is not what was written)"
    except FileNotFoundError as error:
        return f"is not whole ({Path(error.filename).name} is missing)"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"cannot be read ({type(error).__name__})"
    return None


def _attempts(parent: Path) -> dict[str, int]:
    try:
        found = json.loads((parent / ATTEMPTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _quarantine(parent: Path, step: int) -> None:
    place = parent / QUARANTINE
    place.mkdir(exist_ok=True)
    number, target = 1, place / name(step)
    while target.exists():
        number += 1
        target = place / f"{name(step)}-{number}"
    (parent / name(step)).rename(target)


def _quarantined(parent: Path) -> bool:
    place = parent / QUARANTINE
    return place.is_dir() and any(place.iterdir())


def _clear_debris(parent: Path) -> None:
    """Remove the remains of killed saves; restore a checkpoint whose replacement was never completed."""
    for path in list(parent.iterdir()) if parent.is_dir() else ():
        if path.name.startswith(TRASH_PREFIX) and _unlike_manifest(path) is None:
            original = parent / path.name.removeprefix(TRASH_PREFIX).rpartition("-")[0]
            if not original.exists():
                path.rename(original)
                continue
        if path.name.startswith((ASIDE, TRASH_PREFIX)):
            files.remove(path)
