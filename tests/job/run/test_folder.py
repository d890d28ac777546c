"""A run folder belongs to one configuration, and a file in it is complete or not there."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from job import config
from job.config import Config
from job.errors import Refused
from job.run import folder as run_folder
from job.run import latest, trial
from job.run.folder import RunFolder
from job.run.status import Status


def configured(path: Path | None, **values: Any) -> Config:
    return config.from_dict({**values, "output_dir": None if path is None else str(path)})


def contents(path: Path) -> dict[str, bytes]:
    return {
        p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file() and p.name != ".lock"
    }


def refusal(folder: RunFolder, configuration: Config) -> str:
    with pytest.raises(Refused) as caught:
        run_folder.claim(folder, configuration)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "deep" / "run")


@pytest.fixture
def unfinished(folder: RunFolder) -> RunFolder:
    """Claimed with seed 1, and stopped halfway."""
    run_folder.claim(folder, configured(folder.path, seed=1))
    folder.metrics.write_text("{}\n")
    folder.model.mkdir()
    (folder.model / "half").touch()
    return folder


@pytest.fixture
def finished(unfinished: RunFolder) -> RunFolder:
    unfinished.results.write_text("{}")
    return unfinished


# ---------------------------------------------------------------------------------------------------------------------
# Second start


@pytest.mark.parametrize(("owner", "applies"), [("slurm:17", False), ("docker:box:muster-run-1", True)])
def test_flags_of_the_first_start_apply_again_where_the_user_starts_again(
    owner: str, applies: bool, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSTER_OWNER", owner)
    folder.path.mkdir(parents=True)
    Status(folder, main=True).write("DONE")
    overwriting = configured(folder.path, overwrite_output_dir=True)
    from_one = configured(folder.path, resume_from_checkpoint="step-00000001")
    assert run_folder.as_continued(folder, overwriting).run.overwrite_output_dir == applies
    assert (run_folder.as_continued(folder, from_one) == from_one) == applies


def test_a_new_folder_gets_the_configuration(folder: RunFolder) -> None:
    configuration = configured(folder.path, seed=1)
    run_folder.claim(folder, configuration)
    assert config.load_recipe(str(folder.config)) == dataclasses.replace(configuration, run=config.Run())
    assert list(contents(folder.path)) == ["config.yaml"]


def test_an_unfinished_run_of_the_same_configuration_restarts(unfinished: RunFolder) -> None:
    assert not run_folder.claim(unfinished, configured(unfinished.path, seed=1))
    assert list(contents(unfinished.path)) == ["config.yaml"]


def test_a_run_without_any_record_may_be_replaced_by_another(folder: RunFolder) -> None:
    run_folder.claim(folder, configured(folder.path, seed=1))
    run_folder.claim(folder, configured(folder.path, seed=2))
    assert config.load_recipe(str(folder.config)).training.seed == 2


def test_a_finished_run_of_the_same_configuration_is_unchanged(finished: RunFolder) -> None:
    before = contents(finished.path)
    assert run_folder.claim(finished, configured(finished.path, seed=1, logging_steps=3))
    assert contents(finished.path) == before


def test_hardware_may_change_between_starts(unfinished: RunFolder) -> None:
    run_folder.claim(unfinished, configured(unfinished.path, seed=1, max_tokens_per_device=7))
    assert config.load_recipe(str(unfinished.config)).training.max_tokens_per_device == 7


@pytest.mark.parametrize("state", ["unfinished", "finished"])
def test_another_configuration_is_rejected_with_the_fields_that_differ(
    state: str, request: pytest.FixtureRequest
) -> None:
    held: RunFolder = request.getfixturevalue(state)
    before = contents(held.path)
    assert refusal(held, configured(held.path, seed=2, learning_rate=1.0)) == (
        f"{held.path} contains a run with a different learning_rate, seed: choose another --output_dir, or delete that "
        "run with --overwrite_output_dir"
    )
    assert contents(held.path) == before


@pytest.mark.parametrize("state", ["unfinished", "finished"])
@pytest.mark.parametrize("seed", [1, 2])
def test_overwriting_restarts_and_keeps_the_launchers_files(
    state: str, seed: int, request: pytest.FixtureRequest
) -> None:
    held: RunFolder = request.getfixturevalue(state)
    (held.path / "jobs").mkdir()
    (held.path / "jobs" / "log").touch()
    run_folder.claim(held, configured(held.path, seed=seed, overwrite_output_dir=True))
    assert sorted(contents(held.path)) == ["config.yaml", "jobs/log"]
    assert config.load_recipe(str(held.config)).training.seed == seed


@pytest.mark.parametrize("kill_at", run_folder.CONTENTS)
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_start_killed_while_it_removes_a_run_can_be_repeated(
    overwrite: bool, kill_at: str, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_folder.claim(folder, configured(folder.path, seed=1))
    for name in run_folder.CONTENTS if overwrite else ("metrics.jsonl", "manifest.json", "status.json"):
        (folder.path / name).write_text("{}")
    second = configured(folder.path, seed=2 if overwrite else 1, overwrite_output_dir=overwrite)
    remove = run_folder.files.remove

    def remove_until_killed(path: Path) -> None:
        if path == folder.path / kill_at:
            raise KeyboardInterrupt
        remove(path)

    with monkeypatch.context() as patched:
        patched.setattr(run_folder.files, "remove", remove_until_killed)
        with pytest.raises(KeyboardInterrupt):
            run_folder.claim(folder, second)
    assert folder.is_finished() == (overwrite and kill_at == "results.json")
    assert not run_folder.claim(folder, second)
    assert list(contents(folder.path)) == ["config.yaml"]


def test_the_next_start_removes_what_a_killed_run_had_half_written(finished: RunFolder) -> None:
    """The launcher may be writing status.json at this moment."""
    kept = [finished.path / name for name in (".status.json.4711", ".model.backup", ".mine.4711")]
    half_written = finished.path / ".model.4711"
    half_written.mkdir()
    for path in (*kept, half_written / "model.safetensors", finished.path / ".predictions.parquet.4711"):
        path.touch()
    assert run_folder.claim(finished, configured(finished.path, seed=1))
    assert [path for path in sorted(finished.path.glob(".*")) if path.name != ".lock"] == sorted(kept)


def test_the_space_of_checkpoints_in_quarantine_does_not_count_as_free(
    unfinished: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New checkpoints replace the others only."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: mock.Mock(free=0))
    step = unfinished.checkpoints / "step-00000001"
    step.mkdir(parents=True)
    (step / "model.safetensors").write_bytes(b"0" * 700)
    run_folder.require_space(unfinished, model=100, trained=100)
    (unfinished.checkpoints / "quarantine").mkdir()
    step.rename(unfinished.checkpoints / "quarantine" / step.name)
    with pytest.raises(Refused, match="has 0 MB free"):
        run_folder.require_space(unfinished, model=100, trained=100)


def test_config_yaml_of_a_run_that_overwrote_another_resumes_it(finished: RunFolder) -> None:
    run_folder.claim(finished, configured(finished.path, seed=1, overwrite_output_dir=True))
    (finished.checkpoints / "step-00000001").mkdir(parents=True)
    again = config.parse([str(finished.config), "--output_dir", str(finished.path)])
    assert not run_folder.claim(finished, again)
    assert (finished.checkpoints / "step-00000001").is_dir()


def test_config_yaml_of_a_run_that_overwrote_another_deletes_no_other_run(finished: RunFolder, tmp_path: Path) -> None:
    first = RunFolder(tmp_path / "first")
    run_folder.claim(first, configured(first.path, seed=2, overwrite_output_dir=True))
    before = contents(finished.path)
    assert "a different seed" in refusal(
        finished, config.parse([str(first.config), "--output_dir", str(finished.path)])
    )
    assert contents(finished.path) == before


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["thesis.txt", "model/weights", "results.json", "metrics.jsonl"])
def test_a_folder_with_other_files_is_rejected_and_kept(overwrite: bool, name: str, folder: RunFolder) -> None:
    """Regardless of their names: without our config.yaml they are not known to belong to a run."""
    foreign = folder.path / name
    foreign.parent.mkdir(parents=True)
    foreign.write_text("years of work")
    assert refusal(folder, configured(folder.path, overwrite_output_dir=overwrite)) == (
        f"{folder.path} contains files that do not belong to a run ({name.split('/')[0]}): choose another --output_dir"
    )
    assert foreign.read_text() == "years of work"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("others", [[], ["model/weights"], ["thesis.txt"]], ids=str)
def test_a_foreign_config_yaml_is_rejected_and_kept(overwrite: bool, others: list[str], folder: RunFolder) -> None:
    for name in others:
        (folder.path / name).parent.mkdir(parents=True)
        (folder.path / name).write_text("years of work")
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.config.write_text("database: postgres\n")
    before = contents(folder.path)
    assert str(folder.path) in refusal(folder, configured(folder.path, overwrite_output_dir=overwrite))
    assert contents(folder.path) == before


def test_a_start_killed_while_writing_its_first_file_does_not_block_the_next(folder: RunFolder) -> None:
    folder.path.mkdir(parents=True)
    (folder.path / ".config.yaml.4711").write_text("model_na")
    run_folder.claim(folder, configured(folder.path))
    assert folder.config.is_file()


def test_a_folder_with_only_the_launchers_files_counts_as_empty(folder: RunFolder) -> None:
    (folder.path / "jobs").mkdir(parents=True)
    run_folder.claim(folder, configured(folder.path))
    assert folder.config.is_file()


def test_a_file_as_output_dir_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refusal(RunFolder(tmp_path / "file"), Config()) == f"--output_dir {tmp_path / 'file'} is a file"


def test_a_folder_that_cannot_be_created_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "run"
    assert refusal(RunFolder(path), Config()) == f"--output_dir {path} cannot be written: Not a directory"


def test_a_name_that_is_too_long_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)
    for check in (run_folder.refuse_others, run_folder.claim):
        with pytest.raises(Refused, match=rf"^--output_dir {path} cannot be read \(File name too long\)"):
            check(RunFolder(path), Config())
    assert not trial.is_trial(path)


def test_generated_run_names_are_unique_and_latest_is_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = []
    for _ in range(3):
        made.append(RunFolder(run_folder.new_path("demo")))
        run_folder.claim(made[-1], configured(None))
        latest.point_to(made[-1].path)
    assert len({m.path for m in made}) == 3
    assert (tmp_path / "runs" / "latest").resolve() == made[-1].path
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == sorted(["latest", *(m.path.name for m in made)])


@pytest.mark.parametrize("named_by_user", [True, False])
def test_a_rejected_run_does_not_stay_the_latest(
    named_by_user: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    link, before = tmp_path / "runs" / "latest", None
    for name in ("first", "second"):
        folder = RunFolder(tmp_path / "runs" / name)
        configuration = configured(folder.path if named_by_user else None)
        run_folder.claim(folder, configuration)
        latest.point_to(folder.path)
        assert link.readlink() == Path(name)
        run_folder.discard_if_new(folder, configuration, before)
        assert latest.name(folder.path) == before
        (tmp_path / "runs" / "good").mkdir(exist_ok=True)
        latest.point_to(tmp_path / "runs" / "good")
        before = "good"


def test_a_run_that_started_meanwhile_stays_the_latest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rejected, other = (RunFolder(tmp_path / "runs" / name) for name in ("rejected", "other"))
    for folder in (rejected, other):
        run_folder.claim(folder, configured(None))
        latest.point_to(folder.path)
    run_folder.discard_if_new(rejected, configured(None), None)
    assert latest.name(other.path) == "other"


@pytest.mark.parametrize("named_by_user", [True, False])
@pytest.mark.parametrize("works", [True, False])
def test_only_an_empty_folder_with_a_generated_name_is_removed(
    named_by_user: bool, works: bool, folder: RunFolder
) -> None:
    configuration = configured(folder.path if named_by_user else None)
    run_folder.claim(folder, configuration)
    folder.metrics.write_text("{}\n" if works else "")
    run_folder.discard_if_new(folder, configuration, None)
    assert folder.path.exists() == (named_by_user or works)
