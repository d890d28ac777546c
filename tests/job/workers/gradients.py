"""On every process: the gradient of one global batch under several token limits. Started by torchrun.

Arguments: folder for results, model folder, expected number of processes, examples, token limits.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from job import environment

environment.prepare()

import numpy as np
import torch
from safetensors.torch import save_file

from job import batches, collate, loop, model, optim, processes
from job.config import Config, Model, Training
from job.labels import CLASSES, Task
from tests.support.examples import split_of


def main(out: Path, folder: str, world: int, examples: int, limits: list[int]) -> None:
    accelerator = processes.start(Config())
    assert accelerator.num_processes == world, f"{accelerator.num_processes} processes, not {world}"
    pretrained = model.load_config(Model(model_name_or_path=folder))
    tokenizer = model.load_tokenizer(Model(model_name_or_path=folder), pretrained)
    torch.manual_seed(7)
    task = Task(CLASSES, ("red", "green", "blue"))
    network = model.load(Model(model_name_or_path=folder), pretrained, task, tokenizer.pad_token_id)
    training = Training()
    wrapped, optimizer = accelerator.prepare(network, optim.optimizer(network, training))
    wrapped.train()
    split = split_of(examples, classes=3, seed=1)
    batch = partial(collate.padded, split, tokenizer, accelerator.device)
    for limit in limits:
        optimizer.zero_grad()
        plan = batches.plan_step(np.arange(examples), split.lengths, limit, world, limit)[accelerator.process_index]
        trainee = loop.Trainee(wrapped, optimizer, optim.schedule(optimizer, training, 1))
        mine, _ = loop.gradients(trainee, batch, plan, examples, accelerator)
        total = accelerator.reduce(mine, "sum") / examples
        if accelerator.is_main_process:
            found = {name: p.grad.clone() for name, p in accelerator.unwrap_model(wrapped).named_parameters()}
            save_file({**found, "loss": total.reshape(1)}, out / f"{limit}.safetensors")
    del wrapped, optimizer, trainee, network
    processes.stop(accelerator)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), [int(limit) for limit in sys.argv[5:]])
