"""The supervisor against small real processes that stand in for launchers and jobs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from launch import supervisor
from tests.launch.running import SUPERVISE, marked, supervised, wait_until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the tests look processes up in /proc")

JOB = """
import os, pathlib, signal, sys, time
received = []
def handle(number, frame):
    received.append(signal.Signals(number).name)
    pathlib.Path(f"received-{name}").write_text(" ".join(received))
def leave(code):
    pathlib.Path(os.environ["MUSTER_EXIT_CODE_FILE"]).write_text(str(code))
    sys.exit(code)
name, todo = sys.argv[1], sys.argv[2]
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
    signal.signal(number, handle)
pathlib.Path(f"ready-{name}").touch()
until = time.monotonic() + 60
if todo == "saves":
    while not received: time.sleep(0.01)
    time.sleep(0.6)
    pathlib.Path(f"saved-{name}").touch()
    leave(75)
if todo == "finishes":
    time.sleep(0.6)
    pathlib.Path(f"saved-{name}").touch()
    leave(0)
if todo == "deaf":
    while time.monotonic() < until: time.sleep(0.01)
if todo == "ends":
    while "SIGTERM" not in received: time.sleep(0.01)
    leave(75)
"""
LAUNCHER = """
import subprocess, sys, time, os, pathlib
end, new_session, *job = sys.argv[1:]
child = subprocess.Popen(job, start_new_session=new_session == "session")
while not pathlib.Path("ready-a").exists(): time.sleep(0.01)
if end == "waits": sys.exit(1 if child.wait() else 0)
if end == "crashes": os._exit(1)
if end == "leaves": os._exit(0)
"""


def job(todo: str, name: str = "a") -> list[str]:
    return [sys.executable, "-c", JOB, name, todo]


def launcher(end: str, todo: str, session: str = "no") -> list[str]:
    return [sys.executable, "-c", LAUNCHER, end, session, *job(todo)]


@pytest.mark.parametrize(
    ("reported", "returncode", "code"),
    [
        (0, 0, 0),
        (2, 1, 2),
        (3, 1, 3),
        (75, 1, 75),
        (75, -15, 75),
        (0, -15, 0),
        (0, 1, 1),
        (0, 137, 137),
        (None, 0, 0),
        (None, 1, 1),
        (None, 2, 1),
        (None, 75, 1),
        (None, 137, 137),
        (None, -9, 137),
        (None, -2, 130),
    ],
)
def test_exit_code(reported: int | None, returncode: int, code: int) -> None:
    assert supervisor.exit_code(reported, returncode) == code


@pytest.mark.parametrize("text", ["", "x", "7 5", "\xff"])
def test_a_truncated_report_is_ignored(text: str, tmp_path: Path) -> None:
    (tmp_path / "exit-code").write_text(text, encoding="latin-1")
    assert supervisor._reported(tmp_path / "exit-code") is None


@pytest.mark.parametrize("code", [0, 2, 3, 75, 1])
def test_the_exit_code_that_the_job_reports_is_used(code: int, tmp_path: Path) -> None:
    write = f"import os, sys; open(os.environ['MUSTER_EXIT_CODE_FILE'], 'w').write('{code}'); sys.exit({min(code, 1)})"
    with supervised([sys.executable, "-c", write], tmp_path) as run:
        assert run.end() == (code, "")


def test_a_failure_without_a_report_is_a_crash(tmp_path: Path) -> None:
    with supervised([sys.executable, "-c", "import sys; sys.exit(75)"], tmp_path) as run:
        assert run.end() == (1, "")


def test_the_report_leaves_no_file_behind(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    with supervised([*job("finishes")], tmp_path, environ={"TMPDIR": str(tmp_path / "tmp")}) as run:
        assert run.end()[0] == 0
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2])
@pytest.mark.parametrize("session", ["no", "session"])
def test_a_signal_reaches_the_job_once_and_the_launcher_waits_for_it(
    number: signal.Signals, session: str, tmp_path: Path
) -> None:
    """The launcher dies of the signal, as accelerate's does; the session is what torch gives each rank."""
    with supervised(launcher("waits", "saves", session), tmp_path, grace=0.1) as run:
        wait_until((tmp_path / "ready-a").exists)
        run.signal(number)
        assert run.end()[0] == 75
    assert (tmp_path / "saved-a").exists()
    assert (tmp_path / "received-a").read_text(encoding="ascii") == number.name


