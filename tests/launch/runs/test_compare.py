"""`compare`: the metrics are scikit-learn's, the interval is that of plain resampling, the rows are the same."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import binomtest, pearsonr
from sklearn import metrics

from job import config, resampling
from job.resampling import LabelledPredictions, indicators
from launch import cli, make
from launch.runs import compare, paired
from tests.launch.runs import synthetic

NAMES = ("no", "yes", "maybe")
ROWS = 300


def noisy(rng: np.random.Generator, labels: np.ndarray, classes: int, share: float) -> np.ndarray:
    """`labels`, with a share of them redrawn."""
    return np.where(rng.random(len(labels)) < share, rng.integers(0, classes, len(labels)), labels)


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class numbers of ROWS rows: labels and two models' answers; the last class is rare."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, ROWS, p=[0.5, 0.48, 0.02])
    return labels, noisy(rng, labels, 2, 0.4), noisy(rng, labels, 3, 0.3)


def one_hot(numbers: np.ndarray) -> np.ndarray:
    return np.eye(3, dtype=bool)[numbers]


SKLEARN = {
    "accuracy": metrics.accuracy_score,
    "f1_macro": lambda y, p: metrics.f1_score(y, p, average="macro", zero_division=0),
    "f1_weighted": lambda y, p: metrics.f1_score(y, p, average="weighted", zero_division=0),
    "matthews_correlation": metrics.matthews_corrcoef,
}


@pytest.mark.parametrize("name", SKLEARN)
def test_the_scores_equal_scikit_learns(name: str, drawn: Any) -> None:
    labels, a, b = drawn
    one, other = LabelledPredictions(one_hot(labels), one_hot(a)), LabelledPredictions(one_hot(labels), one_hot(b))
    actual = paired.difference(one, other, resampling.ONE_LABEL[name])
    assert (actual.a, actual.b) == pytest.approx((SKLEARN[name](labels, a), SKLEARN[name](labels, b)), abs=1e-12)
    assert actual.low < actual.b - actual.a < actual.high


def test_the_interval_equals_that_of_resampled_rows(drawn: Any) -> None:
    labels, a, b = drawn
    actual = paired.difference(
        LabelledPredictions(one_hot(labels), one_hot(a)), LabelledPredictions(one_hot(labels), one_hot(b)), "accuracy"
    )
    rows = np.random.default_rng(1).integers(0, ROWS, (4000, ROWS))
    plain = (b == labels)[rows].mean(axis=1) - (a == labels)[rows].mean(axis=1)
    low, high = np.quantile(plain, [0.025, 0.975])
    assert (actual.low, actual.high) == pytest.approx((low, high), abs=0.05 * (high - low))


def test_pairing_narrows_the_interval(drawn: Any) -> None:
    """A twin that resamples the two models independently has a wider interval."""
    labels, a, _ = drawn
    nearly = a.copy()
    nearly[:3] = labels[:3]
    one, other = LabelledPredictions(one_hot(labels), one_hot(a)), LabelledPredictions(one_hot(labels), one_hot(nearly))
    actual = paired.difference(one, other, "accuracy")
    rng = np.random.default_rng(1)
    rows = rng.integers(0, ROWS, (2, 400, ROWS))
    twin = (nearly == labels)[rows[0]].mean(axis=1) - (a == labels)[rows[1]].mean(axis=1)
    assert actual.high - actual.low < 0.3 * np.ptp(np.quantile(twin, [0.025, 0.975]))


def test_multi_label_and_regression() -> None:
    rng = np.random.default_rng(0)
    labels, a = rng.random((2, ROWS, 3)) < 0.3
    labels[:, 2] = a[:, 2] = False
    of = LabelledPredictions(labels, a)
    for name, average in (("f1_micro", "micro"), ("f1_macro", "macro")):
        actual = paired.difference(of, of, resampling.SEVERAL_LABELS[name])
        assert actual.a == pytest.approx(metrics.f1_score(labels, a, average=average, zero_division=0))
        assert (actual.low, actual.high) == (0, 0)
    assert paired.difference(of, of, "accuracy").a == pytest.approx(metrics.accuracy_score(labels, a))
    x, y = rng.normal(size=(2, ROWS)) + 100
    numbers = LabelledPredictions(x, x + y)
    assert paired.difference(numbers, numbers, "rmse").a == pytest.approx(metrics.root_mean_squared_error(x, x + y))
    assert paired.difference(numbers, numbers, "pearsonr").a == pytest.approx(pearsonr(x, x + y).statistic)
    two = LabelledPredictions(indicators(["no", "yes", "yes"], NAMES[:2]), indicators(["yes", "yes", "no"], NAMES[:2]))
    assert paired.difference(two, two, "f1").a == metrics.f1_score([0, 1, 1], [1, 1, 0])


def test_mcnemars_test_is_exact(drawn: Any) -> None:
    labels, a, b = drawn
    actual = paired.mcnemar(
        LabelledPredictions(one_hot(labels), one_hot(a)), LabelledPredictions(one_hot(labels), one_hot(b))
    )
    only_a, only_b = ((a == labels) & (b != labels)).sum(), ((b == labels) & (a != labels)).sum()
    assert (actual.only_a, actual.only_b) == (only_a, only_b)
    assert actual.p == binomtest(only_a, only_a + only_b).pvalue
    same = LabelledPredictions(one_hot(labels), one_hot(a))
    assert paired.mcnemar(same, same).p == 1.0


# ---------------------------------------------------------------------------------------------------------------------
# Runs


def predicted(run: Path, labels: list[Any], answers: list[Any], index: list[int] | None = None) -> None:
    columns = {"index": index or list(range(len(labels))), "label": labels, "prediction": answers}
    odds = {f"probability_{name}": [0.5] * len(labels) for name in NAMES[:2]} if isinstance(labels[0], str) else {}
    pq.write_table(pa.table({**columns, **odds}), run / "predictions.parquet")


@pytest.fixture
def pair(runs: Path) -> tuple[Path, Path]:
    """Two runs on four rows: A is right in three of them, B in two; on one row both make the same mistake."""
    Path("data").mkdir()
    for name, texts in (("train", "tuvw"), ("validation", "abcd")):
        lines = [json.dumps({"text": f"the {text} film", "label": "yes"}) for text in texts]
        Path(f"data/{name}.jsonl").write_text("\n".join(lines) + "\n")
    files = {f"{name}_file": str(Path(f"data/{name}.jsonl").absolute()) for name in ("train", "validation")}
    labels = ["yes", "no", "yes", "no"]
    made = []
    for name, answers in (("A", ["yes", "no", "yes", "yes"]), ("B", ["no", "no", "yes", "yes"])):
        run = synthetic.finished(runs / name, {"accuracy": 0.5}, settings=files)
        predicted(run, labels, answers)
        made.append(run)
    return made[0], made[1]


def printed(capfd: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> str:
    assert cli.main(["compare", *argv]) == code
    out, err = capfd.readouterr()
    return err if code else out


def test_two_runs_and_the_rows_that_changed_with_their_text(
    pair: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    lines = printed(capfd, "A", "B").splitlines()
    assert lines[0] == "A        runs/A  accuracy 0.7500"
    assert lines[1] == "B        runs/B  accuracy 0.5000"
    assert lines[2] == "rows     4 of the validation set, the same in both"
    assert lines[3].startswith("B - A    -0.2500, 95 % interval -0.7500 to +0.0000")
    assert lines[4] == "McNemar  p = 1 (exact); rows correct only in A: 1, only in B: 0"
    assert lines[6:] == [
        "rows with a different prediction: 1",
        "row  label  A    B   text",
        "  0  yes    yes  no  the a film",
    ]


def test_json_has_every_row(pair: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    actual = json.loads(printed(capfd, "A", "B", "--by", "f1", "--json"))
    assert actual["metric"] == "f1"
    assert actual["difference"] == pytest.approx(
        metrics.f1_score([1, 0, 1, 0], [0, 0, 1, 1]) - metrics.f1_score([1, 0, 1, 0], [1, 0, 1, 1])
    )
    assert actual["changed"] == [{"row": 0, "label": "yes", "a": "yes", "b": "no", "text": "the a film"}]


def test_a_number_that_is_not_defined_is_null_in_json(
    pair: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    for run, predictions in zip(pair, ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]), strict=True):
        predicted(run, [1.0, 2.0, 3.0], predictions)
    actual = json.loads(
        printed(capfd, "A", "B", "--by", "pearsonr", "--json"), parse_constant=lambda name: pytest.fail(name)
    )
    assert actual["value_a"] is None and actual["value_b"] == pytest.approx(1)


def test_f1_uses_the_positive_label(pair: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    def label(run: Path, name: str) -> None:
        settings = config.load_recipe(str(run / "config.yaml"))
        (run / "config.yaml").write_text(config.to_yaml(config.from_dict({"positive_label": name}, base=settings)))

    label(pair[0], "no")
    assert "--by f1: the runs have different positive labels" in printed(capfd, "A", "B", "--by", "f1", code=2)
    label(pair[1], "no")
    actual = json.loads(printed(capfd, "A", "B", "--by", "f1", "--json"))
    assert actual["value_b"] == metrics.f1_score([1, 0, 1, 0], [0, 0, 1, 1], pos_label=0)


def test_rows_that_got_worse_come_first(pair: tuple[Path, Path]) -> None:
    a, b = pair
    predicted(a, ["yes", "no", "yes", "no"], ["no", "no", "yes", "no"])
    predicted(b, ["yes", "no", "yes", "no"], ["yes", "no", "no", "no"])
    assert [row.row for row in compare.compare(a, b, None).changed] == [2, 0]


def test_missing_text_is_reported(pair: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    Path("data/validation.jsonl").unlink()
    assert "texts not available: file not found: " in printed(capfd, "A", "B")


def test_settings_without_data_leave_the_texts_out(pair: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    (pair[1] / "config.yaml").write_text("seed: 1\n")
    assert "texts not available: config.yaml names no data" in printed(capfd, "A", "B")


def test_different_text_under_the_same_row_numbers_is_rejected(
    pair: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    other = Path("data/other.jsonl").absolute()
    other.write_text(Path("data/validation.jsonl").read_text().replace("the a", "an a"))
    settings = config.load_recipe(str(pair[1] / "config.yaml"))
    changed = config.to_yaml(config.from_dict({"validation_file": str(other)}, base=settings))
    (pair[1] / "config.yaml").write_text(changed)
    assert "A and B read different texts under the same row numbers" in printed(capfd, "A", "B", code=2)


def without_rows(a: Path) -> None:
    for run in (a, a.with_name("A")):
        pq.write_table(pq.read_table(run / "predictions.parquet").slice(0, 0), run / "predictions.parquet")


def with_an_unknown_label(a: Path) -> None:
    for run in (a, a.with_name("A")):
        predicted(run, ["yes", "other"], ["no", "no"])


REJECTED = {
    "no rows": (without_rows, "A and B were evaluated on no rows"),
    "an unknown label": (with_an_unknown_label, "A has predictions or labels 'other' for which there is no column"),
    "other rows": (
        lambda b: predicted(b, ["yes", "no"], ["no", "no"], [0, 7]),
        "different rows (4 and 2, 1 in common)",
    ),
    "other labels": (lambda b: predicted(b, ["no"] * 4, ["no"] * 4), "evaluated with different labels"),
    "numbers": (lambda b: predicted(b, [1.5] * 4, [2.0] * 4), "evaluated with different labels"),
    "no predictions": (lambda b: (b / "predictions.parquet").unlink(), "has no predictions to compare"),
    "no parquet": (lambda b: (b / "predictions.parquet").write_bytes(b"PAR1"), "predictions.parquet cannot be read"),
    "no labels": (lambda b: predicted(b, ["yes", None], ["no", "no"]), "was predicted on data without labels"),
}


@pytest.mark.parametrize("case", REJECTED)
def test_incomparable_runs_are_rejected(case: str, pair: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    damage, message = REJECTED[case]
    damage(pair[1])
    assert message in printed(capfd, "A", "B", code=2)


def test_an_unknown_metric_and_a_missing_environment_are_rejected(
    pair: tuple[Path, Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = printed(capfd, "A", "B", "--by", "rmse", code=2)
    assert output == (
        "error: --by rmse is not available for these runs: choose one of accuracy, f1_macro, f1_weighted, "
        "matthews_correlation, f1\n"
    )
    monkeypatch.setattr(compare, "NEEDED", ("numpy", "no_such_package"))
    assert "compare needs no_such_package: run it in the training environment" in printed(capfd, "A", "B", code=2)


def test_make_passes_two_runs() -> None:
    assert make.compare_argv({"RUN": "a b", "BY": "f1"}) == ["compare", "a", "b", "--by=f1"]
    assert make.main({"RUN": "a"}, "compare") == 2
