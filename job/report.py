"""What a finished run tells people: the summary on the terminal, the model card, the table of predictions."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator

from job import evaluation, model, run_folder
from job.config import Config
from job.data import Data
from job.evaluation import Predictions
from job.finetune import Outcome
from job.run_folder import RunFolder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LISTED_CLASSES = 30


def begin(config: Config, data: Data, max_length: int, accelerator: Accelerator, folder: RunFolder) -> None:
    """Say what will be run, and write the manifest."""
    if not accelerator.is_main_process:
        return
    world, device = accelerator.num_processes, device_name(accelerator.device)
    manifest = run_folder.manifest(
        seed=config.training.seed, world_size=world, device=device, fingerprint=data.fingerprint
    )
    run_folder.write_json(folder.manifest, manifest)
    if config.run.output_dir is None:
        run_folder.point_latest(folder)
    train = f"{len(data.train):,} training and " if data.train is not None else ""
    text = " + ".join(data.text_columns)
    print(
        f"run      {_shown(folder.path)}\n"
        f"model    {config.model.model_name_or_path}\n"
        f"data     {train}{len(data.evaluation):,} evaluation examples, {len(data.class_names)} classes; "
        f"text: {text}, label: {data.label_column}, at most {max_length} tokens\n"
        f"on       {world} process{'es' if world > 1 else ''} on {device}, precision {accelerator.mixed_precision}",
        file=sys.stderr,
        flush=True,
    )


def device_name(device: torch.device) -> str:
    """The GPU's name, or the kind of device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def publish(
    config: Config,
    outcome: Outcome,
    tokenizer: PreTrainedTokenizerBase,
    names: Sequence[str],
    folder: RunFolder,
) -> dict[str, Any]:
    """Write predictions, model and, last, results.json; say how it went. Returns what results.json holds."""
    results = {
        "best_step": outcome.best_step,
        "eval": {
            **outcome.scores,
            "examples": len(outcome.predictions.labels),
            **evaluation.per_class(outcome.predictions, names),
        },
        "train": outcome.train,
    }
    run_folder.publish(folder.predictions, lambda aside: write_predictions(outcome.predictions, names, aside))
    if outcome.train is not None:
        card = model_card(config, results, names, config.model.model_name_or_path)
        run_folder.publish(folder.model, lambda aside: _write_model(outcome.model, tokenizer, card, aside))
    manifest = json.loads(folder.manifest.read_text(encoding="utf-8"))
    run_folder.write_json(folder.manifest, {**manifest, "ended": run_folder.now()})
    run_folder.remove(folder.best)
    run_folder.write_json(folder.results, results)
    print(summary(results, folder.path, trained=outcome.train is not None), file=sys.stderr, flush=True)
    return results


def _write_model(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, card: str, folder: Path) -> None:
    model.save(network, tokenizer, folder)
    (folder / "README.md").write_text(card, encoding="utf-8")


def write_predictions(predictions: Predictions, names: Sequence[str], path: Path) -> None:
    """A parquet row an example, in the order of the evaluation set.

    Columns: index int64 (row in the source), label and prediction (names), probability_<name> float32 of each class.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = np.array(names, dtype=object)
    probabilities = predictions.probabilities
    columns = {
        "index": pa.array(predictions.index, pa.int64()),
        "label": pa.array(table[predictions.labels], pa.string()),
        "prediction": pa.array(table[predictions.classes], pa.string()),
    }
    columns |= {f"probability_{name}": pa.array(probabilities[:, i], pa.float32()) for i, name in enumerate(names)}
    pq.write_table(pa.table(columns), path)


def summary(results: Mapping[str, Any], path: Path, trained: bool) -> str:
    """The last lines of a run: how good, where the model is, what to type next."""
    scores = {k: v for k, v in results["eval"].items() if isinstance(v, float)}
    width = max(map(len, scores))
    lines = ["", f"evaluated on {results['eval']['examples']} examples"]
    lines += [f"  {name:{width}}  {value:.4f}" for name, value in scores.items()]
    shown = _shown(path)
    if trained:
        train = results["train"]
        lines += [f"trained {train['steps']} steps in {train['seconds']:.0f} s, "
                  f"{train['examples_per_second']:.1f} examples/s; best at step {results['best_step']}"]  # fmt: skip
        lines += [f"model    {shown}/model"]
    lines += [f"results  {shown}/results.json, predictions.parquet", "", "next, your own data:"]
    lines += [f"  {_accelerate()} launch job/train.py --train_file train.csv --validation_file validation.csv"]
    return "\n".join(lines)


def _shown(path: Path) -> str:
    """`path` as short as it can be typed from here."""
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)


def _accelerate() -> str:
    """How `accelerate` can be called here: by its name if that is the one of this Python."""
    own = Path(sys.executable).parent / "accelerate"
    found = shutil.which("accelerate")
    return "accelerate" if (found and Path(found) == own) or not own.exists() else _shown(own)


def model_card(config: Config, results: Mapping[str, Any], names: Sequence[str], base: str) -> str:
    """README.md of the model folder: what it was made from and how good it is, with the hub's metadata header."""
    data = config.data
    source = data.dataset_name or Path(str(data.train_file)).name
    header = {"library_name": "transformers", "pipeline_tag": "text-classification", "base_model": base,
              "metrics": list(config.evaluation.metrics)}  # fmt: skip
    if data.dataset_name and not Path(data.dataset_name).exists():
        header["datasets"] = [data.dataset_name]
    yaml_lines = [f"{key}: {json.dumps(value)}" for key, value in header.items()]
    scores = {k: v for k, v in results["eval"].items() if isinstance(v, float)}
    shown = ", ".join(names[:LISTED_CLASSES]) + (", ..." if len(names) > LISTED_CLASSES else "")
    training = config.training
    return "\n".join(
        [
            "---",
            *yaml_lines,
            "---",
            "",
            f"# {Path(base).name} fine-tuned on {source}",
            "",
            f"Text classification, {len(names)} classes: {shown}.",
            "",
            "```python",
            "from transformers import pipeline",
            "",
            'classify = pipeline("text-classification", model="path/to/this/folder")',
            "```",
            "",
            f"## Evaluation ({results['eval']['examples']} examples)",
            "",
            "| metric | value |",
            "|---|---|",
            *(f"| {name} | {value:.4f} |" for name, value in scores.items()),
            "",
            "## Training",
            "",
            "| setting | value |",
            "|---|---|",
            f"| global batch | {training.train_batch_size} |",
            f"| learning rate | {training.learning_rate} ({training.lr_scheduler_type}) |",
            f"| optimizer steps | {results['train']['steps']}, best at {results['best_step']} |",
            f"| seed | {training.seed} |",
            "",
            "All settings stand in `config.yaml` of the run.",
            "",
        ]
    )
