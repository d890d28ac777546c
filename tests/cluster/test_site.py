"""Submission on clusters as they are: wrapped sbatch, interrupts, drained nodes, limits, failing setup.

Jobs are queued on a real Slurm, most of them held: only the submission is tested. The output of a
site's wrapper is made up; the sbatch behind it is the real one.
"""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import jobs
from tests.cluster.jobs import Work
from tests.cluster.slurm import Cluster
from tests.support.launch import TRAIN

ONE = "--gpus 0 --cpus_per_task 1 --time 20"
HELD = f"{ONE} --sbatch=--hold"
ID_ONLY = 'real "$@" | sed "s/^Submitted batch job //"'
COST = 'echo "Estimated cost of this job 3.20 EUR"; real "$@"'
ANOTHER_JOB = 'echo "job 77 is still pending"; real "$@"'
NO_ANSWER = 'real "$@" > /dev/null; echo "Thank you for using our cluster."'
TIMED_OUT = 'real "$@" > /dev/null; echo "sbatch: error: Socket timed out on send/recv operation" >&2; exit 1'

LATE = """answer=$(real "$@") || exit
for _ in {1..300}; do squeue --noheader --states=PENDING --format=%i | grep -q . || break; sleep 0.1; done
sleep 2; echo $answer"""


def wrapper(folder: Path, body: str) -> str:
    """A PATH on which sbatch is a site's: `body`, in which `real` is Slurm's own. --test-only passes unchanged."""
    folder.mkdir()
    real = shutil.which("sbatch")
    script = f'#!/bin/bash\nreal() {{ {real} "$@"; }}\n[[ "$*" != *--test-only* ]] || exec {real} "$@"\n{body}\n'
    (folder / "sbatch").write_text(script, encoding="ascii")
    (folder / "sbatch").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.fixture(autouse=True)
