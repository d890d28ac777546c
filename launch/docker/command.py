"""Train in a container of the image (docker/Dockerfile): a request -> a `docker run` command.

The container sees only what the command mounts: the run folder and the caches for writing, data and model for reading,
each under its path on the host, so that the job's arguments are valid inside and outside. Variables are passed by name;
docker takes their values from this process, so they are not on the command line. `.env` is read here, because docker's
--env-file has other quoting rules. This process is replaced by the docker client, which forwards signals: Ctrl-C
reaches the job as `docker stop` does.

Alternatives considered: mounting the whole working directory is shorter but exposes .env to the job; with a terminal
for the progress bar (-t) the client forwards no signals; pulling a missing image could run somebody else's `muster`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from job import config
from job.config import Config
from job.errors import Refused
from job.runtime import contract
from launch import caches, reads
from launch.local import gpus
from launch.local.gpus import Gpus
from launch.plan import Plan

IMAGE = "muster"
STOP_SECONDS = 300
"""Time between `docker stop` and SIGKILL: enough for a step or an evaluation, and a checkpoint."""
SHARED_MEMORY = "8g"
"""A limit, not a reservation: NCCL needs more than docker's 64 MB. --ipc=host would leave segments of killed jobs."""
FILES = ("HF_TOKEN_PATH", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PASSED = re.compile(
    rf"(CUDA|GLOO|HF|MLFLOW|NCCL|PYTORCH|TOKENIZERS|TORCH|TORCHINDUCTOR|TRITON|UCX|WANDB)_\w+|OMP_NUM_THREADS|(?i:HTTPS?|NO)_(?i:PROXY)|{'|'.join(FILES)}"
)
HOST_ONLY = re.compile(
    r"PATH|HOME|USER|LOGNAME|TMPDIR|VIRTUAL_ENV|(CUDA|NVIDIA)_VISIBLE_DEVICES|CUDA_(HOME|PATH|ROOT)|(PYTHON|LD_|DOCKER_|MUSTER_)\w*"
)
"""Variables that are valid on the host only: not passed on, even if .env sets them."""
HIDDEN = {"NVIDIA_VISIBLE_DEVICES": "void", "CUDA_VISIBLE_DEVICES": ""}
"""For a run on the CPU: the container has no GPU, and the job inside does not look for one."""


@dataclass(frozen=True)
class Machine:
    """This machine's GPUs, caches and variables, and the user."""

    gpus: Gpus
    user: str
    """uid:gid, the owner of what the job writes."""
    host: str
    variables: tuple[str, ...]
    """Names of the variables that are passed to the job."""
    caches: tuple[Path, ...]
    """HF_HOME first."""
    files: tuple[Path, ...]
    """Files that variables refer to."""


@dataclass(frozen=True)
class Request:
    """What the user requests."""

    job: tuple[str, ...]
    """The job's command line: an optional recipe, then flags."""
    gpus: int | None
    """Number of GPUs; None: all; 0: train on the CPU."""
    image: str
    name: str
    """The container's name."""
    flags: tuple[str, ...]
    """The launcher's command line, for the record of the run."""
    run: Path | None
    """The run folder; None: a new one in runs/."""
    reads: tuple[Path, ...]
    """Files and folders in the job's flags."""
    writes: tuple[Path, ...] = ()
    """Folders that the job writes to, in addition to the run folder and the caches."""


def inspect_machine(environ: Mapping[str, str], dotenv: Iterable[str]) -> Machine:
    """Inspect this machine; `dotenv` has the names of the variables in .env, which are all passed to the job."""
    passed = {name for name in environ if PASSED.fullmatch(name)} | set(dotenv)
    named = (Path(environ[name]).absolute() for name in FILES if environ.get(name))
    return Machine(
        gpus=gpus.inspect(environ),
        user=f"{os.getuid()}:{os.getgid()}",
        host=socket.gethostname(),
        variables=tuple(sorted(name for name in passed if not HOST_ONLY.fullmatch(name))),
        caches=caches.all_folders(environ),
        files=tuple(path for path in named if path.is_file()),
    )


def request(
    words: tuple[str, ...],
    settings: Config,
    gpus: int | None,
    image: str,
    flags: Sequence[str],
    directory: Path,
) -> Request:
    """The request of the arguments `words`, parsed to `settings`, in `directory`. Existing paths in them are inputs.

    Raises:
        Refused: the job would write to the working directory itself.
    """
    run = directory / settings.run.output_dir if settings.run.output_dir else None
    name = container(run) if run else new_container(config.run_name(words))
    read = reads.with_links(reads.of_job(words, settings, directory))
    writes = reads.output_file_folder(settings, directory)
    for flag, folders in (("--output_file", writes), ("--output_dir", (run,) if run else ())):
        _refuse_project(flag, folders, directory)
    return Request(words, gpus, image, name, tuple(flags), run, read, writes)


def _refuse_project(flag: str, folders: Iterable[Path], directory: Path) -> None:
    """Refused if the job would get the working directory for writing, with the code and .env in it."""
    example = "out/answers.csv" if flag == "--output_file" else "out"
    for folder in map(Path.resolve, folders):
        if directory.resolve().is_relative_to(folder):
            raise Refused(f"{flag}: the container would get all of {folder} for writing: name a folder below the "
                          f"current one, as in {flag} {example}")  # fmt: skip


def plan(request: Request, machine: Machine, directory: Path) -> Plan:
    """The command for `request`; Refused if this machine cannot run it."""
    settings = {
        "HF_HOME": str(machine.caches[0]),
        contract.OWNER: f"{contract.DOCKER}{machine.host}:{request.name}",
        contract.LAUNCHER_FLAGS: shlex.join(request.flags),
        **({} if machine.gpus.to_use(request.gpus) else HIDDEN),
    }
    words = [
        *("docker", "run", "--rm", "--init", "--pull=never", f"--name={request.name}"),
        *(f"--stop-timeout={STOP_SECONDS}", f"--shm-size={SHARED_MEMORY}"),
        *("--read-only", "--tmpfs=/tmp:exec", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
        *(f"--user={machine.user}", f"--workdir={directory}"),
        *_gpus(request, machine),
        *(f"--env={variable}" for variable in sorted({*machine.variables, *settings, contract.IMAGE_DIGEST})),
        *_mounts(writable(request, machine, directory), (*request.reads, *machine.files)),
        *(request.image, *request.job),
    ]
    return Plan(tuple(words), tuple(settings.items()), directory)


def run(plan: Plan, image: str, folders: Iterable[Path]) -> NoReturn:
    """Create the `folders` that the job writes to, then exec the docker client, whose exit code is the job's.

    Raises:
        Refused: docker or the image is missing, or a folder cannot be created.
    """
    digest = _digest(image)
    for folder in folders:  # docker would create them as root
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(f"{folder} cannot be created: {error.strerror}") from None
    os.execvpe(plan.argv[0], plan.argv, {**os.environ, **dict(plan.environment), contract.IMAGE_DIGEST: digest})


def container(run: Path) -> str:
    """The container's name, from the run folder's, so that docker rejects a second container for the same run."""
    real = run.resolve()  # the folder may be named by a link, as runs/latest, or with ..
    return f"muster-{_allowed(real.name)}-{hashlib.sha256(bytes(real)).hexdigest()[:8]}"


def new_container(run_name: str) -> str:
    """The container's name for a run whose folder is chosen inside it."""
    return f"muster-{_allowed(run_name)}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"


def _allowed(name: str) -> str:
    return re.sub("[^a-zA-Z0-9_.-]", "_", name)


def writable(request: Request, machine: Machine, directory: Path) -> tuple[Path, ...]:
    """The folders that the job writes to."""
    return (request.run or directory / "runs", *machine.caches, *request.writes)


def _gpus(request: Request, machine: Machine) -> list[str]:
    count = machine.gpus.to_use(request.gpus)
    if not count:
        return []
    if machine.gpus.names is not None:
        return [f'--gpus="device={",".join(machine.gpus.names[:count])}"', "--ulimit=memlock=-1"]
    return [f"--gpus={count if request.gpus else 'all'}", "--ulimit=memlock=-1"]


def _mounts(writable: Iterable[Path], readable: Iterable[Path]) -> list[str]:
    """Each path once, under the same path; paths inside a writable folder need no mount of their own."""
    folders = sorted(set(writable))
    files = sorted({path for path in readable if not any(path.is_relative_to(folder) for folder in folders)})
    return [*map(_mount, folders), *(_mount(path, "readonly") for path in files)]


def _mount(path: Path, *options: str) -> str:
    """docker parses the value as a line of csv."""
    value = io.StringIO()
    csv.writer(value, lineterminator="").writerow(["type=bind", f"source={path}", f"target={path}", *options])
    return f"--mount={value.getvalue()}"


def _digest(image: str) -> str:
    """The id of `image`; Refused if it cannot be run here."""
    if shutil.which("docker") is None:
        raise Refused("docker is not installed: use `make train`, which trains without it")
    command = ["docker", "image", "inspect", "--format={{.Id}}", image]
    inspected = subprocess.run(command, capture_output=True, text=True, check=False)
    if inspected.returncode:
        reason = (inspected.stderr.strip().splitlines() or ["docker image inspect failed"])[-1]
        raise Refused(f"image {image} not found: build it with `make image`, or `docker pull` one ({reason})")
    return inspected.stdout.strip()
