"""Signals are handled by the training process, immediately or at the end of a step, and not by its children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.launch import PREDICT, ROOT, TRAIN, environment

HEAD = f"""
import os, signal, sys, time
sys.path.insert(0, {str(ROOT)!r})
from job.runtime import signals as interrupt
from job.errors import Stopped
interrupt.install()
"""


IGNORE_HANGUP = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"


def running(code: str, head: str = HEAD) -> subprocess.Popen[str]:
    """A process that has installed the handlers and runs `code`; it has printed `ready`."""
    process = subprocess.Popen(
        [sys.executable, "-c", head + textwrap.dedent(code)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def output_of(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=120)
    return out


WAITS = """
print("ready", flush=True)
while not interrupt.reason(): time.sleep(0.01)
print(interrupt.in_words(interrupt.reason()), flush=True)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR2", "SIGHUP"])
def test_a_signal_is_recorded_and_the_process_continues(name: str) -> None:
    process = running(WAITS)
    process.send_signal(getattr(signal, name))
    assert (output_of(process), process.returncode) == (f"{name}\n", 0)


def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    process = running(WAITS, head=HEAD.replace("interrupt.install", f"{IGNORE_HANGUP}; interrupt.install"))
    for number in (signal.SIGHUP, signal.SIGTERM):
        process.send_signal(number)
    assert (output_of(process), process.returncode) == ("SIGTERM\n", 0)


def test_a_second_interrupt_exits_immediately() -> None:
    process = running(WAITS + "time.sleep(600)")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None and process.stdout.readline() == "SIGINT\n"
    process.send_signal(signal.SIGINT)
    output_of(process)
    assert process.returncode == -signal.SIGINT


def test_repeated_sigterms_do_not_interrupt_the_checkpoint() -> None:
    """Slurm sends SIGTERM more than once before it kills."""
    process = running(WAITS + "sys.stdin.readline()\nprint(interrupt.reason())")
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None and process.stdout.readline() == "SIGTERM\n"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        process.send_signal(number)
    assert (output_of(process), process.returncode) == (f"{signal.SIGTERM.value}\n", 0)


def test_a_forked_child_does_not_handle_signals_and_is_ended_by_sigterm() -> None:
    process = running("""
        import multiprocessing
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        child.start()
        print("ready", flush=True)
        while not interrupt.reason(): time.sleep(0.01)
        time.sleep(0.5)
        print(child.is_alive(), interrupt.in_words(interrupt.reason()))
        child.terminate()
        child.join(60)
        print(child.exitcode)
    """)
    for number in (signal.SIGUSR2, signal.SIGINT, signal.SIGHUP):
        os.killpg(process.pid, number)
    assert output_of(process) in [f"True {name}\n-15\n" for name in ("SIGUSR2", "SIGINT", "SIGHUP")]


@pytest.mark.parametrize("again", ["", "os.fork() and (os.wait(), os._exit(0)); interrupt.install()"])
def test_a_sigterm_in_the_middle_of_a_fork_ends_the_child(again: str) -> None:
    """Before the child has its own handlers, where Python discards what the inherited ones receive. Afterwards no
    process blocks the signal, also where the handlers were installed again in a forked process."""
    send = "os.register_at_fork(after_in_child=lambda: early and os.kill(os.getpid(), signal.SIGTERM))"
    code = f"""
early = False
{again}
early = True
if os.fork() == 0:
    time.sleep(600)
early = False
print(os.waitstatus_to_exitcode(os.wait()[1]))
if os.fork():
    os.wait()
print(signal.pthread_sigmask(signal.SIG_BLOCK, []), flush=True)
"""
    head = HEAD.replace("interrupt.install()", f"early = False\n{send}\ninterrupt.install()")
    done = subprocess.run([sys.executable, "-c", head + code], text=True, capture_output=True, timeout=60)
    assert done.stdout.split("\n")[-4:-1] == [str(-signal.SIGTERM), "set()", "set()"], done


def test_a_launcher_that_has_died_counts_as_a_signal() -> None:
    code = HEAD + WAITS
    launcher = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {code!r}]); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", launcher], env={**os.environ, "LOCAL_RANK": "0"},
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.kill()
    assert process.stdout.readline() == "the end of its launcher\n"
    process.wait()
    process.stdout.close()


