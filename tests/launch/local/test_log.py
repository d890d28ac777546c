"""A job's output: on the launcher's own streams as before, and whole lines of it in a file."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

from launch.local.log import _Lines

ROOT = Path(__file__).parents[3]
RUN = """
import sys
import threading
from pathlib import Path
from launch import supervisor
from launch.plan import Plan
sys.exit(supervisor.run(Plan((sys.executable, "-c", sys.argv[2]), (), Path.cwd()), log=Path(sys.argv[1])))
"""
JOB = """
import sys
print(sys.stdout.isatty(), sys.stderr.isatty(), flush=True)
for step in range(3):
    print(f"\\rstep {step}", end="", file=sys.stderr, flush=True)
print("\\ndone", file=sys.stderr, flush=True)
sys.exit(1)
"""


def command(log: Path) -> list[str]:
    return [sys.executable, "-c", RUN, str(log), JOB]


def environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_output_of_the_job_is_on_its_streams_and_in_the_log(tmp_path: Path) -> None:
    done = subprocess.run(command(tmp_path / "log"), env=environ(), capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "False False\n")
    assert done.stderr.split() == ["step", "0", "step", "1", "step", "2", "done"]
    assert sorted((tmp_path / "log").read_text().splitlines()) == ["False False", "done", "step 2"]


def test_on_a_terminal_the_job_has_a_terminal_too(tmp_path: Path) -> None:
    here, there = pty.openpty()
    started = subprocess.Popen(command(tmp_path / "log"), env=environ(), stdout=there, stderr=there)
    os.close(there)
    shown = b""
    while True:
        try:
            data = os.read(here, 1024)
        except OSError:
            break
        shown += data
    assert started.wait(120) == 1
    assert b"True True\r\n" in shown
    assert "True True" in (tmp_path / "log").read_text().splitlines()


def test_a_closed_output_pipe_ends_neither_job_nor_log(tmp_path: Path) -> None:
    started = subprocess.Popen(command(tmp_path / "log"), env=environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert started.stdout is not None and started.stderr is not None
    started.stdout.close()
    started.stderr.close()
    assert started.wait(120) == 1
    assert "done" in (tmp_path / "log").read_text()


def test_a_rewritten_line_is_logged_once_regardless_of_chunks(tmp_path: Path) -> None:
    text = b"a\r\nbar 1\rbar 2\rbar 3\nlast\rend"
    for size in (1, 2, 3, 7, 100):
        with (tmp_path / str(size)).open("wb") as file:
            lines = _Lines(file, threading.Lock())
            for at in range(0, len(text), size):
                lines.add(text[at : at + size])
            lines.end()
        assert (tmp_path / str(size)).read_bytes() == b"a\nbar 3\nend\n", size
