"""`report`: the page of a run, found as by the other verbs, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from launch import cli, make
from tests.launch.runs import synthetic
from tests.support import reports
from tests.support.launch import ROOT
from tests.support.reports import Made


def test_an_unfinished_run_can_be_reported_repeatedly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = reports.begun(Path("runs") / "mine", Made(), steps=30)
    assert cli.main(["report", "mine"]) == 0
    assert capfd.readouterr() == ("runs/mine/report.html\n", "")
    assert "it has reached step 30 of 100" in folder.report.read_text()
    reports.write_records(folder, reports.records(Made(), 60))
    assert make.main({"RUN": "runs/mine"}, "report") == 0
    assert "2 evaluations so far, at step 60" in folder.report.read_text()


def test_latest_is_the_default(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    synthetic.run(runs / "old")
    newest = synthetic.run(runs / "new")
    (runs / "latest").symlink_to("new")
    assert cli.main(["report"]) == 0
    assert (newest / "report.html").is_file()
    assert not (runs / "old" / "report.html").exists()


def test_a_queued_run_and_damaged_predictions_are_rejected_in_one_line(
    runs: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    synthetic.run(runs / "waits", "QUEUED", job="7")
    assert cli.main(["report", "waits"]) == 2
    assert capfd.readouterr().err == "error: runs/waits has not started: there is nothing to report yet\n"
    assert not (runs / "waits" / "report.html").exists()
    folder = reports.finished(tmp_path / "damaged", Made(rows=20))
    folder.predictions.write_bytes(b"PAR1 and then nothing")
    assert cli.main(["report", str(folder.path)]) == 2
    message = capfd.readouterr().err
    assert message.startswith(f"error: {folder.predictions} cannot be read: ") and message.count("\n") == 1


def test_missing_files_are_named(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic.run(runs / "mine")
    monkeypatch.setattr("launch.runs.report.NEEDED", ("numpy", "no_such_package"))
    assert cli.main(["report", "mine"]) == 2
    assert capsys.readouterr().err.startswith("error: report needs no_such_package: run it in the training environment")


def test_the_launcher_and_the_page_import_no_torch() -> None:
    names = "('torch', 'transformers', 'datasets')"
    code = f"import sys; import launch.cli, job.report.html.writing; print([n for n in {names} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    heavy = "('matplotlib', 'numpy', 'jinja2')"
    code = f"import sys; import launch.cli, launch.runs.report; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
