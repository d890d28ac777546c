"""report.html of runs of every kind, from what is in their folders and at any moment."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from job.config.tasks import MULTI_LABEL, REGRESSION, Kind
from job.report.html import __main__ as script
from job.report.html import drawing, predictions, recorded, writing
from job.run.folder import RunFolder
from job.runtime import files
from tests.support import reports
from tests.support.reports import Made

SEVENTY_SEVEN = tuple(f"class_{number}" for number in range(77))
CURVES = {"curve-loss", "curve-score", "curve-learning_rate", "curve-grad_norm", "curve-examples_per_second"}


def written(folder: RunFolder) -> str:
    writing.write(folder)
    return folder.report.read_text(encoding="utf-8")


def headings(page: str) -> list[str]:
    return re.findall(r'<h2 id="([^"]+)"', page)


def pictures(page: str) -> set[str]:
    return set(re.findall(r'<strong id="([^"]+)-title"', page))


def words(page: str) -> str:
    """The page without its markup."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)))


def test_two_classes(tmp_path: Path) -> None:
    folder = reports.finished(tmp_path / "run", Made(restarts=(30, 60)))
    page = written(folder)
    assert headings(page) == ["verdict", "learning", "confusion", "classes", "calibration", "mistakes", "label-errors",
                              "data", "time", "provenance", "settings"]  # fmt: skip
    assert pictures(page) == CURVES | {"confusion", "reliability", "lengths", "score-by-length"}
    said, results = words(page), json.loads(folder.results.read_text())
    assert f"has accuracy {results['eval']['accuracy']:.4f} (95 % interval" in said
    assert "The run was restarted from the checkpoint of step 30, 60" in said
    assert "The best evaluation is at step 60" in said
    assert "400 of these rows have a text of the training data: the score is optimistic." in said
    assert re.search(r"It contradicts \d+ labels: see the probable label errors.", said)
    matrix = results["eval"]["confusion_matrix"]
    assert f"Most often “no” is predicted as “yes”: {matrix[0][1]} rows" in said
    for name, of in results["eval"]["per_class"].items():
        cells = [name, *(f"{of[key]:.3f}" for key in ("precision", "recall", "f1")), str(of["support"])]
        assert " ".join(cells) in said
    made = {path.name for path in folder.report_files.iterdir()}
    assert made == {"data.json", "rows.json", "learning_curves.png", "confusion_matrix.png", "reliability.png"}
    for name in made:
        assert name.endswith(".json") or (folder.report_files / name).read_bytes().startswith(b"\x89PNG")


def test_a_model_that_learned_nothing_is_not_taken_for_a_judge_of_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, logits = reports.drawn(Made())
    monkeypatch.setattr(reports, "drawn", lambda _: (labels, np.roll(logits, 1, axis=0) - [0, 9]))
    said = words(written(reports.finished(tmp_path / "run", Made())))
    assert "the model is no better than that" in said
    assert "see the probable label errors" not in said


def test_seventy_seven_classes(tmp_path: Path) -> None:
    folder = reports.finished(tmp_path / "run", Made(names=SEVENTY_SEVEN, rows=3000))
    page = written(folder)
    names = re.findall(r">(class_\d+)</text>", page)
    assert sorted(names) == sorted([*SEVENTY_SEVEN, *SEVENTY_SEVEN]), "each class names a row and a column"
    places = {name: place for place, name in enumerate(names[:77])}
    assert abs(places["class_0"] - places["class_1"]) == 1, "classes that are mixed up are neighbours"
    table = re.search(r"Most confused pairs</caption>.*?<tbody>(.*?)</tr>", page, re.DOTALL)
    assert table is not None
    first_pair = tuple(words(table[1]).split()[:2])
    assert first_pair == ("class_0", "class_1")
    assert len(page.encode()) < 1_000_000


def test_several_labels(tmp_path: Path) -> None:
    page = written(reports.finished(tmp_path / "run", Made(MULTI_LABEL, ("a", "b", "c"))))
    assert "confusion" not in headings(page)
    assert {"classes", "calibration", "mistakes", "label-errors"} <= set(headings(page))
    assert "has f1_micro" in words(page)


