"""The process's environment, made right before anything heavy is imported.

Torch, OpenMP and the Hugging Face libraries read their variables once, at import: .env, the offline switches and the
number of threads therefore come first, with the standard library and python-dotenv alone. The real environment always
wins over .env, so that what a cluster or a shell sets is never silently replaced by a file.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from job.errors import Refused
from job.runtime import contract
from job.runtime.console import log

ROOT = Path(__file__).resolve().parents[2]
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "TRANSFORMERS_OFFLINE")
QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "TRANSFORMERS_VERBOSITY": "error",  # how the libraries are used is our affair, not the reader's
    "DATASETS_VERBOSITY": "error",
}
BARS = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")
"""In a log file a bar is thousands of carriage returns."""
TASKS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""Number of tasks that srun or mpirun started."""
TRUE = {"1", "true", "yes", "on"}
ALLOCATOR_VARIABLE = "GLIBC_TUNABLES"
ALLOCATOR = "glibc.malloc.hugetlb=1"
"""For glibc's allocator: memory in huge pages. It is read when a process starts, so our launchers set it; without it a
run on a CPU loses a few percent of its speed (docs/architecture.md)."""
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
KEEP_FREED_MEMORY = {M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**27, M_MMAP_THRESHOLD: 2**25}
"""For glibc's mallopt, in bytes. As it comes, the allocator asks the kernel anew for the memory of each step."""
CUDA_ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Settings of torch's allocator for GPUs, by their newer and their older name."""
EXPANDABLE = "expandable_segments:True"
"""Each micro-batch has another size: without this, freed memory is in pieces that fit none of the next."""
PLANNED_ELSEWHERE = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism_config",
}


def keep_freed_memory() -> None:
    """Let glibc's allocator keep memory that is freed; nothing on other systems, or where GLIBC_TUNABLES sets it."""
    if sys.platform == "linux" and "glibc.malloc.trim" not in os.environ.get(ALLOCATOR_VARIABLE, ""):
        with contextlib.suppress(AttributeError):  # musl has no mallopt
            mallopt = ctypes.CDLL(None).mallopt
            for option, value in KEEP_FREED_MEMORY.items():
                mallopt(option, value)


def prepare() -> None:
    """Load .env and set offline switches and threads; Refused for a launcher configuration that the job cannot honour.

    Idempotent; to be called before torch, transformers, datasets or evaluate are imported.
    """
    keep_freed_memory()
    from_file = load_dotenv()
    provide_home()
    _go_offline_together()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    set_gpu_allocator()
    if not sys.stderr.isatty():
        for name in BARS:
            os.environ.setdefault(name, "1")
    refuse_launcher_plans(os.environ)
    launcher = _launcher_environment()
    users = None if launcher is None else {**from_file, **launcher}
    os.environ["OMP_NUM_THREADS"] = str(threads(os.environ, users))


def set_gpu_allocator() -> None:
    """Settings of torch's allocator for GPUs, unless the user has made some."""
    if not any(name in os.environ for name in CUDA_ALLOCATOR):
        os.environ[CUDA_ALLOCATOR[0]] = EXPANDABLE


