"""What can be known wrong without torch, so that the login node says it before a job waits in a queue.

Standard library only beyond the configuration. What needs a library (parquet, the hub, the model) is checked by the
job itself in its first seconds.
"""

from __future__ import annotations

import math
from pathlib import Path

from job import columns, tables
from job.config import Config
from job.errors import Refused

METRICS = {
    "accuracy": ("accuracy", "correct"),
    "f1": ("f1_macro", "f1_weighted", "f1"),
    "matthews_correlation": ("matthews_correlation",),
}
"""The metrics that come along, and the numbers that each gives; `f1` itself for two classes only."""


def check(config: Config) -> None:
    """Raise Refused for the first thing that cannot work, naming it and the remedy."""
    _check_numbers(config)
    _check_choices(config)
    _check_sources(config)
    for path in (config.data.train_file if config.training.do_train else None, config.data.validation_file):
        if path:
            _check_file(config, path)


def _check_numbers(config: Config) -> None:
    data, training, evaluation, run = config.data, config.training, config.evaluation, config.run
    positive = {
        "train_batch_size": training.train_batch_size,
        "max_steps": training.max_steps,
        "num_train_epochs": training.num_train_epochs,
        "max_seq_length": data.max_seq_length,
        "max_train_samples": data.max_train_samples,
        "max_eval_samples": data.max_eval_samples,
        "preprocessing_num_workers": data.preprocessing_num_workers,
        "max_tokens_per_device": training.max_tokens_per_device,
        "eval_max_tokens_per_device": evaluation.eval_max_tokens_per_device,
        "eval_steps": evaluation.eval_steps,
        "early_stopping_patience": evaluation.early_stopping_patience,
        "logging_steps": run.logging_steps,
        "learning_rate": training.learning_rate,
    }
    for name, value in positive.items():
        if value is not None and not value > 0:
            raise Refused(f"--{name} must be above 0, not {value}")
        if value is not None and not math.isfinite(value):
            raise Refused(f"--{name} must be a finite number, not {value}")
    for name in ("weight_decay", "warmup_ratio", "warmup_steps", "max_grad_norm", "label_smoothing_factor", "seed"):
        value = getattr(training, name)
        if value is not None and not value >= 0:
            raise Refused(f"--{name} must not be below 0, is {value}")
        if value is not None and not math.isfinite(value):
            raise Refused(f"--{name} must be a finite number, not {value}")


def _check_choices(config: Config) -> None:
    columns.check_count(config.data.text_column_names)
    evaluation = config.evaluation
    if evaluation.eval_strategy == "steps" and evaluation.eval_steps is None:
        raise Refused("--eval_strategy steps needs --eval_steps")
    if evaluation.eval_strategy != "steps" and evaluation.eval_steps is not None:
        raise Refused(f"--eval_steps needs --eval_strategy steps, not {evaluation.eval_strategy}")
    if evaluation.early_stopping_patience is not None and evaluation.eval_strategy == "no":
        raise Refused("--early_stopping_patience needs --eval_strategy epoch or steps")
    for name in ("warmup_ratio", "label_smoothing_factor"):
        if getattr(config.training, name) >= 1:
            raise Refused(f"--{name} is a share and must be below 1, not {getattr(config.training, name)}")
    _check_best_metric(config)
    _check_token_limits(config)


def _check_best_metric(config: Config) -> None:
    """What our own metrics give is known; another's only once it has computed."""
    metrics, best = config.evaluation.metrics, config.evaluation.metric_for_best_model
    if not metrics:
        raise Refused(f"--metrics needs at least one of {', '.join(METRICS)}")
    given = [number for metric in metrics for number in METRICS.get(metric, (best,))]
    if best != "loss" and best not in given:
        raise Refused(f"--metric_for_best_model {best}: --metrics {' '.join(metrics)} give loss, {', '.join(given)}")


def _check_token_limits(config: Config) -> None:
    longest = config.data.max_seq_length or 0
    limits = {
        "max_tokens_per_device": config.training.max_tokens_per_device,
        "eval_max_tokens_per_device": config.evaluation.eval_max_tokens_per_device,
    }
    for name, limit in limits.items():
        if limit is not None and limit < longest:
            raise Refused(f"--{name} {limit} is less than one example of --max_seq_length {longest}")


def _check_sources(config: Config) -> None:
    data = config.data
    if data.dataset_name and (data.train_file or data.validation_file):
        raise Refused("--dataset_name and --train_file/--validation_file exclude each other: give one of them")
    if not data.dataset_name and not data.train_file and config.training.do_train:
        raise Refused("nothing to train on: give --train_file and --validation_file, --dataset_name, or a recipe")
    if not data.dataset_name and not data.validation_file:
        raise Refused("nothing to evaluate on: give --validation_file")


def _check_file(config: Config, name: str) -> None:
    path = Path(name)
    if not path.exists():
        raise Refused(f"no file {name}{'' if path.is_absolute() else f' in {Path.cwd()}'}")
    if path.is_dir():
        raise Refused(f"{name} is a folder: name a file in it")
    if path.suffix not in tables.FORMATS:
        raise Refused(f"{name}: the name must end in {', '.join(tables.FORMATS)}")
    if path.suffix != ".parquet":
        try:
            there = tables.columns(path)
        except OSError as error:
            raise Refused(f"{name} cannot be read: {error.strerror}") from None
        columns.choose(there, config.data.text_column_names, config.data.label_column_name, name)
