"""Fine-tune a pretrained model for text classification: config -> data -> model -> loop -> evaluation -> run folder.

    accelerate launch job/train.py                                        # the demo
    accelerate launch job/train.py mrpc --learning_rate 3e-5              # a recipe, one setting changed
    accelerate launch job/train.py --train_file a.csv --validation_file b.csv

This file runs the phases of a job in order; each phase is a module. Torch is imported only after the flags have been
checked: a typo is reported in tenths of a second, and environment variables are set before any library reads them.
"""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # in a checkout or snapshot, run its code and not an installed copy
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from job.runtime import environment, signals

if __name__ == "__main__":  # before the slow imports below: a signal may arrive meanwhile
    signals.install()

from job import checks
from job import config as configuration
from job.config import Config
from job.errors import SMALLER, JobError, LostProcess, NonFiniteLoss, NonFiniteOutput, Pruned, Stopped
from job.runtime import console, ending
from job.runtime.console import log

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from job.config.tasks import Task
    from job.data.dataset import Data
    from job.model.lora import Adapter
    from job.run.context import RunContext
    from job.run.opening import Opened
    from job.run.trial import Trial

    Leave = Callable[[Stopped], object]

CAUSE = 400
"""Characters of a library's error that are shown: NCCL names what failed at the end of a long message."""


def main(argv: list[str], prog: str = "job/train.py", leave: Leave | None = None) -> int:
    """Run the command line on this process and return the exit code. Errors that the user can fix are one line.

    `leave` is called before the process ends, if it is stopped while it waits for the others to start.
    """
    signals.install()
    console.install()
    rank = "LOCAL_RANK"  # until the processes have joined, an error may be of one machine alone
    try:
        environment.prepare()
        config = configuration.parse(argv, prog)
        checks.check(config)
        accelerator = _join(config, leave)
        rank = "RANK"
        _carry_out(config, configuration.run_name(argv), accelerator)
        code = 0
    except JobError as error:
        if console.traceback_wanted():
            log.error(traceback.format_exc().rstrip())
        if os.environ.get(rank, "0") == "0" or not error.on_every_rank:  # the others raise the same: print it once
            console.last_line(f"{'' if isinstance(error, Stopped | Pruned) else 'error: '}{error}")
        code = error.exit_code
    except Exception as error:  # noqa: BLE001  anything else is a bug: show the traceback
        line = _explanation(error)
        if line is None or console.traceback_wanted():
            log.error(traceback.format_exc().rstrip())  # in one call: other ranks write too
        if line is not None:
            console.last_line(f"error: {line}")
        code = 1
    ending.report_exit_code(code)
    return code


def train(config: Config, name: str = "run") -> dict[str, Any]:
    """Train and evaluate as configured, together with the other processes; returns the content of results.json.

    From a notebook: `accelerate.notebook_launcher(train, (config,))`.

    Args:
        config: all settings.
        name: prefix of a new run folder's name, if config.run.output_dir is unset.

    Raises:
        JobError: on every process: the request cannot be carried out, or the loss is not finite.
    """
    environment.prepare()
    checks.check(config)
    return _carry_out(config, name, _join(config))


def _join(config: Config, leave: Leave | None = None) -> Accelerator:
    """Join the other processes."""
    from job import distributed

    with (
        signals.stop_while_waiting_for_peers(leave or ending.say_stopped),
        console.notice("waiting for the other processes"),
    ):
        return distributed.start(config)


def _carry_out(config: Config, name: str, accelerator: Accelerator) -> dict[str, Any]:
    """Open the run folder, run, and leave the process group."""
    from job import distributed
    from job.run import opening, resuming
    from job.run.context import RunContext
    from job.run.status import Status

    opened = distributed.broadcast_from_main(accelerator, lambda: opening.open_run(config, name))
    if opened.pruned:
        distributed.stop(accelerator)
        raise Pruned(f"nothing to do: the trial in {opened.folder.path} was pruned")
    if opened.results is not None:
        _complete(opened, accelerator)
        distributed.stop(accelerator)
        return opened.results
    status, ended_by = Status(opened.folder, accelerator.is_main_process), None
    stopped: Stopped | Pruned | None = None
    try:
        command_known = resuming.with_command(opened.folder, opened.config.run)
        with status.running(), _reporting_the_end(accelerator, opened.trial), command_known, _as_lost_process():
            context = RunContext(opened.config, accelerator, opened.folder, status, opened.trial)
            results = run(context, opened.resume_from)
    except (Stopped, Pruned) as stop:
        stopped = stop.with_traceback(None)  # it references the model, which must be freed before the process group
    except Exception as error:
        ended_by = error
        raise
    finally:
        if accelerator.is_main_process:
            opening.close_run(opened, ended_by)
    distributed.stop(accelerator)
    if stopped is not None:
        raise stopped
    return results


