"""Every setting of the job: typed, documented where it is declared, with one default.

The command line, the recipes, `config.yaml` and the launcher all read these dataclasses, so a setting is added in one
place. Torch is not imported: a login node parses and rejects flags with the same code in tenths of a second. The
alternative, a parser inherited from TrainingArguments, brings some 150 flags, most without meaning here.

Where a Transformers example script has a flag for a thing, the field has that name. Each field declares the numbers it
takes and whether it changes the result: a `setting` does, a `runtime_setting` (where and how it runs, what is shown)
does not. A run folder is resumed only by a configuration that agrees in every `setting`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from job.config.declaration import runtime_setting, setting

BUILT_IN_DATASET = "docstrings"
"""Name of the built-in dataset, even if the working directory has a folder of that name."""


@dataclass(frozen=True)
class Model:
    """The pretrained model."""

    model_name_or_path: str = setting("sentence-transformers/all-MiniLM-L6-v2")
    """Folder, or name on the hub. The default is a small encoder, installed with the job."""
    model_revision: str | None = setting(None)
    """Branch, tag or commit of a model on the hub."""
    tokenizer_name: str | None = setting(None)
    """Folder or hub name of the tokenizer. Unset: the model's."""
    trust_remote_code: bool = setting(False)
    """Run Python code from the model's repository. Off: a repository that needs its own code is rejected."""
    attn_implementation: Literal["sdpa", "eager"] | None = runtime_setting(None)
    """Attention implementation, without packing. Unset: packed if the model supports it (with FlashAttention 2 on a
    GPU), else the library's default."""
    attention_dropout: float | None = setting(None, at_least=0, below=1)
    """Dropout of attention probabilities. Unset: the model's own. 0 is faster."""
    packing: bool = runtime_setting(True)
    """Pack the sequences of a forward pass instead of padding them, if the model supports it."""
    lora_rank: int = setting(0, at_least=0)
    """Train LoRA adapters of this rank in every linear layer, and the new weights of the head, instead of all weights;
    usually 8 to 64. 0: train all weights."""
    lora_alpha: int | None = setting(None, above=0)
    """Scale of the adapters: their output is multiplied by lora_alpha / lora_rank. Unset: twice the rank."""
    lora_dropout: float = setting(0.0, at_least=0, below=1)
    """Dropout of the adapters' input."""
    gradient_checkpointing: bool = runtime_setting(False)
    """Recompute activations in the backward pass: less memory, about a third more time."""
    torch_compile: bool = runtime_setting(False)
    """Compile the model with torch.compile: takes minutes at the start, then steps are faster. Needs a C compiler."""


@dataclass(frozen=True)
class Data:
    """The text and its labels."""

    dataset_name: str | None = setting(None)
    """Dataset: name on the hub, or folder; `docstrings` is built in."""
    dataset_config_name: str | None = setting(None)
    """Configuration of the dataset, e.g. `cola` of `nyu-mll/glue`."""
    dataset_revision: str | None = setting(None)
    """Branch, tag or commit of a dataset on the hub."""
    train_file: str | None = setting(None)
    """Training data: .csv, .tsv, .jsonl, .json (each also .gz) or .parquet; several files as a quoted "data/*.csv"."""
    validation_file: str | None = setting(None)
    """Evaluation data, in the same formats."""
    test_file: str | None = setting(None)
    """Test data, in the same formats: evaluated at the end or, without labels, only predicted."""
    train_split_name: str = setting("train")
    """Split of `dataset_name` to train on."""
    validation_split_name: str | None = setting(None)
    """Split of `dataset_name` to evaluate on. Unset: validation, dev, valid, val or eval, if it exists."""
    test_split_name: str | None = setting(None)
    """Split of `dataset_name` to test on: evaluated at the end or, without labels, only predicted."""
    text_column_names: tuple[str, ...] = setting(())
    """Text column, or two columns for sentence pairs. Unset: recognised (text; sentence; sentence1 sentence2; ...)."""
    label_column_name: str | None = setting(None)
    """Label column. Unset: recognised (label; labels; category; ...)."""
    no_label: bool = setting(False)
    """The test data has no label, even if a column is named like one: it is predicted but not scored."""
    csv_quoting: Literal["minimal", "none"] | None = setting(None)
    """Quotation marks in .csv and .tsv: `minimal`: they quote a cell; `none`: they are ordinary characters. Unset:
    minimal, but an ambiguous .tsv is rejected."""
    problem_type: Literal["single_label_classification", "multi_label_classification", "regression"] | None = setting(
        None
    )
    """Kind of task. Unset: recognised by the values of the labels; ambiguous cases are noted or rejected."""
    max_seq_length: int | None = setting(None, above=0)
    """Truncate examples to this many tokens. Unset: the model's limit, at most 512."""
    max_train_samples: int | None = setting(None, above=0)
    """Train on a random subset of this many rows, the same for every seed."""
    max_eval_samples: int | None = setting(None, above=0)
    """Evaluate on a random subset of this many rows, the same for every seed."""
    max_predict_samples: int | None = setting(None, above=0)
    """Predict a random subset of this many rows of the test set, the same for every seed."""
    pad_to_max_length: bool = runtime_setting(False)
    """Pad every example to max_seq_length, for accelerators that need fixed shapes; wasteful on all others."""
    preprocessing_num_workers: int = runtime_setting(1, above=0)
    """Number of processes for tokenization."""


