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
"""The data set that comes with the job, even where the working directory has a folder of that name."""


@dataclass(frozen=True)
class Model:
    """The pretrained model."""

    model_name_or_path: str = setting("sentence-transformers/all-MiniLM-L6-v2")
    """Folder, or name on the hub. The default is a small encoder, installed with the job."""
    model_revision: str | None = setting(None)
    """Branch, tag or commit of a model on the hub."""
    tokenizer_name: str | None = setting(None)
    """Folder or hub name of the tokenizer, where it is not the model's."""
    trust_remote_code: bool = setting(False)
    """Run Python code that the model's or data set's repository brings. Off: such a repository is refused."""
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] | None = runtime_setting(None)
    """Attention kernel; unset: the library's choice."""
    attention_dropout: float | None = setting(None, at_least=0, below=1)
    """Dropout of attention probabilities; unset: the checkpoint's. 0 is faster."""
    packing: bool = runtime_setting(True)
    """Lay the sequences of a forward pass end to end instead of padding them, where the model allows it."""
    lora_rank: int = setting(0, at_least=0)
    """Train low-rank adapters of this rank in every linear layer instead of all weights, and what is new in the head;
    8 to 64 are usual. 0: train all weights."""
    lora_alpha: int | None = setting(None, above=0)
    """Strength of the adapters: their output times lora_alpha / lora_rank is added. Unset: twice the rank."""
    lora_dropout: float = setting(0.0, at_least=0, below=1)
    """Dropout of the adapters' input."""
    gradient_checkpointing: bool = runtime_setting(False)
    """Compute activations again in the backward pass: less memory, about a third more time."""
    torch_compile: bool = runtime_setting(False)
    """Compile the model with torch.compile: minutes at the start, faster steps. Needs a C compiler."""


@dataclass(frozen=True)
class Data:
    """The text and its labels."""

    dataset_name: str | None = setting(None)
    """Name on the hub or folder of a data set; `docstrings` is built in."""
    dataset_config_name: str | None = setting(None)
    """Configuration of the data set, as `cola` of `nyu-mll/glue`."""
    dataset_revision: str | None = setting(None)
    """Branch, tag or commit of a data set on the hub."""
    train_file: str | None = setting(None)
    """Training data: .csv, .tsv, .jsonl, .json (these also as .gz) or .parquet; a quoted "data/*.csv" means all."""
    validation_file: str | None = setting(None)
    """Evaluation data, likewise."""
    test_file: str | None = setting(None)
    """Data for the last evaluation or, without labels, for predictions only; likewise."""
    train_split_name: str = setting("train")
    """Split of `dataset_name` to train on."""
    validation_split_name: str | None = setting(None)
    """Split of `dataset_name` to evaluate on. Unset: validation, dev, valid, val or eval, if there is one."""
    test_split_name: str | None = setting(None)
    """Split of `dataset_name` for the last evaluation or, without labels, for predictions only."""
    text_column_names: tuple[str, ...] = setting(())
    """One column, or two for sentence pairs. Unset: recognised (text; sentence; sentence1 sentence2; ...)."""
    label_column_name: str | None = setting(None)
    """Column of the class. Unset: recognised (label; labels; category; ...)."""
    no_label: bool = setting(False)
    """The test data has no label, whatever its columns are called: it is predicted and not scored."""
    csv_quoting: Literal["minimal", "none"] | None = setting(None)
    """Quotation marks in .csv and .tsv: `minimal` quotes cells that begin with one, `none` takes them for letters.
    Unset: minimal, but a .tsv that may mean either is rejected."""
    problem_type: Literal["single_label_classification", "multi_label_classification", "regression"] | None = setting(
        None
    )
    """What the labels are. Unset: recognised by their values; a guess is noted."""
    max_seq_length: int | None = setting(None, above=0)
    """Tokens kept of an example; longer text is cut at the end. Unset: the model's limit, 512 at most."""
    max_train_samples: int | None = setting(None, above=0)
    """Train on so many rows, drawn at random, the same whatever the seed."""
    max_eval_samples: int | None = setting(None, above=0)
    """Evaluate on so many rows, drawn likewise."""
    max_predict_samples: int | None = setting(None, above=0)
    """Predict so many rows of the test set, drawn likewise."""
    pad_to_max_length: bool = runtime_setting(False)
    """Pad every example to max_seq_length, for accelerators that want fixed shapes; wasteful on any other."""
    preprocessing_num_workers: int = runtime_setting(1, above=0)
    """Processes that tokenise."""


