"""Every example counts once, and scores equal those of scikit-learn and SciPy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from datasets import Dataset
from scipy import stats
from scipy.special import softmax
from sklearn import metrics as sklearn_metrics

from job.batching.collate import PackedFormat, Padding
from job.batching.forms import Form
from job.batching.loader import BatchLoader
from job.batching.planner import PADDED
from job.config import Config, Evaluation, task_settings
from job.config.metrics import defaults, fitting, numbers
from job.config.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Kind, Task
from job.data.dataset import Split
from job.errors import NonFiniteOutput, Refused
from job.evaluation import metrics, prediction
from job.evaluation.prediction import Predictions
from tests.support.pairs import LENGTHS, PAD, network, pairs
from tests.support.tiny import tiny_model

OWN_METRIC = """
import datasets
import evaluate

class Wrong(evaluate.Metric):
    def _info(self):
        whole = datasets.Value("int64")
        return evaluate.MetricInfo(
            description="a",
            citation="b",
            inputs_description="c",
            features=datasets.Features({"predictions": whole, "references": whole}),
        )

    def _compute(self, predictions, references):
        return {"wrong": sum(p != r for p, r in zip(predictions, references))}
"""


@pytest.fixture
def cached_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import evaluate

    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "metrics-cache")


@pytest.fixture(scope="module")
def loaded() -> dict[str, Any]:
    return metrics.load(["accuracy", "f1", "matthews_correlation"], SINGLE_LABEL)


def random_predictions(classes: int, seed: int, occurring: int | None = None, rows: int = 40) -> Predictions:
    """Labels and predictions of the first `occurring` of the classes only."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, classes)).astype(np.float32)
    logits[:, occurring or classes :] = -50
    return Predictions(SINGLE_LABEL, np.arange(rows), logits, random.integers(0, occurring or classes, rows))


# ---------------------------------------------------------------------------------------------------------------------
# Each example once


def test_gathered_rows_are_sorted() -> None:
    index = np.array([4, -1, 0, 2, -1, 1, 3])
    rows = np.stack([index, index * 10], axis=1).astype(np.float32)
    assert prediction.in_order(index, rows, 5).tolist() == [[0, 0], [1, 10], [2, 20], [3, 30], [4, 40]]


@pytest.mark.parametrize(
    "index",
    [[0, 1, 3], [0, 1, 2, 2, 3], [0, 1, 2, 2], [0, 1, 2, 3, 4], [-1, -1, -1, -1], [0, 1, 2, -1]],
    ids=["lost", "doubled", "one for another", "one too many", "none", "padding for a row"],
)
def test_a_lost_or_duplicated_row_ends_the_run(index: list[int]) -> None:
    with pytest.raises(RuntimeError, match=r"^evaluation did not return each example once$"):
        prediction.in_order(np.array(index), np.zeros((len(index), 2)), 4)


@pytest.mark.parametrize("max_tokens", [1, 40, 10_000])
def test_predictions_in_batches_equal_those_of_single_examples(max_tokens: int, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tiny_model(tmp_path, num_labels=3)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path, local_files_only=True).train()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    rows = [[2, *(7 + i % 20 for i in range(n)), 3] for n in (3, 30, 1, 12, 4, 9, 0)]
    lengths = np.array([len(row) for row in rows], dtype=np.int32)
    labels = np.array([0, 1, 2, 0, 1, 2, 0])
    split = Split(Dataset.from_dict({"input_ids": rows}).with_format("numpy"), lengths, labels, np.arange(7) * 5)

    accelerator = Accelerator(cpu=True)
    packed = PackedFormat(tokenizer.pad_token_id, None, 1, longest=32, with_lengths=True)
    form = Form(PADDED, packed, Padding(tokenizer.pad_token_id))
    made = prediction.predict(model, SINGLE_LABEL, BatchLoader(split, form, accelerator), max_tokens)
    with torch.inference_mode():
        alone = torch.cat([model.eval()(input_ids=torch.tensor([row])).logits for row in rows])
    np.testing.assert_allclose(made.logits, alone.numpy(), atol=1e-6)
    assert made.row_ids.tolist() == [0, 5, 10, 15, 20, 25, 30] and made.labels is labels
    assert len({*made.logits[:, 0].tolist()}) == 7  # the rows do differ: an order could be wrong