def test_regression(tmp_path: Path) -> None:
    folder = reports.finished(tmp_path / "run", Made(REGRESSION, rows=3000))
    page = written(folder)
    assert {"against", "residuals"} <= pictures(page)
    assert not {"confusion", "classes", "calibration", "label-errors"} & set(headings(page))
    labels, logits = reports.drawn(Made(REGRESSION, rows=3000))
    assert f"has rmse {np.sqrt(((labels - logits[:, 0]) ** 2).mean()):.4f}" in words(page)
    assert f"Always predicting the mean label, {labels.mean():.4g}, gives {labels.std():.4f}" in words(page)
    assert (folder.report_files / "predicted_against_label.png").is_file()


def test_labels_whose_squares_overflow_leave_a_report_without_these_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, logits = reports.drawn(Made(REGRESSION))
    monkeypatch.setattr(reports, "drawn", lambda _: (np.append(labels[:-1], 1e200), logits))
    with np.errstate(over="ignore", invalid="ignore"):
        folder = reports.finished(tmp_path / "run", Made(REGRESSION))
        page = written(folder)
    groups = json.loads((folder.report_files / "rows.json").read_text())["score_by_length"]
    assert [group["score"] for group in groups].count(None) == 1
    assert "mistakes" in headings(page) and "rmse no value" in words(page)


def test_predictions_without_labels(tmp_path: Path) -> None:
    page = written(reports.finished(tmp_path / "run", Made(labelled=False)))
    assert headings(page) == ["verdict", "predicted", "data", "time", "provenance", "settings"]
    assert "400 rows of the test set were predicted. Without labels there is nothing to score." in words(page)


def test_an_unfinished_run(tmp_path: Path) -> None:
    """No prediction yet, and a last record that is half-written."""
    folder = reports.begun(tmp_path / "run", Made())
    with folder.metrics.open("a") as file:
        file.write('{"step": 93, "epoch": 1.86, "split": "tr')
    page = written(folder)
    assert headings(page) == ["verdict", "learning", "data", "time", "provenance", "settings"]
    assert "This run is active: it has reached step 90 of 100." in words(page)
    assert "The best of 3 evaluations so far, at step 60, has accuracy" in words(page)
    assert "step 93" not in words(page)


def test_a_killed_run_is_not_called_active(tmp_path: Path) -> None:
    folder = reports.begun(tmp_path / "run", Made())
    status = json.loads(folder.status.read_text())
    files.write_json(folder.status, {**status, "heartbeat": files.utc_now("milliseconds")})
    assert "This run is active: it has reached step 90 of 100." in words(written(folder))
    files.write_json(folder.status, {**status, "heartbeat": "2026-01-02T03:04:05.678+00:00"})
    said = words(written(folder))
    assert "This run was probably killed (no heartbeat since 2026-01-02T03:04:05.678+00:00): it has reached" in said


def test_a_finished_run_without_its_predictions_is_not_called_unfinished(tmp_path: Path) -> None:
    folder = reports.finished(tmp_path / "run", Made())
    folder.predictions.unlink()
    said = words(written(folder))
    assert "This run has finished, but predictions.parquet is missing" in said
    assert "has not finished" not in said and "Scores of the best model" in said


def test_a_run_before_its_first_record_and_one_that_failed(tmp_path: Path) -> None:
    early = reports.begun(tmp_path / "early", Made(), steps=0)
    early.metrics.unlink()
    assert "No step has been recorded yet." in words(written(early))
    failed = reports.begun(tmp_path / "failed", Made(), state="FAILED", steps=20)
    status = json.loads(failed.status.read_text())
    files.write_json(failed.status, {**status, "reason": "NonFiniteLoss: the loss became infinite at step 20"})
    said = words(written(failed))
    assert "This run failed: it has reached step 20 of 100. Reason: NonFiniteLoss: the loss became infinite" in said
    (tmp_path / "bare").mkdir()
    bare = RunFolder(tmp_path / "bare")
    bare.config.write_text("seed: 1\n")
    assert "has not been evaluated yet" in words(written(bare))


