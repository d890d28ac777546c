"""For all tests: signals, environment, examples per property, order, and the folder that the runs of a module share."""

from __future__ import annotations

import os
import re
import signal
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.interrupted import World, make_world

# A shell starts what runs in the background with SIGINT ignored, nohup with SIGHUP: these tests send them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# What the caller has exported must not steer what is tested: a job's variables, a login node's, git's, a locale's.
STEERING = re.compile(
    r"MAKE\w+|MFLAGS|(MUSTER|SLURM|SBATCH|SQUEUE|SACCT|SCANCEL|SALLOC|SRUN|ACCELERATE|GIT|MASTER|LC)_\w+"
    r"|(LOCAL_)?(RANK|WORLD_SIZE)|OMP_NUM_THREADS|LANGUAGE|COLUMNS|LINES|(NO|FORCE)_COLOR"
)
for variable in filter(STEERING.fullmatch, tuple(os.environ)):
    del os.environ[variable]
os.environ["LC_ALL"] = "C.UTF-8"

# A first example may import a library, and a machine may be slow. In make test the examples are always the same.
LASTING: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
for name, examples in {"quick": 25, "short": 100, "fuzz": 1000}.items():
    settings.register_profile(name, max_examples=examples, derandomize=name == "quick", **LASTING)
settings.load_profile("quick")  # `make fuzz` asks for another


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest comes first: at the end the other processes would wait for it."""
    items.sort(key=lambda item: item.name != "test_mypy_finds_no_error")


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A model, tables, and the flags of all runs of a module, whose WORLD says what differs from the usual."""
    return make_world(tmp_path_factory.mktemp("world"), **getattr(request.module, "WORLD", {}))
