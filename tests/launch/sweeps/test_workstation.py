"""A sweep on one machine: how many runs in parallel, on which GPUs, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from job import config
from job.errors import Refused
from launch.local.command import Machine
from launch.local.gpus import Gpus
from launch.runs import folders
from launch.sweeps import sweep as sweeps
from launch.sweeps import workstation
from launch.sweeps.sweep import Sweep
from launch.sweeps.workstation import Schedule
from tests.launch.running import ROOT, wait_until

DEMO = config.load_recipe("demo")


@pytest.fixture
def four(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.chdir(tmp_path)
    return sweeps.grid(DEMO, "demo", {"seed": (1, 2, 3, 4)})


def schedule(
    sweep: Sweep,
    gpus_there: int = 0,
    devices: tuple[str, ...] | None = None,
    busy: tuple[str | None, ...] = (),
    **requested: int,
) -> Schedule:
    return workstation.schedule(
        sweep,
        sweep.elements,
        gpus=requested.get("gpus"),
        tasks=requested.get("tasks"),
        parallel=requested.get("parallel"),
        machine=Machine(Gpus(gpus_there, devices), cores=8, omp_num_threads=""),
        busy=busy,
    )


def test_as_many_runs_as_gpus_are_parallel_each_with_its_own(four: Sweep) -> None:
    assert schedule(four, 2).slots == ("0", "1")
    assert schedule(four, 8).slots == ("0", "1", "2", "3"), "no more than there are runs"
    assert schedule(four, 8, parallel=3).slots == ("0", "1", "2")
    assert schedule(four, 4, gpus=2).slots == ("0,1", "2,3")
    assert schedule(four, 3, gpus=2).slots == ("0,1",)
    assert schedule(four, 2, devices=("5", "GPU-abc")).slots == ("5", "GPU-abc")


def test_on_a_cpu_one_run_at_a_time_unless_more_are_requested(four: Sweep) -> None:
    one, two = schedule(four), schedule(four, parallel=2)
    assert (one.slots, two.slots) == ((None,), (None, None))
    assert one.starts[0].plan.environment == ()
    assert two.starts[0].plan.environment == (("OMP_NUM_THREADS", "4"),), "the cores are shared"
    assert schedule(four, 2, gpus=0).slots == (None,)


def test_a_run_gets_no_request_for_the_cpu_that_the_user_did_not_make(four: Sweep) -> None:
    """Otherwise it would not look for a GPU that only torch finds."""
    assert "--gpus=0" not in schedule(four).starts[0].plan.argv
    assert "--gpus=0" in schedule(four, gpus=0).starts[0].plan.argv
    assert "--gpus=1" in schedule(four, 2).starts[0].plan.argv


@pytest.mark.parametrize(
    ("there", "requested", "message"),
    [
        (1, {"gpus": 2}, "--gpus 2: only 1 are visible"),
        (1, {"tasks": 2}, "--tasks applies to the CPU only"),
        (0, {"parallel": 0}, "--parallel must be above 0, not 0"),
        (0, {"tasks": 0}, "--tasks must be above 0, not 0"),
    ],
)
def test_impossible_numbers_are_rejected(four: Sweep, there: int, requested: dict[str, int], message: str) -> None:
    with pytest.raises(Refused, match=message):
        schedule(four, there, None, (), **requested)


def test_gpus_of_runs_that_still_run_are_left_out(four: Sweep) -> None:
    assert schedule(four, 4, busy=("1",)).slots == ("0", "2", "3")
    assert schedule(four, 4, gpus=2, busy=("0,1",)).slots == ("2,3",)
    assert schedule(four, 4, parallel=2, busy=("3",)).slots == ("0",)
    assert schedule(four, parallel=2, busy=(None,)).slots == (None,)
    assert schedule(four, parallel=2, busy=(None,)).starts[0].plan.environment == (("OMP_NUM_THREADS", "4"),)
    for full in ((1, ("0",)), (0, (None,))):
        with pytest.raises(Refused, match="no room for another run, as 1 of this sweep still run"):
            schedule(four, full[0], busy=full[1])


# ---------------------------------------------------------------------------------------------------------------------
# Real processes in place of the runs

CHILD = """
import os, signal, sys, time
from pathlib import Path
number, visible = sys.argv[1], os.environ.get("CUDA_VISIBLE_DEVICES", "")
busy = Path("busy-" + visible)
busy.mkdir()  # fails where another run has this GPU
ended = []
for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(signum, lambda *_: ended.append(75))
Path("pid-" + number).write_text(str(os.getpid()))
Path("starting-" + number).write_text(visible)
os.replace("starting-" + number, "started-" + number)
while not ended and not Path("go-" + number).exists():
    time.sleep(0.02)
busy.rmdir()
if number == "1" and not ended:
    sys.exit("error: the planted failure")
sys.exit(ended[0] if ended else 0)
"""
SWEEP = """
import dataclasses, sys
from pathlib import Path
from job import config
from launch.local.command import Machine
from launch.local.gpus import Gpus
from launch.runs import folders
from launch.plan import Plan
from launch.sweeps import sweep as sweeps, workstation
made = sweeps.grid(config.load_recipe("demo"), "demo", {"seed": (1, 2, 3, 4)})
sweeps.write(made, [])
planned = workstation.schedule(made, made.elements, gpus=None, tasks=None, parallel=None,
                               machine=Machine(Gpus(2), 2, ""))
