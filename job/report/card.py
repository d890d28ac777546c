"""The model card: README.md of the model folder, which begins with metadata for the hub.

Unknown values are omitted. Local paths are never written, because the card may be published.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job.config import Config, task_settings
from job.config.metrics import METRICS
from job.config.settings import BUILT_IN_DATASET
from job.data import hub
from job.data.dataset import Data
from job.model import loading, lora
from job.run.folder import RunFolder

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

LISTED_CLASSES = 30
LONGEST_NAME = 60
MODEL_HERE = "path/to/this/folder"
"""Placeholder in the card; an upload replaces it with the name of the repository."""
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w.-]+")
NOT_A_LICENSE = ("other", "unknown")
"""Values for a license without an identifier."""
LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
LANGUAGE = re.compile(r"[a-z]{2,3}|multilingual|code")
"""What the hub takes for a license or a language: a card with anything else cannot be uploaded."""
SPLITS = {"eval": "validation", "test": "test"}
"""Key in results.json -> usual name of the split."""


def model_card(config: Config, results: Mapping[str, Any], data: Data) -> str:
    """The text of the card, from the content of results.json.

    Raises:
        ValueError: huggingface_hub rejects the metadata.
    """
    from huggingface_hub import ModelCard

    title = f"{_base_name(config)} fine-tuned on {_data_name(config)}"
    header = _metadata(config, results, data, title).to_yaml()
    card = f"---\n{header}\n---\n\n# {title}\n\n" + "\n".join(_body(config, results, data))
    ModelCard(card)  # validates the metadata
    return card


# ---------------------------------------------------------------------------------------------------------------------
# Metadata


def _metadata(config: Config, results: Mapping[str, Any], data: Data, title: str) -> ModelCardData:
    from huggingface_hub import ModelCardData

    return ModelCardData(
        base_model=_base_model(config),
        datasets=[str(config.data.dataset_name)] if _is_hub_data(config) else None,
        language=_languages(config),
        library_name="transformers",
        license=_license(config),
        metrics=[_shown_metric(name) for name in task_settings.computed_metrics(config, data.task)],
        model_name=title,
        pipeline_tag="text-classification",
        tags=["muster"],
        eval_results=list(_eval_results(config, results, data)),
    )


def _eval_results(config: Config, results: Mapping[str, Any], data: Data) -> Iterator[EvalResult]:
    """All metrics of all scored splits. The type of data that is not on the hub is `unknown`, as is usual."""
    from huggingface_hub import EvalResult

    on_hub, name = _is_hub_data(config), str(config.data.dataset_name)
    for split, usual in SPLITS.items():
        for number, value in _scores(results, split).items():
            owner = next((m for m in METRICS.values() if any(number in given for given in m.numbers.values())), None)
            average = number.removeprefix("f1_") if number.startswith("f1_") else None
            yield EvalResult(
                task_type="text-classification",
                task_name="Text Classification",
                dataset_type=name if on_hub else "unknown",
                dataset_name=_data_name(config, split),
                dataset_config=config.data.dataset_config_name if on_hub else None,
                dataset_split=_split_name(config, data, split) if on_hub else usual,
                dataset_revision=hub.commit(name, config.data.dataset_revision, "dataset") if on_hub else None,
                metric_type=owner.name if owner else number,
                metric_value=value,
                metric_name=number,
                metric_args={"average": average} if average else None,
            )


def _scores(results: Mapping[str, Any], split: str) -> dict[str, float]:
    return {name: value for name, value in results.get(split, {}).items() if isinstance(value, float)}


def _split_name(config: Config, data: Data, split: str) -> str | None:
    """The configured name of the split; None if it was found by its usual name."""
    if split == "test":
        return config.data.test_split_name
    return config.data.train_split_name if data.cut else config.data.validation_split_name


def _shown_metric(name: str) -> str:
    return Path(name).name if Path(name).exists() else name


def _base_model(config: Config) -> str | None:
    """The base model on the hub; for a local folder, the base model in that folder's card."""
    name = config.model.model_name_or_path
    if not Path(name).is_dir():
        return name
    base_model = _base_card(config).get("base_model")
    return base_model if isinstance(base_model, str) and HUB_ID.fullmatch(base_model) else None


def _license(config: Config) -> str | None:
    """The license of the base model, which Transformers' Trainer writes too."""
    license = _base_card(config).get("license")
    name = license.lower() if isinstance(license, str) else ""
    return name if LICENSE.fullmatch(name) and name not in NOT_A_LICENSE else None


