"""An unfinished run of another version is not resumed; anything else may be done with its folder."""

import json
from pathlib import Path
from typing import Any

import pytest

from job import config
from job.errors import Refused
from job.run import folder as run_folder
from job.run import format as run_format
from job.run.folder import RunFolder

OLDER, NEWER = 1, run_format.FORMAT + 1


@pytest.fixture
def unfinished(tmp_path: Path) -> RunFolder:
    """Stopped after a checkpoint."""
    folder = RunFolder(tmp_path / "run")
    run_folder.claim(folder, configured(folder))
    (folder.checkpoints / "step-00000003").mkdir(parents=True)
    return folder


def configured(folder: RunFolder, **values: Any) -> config.Config:
    return config.from_dict({"output_dir": str(folder.path), **values})


def write(folder: RunFolder, manifest: object) -> None:
    folder.manifest.write_text(json.dumps(manifest))


def refusal(folder: RunFolder, **values: Any) -> str:
    with pytest.raises(Refused) as caught:
        run_folder.claim(folder, configured(folder, **values))
    return str(caught.value)


@pytest.mark.parametrize(
    ("manifest", "version"),
    [({}, "an older"), ({"format": OLDER}, "an older"), ({"format": NEWER}, "a newer")],
)
def test_an_unfinished_run_of_another_version_is_rejected_and_kept(
    manifest: dict[str, int], version: str, unfinished: RunFolder
) -> None:
    write(unfinished, manifest)
    assert refusal(unfinished).startswith(
        f"{unfinished.path} contains an unfinished run of {version} version of Muster "
    )
    assert unfinished.holds_checkpoints()


def test_the_version_is_named_before_settings_that_differ(unfinished: RunFolder) -> None:
    write(unfinished, {})
    assert "an older version" in refusal(unfinished, seed=7)


def test_a_run_of_this_version_is_resumed(unfinished: RunFolder) -> None:
    write(unfinished, {"format": run_format.FORMAT})
    assert not run_folder.claim(unfinished, configured(unfinished))
    assert unfinished.holds_checkpoints()


def test_a_run_of_another_version_may_be_overwritten(unfinished: RunFolder) -> None:
    write(unfinished, {})
    assert not run_folder.claim(unfinished, configured(unfinished, overwrite_output_dir=True))
    assert not unfinished.holds_checkpoints()


def test_a_run_of_another_version_without_a_checkpoint_restarts(unfinished: RunFolder) -> None:
    write(unfinished, {})
    (unfinished.checkpoints / "step-00000003").rmdir()
    assert not run_folder.claim(unfinished, configured(unfinished))


def test_a_finished_run_of_another_version_is_unchanged(unfinished: RunFolder) -> None:
    write(unfinished, {})
    unfinished.results.write_text("{}")
    assert run_folder.claim(unfinished, configured(unfinished))
    assert unfinished.holds_checkpoints()


def test_settings_of_another_version_need_not_be_known(unfinished: RunFolder) -> None:
    unfinished.config.write_text("a_setting_of_tomorrow: 1\n")
    write(unfinished, {"format": NEWER})
    unfinished.results.write_text("{}")
    assert f"contains a run of a newer version of Muster (format {NEWER}, " in refusal(unfinished)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "two"}'])
def test_a_manifest_without_a_version_is_accepted(text: str, unfinished: RunFolder) -> None:
    """Checkpoints contain their own checksums."""
    unfinished.manifest.write_text(text)
    assert not run_folder.claim(unfinished, configured(unfinished))
    assert unfinished.holds_checkpoints()
