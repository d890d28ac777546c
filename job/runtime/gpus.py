"""What the NVIDIA driver and the environment say about this machine's GPUs, without torch.

nvidia-smi can fail on a machine with working GPUs, or be missing there. So a failure is reported as one, and is not the
same as a machine without GPUs.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from job.runtime.environment import TRUE

DRIVER = Path("/proc/driver/nvidia")
SECONDS = 30
"""Time limit of nvidia-smi."""
MASK = "CUDA_VISIBLE_DEVICES"
NO_DEVICE = re.compile(r"\s*(-1|NoDevFiles|void|none)?\s*")
"""Values of CUDA_VISIBLE_DEVICES that request the CPU."""
REPAIR = "repair the driver, which may only need a reboot"
CPU_INSTEAD = (
    f"to train on the CPU use GPUS=0 (make), --gpus 0 (muster), --cpu (accelerate launch) or {MASK}= (any launcher)"
)


@dataclass(frozen=True)
class Listing:
    """The output of `nvidia-smi -L`."""

    lines: tuple[str, ...] = ()
    failure: str = ""
    """Why nvidia-smi could not list the GPUs; empty if it could, or if it is not installed."""

    @property
    def gpus(self) -> int:
        return sum(line.startswith("GPU ") for line in self.lines)

    @property
    def has_mig(self) -> bool:
        """Whether a GPU is divided into MIG devices."""
        return any(line.lstrip().startswith("MIG ") for line in self.lines)


def cpu_is_requested(environ: Mapping[str, str]) -> bool:
    """Whether Accelerate's variable or an empty CUDA_VISIBLE_DEVICES requests the CPU."""
    mask = environ.get(MASK)
    hidden = mask is not None and NO_DEVICE.fullmatch(mask) is not None
    return environ.get("ACCELERATE_USE_CPU", "").lower() in TRUE or hidden


def listed() -> Listing:
    """The GPUs that nvidia-smi lists."""
    try:
        done = _nvidia_smi("-L")
    except FileNotFoundError:
        return Listing()
    except subprocess.TimeoutExpired:
        return Listing(failure=f"no answer within {SECONDS} s")
    except OSError as error:
        return Listing(failure=str(error.strerror))
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if done.returncode and not any(line.startswith("No devices") for line in lines):
        return Listing(failure=lines[0].strip() if lines else f"exit code {done.returncode}")
    return Listing(tuple(done.stdout.splitlines()))


def in_driver() -> int:
    """GPUs that the kernel's driver lists, including those hidden from this process."""
    folder = DRIVER / "gpus"
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def driver_version() -> str:
    """The version of the NVIDIA driver; empty if there is none."""
    try:
        lines = _nvidia_smi("--query-gpu=driver_version", "--format=csv,noheader", check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        lines = []
    if lines:
        return lines[0].strip()
    version = DRIVER / "version"
    found = re.search(r"Module\s+(\d[\d.]*)", version.read_text()) if version.is_file() else None
    return found[1] if found else ""


def _nvidia_smi(*arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
    command = ["nvidia-smi", *arguments]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=check)
