"""A step that does not fit into memory is retried with smaller micro-batches, with the same result."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from job.batching import oom
from job.errors import SMALLER, OutOfMemory
from tests.support.launch import Finished, alone, environment, torchrun
from tests.support.tiny import tiny_model

WORKER = Path(__file__).parents[1] / "workers" / "out_of_memory.py"
PLENTY = 10**6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with dropout, and 64 rows of 22 tokens."""
    made = tmp_path_factory.mktemp("rows")
    tiny_model(made / "model", num_labels=None, dropout=0.1)
    rng = random.Random(1)
    rows = ["text,label", *(f"{' '.join(rng.choices('abcdefgh', k=20))},{'xy'[i % 2]}" for i in range(64))]
    for name in ("train", "eval"):
        (made / f"{name}.csv").write_text("\n".join(rows) + "\n")
    return made


def train(
    folder: Path,
    out: Path,
    fits: int,
    rank: str,
    limit: int,
    processes: int = 1,
    faults: str = "",
    where: str = "forward",
    message: str = "",
    flags: Sequence[str] = (),
) -> Finished:
    """Four steps of 16 rows, 352 tokens."""
    arguments = [
        *("--model_name_or_path", "model", "--train_file", "train.csv", "--validation_file", "eval.csv"),
        *("--output_dir", str(out), "--max_tokens_per_device", str(limit), "--train_batch_size", "16"),
        *("--num_train_epochs", "1", "--learning_rate", "1e-3"),
        *flags,
    ]
    env = environment(folder / "home", FAULTS=faults, MESSAGE=message)
    if processes == 1:
        return alone(WORKER, str(fits), rank, where, *arguments, env=env, cwd=folder)
    return torchrun(processes, WORKER, str(fits), rank, where, *arguments, env=env, cwd=folder)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


@pytest.mark.parametrize(
    ("processes", "rank", "where", "message", "halved"),
    [
        pytest.param(1, "all", "forward", "", [160, 80], marks=pytest.mark.long),
        pytest.param(1, "all", "backward", "", [160, 80], marks=pytest.mark.long),
        pytest.param(
            1,
            "all",
            "backward",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
            [160, 80],
            marks=pytest.mark.long,
        ),
        (2, "1", "forward", "", [160]),
    ],
)
def test_after_out_of_memory_the_weights_equal_those_of_a_start_with_the_lower_limit(
    folder: Path, tmp_path: Path, processes: int, rank: str, where: str, message: str, halved: list[int]
) -> None:
    """On two processes only one runs out of memory, and both halve the limit: otherwise the other would hang."""
    short = train(folder, tmp_path / "short", 100, rank, 320, processes, "", where, message).expect(0)
    lines = [line for line in short.stderr.splitlines() if "out of memory" in line]
    rest = "tokens per forward pass, same examples"
    assert [line.partition(" WARNING ")[2] for line in lines] == [
        f"out of memory in step 1: retrying with {limit} {rest}" for limit in halved
    ]
    assert json.loads((tmp_path / "short" / "manifest.json").read_text())["max_tokens_per_device"] == halved[-1]
    train(folder, tmp_path / "low", PLENTY, rank, halved[-1], processes).expect(0)
    actual, expected = weights(tmp_path / "short"), weights(tmp_path / "low")
    assert all(torch.equal(actual[name], value) for name, value in expected.items())


def test_out_of_memory_before_the_second_forward_pass_leaves_no_process_waiting(folder: Path, tmp_path: Path) -> None:
    """On one of two processes. DDP would broadcast its bucket layout there if that had not happened before."""
    done = train(folder, tmp_path / "run", 100, "1", 320, processes=2, where="copy").expect(0)
    assert done.stderr.count("out of memory in step 2: retrying with 160 tokens") == 1


