"""Queue the job on a Slurm cluster through submitit: one task a GPU, on one or many nodes.

submitit writes the batch script and the worker's pickle, calls sbatch and gives each rank its log. Its own requeue is
not used: it runs scontrol in the worker, which a container does not have. Here the job saves and leaves a marker, and
the batch script requeues (requeue.sh). There is no torchrun in between: signals reach the ranks, and the exit code
reaches Slurm.

The script's text is asked of submitit's own (private) function, so that the dry run prints exactly what is queued also
where no Slurm is installed. Refused: a template of ours beside submitit's.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job import config as configuration
from job.config import Config
from job.errors import Refused
from job.runtime import contract
from launch import sites
from launch.plan import Plan
from launch.sites import Site
from launch.slurm import containers, worker
from launch.slurm.snapshot import Snapshot, take

HERE = Path(__file__).parent
UNTIL_PYTHON = ("sh", "-c", 'trap "" TERM USR2; exec "$@"', "sh")
"""A signal in the first moments would kill the job; the worker's own first act is to hold signals back."""
OURS = (
    *("array", "chdir", "container-image", "error", "export", "nodes", "no-requeue", "ntasks", "ntasks-per-node"),
    *("open-mode", "output", "parsable", "signal", "test-only", "wait", "wrap"),
)
"""Flags of sbatch that the launcher sets itself or that would break the way a job stops and goes on."""


@dataclass(frozen=True)
class Request:
    """What the user asks for."""

    config: Config
    """All settings of the job."""
    gpus: int
    """GPUs of a node; 0: train on the CPU."""
    tasks: int | None
    """Processes of a node, on the CPU; None: one."""
    nodes: int
    run: Path
    """Run folder."""
    stamp: str
    """Names this submission in the run folder."""


@dataclass(frozen=True)
class Submission:
    """What would be queued."""

    plan: Plan
    """sbatch and its script."""
    parameters: dict[str, Any]
    """submitit's, under Slurm's names; the script is made of them."""
    python: str
    """Shell words that start the worker."""
    argv: tuple[str, ...]
    """The job's command line on the nodes."""
    config: Config
    run: Path
    folder: Path
    """This submission's own: code/ and config.yaml."""
    code: Snapshot

    def __str__(self) -> str:
        facts = [
            f"# {self.code} -> {self.folder / 'code'}",
            f"# each process: launch.slurm.worker.run({', '.join(map(repr, self.argv))})",
        ]
        return "\n".join([*facts, f"# checked first: {shlex.join([*self.plan.argv, '--test-only'])}", str(self.plan)])


def plan(request: Request, at: Site, environ: Mapping[str, str], directory: Path, code: Snapshot) -> Submission:
    """The submission for `request`.

    Raises:
        Refused: numbers, names or paths that make no job.
    """
    run = sites.safe_path("--output_dir", request.run)
    folder = run / contract.JOBS / f"submitted-{request.stamp}"
    container = containers.enter(
        at.container,
        at.image,
        python=sys.executable,
        mounts=[directory, run, *_local_paths(request.config, environ)],
        directory=sites.safe_path("the working directory", directory),
        gpus=request.gpus > 0,
    )
    python = shlex.join(
        [*UNTIL_PYTHON, *container.python, "-u", "-P", str(folder / "code" / "launch" / "slurm" / "worker.py")]
    )
    parameters = {
        **_resources(request, at),
        "setup": [*_setup(request, at, environ), *container.setup],
        "srun_args": ["--kill-on-bad-exit=1", "--wait=60", f"--cpus-per-task={at.cpus_per_task}", *container.srun_args],
        "teardown": ["rc=$?", *(HERE / "requeue.sh").read_text(encoding="utf-8").splitlines()],
        "additional_parameters": {"requeue": True, "chdir": str(directory), **_users_flags(at)},
    }
    argv = (str(folder / "config.yaml"), "--output_dir", str(run))
    sbatch = Plan(("sbatch",), (), directory, _script(parameters, python, run))
    return Submission(sbatch, parameters, python, argv, request.config, run, folder, code)


def submit(submission: Submission) -> str:
    """Queue the job and return its id.

    Raises:
        Refused: there is no Slurm here, or it does not take the job; nothing is left behind.
    """
    if not (shutil.which("sbatch") and shutil.which("srun")):
        raise Refused("no Slurm here (sbatch and srun are not on PATH): submit on a login node, or look with --dry_run")
    with _outside_any_job():
        _ask_slurm(submission.plan)
        is_new = not submission.run.exists()
        try:
            _write(submission)
            return _queue(submission)
        except OSError as error:
            _discard(submission.run if is_new else submission.folder)
            raise Refused(f"{error.filename} cannot be written: {error.strerror}") from None
        except BaseException:
            _discard(submission.run if is_new else submission.folder)
            raise


# ---------------------------------------------------------------------------------------------------------------------
# The plan