words = (sys.executable, "-c", sys.argv[1])
starts = tuple(
    dataclasses.replace(start, plan=Plan((*words, str(start.element.number)), (), Path.cwd()))
    for start in planned.starts
)
sys.exit(workstation.run(dataclasses.replace(planned, starts=starts)))
"""


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """A sweep of four on two GPUs, whose runs wait for a file before they end."""
    monkeypatch.chdir(tmp_path)
    process = start(subprocess.PIPE)
    yield process
    for number in range(4):  # a failed test leaves runs that wait
        Path(f"go-{number}").touch()
    process.communicate(timeout=60)


def start(output: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SWEEP, CHILD],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=output,
        stderr=output,
        text=True,
        start_new_session=True,
    )


def is_there(*names: str) -> bool:
    return all(Path(name).exists() for name in names)


def test_each_run_has_its_own_gpu_and_a_failure_stops_no_other(started: subprocess.Popen[str]) -> None:
    wait_until(lambda: is_there("started-0", "started-1"))
    assert not is_there("started-2")
    Path("go-1").touch()
    wait_until(lambda: is_there("started-2"))
    assert Path("started-2").read_text() == Path("started-1").read_text() != Path("started-0").read_text()
    for number in (0, 2, 3):
        Path(f"go-{number}").touch()
    out, err = started.communicate(timeout=60)
    assert started.returncode == 1, err
    assert "1 FAILED (exit code 1): error: the planted failure" in out
    assert is_there("started-3") and "1 started on GPU 1: seed=2" in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_or_a_lost_connection_reaches_active_runs_and_starts_no_other(
    number: int, started: subprocess.Popen[str]
) -> None:
    wait_until(lambda: is_there("started-0", "started-1"))
    Path("go-1").touch()
    wait_until(lambda: is_there("started-2"))
    os.killpg(started.pid, number)
    out, err = started.communicate(timeout=60)
    assert started.returncode == 75, err
    assert out.count("STOPPED") == 2 and not is_there("started-3")
    assert err.endswith("stopped on request: the same command continues\n")


def test_a_second_process_of_the_same_sweep_is_rejected(started: subprocess.Popen[str]) -> None:
    wait_until(lambda: is_there("started-0", "started-1"))
    [folder] = Path("runs").iterdir()
    started.send_signal(signal.SIGSTOP)
    (folder / folders.STOP).touch()  # of a `cancel`, which is for the first process
    with pytest.raises(Refused, match=r"another process runs the sweep in .*: wait until it ends, or `cancel` it"):
        workstation.run(Schedule(Sweep(folder.absolute(), config.Config(), {}, {}, ()), (), ()))
    assert (folder / folders.STOP).exists()
    started.send_signal(signal.SIGCONT)
    started.communicate(timeout=60)
    assert started.returncode == 75


def test_cancelling_one_run_leaves_the_sweep_unfinished(started: subprocess.Popen[str]) -> None:
    wait_until(lambda: is_there("started-0", "started-1"))
    os.kill(int(Path("pid-0").read_text()), signal.SIGTERM)
    wait_until(lambda: is_there("started-2"))
    Path("go-2").touch()
    wait_until(lambda: is_there("started-3"))
    os.kill(int(Path("pid-1").read_text()), signal.SIGTERM)
    Path("go-3").touch()
    out, err = started.communicate(timeout=60)
    assert "0 STOPPED" in out and "3 started" in out, "the others go on"
    assert started.returncode == 75, err


def test_a_stop_file_ends_the_sweep_and_a_new_start_removes_it(started: subprocess.Popen[str]) -> None:
    """`cancel` of a sweep leaves the file: of the runs, it stops only those that are active."""
    wait_until(lambda: is_there("started-0", "started-1"))
    [sweep] = Path("runs").iterdir()
    Path("go-1").touch()
    wait_until(lambda: is_there("started-2"))
    (sweep / folders.STOP).touch()
    out, err = started.communicate(timeout=60)
    assert started.returncode == 75, err
    assert out.count("STOPPED") == 2 and not is_there("started-3")
    assert err.endswith("stopped on request: the same command continues\n")
    (sweep / folders.STOP).touch()
    workstation.run(Schedule(Sweep(sweep.absolute(), config.Config(), {}, {}, ()), (), ()))
    assert not (sweep / folders.STOP).exists()


def test_a_run_is_started_with_this_code_and_not_with_the_working_directorys(tmp_path: Path) -> None:
    for name in ("launch.py", "job.py"):
        (tmp_path / name).write_text("raise SystemExit('the code of the user')", encoding="ascii")
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    words = [sys.executable, str(workstation.PROGRAM), "local", "--help"]
    done = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_output_pipe_stops_the_active_runs(started: subprocess.Popen[str]) -> None:
    wait_until(lambda: is_there("started-0", "started-1"))
    assert started.stdout is not None and started.stderr is not None
    started.stdout.close()
    started.stderr.close()  # as in `muster sweep --local ... 2>&1 | head -1`
    Path("go-1").touch()
    assert started.wait(60) == 75
    assert not list(Path().glob("busy-*")) and not is_there("started-3")


def test_a_terminal_that_is_gone_stops_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its SIGHUP would, but nohup ignores it."""
    monkeypatch.chdir(tmp_path)
    master, terminal = os.openpty()
    with start(terminal) as sweep:
        os.close(terminal)
        wait_until(lambda: is_there("started-0", "started-1"))
        os.close(master)
        for number in (0, 2, 3):
            Path(f"go-{number}").touch()
        wait_until(lambda: is_there("started-2", "started-3"))
        Path("go-1").touch()
        assert sweep.wait(60) == 1, "of the planted failure"
