"""A run that was interrupted, at any places and any number of times, equals an uninterrupted one, bit by bit.

The runs have dropout, a schedule, early stopping that happens, and windows of metrics that do not end at
checkpoints. Each start costs seconds, so one run is interrupted several times in a row, each time somewhere else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from job.run.format import FORMAT
from tests.job import snapshots
from tests.support.interrupted import (
    World,
    checkpoints,
    copied,
    differences,
    edit_checkpoint,
    make_world,
    metrics,
    status,
)

faults, slow = pytest.mark.faults, pytest.mark.slow
EPOCH = 15
"""Steps."""


@pytest.fixture(scope="module")
def reference(world: World) -> Path:
    """A run that was never interrupted."""
    out = world.folder / "reference"
    world.run(out).expect(0)
    best, last = best_and_last(out)
    assert best < last < 3 * EPOCH, "patience ends it, well after the best"
    return out


def best_and_last(out: Path) -> tuple[int, int]:
    """The steps of the best evaluation and of the last one."""
    results = json.loads((out / "results.json").read_text())
    return results["best_step"], results["train"]["steps"]


@pytest.fixture(scope="module")
def stopped(world: World) -> Path:
    """A run stopped in the middle of an epoch and of a window of metrics, before the best evaluation."""
    out = world.folder / "stopped"
    world.run(out, faults="0:step:7:SIGTERM").expect(75)
    assert checkpoints(out) == [5, 7]
    return out


def interrupt(world: World, out: Path, *faults: str, **how: Any) -> None:
    """Start the run once for each of `faults`, which must stop it, and once more to its end."""
    code = 75 if how.get("processes", 1) == 1 else 1  # torchrun makes every failure a 1
    for fault in faults:
        done = world.run(out, faults=fault, **how).expect(code)
        assert "checkpoint saved; run the same command to resume" in done.stderr, done.stderr[-3000:]
        assert status(out)["state"] == "STOPPED"
    world.run(out, **how).expect(0)
    assert status(out)["state"] == "DONE"


# ---------------------------------------------------------------------------------------------------------------------
# The same result


def test_an_interrupted_run_equals_an_uninterrupted_one(world: World, reference: Path) -> None:
    """In an epoch, in an evaluation, while a checkpoint is written, at the end of an epoch; every kind of signal."""
    out = world.folder / "anywhere"
    interrupt(world, out, "0:step:7:SIGHUP", "0:batch:4:SIGUSR2", f"0:begin:{EPOCH}:SIGINT")
    assert differences(reference, out) == []
    trained = [line["step"] for line in metrics(out) if line["split"] == "train"]
    assert trained[-1] == best_and_last(out)[1], "the steps before the early stop too"
    assert json.loads((out / "manifest.json").read_text())["restarts"] == 3
    assert not (out / "checkpoints").exists()


@faults
def test_a_signal_to_one_of_two_processes_stops_both_and_the_result_is_the_same(world: World) -> None:
    out, uninterrupted = world.folder / "two", world.folder / "two-reference"
    world.run(uninterrupted, processes=2).expect(0)
    interrupt(world, out, "1:batch:9:SIGTERM", processes=2)
    assert differences(uninterrupted, out) == []


@pytest.mark.parametrize(
    "processes", [pytest.param(1, marks=slow), pytest.param(2, marks=faults), pytest.param(3, marks=slow)]
)
def test_a_run_interrupted_in_every_phase_by_any_process_equals_an_uninterrupted_one(
    world: World, processes: int, record_property: Callable[[str, object], None]
) -> None:
    out, uninterrupted = (world.folder / f"{name}{processes}" for name in ("moments", "uninterrupted"))
    world.run(uninterrupted, processes=processes).expect(0)
    rank, (_, last) = processes - 1, best_and_last(uninterrupted)
    faults = [f"{rank}:step:1:SIGTERM", f"{rank}:step:5:SIGTERM", f"{rank}:batch:2:SIGUSR2", "0:begin:10:SIGINT",
              f"0:step:{EPOCH - 1}:SIGTERM", f"{rank}:step:{EPOCH}:SIGTERM", f"{rank}:step:{last}:SIGTERM"]  # fmt: skip
    interrupt(world, out, *faults, processes=processes)
    differing = differences(uninterrupted, out)
    record_property("faults", (f"signal at a chosen moment, {processes} processes", 1, len(faults), len(differing) > 0))
    assert differing == []


@slow
def test_the_next_start_finishes_a_run_stopped_at_any_step(
    world: World, reference: Path, record_property: Callable[[str, object], None]
) -> None:
    wrong, every_third = [], range(2, best_and_last(reference)[1] + 1, 3)
    for step in every_third:
        out = world.folder / f"step{step}"
        interrupt(world, out, f"0:step:{step}:SIGTERM")
        wrong += [step] * bool(differences(reference, out))
    record_property("faults", ("SIGTERM at every third step", len(every_third), len(every_third), len(wrong)))
    assert wrong == []


@faults
def test_a_run_resumed_on_fewer_processes_trains_on_the_same_batches(tmp_path: Path) -> None:
    """Without dropout the curves are equal to rounding: each global batch holds the same examples."""
    world = make_world(tmp_path, dropout=0.0, learning_rate=1e-3)
    four, two = tmp_path / "four", tmp_path / "two"
    world.run(four, processes=4).expect(0)
    world.run(two, processes=4, faults="3:step:7:SIGTERM").expect(1)
    done = world.run(two, processes=2).expect(0)
    assert "made by 4 processes: the same examples, other dropout draws" in done.stderr
    curves = [[(line["step"], line["loss"]) for line in metrics(out)] for out in (four, two)]
    assert [step for step, _ in curves[0]] == [step for step, _ in curves[1]]
    assert [loss for _, loss in curves[1]] == pytest.approx([loss for _, loss in curves[0]], abs=1e-4)


def test_hardware_settings_may_change_between_starts(world: World, stopped: Path) -> None:
    out = copied(stopped, "hardware")
    changes = {"max_tokens_per_device": 256, "eval_max_tokens_per_device": 512, "save_steps": 2, "save_total_limit": 1}
    done = world.run(out, logging_steps=1, **changes).expect(0)
    assert "resumes  step-00000007" in done.stderr
    later = [line["step"] for line in metrics(out) if line["split"] == "train" and line["step"] > 7]
    assert later == list(range(8, later[-1] + 1))
    best = json.loads((out / "results.json").read_text())["best_step"]
    assert checkpoints(out) == sorted({best, later[-1]}), "a limit was asked for, so they stay; the best among them"


# ---------------------------------------------------------------------------------------------------------------------
# Negative controls: the comparison detects state that a checkpoint lacks


def without_random_states(path: Path) -> None:
    tensors = load_file(path)
    tensors["0.torch"] = torch.Generator().manual_seed(42).get_state()
    save_file(tensors, path)


def without_moments(path: Path) -> None:
    save_file({k: t if k.endswith(".step") else torch.zeros_like(t) for k, t in load_file(path).items()}, path)


def with_state(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        state = json.loads(path.read_text())
        change(state)
        path.write_text(json.dumps(state))

    return edit


def without_position(state: dict[str, Any]) -> None:
    state["tracker"]["step"] = 0


def without_schedule(state: dict[str, Any]) -> None:
    state["schedule"] |= {"last_epoch": 0, "_step_count": 1}


def without_window(state: dict[str, Any]) -> None:
    state["tracker"]["window"] |= {"loss": None, "examples": 0}


@pytest.mark.parametrize(
    ("left_out", "file", "change"),
    [
        ("random states", "rng.safetensors", without_random_states),
        pytest.param("position", "state.json", with_state(without_position), marks=faults),
        pytest.param("schedule", "state.json", with_state(without_schedule), marks=faults),
        pytest.param("moments", "optimizer.safetensors", without_moments, marks=faults),
        pytest.param("window", "state.json", with_state(without_window), marks=faults),
    ],
)
def test_state_missing_from_a_checkpoint_changes_the_result(
    world: World, reference: Path, stopped: Path, left_out: str, file: str, change: Callable[[Path], None]
) -> None:
    out = copied(stopped, f"without-{left_out}")
    edit_checkpoint(out / "checkpoints" / "step-00000007", file, change)
    world.run(out).expect(0)
    assert "metrics.jsonl" in differences(reference, out)


@faults
def test_a_missing_patience_count_changes_the_result(world: World, reference: Path) -> None:
    def without_patience(state: dict[str, Any]) -> None:
        assert state["selection"]["since_best"] == 1
        state["selection"]["since_best"] = 0

    out = world.folder / "patience"
    step = best_and_last(reference)[0] + 7
    world.run(out, faults=f"0:step:{step}:SIGTERM").expect(75)
    edit_checkpoint(out / "checkpoints" / f"step-{step:08d}", "state.json", with_state(without_patience))
    world.run(out).expect(0)
    assert "metrics.jsonl" in differences(reference, out)


# ---------------------------------------------------------------------------------------------------------------------
# Runs that are not resumed


def test_a_changed_setting_is_rejected_by_name_and_the_checkpoint_is_kept(world: World, stopped: Path) -> None:
    before = checkpoints(stopped)
    done = world.run(stopped, learning_rate=1e-3, seed=7).expect(2)
    assert f"{stopped} contains a run with a different learning_rate, seed: " in done.errors[0]
    assert len(done.errors) == 1
    assert checkpoints(stopped) == before


def test_another_precision_of_the_launcher_is_rejected_before_the_checkpoint_is_loaded(
    world: World, stopped: Path
) -> None:
    """Loading it would fail, or change the result."""
    out = copied(stopped, "precision")
    done = world.run(out, env={"ACCELERATE_MIXED_PRECISION": "bf16"}).expect(2)
    assert done.errors == [
        "error: step-00000007 was saved in mixed precision no, and this start has bf16: start it with accelerate "
        "launch --mixed_precision no, or choose another --output_dir"
    ]
    assert checkpoints(out) == checkpoints(stopped)
    assert not (out / "checkpoints" / "attempts.json").exists()


def test_a_checkpoint_of_another_model_does_not_count_as_damaged(world: World, stopped: Path) -> None:
    """As one that was saved of a compiled model, whose weights have other names."""
    out = copied(stopped, "compiled")
    saved = out / "checkpoints" / "step-00000007"

    def rename_weights(path: Path) -> None:
        save_file({f"_orig_mod.{name}": tensor for name, tensor in load_file(path).items()}, path)

    edit_checkpoint(saved, "model.safetensors", rename_weights)
    done = world.run(out).expect(2)
    assert len(done.errors) == 1
    assert done.errors[0].startswith("error: step-00000007 does not fit the model (_orig_mod.bert.")
    assert saved.is_dir()
    assert not (out / "checkpoints" / "attempts.json").exists()


def test_a_run_of_an_older_version_is_rejected_by_its_version(world: World, stopped: Path) -> None:
    out = copied(stopped, "older")
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest.pop("format") == FORMAT
    (out / "manifest.json").write_text(json.dumps(manifest))
    done = world.run(out).expect(2)
    assert f"{out} contains an unfinished run of an older version of Muster (format 1, " in done.errors[0]
    assert len(done.errors) == 1
    assert checkpoints(out) == checkpoints(stopped)


def test_files_that_a_resumed_run_reads_match_the_recorded_format(world: World, stopped: Path) -> None:
    """Where this differs, runs of before cannot be resumed: FORMAT of job/run/format.py is raised with it.

    The data's fingerprint holds the version of the reader: a run must not be rejected for
    changed data because the reader changed.
    """
    folder = stopped / "checkpoints" / "step-00000005"
    state = json.loads((folder / "state.json").read_text())
    foreign: dict[str, Any] = {
        "groups": [],
        "schedule": {},
        "model_settings": {},
    }  # what these hold is torch's and Transformers'
    names = sorted(keys({**state, **foreign}))
    lines = [f"format {FORMAT}", *sorted(path.name for path in folder.iterdir()), *names]
    snapshots.check("run_format.txt", "\n".join([*lines, f"data.source {state['data']['source']}"]) + "\n")


def keys(value: Any, prefix: str = "") -> set[str]:
    """The keys of nested objects, a name for each leaf; elements of a list share theirs."""
    if isinstance(value, list):
        return {name for element in value for name in keys(element, f"{prefix}[]")} or {prefix}
    if isinstance(value, dict):
        return {name for key, inner in value.items() for name in keys(inner, f"{prefix}.{key}".lstrip("."))} or {prefix}
    return {prefix}


@pytest.mark.parametrize(
    ("what", "file", "old", "new"),
    [
        ("data", "train.csv", b"red", b"green"),
        ("model's config.json", "model/config.json", b'"hidden_dropout_prob": 0.1', b'"hidden_dropout_prob": 0.2'),
        pytest.param("tokenizer", "model/tokenizer.json", b'"red"', b'"blu"', marks=slow),
    ],
)
def test_changed_data_tokens_or_model_settings_are_rejected_until_restored(
    world: World, stopped: Path, what: str, file: str, old: bytes, new: bytes
) -> None:
    path = world.folder / file
    before = path.read_bytes()
    path.write_bytes(before.replace(old, new))
    try:
        done = world.run(copied(stopped, f"changed-{path.name}")).expect(2)
    finally:
        path.write_bytes(before)
    assert f"the {what} changed since step-00000007 was saved" in done.errors[0]
    assert ": restore it, choose another --output_dir, or start over with" in done.errors[0]
    assert len(done.errors) == 1
