"""On every process: predictions of data sets of many sizes, and gradients of one global batch under several limits.

Packed, padded and, gradients alone, packed with adapters, each into a folder of its own. Started by torchrun.
Arguments: folder for results, model folder, expected number of processes, sizes and token limits, each by commas, and
the examples of the global batch.
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
import torch.nn.functional as F
from accelerate import Accelerator
from safetensors.torch import save_file

from job import distributed
from job.batching import forms
from job.batching.forms import Form
from job.batching.loader import BatchLoader
from job.config import Config, Model, Training
from job.config.tasks import SINGLE_LABEL, Task
from job.data.dataset import Split
from job.evaluation import metrics, prediction
from job.model import loading, lora, tokenizers
from job.report import summary
from job.training import loop, objective
from job.training import optimizer as optim
from job.training.state import TrainState
from tests.support.examples import split_of

TASK = Task(SINGLE_LABEL, ("red", "green", "blue"))
WEIGHTS, SMOOTHING = {"red": 5.0, "green": 1.0, "blue": 0.25}, 0.1
WEIGHTED = Training(class_weights=WEIGHTS, label_smoothing_factor=SMOOTHING)


def loaded(config: Config) -> tuple[Any, Any]:
    """The model, with a head that is the same on every process, and its tokenizer."""
    pretrained = loading.load_config(config.model)
    tokenizer = tokenizers.load(config.model, pretrained)
    torch.manual_seed(7)
    network, new = loading.load(config.model, pretrained, TASK, tokenizer.pad_token_id)
    if config.model.lora_rank:
        lora.attach(config.model, network, new)
        for name, parameter in network.named_parameters():
            if "lora_B" in name:  # which begins as zero, and then lora_A has no gradient
                torch.nn.init.normal_(parameter, std=0.1)
    return network, tokenizer


def predict(out: Path, config: Config, sizes: list[int], accelerator: Accelerator) -> None:
    network, tokenizer = loaded(config)
    chosen = metrics.load(["accuracy"], SINGLE_LABEL) if accelerator.is_main_process else {}
    correct, form = {}, None
    for size in sizes:
        split = split_of(size, classes=3, seed=size)
        form = form or forms.choose(config, network, tokenizer, [split], accelerator)
        assert form.packed == config.model.packing, str(form)
        predictions = prediction.predict(network, SINGLE_LABEL, BatchLoader(split, form, accelerator), 64)
        if accelerator.is_main_process:
            correct[size] = metrics.scores(predictions, chosen)["correct"]
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
    device = accelerator.device
    plain, weighted = (objective.objective(TASK, settings, split, device) for settings in (training, WEIGHTED))
    state = TrainState(wrapped, optimizer, optim.schedule(optimizer, training, 1))
    for limit in limits:
        batch = BatchLoader(split, form, accelerator, overhead=limit).step(np.arange(examples), limit)
        own = np.concatenate([micro.indices for micro, _ in batch.mine if micro.weight])
        variants = {"": (plain, examples), "weighted-": (weighted, weighted.divisor(np.arange(examples)))}
        # What is wrong: each process divides by the weights of its own rows, and DDP takes the mean.
        variants["per-process-"] = (weighted, weighted.divisor(own) * accelerator.num_processes)
        for name, (chosen, divisor) in variants.items():
            optimizer.zero_grad()
            mine, _ = loop.gradients(state, batch.mine, divisor, accelerator, chosen.losses)
            total = accelerator.reduce(mine / divisor, "sum")
            if accelerator.is_main_process:
                alone = accelerator.unwrap_model(wrapped)
                gradients = {name: p.grad.clone() for name, p in alone.named_parameters() if p.grad is not None}
                save_file({**gradients, "loss": total.reshape(1)}, out / f"{name}{limit}.safetensors")
    if accelerator.num_processes == 1:
        by_torch(out, accelerator.unwrap_model(wrapped), split, form)


def by_torch(out: Path, network: Any, split: Split, form: Form) -> None:
    """The gradient of torch's own weighted mean, of all rows at once."""
    network.zero_grad()
    inputs, labels = form.collate(split)(np.arange(len(split)))
    assert labels is not None
    weights = torch.tensor([WEIGHTS[name] for name in TASK.names])
    loss = F.cross_entropy(network(**inputs).logits, labels, weights, label_smoothing=SMOOTHING)
    loss.backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    save_file({**gradients, "loss": loss.detach().reshape(1)}, out / "by-torch.safetensors")


def main(out: Path, folder: str, world: int, sizes: list[int], limits: list[int], examples: int) -> None:
    accelerator = distributed.start(Config())
    assert accelerator.num_processes == world, f"{accelerator.num_processes} processes, not {world}"
    for form in ("packed", "padded", "adapted"):
        rank = 4 if form == "adapted" else 0
        config = Config(model=Model(model_name_or_path=folder, packing=form != "padded", lora_rank=rank))
        (out / form).mkdir(parents=True, exist_ok=True)
        if not rank:
            predict(out / form, config, sizes, accelerator)
        gradients(out / form, config, examples, limits, accelerator)
    distributed.stop(accelerator)


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    out, folder, world, sizes, limits, examples = sys.argv[1:]
    main(Path(out), folder, int(world), numbers(sizes), numbers(limits), int(examples))