def _languages(config: Config) -> list[str] | None:
    """The languages of the dataset. YAML reads the code of Norwegian, `no`, as false."""
    named = _data_card(config).get("language")
    codes = ["no" if code is False else code for code in (named if isinstance(named, list) else [named])]
    return [code for code in codes if isinstance(code, str) and LANGUAGE.fullmatch(code)] or None


def _base_card(config: Config) -> Mapping[str, Any]:
    model = config.model
    return _card_of(loading.locate(model.model_name_or_path, model.model_revision), model.model_revision, "model")


def _data_card(config: Config) -> Mapping[str, Any]:
    name = config.data.dataset_name
    return {} if name is None or name == BUILT_IN_DATASET else _card_of(name, config.data.dataset_revision, "dataset")


def _card_of(name: str, revision: str | None, kind: hub.Kind) -> Mapping[str, Any]:
    """The metadata in the card of a folder or repository; {} if there is none or it cannot be read."""
    from huggingface_hub import metadata_load

    if not Path(name).is_dir():
        return hub.card(name, revision, kind)
    try:
        return metadata_load(Path(name, "README.md")) or {}
    except Exception:  # noqa: BLE001  the README may have any content
        return {}


def _is_hub_data(config: Config) -> bool:
    name = config.data.dataset_name
    return name is not None and name != BUILT_IN_DATASET and not Path(name).exists()


def _base_name(config: Config) -> str:
    """The last part of the model's name; for the model of a run, whose folder is always called `model`, the run's name.

    Other parent folders are not used: one may be the user's home folder, whose name is private.
    """
    path = Path(config.model.model_name_or_path)
    is_run_model = path.name == "model" and RunFolder(path.parent).is_finished()
    return path.parent.name if is_run_model else path.name


def _data_name(config: Config, split: str = "train") -> str:
    """A name for the data: that of the dataset, or of the file without its folder."""
    data = config.data
    if data.dataset_name is not None:
        name = data.dataset_name if _is_hub_data(config) else Path(data.dataset_name).name
        return f"{name} {data.dataset_config_name}" if data.dataset_config_name else name
    files = {"train": data.train_file, "eval": data.validation_file or data.train_file, "test": data.test_file}
    return Path(str(files[split])).name


# ---------------------------------------------------------------------------------------------------------------------
# Text


def _body(config: Config, results: Mapping[str, Any], data: Data) -> Iterator[str]:
    task, training = data.task, config.training
    yield f"Text classification, {task}: {_classes(task.names)}." if task.kind.has_classes else "Text regression."
    yield from ("", "```python", "from transformers import pipeline", "")
    yield f'classify = pipeline("text-classification", model="{MODEL_HERE}", truncation=True)'
    yield from ("```", "")
    for split, heading in {"eval": "Evaluation", "test": "Test"}.items():
        if scores := _scores(results, split):
            cut = ", a tenth of the training data" if split == "eval" and data.cut else ""
            yield f"## {heading} ({results[split]['examples']:,} examples{cut})"
            yield from _table("metric", {name: f"{value:.4f}" for name, value in scores.items()})
    yield "## Training"
    yield from _table(
        "setting",
        {
            "global batch": training.train_batch_size,
            "learning rate": f"{training.learning_rate} ({training.lr_scheduler_type})",
            "optimizer steps": f"{results['train']['steps']}, best at {results['best_step']}",
            "examples": f"{results['train']['examples']:,}",
            "seed": training.seed,
            **_adapters(config),
        },
    )


def _adapters(config: Config) -> dict[str, object]:
    model = config.model
    if not model.lora_rank:
        return {}
    return {"low-rank adapters": f"rank {model.lora_rank}, alpha {lora.alpha(model)}, merged into the weights"}


def _table(what: str, rows: Mapping[str, object]) -> Iterator[str]:
    yield from ("", f"| {what} | value |", "|---|---|")
    yield from (f"| {name} | {value} |" for name, value in rows.items())
    yield ""


def _classes(names: Sequence[str]) -> str:
    """Class names as inline code. They come from the data and may contain anything."""
    shown = (" ".join(name.replace("`", "'").split())[:LONGEST_NAME] for name in names[:LISTED_CLASSES])
    return ", ".join(f"`{name}`" for name in shown) + (", ..." if len(names) > LISTED_CLASSES else "")