def load_dotenv() -> dict[str, str]:
    """Put the values of ./.env (or the checkout's) into the environment where they are not set already; returns them.

    Values are taken as they stand, without interpolation: a `$` in a token is a `$`.
    """
    from dotenv import dotenv_values

    path = next((p for p in (Path.cwd() / ".env", ROOT / ".env") if p.is_file()), None)
    if path is None:
        return {}
    try:
        values = dotenv_values(path, interpolate=False, encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise Refused(f"{path} cannot be read as UTF-8 text: {type(error).__name__}") from None
    given = {name: value for name, value in values.items() if value is not None}
    for name, value in given.items():
        os.environ.setdefault(name, value)
    return given


def provide_home() -> None:
    """Where HOME cannot be written, as on some nodes, put one into TMPDIR: libraries keep their caches there."""
    home = os.environ.get("HOME", "")
    if home and os.access(home, os.W_OK | os.X_OK):
        return
    found = Path(tempfile.gettempdir(), f"muster-home-{os.getuid()}")
    try:
        found.mkdir(mode=0o700, exist_ok=True)
        if found.stat().st_uid != os.getuid():
            found = Path(tempfile.mkdtemp(prefix="muster-home-"))
    except OSError:
        return  # what needs a home says so itself
    os.environ["HOME"] = str(found)
    if os.environ.get("RANK", "0") == "0":
        log.warning(f"HOME {f'({home}) cannot be written' if home else 'is not set'}: {found} is used instead")


def _go_offline_together() -> None:
    """One switch for all: half offline, each library would fail in its own way, some after long retries."""
    if any(os.environ.get(name, "").lower() in TRUE for name in OFFLINE):
        os.environ.update(dict.fromkeys(OFFLINE, "1"))


def refuse_launcher_plans(environ: Mapping[str, str]) -> None:
    """Refused if `accelerate launch` was configured for something that would change what a step computes."""
    for name, what in PLANNED_ELSEWHERE.items():
        if environ.get(name, "").lower() in TRUE:
            raise Refused(f"the accelerate configuration asks for {what}: this job runs data-parallel (DDP) only; "
                          "choose another with `accelerate config` or --config_file")  # fmt: skip
    if environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1") != "1":
        raise Refused("the accelerate configuration sets gradient_accumulation_steps: here --train_batch_size is the "
                      "global batch and is cut to fit --max_tokens_per_device; remove it there")  # fmt: skip
    if int(environ.get("WORLD_SIZE", "1")) > 1 and "LOCAL_RANK" not in environ:
        raise Refused("WORLD_SIZE is set but LOCAL_RANK is not: each process would train alone; start them with "
                      "accelerate launch, torchrun or a launcher that sets LOCAL_RANK")  # fmt: skip
    refuse_unjoined_tasks(environ)


def refuse_unjoined_tasks(environ: Mapping[str, str]) -> None:
    """Refused where several tasks were started but nothing joined them: each would train alone, into one folder.

    Slurm's number of tasks is the step's: in a batch script SLURM_NTASKS rightly holds those of the whole job.
    """
    for name in TASKS if "LOCAL_RANK" not in environ else ():
        if environ.get(name, "").isdigit() and int(environ[name]) > 1:
            raise Refused(f"{environ[name]} tasks were started ({name}), and each would train alone: "
                          "start one and let accelerate launch, torchrun or `make submit` start the rest; if the "
                          "variable was left over by something else, unset it")  # fmt: skip


def threads(environ: Mapping[str, str], launcher: Mapping[str, str] | None) -> int:
    """Threads of this process: what the user set, else the cores it was given over the processes of this machine.

    accelerate and torchrun set OMP_NUM_THREADS to 1 where it is unset, which leaves cores idle. Who set it can be read
    off the environment that the launcher itself was started with (`launcher`; None where it cannot be read).
    """
    if environ.get(contract.THREADS, "").isdigit():
        return int(environ[contract.THREADS])
    started_by_launcher = "LOCAL_RANK" in environ or "ACCELERATE_MIXED_PRECISION" in environ
    users = environ if launcher is None or not started_by_launcher else launcher
    value = users.get("OMP_NUM_THREADS", "")
    set_by_launcher = launcher is None and started_by_launcher and value == "1"
    if value.isdigit() and int(value) > 0 and not set_by_launcher:
        return int(value)
    return max(1, cores() // int(environ.get("LOCAL_WORLD_SIZE") or environ.get("WORLD_SIZE") or 1))


def cores() -> int:
    """Cores this process may use: its affinity, and less where the container's quota is less."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(affinity, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2 here, or its quota is "max"
        return affinity


def _launcher_environment() -> dict[str, str] | None:
    """The environment the parent process was started with; None where the system does not show it."""
    try:
        raw = Path(f"/proc/{os.getppid()}/environ").read_bytes()
    except OSError:
        return None
    pairs = (entry.partition("=") for entry in raw.decode(errors="replace").split("\0") if entry)
    return {name: value for name, _, value in pairs}
