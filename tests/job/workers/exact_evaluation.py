"""On every process: predict data sets of many sizes and write what the gathered result is. Started by torchrun.

Arguments: folder for results, model folder, expected number of processes, packed or padded, sizes.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from job.runtime import environment

environment.prepare()

import torch

from job import distributed
from job.config import Config, Model
from job.config.tasks import SINGLE_LABEL, Task
from job.evaluation import metrics, prediction
from job.model import loading, packing
from job.report import summary
from tests.support.examples import split_of


def main(out: Path, folder: str, world: int, asked: str, sizes: list[int]) -> None:
    config = Config(model=Model(model_name_or_path=folder, packing=asked == "packed"))
    accelerator = distributed.start(config)
    assert accelerator.num_processes == world, f"{accelerator.num_processes} processes, not {world}"
    pretrained = loading.load_config(config.model)
    tokenizer = loading.load_tokenizer(config.model, pretrained)
    torch.manual_seed(7)
    task = Task(SINGLE_LABEL, ("red", "green", "blue"))
    network = loading.load(config.model, pretrained, task, tokenizer.pad_token_id)
    network = accelerator.prepare_model(network, evaluation_mode=True)
    loaded = metrics.load(["accuracy"], SINGLE_LABEL) if accelerator.is_main_process else {}
    correct, form = {}, None
    for size in sizes:
        split = split_of(size, classes=3, seed=size)
        form = form or packing.choose(config, network, tokenizer, split, accelerator)
        assert form.packed == (asked == "packed"), str(form)
        predictions = prediction.predict(
            network, SINGLE_LABEL, split, form.collate(split), accelerator, 64, form.multiple
        )
        if accelerator.is_main_process:
            correct[size] = metrics.scores(predictions, loaded)["correct"]
            summary.write_predictions(predictions, task.names, out / f"{size}.parquet")
    if accelerator.is_main_process:
        (out / "correct.json").write_text(json.dumps(correct))
    distributed.stop(accelerator)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], [int(size) for size in sys.argv[5:]])