def nothing_stays_queued(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.run("scancel", "--user=root", "--state=PENDING", check=False)


def test_a_job_that_starts_before_sbatch_has_answered_trains(cluster: Cluster, work: Work, tmp_path: Path) -> None:
    """Slurm opens its log before anything in the job runs; its folder is named by an id that nobody knows yet."""
    run = tmp_path / "run"
    job = work.submit(cluster, "--gpus 0 --cpus_per_task 1 --time 20", work.flags(run, 3),
                      PATH=wrapper(tmp_path / "bin", LATE))  # fmt: skip
    assert cluster.end(job) == "COMPLETED", cluster.report(job)
    assert "trained 3 steps" in jobs.log(run, job)


def is_whole(run: Path, job: str) -> bool:
    """Whether a queued job has all that it needs to run."""
    folder = run / "jobs" / job
    names = ("job.json", f"{job}_submitted.pkl", f"{job}_submission.sh")
    assert json.loads((folder / "job.json").read_text("utf-8"))["id"] == job
    return all((folder / name).exists() for name in names)


# ---------------------------------------------------------------------------------------------------------------------
# The job and its folder stay together


@pytest.mark.parametrize("body", [ID_ONLY, COST, ANOTHER_JOB, NO_ANSWER, TIMED_OUT])
def test_the_queued_job_is_identified_despite_any_output_of_a_wrapper(
    body: str, cluster: Cluster, work: Work, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = work.try_to_submit(cluster, HELD, work.flags(run, 3), PATH=wrapper(tmp_path / "site", body))
    assert done.returncode == 0, done.stderr
    job = done.stdout.split()[1]
    assert cluster.show(job)["StdOut"] == f"{run}/jobs/batch-{job}.out"
    assert is_whole(run, job)
    assert jobs.status(run)["state"] == "QUEUED"
    assert ("found by its comment" in done.stderr) == (body in (NO_ANSWER, TIMED_OUT))
    assert done.stdout.splitlines()[1:] == [
        f"run       {run}",
        f"log       {run}/jobs/{job}/{job}_0_log.out and .err",
        f"cancel    python -m launch cancel {run}",
    ]


def test_an_interrupt_while_sbatch_runs_loses_no_job(cluster: Cluster, work: Work, tmp_path: Path) -> None:
    """Ctrl-C reaches the whole process group, sbatch too."""
    run, mark = tmp_path / "run", tmp_path / "called"
    path = wrapper(tmp_path / "site", f'touch {mark}; until [ -e {mark}-on ]; do sleep 0.1; done; real "$@"')
    process = work.start_submit(cluster, ONE, work.flags(run, 3), PATH=path)
    until(mark.exists)
    os.killpg(process.pid, signal.SIGINT)
    assert process.stderr is not None
    waiting = next(line for line in process.stderr if "waiting for its answer" in line)
    mark.with_name(f"{mark.name}-on").touch()
    out, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    job = out.split()[1]
    assert "another interrupt ends that" in waiting
    assert f"the job was queued already; scancel {job} cancels it" in stderr
    assert "Traceback" not in stderr
    assert is_whole(run, job)
    assert cluster.end(job) == "COMPLETED", cluster.report(job)
    assert jobs.status(run)["state"] == "DONE"


@pytest.mark.parametrize(("body", "code"), [("touch {mark}; sleep 60", 1), ('real "$@"; touch {mark}; sleep 60', 0)])
def test_a_second_interrupt_ends_the_wait_and_a_job_that_was_queued_is_found(
    body: str, code: int, cluster: Cluster, work: Work, tmp_path: Path
) -> None:
    """sbatch hangs, before it has queued the job or after it."""
    run, mark = tmp_path / "run", tmp_path / "called"
    path = wrapper(tmp_path / "site", body.format(mark=mark))
    process = work.start_submit(cluster, HELD, work.flags(run, 3), PATH=path)
    until(mark.exists)
    os.kill(process.pid, signal.SIGINT)
    assert process.stderr is not None
    assert any("waiting for its answer, another interrupt ends that" in line for line in process.stderr)
    os.kill(process.pid, signal.SIGINT)
    out, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    if code:
        assert stderr.splitlines()[-1].startswith("error: whether Slurm took the job is not known: ")
        assert list((run / "jobs").iterdir()), "what was written is kept"
        assert not cluster.run("squeue", "--noheader", "--format=%A").strip()
    else:
        assert "the job was found by its comment" in stderr
        assert is_whole(run, out.split()[1])


def test_submissions_in_the_same_second_get_different_folders(cluster: Cluster, work: Work) -> None:
    flags = work.flags(Path("unused"), 3)
    at = flags.index("--output_dir")
    started = [work.start_submit(cluster, HELD, flags[:at] + flags[at + 2 :]) for _ in range(3)]
    output = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], output
    runs = {Path(out.splitlines()[1].split(maxsplit=1)[1]): out.split()[1] for out, _ in output}
    assert len(runs) == len(set(runs.values())) == 3
    for run, job in runs.items():
        assert is_whole(run, job)
        assert len(list((run / "jobs").glob("submitted-*/code/job/train.py"))) == 1
    assert not (work.folder / "runs" / "latest").exists(), "it moves when a job starts"


def test_a_folder_with_a_pending_job_is_not_submitted_again(cluster: Cluster, work: Work, tmp_path: Path) -> None:
    """The reader of the first submission's output exits: the job is queued anyway."""
    run = tmp_path / "run"
    words = shlex.join(work.command(HELD, work.flags(run, 3)))
    piped = subprocess.run(
        ["bash", "-c", f'{words} | head -1; exit "${{PIPESTATUS[0]}}"'],
        env=work.environ(cluster),
        cwd=work.folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert piped.returncode == 0, piped.stderr
    job = piped.stdout.split()[1]
    assert is_whole(run, job)
    before = (run / "status.json").read_bytes()
    again = work.try_to_submit(cluster, HELD, work.flags(run, 3))
    assert again.returncode == 2
    assert f"has the job {job} (PENDING): scancel {job} first" in again.stderr
    assert (run / "status.json").read_bytes() == before
    cluster.run("scancel", job)
    cluster.end(job)
    assert work.submit(cluster, HELD, work.flags(run, 3)) != job


# ---------------------------------------------------------------------------------------------------------------------
# No false and no missing rejections


def test_nodes_that_are_only_drained_now_are_a_warning(cluster: Cluster, work: Work, tmp_path: Path) -> None:
    for node in ("n1", "n2"):
        cluster.run("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
    try:
        job = work.try_to_submit(cluster, ONE, work.flags(tmp_path / "run", 3))
        never = work.try_to_submit(cluster, "--gpus 3 --cpus_per_task 1", work.flags(tmp_path / "never", 3))
    finally:
        for node in ("n1", "n2"):
            cluster.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
    assert job.returncode == 0, job.stderr
    assert "warning: the job cannot start now" in job.stderr
    assert "n1 drain" in job.stderr
    assert never.returncode == 2, never.stdout
    assert "Slurm does not take the job: " in never.stderr
    assert cluster.end(job.stdout.split()[1]) == "COMPLETED"


def test_a_limit_that_keeps_the_job_pending_is_reported_at_once(accounted: Cluster, work: Work, tmp_path: Path) -> None:
    """Slurm's default takes a job above its partition's limit and never starts it."""
    done = work.try_to_submit(accounted, "--gpus 0 --cpus_per_task 1 --time 4h", work.flags(tmp_path / "run", 3))
    assert done.returncode == 0, done.stderr
    job = done.stdout.split()[1]
    assert f"warning: job {job} never starts: its time limit is above the partition's" in done.stderr
    accounted.run("scancel", job)


def test_no_wckey_is_requested_unless_it_is_set(cluster: Cluster, work: Work, tmp_path: Path) -> None:
    keys = {"": "", "--wckey mine": "mine", "--wckey=": ""}
    for number, (flag, key) in enumerate(keys.items()):
        job = work.submit(cluster, f"{HELD} {flag}", work.flags(tmp_path / str(number), 1), MUSTER_WCKEY="")
        script = cluster.run("scontrol", "write", "batch_script", job, "-")
        assert ("--wckey" in script, f"--wckey={key}\n" in script) == (bool(key), bool(key))


# ---------------------------------------------------------------------------------------------------------------------
# No silent differences


def test_two_tasks_without_a_launcher_do_not_train_twice(cluster: Cluster, work: Work, tmp_path: Path) -> None:
    words = ["srun", "-n", "2", sys.executable, str(TRAIN), *work.flags(tmp_path / "run", 3)]
    done = subprocess.run(
        words, env=work.environ(cluster), cwd=work.folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert "2 tasks were started (SLURM_STEP_NUM_TASKS)" in done.stderr
    assert not (tmp_path / "run").exists()
    script = tmp_path / "script.sh"
    script.write_text(f"#!/bin/bash\n{shlex.join(words[3:])}\n", encoding="utf-8")
    flags = ("--parsable", "--ntasks=2", f"--chdir={work.folder}", f"--output={tmp_path}/out")
    batch = subprocess.run(
        ["sbatch", *flags, str(script)], env=work.environ(cluster), capture_output=True, text=True, check=True
    )
    job = batch.stdout.strip()
    assert cluster.end(job) == "COMPLETED", (tmp_path / "out").read_text()
    assert jobs.status(tmp_path / "run")["state"] == "DONE"


@pytest.mark.parametrize(
    ("setup", "code", "output"),
    [
        ("source /none; true", 1, "source /none"),
        ("module load nothing && export A=1", 127, "its last command"),
        ("conda activate x", 127, "conda activate x"),
    ],
)
def test_a_setup_command_that_fails_ends_the_job(
    setup: str, code: int, output: str, cluster: Cluster, work: Work, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = [*work.command(f"{ONE} --setup", [])[:-1], setup, "--", *work.flags(run, 3)]
    done = subprocess.run(
        words, env=work.environ(cluster), cwd=work.folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    job = done.stdout.split()[1]
    assert cluster.end(job) == "FAILED", cluster.report(job)
    assert cluster.show(job)["ExitCode"] == f"{code}:0"
    reason = f"a command of --setup failed, exit code {code}"
    assert f"muster: {reason}: {output}" in jobs.log(run, job)
    assert (jobs.status(run)["state"], jobs.status(run)["reason"]) == ("FAILED", reason)


def test_limits_of_the_login_node_and_a_missing_folder_do_not_reach_the_training(
    cluster: Cluster, work: Work, tmp_path: Path
) -> None:
    """The job is queued with few open files allowed, from a folder that its node does not have."""
    run, place, limit = tmp_path / "run", tmp_path / "place", tmp_path / "limit"
    place.mkdir()
    (place / "setup.sh").write_text("false\ntrue\n", encoding="ascii")  # what a sourced file does is its own affair
    shutil.copy(place / "setup.sh", tmp_path)
    setup = f"ulimit -n > {limit}; . {tmp_path}/setup.sh"
    words = [*work.command(f"{HELD} --setup", [])[:-1], setup, "--", *work.flags(run, 3)]

    def submit() -> str:
        done = subprocess.run(
            words,
            env=work.environ(cluster),
            cwd=place,
            capture_output=True,
            text=True,
            timeout=120,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300)),
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()[1]

    job = submit()
    place.rename(tmp_path / "elsewhere")
    cluster.run("scontrol", "release", job)
    assert cluster.end(job) == "FAILED", cluster.report(job)
    assert "muster: the working directory is not on this node" in jobs.log(run, job)
    assert jobs.status(run)["state"] == "FAILED"
    assert not limit.exists()
    (tmp_path / "elsewhere").rename(place)
    again = submit()
    cluster.run("scontrol", "release", again)
    assert cluster.end(again) == "COMPLETED", cluster.report(again)
    assert int(limit.read_text()) > 300


def until(condition: object, timeout: float = 60) -> None:
    end = time.monotonic() + timeout
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)
