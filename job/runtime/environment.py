"""The process's environment variables, set before torch or a Hugging Face library is imported.

These libraries and OpenMP read their variables once, at import. So .env, the offline switches and the number of threads
come first, using only the standard library and python-dotenv. The real environment always takes precedence over .env:
a file never silently replaces what a cluster or a shell sets.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from job.errors import Refused
from job.runtime import contract, signals
from job.runtime.console import log
from job.runtime.package import ROOT

OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "TRANSFORMERS_OFFLINE")
HUB_TOKEN = "HF_TOKEN"
"""The token for uploads; it is never a flag, nor written anywhere."""
QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "TRANSFORMERS_VERBOSITY": "error",  # warnings about how we call the libraries do not help the user
    "DATASETS_VERBOSITY": "error",
}
REPRODUCIBLE = {"MKL_CBWR": "AUTO,STRICT"}
"""Makes an fp32 matrix product on a CPU independent of the number of threads, which depends on that of processes: MKL's
strict conditional numerical reproducibility. MKL reads it at its first product."""
BARS = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")
"""Turned off in a log file, where a progress bar is thousands of carriage returns."""
TASKS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""Variables with the number of tasks that srun or mpirun started."""
TRUE = {"1", "true", "yes", "on"}
ALLOCATOR_VARIABLE = "GLIBC_TUNABLES"
ALLOCATOR = "glibc.malloc.hugetlb=1"
"""Makes glibc's allocator use huge pages. It is read when a process starts, so our launchers set it; without it a run
on a CPU is a few percent slower (docs/architecture.md)."""
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
KEEP_FREED_MEMORY = {M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**27, M_MMAP_THRESHOLD: 2**25}
"""For glibc's mallopt, in bytes. By default the allocator returns memory to the kernel and requests it again each
step."""
CUDA_ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Variables that configure torch's CUDA allocator: the newer and the older name."""
EXPANDABLE = "expandable_segments:True"
"""Micro-batches differ in size: without this, freed memory is too fragmented for the next one."""
PLANNED_ELSEWHERE = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism_config",
}


def keep_freed_memory() -> None:
    """Make glibc's allocator keep freed memory. No effect on other systems, or if GLIBC_TUNABLES sets it."""
    if sys.platform == "linux" and "glibc.malloc.trim" not in os.environ.get(ALLOCATOR_VARIABLE, ""):
        with contextlib.suppress(AttributeError):  # musl has no mallopt
            mallopt = ctypes.CDLL(None).mallopt
            for option, value in KEEP_FREED_MEMORY.items():
                mallopt(option, value)


def prepare() -> None:
    """Load .env and set offline switches and threads; Refused for a launcher configuration that is not supported.

    Idempotent. Call it before importing torch, transformers, datasets or evaluate.
    """
    keep_freed_memory()
    from_file = load_dotenv()
    provide_home()
    _go_offline_together()
    for name, value in {**QUIET, **REPRODUCIBLE}.items():
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
    """Configure torch's CUDA allocator, unless the user has."""
    if not any(name in os.environ for name in CUDA_ALLOCATOR):
        os.environ[CUDA_ALLOCATOR[0]] = EXPANDABLE


def load_dotenv() -> dict[str, str]:
    """Set the variables of ./.env (or the checkout's) that are not set yet; returns all values in the file.

    Values are literal, without interpolation: a `$` in a token is a `$`. Not read in a container that our launcher
    started: it passed what is valid inside, and the file may say which GPUs of the host to use.
    """
    if os.environ.get(contract.OWNER, "").startswith(contract.DOCKER):
        return {}
    path = next((p for p in (Path.cwd() / ".env", ROOT / ".env") if p.is_file()), None)
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise Refused(f"{path} cannot be read as UTF-8 text ({type(error).__name__}): save it as UTF-8") from None
    given = _parsed(path, text)
    for name, value in given.items():
        os.environ.setdefault(name, value)
    return given


def _parsed(path: Path, text: str) -> dict[str, str]:
    """The variables in the text of a .env file.

    Raises:
        Refused: a line is not NAME=value. Without its variable, the job could run elsewhere or differently. The message
            does not quote the line, which may be a token.
    """
    from dotenv.parser import parse_stream

    given = {}
    for line in parse_stream(io.StringIO(text)):
        written = line.original.string
        if line.error or "\0" in written:
            number = line.original.line + written[: -len(written.lstrip())].count("\n")
            raise Refused(f"{path}, line {number} is not NAME=value: correct it (a quote that opens must close), or "
                          "put # in front of it")  # fmt: skip
        if line.key is not None and line.value is not None:
            given[line.key] = line.value
    return given


