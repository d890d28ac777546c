"""Reads a table of predictions, predictions.parquet or test_predictions.parquet, into arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from job.config.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Kind
from job.errors import Refused
from job.resampling import LabelledPredictions
from job.runtime.contract import PROBABILITY

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Predicted:
    """Labels and predictions for the rows of a split.

    Attributes:
        kind: the kind of task.
        names: the class names in order; empty for regression.
        index: int64[n], row numbers in the source.
        labels: int64[n] class numbers, float64[n] for regression or bool[n, C]; None without labels.
        predictions: in the form of `labels`.
        probabilities: float32[n, C]; [n, 0] for regression.
    """

    kind: Kind
    names: tuple[str, ...]
    index: np.ndarray
    labels: np.ndarray | None
    predictions: np.ndarray
    probabilities: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    @property
    def confidence(self) -> np.ndarray:
        """float32[n]: the probability of the predicted class; only for tasks with one label per row."""
        return np.take_along_axis(self.probabilities, self.predictions[:, None], axis=1)[:, 0]

    @property
    def wrong(self) -> np.ndarray:
        """bool[n]: whether the prediction differs from the label; not for regression."""
        differs = self.predictions != self.labels
        return differs.any(axis=1) if differs.ndim == 2 else differs

    def with_labels(self, predictions: np.ndarray | None = None) -> LabelledPredictions:
        """Labels and predictions for job.resampling; `predictions` replaces those of the model."""
        assert self.labels is not None
        given = self.predictions if predictions is None else predictions
        if self.kind != SINGLE_LABEL:
            return LabelledPredictions(self.labels, given)
        one_hot = np.eye(len(self.names), dtype=bool)
        return LabelledPredictions(one_hot[self.labels], one_hot[given])


def read(path: Path) -> Predicted:
    """Read a table of predictions.

    Raises:
        Refused: the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())[:120]
        raise Refused(f"{path} cannot be read: {reason}; restore it, or delete it") from None
    names = tuple(name.removeprefix(PROBABILITY) for name in table.column_names if name.startswith(PROBABILITY))
    probabilities = [table.column(PROBABILITY + name).to_numpy() for name in names]
    unlabelled = table.column("label").null_count == len(table)
    multi_label = pa.types.is_list(table.schema.field("prediction").type)
    return Predicted(
        kind=MULTI_LABEL if multi_label else SINGLE_LABEL if names else REGRESSION,
        names=names,
        index=table.column("index").to_numpy(),
        labels=None if unlabelled else _values(table.column("label"), names),
        predictions=_values(table.column("prediction"), names),
        probabilities=np.stack(probabilities, axis=1) if names else np.zeros((len(table), 0), np.float32),
    )


def _values(column: pa.ChunkedArray, names: Sequence[str]) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not names:
        return column.to_numpy()
    known = pa.array(names, pa.string())
    if not pa.types.is_list(column.type):
        return pc.index_in(column, known).to_numpy().astype(np.int64)
    table = np.zeros((len(column), len(names)), dtype=bool)
    rows = np.repeat(np.arange(len(column)), pc.list_value_length(column).to_numpy())
    table[rows, pc.index_in(pc.list_flatten(column), known).to_numpy()] = True
    return table