def _resources(request: Request, at: Site) -> dict[str, Any]:
    """What the job takes of the cluster. Every task sees all GPUs of its node: a mask would misname them to NCCL."""
    for name in ("nodes", "tasks"):
        if getattr(request, name) == 0:
            raise Refused(f"--{name} must be above 0")
    if request.gpus and request.tasks is not None:
        raise Refused("--tasks is for the CPU, GPUs have one process each: leave it out, or add --gpus 0")
    asked = {name: getattr(at, name) for name in ("partition", "account", "qos", "constraint")}
    if request.gpus and at.gres:
        asked["gres"] = f"{at.gres}:{request.gpus}"
    elif request.gpus:
        asked["gpus_per_node"] = request.gpus
    return {
        **{name: value for name, value in asked.items() if value},
        "job_name": at.job_name or re.sub(r"[^A-Za-z0-9._=,:@%+-]", "-", request.run.name),
        "time": sites.minutes(at.time),
        "nodes": request.nodes,
        "ntasks_per_node": request.gpus or request.tasks or 1,
        "cpus_per_task": int(at.cpus_per_task),
        "signal_delay_s": int(at.signal_delay),
    }


def _setup(request: Request, at: Site, environ: Mapping[str, str]) -> list[str]:
    """Shell lines before srun: the site's, then what the worker is told by its environment."""
    users = environ.get("OMP_NUM_THREADS", "")
    told = {
        "ACCELERATE_USE_CPU": "false" if request.gpus else "true",
        "ACCELERATE_MIXED_PRECISION": request.config.training.mixed_precision or "no",
        contract.THREADS: users if re.fullmatch("[1-9][0-9]*", users) else at.cpus_per_task,
        contract.MASTER_ADDR: at.master_addr,
    }
    return [
        *([at.setup] if at.setup else []),
        *(f"export {name}={shlex.quote(value)}" for name, value in told.items() if value),
        f"marker={shlex.quote(str(request.run / 'jobs'))}/$SLURM_JOB_ID/{worker.MARKER}",
        'rm -f "$marker"',
    ]


def _users_flags(at: Site) -> dict[str, str | bool]:
    flags = sites.sbatch_flags(at.sbatch)
    if taken := [name for name in flags if name in OURS]:
        raise Refused(f"--sbatch --{taken[0]}: the launcher sets this itself, or relies on it")
    return flags


def _local_paths(config: Config, environ: Mapping[str, str]) -> list[Path]:
    """Folders outside the run folder that the job reads or writes: data, model, caches."""
    values = configuration.as_dict(config)
    files = [values[name] for name in ("train_file", "validation_file", "test_file") if values[name]]
    folders = [values[name] for name in ("dataset_name", "model_name_or_path", "tokenizer_name") if values[name]]
    caches = [environ[name] for name in ("HF_HOME", "HF_HUB_CACHE") if environ.get(name)]
    return [Path(name).parent for name in files] + [Path(name) for name in folders + caches if Path(name).is_dir()]


def _script(parameters: Mapping[str, Any], python: str, run: Path) -> str:
    from submitit.slurm.slurm import _make_sbatch_string

    folder = run / contract.JOBS / "%j"
    command = f"{python} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    return _make_sbatch_string(command=command, folder=folder, **parameters) + "\n"


# ---------------------------------------------------------------------------------------------------------------------
# The act


@contextmanager
def _outside_any_job() -> Iterator[None]:
    """Hide the variables of a job that we may run in, and SBATCH_*, which would beat the script's own flags.

    SLURM_CONF, which says where the cluster is, stays.
    """
    from submitit.helpers import clean_env

    conf = os.environ.get("SLURM_CONF")
    with clean_env():
        if conf is not None:
            os.environ["SLURM_CONF"] = conf
        yield


def _ask_slurm(plan: Plan) -> None:
    """Refused with Slurm's words where it would not take the script; nothing is queued."""
    asked = [*plan.argv, "--test-only"]
    try:
        done = subprocess.run(asked, input=plan.script, cwd=plan.directory, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refused(f"{shlex.join(asked)} does not work here: {error}") from None
    if done.returncode:
        raise Refused(f"Slurm does not take the job: {_said(done.stderr)}")


def _said(stderr: str) -> str:
    """Slurm's errors as one line."""
    lines = [re.sub(r"^(sbatch|allocation failure): (error: )?", "", line.strip()) for line in stderr.splitlines()]
    return "; ".join(filter(None, lines)) or "it gives no reason"


def _write(submission: Submission) -> None:
    """The code and the settings as they are now, which is how they will run."""
    submission.folder.mkdir(parents=True)
    take(submission.code, submission.folder / "code")
    text = configuration.to_yaml(submission.config)
    (submission.folder / "config.yaml").write_text(text, encoding="utf-8")


def _queue(submission: Submission) -> str:
    import submitit

    executor = submitit.AutoExecutor(
        submission.run / contract.JOBS / "%j", cluster="slurm", slurm_python=submission.python
    )
    executor.update_parameters(**{f"slurm_{name}": value for name, value in submission.parameters.items()})
    try:
        return executor.submit(worker.run, *submission.argv).job_id
    except submitit.core.utils.FailedJobError as error:
        raise Refused(f"Slurm does not take the job: {_said(str(error))}") from None


def _discard(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