# ---------------------------------------------------------------------------------------------------------------------
# Numbers


@pytest.mark.parametrize("scale", [1, 1000])
def test_loss_and_probabilities_equal_those_of_torch_and_scipy(scale: int) -> None:
    made = random_predictions(5, seed=0)
    made = Predictions(SINGLE_LABEL, made.row_ids, made.logits * scale, made.labels)
    expected = F.cross_entropy(torch.from_numpy(made.logits).double(), torch.from_numpy(made.labels))
    assert made.loss == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(made.probabilities, softmax(made.logits.astype(np.float64), axis=1), atol=1e-7)
    assert made.probabilities.dtype == np.float32


def test_ties_predict_the_lowest_class() -> None:
    made = Predictions(SINGLE_LABEL, np.arange(2), np.array([[1, 3, 3], [0, 0, 0]], dtype=np.float32), np.array([0, 0]))
    assert made.predicted.tolist() == [1, 0]


@pytest.mark.usefixtures("cached_here")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("classes", "occurring"), [(2, 2), (2, 1), (5, 5), (5, 3)])
def test_scores_equal_scikit_learns(classes: int, occurring: int, seed: int, loaded: dict[str, Any]) -> None:
    made = random_predictions(classes, seed, occurring)
    true, predicted = made.labels, made.predicted
    expected = {
        "loss": made.loss,
        "accuracy": sklearn_metrics.accuracy_score(true, predicted),
        "correct": int(np.sum(true == predicted)),
        "f1_macro": sklearn_metrics.f1_score(true, predicted, average="macro", zero_division=0),
        "f1_weighted": sklearn_metrics.f1_score(true, predicted, average="weighted", zero_division=0),
        "matthews_correlation": sklearn_metrics.matthews_corrcoef(true, predicted),
    }
    if classes == 2:
        expected["f1"] = sklearn_metrics.f1_score(true, predicted, zero_division=0)
    scores = metrics.scores(made, loaded)
    assert scores == pytest.approx(expected)
    assert {type(value) for value in scores.values()} == {int, float}
    assert isinstance(scores["correct"], int)


def test_a_single_wrong_row_changes_every_score(loaded: dict[str, Any]) -> None:
    made = random_predictions(3, seed=0)
    assert made.labels is not None
    labels = made.labels.copy()
    labels[7] = (labels[7] + 1) % 3
    one, other = (
        metrics.scores(Predictions(SINGLE_LABEL, made.row_ids, made.logits, y), loaded) for y in (made.labels, labels)
    )
    assert all(one[name] != other[name] for name in one)


def test_per_class_numbers_and_the_confusion_matrix_cover_absent_classes() -> None:
    logits = np.eye(4, dtype=np.float32)[[0, 0, 1, 2, 2]]
    made = Predictions(SINGLE_LABEL, np.arange(5), logits, np.array([0, 1, 1, 0, 2]))
    actual = metrics.per_class(made, ["a", "b", "c", "d"])
    assert actual["confusion_matrix"] == [[1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert actual["per_class"] == {
        "a": {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2},
        "b": {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2},
        "c": {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1},
        "d": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0},
    }


@pytest.mark.usefixtures("cached_here")
def test_a_custom_metric_is_loaded_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "wrong.py").write_text(OWN_METRIC)
    own = metrics.load([str(tmp_path / "wrong")], SINGLE_LABEL)
    made = random_predictions(3, seed=1)
    assert metrics.scores(made, own)["wrong"] == int(np.sum(made.labels != made.predicted))


OF_TWO = OWN_METRIC.replace(
    "return {",
    """if set(references) - {0, 1}:
            raise ValueError("the target has\\nmore than two classes")
        return {""",
)
NO_NUMBER = OWN_METRIC.replace("sum(", "list(")
THREE = Task(SINGLE_LABEL, ("a", "b", "c"))


