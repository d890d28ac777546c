"""A sweep on this machine: one run per GPU at a time, each started as `muster local`.

The child process records and logs its run, saves a checkpoint when it gets a signal, and leaves no process behind. This
module only starts the children one after another. Each has its own session, so that Ctrl-C reaches it only once, sent
from here.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from job import config
from job.errors import Refused, Stopped
from job.runtime import files, package
from launch import parsing
from launch.console import note
from launch.local.command import Machine
from launch.plan import Plan
from launch.runs import folders, states
from launch.supervisor import received
from launch.sweeps import active
from launch.sweeps.sweep import Element, Sweep

PROGRAM = package.ROOT / "launch" / "__main__.py"
"""By its path: `-m launch` would import a module of that name from the user's working directory."""
POLL_SECONDS = 0.2
SETTINGS = "settings"
"""Folder in a sweep's folder with the settings file of each run."""


@dataclass(frozen=True)
class Start:
    """A run, and the command that starts it."""

    element: Element
    plan: Plan


@dataclass(frozen=True)
class Schedule:
    """The runs to start, and how many at a time."""

    sweep: Sweep
    starts: tuple[Start, ...]
    """In the order of their start."""
    slots: tuple[str | None, ...]
    """CUDA_VISIBLE_DEVICES of each parallel run; None: not set, for runs on the CPU."""

    def __str__(self) -> str:
        where = ["the CPU" if slot is None else f"GPU {slot}" for slot in self.slots]
        at_a_time = f"# {len(self.slots)} at a time, on {'; '.join(dict.fromkeys(where))}"
        return "\n".join([at_a_time, *(str(start.plan) for start in self.starts)])


def schedule(
    sweep: Sweep,
    elements: Sequence[Element],
    *,
    gpus: int | None,
    tasks: int | None,
    parallel: int | None,
    machine: Machine,
    busy: Sequence[str | None] = (),
) -> Schedule:
    """How to start `elements` on this machine.

    Args:
        sweep: the sweep.
        elements: the runs to start.
        gpus: GPUs per run; None: one, or 0 on a machine without GPUs.
        tasks: processes per run on the CPU.
        parallel: maximum number of parallel runs; None: as many as GPUs allow, or one on the CPU.
        machine: this machine.
        busy: CUDA_VISIBLE_DEVICES of each run of the sweep that still runs here.

    Raises:
        Refused: more GPUs are requested than there are, or are free, or a number is 0.
    """
    if parallel == 0:
        raise Refused("--parallel must be above 0, not 0")
    each = min(1, machine.gpus.to_use(gpus)) if gpus is None else machine.gpus.to_use(gpus)
    parsing.refuse_tasks(each, tasks)
    slots = _slots(each, parallel, machine, busy)[: len(elements) or 1]
    if not slots:
        raise Refused(f"no room for another run, as {len(busy)} of this sweep still run here: wait until they end, or "
                      f"`cancel` {sweep.folder}")  # fmt: skip
    threads = machine.cores // ((len(slots) + len(busy)) * (each or tasks or 1))
    alone = len(slots) == 1 and not busy
    variables = () if machine.omp_num_threads or alone else (("OMP_NUM_THREADS", str(max(1, threads))),)
    # Without GPUs and a request for the CPU, the run itself looks whether torch finds any.
    flags = [*([f"--gpus={each}"] if each or gpus == 0 else []), *([f"--tasks={tasks}"] if tasks is not None else [])]
    starts = tuple(Start(element, _plan(sweep, element, flags, variables)) for element in elements)
    return Schedule(sweep, starts, tuple(slots))


def _slots(each: int, parallel: int | None, machine: Machine, busy: Sequence[str | None]) -> list[str | None]:
    """CUDA_VISIBLE_DEVICES of each run that may start now: its `each` GPUs, or None on the CPU."""
    limit = None if parallel is None else max(0, parallel - len(busy))
    if not each:
        return [None] * (max(0, 1 - len(busy)) if limit is None else limit)
    there = machine.gpus.names or [str(number) for number in range(machine.gpus.visible)]
    taken = {name for devices in busy for name in (devices or "").split(",")}
    free = [name for name in there[: machine.gpus.visible] if name not in taken]
    groups = [",".join(free[at : at + each]) for at in range(0, len(free) - each + 1, each)]
    return [*groups[:limit]]


def _plan(sweep: Sweep, element: Element, flags: Sequence[str], variables: tuple[tuple[str, str], ...]) -> Plan:
    arguments = ("local", str(_settings_file(sweep, element)), *flags, "--", "--output_dir", str(element.run))
    return Plan((sys.executable, str(PROGRAM), *arguments), variables, Path.cwd())


