"""A run resumes from the newest intact checkpoint, or from the one asked for; what cannot be used is kept."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from job.errors import NeedsHuman, Refused
from job.run import checkpoint_choice, checkpoints
from tests.support.checkpoints import publish, snapshot


def flip_a_byte(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def truncate(folder: Path) -> None:
    os.truncate(folder / "rng.safetensors", 40)


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def lose_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def lose_a_file(folder: Path) -> None:
    (folder / "config.yaml").unlink()


def spoil_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("[]")


DAMAGES = (flip_a_byte, truncate, empty, lose_the_manifest, lose_a_file, spoil_the_manifest)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_quarantined_and_the_previous_one_is_used(
    damage: Callable[[Path], None], parent: Path, messages: list[str]
) -> None:
    publish(parent, snapshot(1), snapshot(2))
    damage(parent / "step-00000002")
    assert checkpoint_choice.newest(parent) == parent / "step-00000001"
    assert len(messages) == 1
    assert messages[0].startswith("WARNING checkpoint step-00000002 ")
    assert messages[0].endswith(f"; moved to {parent / 'quarantine'}, the one before it is used")
    assert (parent / "quarantine" / "step-00000002").is_dir()


@pytest.mark.parametrize("damage", DAMAGES)
def test_without_a_complete_checkpoint_every_start_is_rejected(
    damage: Callable[[Path], None], parent: Path, messages: list[str]
) -> None:
    publish(parent, snapshot(1), snapshot(2))
    for step in (1, 2):
        damage(parent / f"step-{step:08d}")
    for _ in range(2):
        with pytest.raises(NeedsHuman, match=r"none of the checkpoints of .* can be used") as caught:
            checkpoint_choice.newest(parent)
        assert caught.value.exit_code == 3
    assert len(messages) == 2
    assert len(list((parent / "quarantine").iterdir())) == 2


def test_a_checkpoint_restored_from_a_backup_is_used(parent: Path, messages: list[str]) -> None:
    publish(parent, snapshot(1))
    backup = shutil.copytree(parent / "step-00000001", parent.with_name("backup"))
    flip_a_byte(parent / "step-00000001")
    with pytest.raises(NeedsHuman):
        checkpoint_choice.newest(parent)
    shutil.copytree(backup, parent / "step-00000001")
    assert checkpoint_choice.newest(parent) == parent / "step-00000001"


def test_a_checkpoint_whose_best_is_damaged_is_not_used(parent: Path, messages: list[str]) -> None:
    publish(parent, snapshot(1, 1), snapshot(2, 2), snapshot(3, 2))
    flip_a_byte(parent / "step-00000002")
    assert checkpoint_choice.newest(parent) == parent / "step-00000001"
    assert "step-00000003 needs the best one, step-00000002, which cannot be used" in messages[0]


def test_no_checkpoint_is_not_an_error(parent: Path, messages: list[str]) -> None:
    assert checkpoint_choice.newest(parent) is None
    parent.mkdir()
    (parent / ".new-step-00000001-4711").mkdir()
    assert checkpoint_choice.newest(parent) is None
    assert (messages, list(parent.iterdir())) == ([], [])


def test_foreign_files_in_the_folder_are_ignored(parent: Path, messages: list[str]) -> None:
    publish(parent, snapshot(1))
    for name in ("step-latest", "step-2", ".nfs0001", "notes.txt"):
        (parent / name).write_text("")
    assert checkpoint_choice.newest(parent) == parent / "step-00000001"


def killed_while_loading(folder: Path) -> None:
    child = os.fork()
    if child == 0:
        with checkpoint_choice.attempt(folder):
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_a_checkpoint_that_kills_the_run_twice_is_not_retried_until_it_is_moved_back(
    parent: Path, messages: list[str]
) -> None:
    publish(parent, snapshot(1), snapshot(2))
    for _ in range(2):
        assert checkpoint_choice.newest(parent) == parent / "step-00000002"
        killed_while_loading(parent / "step-00000002")
    assert checkpoint_choice.newest(parent) == parent / "step-00000001"
    assert "step-00000002 ended the run 2 times while it was being loaded" in messages[0]
    (parent / "quarantine" / "step-00000002").rename(parent / "step-00000002")
    assert checkpoint_choice.newest(parent) == parent / "step-00000002"


@pytest.mark.parametrize(
    "error",
    [None, RuntimeError("out of memory"), OSError("stale"), Refused("does not fit"), KeyboardInterrupt()],
    ids=str,
)
def test_errors_that_are_not_of_the_content_do_not_count_against_a_checkpoint(
    error: BaseException | None, parent: Path, messages: list[str]
) -> None:
    publish(parent, snapshot(1))
    for _ in range(5):
        resumed = checkpoint_choice.newest(parent)
        assert resumed is not None
        with contextlib.suppress(RuntimeError, OSError, Refused, KeyboardInterrupt), checkpoint_choice.attempt(resumed):
            if error is not None:
                raise error
    assert messages == []


@pytest.mark.parametrize("error", [SafetensorError("header too large"), KeyError("groups")], ids=repr)
def test_a_checkpoint_whose_content_ends_the_run_twice_is_not_retried(
    error: Exception, parent: Path, messages: list[str]
) -> None:
    """Its files are as they were written, so their checksums do not show it."""
    publish(parent, snapshot(1), snapshot(2))
    for _ in range(2):
        assert checkpoint_choice.newest(parent) == parent / "step-00000002"
        with pytest.raises(type(error)), checkpoint_choice.attempt(parent / "step-00000002"):
            raise error
    assert checkpoint_choice.newest(parent) == parent / "step-00000001"
    assert "step-00000002 ended the run 2 times while it was being loaded" in messages[0]


# ---------------------------------------------------------------------------------------------------------------------
# By path


def test_a_checkpoint_given_by_path_is_used_and_newer_ones_are_quarantined(parent: Path, messages: list[str]) -> None:
    publish(parent, snapshot(1), snapshot(2), snapshot(3))
    path = parent / "step-00000001"
    assert checkpoint_choice.chosen(parent, path) == path
    assert checkpoints.steps(parent) == [1]
    assert [line.split(" is ")[0] for line in messages] == ["INFO step-00000002", "INFO step-00000003"]
    assert checkpoint_choice.newest(parent) == path


def test_a_checkpoint_given_by_another_path_of_its_folder_is_the_same(
    parent: Path, tmp_path: Path, messages: list[str]
) -> None:
    publish(parent, snapshot(1))
    (tmp_path / "latest").symlink_to(parent.parent)
    path = tmp_path / "latest" / "checkpoints" / "step-00000001"
    assert checkpoint_choice.chosen(parent, path) == path


@pytest.mark.parametrize("path", ["nowhere", "step-00000009", "../step-00000001", "quarantine/step-00000001", "."])
def test_a_path_that_is_no_checkpoint_of_the_run_is_rejected(path: str, parent: Path, messages: list[str]) -> None:
    publish(parent, snapshot(1), snapshot(2))
    for place in (parent.parent, parent / "quarantine"):
        shutil.copytree(parent / "step-00000001", place / "step-00000001")
    with pytest.raises(Refused, match="is no checkpoint of this run: those are in"):
        checkpoint_choice.chosen(parent, parent / path)
    assert (checkpoints.steps(parent), messages) == ([1, 2], [])


def test_a_damaged_checkpoint_given_by_path_is_rejected(parent: Path, messages: list[str]) -> None:
    publish(parent, snapshot(1), snapshot(2))
    flip_a_byte(parent / "step-00000001")
    with pytest.raises(Refused, match=r"model\.safetensors is not what was written"):
        checkpoint_choice.chosen(parent, parent / "step-00000001")
    assert (checkpoints.steps(parent), messages) == ([1, 2], [])
