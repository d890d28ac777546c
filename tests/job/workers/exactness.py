"""On every process: predictions of data sets of many sizes, and gradients of one global batch under several limits.

Packed and padded, each into a folder of its own. Started by torchrun. Arguments: folder for results, model folder,
expected number of processes, sizes and token limits, each by commas, and the examples of the global batch.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from job.runtime import environment

environment.prepare()

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import save_file

from job import distributed
from job.batching import forms
from job.batching.loader import BatchLoader
from job.config import Config, Model, Training
from job.config.tasks import SINGLE_LABEL, Task
from job.evaluation import metrics, prediction
from job.model import loading, tokenizers
from job.report import summary
from job.training import loop
from job.training import optimizer as optim
from job.training.state import TrainState
from tests.support.examples import split_of

TASK = Task(SINGLE_LABEL, ("red", "green", "blue"))


def loaded(config: Config) -> tuple[Any, Any]:
    """The model, with a head that is the same on every process, and its tokenizer."""
    pretrained = loading.load_config(config.model)
    tokenizer = tokenizers.load(config.model, pretrained)
    torch.manual_seed(7)
    return loading.load(config.model, pretrained, TASK, tokenizer.pad_token_id), tokenizer


def predict(out: Path, config: Config, sizes: list[int], accelerator: Accelerator) -> None:
    network, tokenizer = loaded(config)
    wanted = metrics.load(["accuracy"], SINGLE_LABEL) if accelerator.is_main_process else {}
    correct, form = {}, None
    for size in sizes:
        split = split_of(size, classes=3, seed=size)
        form = form or forms.choose(config, network, tokenizer, [split], accelerator)
        assert form.packed == config.model.packing, str(form)
        predictions = prediction.predict(network, SINGLE_LABEL, BatchLoader(split, form, accelerator), 64)
        if accelerator.is_main_process:
            correct[size] = metrics.scores(predictions, wanted)["correct"]
            summary.write_predictions(predictions, TASK.names, out / f"{size}.parquet")
    if accelerator.is_main_process:
        (out / "correct.json").write_text(json.dumps(correct))


def gradients(out: Path, config: Config, examples: int, limits: list[int], accelerator: Accelerator) -> None:
    network, tokenizer = loaded(config)
    training = Training()
    split = split_of(examples, classes=3, seed=1)
    form = forms.choose(config, network, tokenizer, [split], accelerator)
    assert form.packed == config.model.packing, str(form)
    wrapped, optimizer = accelerator.prepare(network, optim.optimizer(network, training))
    wrapped.train()
    losses_of = loop.example_losses(SINGLE_LABEL, training)
    state = TrainState(wrapped, optimizer, optim.schedule(optimizer, training, 1))
    for limit in limits:
        optimizer.zero_grad()
        batch = BatchLoader(split, form, accelerator, overhead=limit).step(np.arange(examples), limit)
        mine, _ = loop.gradients(state, batch.mine, examples, accelerator, losses_of)
        total = accelerator.reduce(mine, "sum") / examples
        if accelerator.is_main_process:
            found = {name: p.grad.clone() for name, p in accelerator.unwrap_model(wrapped).named_parameters()}
            save_file({**found, "loss": total.reshape(1)}, out / f"{limit}.safetensors")


def main(out: Path, folder: str, world: int, sizes: list[int], limits: list[int], examples: int) -> None:
    accelerator = distributed.start(Config())
    assert accelerator.num_processes == world, f"{accelerator.num_processes} processes, not {world}"
    for form in ("packed", "padded"):
        config = Config(model=Model(model_name_or_path=folder, packing=form == "packed"))
        (out / form).mkdir(parents=True, exist_ok=True)
        predict(out / form, config, sizes, accelerator)
        gradients(out / form, config, examples, limits, accelerator)
    distributed.stop(accelerator)


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    out, folder, world, sizes, limits, examples = sys.argv[1:]
    main(Path(out), folder, int(world), numbers(sizes), numbers(limits), int(examples))