@pytest.mark.usefixtures("cached_here")
@pytest.mark.parametrize(("code", "message"), [(OF_TWO, "the target has more than two classes"), (NO_NUMBER, "")])
def test_a_custom_metric_that_does_not_fit_the_task_is_rejected(tmp_path: Path, code: str, message: str) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "own.py").write_text(code)
    own = metrics.load([str(tmp_path / "own")], SINGLE_LABEL)
    with pytest.raises(Refused) as caught:
        metrics.numbers_given({"own": own[str(tmp_path / "own")]}, THREE)
    assert str(caught.value).startswith("--metrics own cannot be computed for this task (3 classes): ")
    assert message in str(caught.value) and len(str(caught.value).splitlines()) == 1
    if code is OF_TWO:
        assert metrics.numbers_given(own, Task(SINGLE_LABEL, ("a", "b"))) == ["loss", "wrong"]


@pytest.mark.usefixtures("cached_here")
@pytest.mark.parametrize(
    ("number", "message"),
    [
        (
            "accuracy",
            "--metrics own gives accuracy, as --metrics accuracy does: remove one of the two, or rename its number",
        ),
        ("loss", "--metrics own gives a number named loss, a name that the results use themselves: rename it"),
        ("step", "--metrics own gives a number named step, a name that the results use themselves: rename it"),
    ],
)
def test_a_number_that_would_overwrite_another_one_is_rejected(number: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "own.py").write_text(OWN_METRIC.replace('"wrong"', f'"{number}"'))
    loaded = metrics.load(["accuracy", str(tmp_path / "own")], SINGLE_LABEL)
    with pytest.raises(Refused) as caught:
        metrics.numbers_given(dict(zip(("accuracy", "own"), loaded.values(), strict=True)), THREE)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "task",
    [
        Task(SINGLE_LABEL, ("a", "b")), THREE, Task(MULTI_LABEL, ("a",)), Task(MULTI_LABEL, ("a", "b", "c")),
        Task(REGRESSION, ("score",)),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_synthetic_rows_give_the_known_keys_of_our_metrics(task: Task) -> None:
    ours = metrics.load(fitting(task.kind), task.kind)
    known = {"loss", *numbers(fitting(task.kind), (task.kind,))} - ({"f1"} if task == THREE else set())
    assert set(metrics.numbers_given(ours, task)) == known
    actual = metrics.scores(metrics._artificial(task), ours)
    assert all(np.isfinite(value) for value in actual.values()), actual


@pytest.mark.parametrize("name", ["acuracy", "/no/such/folder"])
def test_an_unknown_metric_is_rejected_with_a_list_of_metrics(name: str) -> None:
    with pytest.raises(Refused) as caught:
        metrics.load(["accuracy", name], SINGLE_LABEL)
    message = str(caught.value)
    there = "accuracy, f1, matthews_correlation, pearsonr, rmse, spearmanr"
    assert message.startswith(f"--metrics {name} cannot be loaded (")
    assert message.endswith(f"): use {there}, or the folder of an `evaluate` module")
    assert len(message.splitlines()) == 1


# ---------------------------------------------------------------------------------------------------------------------
# Numbers and several labels a row


@pytest.mark.usefixtures("cached_here")
def test_regression_scores_equal_those_of_scipy_and_scikit_learn() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(30, 1)).astype(np.float32), random.normal(size=30)
    made = Predictions(REGRESSION, np.arange(30), logits, labels)
    scores = metrics.scores(made, metrics.load(defaults(REGRESSION), REGRESSION))
    predicted = logits[:, 0].astype(np.float64)
    assert scores == pytest.approx(
        {
            "loss": sklearn_metrics.mean_squared_error(labels, predicted),
            "rmse": sklearn_metrics.mean_squared_error(labels, predicted) ** 0.5,
            "pearsonr": stats.pearsonr(labels, predicted).statistic,
            "spearmanr": stats.spearmanr(labels, predicted).statistic,
        }
    )
    assert made.probabilities.shape == (30, 0)
    assert metrics.per_class(made, ["score"]) == {}


