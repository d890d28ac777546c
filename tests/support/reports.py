"""Run folders for reports, of any task and size: written by the job's own functions from synthetic logits."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from job import config
from job.config.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Kind, Task
from job.report.html import recorded
from job.run.folder import RunFolder
from job.runtime import files

METRICS = {SINGLE_LABEL: ("accuracy", "f1"), MULTI_LABEL: ("accuracy", "f1"), REGRESSION: ("rmse",)}


@dataclass(frozen=True)
class Made:
    """The parameters of a synthetic run.

    Attributes:
        kind: of the task.
        names: the classes.
        rows: of the evaluation set.
        text: each row's text begins with it.
        settings: that differ from the defaults.
        restarts: steps that the run was resumed from.
        labelled: whether the predicted rows have labels; where they have not, nothing was trained.
    """

    kind: Kind = SINGLE_LABEL
    names: tuple[str, ...] = ("no", "yes")
    rows: int = 400
    text: str = "the text of row"
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    restarts: tuple[int, ...] = ()
    labelled: bool = True
    columns: tuple[str, ...] = ("text",)

    @property
    def task(self) -> Task:
        return Task(self.kind, self.names if self.kind != REGRESSION else ("score",))


def drawn(made: Made) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and logits that often agree with them: classes 0 and 1 are confused more often than any other pair."""
    rng = np.random.default_rng(0)
    classes = len(made.task.names)
    if made.kind == REGRESSION:
        numbers = rng.normal(3, 1, made.rows)
        return numbers, (numbers + rng.normal(0, 0.4, made.rows))[:, None].astype(np.float32)
    if made.kind == MULTI_LABEL:
        several = (rng.random((made.rows, classes)) < 0.3).astype(np.int8)
        return several, (3 * several - 1.5 + rng.normal(0, 1.2, several.shape)).astype(np.float32)
    labels = rng.integers(0, classes, made.rows)
    logits = rng.normal(0, 1, (made.rows, classes))
    logits[np.arange(made.rows), labels] += 4
    logits[(labels == 0) & (rng.random(made.rows) < 0.3), 1] += 5
    return labels, logits.astype(np.float32)


def begun(path: Path, made: Made, *, state: str = "RUNNING", steps: int = 90) -> RunFolder:
    """The folder of a run that has trained for `steps` of 100 steps, and recorded every third."""
    path.mkdir(parents=True)
    folder = RunFolder(path)
    settings = config.from_dict({"train_file": "train.csv", "validation_file": "eval.csv", **made.settings})
    folder.config.write_text(config.to_yaml(settings), encoding="utf-8")
    manifest = {
        "started": "2026-01-02T03:04:05+00:00",
        "ended": None,
        "host": "box",
        "device": "cpu",
        "seed": 42,
        "world_size": 1,
        "restarts": len(made.restarts),
        "restart_steps": made.restarts,
        "packages": {"torch": "2.13.0"},
        "command": ["train.py", "--seed", "42"],
        "git": {"commit": "0" * 40, "dirty": True},
        "seconds": {"data": 2.5, "model": 1.0, "evaluation": 4.0},
    }
    files.write_json(folder.manifest, manifest)
    files.write_json(folder.status, {"state": state, "step": steps, "steps": 100, "reason": "", "owner": "box:1"})
    write_records(folder, records(made, steps))
    recorded.write_data(folder, cast(Any, data(made)))
    return folder


def records(made: Made, steps: int) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl: training every third step, evaluations every thirtieth."""
    records: list[dict[str, Any]] = []
    for step in range(3, steps + 1, 3):
        epoch, loss = step / 50, 2.0 / step**0.5
        rates = {
            "learning_rate": 1e-4 * (1 - step / 101),
            "grad_norm": 1 + loss,
            "examples_per_second": 50.0 + step % 7,
        }
        records.append({"step": step, "epoch": epoch, "split": "train", "loss": loss, **rates})
        if step % 30 == 0:
            scores = {"rmse": loss} if made.kind == REGRESSION else {"accuracy": 1 - loss / 3, "f1_micro": 1 - loss / 3}
            records.append({"step": step, "epoch": epoch, "split": "eval", "loss": loss, **scores, "best": step <= 60})
    return records


def write_records(folder: RunFolder, records: Sequence[Mapping[str, Any]]) -> None:
    folder.metrics.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def finished(path: Path, made: Made) -> RunFolder:
    """The folder of a run that has ended, without its model."""
    from job.evaluation.prediction import Predictions
    from job.report import summary

    folder = begun(path, made, state="DONE", steps=100) if made.labelled else _predicting(path, made)
    labels, logits = drawn(made)
    index = np.arange(made.rows) + 7  # not the place in the split
    predictions = Predictions(made.kind, index, logits, labels if made.labelled else None)
    table = folder.predictions if made.labelled else folder.test_predictions
    files.publish(table, functools.partial(summary.write_predictions, predictions, made.task.names))
    recorded.write_rows(folder, cast(Any, data(made)))
    files.write_json(folder.results, files.finite(_results(made, predictions)))
    return folder


def _predicting(path: Path, made: Made) -> RunFolder:
    """What `job/predict.py` leaves: no record of training."""
    settings = {
        "do_train": False,
        "do_eval": False,
        "train_file": None,
        "validation_file": None,
        "test_file": "new.csv",
    }
    folder = begun(path, dataclasses.replace(made, settings={**settings, **made.settings}), state="DONE", steps=0)
    folder.metrics.unlink()
    return folder


def _results(made: Made, predictions: Any) -> dict[str, Any]:
    from job.evaluation import metrics
    from job.report import summary

    if not made.labelled:
        return {"best_step": 0, "test": {"examples": made.rows}, "train": None}
    scores = metrics.scores(predictions, metrics.load(METRICS[made.kind], made.kind))
    train = {
        "steps": 100,
        "examples": 3200,
        "seconds": 60.0,
        "examples_per_second": 53.3,
        "checkpoint_stall_seconds": 1.5,
    }
    return {"best_step": 60, "eval": summary.scored(predictions, scores, made.task.names), "train": train}


def data(made: Made) -> Any:
    """The data of a run: the text of a row says its number in the source."""
    import pyarrow as pa

    from job.data import statistics
    from job.data.dataset import Data, Split

    rng = np.random.default_rng(1)
    lengths = rng.integers(4, 61, made.rows).astype(np.int32)
    column = pa.chunked_array([[f"{made.text} {number}" for number in range(made.rows + 7)]])
    texts = tuple(column for _ in made.columns)
    labels = drawn(made)[0] if made.labelled else None
    index = (np.arange(made.rows) + 7).astype(np.int32)
    split = Split(cast(Any, None), lengths, labels, index, truncated=lengths == 60, texts=texts)
    part = statistics.Part(texts, lengths, lengths == 60, labels, index)
    parts = {"train": part, "validation": part} if made.labelled else {"test": part}
    description = {**statistics.describe(parts, made.task.names, 60), "notes": []}
    return Data(
        train=split if made.labelled else None,
        evaluation=split if made.labelled else None,
        test=None if made.labelled else split,
        task=made.task,
        text_columns=made.columns,
        label_column="label" if made.labelled else None,
        cut=False,
        remarks=(),
        fingerprint="f" * 32,
        description=description,
    )
