"""Faults of shared machines, injected into real runs: each ends with the result of an undisturbed one.

Where chance chooses the moment it is seeded, and the long form (`make test-faults`) has more trials.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.interrupted import (
    Going,
    World,
    checkpoints,
    copied,
    differences,
    is_root,
    status,
    steps,
    still_running,
)
from tests.support.launch import TRAIN

Record = Callable[[str, object], None]
faults, slow = pytest.mark.faults, pytest.mark.slow
needs_root = pytest.mark.skipif(not is_root(), reason="mounts a small disk")


WORLD = {"save_steps": 2}


@pytest.fixture(scope="module")
def reference(world: World) -> Path:
    out = world.folder / "reference"
    world.run(out).expect(0)
    return out


@pytest.fixture(scope="module")
def reference_of_two(world: World) -> Path:
    out = world.folder / "reference2"
    world.run(out, processes=2).expect(0)
    return out


# ---------------------------------------------------------------------------------------------------------------------
# Killed


@pytest.mark.parametrize("moment", [pytest.param("begin", marks=slow), "filled", pytest.param("placed", marks=faults)])
def test_a_run_killed_while_saving_resumes_from_a_complete_checkpoint(
    world: World, reference: Path, moment: str, record_property: Record
) -> None:
    """The clock was set back in the meantime: the remaining heartbeat is in the future."""
    out = world.folder / f"killed-{moment}"
    world.run(out, faults=f"0:{moment}:8:SIGKILL").expect(-signal.SIGKILL)
    debris = [path.name for path in (out / "checkpoints").iterdir() if path.name.startswith(".new-")]
    assert len(debris) == (moment != "placed")
    assert checkpoints(out)[-1] == (8 if moment == "placed" else 6)
    assert status(out)["state"] == "RUNNING"
    tomorrow = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)).isoformat()
    (out / "status.json").write_text(json.dumps({**status(out), "heartbeat": tomorrow}))
    done = world.run(out).expect(0)
    assert f"resumes  step-0000000{8 if moment == 'placed' else 6}" in done.stderr
    assert "WARNING" not in done.stderr
    differing = differences(reference, out)
    record_property("faults", ("SIGKILL during a save", 1, 1, len(differing) > 0))
    assert differing == []


@pytest.mark.parametrize("keep", [pytest.param(1, marks=slow), pytest.param(2, marks=faults)])
def test_a_run_killed_while_a_checkpoint_is_replaced_keeps_one_of_the_two(
    world: World, reference: Path, keep: int, record_property: Record
) -> None:
    """The stop in an evaluation leaves a checkpoint of a step that the next start writes again, evaluated."""
    out = world.folder / f"doomed{keep}"
    world.run(out, faults="0:batch:2:SIGTERM", save_total_limit=keep).expect(75)
    world.run(out, faults="0:doomed:5:SIGKILL", save_total_limit=keep).expect(-signal.SIGKILL)
    assert 5 not in checkpoints(out)
    done = world.run(out, save_total_limit=keep).expect(0)
    assert "resumes  step-00000005" in done.stderr
    differing = differences(reference, out)
    record_property("faults", ("SIGKILL during a save", 1, 2, len(differing) > 0))
    assert differing == []


@pytest.mark.parametrize("seed", [1, *(pytest.param(n, marks=faults if n < 6 else slow) for n in range(2, 15))])
def test_a_run_of_one_process_killed_at_random_moments(
    world: World, reference: Path, seed: int, record_property: Record
) -> None:
    killed_at_random(world, reference, 1, seed, record_property)


@pytest.mark.parametrize("seed", [pytest.param(n, marks=faults if n < 24 else slow) for n in range(20, 32)])
def test_a_run_of_two_processes_that_loses_one_or_both_at_random_moments(
    world: World, reference_of_two: Path, seed: int, record_property: Record
) -> None:
    killed_at_random(world, reference_of_two, 2, seed, record_property)


def killed_at_random(world: World, reference: Path, processes: int, seed: int, record_property: Record) -> None:
    """SIGKILL to one rank, or to all and their launcher, some milliseconds after some step; twice, then to the end."""
    rng = random.Random(seed)
    out = world.folder / f"random{seed}"
    kind = "SIGKILL of all ranks" if processes == 1 or rng.random() < 0.4 else "SIGKILL of one rank"
    for _ in range(2):
        last, delay = rng.randint(2, 20), rng.random() * 0.1
        going = world.start(out, processes=processes)
        begun = steps(out)[-1:] or [0]
        until_step_or_end(going, begun[0] + last)
        time.sleep(delay)
        if kind == "SIGKILL of one rank":
            lose_one(going, rng.randrange(processes))
        else:
            going.kill()
    world.run(out, processes=processes).expect(0)
    differing = differences(reference, out)
    record_property(
        "faults", (f"{kind} at random, {processes} process{'es' if processes > 1 else ''}", 1, 2, len(differing) > 0)
    )
    assert differing == []


def until_step_or_end(going: Going, step: int) -> None:
    going.until(lambda: not going.alive() or steps(going.out)[-1:] >= [step])


def lose_one(going: Going, rank: int) -> None:
    """Kill a rank; the others must end by themselves and say why."""
    with contextlib.suppress(IndexError, psutil.NoSuchProcess):
        going.ranks()[rank].kill()
        assert going.end(120).code != 0


@faults
def test_a_lost_process_ends_the_job_with_one_line(world: World, reference_of_two: Path) -> None:
    out = world.folder / "lost"
    done = world.run(out, processes=2, faults="1:step:6:SIGKILL").expect(1)
    assert len(done.errors) == 1
    assert done.errors[0].startswith("error: another process died or cannot be reached (")
    assert done.errors[0].endswith("); run the same command to resume from the last checkpoint")
    assert status(out)["state"] == "FAILED"
    world.run(out, processes=2).expect(0)
    assert differences(reference_of_two, out) == []


@faults
def test_a_process_that_hangs_ends_the_job_with_its_stacks_in_time(world: World, reference_of_two: Path) -> None:
    out = world.folder / "hang"
    done = world.run(out, processes=2, faults="1:step:6:HANG", step_timeout_minutes=0.05).expect(1)
    assert "Timeout (0:00:03)!" in done.stderr
    assert "in reached" in done.stderr or "in poll" in done.stderr, "the stack says where"
    world.run(out, processes=2).expect(0)
    assert differences(reference_of_two, out) == []


# ---------------------------------------------------------------------------------------------------------------------
# Signals from outside


def handles_sigterm(pid: int) -> bool:
    """Whether the process has a handler for SIGTERM, as Linux shows it."""
    status = Path(f"/proc/{pid}/status").read_text()
    handled = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(handled, 16) & 1 << (signal.SIGTERM - 1))


@pytest.mark.parametrize(
    "seconds",
    [*(pytest.param(s, marks=faults) for s in (0.1, 0.6, 2.0)),
     *(pytest.param(s, marks=slow) for s in (0.3, 1.0, 1.5, 3.0, 4.0, 5.0))],
)  # fmt: skip
def test_a_signal_during_startup_is_no_crash(world: World, seconds: float, record_property: Record) -> None:
    out = world.folder / f"early{seconds}"
    going = world.start_cold(out)
    going.until(lambda: handles_sigterm(going.process.pid))  # before that, no program can do anything about a signal
    time.sleep(seconds)
    done = going.signal(signal.SIGTERM).end()
    record_property("faults", ("SIGTERM in the first seconds", 1, 0, done.code not in (75, 0)))
    assert done.code in (75, 0)
    assert "Traceback" not in done.stderr


@faults
@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_during_tokenization_stops_it_immediately_and_leaves_no_process(
    world: World, workers: int, record_property: Record
) -> None:
    """All processes get the signal, as from a terminal or a scheduler."""
    big = world.folder / "big.csv"
    rows = (f"{'the a of ' * 60},{label}\n" for _ in range(40_000) for label in ("animal", "color", "food"))
    big.write_text("text,category\n" + "".join(rows))
    out = world.folder / f"tokenising{workers}"
    # Cold, as a user starts it: below the tests' warm process the pool of two workers does not end on the signal.
    going = world.start_cold(out, train_file=big, preprocessing_num_workers=workers, max_steps=1)
    going.until(lambda: has_content(world.folder / "home", "tmp*"), 300)
    family = [psutil.Process(going.process.pid), *psutil.Process(going.process.pid).children(recursive=True)]
    assert len(family) > workers - 1
    os.killpg(going.process.pid, signal.SIGTERM)
    done = going.end(60).expect(75)
    assert "stopped by SIGTERM before the first step; run the same command to start again" in done.stderr
    assert "Traceback" not in done.stderr
    assert still_running(family, 10) == []
    assert status(out)["state"] == "STOPPED"
    record_property("faults", (f"SIGTERM during tokenisation, {workers} worker{'s' if workers > 1 else ''}", 1, 0, 0))


def has_content(folder: Path, pattern: str) -> bool:
    """Whether a file below `folder` has content; one may go while it is looked at."""
    for path in folder.rglob(pattern):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size > 0:
                return True
    return False


@faults
def test_a_run_stops_before_its_time_limit(world: World) -> None:
    out = world.folder / "limit"
    done = world.run(out, max_minutes=0.5, num_train_epochs=100_000, early_stopping_patience=10**6).expect(75)
    assert "stopped by --max_minutes at step " in done.stderr
    assert len(checkpoints(out)) >= 1


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=faults), pytest.param(signal.SIGKILL, marks=slow)]
)
def test_a_launcher_that_dies_leaves_no_orphan_and_a_checkpoint(
    world: World, reference: Path, number: signal.Signals, record_property: Record
) -> None:
    """accelerate launch dies of SIGTERM and does not forward it to its child."""
    out = world.folder / f"orphan{number}"
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    changes = {"num_train_epochs": 100_000, "early_stopping_patience": 10**6}
    going = world.start_cold(out, launcher, **changes).until_step(6)
    family = psutil.Process(going.process.pid).children(recursive=True)
    going.signal(number).end()
    assert still_running(family, 60) == []
    assert "stopped by the end of its launcher at step " in going.log.read_text()
    assert status(out)["state"] == "STOPPED"
    assert checkpoints(out)[-1] == status(out)["step"]
    record_property("faults", ("launcher killed", 1, 0, 0))


@faults
def test_a_second_interrupt_exits_immediately(world: World) -> None:
    out = world.folder / "twice"
    changes: dict[str, Any] = {"num_train_epochs": 100_000, "early_stopping_patience": 10**6}
    going = world.start(out, faults="0:begin:8:HANG", **changes).until_step(6)
    going.until(lambda: list((out / "checkpoints").glob(".new-step-00000008*")))
    going.signal(signal.SIGINT)
    time.sleep(1)
    assert going.alive(), "it waits for the checkpoint"
    assert going.signal(signal.SIGINT).end(20).code == -signal.SIGINT


@faults
def test_a_closed_log_changes_nothing(world: World, reference: Path) -> None:
    """`2>&1 | tee log` ends with the Ctrl-C that is meant for the job."""
    out = world.folder / "unread"
    process = subprocess.Popen(
        [sys.executable, str(TRAIN), *world.words(out, {})], cwd=world.folder, env=world.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(300) == 0
    assert differences(reference, out) == []


# ---------------------------------------------------------------------------------------------------------------------
# Disks


@contextlib.contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    """A file that fills the disk."""
    filler = place / "filler"
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)
    assert shutil.disk_usage(place).free == 0
    return filler


LONG: dict[str, Any] = {"num_train_epochs": 12, "early_stopping_patience": 10**6, "eval_steps": 50}


@needs_root
@faults
def test_a_full_disk_does_not_end_a_run_and_is_logged_once(world: World, record_property: Record) -> None:
    """The log is on that disk too."""
    reference = world.folder / "long-reference"
    world.run(reference, **LONG).expect(0)
    with small_disk(world.folder / "disk", 12) as disk:
        out = disk / "run"
        faults = "0:begin:20:SIGSTOP 0:step:90:SIGSTOP"
        going = world.start(out, faults=faults, log=disk / "log", **LONG)
        when_asleep(going)
        before = checkpoints(out)
        filler = fill(disk)
        going.signal(signal.SIGCONT)
        when_asleep(going)
        assert checkpoints(out) == before, "older ones are untouched"
        assert steps(out)[-1] < 90, "metrics.jsonl has no room either"
        filler.unlink()
        done = going.signal(signal.SIGCONT).end().expect(0)
        assert done.stderr.count("WARNING the checkpoint of step ") == 1
        assert "older ones are untouched, training continues" in done.stderr
        assert "could be written again" in done.stderr
        differing = differences(reference, out)
        record_property("faults", ("disk full while saving", 1, 0, len(differing) > 0))
        assert differing == []


@needs_root
def test_a_stop_on_a_full_disk_reports_that_nothing_was_saved(
    world: World, reference: Path, record_property: Record
) -> None:
    with small_disk(world.folder / "disk2", 12) as disk:
        out = disk / "run"
        going = world.start(out, faults="0:begin:10:SIGSTOP")
        when_asleep(going)
        before, filler = checkpoints(out), fill(disk)
        going.signal(signal.SIGTERM).signal(signal.SIGCONT)
        done = going.end().expect(1)
        assert re.match(
            r"error: stopped by SIGTERM, but the checkpoint of step 1[0-2] could not be written: free", done.errors[0]
        )
        assert checkpoints(out) == before
        filler.unlink()
        world.run(out).expect(0)
        differing = differences(reference, out)
        record_property("faults", ("disk full at a stop", 1, 1, len(differing) > 0))
        assert differing == []


@needs_root
@faults
def test_a_disk_full_at_the_end_is_reported_in_one_line_and_the_next_start_finishes(
    world: World, reference: Path, record_property: Record
) -> None:
    with small_disk(world.folder / "disk3", 12) as disk:
        out = disk / "run"
        last = json.loads((reference / "results.json").read_text())["train"]["steps"]
        going = world.start(out, faults=f"0:begin:{last - 1 - (last - 1) % 2}:SIGSTOP")
        when_asleep(going)
        filler = fill(disk)
        done = going.signal(signal.SIGCONT).end().expect(1)
        assert len(done.errors) == 1 and "No space left on device" in done.errors[0]
        assert "free some space, then run the same command to resume" in done.errors[0]
        assert "Traceback" not in done.stderr
        filler.unlink()
        world.run(out).expect(0)
        differing = differences(reference, out)
        record_property("faults", ("disk full at the end", 1, 1, len(differing) > 0))
        assert differing == []


def when_asleep(going: Going) -> None:
    """Once the run has stopped itself, with all its threads; what it was writing then is not yet on the disk."""
    threads = Path(f"/proc/{going.process.pid}/task")
    going.until(lambda: all("\nState:\tT" in (task / "status").read_text() for task in threads.iterdir()))


@faults
def test_a_file_size_limit_is_handled_like_a_full_disk(world: World, reference: Path) -> None:
    """For users other than root: the optimizer's file does not fit, smaller ones do."""
    out = world.folder / "limited"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    done = world.start_cold(out, preexec=limit).end().expect(1)
    assert done.stderr.count("WARNING the checkpoint of step ") == 1
    assert "File too large" in done.errors[-1]
    assert checkpoints(out) == []
    world.run(out).expect(0)
    assert differences(reference, out) == []


