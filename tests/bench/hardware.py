"""What this machine is, printed as JSON: `python -m tests.bench.hardware`."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from pathlib import Path

from job.runtime import environment

VERSIONS = ("torch", "transformers", "accelerate", "datasets", "numpy")


def facts() -> dict[str, str | int]:
    """Hardware and versions, and where `datasets` caches (the embedded data set is there)."""
    import datasets

    versions = {name: metadata.version(name) for name in VERSIONS}
    machine: dict[str, str | int] = {
        "cpu": processor(),
        "cores": environment.cores(),
        "python": platform.python_version(),
    }
    return {**machine, **versions, "cache": str(datasets.config.HF_DATASETS_CACHE)}


def processor() -> str:
    """The processor's own name for itself, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    environment.prepare()
    print(json.dumps(facts()))
