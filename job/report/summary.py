"""Output of a run: the log at its start and end, and its files: results, predictions, model, report."""

from __future__ import annotations

import functools
import json
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from job.config import Config, task_settings
from job.config.tasks import Task
from job.data import statistics
from job.data.dataset import Data
from job.evaluation import metrics
from job.evaluation.prediction import Predictions
from job.model import loading
from job.report import card, output_file
from job.report.html import recorded, writing
from job.run import checkpoints, latest, lock, manifest
from job.run import folder as run_folder
from job.run.context import RunContext
from job.run.folder import RunFolder
from job.run.status import Status
from job.runtime import files
from job.runtime.console import log
from job.runtime.contract import PROBABILITY
from job.training.outcome import Outcome

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def begin(context: RunContext, data: Data, of_model: Task | None, resumed: Path | None) -> None:
    """Log what will be run and from which checkpoint, and write the manifest."""
    config, accelerator, folder = context.config, context.accelerator, context.folder
    if not accelerator.is_main_process:
        return
    world, device = accelerator.num_processes, device_name(accelerator.device)
    before = json.loads(folder.manifest.read_text(encoding="utf-8")) if folder.manifest.is_file() else {}
    made = manifest.new(
        seed=config.training.seed,
        world_size=world,
        device=device,
        fingerprint=data.fingerprint,
        before=before,
        resumed_step=None if resumed is None else checkpoints.step_of(resumed),
    )
    files.write_json(folder.manifest, made)
    recorded.write_data(folder, data)
    if config.training.do_train:  # runs/latest/model should always exist
        latest.point_to(folder.path)
    world_text = f"{world} process{'es' if world > 1 else ''}"
    shown = [
        f"run      {run_folder.shown(folder.path)}",
        f"model    {config.model.model_name_or_path}{_other_task(of_model, data.task)}",
        f"data     {_what(data)}",
        *(f"         {line}" for line in statistics.lines(data.description)),
        *(_positive(config, data.task) if data.label_column is not None else []),
        f"on       {world_text} on {device}, precision {accelerator.mixed_precision}",
        *([f"resumes  {resumed.name}{_other_world(before, world)}"] if resumed else []),
    ]
    log.info("\n".join(shown))


def _positive(config: Config, task: Task) -> list[str]:
    """The positive class, if the metric f1 of two classes is computed."""
    positive = task_settings.positive_class(config, task)
    return [] if positive is None else [f"f1       of class {task.names[positive]} (--positive_label)"]


def _other_world(before: Mapping[str, Any], world: int) -> str:
    """Notice that the run resumes with another number of processes than it had."""
    was = before.get("world_size", world)
    return "" if was == world else f", made by {was} processes: the same examples, other dropout draws"


def _other_task(of_model: Task | None, task: Task) -> str:
    """Notice for a model that was fine-tuned for something else than the data asks for."""
    if of_model is None or of_model == task:
        return ""
    few = ", ".join(of_model.names[:4])
    was = f"{len(of_model.names)} classes ({few})" if of_model.kind.has_classes else "a number"
    return f"; it was fine-tuned for {was}, not for these labels"


def _what(data: Data) -> str:
    """Which columns are read as what, and where the evaluation set comes from."""
    text = " + ".join(data.text_columns)
    by_class = ", by class" if data.task.kind.one_label else ""
    cut = f"; no validation data given: a tenth of the training rows is cut off{by_class}" if data.cut else ""
    remarks = "".join(f"; {remark}" for remark in data.remarks)
    label = "no label" if data.label_column is None else f"label: {data.label_column}"
    return f"text: {text}, {label}, {data.task}{cut}{remarks}"


