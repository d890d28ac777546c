"""runs/latest is the training run in runs/ that was started last."""

from pathlib import Path

import pytest

from job.run import latest


def test_latest_is_the_newest_run_in_runs_whoever_named_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    link = tmp_path / "runs" / "latest"
    for name, newest in {
        "runs/mine": "mine",
        "elsewhere/other": "mine",
        "runs/sweep/0": "mine",
        "runs/yours": "yours",
        "runs/mine/": "mine",  # resumed
        "runs/latest": "mine",
    }.items():
        path = tmp_path / name
        path.mkdir(parents=True, exist_ok=True)
        latest.point_to(path)
        assert (link.readlink(), link.resolve().name) == (Path(newest), newest), name
    assert not [*tmp_path.glob("elsewhere/*latest*"), *tmp_path.glob("runs/sweep/*latest*")]
