"""The copy of the code: what is in it, what is not, and its recorded origin."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from job.errors import Refused
from job.runtime.contract import SNAPSHOT_STATE
from launch.slurm import snapshot

ODD = "it's; $(touch X) é\n.py"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Committed: a.py, b.py, gone.py, .env, an odd name; then a.py and .env edited, gone.py deleted, new.py added."""
    root = tmp_path / "check out"
    (root / "pkg").mkdir(parents=True)
    for name in ("a.py", "b.py", "gone.py", ".env", ODD):
        (root / "pkg" / name).write_text("committed\n", encoding="utf-8")
    git(root, "init", "-q")
    git(root, "add", "-A", "-f")
    git(root, "-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "-qm", "first")
    (root / "pkg" / "a.py").write_text("edited\n", encoding="utf-8")
    (root / "pkg" / ".env").write_text("TOKEN=canary\n", encoding="utf-8")
    (root / "pkg" / "gone.py").unlink()
    (root / "pkg" / "new.py").write_text("new\n", encoding="utf-8")
    return root


def git(root: Path, *words: str) -> str:
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}  # a user may sign all commits
    command = ["git", "-C", str(root), *words]
    return subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=True).stdout.strip()


def test_a_snapshot_has_the_tracked_files_with_their_edits(checkout: Path, tmp_path: Path) -> None:
    state, code = snapshot.describe(checkout), tmp_path / "now" / "code"
    snapshot.copy(state, code)
    copied = {str(path.relative_to(code)) for path in code.rglob("*") if path.is_file()}
    assert copied == {"pkg/a.py", "pkg/b.py", f"pkg/{ODD}", SNAPSHOT_STATE}
    assert (code / "pkg" / "a.py").read_text(encoding="utf-8") == "edited\n"
    assert state.untracked == ("pkg/new.py",)


def test_the_commit_and_the_edits_are_recorded_without_secrets(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "now").mkdir()
    snapshot.copy(snapshot.describe(checkout), tmp_path / "now" / "code")
    state = json.loads((tmp_path / "now" / "code" / SNAPSHOT_STATE).read_text(encoding="utf-8"))
    diff = tmp_path / "now" / "local.diff"
    assert state == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": True, "diff": str(diff)}
    assert "+edited" in diff.read_text(encoding="utf-8")
    assert "canary" not in diff.read_text(encoding="utf-8")


def test_the_diff_applied_to_the_commit_gives_the_copy(checkout: Path, tmp_path: Path) -> None:
    snapshot.copy(snapshot.describe(checkout), tmp_path / "now" / "code")
    again = tmp_path / "again"
    subprocess.run(["git", "clone", "-q", str(checkout), str(again)], check=True)
    git(again, "apply", str(tmp_path / "now" / "local.diff"))
    assert (again / "pkg" / "a.py").read_text(encoding="utf-8") == "edited\n"
    assert not (again / "pkg" / "gone.py").exists()


def test_an_unedited_checkout_has_no_diff(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "checkout", "-q", ".")
    snapshot.copy(snapshot.describe(checkout), tmp_path / "now" / "code")
    state = json.loads((tmp_path / "now" / "code" / SNAPSHOT_STATE).read_text(encoding="utf-8"))
    assert (state["dirty"], state["diff"]) == (False, None)
    assert not (tmp_path / "now" / "local.diff").exists()


def test_a_snapshot_can_be_made_of_a_snapshot(checkout: Path, tmp_path: Path) -> None:
    """As where a job submits another: there is no git in a snapshot, and its commit is still known."""
    (checkout / "job").mkdir()
    (checkout / "job" / "x.py").write_text("", encoding="utf-8")
    git(checkout, "add", "job")
    snapshot.copy(snapshot.describe(checkout), tmp_path / "now" / "code")
    second = snapshot.describe(tmp_path / "now" / "code")
    assert second.commit == git(checkout, "rev-parse", "HEAD")
    assert "job/x.py" in second.files
    assert "+edited" in second.diff


def test_a_checkout_that_git_cannot_read_is_rejected(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    with pytest.raises(Refused, match="cannot be read by git: fatal: "):
        snapshot.describe(tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# With any git configuration

SETTINGS = ["diff.external=/bin/true", "diff.noprefix=true", "diff.mnemonicPrefix=true", "color.ui=always",
            "color.diff=always", "diff.context=0", "diff.relative=true", "diff.renames=copies"]  # fmt: skip


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_diff_can_be_applied_regardless_of_git_settings(setting: str, checkout: Path, tmp_path: Path) -> None:
    git(checkout, "config", *setting.split("=", 1))
    snapshot.copy(snapshot.describe(checkout), tmp_path / "now" / "code")
    patch, again = tmp_path / "now" / "local.diff", tmp_path / "again"
    git(tmp_path, "clone", "-q", str(checkout), str(again))
    git(again, "apply", str(patch))
    assert (again / "pkg" / "a.py").read_text("utf-8") == "edited\n"


def test_a_repository_from_the_environment_or_around_a_copy_is_ignored(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    before = snapshot.describe(checkout)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert snapshot.describe(checkout) == before
    copy = other / "copy"
    (copy / "job").mkdir(parents=True)
    (copy / "job" / "train.py").write_text("", encoding="ascii")
    state = snapshot.describe(copy)
    assert (state.commit, state.files) == (None, ("job/train.py",))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_gits_error_about_another_users_checkout_is_shown_in_full(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    for path in (checkout, checkout / ".git"):
        os.chown(path, 12345, 12345)
    with pytest.raises(Refused, match=r"dubious ownership .* git config --global --add safe\.directory"):
        snapshot.describe(checkout)
