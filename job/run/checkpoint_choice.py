"""Which checkpoint a run resumes from: the newest that is intact, or the one that was asked for.

checkpoints/quarantine/      damaged ones, and those that a requested older one replaces
checkpoints/attempts.json    name of a checkpoint -> how many times its loading was started; absent otherwise
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from job.errors import NeedsHuman, Refused
from job.run import checkpoints
from job.runtime import files
from job.runtime.console import log

ATTEMPTS, QUARANTINE = "attempts.json", "quarantine"
ATTEMPTS_ALLOWED = 2
OF_THE_CONTENT = (SafetensorError, LookupError, ValueError, TypeError, AttributeError)
"""Errors that loading a checkpoint raises each time: files are as they were written, but hold something else."""


def newest(parent: Path) -> Path | None:
    """The newest usable checkpoint, or None if none was ever written; remains of killed saves are removed.

    A checkpoint is moved to quarantine if it is damaged, if the best checkpoint that it refers to is, or if loading it
    ended the process twice. Only the owner of the run folder may call this.

    Raises:
        NeedsHuman: there are checkpoints, but none is usable.
    """
    _remove_remains(parent)
    existing = checkpoints.steps(parent)
    for step in reversed(existing):
        fault = _fault(parent, step)
        if fault is None:
            return parent / checkpoints.name(step)
        _quarantine(parent, step)
        log.warning(
            f"checkpoint {checkpoints.name(step)} {fault}; moved to {parent / QUARANTINE}, the one before it is used"
        )
    if existing or _quarantined(parent):
        raise NeedsHuman(
            f"none of the checkpoints of {parent.parent} can be used, see {parent / QUARANTINE}: move one back to try "
            "it again, restore one from a backup, or start over with --overwrite_output_dir"
        )
    return None


def chosen(parent: Path, path: Path) -> Path:
    """The checkpoint at the requested path; newer ones are moved to quarantine.

    Raises:
        Refused: it is not an intact checkpoint of this run.
    """
    match = checkpoints.NAME.fullmatch(path.name)
    if match is None or path.resolve().parent != parent.resolve() or not path.is_dir():
        raise Refused(f"--resume_from_checkpoint {path} is no checkpoint of this run: those are in {parent}; without "
                      "the flag the newest is taken")  # fmt: skip
    fault = _fault(parent, int(match[1]))
    if fault is not None:
        raise Refused(f"--resume_from_checkpoint {path} {fault}: choose another, or leave the flag out")
    _remove_remains(parent)
    for step in checkpoints.steps(parent):
        if step > int(match[1]):
            _quarantine(parent, step)
            log.info(f"{checkpoints.name(step)} is newer than the checkpoint asked for: moved to {parent / QUARANTINE}")
    return path


@contextlib.contextmanager
def attempt(folder: Path) -> Iterator[None]:
    """Load `folder` inside this context. If its content ends the run twice, or loading kills it twice, there is no
    third attempt.

    Other errors do not count: they are rarely caused by the checkpoint (a full GPU, a lost process).
    """
    attempts = _attempts(folder.parent)
    files.write_json(folder.parent / ATTEMPTS, {**attempts, folder.name: attempts.get(folder.name, 0) + 1})
    counts = False
    try:
        yield
    except OF_THE_CONTENT:
        counts = True
        raise
    finally:
        if not counts:
            files.remove(folder.parent / ATTEMPTS)


def _fault(parent: Path, step: int) -> str | None:
    """Why a checkpoint cannot be used, or None."""
    folder = parent / checkpoints.name(step)
    fault = _mismatch(folder)
    if fault is not None:
        return fault
    if _attempts(parent).get(folder.name, 0) >= ATTEMPTS_ALLOWED:
        return f"ended the run {ATTEMPTS_ALLOWED} times while it was being loaded"
    best = checkpoints.best_step(folder)
    if best not in (0, step) and _mismatch(parent / checkpoints.name(best)) is not None:
        return f"needs the best one, {checkpoints.name(best)}, which cannot be used"
    return None


def _mismatch(folder: Path) -> str | None:
    """How the files of a checkpoint differ from its manifest, or None."""
    try:
        listed = json.loads((folder / checkpoints.MANIFEST).read_text(encoding="utf-8"))["files"]
        for file, entry in listed.items():
            path = folder / file
            if path.stat().st_size != entry["bytes"] or files.sha256(path) != entry["sha256"]:
                return f"is damaged ({file} is not what was written)"
    except FileNotFoundError as error:
        return f"is incomplete ({Path(error.filename).name} is missing)"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"cannot be read ({type(error).__name__})"
    return None


def _attempts(parent: Path) -> dict[str, int]:
    return files.read_json(parent / ATTEMPTS)


def _quarantine(parent: Path, step: int) -> None:
    place = parent / QUARANTINE
    place.mkdir(exist_ok=True)
    number, target = 1, place / checkpoints.name(step)
    while target.exists():
        number += 1
        target = place / f"{checkpoints.name(step)}-{number}"
    (parent / checkpoints.name(step)).rename(target)
    files.remove(parent / ATTEMPTS)  # one that is moved back is tried again


def _quarantined(parent: Path) -> bool:
    place = parent / QUARANTINE
    return place.is_dir() and any(place.iterdir())


def _remove_remains(parent: Path) -> None:
    """Remove the remains of killed saves; restore a checkpoint whose replacement was never completed."""
    for path in list(parent.iterdir()) if parent.is_dir() else ():
        if path.name.startswith(checkpoints.TRASH_PREFIX) and _mismatch(path) is None:
            original = parent / path.name.removeprefix(checkpoints.TRASH_PREFIX).rpartition("-")[0]
            if not original.exists():
                path.rename(original)
                continue
        if path.name.startswith((checkpoints.ASIDE, checkpoints.TRASH_PREFIX)):
            checkpoints.discard(path)
