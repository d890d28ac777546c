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
from job.runtime import gpus
from launch.local import command as local
from launch.local.command import Machine, Request
from launch.local.gpus import Gpus
from tests.support import golden

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[3]
LAPTOP = Machine(gpus=Gpus(0), cores=8, omp_num_threads="")
GPU_BOX = Machine(gpus=Gpus(4), cores=32, omp_num_threads="")
DEMO = Request(job=(), mixed_precision=None, gpus=None, tasks=None)

PLANS = {
    "no_gpu": (DEMO, LAPTOP),
    "cpu_by_the_environment": (DEMO, replace(LAPTOP, gpus=Gpus(0, cpu_requested=True))),
    "cpu_one_task": (replace(DEMO, tasks=1), LAPTOP),
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
        (DEMO, replace(LAPTOP, gpus=Gpus(0, problem="nvidia-smi fails")), "nvidia-smi fails"),
        (replace(DEMO, tasks=2), replace(LAPTOP, gpus=Gpus(0, problem="nvidia-smi fails")), "nvidia-smi fails"),
    ],
)
def test_requests_beyond_the_machine_are_rejected(request_: Request, machine: Machine, message: str) -> None:
    with pytest.raises(Refused, match=message):
        local.plan(request_, machine, Path("/"))


@given(st.integers(1, 64), st.integers(1, 64))
def test_processes_share_the_cores(cores: int, tasks: int) -> None:
    plan = local.plan(replace(DEMO, tasks=tasks), Machine(Gpus(0), cores, ""), Path("/"))
    settings = dict(plan.environment)
    words = plan.argv
    threads = settings["OMP_NUM_THREADS"] if tasks > 1 else words[words.index("--num_cpu_threads_per_process") + 1]
    assert 1 <= int(threads) <= cores
    assert int(threads) * tasks <= max(cores, tasks)


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


def _launched(argv: tuple[str, ...], folder: Path, **extra: str) -> list[dict[str, str]]:
    """The environment of each process that accelerate started, itself with the `extra` variables."""
    (folder / "home" / "accelerate").mkdir(parents=True)
    (folder / "home" / "accelerate" / "default_config.yaml").write_text(ASKS_FOR_ELSE, encoding="ascii")
    (folder / "show.py").write_text(SHOW, encoding="ascii")
    (folder / "torch.py").write_text("raise SystemExit('a module of the user shadows torch')", encoding="ascii")
    shown = [str(folder / "show.py") if word == str(local.TRAIN) else word for word in argv]
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "CUDA_"))} | {
        "HF_HOME": str(folder / "home"),
        **extra,
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


ACCELERATE = (sys.executable, "-P", "-m", "accelerate.commands.launch")
TORCHRUN = (sys.executable, "-P", "-m", "torch.distributed.run", "--standalone")


@pytest.mark.long
@pytest.mark.parametrize(
    ("launcher", "extra"),
    [
        ((*ACCELERATE, "--cpu"), {}),
        (ACCELERATE, {"CUDA_VISIBLE_DEVICES": ""}),
        (TORCHRUN, {"CUDA_VISIBLE_DEVICES": ""}),
    ],
)
def test_each_remedy_that_messages_name_reaches_the_job(
    launcher: tuple[str, ...], extra: dict[str, str], tmp_path: Path
) -> None:
    """`GPUS=0` and `--gpus 0` are a plan with --cpu, which the test above starts."""
    argv = (*launcher, "--config_file", str(local.HERE / "accelerate.yaml")) if launcher != TORCHRUN else launcher
    [environ] = _launched((*argv, str(tmp_path / "show.py")), tmp_path, **extra)
    assert gpus.cpu_is_requested(environ)
