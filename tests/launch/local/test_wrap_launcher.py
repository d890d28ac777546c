"""What comes through the real launchers: the job's own exit code, its own messages, and every signal once.

A small script replaces job/train.py in plans of launch.local, one process with accelerate and two with torch.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.local import command as local
from launch.local.command import Machine, Request
from launch.local.gpus import Gpus
from tests.launch.running import command_line, marked, supervised, wait_until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the tests look processes up in /proc")

STAND_IN = """
import os, pathlib, signal, sys, time, traceback
rank = os.environ.get("RANK", "0")
todo = sys.argv[1]
def leave(code):
    if code or rank == "0": pathlib.Path(os.environ["MUSTER_EXIT_CODE_FILE"]).write_text(str(code))
    sys.exit(code)
def handle(number, frame):
    with open(f"heard-{rank}", "a") as file: file.write(signal.Signals(number).name)
if todo == "waits":
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2): signal.signal(number, handle)
    pathlib.Path(f"ready-{rank}").touch()
    while not pathlib.Path(f"heard-{rank}").exists(): time.sleep(0.01)
    time.sleep(0.5)
    pathlib.Path(f"saved-{rank}").touch()
    leave(75)
if todo == "killed":
    os.kill(os.getpid(), signal.SIGKILL) if rank == os.environ.get("LAST", "0") else time.sleep(60)
code = int(todo)
if code == 1:
    try: raise RuntimeError("a fault of the program")
    except RuntimeError: print(traceback.format_exc(), end="", file=sys.stderr, flush=True)
    sys.exit(1)  # as job/train.py has it, but for the file
if code and rank == "0": print(f"error: the reason of {code}", file=sys.stderr, flush=True)
leave(code)
"""
long = pytest.mark.long
MACHINE = Machine(gpus=Gpus(0), cores=2, omp_num_threads="")


def command(processes: int, todo: str, folder: Path) -> list[str]:
    """The plan of `processes` processes, with the stand-in where job/train.py is."""
    (folder / "stand_in.py").write_text(STAND_IN, encoding="ascii")
    request = Request(job=(todo,), mixed_precision=None, gpus=0, tasks=processes)
    plan = local.plan(request, MACHINE, folder)
    settings = [f"{name}={value}" for name, value in plan.environment]
    return ["env", *settings, *(str(folder / "stand_in.py") if w == str(local.TRAIN) else w for w in plan.argv)]


def outcome(processes: int, todo: str, folder: Path) -> tuple[int, str]:
    """Exit code and stderr."""
    with supervised(command(processes, todo, folder), folder, environ={"LAST": str(processes - 1)}) as run:
        return run.end(timeout=120)


@pytest.mark.parametrize(
    ("processes", "code"),
    [(1, 2), (2, 75), *(pytest.param(*case, marks=long) for case in [(1, 0), (1, 3), (1, 75), (2, 0), (2, 2), (2, 3)])],
)
def test_the_jobs_exit_code_and_one_line_error_are_passed_on(processes: int, code: int, tmp_path: Path) -> None:
    stderr = f"error: the reason of {code}\n" if code else ""
    assert outcome(processes, str(code), tmp_path) == (code, stderr)


@pytest.mark.parametrize("processes", [pytest.param(1, marks=long), 2])
def test_a_crash_shows_the_jobs_traceback_and_no_other(processes: int, tmp_path: Path) -> None:
    code, stderr = outcome(processes, "1", tmp_path)
    assert code == 1
    assert stderr.count("RuntimeError: a fault of the program") == stderr.count("Traceback") in range(1, processes + 1)
    assert "accelerate" not in stderr
    assert "torch" not in stderr


@pytest.mark.parametrize("processes", [pytest.param(1, marks=long), 2])
def test_a_rank_that_was_killed_is_named(processes: int, tmp_path: Path) -> None:
    stderr = f"error: rank {processes - 1} was killed by SIGKILL: the machine may be out of memory\n"
    assert outcome(processes, "killed", tmp_path) == (137, stderr)


@pytest.mark.parametrize(
    ("processes", "number"),
    [
        pytest.param(1, signal.SIGTERM, marks=long),
        (2, signal.SIGTERM),
        pytest.param(2, signal.SIGUSR2, marks=long),
    ],
)
def test_a_signal_reaches_each_rank_once_and_all_are_waited_for(
    processes: int, number: signal.Signals, tmp_path: Path
) -> None:
    with supervised(command(processes, "waits", tmp_path), tmp_path) as run:
        wait_until(lambda: len(list(tmp_path.glob("ready-*"))) == processes)
        run.signal(number)
        assert run.end() == (75, "")
    for rank in range(processes):
        assert (tmp_path / f"saved-{rank}").exists()
        assert (tmp_path / f"heard-{rank}").read_text(encoding="ascii") == number.name


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=long)])
def test_a_signal_before_the_job_starts_ends_the_launcher(processes: int, tmp_path: Path) -> None:
    with supervised(command(processes, "waits", tmp_path), tmp_path) as run:
        wait_until(lambda: any(b"wrap_launcher.py" in command_line(pid) for pid in marked(run.mark)))
        time.sleep(0.3)  # in the middle of importing torch
        assert not list(tmp_path.glob("ready-*"))
        run.signal(signal.SIGTERM)
        assert run.end() == (143, "")
    assert not list(tmp_path.glob("ready-*"))


def test_a_launcher_does_not_see_the_variables_of_another_one(tmp_path: Path) -> None:
    """With them it would wait for processes that nobody starts."""
    (tmp_path / "shows.py").write_text("import os; print(sorted(os.environ))", encoding="ascii")
    argv = [sys.executable, str(Path(local.__file__).with_name("wrap_launcher.py")), "shows"]
    left_over = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "PET_NNODES", "PET_MAX_RESTARTS")
    environ = {**os.environ, **dict.fromkeys(left_over, "2"), "PYTHONPATH": str(tmp_path), "PETS": "2"}
    shown = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True).stdout
    assert "'PETS'" in shown and not any(f"'{name}'" in shown for name in left_over)


def test_an_error_of_the_launcher_keeps_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text("raise KeyError('of the launcher')", encoding="ascii")
    argv = [sys.executable, str(Path(local.__file__).with_name("wrap_launcher.py")), "odd"]
    done = subprocess.run(argv, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "KeyError: 'of the launcher'" in done.stderr
