"""Checks that need no torch: a login node runs them, so that mistakes are reported before a job waits in a queue.

They use the configuration, the standard library and, for the columns of parquet files, pyarrow if it is installed. What
needs another library (the hub, the model) is checked by the job in its first seconds.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import reprlib
import shlex
from pathlib import Path

from job.config import BUILT_IN_DATASET, Config, Data, Training, class_weights, fields, metrics
from job.data import columns, folders, readers
from job.data.columns import Columns
from job.errors import Refused, unreadable_refused
from job.run.folder import CONTENTS, RunFolder
from job.runtime import contract, environment

FILES_CHECKED = 100
"""Files of a pattern whose columns are read here, to keep a login node fast."""
ADAPTER_CONFIG = "adapter_config.json"
"""File of a folder that holds an adapter, as peft writes it."""
OUTPUT_FORMATS = (".csv", ".jsonl", ".parquet")
"""Formats of --output_file."""
_NAME = r"\w(?:[\w.-]{0,94}\w)?"
REPOSITORY = re.compile(rf"(?!.*(?:--|\.\.))(?:{_NAME}/)?{_NAME}", re.ASCII)
"""Names that the hub allows."""


@unreadable_refused()
def check(config: Config) -> None:
    """Raise Refused for the first setting that cannot work, naming it and the remedy."""
    _check_bounds(config)
    _check_choices(config)
    _check_model(config)
    _check_adapters(config)
    _check_sources(config)
    _check_files(config)
    _check_output_file(config)
    _check_upload(config)


def _check_bounds(config: Config) -> None:
    """Refused for a number outside the bounds that its setting declares."""
    for name, (group, declared) in fields().items():
        value, bounds = getattr(getattr(config, group), name), declared.metadata["bounds"]
        if bounds is not None and value is not None and (remedy := bounds.remedy(value)):
            raise Refused(f"--{name} must be {remedy}, not {reprlib.repr(value)}")


def _check_choices(config: Config) -> None:
    columns.check_count(config.data.text_column_names)
    path = config.run.resume_from_checkpoint
    if path != "auto" and config.run.overwrite_output_dir:
        raise Refused(f"--overwrite_output_dir would delete the checkpoint of --resume_from_checkpoint {path}: give "
                      "only one of them")  # fmt: skip
    requeued = contract.OWNER in os.environ  # the first start may have removed the checkpoint since: the job decides
    if path != "auto" and not requeued and not Path(path).is_dir():
        raise Refused(
            f"--resume_from_checkpoint {path} is not a folder: use auto for the newest checkpoint in --output_dir"
        )
    evaluation = config.evaluation
    if evaluation.eval_strategy == "steps" and evaluation.eval_steps is None:
        raise Refused("--eval_strategy steps needs --eval_steps")
    if evaluation.eval_strategy != "steps" and evaluation.eval_steps is not None:
        raise Refused(f"--eval_steps needs --eval_strategy steps, not {evaluation.eval_strategy}")
    if evaluation.early_stopping_patience is not None and evaluation.eval_strategy == "no":
        raise Refused("--early_stopping_patience needs --eval_strategy epoch or steps")
    class_weights.check(config.training.class_weights, config.data.problem_type)
    if config.training.lr_scheduler_type == "constant" and config.training.warmup_steps:
        raise Refused("--lr_scheduler_type constant has no warmup: use constant_with_warmup, or remove --warmup_steps")
    if config.training.max_steps is not None:
        refuse_warmup_to_the_end(config.training, config.training.max_steps)
    _check_best_metric(config)
    _check_token_limits(config)


def refuse_warmup_to_the_end(training: Training, steps: int) -> None:
    """Refused if no step of the run has the peak learning rate; the job knows the steps of epochs."""
    warmup = training.warmup_steps
    if training.do_train and warmup is not None and warmup >= steps:
        raise Refused(f"--warmup_steps {warmup} must be below the {steps} steps of the run, or the learning rate never "
                      "reaches --learning_rate: lower it, or use --warmup_ratio")  # fmt: skip


def _check_best_metric(config: Config) -> None:
    """The numbers of built-in metrics are known here; those of other metrics only once they have been computed."""
    names, best = config.evaluation.metrics, config.evaluation.metric_for_best_model
    given = metrics.numbers(names or tuple(metrics.METRICS))
    if best is None or not set(names) <= metrics.METRICS.keys():
        return
    if metrics.as_computed(best) not in ("loss", *given):
        source = f"--metrics {' '.join(names)} gives" if names else "choose one of"
        raise Refused(f"--metric_for_best_model {best} is not computed: {source} loss, {', '.join(given)}")


def _check_token_limits(config: Config) -> None:
    longest = config.data.max_seq_length or 0
    limits = {
        "max_tokens_per_device": config.training.max_tokens_per_device,
        "eval_max_tokens_per_device": config.evaluation.eval_max_tokens_per_device,
    }
    for name, limit in limits.items():
        if limit is not None and limit < longest:
            raise Refused(f"--{name} {limit} must be at least --max_seq_length {longest}, the length of one example")


def _check_model(config: Config) -> None:
    """Refused for a model folder without config.json or weights, or with fewer positions than --max_seq_length."""
    name = config.model.model_name_or_path
    folder = Path(name)
    if config.model.tokenizer_name is not None and _is_missing_path(config.model.tokenizer_name):
        raise Refused(f"--tokenizer_name {config.model.tokenizer_name}: there is no such folder")
    if not folder.is_dir():
        _refuse_unfinished(folder)
        if _is_missing_path(name):
            raise Refused(f"--model_name_or_path {name}: there is no such folder")
        return
    if config.model.model_revision is not None:
        raise Refused(f"--model_revision has no effect, as --model_name_or_path {name} is a folder: remove it, or "
                      "give None if a recipe sets it")  # fmt: skip
    if (folder / ADAPTER_CONFIG).is_file():
        raise not_a_model(name)
    if not (folder / "config.json").is_file():
        has_model = (folder / "model" / "config.json").is_file()
        instead = f"; this is a run folder, its model is {name.rstrip('/')}/model" if has_model else ""
        raise Refused(f"{name} is not a model folder: config.json is missing{instead}")
    try:
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        positions = described.get("max_position_embeddings")
    except (ValueError, AttributeError, OSError):
        raise Refused(f"{name}/config.json is not valid JSON: the model folder is damaged") from None
    asked = config.data.max_seq_length
    if isinstance(positions, int) and asked is not None and 0 < positions < asked:
        raise Refused(f"--max_seq_length {asked} is more than the {positions} positions of the model {name}")
    _check_weights(folder)


def not_a_model(name: str) -> Refused:
    """The error for an adapter in place of a model."""
    merged = Path(name).parent / "model"
    if (merged / "config.json").is_file() and merged != Path(name):
        return Refused(f"{name} is an adapter, not a model; the model that it was merged into is {merged}")
    return Refused(f"{name} is an adapter, not a model: merge it into its base model (merge_and_unload of peft), save "
                   "that, and name its folder")  # fmt: skip


def _check_adapters(config: Config) -> None:
    model = config.model
    if model.lora_rank and not config.training.do_train:
        raise Refused("--lora_rank has no effect with --no_do_train: remove one of the two")
    for name, given in (("lora_alpha", model.lora_alpha is not None), ("lora_dropout", model.lora_dropout > 0)):
        if given and not model.lora_rank:
            raise Refused(f"--{name} has no effect without --lora_rank: add it, or remove --{name}")


def _is_missing_path(name: str) -> bool:
    """Whether `name` can only be a path and no such folder exists. On the hub, names are `owner/name` or `name`."""
    path = Path(name)
    if path.is_dir():
        return False
    is_path = name.startswith(("/", "./", "../", "~")) or name.endswith("/") or len(path.parts) > 2
    return is_path or path.is_file() or (len(path.parts) == 2 and path.parent.is_dir())


def _refuse_unfinished(model: Path) -> None:
    """Reject the model of an unfinished run: its folder does not exist yet, so it would be looked up on the hub."""
    run = model.parent
    try:
        state = json.loads((run / contract.STATUS).read_text(encoding="utf-8"))["state"]
    except (OSError, ValueError, TypeError, KeyError):
        return
    raise Refused(f"{model} does not exist yet: the run {run} is {state}; its model is written when it is DONE")


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
        f"{folder} has pickled weights, which can run code when loaded; convert them to safetensors: "
        f'cd {shlex.quote(str(folder))} && python -c "{convert}"'
    )


def _check_sources(config: Config) -> None:
    data = config.data
    if data.dataset_name and (data.train_file or data.validation_file or data.test_file):
        raise Refused(
            "--dataset_name cannot be combined with --train_file, --validation_file or --test_file: give one or the "
            "other"
        )
    _check_dataset(data)
    if data.max_predict_samples is not None and not (data.test_file or data.test_split_name):
        raise Refused(
            "--max_predict_samples needs test data: give --test_file, or --dataset_name and --test_split_name"
        )
    if data.no_label and not (data.test_file or data.test_split_name):
        raise Refused("--no_label needs test data: give --test_file, or --dataset_name and --test_split_name")
    training = config.training
    if training.do_train and not training.do_eval:
        raise Refused("--no_do_eval needs --no_do_train: training evaluates to choose the best model")
    if not data.dataset_name and not data.train_file and training.do_train:
        raise Refused("nothing to train on: give --train_file, --dataset_name, or a recipe")
    if not data.dataset_name and not data.validation_file and not training.do_train and training.do_eval:
        raise Refused("nothing to evaluate on: give --validation_file")
    if not (data.test_file or data.test_split_name or training.do_eval):
        raise Refused("nothing to predict: give --test_file, or --dataset_name and --test_split_name")


def _check_dataset(data: Data) -> None:
    """Refused for settings of the dataset that have no effect."""
    for name in ("train_split_name", "validation_split_name", "test_split_name"):
        if getattr(data, name) not in (None, getattr(Data(), name)) and not data.dataset_name:
            raise Refused(f"--{name} needs --dataset_name; for files, use --{name.split('_')[0]}_file")
    built_in = data.dataset_name == BUILT_IN_DATASET
    is_folder = not built_in and data.dataset_name is not None and Path(data.dataset_name).is_dir()
    if is_folder and not folders.is_saved(Path(str(data.dataset_name))):
        folders.refuse_pattern(Path(str(data.dataset_name)))
    for name in ("dataset_config_name", "dataset_revision"):
        if getattr(data, name) is None:
            continue
        if not data.dataset_name:
            raise Refused(f"--{name} needs --dataset_name: remove it, or give None if a recipe sets it")
        if built_in or (is_folder and name == "dataset_revision"):
            what = "built in" if built_in else "a folder"
            raise Refused(f"--{name} has no effect, as --dataset_name {data.dataset_name} is {what}: remove it, or "
                          "give None if a recipe sets it")  # fmt: skip


def _check_files(config: Config) -> None:
    data, training = config.data, config.training
    trained = _check_file(config, "train", data.train_file) if data.train_file and training.do_train else None
    if data.validation_file and training.do_eval:
        _check_file(config, "validation", data.validation_file, trained)
    if data.test_file:
        _check_file(config, "test", data.test_file, trained)


def _check_file(config: Config, split: str, name: str, trained: Columns | None = None) -> Columns | None:
    """The columns of the files that match `name`; None if they cannot be read here."""
    paths = _checked_files(name)
    if not paths:
        return None
    asked = columns.request(config.data, split, trained)
    return readers.choose(paths, asked, config.data.csv_quoting)


def _checked_files(name: str) -> list[str]:
    """The first hundred files that match `name`; none for parquet files if pyarrow is not installed."""
    paths = readers.files(name)
    if readers.kind(paths[0]) == readers.PARQUET and not importlib.util.find_spec("pyarrow"):
        return []
    return paths[:FILES_CHECKED]


def _check_output_file(config: Config) -> None:
    """Refused if --output_file cannot be written, or would overwrite data."""
    data, name = config.data, config.run.output_file
    if name is None:
        if config.run.top_k is not None:
            raise Refused("--top_k needs --output_file, where the classes are written")
        return
    path = Path(name).absolute()
    if path.suffix.lower() not in OUTPUT_FORMATS:
        raise Refused(f"--output_file {name}: the name must end in {', '.join(OUTPUT_FORMATS)}")
    if not (data.test_file or data.test_split_name):
        raise Refused("--output_file needs test data to predict: give --test_file, or --dataset_name and "
                      "--test_split_name")  # fmt: skip
    if path.is_dir():
        raise Refused(f"--output_file {name} is a folder: give the name of a file")
    for given in filter(None, (data.train_file, data.validation_file, data.test_file)):
        if readers.matches(str(path), given):
            raise Refused(f"--output_file {name} would overwrite an input file ({given}): choose another name")
    if data.dataset_name and Path(data.dataset_name).is_dir() and Path(data.dataset_name).absolute() in path.parents:
        raise Refused(f"--output_file {name} is inside the dataset folder: choose another folder")
    _refuse_file_of_a_run(path.resolve(), config)
    parent = next(folder for folder in path.parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise Refused(f"--output_file {name} cannot be written: {parent} is not a writable folder")
    for given in _checked_files(data.test_file) if data.test_file else ():
        there = readers.columns(given, data.csv_quoting)
        columns.refuse_repeated(there, there, given)


def _refuse_file_of_a_run(path: Path, config: Config) -> None:
    """Refused if a run, this one or another, has or will have a file of its own at --output_file."""
    own = Path(config.run.output_dir).resolve() if config.run.output_dir else None
    for folder in path.parents:
        name = path.relative_to(folder).parts[0]
        is_run = folder == own or (RunFolder(folder).config.is_file() and RunFolder(folder).status.is_file())
        if is_run and name in (*CONTENTS, contract.JOBS):
            raise Refused(f"--output_file {config.run.output_file} would overwrite what the run in {folder} writes to "
                          f"{name}: choose another name")  # fmt: skip


def _check_upload(config: Config) -> None:
    """Refused if an upload cannot work. Whether the hub accepts it is checked before training."""
    asked = config.hub
    if not asked.push_to_hub:
        unused = [
            name for name in ("hub_model_id", "hub_revision", "hub_private_repo") if getattr(asked, name) is not None
        ]
        if unused:
            raise Refused(f"--{unused[0]} has no effect without --push_to_hub: add it, or remove --{unused[0]}")
        return
    if not config.training.do_train:
        raise Refused("--push_to_hub uploads the trained model, and --no_do_train trains none: remove one of the two")
    if asked.hub_model_id is not None and not REPOSITORY.fullmatch(asked.hub_model_id):
        raise Refused(f"--hub_model_id {asked.hub_model_id} is not a valid repository name: use owner/name or name, "
                      "with letters, digits, _, - and ., and no -- or ..")  # fmt: skip
    offline = next((name for name in environment.OFFLINE if os.environ.get(name, "").lower() in environment.TRUE), None)
    if offline is not None:
        raise Refused(f"--push_to_hub needs the hub, and {offline} keeps the job from it: unset it, or add "
                      "--push_to_hub when the run has finished")  # fmt: skip
    if not os.environ.get(environment.HUB_TOKEN, "").strip():
        raise Refused(f"--push_to_hub needs a token with write access: make one in the hub's settings and set "
                      f"{environment.HUB_TOKEN} to it in the environment or .env")  # fmt: skip