@needs_root
def test_an_unwritable_folder_is_rejected_in_one_line(world: World) -> None:
    with small_disk(world.folder / "disk4", 12) as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        done = world.run(disk / "run").expect(2)
        assert done.errors == [f"error: --output_dir {disk / 'run'} cannot be written: Read-only file system"]


# ---------------------------------------------------------------------------------------------------------------------
# Others


def test_of_two_runs_in_one_folder_one_is_rejected_and_the_other_finishes(
    world: World, reference: Path, record_property: Record
) -> None:
    out = world.folder / "both"
    ended = [going.end() for going in [world.start(out, log=world.folder / f"both{n}.log") for n in (1, 2)]]
    assert sorted(done.code for done in ended) == [0, 2]
    rejected = max(ended, key=lambda done: done.code)
    assert len(rejected.errors) == 1 and f" is active in {out}: wait until it ends" in rejected.errors[0]
    differing = differences(reference, out)
    record_property("faults", ("two runs in one folder", 1, 0, len(differing) > 0))
    assert differing == []


@faults
def test_a_requeued_job_with_overwrite_keeps_its_progress(world: World, reference: Path) -> None:
    """Its command line is the same each time, but only the first start overwrites."""
    out = world.folder / "requeued"
    world.run(out, seed=1, max_steps=1).expect(0)
    settings = {"env": {"MUSTER_OWNER": "slurm:17"}, "overwrite_output_dir": True}
    first = world.run(out, faults="0:step:9:SIGTERM", **settings).expect(75)
    assert "run the same command without --overwrite_output_dir to resume" in first.stderr
    assert "resumes  step-00000009" in world.run(out, **settings).expect(0).stderr
    assert differences(reference, out) == []


def test_a_damaged_checkpoint_is_quarantined_and_the_result_is_the_same(
    world: World, reference: Path, record_property: Record
) -> None:
    out = world.folder / "damaged"
    world.run(out, faults="0:step:9:SIGTERM").expect(75)
    path = out / "checkpoints" / "step-00000009" / "optimizer.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    hopeless = copied(out, "hopeless")
    done = world.run(out).expect(0)
    assert "WARNING checkpoint step-00000009 is damaged (optimizer.safetensors is not what was written)" in done.stderr
    assert "resumes  step-00000008" in done.stderr
    differing = differences(reference, out)
    record_property("faults", ("damaged checkpoint", 1, 1, len(differing) > 0))
    assert differing == []

    for folder in (hopeless / "checkpoints").glob("step-*"):
        (folder / "manifest.json").unlink()
    for _ in range(2):
        done = world.run(hopeless).expect(3)
        assert done.errors[0].startswith(f"error: none of the checkpoints of {hopeless} can be used")
        assert status(hopeless)["state"] == "NEEDS_HUMAN"
    assert not (hopeless / "results.json").exists()
