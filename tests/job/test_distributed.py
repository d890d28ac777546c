"""Precisions that a device supports, emulates or lacks, with made-up devices; timeouts of the process groups."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from job import distributed
from job.config import Config
from job.errors import Refused
from tests.support.launch import environment, torchrun
from tests.support.tiny import tiny_model

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def precision_restored() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("capability", [None, *distributed.BF16])
@pytest.mark.parametrize("main", [True, False])
def test_emulated_bf16_on_a_cpu_gives_one_warning(
    capability: str | None, main: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    has = {"avx2": True, "architecture": "x86_64", **({capability: True} if capability else {})}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    distributed._set_precision("bf16", CPU, main)
    distributed._set_precision("no", CPU, main)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (main and capability is None)
    assert all(" WARNING --mixed_precision bf16: this CPU " in line for line in lines)


def test_bf16_is_rejected_on_a_gpu_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    distributed._set_precision("fp16", GPU, True)
    with pytest.raises(Refused, match=r"^--mixed_precision bf16: this GPU does not support bf16; use fp16$"):
        distributed._set_precision("bf16", GPU, True)


def test_a_precision_of_the_launcher_that_is_not_supported_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    with pytest.raises(Refused, match=r"^the launcher's mixed precision fp8 is not supported: set --mixed_precision "):
        distributed.start(Config())


def test_fp16_is_rejected_on_a_cpu() -> None:
    with pytest.raises(Refused, match=r"^--mixed_precision fp16 needs a GPU; on a CPU use bf16 or no$"):
        distributed._set_precision("fp16", CPU, True)


@pytest.mark.parametrize(("device", "expected"), [(CPU, "highest"), (GPU, "high")])
def test_fp32_matrix_products_use_tf32_only_on_a_gpu(device: torch.device, expected: str) -> None:
    torch.set_float32_matmul_precision("highest")
    distributed._set_precision("no", device, True)
    assert torch.get_float32_matmul_precision() == expected


# ---------------------------------------------------------------------------------------------------------------------
# Machines that share no disk

WORKERS = Path(__file__).parent / "workers"
WORKER = WORKERS / "slow_chapter.py"
ROWS = "".join(f"{'good' if i % 2 else 'bad'} film {i},{'ab'[i % 2]}\n" for i in range(16))


HERE = "/proc/self/cwd"
"""One path that is another folder for each process."""


def run_on_two_machines(
    tmp_path: Path, flags: str, precisions: tuple[str, str] = ("no", "no")
) -> tuple[list[str], ...]:
    """The errors and exit codes of a job whose processes run in the folders rank0 and rank1."""
    for rank, precision in enumerate(precisions):
        environ = {"ACCELERATE_MIXED_PRECISION": precision}
        (tmp_path / f"rank{rank}" / "environment.json").write_text(json.dumps(environ))
    words, env = f"{flags} --output_dir out".split(), environment(tmp_path / "home")
    done = torchrun(2, WORKERS / "own_folder.py", *words, env=env, cwd=tmp_path)
    return done.errors, [(tmp_path / f"rank{rank}" / "code").read_text() for rank in range(2)]


def train_on_two_machines(tmp_path: Path, second: str, precision: str = "no") -> tuple[list[str], ...]:
    """The second process trains on these rows and in this precision."""
    for rank, rows in enumerate((ROWS, second)):
        here = tmp_path / f"rank{rank}"
        here.mkdir()
        (here / "train.csv").write_text(f"text,label\n{rows}")
        (here / "eval.csv").write_text(f"text,label\n{ROWS}")
    tiny_model(tmp_path / "model", num_labels=None, layers=1)
    data = f"--train_file {HERE}/train.csv --validation_file {HERE}/eval.csv"
    return run_on_two_machines(tmp_path, f"--model_name_or_path ../model {data} --max_steps 1", ("no", precision))


@pytest.mark.long
def test_processes_that_read_the_same_files_in_different_places_train(tmp_path: Path) -> None:
    assert train_on_two_machines(tmp_path, ROWS) == ([], ["0", "0"])


@pytest.mark.long
def test_processes_that_read_different_data_are_all_rejected(tmp_path: Path) -> None:
    """The rows are equal in number and length, so that nothing else would differ."""
    errors, codes = train_on_two_machines(tmp_path, ROWS.replace("film 3", "film 4"))
    assert errors == ["error: the processes read different data or tokenizers: give all machines the same files"]
    assert codes == ["2", "2"]


@pytest.mark.parametrize(("seed", "code"), [(0, "0"), (1, "2")])
def test_processes_that_predict_with_different_weights_are_all_rejected(tmp_path: Path, seed: int, code: str) -> None:
    model = tmp_path / "model"
    weights = model / "model.safetensors"
    for rank, of_rank in enumerate((0, seed)):
        (tmp_path / f"rank{rank}").mkdir()
        tiny_model(model, layers=1, seed=of_rank)
        weights.rename(tmp_path / f"rank{rank}" / weights.name)
    weights.symlink_to(f"{HERE}/{weights.name}")
    (tmp_path / "test.csv").write_text("text\na film\n")
    flags = "--model_name_or_path ../model --no_do_train --no_do_eval --test_file ../test.csv"
    errors, codes = run_on_two_machines(tmp_path, flags)
    line = "error: the processes load different weights of the model: give all machines the same files"
    assert errors == [line] * (code == "2") and codes == [code, code]


def test_processes_of_different_precisions_are_all_rejected(tmp_path: Path) -> None:
    errors, codes = train_on_two_machines(tmp_path, ROWS, precision="bf16")
    line = "error: the processes compute in different precisions: give all machines the same --mixed_precision"
    assert set(errors) == {line} and codes == ["2", "2"]


# ---------------------------------------------------------------------------------------------------------------------
# Timeouts


@pytest.mark.parametrize("slow", ["tokenize", "write"])
def test_processes_wait_for_slow_work_of_the_main_process_for_longer_than_a_step(slow: str, tmp_path: Path) -> None:
    """The limit of a step is two seconds here; the main process takes four to tokenize, or to write a checkpoint while
    the next one is due."""
    tiny_model(tmp_path / "model", num_labels=None, layers=1)
    (tmp_path / "train.csv").write_text(f"text,label\n{ROWS}")
    flags = "--model_name_or_path model --train_file train.csv --validation_file train.csv --output_dir out"
    steps = f"--max_steps 3 --save_steps 1 --train_batch_size {len(ROWS.splitlines())}"
    env = environment(tmp_path / "home")
    torchrun(2, WORKER, slow, *flags.split(), *steps.split(), env=env, cwd=tmp_path).expect(0)
    assert (tmp_path / "out" / "results.json").exists()


def test_a_process_that_misses_a_step_ends_the_others(tmp_path: Path) -> None:
    done = torchrun(2, WORKER, "between-steps", env=environment(tmp_path / "home"), cwd=tmp_path)
    assert done.code != 0
    assert "Timed out waiting 2000ms" in done.stderr
