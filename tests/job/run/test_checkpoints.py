"""A checkpoint is complete or absent, also if a kill or a full disk ends a save."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from job.run import checkpoint_choice, checkpoints
from job.run.checkpoints import Snapshot, Writer
from tests.support.checkpoints import publish, snapshot
from tests.support.disk import disk_calls

# ---------------------------------------------------------------------------------------------------------------------
# Writing


def test_a_checkpoint_round_trips(parent: Path) -> None:
    checkpoints.write(parent, snapshot(3, best=3), keep=2)
    read = checkpoints.read(parent / "step-00000003")
    expected = snapshot(3, best=3)
    assert (read.step, read.best_step, read.state, read.config) == (3, 3, expected.state, expected.config)
    assert {file: set(tensors) for file, tensors in read.tensors.items()} == {"model": {"w"}, "rng": {"0.torch"}}
    assert torch.equal(read.tensors["model"]["w"], expected.tensors["model"]["w"])


def test_the_manifest_names_every_file_with_size_and_checksum(parent: Path) -> None:
    checkpoints.write(parent, snapshot(3), keep=2)
    folder = parent / "step-00000003"
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    assert set(listed) == {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert {name: entry["bytes"] for name, entry in listed.items()} == {
        name: (folder / name).stat().st_size for name in listed
    }


def test_nothing_in_a_checkpoint_can_run_code(parent: Path) -> None:
    """Tensors are safetensors, the rest is text: no file is a pickle or an archive of pickles."""
    checkpoints.write(parent, snapshot(3), keep=2)
    for path in (parent / "step-00000003").iterdir():
        assert path.suffix in (".safetensors", ".json", ".yaml")
        assert not path.read_bytes().startswith((b"PK", b"\x80"))


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_files_have_the_mode_of_the_umask(umask: int, parent: Path) -> None:
    before = os.umask(umask)
    try:
        checkpoints.write(parent, snapshot(3), keep=2)
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (parent / "step-00000003").iterdir()}
    assert modes == {0o666 & ~umask}


def test_the_newest_and_the_best_checkpoints_are_kept(parent: Path) -> None:
    publish(parent, snapshot(1, 1), snapshot(2, 1), snapshot(3, 1), snapshot(4, 1), keep=2)
    assert checkpoints.steps(parent) == [1, 3, 4]
    publish(parent, snapshot(5, 5), keep=2)
    assert checkpoints.steps(parent) == [1, 4, 5], "4 cannot take the place of 5 without the best it knows, which is 1"
    publish(parent, snapshot(6, 5), keep=2)
    assert checkpoints.steps(parent) == [5, 6]


@pytest.mark.parametrize("keep", [2, 3])
def test_the_previous_checkpoint_can_always_be_resumed(keep: int, parent: Path, messages: list[str]) -> None:
    best = 0
    for step in range(1, 13):
        best = step if step in (1, 4, 5, 8, 11) else best
        publish(parent, snapshot(step, best), keep=keep)
        if step > 1:
            copy = parent.with_name(f"copy{step}")
            shutil.copytree(parent, copy)
            (copy / f"step-{step:08d}" / "state.json").write_text("{}")
            assert checkpoint_choice.newest(copy) == copy / f"step-{step - 1:08d}"


def test_every_file_is_on_disk_before_the_checkpoint_has_its_name(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a power failure could leave a complete name with files that are empty."""
    calls = disk_calls(monkeypatch)
    checkpoints.write(parent, snapshot(3), keep=2)
    final = parent / "step-00000003"
    renamed = calls.index(("rename", final))
    flushed = [path for _, path in calls[:renamed]]
    assert {path.name for path in flushed[:-1]} == {path.name for path in final.iterdir()}
    assert flushed[-1].parent == parent and all(path.parent == flushed[-1] for path in flushed[:-1])
    assert calls[renamed + 1 :] == [("fsync", parent)]


def killed_while_writing(parent: Path, made: Snapshot, name: str, turn: int) -> bool:
    """Write in a process of its own, which is killed before the `turn`-th call of a function of the module `os`, by
    which the protocol shows on the disk. False if it ended before."""
    child = os.fork()
    if child == 0:
        original, calls = getattr(os, name), iter(range(99))

        def counted(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == turn:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(os, name, counted)
        checkpoints.write(parent, made, keep=1)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("step", [2, 3], ids=["the_same_step", "a_new_step"])
@pytest.mark.parametrize("name", ["mkdir", "fsync", "rename", "rmdir"])
def test_a_save_killed_at_any_call_leaves_a_complete_checkpoint_and_the_next_start_cleans_up(
    name: str, step: int, parent: Path, messages: list[str]
) -> None:
    for turn in range(99):
        shutil.rmtree(parent, ignore_errors=True)
        publish(parent, snapshot(1), snapshot(2))
        killed = killed_while_writing(parent, snapshot(step), name, turn)
        resumed = checkpoint_choice.newest(parent)
        assert resumed is not None and checkpoints.read(resumed).step in {2, step}
        assert not [path.name for path in parent.iterdir() if path.name.startswith(".")]
        if not killed:
            break
    assert turn > 0, "at least one call was hit"
    assert messages == [], "a killed save is nothing to warn of"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("unexpected pos")])
