"""Trackers are those asked for, in the right place, and one that fails ends no run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from job.errors import Refused
from job.run import trackers
from job.run.folder import RunFolder
from job.run.trackers import Trackers


def started(folder: Path, *names: str, first_step: int | None = None) -> dict[str, Any]:
    made: Any = SimpleNamespace(
        project_configuration=SimpleNamespace(set_directories=lambda _: None), is_main_process=False
    )
    trackers.start(names, made, RunFolder(folder), first_step)
    return {tracker.name: tracker for tracker in made.log_with}


def test_all_trackers_are_those_that_are_installed(tmp_path: Path) -> None:
    assert "tensorboard" in started(tmp_path, "all")
    assert started(tmp_path, "none") == {}


def test_an_unknown_tracker_is_rejected_next_to_all_too(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="nowhere"):
        started(tmp_path, "all", "nowhere")


def test_tensorboard_writes_into_the_run_folder_and_removes_the_steps_after_the_checkpoint(tmp_path: Path) -> None:
    new = started(tmp_path, "tensorboard")["tensorboard"]
    assert (new.logging_dir_param, new.run_name, new.init_kwargs) == (
        str(tmp_path),
        "tensorboard",
        {"purge_step": None},
    )
    resumed = started(tmp_path, "tensorboard", first_step=8)["tensorboard"]
    assert resumed.init_kwargs == {"purge_step": 8}


@pytest.mark.parametrize(("variable", "project"), [(None, "muster"), ("films", "films")])
def test_a_run_is_in_the_users_project_under_its_own_name(
    variable: str | None, project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    if variable is not None:
        monkeypatch.setenv("WANDB_PROJECT", variable)
    monkeypatch.setattr(trackers, "filter_trackers", lambda names, _: names)  # as if the package were installed
    wandb = started(tmp_path / "run-7", "wandb")["wandb"]
    assert (wandb.run_name, wandb.init_kwargs) == (project, {"name": "run-7"})


class Failing:
    name = "failing"

    def log(self, values: dict[str, float], step: int) -> None:
        raise OSError(27, "File too large")

    def finish(self) -> None:
        raise ConnectionError


def test_a_tracker_that_cannot_be_started_is_rejected_unless_the_run_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    class NotLoggedIn(Failing):
        def start(self) -> None:
            raise RuntimeError("no api_key:\nlog in")

    monkeypatch.setattr(trackers, "_made", lambda *_: NotLoggedIn())
    main: Any = SimpleNamespace(
        project_configuration=SimpleNamespace(set_directories=lambda _: None), is_main_process=True
    )
    said = "--report_to failing cannot be started (no api_key: log in)"
    with pytest.raises(Refused) as rejected:
        trackers.start(["tensorboard"], main, RunFolder(tmp_path))
    assert str(rejected.value) == f"{said}: set it up, or leave it out"
    trackers.start(["tensorboard"], main, RunFolder(tmp_path), first_step=8)
    assert logged == [f"WARNING {said}: metrics.jsonl has all records"]
    assert main.trackers == []


class Listening:
    name = "listening"

    def __init__(self) -> None:
        self.heard: list[tuple[int, dict[str, float]]] = []

    def log(self, values: dict[str, float], step: int) -> None:
        self.heard.append((step, values))

    def finish(self) -> None:
        self.heard.append((-1, {}))


def test_a_tracker_that_fails_is_reported_once_and_the_others_get_all_records(logged: list[str]) -> None:
    listening = Listening()
    accelerator: Any = SimpleNamespace(trackers=[Failing(), listening])
    there = Trackers(accelerator)
    for step in (1, 2):
        there.log({"train/loss": 0.5}, step)
    there.finish()
    assert listening.heard == [(1, {"train/loss": 0.5}), (2, {"train/loss": 0.5}), (-1, {})]
    assert logged == ["WARNING --report_to failing fails ([Errno 27] File too large): metrics.jsonl has all records"]
    assert accelerator.trackers == []
