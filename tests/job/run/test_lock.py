"""A run folder has one owner at a time, and never a dead one: tested with real processes that exit and are killed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from job.errors import Refused
from job.run import lock
from tests.support.launch import ROOT

HOLDER = f"""
import os, sys, time
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from job.run import lock
lock.acquire(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(lock, "WATCH_SECONDS", 1.0)
    monkeypatch.setattr(lock, "REQUEUE_SECONDS", 1.0)
    monkeypatch.delenv("MUSTER_OWNER", raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    lock.release(tmp_path)


@contextlib.contextmanager
def holder(folder: Path, seconds: float = 600) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds `folder`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def write_status(folder: Path, owner: str, state: str = "RUNNING", heartbeat: str = "2026-01-01T00:00:00Z") -> None:
    aside = folder / ".aside"
    aside.write_text(json.dumps({"state": state, "owner": owner, "heartbeat": heartbeat}))
    aside.replace(folder / "status.json")


@contextlib.contextmanager
def repeatedly(act: Callable[[int], None]) -> Iterator[None]:
    """Call `act` with 0, 1, ... every twentieth of a second, on another thread."""
    act(0)
    ended = threading.Event()

    def beat() -> None:
        number = 1
        while not ended.wait(0.05):
            act(number)
            number += 1

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_second_run_is_rejected_while_the_first_is_active(folder: Path) -> None:
    with holder(folder):
        write_status(folder, "node7:4711")
        with pytest.raises(Refused) as caught:
            lock.acquire(folder)
    assert str(caught.value) == (
        f"another run (node7:4711) is active in {folder}: wait until it ends, or choose another --output_dir"
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_was_killed_leaves_no_lock(number: signal.Signals, folder: Path) -> None:
    with holder(folder) as process:
        write_status(folder, f"{socket.gethostname()}:{process.pid}")
        process.send_signal(number)
        process.wait()
        lock.acquire(folder)


def test_a_child_that_outlives_its_run_does_not_hold_the_lock(folder: Path) -> None:
    """Tokenisation processes may outlive their run for a while."""
    code = HOLDER + "\nif os.fork() == 0: time.sleep(600)\nprint(0, flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code, str(folder), "0"], stdout=subprocess.PIPE, text=True,
                               start_new_session=True)  # fmt: skip
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["held\n", "0\n"]
    process.kill()
    process.wait()
    lock.acquire(folder)
    os.killpg(process.pid, signal.SIGKILL)
    process.stdout.close()


def test_the_holder_may_acquire_the_lock_again(folder: Path) -> None:
    lock.acquire(folder)
    lock.acquire(folder)


def test_a_restarted_job_waits_for_the_end_of_its_previous_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "REQUEUE_SECONDS", 60.0)
    monkeypatch.setenv("MUSTER_OWNER", "slurm:17")
    write_status(folder, "slurm:17")
    with holder(folder, seconds=0.5) as process:
        lock.acquire(folder)
        assert process.wait() == 0


def test_a_job_waits_only_for_its_own_previous_start_and_not_forever(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSTER_OWNER", "slurm:17")
    for owner in ("slurm:17", "slurm:16"):
        with holder(folder):
            write_status(folder, owner)
            with pytest.raises(Refused, match=owner):
                lock.acquire(folder)
        write_status(folder, owner, "DONE")


@pytest.mark.parametrize("name", ["2026-01-01T00:00:00Z", "2999-01-01T00:00:00Z"])
def test_a_run_of_another_host_without_a_heartbeat_is_taken_over_regardless_of_its_clock(
    name: str, folder: Path
) -> None:
    write_status(folder, "node7:4711", heartbeat=name)
    lock.acquire(folder)


def test_a_run_of_another_host_with_a_heartbeat_is_rejected_regardless_of_its_clock(folder: Path) -> None:
    """On a file system that grants every lock. The clock runs backwards here."""
    with (
        repeatedly(lambda n: write_status(folder, "node7:4711", heartbeat=f"1970-01-01T00:00:{59 - n % 60:02d}Z")),
        pytest.raises(Refused, match="node7:4711"),
    ):
        lock.acquire(folder)
    write_status(folder, "node7:4711", "DONE")
    with holder(folder) as other:
        assert other.poll() is None, "who was rejected holds nothing"


def test_a_run_of_another_host_that_ends_meanwhile_is_taken_over(folder: Path) -> None:
    write_status(folder, "node7:4711")
    ending = threading.Timer(0.3, write_status, (folder, "node7:4711", "STOPPED", "2026-01-01T00:00:09Z"))
    ending.start()
    lock.acquire(folder)
    ending.join()


@pytest.mark.parametrize("state", ["DONE", "STOPPED", "FAILED"])
def test_the_heartbeat_of_an_ended_run_of_another_host_is_not_awaited(
    state: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "is_active", lambda _: pytest.fail("watched"))
    write_status(folder, "node7:4711", state)
    lock.acquire(folder)


@pytest.mark.parametrize("owner", ["slurm:17", f"{socket.gethostname()}:4711"])
def test_the_heartbeat_of_our_job_or_a_dead_run_of_this_host_is_not_awaited(
    owner: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each second of waiting would be lost in every requeue."""
    monkeypatch.setenv("MUSTER_OWNER", "slurm:17")
    monkeypatch.setattr(lock, "is_active", lambda _: pytest.fail("watched"))
    write_status(folder, owner)
    lock.acquire(folder)


def test_without_file_locks_the_heartbeat_decides_on_the_same_host_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "lockf", none)
    owner = f"{socket.gethostname()}:4711"
    with (
        repeatedly(lambda n: write_status(folder, owner, heartbeat=str(n))),
        pytest.raises(Refused, match=owner),
    ):
        lock.acquire(folder)
    lock.acquire(folder)


def test_an_unreadable_status_blocks_no_run(folder: Path) -> None:
    (folder / "status.json").write_text("{half")
    lock.acquire(folder)


def test_the_owner_is_set_by_the_launcher_or_is_host_and_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lock.owner() == f"{socket.gethostname()}:{os.getpid()}"
    monkeypatch.setenv("MUSTER_OWNER", "slurm:17")
    assert lock.owner() == "slurm:17"