@dataclass(frozen=True)
class Training:
    """The optimisation: what means the same on any hardware."""

    do_train: bool = setting(True)
    """Train. With --no_do_train the model is evaluated as it is."""
    do_eval: bool = setting(True)
    """Evaluate. With --no_do_train --no_do_eval, the recipe `predict`, test data is predicted and nothing else done."""
    num_train_epochs: float = setting(3.0, above=0)
    """Passes over the training data; may be a fraction."""
    max_steps: int | None = setting(None, above=0)
    """Optimizer steps; overrides num_train_epochs."""
    train_batch_size: int = setting(32, above=0)
    """Global batch of an optimizer step, in examples, over all processes."""
    learning_rate: float = setting(5e-5, above=0)
    """Peak learning rate of AdamW."""
    layer_lr_decay: float = setting(1.0, above=0, at_most=1)
    """Factor of the learning rate from each layer to the one before it: the head has the peak rate, the embeddings the
    lowest. 1: one rate for all."""
    weight_decay: float = setting(0.01, at_least=0)
    """Decoupled weight decay of matrices; biases and norms have none."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt"] = setting(
        "linear"
    )
    """Shape of the learning rate after warm-up."""
    warmup_ratio: float = setting(0.1, at_least=0, below=1)
    """Share of the steps over which the learning rate rises from 0."""
    warmup_steps: int | None = setting(None, at_least=0)
    """Steps of warm-up; overrides warmup_ratio."""
    max_grad_norm: float = setting(1.0, at_least=0)
    """Gradients are scaled down to this norm; 0: never."""
    label_smoothing_factor: float = setting(0.0, at_least=0, below=1)
    """Probability mass spread over all classes in the training loss."""
    class_weights: str | Mapping[str, float] | None = setting(None)
    """How much the rows of each class count in the training loss: `balanced`, or a YAML file with a line `name: factor`
    for each class (in a recipe also the lines themselves). Evaluation counts all rows alike."""
    seed: int = setting(42, at_least=0)
    """Of the order of examples, the new head and dropout."""
    mixed_precision: Literal["no", "bf16", "fp16"] | None = setting(None)
    """Precision of forward and backward; weights stay fp32. Unset: the launcher's (accelerate launch). On a GPU,
    matrix products in fp32 are computed as TF32."""
    max_tokens_per_device: int | None = runtime_setting(None, above=0)
    """Tokens, padding included, that one process holds in one forward pass: memory. Unset: 4096 on a CPU,
    16384 on a GPU. Changes neither the examples of a step nor its gradient."""


@dataclass(frozen=True)
class Evaluation:
    """When and how the model is evaluated."""

    eval_strategy: Literal["epoch", "steps", "no"] = setting("epoch")
    """Evaluate after each epoch, every eval_steps, or only at the end."""
    eval_steps: int | None = setting(None, above=0)
    """Optimizer steps between evaluations, for --eval_strategy steps."""
    metrics: tuple[str, ...] = setting(())
    """Of accuracy, f1, matthews_correlation; rmse, pearsonr, spearmanr; or a folder or hub name of an `evaluate`
    module. Unset: those usual for the task."""
    metric_for_best_model: str | None = setting(None)
    """The model of the best evaluation is kept; best by this number (or `loss`). Unset: accuracy; f1_micro for several
    labels a row; rmse for regression."""
    positive_label: str | None = setting(None)
    """Class that the metric f1 is about where there are two. Unset: the second one."""
    greater_is_better: bool | None = setting(None)
    """Direction of metric_for_best_model. Unset: greater, but for losses and errors."""
    early_stopping_patience: int | None = setting(None, above=0)
    """Stop after so many evaluations in a row without a new best."""
    eval_max_tokens_per_device: int | None = runtime_setting(None, above=0)
    """Like max_tokens_per_device, for evaluation. Unset: 4096 on a CPU, 65536 on a GPU."""


@dataclass(frozen=True)
class Run:
    """Where results go and what is shown."""

    output_dir: str | None = runtime_setting(None)
    """Run folder. Unset: a new runs/<recipe>-<time>; runs/latest points to the newest that trains."""
    output_file: str | None = runtime_setting(None)
    """Answers to the test data as .csv, .jsonl or .parquet: all its columns, then `prediction` and `score`."""
    top_k: int | None = runtime_setting(None, above=0)
    """Write this many of the best classes to output_file, with their scores."""
    overwrite_output_dir: bool = runtime_setting(False)
    """Start anew in a run folder that holds another run; its files are deleted."""
    logging_steps: int = runtime_setting(10, above=0)
    """Optimizer steps between two lines of metrics.jsonl."""
    save_steps: int | None = runtime_setting(None, above=0)
    """Optimizer steps between checkpoints; there is one at each evaluation, by --save_minutes and on a stop as well."""
    save_minutes: float | None = runtime_setting(10.0, above=0)
    """Minutes between checkpoints, at most: what a crash can cost."""
    save_total_limit: int | None = runtime_setting(None, above=0)
    """Checkpoints to keep, the newest ones; the best is kept too. Unset: two, and none once the run has finished."""
    resume_from_checkpoint: str = runtime_setting("auto")
    """auto: resume from the newest complete checkpoint in output_dir, if there is one; or the path of one of them."""
    max_minutes: float | None = runtime_setting(None, above=0)
    """Stop with a checkpoint, exit code 75, before so many minutes have passed since the start."""
    step_timeout_minutes: float = runtime_setting(30.0, at_least=0, at_most=1e6)
    """End the job with a dump of its stacks when a step takes longer: a process hangs; 0: wait for ever."""
    report_to: tuple[str, ...] = runtime_setting(())
    """Trackers that Accelerate knows: tensorboard, wandb, mlflow, ..."""


@dataclass(frozen=True)
class Hub:
    """The upload of the model, with the token in the environment variable HF_TOKEN."""

    push_to_hub: bool = runtime_setting(False)
    """Upload the model folder to the hub when the run has finished; a run that has finished before is uploaded now."""
    hub_model_id: str | None = runtime_setting(None)
    """Repository, as owner/name, or a name in your own account. Unset: the run folder's name."""
    hub_revision: str | None = runtime_setting(None)
    """Branch to upload to; it is made if it is not there. Unset: main."""
    hub_private_repo: bool | None = runtime_setting(None)
    """Make a new repository private. Unset: the account's usual."""


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
