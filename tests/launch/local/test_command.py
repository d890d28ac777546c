"""The plan of a local run, whole, against golden files; and that only the plan decides how accelerate launches.

To update the golden files: `UPDATE_GOLDEN=1 pytest tests/launch/local/test_command.py`.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.errors import Refused
from launch.local import command as local
from launch.local.command import Machine, Request
from tests.support import golden

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[3]
LAPTOP = Machine(gpus=0, cores=8, omp_num_threads="")
GPU_BOX = Machine(gpus=4, cores=32, omp_num_threads="")
DEMO = Request(job=(), mixed_precision=None, gpus=None, tasks=None)

PLANS = {
    "cpu": (DEMO, LAPTOP),
    "cpu_on_a_gpu_box": (replace(DEMO, gpus=0), GPU_BOX),
    "cpu_two_tasks": (replace(DEMO, job=("mrpc",), tasks=2), LAPTOP),
    "cpu_two_tasks_bf16": (replace(DEMO, gpus=0, tasks=2, mixed_precision="bf16"), GPU_BOX),
    "cpu_users_threads": (replace(DEMO, tasks=2), replace(LAPTOP, omp_num_threads="3")),
    "one_gpu": (replace(DEMO, gpus=1), GPU_BOX),
    "all_gpus": (replace(DEMO, job=("mrpc", "--mixed_precision", "bf16"), mixed_precision="bf16"), GPU_BOX),
    "quoted": (replace(DEMO, job=("--train_file", "my file; $(touch x).csv")), LAPTOP),
}


@pytest.mark.parametrize("name", PLANS)
def test_the_plan_equals_the_golden_file(name: str) -> None:
    request, machine = PLANS[name]
    text = local.plan(request, machine, Path("/somewhere")).text() + "\n"
    text = text.replace(sys.executable, "<python>").replace(str(ROOT), "<root>")
    golden.check(GOLDEN / f"{name}.txt", text)


def test_every_golden_file_has_its_plan() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(PLANS)


def test_the_working_directory_is_the_users() -> None:
    assert local.plan(DEMO, LAPTOP, Path("/somewhere")).directory == Path("/somewhere")


@pytest.mark.parametrize(
    ("request_", "machine", "message"),
    [
        (replace(DEMO, gpus=5), GPU_BOX, "--gpus 5: only 4 are visible"),
        (replace(DEMO, gpus=1), LAPTOP, "--gpus 1: only 0 are visible"),
        (replace(DEMO, tasks=0), LAPTOP, "--tasks must be above 0"),
        (replace(DEMO, tasks=2), GPU_BOX, "add --gpus 0"),
    ],
)
def test_requests_beyond_the_machine_are_rejected(request_: Request, machine: Machine, message: str) -> None:
    with pytest.raises(Refused, match=message):
        local.plan(request_, machine, Path("/"))


@given(st.integers(1, 64), st.integers(1, 64))
def test_processes_share_the_cores(cores: int, tasks: int) -> None:
    plan = local.plan(replace(DEMO, tasks=tasks), Machine(0, cores, ""), Path("/"))
    settings = dict(plan.environment)
    words = plan.argv
    threads = settings["OMP_NUM_THREADS"] if tasks > 1 else words[words.index("--num_cpu_threads_per_process") + 1]
    assert 1 <= int(threads) <= cores
    assert int(threads) * tasks <= max(cores, tasks)


@pytest.mark.parametrize(
    ("named", "count"),
    [
        ("", 0),
        ("0", 1),
        ("0,1,3", 3),
        ("0, 1", 2),
        ("-1", 0),
        ("0,-1,1", 1),
        ("NoDevFiles", 0),
        ("GPU-8f6d-00,GPU-9", 2),
        ("MIG-1/2/3,MIG-1/2/4", 1),
        ("GPU-8f6d-00,MIG-1/2/3", 1),
    ],
)
def test_visible_gpus_as_cuda_counts_them(named: str, count: int) -> None:
    assert local.inspect_machine({"CUDA_VISIBLE_DEVICES": named}).gpus == count


SMI = {
    "two": ("echo 'GPU 0: H200 (UUID: GPU-1)'; echo 'GPU 1: H200 (UUID: GPU-2)'", 2),
    "MIG: one device, and no whole GPU in addition": (
        "echo 'GPU 0: H200 (UUID: GPU-1)'; echo '  MIG 1g.18gb  Device  0: (UUID: MIG-1)'; "
        "echo '  MIG 1g.18gb  Device  1: (UUID: MIG-2)'; echo 'GPU 1: H200'",
        1,
    ),
    "none": ("echo 'No devices found.'", 0),
    "broken": ("echo 'GPU access blocked'; exit 9", 0),
}


@pytest.mark.parametrize("kind", SMI)
def test_gpus_that_nvidia_smi_lists(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, count = SMI[kind]
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert local.inspect_machine({}).gpus == count


def test_no_gpus_without_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert local.inspect_machine({}).gpus == 0


# ---------------------------------------------------------------------------------------------------------------------
# The real accelerate, with a user configuration that requests something else

ASKS_FOR_ELSE = """
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
fsdp_config: {fsdp_version: 2, fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP}
dynamo_config: {dynamo_backend: INDUCTOR, dynamo_mode: max-autotune}
mixed_precision: fp16
num_processes: 2
num_machines: 1
machine_rank: 0
gpu_ids: '1'
debug: true
use_cpu: true
enable_cpu_affinity: true
main_process_port: 1
main_training_function: main
downcast_bf16: 'yes'
"""
SHOW = """
import json, os, sys
environment = {k: v for k, v in os.environ.items() if k.startswith(("ACCELERATE_", "FSDP_")) or k in sys.argv[1:]}
with open(f"rank-{os.environ.get('RANK', '0')}.json", "w") as file:
    json.dump(environment, file)