def run(planned: Schedule) -> int:
    """Run `planned`, and print when a run starts and how it ends.

    Returns:
        0 if all runs have finished; 75 if they were stopped on request, after which the same command continues; 1 if a
        run failed.

    Raises:
        Refused: another process runs the sweep, or its folder cannot be written.
    """
    with (
        active.only_one(planned.sweep.folder),
        tempfile.TemporaryDirectory(prefix="muster-") as folder,
        received() as signals,
    ):
        _write(planned)
        runs = _Runs(planned, Path(folder), signals)
        try:
            while runs.step():
                time.sleep(POLL_SECONDS)
        except BrokenPipeError:  # nobody reads what it prints
            runs.stop_all()
        except BaseException:
            runs.stop_all()
            raise
    if runs.stopped:
        note("stopped on request: the same command continues")
        return Stopped.exit_code
    return 1 if runs.failed else 0


def _write(planned: Schedule) -> None:
    """Write the settings of each run; Refused if that is not possible."""
    folder = planned.sweep.folder
    try:
        (folder / SETTINGS).mkdir(exist_ok=True)
        for start in planned.starts:
            files.write_text(_settings_file(planned.sweep, start.element), config.to_yaml(start.element.config))
        (folder / folders.STOP).unlink(missing_ok=True)
    except OSError as error:
        raise Refused(f"{folder} cannot be written: {error.strerror}") from None


@dataclass
class _Child:
    process: subprocess.Popen[bytes]
    element: Element
    slot: str | None
    output: IO[bytes]
    """Its stdout and stderr. They are also in the run's log, except messages of the launcher before the log exists."""


@dataclass
class _Runs:
    """The waiting and the active runs."""

    planned: Schedule
    folder: Path
    signals: deque[int]
    active: list[_Child] = field(default_factory=list)
    failed: bool = False
    stopped: bool = False

    def __post_init__(self) -> None:
        self.waiting = deque(self.planned.starts)
        self.free = deque(self.planned.slots)

    def step(self) -> bool:
        """Forward signals, report ended runs and start waiting ones; returns whether any runs are active.

        `cancel` of the whole sweep leaves a file, which counts as SIGTERM.
        """
        if (self.planned.sweep.folder / folders.STOP).exists():
            (self.planned.sweep.folder / folders.STOP).unlink(missing_ok=True)
            self.signals.append(signal.SIGTERM)
        while self.signals:
            number = self.signals.popleft()
            self.stopped = True
            self.waiting.clear()
            for child in self.active:
                child.process.send_signal(number)
        for child in [child for child in self.active if child.process.poll() is not None]:
            self.active.remove(child)
            self.free.append(child.slot)
            self._report(child)
        while self.waiting and self.free:
            self._start(self.waiting.popleft(), self.free.popleft())
        return bool(self.active)

    def stop_all(self) -> None:
        """Stop the active runs, which save a checkpoint first, and wait for their end."""
        self.stopped |= bool(self.active or self.waiting)
        for child in self.active:
            child.process.terminate()
        for child in self.active:
            child.process.wait()

    def _start(self, start: Start, slot: str | None) -> None:
        element, plan = start.element, start.plan
        visible = {} if slot is None else {"CUDA_VISIBLE_DEVICES": slot}
        output = open(self.folder / str(element.number), "w+b")  # noqa: SIM115
        process = subprocess.Popen(
            plan.argv,
            cwd=plan.directory,
            env={**os.environ, **dict(plan.environment), **visible},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.active.append(_Child(process, element, slot, output))
        _print(f"{element.number} started{'' if slot is None else f' on GPU {slot}'}{_settings(element)}")

    def _report(self, child: _Child) -> None:
        code = child.process.returncode
        self.failed |= code not in (0, Stopped.exit_code)
        self.stopped |= code == Stopped.exit_code  # by a signal from here, or by `cancel` of this run alone
        child.output.seek(0)
        lines = child.output.read().decode(errors="replace").splitlines()
        child.output.close()
        reason = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1] if lines else "")
        view = states.read([child.element.run], time.time())[0][0]
        score = f", {view.run.score}" if view.run.score and code == 0 else ""
        if code == 0:
            _print(f"{child.element.number} {view.state}{score}{f', {view.note}' if view.note else ''}")
        else:
            state = "STOPPED" if code == Stopped.exit_code else f"FAILED (exit code {code})"
            _print(f"{child.element.number} {state}: {reason}")


def _settings(element: Element) -> str:
    return f": {element}" if element.settings else ""


def _settings_file(sweep: Sweep, element: Element) -> Path:
    return sweep.folder / SETTINGS / f"{element.number}.yaml"


def _print(line: str) -> None:
    """Print. A terminal that is gone is no error: its SIGHUP stops the runs, unless nohup ignores it."""
    try:
        print(line, flush=True)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