def test_a_shell_that_exits_does_not_stop_its_background_jobs(tmp_path: Path) -> None:
    code = HEAD + "print('ready', flush=True)\ntime.sleep(1)\nprint(interrupt.reason(), flush=True)"
    shell = subprocess.Popen(["sh", "-c", '"$0" -c "$1" & read _', sys.executable, code],
                             env={k: v for k, v in os.environ.items() if k != "LOCAL_RANK"},
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert shell.stdout is not None and shell.stdout.readline() == "ready\n"
    shell.kill()
    assert shell.stdout.readline() == "0\n"
    shell.communicate()


def test_interruptible_work_is_interrupted_by_a_signal() -> None:
    process = running("""
        def work():
            print("ready", flush=True)
            time.sleep(600)
        try: interrupt.interruptible(work)()
        except Stopped as stop: print(stop)
    """)
    process.send_signal(signal.SIGTERM)
    assert output_of(process) == "stopped by SIGTERM before the first step; run the same command to start again\n"


def test_a_stop_that_a_library_wraps_in_its_own_error_is_still_a_stop() -> None:
    process = running("""
        def work():
            print("ready", flush=True)
            try: time.sleep(600)
            except Exception as error: raise RuntimeError("could not generate the data set") from error
        try: interrupt.interruptible(work)()
        except Stopped: print("stopped")
    """)
    process.send_signal(signal.SIGUSR2)
    assert output_of(process) == "stopped\n"


def test_interruptible_work_does_not_start_after_a_signal() -> None:
    process = running("""
        interrupt.interruptible(lambda: None)()
        print("ready", flush=True)
        while not interrupt.reason(): time.sleep(0.01)
        try: interrupt.interruptible(lambda: print("worked"))()
        except Stopped: print("not begun")
    """)
    process.send_signal(signal.SIGTERM)
    assert output_of(process) == "not begun\n"


def test_an_ending_process_is_not_killed_by_a_late_signal() -> None:
    process = running("""
        import atexit
        atexit.register(time.sleep, 1)
        interrupt.ignore()
        print("ready", flush=True)
    """)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGHUP):
        process.send_signal(number)
    output_of(process)
    assert process.returncode == 0


@pytest.mark.parametrize("script", [TRAIN, PREDICT], ids=lambda path: path.name)
def test_the_handlers_are_installed_before_torch_is_imported(script: Path, tmp_path: Path) -> None:
    """The import takes seconds; a signal then would otherwise kill."""
    watched = f"""
import builtins, runpy, signal, sys
original = builtins.__import__
def importing(name, *rest):
    if name.partition(".")[0] == "torch":
        print(signal.getsignal(signal.SIGTERM).__module__, signal.getsignal(signal.SIGUSR2).__module__)
        raise SystemExit(0)
    return original(name, *rest)
builtins.__import__ = importing
sys.argv = [{str(script)!r}, "--dataset_name", "docstrings", "--test_split_name", "train"]
sys.path.insert(0, {str(script.parent)!r})
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", watched], env=environment(tmp_path), cwd=tmp_path, text=True,
                          capture_output=True, timeout=120, check=False)  # fmt: skip
    assert done.stdout == "job.runtime.signals job.runtime.signals\n", done.stderr


@pytest.mark.parametrize("by", ["signal", pytest.param("launcher", marks=pytest.mark.long)])
def test_a_process_that_waits_for_its_peers_is_stopped(tmp_path: Path, by: str) -> None:
    """It waits in a library's C code, where Python's handlers do not run, for a rank that never starts."""
    script = f"""
import os, subprocess, sys, time
ranks = dict(RANK="1", LOCAL_RANK="1", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT="1")
ranks["ACCELERATE_USE_CPU"] = "true"
job = subprocess.Popen([sys.executable, {str(TRAIN)!r}, "demo"], env=os.environ | ranks, cwd={str(tmp_path)!r})
print(job.pid, flush=True)
time.sleep(600)
"""
    env = environment(tmp_path)
    with subprocess.Popen([sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        job = int(launcher.stdout.readline())
        try:
            _until(lambda: _waits_in_rendezvous(job))
            os.kill(job, signal.SIGTERM) if by == "signal" else launcher.kill()
            _until(lambda: not _lives(job))
        finally:
            launcher.kill()
            if _lives(job):
                os.kill(job, signal.SIGKILL)


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def _waits_in_rendezvous(pid: int) -> bool:
    """The watching thread runs while the process starts to connect to its peers."""
    names = [(task / "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()]
    return len(names) > 1 and _has_loaded_torch(pid) and _is_asleep(pid)


def _has_loaded_torch(pid: int) -> bool:
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text(errors="replace")


def _is_asleep(pid: int) -> bool:
    """For a while: it does not import any more."""
    states = set()
    for _ in range(20):
        states.add(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0])
        time.sleep(0.1)
    return states == {"S"}


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