def provide_home() -> None:
    """If HOME is not writable, as on some nodes, create one in TMPDIR: libraries keep their caches there."""
    home = os.environ.get("HOME", "")
    if home and os.access(home, os.W_OK | os.X_OK):
        return
    temporary = Path(tempfile.gettempdir(), f"muster-home-{os.getuid()}")
    try:
        temporary.mkdir(mode=0o700, exist_ok=True)
        if temporary.stat().st_uid != os.getuid():
            temporary = Path(tempfile.mkdtemp(prefix="muster-home-"))
    except OSError:
        return  # a library that needs HOME reports it
    os.environ["HOME"] = str(temporary)
    if os.environ.get("RANK", "0") == "0":
        log.warning(f"HOME {f'({home}) is not writable' if home else 'is not set'}: using {temporary}")


def _go_offline_together() -> None:
    """If one offline switch is set, set all: otherwise each library fails in its own way, some after long retries."""
    if any(os.environ.get(name, "").lower() in TRUE for name in OFFLINE):
        os.environ.update(dict.fromkeys(OFFLINE, "1"))


def refuse_launcher_plans(environ: Mapping[str, str]) -> None:
    """Refused if the launcher would change what a step computes."""
    refuse_accelerate_plans(environ)
    if int(environ.get("WORLD_SIZE", "1")) > 1 and "LOCAL_RANK" not in environ:
        raise Refused("WORLD_SIZE is set but LOCAL_RANK is not, so each process would train alone: start the job with "
                      "accelerate launch, torchrun or a launcher that sets LOCAL_RANK")  # fmt: skip
    refuse_unjoined_tasks(environ)


def refuse_accelerate_plans(environ: Mapping[str, str]) -> None:
    """Refused if accelerate's configuration, or an exported variable, would change what a step computes."""
    for name, what in PLANNED_ELSEWHERE.items():
        if environ.get(name, "").lower() in TRUE:
            raise Refused(f"the accelerate configuration enables {what} ({name}), but only data parallelism (DDP) is "
                          "supported: choose another configuration with `accelerate config` or --config_file, or unset "
                          "the variable")  # fmt: skip
    if environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() not in ("no", ""):
        raise Refused("the accelerate configuration sets a dynamo backend: remove it, or start with --dynamo_backend "
                      "no; --torch_compile compiles the model")  # fmt: skip
    if environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1") != "1":
        raise Refused("the accelerate configuration sets gradient_accumulation_steps: remove it; --train_batch_size is "
                      "the global batch, split to fit --max_tokens_per_device")  # fmt: skip


def refuse_unjoined_tasks(environ: Mapping[str, str]) -> None:
    """Refused if several tasks were started without joining them: each would train alone, in the same folder.

    The number of tasks is that of the Slurm step: in a batch script SLURM_NTASKS is that of the whole job.
    """
    for name in TASKS if "LOCAL_RANK" not in environ else ():
        if environ.get(name, "").isdigit() and int(environ[name]) > 1:
            raise Refused(f"{environ[name]} tasks were started ({name}), but each would train alone: start one, and "
                          "let accelerate launch, torchrun or `make submit` start the others; if the variable is left "
                          "over from something else, unset it")  # fmt: skip


def threads(environ: Mapping[str, str], launcher: Mapping[str, str] | None) -> int:
    """Threads of this process: as the user set, else the available cores divided by the processes of this machine.

    accelerate and torchrun set OMP_NUM_THREADS to 1 if it is unset, which leaves cores idle. Whether the user set it is
    seen in the environment that the launcher was started with (`launcher`; None if it cannot be read).
    """
    if environ.get(contract.THREADS, "").isdigit():
        return int(environ[contract.THREADS])
    started_by_launcher = signals.has_launcher(environ)
    users = environ if launcher is None or not started_by_launcher else launcher
    value = users.get("OMP_NUM_THREADS", "")
    set_by_launcher = launcher is None and started_by_launcher and value == "1"
    if value.isdigit() and int(value) > 0 and not set_by_launcher:
        return int(value)
    return max(1, cores() // int(environ.get("LOCAL_WORLD_SIZE") or environ.get("WORLD_SIZE") or 1))


def cores() -> int:
    """Cores that this process may use: its CPU affinity, limited by the container's quota."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(affinity, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2 here, or its quota is "max"
        return affinity


def _launcher_environment() -> dict[str, str] | None:
    """The environment that the parent process was started with; None if the system does not show it."""
    try:
        raw = Path(f"/proc/{os.getppid()}/environ").read_bytes()
    except OSError:
        return None
    pairs = (entry.partition("=") for entry in raw.decode(errors="replace").split("\0") if entry)
    return {name: value for name, _, value in pairs}