def test_a_folder_of_a_run_that_has_not_started_is_left_as_it_is(tmp_path: Path) -> None:
    """A report in it would be taken for files that belong to no run."""
    (tmp_path / "jobs").mkdir()
    assert script.main([str(tmp_path)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["jobs"]


def test_it_asks_for_nothing_else_and_has_no_script(tmp_path: Path) -> None:
    page = written(reports.finished(tmp_path / "run", Made()))
    assert "<script" not in page and "http://" not in page and "https://" not in page
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert "default-src 'none'" in page


def test_ids_are_unique_and_all_that_are_referred_to_exist(tmp_path: Path) -> None:
    page = written(reports.finished(tmp_path / "run", Made()))
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    referred = re.findall(r'(?:href="#|aria-labelledby="|url\(#)([\w-]+)', page)
    assert len(referred) > 50
    assert set(referred) <= set(ids)


def test_the_texts_are_those_of_the_rows_and_no_more_are_kept(tmp_path: Path) -> None:
    folder = reports.finished(tmp_path / "run", Made(rows=5000))
    kept = json.loads((folder.report_files / "rows.json").read_text())["texts"]
    assert all(texts == [f"the text of row {row}"] for row, texts in kept.items())
    assert 25 <= len(kept) <= 50
    page = written(folder)
    predicted = predictions.read(folder.predictions)
    assert predicted.labels is not None
    worst = np.where(predicted.wrong, predicted.confidence, 0).argmax()
    first = re.search(r"the most confident first</caption>.*?<tbody>(.*?)</tr>", page, re.DOTALL)
    assert first is not None
    row, label, given, confidence, *text = words(first[1]).split()
    assert (row, label) == (str(predicted.index[worst]), predicted.names[predicted.labels[worst]])
    assert (given, confidence) == (predicted.names[predicted.predictions[worst]], f"{predicted.confidence[worst]:.3f}")
    assert " ".join(text) == f"the text of row {predicted.index[worst]}"


def test_a_failure_to_draw_is_one_line_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    folder = reports.finished(tmp_path / "run", Made())
    monkeypatch.setitem(drawing.SETTINGS, "svg.fonttype", "no such type")
    writing.write_at_end(folder)
    [line] = logged
    assert line.startswith("WARNING report.html could not be written (ValueError: ")
    assert line.endswith("the run is complete: `muster report` tries again")
    assert "\n" not in line
    assert not folder.report.exists()


def test_a_failure_to_record_the_rows_is_one_line_and_the_report_goes_without_their_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(recorded, "SHOWN_CHARACTERS", None)
        folder = reports.finished(tmp_path / "run", Made())
    [line] = logged
    assert line.startswith("WARNING the rows that report.html shows could not be recorded (TypeError: ")
    page = written(folder)
    assert "(the text was not recorded)" in words(page) and "the text of row" not in words(page)


@pytest.mark.parametrize("kind", [MULTI_LABEL, REGRESSION, Made().kind])
def test_predictions_are_read_as_they_were_written(kind: Kind, tmp_path: Path) -> None:
    made = Made(kind, ("a", "b", "c"), rows=50)
    labels, logits = reports.drawn(made)
    predicted = predictions.read(reports.finished(tmp_path / "run", made).predictions)
    assert predicted.kind == made.kind
    assert predicted.index.tolist() == list(range(7, 57))
    assert predicted.labels is not None and np.array_equal(predicted.labels, labels)
    if made.kind == REGRESSION:
        assert np.array_equal(predicted.predictions, logits[:, 0].astype(np.float64))
    elif made.kind == MULTI_LABEL:
        assert np.array_equal(predicted.predictions, logits > 0)
    else:
        assert np.array_equal(predicted.predictions, logits.argmax(axis=1))
        assert np.allclose(predicted.probabilities.sum(axis=1), 1)
