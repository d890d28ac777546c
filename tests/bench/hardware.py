"""What this machine is, printed as JSON: `python -m tests.bench.hardware cpu|cuda`."""

from __future__ import annotations

import json
import platform
import sys
from importlib import metadata
from pathlib import Path

from job.runtime import environment

VERSIONS = ("torch", "transformers", "accelerate", "datasets", "numpy")


def facts(device: str) -> dict[str, str | int]:
    """Hardware and versions, and where `datasets` caches (the embedded data set is there)."""
    import datasets

    gpu = graphics() if device == "cuda" else ""
    versions = {name: metadata.version(name) for name in VERSIONS}
    machine: dict[str, str | int] = {
        "cpu": processor(),
        "cores": environment.cores(),
        "gpu": gpu,
        "python": platform.python_version(),
    }
    return {**machine, **versions, "cache": str(datasets.config.HF_DATASETS_CACHE)}


def graphics() -> str:
    """The name of the GPU; empty without one."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def processor() -> str:
    """The processor's own name for itself, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    environment.prepare()
    print(json.dumps(facts(sys.argv[1])))
