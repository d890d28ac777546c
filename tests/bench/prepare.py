"""A workload's folder: text, model, tokens. Made once, before any contestant starts, and the same for all.

    train.jsonl, validation.jsonl        what ours is given, as a user would give it
    tokens/                              the same rows, tokenised, in the common order: what the peers are given
    padded/                              the first of these rows, padded to max_length: for the tutorial's loop
    model/, model-without-dropout/       weights, tokenizer, head
    work.json                            the rest of Work

The peers get their tokens ready, ours reads its text through its own cache, filled here: both tokenize in a first run
only. That the tokens are equal is checked.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PADDED_STEPS = 64
SEEDS = 4000


@dataclass(frozen=True)
class Work:
    """The input of a contestant; work.json.

    Attributes:
        folder: see above.
        seed: of the order of examples (and of dropout).
        batch: examples of an optimizer step.
        learning_rate: its first value; it falls linearly to 0.
        max_length: tokens kept of an example.
        pair: whether an example is two texts.
        tokens: mean of an example.
        flops, needed_flops: of the forward pass of an example, mean; see models.forward_flops.
        hidden, inner: sizes of the model's layers.
        lengths: quantiles 0, 0.05, 0.25, 0.5, 0.75, 0.95 and 1 of the tokens of an example.
    """

    folder: str
    seed: int
    batch: int
    learning_rate: float
    max_length: int
    pair: bool
    tokens: float
    flops: float
    needed_flops: float
    hidden: int
    inner: int
    lengths: tuple[int, ...]

    @property
    def path(self) -> Path:
        return Path(self.folder)

    def model(self, dropout: bool = True) -> str:
        return str(self.path / ("model" if dropout else "model-without-dropout"))


def load(folder: str) -> Work:
    return Work(**json.loads(Path(folder, "work.json").read_text(encoding="utf-8")))


def main(spec: Mapping[str, Any]) -> None:
    """Make the folder. `spec`: folder, cache, workload, size, rows, evaluation_rows, batch, learning_rate, max_length,
    and `turn`, `warmup` and `rounds` of the contestants that are compared."""
    from job.runtime import environment

    environment.prepare()
    from datasets import DatasetDict
    from transformers import AutoTokenizer

    from tests.bench import models, workloads

    folder = Path(spec["folder"])
    rows = workloads.read(spec["workload"], Path(spec["cache"]), spec["rows"], spec["evaluation_rows"])
    workloads.write(rows, folder)
    classes = sorted({row["label"] for row in rows["train"]})
    texts = [text for row in rows["train"] for name, text in row.items() if name != "label"]
    models.make(spec["size"], classes, texts, folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    tokens = {split: _tokenised(part, tokenizer, classes, spec["max_length"]) for split, part in rows.items()}
    work, order = _work(spec, tokens["train"], "sentence1" in rows["train"][0])
    _check_ours_has_the_same(work, tokens)
    tokens["train"] = tokens["train"].select(order)
    DatasetDict(tokens).save_to_disk(folder / "tokens")
    first = tokens["train"].select(range(min(len(order), PADDED_STEPS * work.batch)))
    padded = DatasetDict(train=first, validation=tokens["validation"]).map(
        lambda part: tokenizer.pad(part, padding="max_length", max_length=work.max_length), batched=True
    )
    padded.save_to_disk(folder / "padded")
    (folder / "work.json").write_text(json.dumps(dataclasses.asdict(work)), encoding="utf-8")


def _tokenised(rows: list[Mapping[str, str]], tokenizer: Any, classes: list[str], max_length: int) -> Any:
    from datasets import Dataset

    columns = [name for name in rows[0] if name != "label"]
    encoded = tokenizer(
        *([row[name] for row in rows] for name in columns), truncation=True, max_length=max_length, padding=False
    )
    return Dataset.from_dict({**encoded, "labels": [classes.index(row["label"]) for row in rows]})


def _work(spec: Mapping[str, Any], train: Any, pair: bool) -> tuple[Work, Any]:
    import numpy as np
    from transformers import AutoConfig

    from job.batching import planner
    from tests.bench import models

    config = AutoConfig.from_pretrained(Path(spec["folder"], "model"))
    lengths = np.array([len(ids) for ids in train["input_ids"]])
    flops, needed = models.forward_flops(config, lengths)
    seed = typical_seed(flops, spec["batch"], spec["warmup"], spec["turn"], spec["rounds"])
    work = Work(
        folder=spec["folder"],
        seed=seed,
        batch=spec["batch"],
        learning_rate=spec["learning_rate"],
        max_length=spec["max_length"],
        pair=pair,
        tokens=float(lengths.mean()),
        flops=float(flops.mean()),
        needed_flops=float(needed.mean()),
        hidden=config.hidden_size,
        inner=config.intermediate_size,
        lengths=tuple(int(q) for q in np.quantile(lengths, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])),
    )
    return work, planner.epoch_order(len(train), seed, 0)


def typical_seed(costs: Any, batch: int, warmup: int, turn: int, rounds: int) -> int:
    """The seed whose shuffle gives every round examples that cost what the data set's do on average.

    A round sees a hundred examples of widely differing length: by chance, they would be longer or shorter by a tenth;
    chosen, they are so by one or two per cent.

    Args:
        costs: float64[n], of each example.
        batch: examples of a step.
        warmup: untimed steps at the beginning of a turn.
        turn: all steps of a turn; the first step of the run is before the first turn.
        rounds: turns.
    """
    import numpy as np

    from job.batching import planner

    def worst(seed: int) -> float:
        order = planner.epoch_order(len(costs), seed, 0)
        starts = [1 + number * turn for number in range(rounds)]
        timed = [costs[order[(start + warmup) * batch : (start + turn) * batch]].mean() for start in starts]
        return float(np.abs(np.array(timed) / costs.mean() - 1).max())

    return min(range(SEEDS), key=worst)


def _check_ours_has_the_same(work: Work, tokens: Mapping[str, Any]) -> None:
    """Fill the job's own cache of tokens, and compare them with the peers'."""
    from job import config
    from job.data import dataset
    from job.model import head, loading, tokenizers
    from tests.bench import contestants

    ours = config.parse(contestants.recipe(work, work.model(), 1))
    pretrained = loading.load_config(ours.model)
    tokenizer = tokenizers.load(ours.model, pretrained)
    read = dataset.prepare(ours, tokenizer, head.own_task(pretrained), work.max_length)
    for split, part in (("train", read.train), ("validation", read.evaluation)):
        assert part is not None
        theirs = tokens[split].with_format("numpy")
        same = all((a == b).all() for a, b in zip(part.tokens["input_ids"], theirs["input_ids"], strict=True))
        if not same or not (part.labels == theirs["labels"]).all():
            raise AssertionError(f"{split}: the job's tokens or labels differ from the peers'")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