def test_a_failed_save_keeps_the_previous_checkpoint_and_leaves_no_temporary_files(
    error: Exception, parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(parent, snapshot(1))

    def failing(folder: Path, _: Snapshot) -> int:
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(checkpoints, "_fill", failing)
    with pytest.raises(type(error)):
        checkpoints.write(parent, snapshot(2), keep=1)
    assert [path.name for path in parent.iterdir()] == ["step-00000001"]


@pytest.mark.parametrize("step", [1, 2], ids=["the_same_step", "a_new_step"])
def test_a_checkpoint_counts_as_written_if_an_older_one_cannot_be_removed(
    step: int, parent: Path, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(parent, snapshot(1))
    rmdir = os.rmdir

    def still_read(path: str, **given: Any) -> None:
        if str(path).rpartition("/")[2].startswith(".old-"):
            raise OSError(errno.ENOTEMPTY, "Directory not empty", path)
        rmdir(path, **given)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", still_read)
        writer = Writer(parent, keep=1)
        writer.save(snapshot(step))
        assert writer.close()
        assert checkpoint_choice.newest(parent) == parent / f"step-{step:08d}", (
            "a start that cannot remove it resumes, too"
        )
    assert checkpoints.steps(parent) == [step]
    for line in messages:
        assert re.search(r"/\.old-step-00000001-\d+ is no longer needed, but could not be removed: Dir", line)
    assert len(messages) == 2
    publish(parent, snapshot(3), keep=1)
    assert [path.name for path in parent.iterdir()] == ["step-00000003"], "the next save removes it"


# ---------------------------------------------------------------------------------------------------------------------
# In the background


class Disk:
    """`checkpoint.write` on a disk that is full for the steps in `rejected`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rejected: set[int] = set()
        self._write = checkpoints.write
        monkeypatch.setattr(checkpoints, "write", self)

    def __call__(self, parent: Path, made: Snapshot, keep: int) -> int:
        if made.step in self.rejected:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._write(parent, made, keep)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_a_full_disk_is_logged_once_and_so_is_its_end(disk: Disk, parent: Path, messages: list[str]) -> None:
    writer = Writer(parent, 2)
    disk.rejected = {2, 3}
    for step in (1, 2, 3, 4):
        writer.save(snapshot(step))
        assert writer.wait() == (step not in disk.rejected)
    writer.close()
    assert messages == [
        "WARNING the checkpoint of step 2 could not be written ([Errno 28] No space left on device); older ones are "
        "untouched, training continues",
        "INFO the checkpoint of step 4 could be written again",
    ]
    assert checkpoints.steps(parent) == [1, 4]


def test_a_best_checkpoint_that_failed_is_retried_before_any_later_one(
    disk: Disk, parent: Path, messages: list[str]
) -> None:
    writer = Writer(parent, 1)
    disk.rejected = {2}
    for made in (snapshot(1, 1), snapshot(2, 2), snapshot(3, 2)):
        writer.save(made)
        writer.wait()
    assert checkpoints.steps(parent) == [1], "3 without 2 would be useless, and 1 would have been removed for it"
    assert writer.pending_retry is not None and writer.pending_retry.step == 2
    disk.rejected = set()
    writer.save(snapshot(4, 2))
    assert writer.close()
    assert checkpoints.steps(parent) == [2, 4] and not writer.pending_retry


def test_a_failed_best_checkpoint_is_dropped_for_a_better_one(disk: Disk, parent: Path, messages: list[str]) -> None:
    writer = Writer(parent, 2)
    disk.rejected = {1}
    for made in (snapshot(1, 1), snapshot(2, 2)):
        writer.save(made)
    assert writer.close()
    assert checkpoints.steps(parent) == [2]


def test_the_last_failure_is_reported_repeatedly(disk: Disk, parent: Path, messages: list[str]) -> None:
    writer = Writer(parent, 2)
    disk.rejected = {1}
    writer.save(snapshot(1))
    assert [writer.wait(), writer.wait(), writer.close()] == [False, False, False]
