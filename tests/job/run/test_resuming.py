"""The command in the messages of a run that ended before its time resumes this run, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from job.config import Run
from job.errors import LostProcess
from job.run import resuming
from job.run.folder import RunFolder
from job.runtime import contract


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "a b").mkdir(parents=True)
    return RunFolder(tmp_path / "runs" / "a b")


def test_the_same_command_resumes_a_run_with_its_own_output_dir(folder: RunFolder) -> None:
    named = Run(output_dir="runs/a b")
    assert resuming.command(folder, named) == "the same command"
    overwriting = Run(output_dir="runs/a b", overwrite_output_dir=True)
    assert resuming.command(folder, overwriting) == "the same command without --overwrite_output_dir"
    from_an_older_one = Run(output_dir="runs/a b", resume_from_checkpoint="runs/a b/checkpoints/step-00000005")
    assert resuming.command(folder, from_an_older_one) == "the same command without --resume_from_checkpoint"


def test_without_output_dir_the_folder_is_named(folder: RunFolder) -> None:
    assert resuming.command(folder, Run()) == "the same command with --output_dir 'runs/a b'"


@pytest.mark.parametrize("run", [Run(), Run(output_dir="runs/a b", overwrite_output_dir=True)])
def test_what_our_launcher_started_is_started_again_by_rerun(folder: RunFolder, run: Run) -> None:
    (folder.path / contract.JOBS).mkdir()
    assert resuming.command(folder, run) == "`python -m launch rerun 'runs/a b'`"


@pytest.mark.parametrize(
    ("owner", "command"),
    [
        ("", "the same command with --output_dir 'runs/a b'"),
        ("docker:host:name", "`python -m launch rerun 'runs/a b'`"),
    ],
)
def test_a_container_is_started_again_as_it_was_started(
    owner: str, command: str, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `docker run` of the user, whose launcher is inside; or by our launcher outside."""
    (folder.path / contract.JOBS).mkdir()
    monkeypatch.setenv(contract.IN_IMAGE, "1")
    monkeypatch.setenv(contract.OWNER, owner)
    assert resuming.command(folder, Run()) == command


def test_an_error_of_an_interrupted_run_says_how_to_resume(folder: RunFolder) -> None:
    with pytest.raises(LostProcess) as caught, resuming.with_command(folder, Run()):
        raise LostProcess("another process died; run")
    again = "the same command with --output_dir 'runs/a b' to resume from the last checkpoint"
    assert str(caught.value) == f"another process died; run {again}"