def _complete(opened: Opened, accelerator: Accelerator) -> None:
    """For a run that has finished before: complete what a kill left undone, then write --output_file and upload, if
    requested."""
    from job import distributed
    from job.report import summary, upload
    from job.run import opening

    try:
        distributed.broadcast_from_main(accelerator, lambda: summary.complete(opened.config, opened.folder))
        distributed.broadcast_from_main(accelerator, lambda: write_output_file(opened))
        _end_trial(accelerator, opened.trial)
        if opened.upload_is_due:
            distributed.broadcast_from_main(accelerator, lambda: upload.push_finished(opened.config, opened.folder))
    finally:
        opening.close_run(opened)


@contextlib.contextmanager
def _reporting_the_end(accelerator: Accelerator, trial: Trial | None) -> Iterator[None]:
    """Report the end of a trial to its search, where a loss that is not finite is a bad result and not a failure."""
    pruned: Pruned | None = None
    try:
        yield
    except (NonFiniteLoss, NonFiniteOutput) as error:
        if trial is None:
            raise
        pruned = Pruned(f"pruned: {error}")
    except Pruned as error:
        pruned = error.with_traceback(None)
    _end_trial(accelerator, trial, pruned=pruned is not None)
    if pruned is not None:
        raise pruned


@contextlib.contextmanager
def _as_lost_process() -> Iterator[None]:
    """Inside this context, a failed exchange with the other processes is raised as LostProcess."""
    from job import distributed
    from job.batching import oom

    try:
        yield
    except Exception as error:
        if oom.is_out_of_memory(error) or not distributed.lost_another(error):
            raise
        raise LostProcess(f"{_lost(error)}; run") from error


def _end_trial(accelerator: Accelerator, trial: Trial | None, *, pruned: bool = False) -> None:
    from job import distributed

    if trial is not None:
        distributed.broadcast_from_main(accelerator, lambda: trial.end(pruned=pruned))


def run(context: RunContext, resumed: Path | None) -> dict[str, Any]:
    """Run the job, from the data to the saved model; returns the content of results.json.

    `resumed` is the checkpoint to resume from, if any.
    """
    from accelerate.utils import set_seed

    from job import distributed
    from job.model import head, limits, loading, tokenizers
    from job.report import summary, upload
    from job.run import checkpoints, manifest, trackers
    from job.run import folder as run_folder
    from job.training import consistency, finetune

    config, accelerator, folder = context.config, context.accelerator, context.folder
    as_is = not config.training.do_train
    target = None
    precision = accelerator.mixed_precision
    distributed.broadcast_from_main(accelerator, lambda: consistency.refuse_other_precision(resumed, precision))
    if config.hub.push_to_hub:
        prepare = upload.prepare if resumed is None else upload.prepare_resumed
        target = distributed.broadcast_from_main(accelerator, lambda: prepare(config, folder))
    with distributed.raise_on_all(accelerator), console.notice("loading the model's configuration and tokenizer"):
        first_step = None if resumed is None else checkpoints.step_of(resumed) + 1
        trackers.start(config.run.report_to, accelerator, folder, first_step)
        pretrained = loading.load_config(config.model)
        loading.check_settings(config.model, pretrained)
        task = head.own_task(pretrained, required=as_is)
        tokenizer = tokenizers.load(config.model, pretrained, as_is)
        length = limits.max_length(config.data.max_seq_length, pretrained, tokenizer, as_is)
        tokenizer.model_max_length = length  # saved with the model, so that others truncate texts the same way
        signals.raise_if_stopping()
    with manifest.timed(folder, "data", accelerator.is_main_process):
        read = _read_data(context, tokenizer, task, length)
        distributed.broadcast_from_main(accelerator, lambda: consistency.refuse_other_data(resumed, read))
        summary.begin(context, read, task, resumed)

    set_seed(config.training.seed)
    network, adapter, weights = _load_model(context, pretrained, tokenizer, read)
    if config.training.do_train:
        updated = sum(parameter.nbytes for parameter in network.parameters() if parameter.requires_grad)
        distributed.broadcast_from_main(accelerator, lambda: run_folder.require_space(folder, weights, updated))
        distributed.broadcast_from_main(accelerator, lambda: consistency.refuse_other_settings(resumed, network.config))
        distributed.broadcast_from_main(accelerator, lambda: consistency.refuse_other_base(resumed, adapter))
        outcome = finetune.finetune(context, network, tokenizer, read, resumed, adapter)
    else:
        consistency.refuse_differing_weights(accelerator, network)
        outcome = finetune.evaluate_only(context, network, tokenizer, read)

    def publish() -> dict[str, Any]:
        with run_folder.interrupted_by_disk_errors(folder), console.notice("writing the results"):
            return summary.publish(config, outcome, tokenizer, read, folder)

    results = distributed.broadcast_from_main(accelerator, publish)
    if config.hub.push_to_hub:
        distributed.broadcast_from_main(accelerator, lambda: upload.push(config, folder, target))
    return results