@dataclass(frozen=True)
class Training:
    """Optimisation settings, independent of the hardware."""

    do_train: bool = setting(True)
    """Train. With --no_do_train the model is only evaluated."""
    do_eval: bool = setting(True)
    """Evaluate. With --no_do_train --no_do_eval (the recipe `predict`) the test data is only predicted."""
    num_train_epochs: float = setting(3.0, above=0, at_most=1e6)
    """Number of epochs; may be a fraction."""
    max_steps: int | None = setting(None, above=0)
    """Number of optimizer steps; overrides num_train_epochs."""
    train_batch_size: int = setting(32, above=0)
    """Global batch size: examples per optimizer step, over all processes."""
    learning_rate: float = setting(5e-5, above=0)
    """Peak learning rate of AdamW."""
    layer_lr_decay: float = setting(1.0, above=0, at_most=1)
    """Factor of the learning rate from each layer to the previous one: the head has the peak rate, the embeddings the
    lowest. 1: the same rate for all layers."""
    weight_decay: float = setting(0.01, at_least=0)
    """Decoupled weight decay of weight matrices; biases and norms have none."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt"] = setting(
        "linear"
    )
    """Learning rate schedule after warmup; `constant` has none."""
    warmup_ratio: float = setting(0.1, at_least=0, below=1)
    """Share of the steps with linear warmup of the learning rate, rounded down to whole steps."""
    warmup_steps: int | None = setting(None, at_least=0)
    """Number of warmup steps; overrides warmup_ratio."""
    max_grad_norm: float = setting(1.0, at_least=0)
    """Clip the norm of the gradients; 0: no clipping."""
    label_smoothing_factor: float = setting(0.0, at_least=0, below=1)
    """Label smoothing in the training loss."""
    class_weights: str | Mapping[str, float] | None = setting(None)
    """Weights of the classes in the training loss: `balanced`, or a YAML file with a line `name: weight` per class (a
    recipe may contain the lines themselves). Evaluation is not weighted."""
    seed: int = setting(42, at_least=0, at_most=2**32 - 1)
    """Random seed of the order of examples, the new head and dropout."""
    mixed_precision: Literal["no", "bf16", "fp16"] | None = setting(None)
    """Precision of forward and backward passes; weights stay in fp32. Unset: as configured for accelerate launch, else
    no. On a GPU, fp32 matrix products use TF32."""
    max_tokens_per_device: int | None = runtime_setting(None, above=0)
    """Token limit of one forward pass of one process, padding included. Limits memory; changes neither the examples of
    a step nor its gradient, apart from rounding and dropout masks. Unset: 4096 on a CPU; 4096 to 65536 on a GPU, by
    its memory and the model."""


@dataclass(frozen=True)
class Evaluation:
    """When and how the model is evaluated."""

    eval_strategy: Literal["epoch", "steps", "no"] = setting("epoch")
    """Evaluate after each epoch, every eval_steps, or only at the end."""
    eval_steps: int | None = setting(None, above=0)
    """Optimizer steps between evaluations; needs --eval_strategy steps."""
    metrics: tuple[str, ...] = setting(())
    """Any of accuracy, f1, matthews_correlation, rmse, pearsonr, spearmanr; or the folder or hub name of an `evaluate`
    module. Unset: the usual ones for the task."""
    metric_for_best_model: str | None = setting(None)
    """Score (or `loss`) that decides which evaluation is the best; its model is kept. Unset: accuracy; f1_micro for
    multi-label; rmse for regression."""
    positive_label: str | None = setting(None)
    """Positive class of the metric f1 if there are two classes. Unset: the second one."""
    greater_is_better: bool | None = setting(None)
    """Direction of metric_for_best_model. Unset: lower if its name ends in loss or error, and for mse, mae, rmse, mape,
    smape, mase and brier_score; greater for all else."""
    early_stopping_patience: int | None = setting(None, above=0)
    """Stop training after this many consecutive evaluations without a new best."""
    eval_max_tokens_per_device: int | None = runtime_setting(None, above=0)
    """Like max_tokens_per_device, for evaluation. Unset: 4096 on a CPU, 65536 on a GPU."""


@dataclass(frozen=True)
class Run:
    """Output, checkpoints and logging."""

    output_dir: str | None = runtime_setting(None)
    """Run folder. Unset: a new runs/<recipe>-<time>. runs/latest is the training run in runs/ that was started last."""
    output_file: str | None = runtime_setting(None)
    """Write the test data with its predictions to this .csv, .jsonl or .parquet: all columns, `prediction`, `score`."""
    top_k: int | None = runtime_setting(None, above=0)
    """Also write this many of the most probable classes to output_file, with their scores."""
    overwrite_output_dir: bool = runtime_setting(False)
    """Delete the run in output_dir and start over."""
    logging_steps: int = runtime_setting(10, above=0)
    """Optimizer steps between two records in metrics.jsonl and the log."""
    save_steps: int | None = runtime_setting(None, above=0)
    """Optimizer steps between checkpoints, in addition to one at each evaluation, by --save_minutes and on a stop."""
    save_minutes: float | None = runtime_setting(10.0, above=0)
    """Maximum minutes between checkpoints, and so the work that a crash can lose."""
    save_total_limit: int | None = runtime_setting(None, above=0)
    """Number of newest checkpoints to keep, besides the best. Unset: two, and none after the run has finished."""
    resume_from_checkpoint: str = runtime_setting("auto")
    """auto: the newest complete checkpoint in output_dir, if any; or the path of a checkpoint of the run."""
    max_minutes: float | None = runtime_setting(None, above=0)
    """Save a checkpoint and stop, with exit code 75, before this many minutes have passed since the start."""
    step_timeout_minutes: float = runtime_setting(30.0, at_least=0, at_most=1e6)
    """End the job with a dump of its stacks if a step takes longer, because a process hangs. 0: no limit."""
    report_to: tuple[str, ...] = runtime_setting(())
    """Trackers of Accelerate: tensorboard, wandb, mlflow, ..."""


@dataclass(frozen=True)
class Hub:
    """The upload of the model, with the token in the environment variable HF_TOKEN."""

    push_to_hub: bool = runtime_setting(False)
    """Upload the model folder to the hub when the run has finished; a run that has finished before is uploaded now."""
    hub_model_id: str | None = runtime_setting(None)
    """Repository, as owner/name, or a name in your own account. Unset: the run folder's name."""
    hub_revision: str | None = runtime_setting(None)
    """Branch to upload to; created if missing. Unset: main."""
    hub_private_repo: bool | None = runtime_setting(None)
    """Make a new repository private. Unset: the account's default."""


@dataclass(frozen=True)
class Config:
    """Fine-tune a pretrained Transformers model for text classification."""

    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    training: Training = field(default_factory=Training)
    evaluation: Evaluation = field(default_factory=Evaluation)
    run: Run = field(default_factory=Run)
    hub: Hub = field(default_factory=Hub)


GROUPS: dict[str, type] = {
    "model": Model,
    "data": Data,
    "training": Training,
    "evaluation": Evaluation,
    "run": Run,
    "hub": Hub,
}