def device_name(device: torch.device) -> str:
    """The GPU's name, or the kind of device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def publish(
    config: Config, outcome: Outcome, tokenizer: PreTrainedTokenizerBase, data: Data, folder: RunFolder
) -> dict[str, Any]:
    """Write predictions, model and results.json, then the report; log the summary. Returns what results.json holds."""
    names, begun = data.task.names, time.monotonic()
    results = files.finite(
        {
            "best_step": outcome.best_step,
            **({"eval": scored(*outcome.evaluated, names)} if outcome.evaluated else {}),
            **({"test": scored(*outcome.test, names)} if outcome.test else {}),
            "train": outcome.train,
            "data": data.description,
        }
    )
    for predicted, path in ((outcome.evaluated, folder.predictions), (outcome.test, folder.test_predictions)):
        if predicted:
            files.publish(path, functools.partial(write_predictions, predicted[0], names))
    recorded.write_rows(folder, data)
    if config.run.output_file and data.test_inputs is not None:
        output_file.write(Path(config.run.output_file), data.test_inputs, folder.test_predictions, config.run.top_k)
    if outcome.train is not None:
        text = card.model_card(config, results, data)
        files.publish(folder.model, lambda aside: _write_model(outcome.model, tokenizer, text, aside))
    if outcome.adapter is not None:
        files.publish(folder.adapter, outcome.adapter.save)
    manifest.add_seconds(folder, "results", time.monotonic() - begun)
    manifest.amend(folder, ended=files.utc_now())
    files.write_json(folder.results, results)
    _finish(config, folder)
    log.info(summary(results, folder, config.run.output_file))
    return results


def complete(config: Config, folder: RunFolder) -> None:
    """Do what is left of a run that was killed, or failed, when results.json was already written."""
    if lock.read_status(folder.path).get("state") != "DONE":
        _finish(config, folder)
        Status.of_finished(folder).write("DONE")


def _finish(config: Config, folder: RunFolder) -> None:
    """Remove what a finished run does not need, and write its report."""
    if config.run.save_total_limit is None:
        checkpoints.discard(folder.checkpoints)
    writing.write_at_end(folder)


def scored(predictions: Predictions, scores: Mapping[str, float], names: Sequence[str]) -> dict[str, Any]:
    """The entry of a split in results.json: its scores, number of examples, and scores of each class."""
    per_class = {} if predictions.labels is None else metrics.per_class(predictions, names)
    return {**scores, "examples": len(predictions.row_ids), **per_class}


def _write_model(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, folder: Path) -> None:
    loading.save(network, tokenizer, folder)
    (folder / "README.md").write_text(text, encoding="utf-8")


def write_predictions(predictions: Predictions, names: Sequence[str], path: Path) -> None:
    """Write predictions as parquet: one row per example, in the order of the split.

    Columns: index int64 (row in the source), label (null if unknown) and prediction (a name, a float64, or a list of
    names), and probability_<name> float32 for each class (none for regression).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    none = pa.nulls(len(predictions.row_ids), _column(predictions.predicted, names).type)
    probabilities = predictions.probabilities
    columns = {
        "index": pa.array(predictions.row_ids, pa.int64()),
        "label": none if predictions.labels is None else _column(predictions.labels, names),
        "prediction": _column(predictions.predicted, names),
    }
    for i, name in enumerate(names if probabilities.shape[1] else ()):
        columns[f"{PROBABILITY}{name}"] = pa.array(probabilities[:, i], pa.float32())
    pq.write_table(pa.table(columns), path)


def _column(values: np.ndarray, names: Sequence[str]) -> Any:
    """Labels or predictions as a pyarrow array of class names or numbers."""
    import pyarrow as pa

    table = np.array(names, dtype=object)
    if values.ndim == 2:
        return pa.array([table[row.astype(bool)].tolist() for row in values], pa.list_(pa.string()))
    return pa.array(values, pa.float64()) if values.dtype.kind == "f" else pa.array(table[values], pa.string())


def summary(results: Mapping[str, Any], folder: RunFolder, written: str | None = None) -> str:
    """The last lines of a run: scores, paths of the outputs, and commands to try next; `written`: --output_file."""
    shown = run_folder.shown(folder.path)
    lines = [""]
    for split, what in {"eval": "evaluated", "test": "tested"}.items():
        if split in results:
            lines += _score_lines(what, results[split])
    if results["train"]:
        train = results["train"]
        lines += [f"trained {train['steps']} steps in {train['seconds']:.0f} s, "
                  f"{train['examples_per_second']:.1f} examples/s; best at step {results['best_step']}"]  # fmt: skip
        lines += [f"model    {shown}/model"]
        lines += [f"adapter  {shown}/adapter, merged into the model"] if folder.adapter.exists() else []
    paths = (folder.results, folder.predictions, folder.test_predictions, folder.report)
    files = [path.name for path in paths if path.exists()]
    lines += [f"results  {shown}/{', '.join(files)}"]
    lines += [f"output   {run_folder.shown(Path(written))}"] if written else []
    if results["train"]:
        launch = f"  {_accelerate()} launch job"
        lines += ["", "next, with other data:"]
        lines += [f"{launch}/train.py --train_file train.csv --validation_file validation.csv"]
        lines += [f"{launch}/predict.py --model_name_or_path {shlex.quote(shown)}/model --test_file new.csv"]
    return "\n".join(lines)


def _score_lines(what: str, of_split: Mapping[str, Any]) -> list[str]:
    scores = {k: v for k, v in of_split.items() if isinstance(v, float)}
    width = max(map(len, scores), default=0)
    head = f"{what} on" if scores else "predicted"
    return [f"{head} {of_split['examples']:,} examples", *(f"  {k:{width}}  {v:.4f}" for k, v in scores.items())]


def _accelerate() -> str:
    """The command for `accelerate`: its name if that finds the one of this Python, else its path."""
    own = Path(sys.executable).parent / "accelerate"
    on_path = shutil.which("accelerate")
    return "accelerate" if (on_path and Path(on_path) == own) or not own.exists() else run_folder.shown(own)
