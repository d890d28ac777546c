"""What can be known wrong without torch, so that the login node says it before a job waits in a queue.

Standard library only beyond the configuration, and pyarrow for the columns of parquet where it is installed. What
needs another library (the hub, the model) is checked by the job itself in its first seconds.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shlex
from pathlib import Path

from job.config import Config, fields, metrics
from job.data import columns, readers
from job.data.columns import Columns
from job.errors import Refused
from job.runtime import contract

FILES_CHECKED = 100
ANSWERS = (".csv", ".jsonl", ".parquet")
"""Formats of --output_file."""


def check(config: Config) -> None:
    """Raise Refused for the first thing that cannot work, naming it and the remedy."""
    _check_bounds(config)
    _check_choices(config)
    _check_model(config)
    _check_sources(config)
    _check_files(config)
    _check_output_file(config)


def _check_bounds(config: Config) -> None:
    """Every number is within the bounds that its setting declares."""
    for name, (group, declared) in fields().items():
        value, bounds = getattr(getattr(config, group), name), declared.metadata["bounds"]
        if bounds is not None and value is not None and not bounds.hold(value):
            raise Refused(f"--{name} must be {bounds if math.isfinite(value) else 'a finite number'}, not {value}")


def _check_choices(config: Config) -> None:
    columns.check_count(config.data.text_column_names)
    path = config.run.resume_from_checkpoint
    requeued = contract.OWNER in os.environ  # where the first start may have removed it since: the job itself decides
    if path != "auto" and not requeued and not Path(path).is_dir():
        raise Refused(
            f"--resume_from_checkpoint {path} is not a folder: auto resumes from the newest checkpoint in output_dir"
        )
    evaluation = config.evaluation
    if evaluation.eval_strategy == "steps" and evaluation.eval_steps is None:
        raise Refused("--eval_strategy steps needs --eval_steps")
    if evaluation.eval_strategy != "steps" and evaluation.eval_steps is not None:
        raise Refused(f"--eval_steps needs --eval_strategy steps, not {evaluation.eval_strategy}")
    if evaluation.early_stopping_patience is not None and evaluation.eval_strategy == "no":
        raise Refused("--early_stopping_patience needs --eval_strategy epoch or steps")
    _check_best_metric(config)
    _check_token_limits(config)


def _check_best_metric(config: Config) -> None:
    """What our own metrics give is known; another's only once it has computed."""
    names, best = config.evaluation.metrics, config.evaluation.metric_for_best_model
    given = metrics.numbers(names or tuple(metrics.METRICS))
    if best is None or not set(names) <= metrics.METRICS.keys():
        return
    if metrics.as_computed(best) not in ("loss", *given):
        source = f"--metrics {' '.join(names)} give" if names else "there are"
        raise Refused(f"--metric_for_best_model {best}: {source} loss, {', '.join(given)}")


def _check_token_limits(config: Config) -> None:
    longest = config.data.max_seq_length or 0
    limits = {
        "max_tokens_per_device": config.training.max_tokens_per_device,
        "eval_max_tokens_per_device": config.evaluation.eval_max_tokens_per_device,
    }
    for name, limit in limits.items():
        if limit is not None and limit < longest:
            raise Refused(f"--{name} {limit} is less than one example of --max_seq_length {longest}")


def _check_model(config: Config) -> None:
    """A model in a folder: its config.json and weights are there, and it has the positions that are asked for."""
    name = config.model.model_name_or_path
    folder = Path(name)
    if config.model.tokenizer_name is not None and _is_missing_path(config.model.tokenizer_name):
        raise Refused(f"no folder {config.model.tokenizer_name} with a tokenizer")
    if not folder.is_dir():
        _refuse_unfinished(folder)
        if _is_missing_path(name):
            raise Refused(f"no model folder {name}")
        return
    if not (folder / "config.json").is_file():
        has_model = (folder / "model" / "config.json").is_file()
        instead = f"; the model of this run is {name.rstrip('/')}/model" if has_model else ""
        raise Refused(f"{name} is no model folder: it has no config.json{instead}")
    try:
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        positions = described.get("max_position_embeddings")
    except (ValueError, AttributeError, OSError):
        raise Refused(f"{name}/config.json cannot be read as JSON: the model folder is damaged") from None
    asked = config.data.max_seq_length
    if isinstance(positions, int) and asked is not None and 0 < positions < asked:
        raise Refused(f"--max_seq_length {asked}: the model {name} has {positions} positions")
    _check_weights(folder)


def _is_missing_path(name: str) -> bool:
    """Whether `name` can only be a path, and there is no such folder: a name on the hub is `owner/name` or `name`."""
    path = Path(name)
    if path.is_dir():
        return False
    is_path = name.startswith(("/", "./", "../", "~")) or name.endswith("/") or len(path.parts) > 2
    return is_path or path.is_file() or (len(path.parts) == 2 and path.parent.is_dir())


