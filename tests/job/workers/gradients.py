"""On every process: the gradient of one global batch under several token limits. Started by torchrun.

Arguments: folder for results, model folder, expected number of processes, packed or padded, examples, token limits.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from job.runtime import environment

environment.prepare()

import numpy as np
import torch
from safetensors.torch import save_file

from job import distributed
from job.batching import loader, planner
from job.config import Config, Model, Training
from job.config.tasks import SINGLE_LABEL, Task
from job.model import loading, packing
from job.training import loop
from job.training import optimizer as optim
from tests.support.examples import split_of


def main(out: Path, folder: str, world: int, asked: str, examples: int, limits: list[int]) -> None:
    config = Config(model=Model(model_name_or_path=folder, packing=asked == "packed"))
    accelerator = distributed.start(config)
    assert accelerator.num_processes == world, f"{accelerator.num_processes} processes, not {world}"
    pretrained = loading.load_config(config.model)
    tokenizer = loading.load_tokenizer(config.model, pretrained)
    torch.manual_seed(7)
    task = Task(SINGLE_LABEL, ("red", "green", "blue"))
    network = loading.load(config.model, pretrained, task, tokenizer.pad_token_id)
    training = Training()
    wrapped, optimizer = accelerator.prepare(network, optim.optimizer(network, training))
    wrapped.train()
    split = split_of(examples, classes=3, seed=1)
    form = packing.choose(config, wrapped, tokenizer, split, accelerator)
    assert form.packed == (asked == "packed"), str(form)
    batch = form.collate(split)
    for limit in limits:
        optimizer.zero_grad()
        hands = planner.plan_step(np.arange(examples), split.lengths, limit, world, limit, form.multiple)
        plan = hands[accelerator.process_index]
        trainee = loop.Trainee(wrapped, optimizer, optim.schedule(optimizer, training, 1))
        share = loader.ready(plan, batch, accelerator.device)
        mine, _ = loop.gradients(trainee, share, examples, accelerator)
        total = accelerator.reduce(mine, "sum") / examples
        if accelerator.is_main_process:
            found = {name: p.grad.clone() for name, p in accelerator.unwrap_model(wrapped).named_parameters()}
            save_file({**found, "loss": total.reshape(1)}, out / f"{limit}.safetensors")
    del form, batch, wrapped, optimizer, trainee, network
    distributed.stop(accelerator)


if __name__ == "__main__":
    main(
        Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]), [int(n) for n in sys.argv[6:]]
    )
