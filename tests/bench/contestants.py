"""The contestants: each as its own documentation writes it, with the recipe that all share.

Shared by all: the folder of the model (weights, head, dropout), the tokens, the global batch, AdamW with weight decay
0.01, a learning rate falling linearly to 0 without warm-up, `turns.total_steps` optimizer steps, the threads of the
machine. The training rows come in one order, that of `job.batching.planner.epoch_order`, so that all see the same
examples in the same steps: where a contestant would shuffle them, it is given them shuffled. Only (c) sorts
them itself.

None has code for the bench's sake but `turns.evaluation()`: steps are timed from outside, see turns.py. The Trainer's
logging, saving and evaluation in between are switched off; ours writes its metrics.jsonl and publishes its model.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from job.batching import planner
from tests.bench import models
from tests.bench.prepare import Work, typical_seed
from tests.bench.turns import Turns

Result = dict[str, Any]
WEIGHT_DECAY = 0.01
DEFAULT_EVALUATION_BATCH = 8  # of the tutorial, the Trainer and the example script alike


def tutorial(work: Work, turns: Turns) -> Result:
    """(a) The native PyTorch loop of the tutorial "Fine-tune a pretrained model".

    Every text was padded to max_length when it was tokenised; fp32; no clipping; a bar-less plain loop.
    """
    from datasets import load_from_disk
    from torch.utils.data import DataLoader
    from transformers import AutoModelForSequenceClassification, get_scheduler

    data = load_from_disk(work.path / "padded").with_format("torch")
    train_dataloader = DataLoader(data["train"], batch_size=work.batch)
    eval_dataloader = DataLoader(data["validation"], batch_size=DEFAULT_EVALUATION_BATCH)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = AutoModelForSequenceClassification.from_pretrained(work.model()).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=work.learning_rate, weight_decay=WEIGHT_DECAY)
    scheduler = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=turns.total_steps)
    model.train()
    for batch in islice(train_dataloader, turns.total_steps):
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()

    def right() -> int:
        model.eval()
        correct = 0
        for batch in eval_dataloader:
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            with torch.no_grad():
                predictions = model(**batch).logits.argmax(dim=-1)
            correct += int((predictions == batch["labels"]).sum())
        return correct

    return _evaluated(turns, len(data["validation"]), right)


def trainer_defaults(work: Work, turns: Turns, bf16: bool) -> Result:
    """(b) transformers.Trainer with its defaults: pads each batch to its longest, fused AdamW, clips to norm 1."""
    from transformers import Trainer

    arguments = {"per_device_train_batch_size": work.batch, "train_sampling_strategy": "sequential", "bf16": bf16}
    return _trained(Trainer, work, turns, arguments)


def trainer_tuned(work: Work, turns: Turns, device_batch: int, bf16: bool, attention: str, workers: int) -> Result:
    """(c) The Trainer with the optimizations from its documentation.

    Batches of similar length from the whole data set, small ones accumulated to the global batch, bf16, data loader
    processes, the faster attention implementation, larger evaluation batches; on a GPU TF32 and widths that are
    multiples of 8.

    group_by_length makes one step of long texts and the next of short ones, the first few of the longest of all: its
    batches, as they are, are run in an order in which each round has batches of the usual cost.
    """
    from transformers import Trainer

    class Spread(Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            train_dataset = self.train_dataset if train_dataset is None else train_dataset
            order = np.array(list(super()._get_train_sampler(train_dataset) or ()))
            whole = order[: len(order) // work.batch * work.batch].reshape(-1, work.batch)
            lengths = np.array([len(ids) for ids in train_dataset["input_ids"]])
            network: Any = self.model
            costs = models.forward_flops(network.config, lengths)[0][whole].sum(axis=1)
            seed = typical_seed(costs, 1, turns.warmup, turns.steps_per_turn, turns.rounds)
            return whole[planner.epoch_order(len(whole), seed, 0)].ravel().tolist()

    arguments = {
        "train_sampling_strategy": "group_by_length",
        "per_device_train_batch_size": device_batch,
        "gradient_accumulation_steps": work.batch // device_batch,
        "per_device_eval_batch_size": 4 * DEFAULT_EVALUATION_BATCH,
        "dataloader_num_workers": workers,
        "bf16": bf16,
        "tf32": True if torch.cuda.is_available() else None,
    }
    return _trained(Spread, work, turns, arguments, attention, multiple=8 if torch.cuda.is_available() else 1)


def _trained(
    trainer: type, work: Work, turns: Turns, arguments: dict[str, Any], attention: str = "sdpa", multiple: int = 1
) -> Result:
    from datasets import load_from_disk
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        TrainingArguments,
    )

    data = load_from_disk(work.path / "tokens")
    tokenizer = AutoTokenizer.from_pretrained(work.model())
    model = AutoModelForSequenceClassification.from_pretrained(work.model(), attn_implementation=attention)
    running = trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(work.path / "trainer"),
            max_steps=turns.total_steps,
            learning_rate=work.learning_rate,
            weight_decay=WEIGHT_DECAY,
            seed=work.seed,
            save_strategy="no",
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
            disable_tqdm=True,
            **arguments,
        ),
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=multiple),
        compute_metrics=lambda given: {"right": int((given.predictions.argmax(-1) == given.label_ids).sum())},
    )
    running.train()
    return _evaluated(turns, len(data["validation"]), lambda: running.evaluate()["eval_right"])


def accelerate_loop(work: Work, turns: Turns, dropout: bool = True) -> Result:
    """(d) The loop of the example run_glue_no_trainer.py: Accelerate, each batch padded to its longest, shuffled.

    Gradients are clipped to norm 1, as the Trainer and ours do. Without dropout it is the reference that our losses
    are compared with.
    """
    from accelerate import Accelerator
    from datasets import load_from_disk
    from torch.utils.data import DataLoader
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        get_scheduler,
    )

    accelerator = Accelerator(mixed_precision="no")
    data = load_from_disk(work.path / "tokens")
    tokenizer = AutoTokenizer.from_pretrained(work.model())
    collator = DataCollatorWithPadding(tokenizer)
    train_dataloader = DataLoader(data["train"], collate_fn=collator, batch_size=work.batch)
    eval_dataloader = DataLoader(data["validation"], collate_fn=collator, batch_size=DEFAULT_EVALUATION_BATCH)
    model = AutoModelForSequenceClassification.from_pretrained(work.model(dropout))
    exempt = ("bias", "LayerNorm.weight")
    named = list(model.named_parameters())
    groups = [
        {"params": [p for n, p in named if not n.endswith(exempt)], "weight_decay": WEIGHT_DECAY},
        {"params": [p for n, p in named if n.endswith(exempt)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=work.learning_rate)
    scheduler = get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=turns.total_steps)
    model, optimizer, train_dataloader, eval_dataloader, scheduler = accelerator.prepare(
        model, optimizer, train_dataloader, eval_dataloader, scheduler
    )
    model.train()
    losses = []
    for batch in islice(train_dataloader, turns.total_steps):
        loss = model(**batch).loss
        losses.append(loss.detach())
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()

    def right() -> int:
        model.eval()
        correct = 0
        for batch in eval_dataloader:
            with torch.no_grad():
                predictions = model(**batch).logits.argmax(dim=-1)
            predictions, references = accelerator.gather_for_metrics((predictions, batch["labels"]))
            correct += int((predictions == references).sum())
        return correct

    return {**_evaluated(turns, len(data["validation"]), right), "losses": [float(loss) for loss in losses]}


def ours(work: Work, turns: Turns, flags: list[str], dropout: bool = True) -> Result:
    """This project's job by its command line: job/train.py with files, model and recipe. `flags` are added.

    It evaluates once, at the end; further evaluations are runs with --no_do_train. Their time is that of all logits
    and metrics; the import of `evaluate`, once in a run, is not in it.
    """
    from job import train

    folder = Path(tempfile.mkdtemp(dir=work.path), "run")
    with _timed_evaluations(turns):
        _run(train.main, [*recipe(work, work.model(dropout), turns.total_steps), *flags, "--output_dir", str(folder)])
        while turns.evaluations:
            again = [*recipe(work, str(folder / "model"), turns.total_steps), *flags, "--no_do_train"]
            _run(train.main, [*again, "--output_dir", str(folder.with_name(f"evaluation-{turns.evaluations}"))])
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [line["loss"] for line in map(json.loads, lines) if line["split"] == "train"]
    return {"accuracy": results["eval"]["accuracy"], "losses": losses}


def recipe(work: Work, model: str, steps: int) -> list[str]:
    """The shared recipe as flags of the job."""
    return [
        *("--train_file", str(work.path / "train.jsonl"), "--validation_file", str(work.path / "validation.jsonl")),
        *("--model_name_or_path", model, "--max_seq_length", str(work.max_length)),
        *("--train_batch_size", str(work.batch), "--max_steps", str(steps), "--seed", str(work.seed)),
        *("--learning_rate", str(work.learning_rate), "--weight_decay", str(WEIGHT_DECAY), "--warmup_ratio", "0"),
        *("--eval_strategy", "no"),
    ]


def _run(main: Any, argv: list[str]) -> None:
    code = main(argv)
    if code:
        raise RuntimeError(f"job/train.py {' '.join(argv)} ended with {code}")


@contextmanager
def _timed_evaluations(turns: Turns) -> Iterator[None]:
    """Report how long the job takes from the first batch of an evaluation to its last metric."""
    from job.evaluation import evaluator, metrics

    predict, scores = evaluator.predict, metrics.scores
    spent = [0.0]

    def timed_predict(*args: Any, **options: Any) -> Any:
        begun = turns.clock()
        predictions = predict(*args, **options)
        spent[0] = turns.clock() - begun
        return predictions

    def timed_scores(predictions: Any, *args: Any) -> Any:
        begun = turns.clock()
        result = scores(predictions, *args)
        turns.evaluated(len(predictions.logits), spent[0] + turns.clock() - begun)
        return result

    evaluator.predict, metrics.scores = timed_predict, timed_scores  # type: ignore[assignment]
    yield
    evaluator.predict, metrics.scores = predict, scores


def _evaluated(turns: Turns, examples: int, right: Any) -> Result:
    """Evaluate as often as requested; `right` evaluates once and returns how many examples were right."""
    accuracy = None
    while turns.evaluations:
        with turns.evaluation(examples):
            accuracy = right() / examples
    return {"accuracy": accuracy}


def matrix_product(work: Work, turns: Turns, tokens: int) -> Result:
    """The machine itself, a contestant like the others: how fast its matrix products are in each round."""
    from tests.bench import machine

    shapes = machine.layer_shapes(tokens, work.hidden, work.inner)
    turns.pause("first", seconds=0.0)
    for _ in range(turns.rounds):
        rates = {kind: machine.flops_per_second(shapes, kind, "cpu", seconds=1.0) for kind in ("fp32", "bf16")}
        turns.pause("train", **rates)
    return {"accuracy": None}