def _refuse_unfinished(model: Path) -> None:
    """A run's model is there once the run is finished: said, since the name would be looked up on the hub."""
    run = model.parent
    try:
        state = json.loads((run / contract.STATUS).read_text(encoding="utf-8"))["state"]
    except (OSError, ValueError, TypeError, KeyError):
        return
    raise Refused(f"no model {model} yet: the run in {run} is {state}, and its model is there when it is DONE")


def _check_weights(folder: Path) -> None:
    there = {path.name for path in folder.iterdir()}
    if there & {"model.safetensors", "model.safetensors.index.json"}:
        return
    if "pytorch_model.bin" not in there:
        raise Refused(f"{folder} has no weights: model.safetensors is missing")
    convert = (
        "import torch; from safetensors.torch import save_file; "
        "w = torch.load('pytorch_model.bin', map_location='cpu', weights_only=True); "
        "save_file({k: v.clone().contiguous() for k, v in w.items()}, 'model.safetensors', {'format': 'pt'})"
    )
    raise Refused(
        f"{folder} has pickled weights, which can run code when they are read; to convert them: "
        f'cd {shlex.quote(str(folder))} && python -c "{convert}"'
    )


def _check_sources(config: Config) -> None:
    data = config.data
    if data.dataset_name and (data.train_file or data.validation_file or data.test_file):
        raise Refused(
            "--dataset_name and --train_file/--validation_file/--test_file exclude each other: give one or the other"
        )
    for name in ("validation_split_name", "test_split_name"):
        if getattr(data, name) and not data.dataset_name:
            raise Refused(f"--{name} is a split of --dataset_name: with files, give --{name.split('_')[0]}_file")
    if data.no_label and not (data.test_file or data.test_split_name):
        raise Refused("--no_label is about test data: give --test_file, or --dataset_name and --test_split_name")
    training = config.training
    if training.do_train and not training.do_eval:
        raise Refused("--no_do_eval is for prediction, with --no_do_train: training needs it to find its best model")
    if not data.dataset_name and not data.train_file and training.do_train:
        raise Refused("nothing to train on: give --train_file, --dataset_name, or a recipe")
    if not data.dataset_name and not data.validation_file and not training.do_train and training.do_eval:
        raise Refused("nothing to evaluate on: give --validation_file")
    if not (data.test_file or data.test_split_name or training.do_eval):
        raise Refused("nothing to predict: give --test_file, or --dataset_name and --test_split_name")


def _check_files(config: Config) -> None:
    data, training = config.data, config.training
    trained = _check_file(config, "train", data.train_file) if data.train_file and training.do_train else None
    if data.validation_file and training.do_eval:
        _check_file(config, "validation", data.validation_file, trained)
    if data.test_file:
        _check_file(config, "test", data.test_file, trained)


def _check_file(config: Config, split: str, name: str, trained: Columns | None = None) -> Columns | None:
    """The columns of the files `name` means, of the first hundred: a login node does not read for minutes.

    None where the columns of parquet cannot be read, without pyarrow.
    """
    paths = readers.files(name)
    if readers.kind(paths[0]) == readers.PARQUET and not importlib.util.find_spec("pyarrow"):
        return None
    asked = columns.request(config.data, split, trained)
    return readers.choose(paths[:FILES_CHECKED], asked, config.data.csv_quoting)


def _check_output_file(config: Config) -> None:
    """The answers can be written, and overwrite no data."""
    data, name = config.data, config.run.output_file
    if name is None:
        if config.run.top_k is not None:
            raise Refused("--top_k is about the answers to test data: give --output_file")
        return
    path = Path(name).absolute()
    if path.suffix.lower() not in ANSWERS:
        raise Refused(f"--output_file {name}: the name must end in {', '.join(ANSWERS)}")
    if not (data.test_file or data.test_split_name):
        raise Refused("--output_file is for answers to test data: give --test_file, or --dataset_name and "
                      "--test_split_name")  # fmt: skip
    if path.is_dir():
        raise Refused(f"--output_file {name} is a folder: name a file in it")
    for given in filter(None, (data.train_file, data.validation_file, data.test_file)):
        if readers.matches(str(path), given):
            raise Refused(f"--output_file {name} is one of the files that are read ({given}): choose another name")
    if data.dataset_name and Path(data.dataset_name).is_dir() and Path(data.dataset_name).absolute() in path.parents:
        raise Refused(f"--output_file {name} is in the folder of --dataset_name: choose another folder")
    parent = next(folder for folder in path.parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise Refused(f"--output_file {name} cannot be written: {parent} is not a folder that this user can write to")