def test_a_resumed_run_keeps_the_lower_limit(folder: Path, tmp_path: Path) -> None:
    """With the original limit, the second start would run out of memory too."""
    out = tmp_path / "out"
    stopped = train(folder, out, 100, "all", 320, faults="0:step:2:SIGTERM").expect(75)
    assert "at step 2/4" in stopped.stderr and "retrying with 80 tokens" in stopped.stderr
    larger = shutil.copytree(out, tmp_path / "larger")
    assert "retrying with 100 tokens" in train(folder, larger, 120, "all", 200).expect(0).stderr, "as the user sets it"
    assert "out of memory" not in train(folder, out, 100, "all", 320).expect(0).stderr
    assert json.loads((out / "manifest.json").read_text())["max_tokens_per_device"] == 80


def test_one_example_that_does_not_fit_ends_the_job_with_one_line(folder: Path, tmp_path: Path) -> None:
    done = train(folder, tmp_path / "run", 10, "all", 320).expect(1)
    assert done.errors == [f"error: one example of 22 tokens does not fit into memory: {SMALLER}"]


def test_out_of_memory_while_gradients_are_exchanged_ends_the_job(folder: Path, tmp_path: Path) -> None:
    """On one of two processes, in its last backward pass: the other one sees the lost connection, and neither hangs."""
    done = train(folder, tmp_path / "run", 10, "1", 320, processes=2, where="backward")
    assert done.code == 1
    again = "run the same command to resume from the last checkpoint"
    lost, exhausted = sorted(done.errors)
    assert lost.startswith("error: another process died or cannot be reached (") and lost.endswith(f"); {again}")
    assert exhausted == (
        f"error: out of memory while gradients were exchanged: lower --max_tokens_per_device, then {again}"
    )


@pytest.mark.long
@pytest.mark.parametrize(("processes", "rank"), [(1, "all"), (2, "1")])
def test_an_evaluation_out_of_memory_is_retried_and_keeps_the_lower_limit(
    folder: Path, tmp_path: Path, processes: int, rank: str
) -> None:
    flags = ("--eval_max_tokens_per_device", "400", "--eval_steps", "2", "--eval_strategy", "steps")
    short = train(folder, tmp_path / "short", 100, rank, 320, processes, where="evaluation", flags=flags).expect(0)
    lines = [line for line in short.stderr.splitlines() if "out of memory" in line]
    rest = "tokens per forward pass"
    assert [line.partition(" WARNING ")[2] for line in lines] == [
        f"out of memory in the evaluation: continuing with {limit} {rest}" for limit in (200, 100)
    ]
    train(folder, tmp_path / "plenty", PLENTY, rank, 320, processes, flags=flags).expect(0)
    actual, expected = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("short", "plenty"))
    assert actual["eval"]["loss"] == pytest.approx(expected["eval"]["loss"], abs=1e-6)
    assert actual["eval"]["examples"] == expected["eval"]["examples"] == 64


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (MemoryError(), False),
    ],
)
def test_messages_that_mean_out_of_memory(error: Exception, counts: bool) -> None:
    assert oom.is_out_of_memory(error) == counts


def test_gradients_and_random_state_of_a_failed_attempt_are_dropped() -> None:
    torch.manual_seed(1)
    expected, forgotten, limits = torch.rand(3), list[int](), list[int]()

    def attempt(limit: int) -> torch.Tensor:
        drawn = torch.rand(3)
        if limit > 30:
            raise oom.Exhausted
        return drawn

    torch.manual_seed(1)
    drawn, limit = oom.fitting(attempt, 100, 10, lambda: forgotten.append(1), limits.append)
    assert torch.equal(drawn, expected)
    assert (limit, limits, forgotten) == (25, [50, 25], [1, 1])


def test_no_limit_is_below_the_longest_example() -> None:
    limits: list[int] = []

    def attempt(limit: int) -> None:
        raise oom.Exhausted

    with pytest.raises(OutOfMemory, match=r"^one example of 40 tokens does not fit into memory: lower"):
        oom.fitting(attempt, 100, 40, lambda: None, limits.append)
    assert limits == [50, 40]