def _read_data(context: RunContext, tokenizer: PreTrainedTokenizerBase, task: Task | None, length: int) -> Data:
    """The tokenized data of the run, the same on every process."""
    from job import distributed
    from job.batching import loader
    from job.data import dataset
    from job.training import consistency

    config, accelerator = context.config, context.accelerator
    with console.notice("reading and tokenizing the data"):
        read = distributed.main_process_first(
            accelerator, signals.interruptible(lambda: dataset.prepare(config, tokenizer, task, length))
        )
    consistency.refuse_differing_data(accelerator, read)
    loader.check_token_limits(config, read)
    return read


def _load_model(
    context: RunContext, pretrained: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, read: Data
) -> tuple[PreTrainedModel, Adapter | None, int]:
    """The model, its adapters if it has any, and the bytes of its weights without them."""
    from job import distributed
    from job.model import loading, lora, readable
    from job.run import manifest

    config, accelerator = context.config, context.accelerator
    with (
        manifest.timed(context.folder, "model", accelerator.is_main_process),
        distributed.raise_on_all(accelerator),
        console.notice("loading the model"),
    ):
        readable.check_rows(read, tokenizer, pretrained)
        network, new = loading.load(
            config.model, pretrained, read.task, tokenizer.pad_token_id, as_is=not config.training.do_train
        )
        weights = sum(parameter.nbytes for parameter in network.parameters())
        adapter = lora.attach(config.model, network, new) if config.model.lora_rank else None
        signals.raise_if_stopping()
    return network, adapter, weights


def _explanation(error: Exception) -> str | None:
    """A full GPU or a failed exchange in one line for the user; None for any other error."""
    if "torch" not in sys.modules:  # there is neither before torch is imported
        return None
    from job import distributed
    from job.batching import oom

    if oom.is_out_of_memory(error):
        return f"out of GPU memory: {SMALLER}"
    if distributed.lost_another(error):
        return f"{_lost(error)}; start all processes again"
    return None


def _lost(error: Exception) -> str:
    return f"another process died or cannot be reached ({textwrap.shorten(str(error), CAUSE)})"


def write_output_file(opened: Opened) -> None:
    """Write the predictions of a finished run to --output_file."""
    from job.data import dataset
    from job.report import output_file
    from job.run import manifest

    run = opened.config.run
    if run.output_file is None:
        return
    inputs = dataset.read_test_inputs(opened.config, manifest.dataset_fingerprint(opened.folder))
    if inputs is not None:
        output_file.write(Path(run.output_file), inputs, opened.folder.test_predictions, run.top_k)
        log.info(f"output   {run.output_file}")


if __name__ == "__main__":
    ending.end_process(main(sys.argv[1:]))