def test_ctrl_c_in_a_terminal_reaches_the_job_once(tmp_path: Path) -> None:
    """The whole foreground process group gets SIGINT; the job is not in it."""
    with supervised(launcher("waits", "saves"), tmp_path) as run:
        wait_until((tmp_path / "ready-a").exists)
        os.killpg(run.process.pid, signal.SIGINT)
        assert run.end()[0] == 75
    assert (tmp_path / "received-a").read_text(encoding="ascii") == "SIGINT"


def test_a_second_sigint_kills_immediately(tmp_path: Path) -> None:
    with supervised(launcher("waits", "deaf", "session"), tmp_path, grace=600) as run:
        wait_until((tmp_path / "ready-a").exists)
        run.signal(signal.SIGINT)
        wait_until((tmp_path / "received-a").exists)
        wait_until(lambda: len(marked(run.mark)) == 2)  # supervisor and job: the launcher has died of it
        assert run.process.poll() is None
        run.signal(signal.SIGINT)
        assert run.end()[0] == 130, "the launcher died of the first one"


def test_a_job_that_ignores_sigterm_runs_until_a_second_sigint(tmp_path: Path) -> None:
    with supervised(job("deaf"), tmp_path, grace=0.1) as run:
        wait_until((tmp_path / "ready-a").exists)
        for number in range(1, 3):
            run.signal(signal.SIGTERM)
            wait_until(lambda number=number: received(tmp_path) == ["SIGTERM"] * number)  # type: ignore[misc]
        assert run.process.poll() is None
        run.signal(signal.SIGINT)
        wait_until(lambda: received(tmp_path) == ["SIGTERM", "SIGTERM", "SIGINT"])
        run.signal(signal.SIGINT)
        assert run.end()[0] == 137
    assert received(tmp_path) == ["SIGTERM", "SIGTERM", "SIGINT"]


def received(folder: Path) -> list[str]:
    """The signals that job a has received so far."""
    path = folder / "received-a"
    return path.read_text(encoding="ascii").split() if path.exists() else []


def test_orphans_of_a_crashed_launcher_get_time_to_finish(tmp_path: Path) -> None:
    with supervised(launcher("crashes", "finishes"), tmp_path) as run:
        assert run.end()[0] == 1  # the job reported success, but not all of its launcher's work is known
    assert (tmp_path / "saved-a").exists()


def test_orphans_of_a_crashed_launcher_get_sigterm(tmp_path: Path) -> None:
    with supervised(launcher("crashes", "ends", "session"), tmp_path, grace=5) as run:
        assert run.end()[0] == 75


@pytest.mark.parametrize(("end", "code"), [("crashes", 1), ("leaves", 0)])
def test_orphans_that_do_not_end_are_killed(end: str, code: int, tmp_path: Path) -> None:
    with supervised(launcher(end, "deaf", "session"), tmp_path, grace=2) as run:
        assert run.end()[0] == code
    assert (tmp_path / "received-a").read_text(encoding="ascii") == "SIGTERM"


def test_nohup_is_respected(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", SUPERVISE, "30", *job("saves")]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    nowhere: dict[str, Any] = dict.fromkeys(["stdin", "stdout", "stderr"], subprocess.DEVNULL)
    with subprocess.Popen(["nohup", *argv], cwd=tmp_path, env=environ, **nowhere) as run:
        wait_until((tmp_path / "ready-a").exists)
        run.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert not (tmp_path / "received-a").exists()
        run.send_signal(signal.SIGTERM)
        assert run.wait(timeout=30) == 75
    assert (tmp_path / "received-a").read_text(encoding="ascii") == "SIGTERM"


def test_ps_and_proc_list_the_same_processes() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        expected = (os.getpid(), os.getpgrp())
        assert supervisor._processes()[child.pid] == expected
        assert supervisor._processes_of_ps()[child.pid] == expected
    finally:
        child.communicate()
