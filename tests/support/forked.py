"""Scripts in processes forked from a warm one: the libraries, which take five seconds to import, are there already.

The warm process is the fork server of `multiprocessing`. It imports libraries alone, none of the job's code, and runs
no parallel region, as accelerate's own `debug_launcher` has it. A forked run reads the script from its first line, has
its own process id, session, environment and output, and gives the same bytes as `python script` (test_forked.py). What
libraries read at their import is the warm process's: a run that needs other settings must start cold.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from unittest import mock

LIBRARIES = (
    *("accelerate", "datasets", "datasets.packaged_modules.csv.csv", "dotenv", "evaluate", "numpy", "pandas"),
    *("jinja2", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "matplotlib.figure"),
    *("pyarrow.parquet", "safetensors.torch", "scipy.stats", "sklearn.metrics", "torch", "torch._dynamo"),
    *("torch.distributed.launcher.api", "torch.utils.tensorboard", "transformers", "transformers.optimization"),
    *("transformers.models.auto.modeling_auto", "transformers.models.bert.modeling_bert", "transformers.trainer_utils"),
    *("transformers.models.bert.tokenization_bert", "tyro", "typeguard", "xxhash", "yaml"),
    "tests.support.frozen",  # the last
)
READ_AT_IMPORT = ("HF_", "TRANSFORMERS_", "DATASETS_", "OMP_", "MKL_", "CUDA_", "GLIBC_", "TORCH_", "LD_", "PYTHON")


class Forked:
    """A forked run: of `subprocess.Popen`, what the tests use."""

    def __init__(self, process: ForkServerProcess) -> None:
        assert process.pid is not None
        self._process, self.pid = process, process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("forked", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def start(
    script: Path, arguments: Sequence[str], env: Mapping[str, str], cwd: Path, out: Path, err: Path, processes: int = 0
) -> Forked:
    """`python script arguments`, or that many ranks of it under torch's elastic agent; output goes to files."""
    server = _server_environment()
    other = sorted(k for k, v in env.items() if k.startswith(READ_AT_IMPORT) and k != "HF_HOME" and server.get(k) != v)
    if other:
        raise ValueError(f"{', '.join(other)}: read when the libraries are imported, so this run must start cold")
    words = (str(script), *map(str, arguments))
    process = _context().Process(target=_become, args=(words, dict(env), str(cwd), str(out), str(err), processes))
    process.start()
    return Forked(process)


@cache
def _context() -> ForkServerContext:
    """The warm process, which ends with this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LIBRARIES))
    with mock.patch.dict(os.environ, _server_environment(), clear=True):
        forkserver.ensure_running()
    atexit.register(_kill_what_is_left)
    return context


@cache
def _server_environment() -> dict[str, str]:
    """What job/train.py itself would set before it imports the libraries."""
    from job.runtime.environment import BARS, OFFLINE, QUIET, REPRODUCIBLE
    from tests.support.launch import environment

    home = tempfile.TemporaryDirectory(prefix="muster-tests-")
    atexit.register(home.cleanup)
    switches = dict.fromkeys((*OFFLINE, *BARS), "1")
    return {**environment(Path(home.name)), **switches, **QUIET, **REPRODUCIBLE}


def _kill_what_is_left() -> None:
    """`multiprocessing` would wait at exit for runs that a failed test has left."""
    for process in multiprocessing.active_children():
        process.kill()


def _become(words: tuple[str, ...], env: dict[str, str], cwd: str, out: str, err: str, processes: int) -> None:
    """In the forked process: what a new interpreter would find, then the script."""
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(file, number)
        os.close(file)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
    sys.path.insert(0, str(Path(words[0]).parent))
    _own_caches(env)
    if processes:
        _elastic(words, processes)
    else:
        _run(words)


def _own_caches(env: Mapping[str, str]) -> None:
    """Where `datasets` keeps its tables and `evaluate` its scripts, as an import would have it; and the names that
    `datasets` draws for tables, which would be the same in every fork."""
    import datasets
    import evaluate
    from datasets import fingerprint

    datasets.config.HF_DATASETS_CACHE = Path(env["HF_HOME"], "datasets")
    evaluate.config.HF_MODULES_CACHE = Path(env["HF_HOME"], "modules")
    sys.path.insert(1, str(evaluate.config.HF_MODULES_CACHE))  # behind the script's folder, before the warm process's
    fingerprint.fingerprint_rng.seed()


def _run(words: tuple[str, ...]) -> None:
    sys.argv = list(words)
    runpy.run_path(words[0], run_name="__main__")


def _elastic(words: tuple[str, ...], processes: int) -> None:
    """As torchrun --standalone: the store's port is one that the system has given."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id="test", rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", max_restarts=0, start_method="fork", monitor_interval=0.05,
    )  # fmt: skip
    elastic_launch(config, _run)(words)