"""


def _launched(argv: tuple[str, ...], folder: Path) -> list[dict[str, str]]:
    """The environment of each process that accelerate started."""
    (folder / "home" / "accelerate").mkdir(parents=True)
    (folder / "home" / "accelerate" / "default_config.yaml").write_text(ASKS_FOR_ELSE, encoding="ascii")
    (folder / "show.py").write_text(SHOW, encoding="ascii")
    (folder / "torch.py").write_text("raise SystemExit('a module of the user shadows torch')", encoding="ascii")
    shown = [str(folder / "show.py") if word == str(local.TRAIN) else word for word in argv]
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "CUDA_"))} | {
        "HF_HOME": str(folder / "home")
    }
    subprocess.run(
        [*shown, "WORLD_SIZE", "CUDA_VISIBLE_DEVICES"], cwd=folder, env=environ, capture_output=True, check=True
    )
    return [json.loads(path.read_text(encoding="ascii")) for path in sorted(folder.glob("rank-*.json"))]


EXPECTED = {
    "ACCELERATE_MIXED_PRECISION": "no",
    "ACCELERATE_DYNAMO_BACKEND": "NO",
    "ACCELERATE_DYNAMO_MODE": "default",
    "ACCELERATE_DYNAMO_USE_FULLGRAPH": "False",
    "ACCELERATE_DYNAMO_USE_DYNAMIC": "False",
    "ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION": "False",
}


@pytest.mark.parametrize(("gpus", "use_cpu"), [(0, "True"), (1, "False")])
def test_users_accelerate_configuration_changes_nothing_for_one_process(
    gpus: int, use_cpu: str, tmp_path: Path
) -> None:
    plan = local.plan(replace(DEMO, gpus=gpus), GPU_BOX, tmp_path)
    assert _launched(plan.argv, tmp_path) == [EXPECTED | {"ACCELERATE_USE_CPU": use_cpu}]


def test_users_accelerate_configuration_changes_nothing_for_two_gpus(tmp_path: Path) -> None:
    plan = local.plan(replace(DEMO, gpus=2), GPU_BOX, tmp_path)
    assert _launched(plan.argv, tmp_path) == [EXPECTED | {"WORLD_SIZE": "2"}] * 2


def test_without_our_accelerate_configuration_the_users_would_apply(tmp_path: Path) -> None:
    words = list(local.plan(replace(DEMO, gpus=1), GPU_BOX, tmp_path).argv)
    at = words.index("--config_file")
    environment = _launched(tuple(words[:at] + words[at + 2 :]), tmp_path)
    assert environment[0]["ACCELERATE_USE_FSDP"] == "true"
