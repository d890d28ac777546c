"""Fine-tune a pretrained model for text classification: config -> data -> model -> loop -> evaluation -> run folder.

    accelerate launch job/train.py                                        # the demo
    accelerate launch job/train.py mrpc --learning_rate 3e-5              # a recipe, one setting changed
    accelerate launch job/train.py --train_file a.csv --validation_file b.csv

This file tells the story; each chapter is a module. Torch is imported only after the flags have been checked, so that a
typing error is answered in tenths of a second and the environment is made before any library reads it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # run from a checkout or snapshot: this code, not an installed copy
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from job import config as configuration
from job import environment, preflight
from job.config import Config
from job.errors import JobError, Refused

if TYPE_CHECKING:
    from accelerate import Accelerator

    from job.run_folder import RunFolder

EXIT_CODE_FILE = "MUSTER_EXIT_CODE_FILE"


def main(argv: list[str]) -> int:
    """Run the command line on this process and return its exit code; one line for what the user can mend."""
    try:
        environment.prepare()
        config = configuration.parse(argv)
        preflight.check(config)
        train(config, configuration.run_name(argv))
        code = 0
    except JobError as error:
        if os.environ.get("RANK", "0") == "0":  # all ranks raise the same: said once
            print(f"error: {error}", file=sys.stderr, flush=True)
        code = error.exit_code
    except Exception:
        traceback.print_exc()
        code = 1
    report_exit_code(code)
    return code


def train(config: Config, name: str = "run") -> dict[str, Any]:
    """Train and evaluate as configured on this process and those started with it; returns what results.json holds.

    To be called from a notebook as `accelerate.notebook_launcher(train, (config,))`.

    Args:
        config: all settings.
        name: what a new run folder's name begins with, where config.run.output_dir is unset.

    Raises:
        JobError: on every process: a request that cannot be carried out, or a loss that is not finite.
    """
    environment.prepare()
    preflight.check(config)
    from job import processes, run_folder

    accelerator = processes.start(config)
    path = Path(processes.from_main(accelerator, lambda: config.run.output_dir or str(run_folder.new_path(name))))
    folder = run_folder.RunFolder(path.absolute())
    if processes.from_main(accelerator, lambda: run_folder.claim(folder, config)):
        results = processes.from_main(accelerator, lambda: read_finished(folder))
    else:
        try:
            with run_folder.status_of(folder, accelerator.is_main_process):
                results = run(config, accelerator, folder)
        except Refused:
            if accelerator.is_main_process:
                run_folder.discard_if_new(folder, config)
            raise
    processes.stop(accelerator)
    return results


def run(config: Config, accelerator: Accelerator, folder: RunFolder) -> dict[str, Any]:
    """The run itself, from the data to the published model; returns what results.json holds."""
    from accelerate.utils import set_seed

    from job import data, finetune, model, processes, report, run_folder, tracking

    with processes.agreed(accelerator):
        tracking.start_trackers(config.run.report_to, accelerator, folder)
        pretrained = model.load_config(config.model)
        tokenizer = model.load_tokenizer(config.model, pretrained)
        length = model.max_length(config.data.max_seq_length, pretrained, tokenizer)
    task = model.own_task(pretrained)
    read = processes.main_first(accelerator, lambda: data.prepare(config, tokenizer, task, length))
    report.begin(config, read, task, accelerator, folder)

    set_seed(config.training.seed)
    with processes.agreed(accelerator):
        network = model.load(config.model, pretrained, read.task, tokenizer.pad_token_id)
    if config.training.do_train:
        weights = sum(tensor.nbytes for tensor in network.state_dict().values())
        processes.from_main(accelerator, lambda: run_folder.require_space(folder, weights))
        outcome = finetune.finetune(config, network, tokenizer, read, accelerator, folder)
    else:
        outcome = finetune.evaluate_only(config, network, tokenizer, read, accelerator, folder)

    return processes.from_main(accelerator, lambda: report.publish(config, outcome, tokenizer, read, folder))


def read_finished(folder: RunFolder) -> dict[str, Any]:
    """The results of a run that was complete before this start."""
    print(f"{folder.path} holds this very run, finished: nothing to do", file=sys.stderr)
    return json.loads(folder.results.read_text(encoding="utf-8"))


def report_exit_code(code: int) -> None:
    """Tell our own launcher the code in the file it named: the launchers in between make every failure a 1.

    The first failure counts: what ends the other processes then is its consequence.
    """
    path = os.environ.get(EXIT_CODE_FILE)
    if path and (code or os.environ.get("RANK", "0") == "0"):
        with contextlib.suppress(FileExistsError), open(path, "x", encoding="ascii") as file:
            file.write(str(code))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
