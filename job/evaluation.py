"""Exact evaluation: every example is predicted once, whatever the number of processes and the batch shapes.

Each process predicts its share and the results are gathered once, every prediction with the number of its example;
they are put in order and checked, so a lost or doubled row ends the run instead of shifting a metric. Accelerate's
gather_for_metrics needs no numbers but is right only under conditions (fixed batch sizes, no subset, no early break).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from job import batches
from job.collate import Collate
from job.data import Split
from job.errors import Refused

METRICS = Path(__file__).parent / "metrics"


@dataclass(frozen=True)
class Predictions:
    """Outputs for a whole split, in its order; the same on every process.

    Attributes:
        index: int64[n], row number in the source.
        logits: float32[n, C].
        labels: int64[n].
    """

    index: np.ndarray
    logits: np.ndarray
    labels: np.ndarray

    @property
    def classes(self) -> np.ndarray:
        """int64[n], the most probable class; the lowest number of equals."""
        return self.logits.argmax(axis=1)

    @property
    def probabilities(self) -> np.ndarray:
        """float32[n, C], rows sum to one."""
        return np.exp(self._log_probabilities()).astype(np.float32)

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        return float(-self._log_probabilities()[np.arange(len(self.labels)), self.labels].mean())

    def _log_probabilities(self) -> np.ndarray:
        shifted = self.logits.astype(np.float64) - self.logits.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def predict(
    model: torch.nn.Module,
    split: Split,
    collate: Collate,
    accelerator: Accelerator,
    max_tokens: int,
) -> Predictions:
    """Logits of every example of `split`, computed by all processes together.

    Raises:
        RuntimeError: the gathered rows are not each example once (a fault of the program, never of the data).
    """
    plan = batches.plan_evaluation(split.lengths, max_tokens, accelerator.num_processes)
    mine = plan[accelerator.process_index]
    alone = accelerator.unwrap_model(model)  # DDP's forward would wait for processes that have nothing left
    alone.eval()
    with torch.inference_mode():
        outputs = [alone(**collate(indices)[0]).logits.float() for indices in mine]
    longest = max(sum(map(len, hand)) for hand in plan)
    logits = _gathered(outputs, mine, longest, alone.config.num_labels, len(split), accelerator)
    return Predictions(split.index, logits, split.labels)


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


def load_metrics(names: Sequence[str]) -> dict[str, Any]:
    """The `evaluate` modules of these names: ours by name, any other by folder or hub name.

    Raises:
        Refused: there is no such metric.
    """
    import evaluate

    loaded = {}
    for name in names:
        own = METRICS / name / f"{name}.py"
        try:
            loaded[name] = evaluate.load(str(own) if own.is_file() else name)
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
        computed = metric.compute(predictions=predictions.classes, references=predictions.labels, **options)
        found.update({name: value if isinstance(value, int) else float(value) for name, value in computed.items()})
    return found


def per_class(predictions: Predictions, names: Sequence[str]) -> dict[str, Any]:
    """Per-class precision, recall, F1 and support, and the confusion matrix (rows: label, columns: prediction)."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    numbers = range(len(names))
    table = precision_recall_fscore_support(
        predictions.labels, predictions.classes, labels=list(numbers), zero_division=0
    )
    precision, recall, f1, support = (column.tolist() for column in table)
    rows = {
        name: {"precision": precision[i], "recall": recall[i], "f1": f1[i], "support": support[i]}
        for i, name in enumerate(names)
    }
    matrix = confusion_matrix(predictions.labels, predictions.classes, labels=list(numbers))
    return {"per_class": rows, "confusion_matrix": matrix.tolist()}
