"""Exact evaluation: every example is predicted once, whatever the number of processes and the batch shapes.

Each process predicts its share and the results are gathered once, every prediction with the number of its example;
they are put in order and checked, so a lost or doubled row ends the run instead of shifting a metric. Accelerate's
gather_for_metrics needs no numbers but is right only under conditions (fixed batch sizes, no subset, no early break).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from job import checks
from job.batching import planner
from job.batching.collate import Collate, moved, pinned
from job.batching.prefetch import one_ahead
from job.data.dataset import Split
from job.data.labels import CLASSES, REGRESSION, SEVERAL, Kind
from job.errors import Refused

METRICS = Path(__file__).parents[1] / "metrics"
FITTING: dict[Kind, tuple[str, ...]] = {
    CLASSES: ("accuracy", "f1", "matthews_correlation"),
    SEVERAL: ("f1", "accuracy"),
    REGRESSION: ("rmse", "pearsonr", "spearmanr"),
}
DEFAULT: dict[Kind, tuple[str, ...]] = {**FITTING, CLASSES: ("accuracy", "f1")}


@dataclass(frozen=True)
class Predictions:
    """Outputs for a whole split, in its order; the same on every process.

    Attributes:
        kind: of the task.
        index: int64[n], row number in the source.
        logits: float32[n, C]; float32[n, 1] for regression.
        labels: int64[n] classes, float64[n] numbers or int8[n, C]; None where there are none.
    """

    kind: Kind
    index: np.ndarray
    logits: np.ndarray
    labels: np.ndarray | None

    @property
    def answers(self) -> np.ndarray:
        """What is predicted, in the form of `labels`: the most probable class (the lowest of equals), the number, or
        every class of probability 0.5 or more."""
        if self.kind == REGRESSION:
            return self.logits[:, 0].astype(np.float64)
        if self.kind == SEVERAL:
            return (self.logits >= 0).astype(np.int8)
        return self.logits.argmax(axis=1)

    @property
    def probabilities(self) -> np.ndarray:
        """float32[n, C]; rows sum to one for classes, each stands alone for several labels; [n, 0] for regression."""
        if self.kind == REGRESSION:
            return np.empty((len(self.logits), 0), dtype=np.float32)
        if self.kind == SEVERAL:
            return np.exp(_log_sigmoid(self.logits)).astype(np.float32)
        return np.exp(_log_softmax(self.logits)).astype(np.float32)

    @property
    def loss(self) -> float:
        """Mean over the examples: cross-entropy in nats, squared error, or binary cross-entropy, mean over classes."""
        assert self.labels is not None
        if self.kind == REGRESSION:
            return float(((self.answers - self.labels) ** 2).mean())
        if self.kind == SEVERAL:
            return float(-np.where(self.labels == 1, _log_sigmoid(self.logits), _log_sigmoid(-self.logits)).mean())
        return float(-_log_softmax(self.logits)[np.arange(len(self.labels)), self.labels].mean())


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _log_sigmoid(logits: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0, -logits.astype(np.float64))


def predict(
    model: torch.nn.Module,
    kind: Kind,
    split: Split,
    collate: Collate,
    accelerator: Accelerator,
    max_tokens: int,
    multiple: int = 0,
    between: Callable[[], object] = lambda: None,
) -> Predictions:
    """Logits of every example of `split`, computed by all processes together.

    `multiple` is that of the tokens of packed micro-batches, 0 for padded ones.

    `between` is called before each micro-batch, by every process the same number of times: what it raises ends the
    evaluation everywhere.

    Raises:
        RuntimeError: the gathered rows are not each example once (a fault of the program, never of the data).
    """
    plan = planner.plan_evaluation(split.computed, max_tokens, accelerator.num_processes, multiple)
    mine = plan[accelerator.process_index]
    alone = accelerator.unwrap_model(model)  # DDP's forward would wait for processes that have nothing left
    alone.eval()
    device, outputs = accelerator.device, []
    with one_ahead(pinned(collate(indices), device) for indices in mine) as ready:
        for turn in range(max(map(len, plan))):
            between()
            if turn < len(mine):
                with torch.inference_mode():
                    outputs.append(alone(**moved(next(ready), device)[0]).logits.float())
    longest = max(sum(map(len, hand)) for hand in plan)
    logits = _gathered(outputs, mine, longest, alone.config.num_labels, len(split), accelerator)
    return Predictions(kind, split.index, logits, split.labels)


def _gathered(
    outputs: Sequence[torch.Tensor],
    indices: Sequence[np.ndarray],
    longest: int,
    classes: int,
    examples: int,
    accelerator: Accelerator,
) -> np.ndarray:
    """The logits of all processes in the order of the split; each process contributes `longest` rows, -1 for none."""
    index = torch.full((longest,), -1, dtype=torch.int64, device=accelerator.device)
    logits = torch.zeros((longest, classes), device=accelerator.device)
    if outputs:
        mine = torch.from_numpy(np.concatenate(indices)).to(accelerator.device)
        index[: len(mine)] = mine
        logits[: len(mine)] = torch.cat(list(outputs))
    return in_order(accelerator.gather(index).cpu().numpy(), accelerator.gather(logits).cpu().numpy(), examples)


def in_order(index: np.ndarray, rows: np.ndarray, examples: int) -> np.ndarray:
    """`rows` sorted by `index` (-1: padding), checked to be each of 0..examples-1 once.

    Raises:
        RuntimeError: an example is missing or there twice.
    """
    real = index >= 0
    if not np.array_equal(np.bincount(index[real], minlength=examples), np.ones(examples, dtype=np.int64)):
        raise RuntimeError("evaluation did not return each example once")
    ordered = np.empty((examples, *rows.shape[1:]), dtype=rows.dtype)
    ordered[index[real]] = rows[real]
    return ordered


# ---------------------------------------------------------------------------------------------------------------------
# Numbers


def metrics_for(asked: Sequence[str], kind: Kind) -> tuple[str, ...]:
    """Names of the metrics to compute: as asked, else those usual for the task.

    Raises:
        Refused: one of ours that does not fit the task.
    """
    for name in asked:
        if name in checks.METRICS and name not in FITTING[kind]:
            raise Refused(f"--metrics {name} does not fit {kind.replace('_', ' ')}: take {', '.join(FITTING[kind])}")
    return tuple(asked) or DEFAULT[kind]


def load_metrics(names: Sequence[str], kind: Kind) -> dict[str, Any]:
    """The `evaluate` modules of these names: ours by name, any other by folder or hub name.

    Raises:
        Refused: there is no such metric.
    """
    import evaluate

    configuration = "multilabel" if kind == SEVERAL else None
    loaded = {}
    for name in names:
        own = METRICS / name / f"{name}.py"
        try:
            loaded[name] = evaluate.load(str(own) if own.is_file() else name, configuration)
        except Exception as error:
            there = ", ".join(sorted(path.name for path in METRICS.iterdir() if (path / f"{path.name}.py").is_file()))
            raise Refused(f"no metric {name}: there are {there}, or the folder of an `evaluate` module "
                          f"({' '.join(str(error).split())[:120]})") from error  # fmt: skip
    return loaded


def scores(predictions: Predictions, metrics: Mapping[str, Any]) -> dict[str, float]:
    """The loss and every number that the metrics give; whole numbers stay whole."""
    found: dict[str, float] = {"loss": predictions.loss}
    for metric in metrics.values():
        knows_classes = "labels" in inspect.signature(metric._compute).parameters
        options = {"labels": list(range(predictions.logits.shape[1]))} if knows_classes else {}
        computed = metric.compute(predictions=predictions.answers, references=predictions.labels, **options)
        found.update({name: value if isinstance(value, int) else float(value) for name, value in computed.items()})
    return found


def per_class(predictions: Predictions, names: Sequence[str]) -> dict[str, Any]:
    """Per-class precision, recall, F1 and support; for single labels the confusion matrix (rows: label, columns:
    prediction). Nothing for regression."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    if predictions.kind == REGRESSION:
        return {}
    numbers = list(range(len(names)))
    table = precision_recall_fscore_support(predictions.labels, predictions.answers, labels=numbers, zero_division=0)
    precision, recall, f1, support = (column.tolist() for column in table)
    rows = {
        name: {"precision": precision[i], "recall": recall[i], "f1": f1[i], "support": support[i]}
        for i, name in enumerate(names)
    }
    if predictions.kind == SEVERAL:
        return {"per_class": rows}
    matrix = confusion_matrix(predictions.labels, predictions.answers, labels=numbers)
    return {"per_class": rows, "confusion_matrix": matrix.tolist()}
