"""A published file or folder is complete or not there, and its files have the usual modes."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from job.runtime import files
from tests.support.disk import disk_calls


def contents(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def write_file(aside: Path) -> None:
    aside.write_text("new")


def write_folder(aside: Path) -> None:
    aside.mkdir()
    (aside / "part").write_text("new")


def failing(write: Callable[[Path], None]) -> Callable[[Path], None]:
    def half(aside: Path) -> None:
        write(aside)
        raise OSError("disk full")

    return half


@pytest.mark.parametrize("write", [write_file, write_folder])
@pytest.mark.parametrize("there_before", [True, False])
def test_publishing_replaces_an_existing_file(
    write: Callable[[Path], None], there_before: bool, tmp_path: Path
) -> None:
    path = tmp_path / "made"
    if there_before:
        write(path)
        first = path if path.is_file() else path / "old"
        first.write_text("old")
    files.publish(path, write)
    expected = {"made": b"new"} if write is write_file else {"made/part": b"new"}
    assert contents(tmp_path) == expected


@pytest.mark.parametrize("write", [write_file, write_folder])
@pytest.mark.parametrize("there_before", [True, False])
def test_a_failed_write_keeps_the_old_file_and_leaves_no_temporary_files(
    write: Callable[[Path], None], there_before: bool, tmp_path: Path
) -> None:
    if there_before:
        write(tmp_path / "made")
    before = contents(tmp_path)
    with pytest.raises(OSError, match="disk full"):
        files.publish(tmp_path / "made", failing(write))
    assert contents(tmp_path) == before
    assert {p.name for p in tmp_path.iterdir()} <= {"made"}


def test_the_old_file_exists_until_the_new_one_is_complete(tmp_path: Path) -> None:
    (tmp_path / "made").write_text("old")
    seen = []

    def looking(aside: Path) -> None:
        aside.write_text("ne")
        seen.append((tmp_path / "made").read_text())
        aside.write_text("new")

    files.publish(tmp_path / "made", looking)
    assert (seen, (tmp_path / "made").read_text()) == (["old"], "new")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_holds_numbers_only(value: float, tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"loss": 0.5, "name": "Grüße"})
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "a.json", {"loss": value})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"loss": 0.5, "name": "Grüße"}


def test_a_path_that_is_not_utf8_can_be_written_as_json_and_read_again(tmp_path: Path) -> None:
    name = os.fsdecode(b"/data/\xe9 \\u")
    files.write_json(tmp_path / "a.json", {"directory": name})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"directory": name}


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_private_files_get_the_default_mode_without_changing_the_umask(
    umask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = tmp_path / "weights"
    private.touch(mode=0o600)
    nested = tmp_path / "templates" / "tool.jinja"
    nested.parent.mkdir()
    nested.parent.chmod(0o755)
    nested.touch(mode=0o600)
    before = os.umask(umask)
    try:
        with monkeypatch.context() as patched:
            patched.delattr(os, "umask")  # another thread would create its files with what is set for a moment
            files.set_default_mode(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(private.stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE(nested.stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE(nested.parent.stat().st_mode) == 0o755, "a folder can still be entered"
    assert {path.name for path in tmp_path.iterdir()} == {"weights", "templates"}


@pytest.mark.parametrize("write", [write_file, write_folder])
def test_the_content_is_on_disk_before_the_rename(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a power failure could leave the new name with nothing in it."""
    calls = disk_calls(monkeypatch)
    files.publish(tmp_path / "made", write)
    aside = f".made.{os.getpid()}"
    flushed = [aside] if write is write_file else [f"{aside}/part", aside]
    assert calls == [*(("fsync", tmp_path / name) for name in flushed), ("rename", tmp_path / "made")]
