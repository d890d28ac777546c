"""Stopped, killed and started again: the container ends with the job's exit code, and the run as if never stopped."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from launch.docker import command as launcher
from tests.image.building import IMAGE, ROOT, Built
from tests.image.engine import Docker
from tests.launch.running import wait_until

DEMO = ("demo", "--max_seq_length", "32", "--max_train_samples", "640", "--max_eval_samples", "64")
LONG = (*DEMO, "--train_batch_size", "8", "--max_steps", "80", "--logging_steps", "1")
SINGLE = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def losses(run: Path) -> list[tuple[int, float]]:
    """Step and loss of each step recorded so far."""
    if not (run / "metrics.jsonl").is_file():
        return []
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(row["step"], row["loss"]) for row in rows if row["split"] == "train"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the same job, outside of any container and never interrupted."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    command = [sys.executable, "-m", "launch", "local", "--gpus=0", "--", *LONG, "--output_dir", str(run)]
    subprocess.run(command, env={**os.environ, **SINGLE, "PYTHONPATH": str(ROOT)}, check=True)
    return run


@contextmanager
def docker_run(docker: Docker, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """`make docker-run` of the LONG job with the run folder `folder`/run, like a shell's foreground job."""
    command = [sys.executable, "-m", "launch", "docker", "--image", IMAGE, "--", *LONG, "--output_dir", "run"]
    environ = {**docker.environment, **SINGLE, "PYTHONPATH": str(ROOT), "HF_HOME": str(folder / "hf")}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        docker("rm", "--force", str(launcher.container(folder / "run")), check=False)
        process.communicate()


def test_ctrl_c_and_docker_stop_lose_nothing(docker: Docker, built: Built, undisturbed: Path, tmp_path: Path) -> None:
    """Bit for bit: the weights, the predictions and the loss of every step."""
    run = tmp_path / "run"
    with docker_run(docker, tmp_path) as process:
        wait_until(lambda: len(losses(run)) > 3, timeout=300)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(120) == 75
    stopped = len(losses(run))
    with docker_run(docker, tmp_path) as process:
        wait_until(lambda: len(losses(run)) > stopped + 3, timeout=300)
        docker("stop", str(launcher.container(run)))
        assert process.wait(120) == 75
    assert stopped < len(losses(run)) < 80
    with docker_run(docker, tmp_path) as process:
        assert process.wait(600) == 0
    assert losses(run) == losses(undisturbed)
    for name in ("predictions.parquet", "model/model.safetensors"):
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert docker("ps", "--all", "--quiet", f"--filter=ancestor={IMAGE}").stdout == ""


@contextmanager
def detached(docker: Docker, *words: str) -> Iterator[str]:
    """A container's id; it stays after its end, until here it is removed."""
    container = docker("run", "--detach", "--network=none", *words).stdout.strip()
    try:
        yield container
    finally:
        docker("rm", "--force", container)


def test_without_an_init_process_docker_stop_ends_the_job_after_a_checkpoint(
    docker: Docker, built: Built, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    words = (f"--volume={tmp_path}:/out", IMAGE, *LONG, "--output_dir", "/out/run")
    with detached(docker, *words) as container:
        wait_until(lambda: len(losses(tmp_path / "run")) > 3, timeout=300)
        docker("stop", "--time=120", container)
        assert docker.inspect(container, ".State.ExitCode") == "75"
        assert "stop" in docker("logs", container).stderr
    assert list((tmp_path / "run" / "checkpoints").glob("step-*"))


def test_docker_stop_is_handled_during_startup(docker: Docker, built: Built) -> None:
    """As process 1, which ignores what it does not handle: 137 would be docker's SIGKILL."""
    with detached(docker, IMAGE, *LONG) as container:
        wait_until(lambda: "launch.image" in docker("top", container, check=False).stdout)
        wait_until(lambda: _handles_sigterm(docker.inspect(container, ".State.Pid")))
        docker("stop", "--time=120", container)
        assert docker.inspect(container, ".State.ExitCode") in ("75", "143")


def _handles_sigterm(pid: str) -> bool:
    status = Path("/proc", pid, "status").read_text(encoding="ascii")
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def test_a_killed_job_ends_the_container_with_its_exit_code(docker: Docker, built: Built) -> None:
    with detached(docker, IMAGE, *LONG) as container:
        wait_until(lambda: _jobs(docker, container) != [])
        os.kill(_jobs(docker, container)[0], signal.SIGKILL)
        assert docker("wait", container).stdout.strip() == "137"
        assert "error: rank 0 was killed by SIGKILL" in docker("logs", container).stderr


def _jobs(docker: Docker, container: str) -> list[int]:
    """The processes of the job, without those that started it and have its name among their arguments."""
    rows = docker("top", container, "-eo", "pid,args", check=False).stdout.splitlines()
    return [int(row.split()[0]) for row in rows if "job/train.py" in row and "wrap_launcher.py" not in row]


def test_a_second_container_for_the_same_run_is_rejected_by_its_name(
    docker: Docker, built: Built, tmp_path: Path
) -> None:
    docker("create", f"--name={launcher.container(tmp_path / 'run')}", IMAGE)
    with docker_run(docker, tmp_path) as process:
        assert process.wait(120) == 125
        assert process.stdout is not None and "is already in use" in process.stdout.read()
