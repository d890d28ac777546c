"""`results` of a sweep: the importance of each setting, the runs that are missing, and the page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from launch import cli
from launch.runs import results
from launch.sweeps import page
from launch.sweeps.importance import importances
from tests.launch.runs import synthetic

HOSTILE = "<script>alert(1)</script>"


def sweep(folder: Path, scores: dict[tuple[float, str, int], float]) -> Path:
    """A sweep with a finished run for each (learning rate, label column, seed)."""
    table = [{"run": str(number), "settings": {}} for number in range(len(scores) + 2)]
    synthetic.write(folder / "sweep.json", {"elements": table})
    for number, ((rate, label, seed), score) in enumerate(scores.items()):
        settings = {"learning_rate": rate, "label_column_name": label, "seed": seed}
        synthetic.finished(folder / str(number), {"accuracy": score}, settings=settings)
    return folder


@pytest.fixture
def six(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The learning rate matters; the column, whose name contains markup, hardly does."""
    monkeypatch.chdir(tmp_path)
    rates = {1e-5: 0.5, 1e-4: 0.7, 1e-3: 0.9}
    scores = {(rate, label, seed): base + 0.001 * (label == "y") + 0.01 * seed
              for rate, base in rates.items() for label in (HOSTILE, "y") for seed in (1, 2)}  # fmt: skip
    return sweep(tmp_path / "runs" / "six", scores)


def rows(folder: Path) -> list[results.Row]:
    runs = [run for path in sorted(folder.iterdir()) if path.is_dir() and (run := results.read(path))]
    return results.grouped(runs, "accuracy")


def test_the_setting_with_more_influence_has_the_larger_importance(six: Path) -> None:
    actual = importances(rows(six))
    assert list(actual) == ["learning_rate", "label_column_name"]
    assert actual["learning_rate"] > 0.9 and sum(actual.values()) == pytest.approx(1)
    assert actual == importances(rows(six)), "the same each time"


def test_without_variation_there_is_no_importance(tmp_path: Path) -> None:
    few = sweep(tmp_path / "few", {(rate, "x", 1): rate for rate in (0.1, 0.2, 0.3)})
    assert importances(rows(few)) == {}, "one setting"
    same = sweep(tmp_path / "same", {(rate, label, 1): 0.5 for rate in (0.1, 0.2, 0.3) for label in ("x", "y")})
    assert importances(rows(same)) == {}, "all scores are the same"


def test_fewer_trials_than_before_make_no_count_negative(six: Path, capfd: pytest.CaptureFixture[str]) -> None:
    synthetic.write(six / "sweep.json", {"elements": [{"run": "0", "settings": {}}]})
    assert cli.main(["results", "six"]) == 0
    assert "not started" not in capfd.readouterr().out


def test_results_of_a_sweep_add_missing_runs_importance_and_page(six: Path, capfd: pytest.CaptureFixture[str]) -> None:
    synthetic.run(six / "12", "DONE", reason="pruned")
    assert cli.main(["results", "six"]) == 0
    out = capfd.readouterr().out
    lines = out.splitlines()
    assert lines[0].split() == ["run", "accuracy", "std", "runs", "seeds", "label_column_name", "learning_rate"]
    assert lines[1].split()[:8] == ["11", "and", "1", "more", "0.9160", "0.0071", "2", "1"]
    assert re.search(r"^not in it +1 not started, 1 pruned$", out, re.MULTILINE)
    assert re.search(r"^importance +learning_rate [01]\.\d\d, label_column_name 0\.\d\d$", out, re.MULTILINE)
    assert re.search(r"^page +runs/six/report\.html$", out, re.MULTILINE)
    assert (six / "report.html").is_file()


def test_a_setting_may_be_a_mapping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "weights"
    synthetic.write(folder / "sweep.json", {"elements": []})
    for number, weights in enumerate(("balanced", {"no": 1.0, "yes": 2.0}) * 3):
        settings = {"class_weights": weights, "learning_rate": 10.0 ** -(number // 2 + 3)}
        synthetic.finished(folder / str(number), {"accuracy": 0.5 + 0.01 * number}, settings=settings)
    assert cli.main(["results", "weights"]) == 0
    assert re.search(r"^importance .*class_weights 0\.\d\d", capfd.readouterr().out, re.MULTILINE)


def test_a_page_that_cannot_be_written_is_named_below_the_table(six: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (six / "report.html").mkdir()
    assert cli.main(["results", "six"]) == 0
    assert re.search(r"^page +runs/six/report\.html cannot be written: Is a directory$", capfd.readouterr().out, re.M)


class Tags(HTMLParser):
    """Names of tags, the text of the page, and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [
            str(value) for name, value in attrs if name in ("src", "href") and not str(value).startswith("#")
        ]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_self_contained_and_escapes_names(six: Path) -> None:
    table_rows = rows(six)
    read = Tags(page.render(f"six {HOSTILE}", table_rows, importances(table_rows)))
    assert read.tags.count("svg") == 2 and "script" not in read.tags and read.loaded == []
    assert f"six {HOSTILE}" in read.text
    assert "0.0001" in read.text and "mathdefault" not in read.text, "a logarithmic axis has plain numbers"
    assert "The best of 12 finished runs has accuracy 0.9160 ± 0.0071 over 2 seeds with" in read.text
    for row in table_rows:
        assert f"{row.mean:.4f}" in read.text