@pytest.mark.usefixtures("cached_here")
def test_multi_label_scores_equal_scikit_learns() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(30, 4)).astype(np.float32), random.integers(0, 2, (30, 4)).astype(np.int8)
    made = Predictions(MULTI_LABEL, np.arange(30), logits, labels)
    predicted = (made.probabilities >= 0.5).astype(int)
    assert made.predicted.tolist() == predicted.tolist()
    scores = metrics.scores(made, metrics.load(defaults(MULTI_LABEL), MULTI_LABEL))
    expected = F.binary_cross_entropy_with_logits(torch.from_numpy(logits).double(), torch.from_numpy(labels).double())
    assert scores == pytest.approx(
        {
            "loss": expected.item(),
            "f1_micro": sklearn_metrics.f1_score(labels, predicted, average="micro"),
            "f1_macro": sklearn_metrics.f1_score(labels, predicted, average="macro"),
            "accuracy": sklearn_metrics.accuracy_score(labels, predicted),
            "correct": int((labels == predicted).all(axis=1).sum()),
        }
    )
    assert [row["support"] for row in metrics.per_class(made, list("abcd"))["per_class"].values()] == labels.sum(
        axis=0
    ).tolist()


def test_of_a_single_class_that_rows_have_or_not_the_scores_are_about_rows_that_have_it() -> None:
    labels = np.array([[1], [1], [0], [0], [0]], dtype=np.int8)
    made = Predictions(MULTI_LABEL, np.arange(5), np.array([[2.0], [-2], [2], [-2], [-2]], np.float32), labels)
    found = metrics.scores(made, metrics.load(["accuracy", "f1"], MULTI_LABEL))
    assert (found["accuracy"], found["f1_micro"], found["f1_macro"]) == (0.6, 0.5, 0.5)
    assert metrics.per_class(made, ["toxic"])["per_class"] == {
        "toxic": {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    }


def test_a_metric_that_does_not_fit_the_task_is_rejected() -> None:
    with pytest.raises(Refused, match=r"^--metrics accuracy does not fit regression: use rmse, pearsonr, spearmanr$"):
        task_settings.check(Config(evaluation=Evaluation(metrics=("accuracy",))), Task(REGRESSION, ("score",)))


@pytest.mark.usefixtures("cached_here")
@pytest.mark.parametrize("kind", [SINGLE_LABEL, MULTI_LABEL, REGRESSION], ids=str)
def test_every_metric_of_one_row_is_a_number_or_nan(kind: Kind) -> None:
    logits = np.array([[0.5]] if kind == REGRESSION else [[0.5, -0.5]], dtype=np.float32)
    one = {SINGLE_LABEL: np.array([0]), MULTI_LABEL: np.array([[1, 0]], dtype=np.int8), REGRESSION: np.array([2.0])}
    actual = metrics.scores(Predictions(kind, np.arange(1), logits, one[kind]), metrics.load(fitting(kind), kind))
    without_value = {name for name, value in actual.items() if np.isnan(value)}
    assert without_value == ({"pearsonr", "spearmanr"} if kind == REGRESSION else set())


@pytest.mark.usefixtures("cached_here")
def test_f1_is_computed_for_the_positive_class() -> None:
    logits = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], dtype=np.float32)
    made = Predictions(SINGLE_LABEL, np.arange(4), logits, np.array([0, 1, 1, 0]))
    f1 = {
        positive: metrics.scores(made, metrics.load(["f1"], SINGLE_LABEL), positive)["f1"] for positive in (0, 1, None)
    }
    assert f1[0] == pytest.approx(0.8)
    assert f1[1] == f1[None] == pytest.approx(2 / 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_outputs_end_the_run_and_their_rows_are_named(bad: float) -> None:
    logits = np.zeros((12, 2), dtype=np.float32)
    logits[[3, 7], 1] = bad
    with pytest.raises(NonFiniteOutput, match=r"not finite for 2 of 12 rows \(14, 18\): "):
        prediction._check_finite(logits, np.arange(10, 22))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_model_with_a_non_finite_weight_gives_no_predictions(bad: float, tmp_path: Path) -> None:
    trained, split = network(tmp_path), pairs(SINGLE_LABEL)
    trained.classifier.bias.data[1] = bad
    form = Form(PADDED, PackedFormat(PAD, None, 1, longest=max(LENGTHS), with_lengths=True), Padding(PAD))
    with pytest.raises(NonFiniteOutput, match=f"not finite for {len(split)} of {len(split)} rows "):
        prediction.predict(trained, SINGLE_LABEL, BatchLoader(split, form, Accelerator(cpu=True)), 128)
