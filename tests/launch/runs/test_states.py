"""The state of a run, from its folder and Slurm's answer."""

from pathlib import Path
from typing import Any

import pytest

from launch.runs import explanations, processes, run_state, states
from launch.runs.slurm import Answer, SlurmJob
from tests.launch.runs import synthetic
from tests.launch.runs.synthetic import NOW

NO_ANSWER = Answer(problem="squeue did not answer in 5 s")
UNKNOWN = Answer()


def says(state: str, **more: str) -> Answer:
    return Answer({"7": SlurmJob(state, **more)})


CASES: dict[str, tuple[dict[str, Any], Answer, str, str]] = {
    "pending": ({"state": "QUEUED"}, says("PENDING", reason="Priority"), "QUEUED", "waits for jobs with higher prio"),
    "pending forever": (
        {"state": "QUEUED"},
        says("PENDING", reason="PartitionTimeLimit"),
        "QUEUED",
        "never starts: its time limit is above the partition's",
    ),
    "starting": ({"state": "QUEUED"}, says("RUNNING", nodes="n1"), "RUNNING", "starting; on n1"),
    "running": ({"state": "RUNNING"}, says("RUNNING", nodes="n1"), "RUNNING", "on n1"),
    "silent on its node": (
        {"state": "RUNNING", "ago": 900},
        says("RUNNING", nodes="n1"),
        "RUNNING",
        "on n1; no heartbeat for 15 min",
    ),
    "requeued": ({"state": "STOPPED"}, says("PENDING", reason="BeginTime"), "QUEUED", "waits for its begin time"),
    "still ending": (
        {"state": "STOPPED", "ago": 10},
        says("RUNNING", nodes="n1", elapsed="1-02:00:10"),
        "STOPPED",
        "its job is ending on n1",
    ),
    "started again": (
        {"state": "STOPPED", "ago": 90},
        says("RUNNING", nodes="n1", elapsed="0:10"),
        "RUNNING",
        "starting; on n1",
    ),
    "requeued by a lost node": ({"state": "RUNNING"}, says("PENDING", reason="Resources"), "QUEUED", "waits for free"),
    "stopped": ({"state": "STOPPED", "reason": "by SIGTERM"}, UNKNOWN, "STOPPED", "by SIGTERM"),
    "finished": ({"state": "DONE"}, NO_ANSWER, "DONE", ""),
    "failed": ({"state": "FAILED", "reason": "ValueError: x"}, NO_ANSWER, "FAILED", "ValueError: x"),
    "rejected, as the batch script wrote": (
        {"state": "FAILED", "reason": "exit code 2"},
        UNKNOWN,
        "FAILED",
        "exit code 2: rejected: a flag, file, column or label is wrong",
    ),
    "killed": (
        {"state": "RUNNING", "ago": 900},
        says("FAILED", exit_code="137:0"),
        "FAILED",
        "killed by SIGKILL, most",
    ),
    "killed by a signal": ({"state": "RUNNING"}, says("FAILED", exit_code="0:9"), "FAILED", "killed by SIGKILL"),
    "out of memory": ({"state": "RUNNING"}, says("OUT_OF_MEMORY"), "FAILED", "out of memory"),
    "timed out": ({"state": "RUNNING"}, says("TIMEOUT"), "FAILED", "time limit reached"),
    "rejected on the node": ({"state": "QUEUED"}, says("FAILED", exit_code="2:0"), "FAILED", "rejected"),
    "cancelled": ({"state": "QUEUED"}, says("CANCELLED"), "CANCELLED", ""),
    "vanished from the queue": ({"state": "QUEUED"}, UNKNOWN, "LOST", "unknown to Slurm: cancelled, or purged"),
    "vanished while running": ({"state": "RUNNING", "ago": 900}, UNKNOWN, "LOST", "no heartbeat for 15 min"),
    "alive, unknown to Slurm": ({"state": "RUNNING"}, UNKNOWN, "RUNNING", ""),
    "queued, no answer": ({"state": "QUEUED"}, NO_ANSWER, "QUEUED", "Slurm did not answer"),
    "running, no answer": ({"state": "RUNNING"}, NO_ANSWER, "RUNNING", "Slurm did not answer"),
    "silent, no answer": (
        {"state": "RUNNING", "ago": 7200 + 1200},
        NO_ANSWER,
        "LOST",
        "no heartbeat for 2 h 20 min; Slurm did not answer",
    ),
    "ended without a result": ({"state": "QUEUED"}, says("COMPLETED"), "LOST", "its job ended without a result"),
    "no status at all": ({"state": ""}, says("PENDING", reason="Resources"), "QUEUED", "waits for free resources"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_state_of_a_slurm_job(case: str, runs: Path) -> None:
    values, answer, state, note = CASES[case]
    run = run_state.read(synthetic.run(runs / "a", job="7", **values))
    actual = states.view(run, answer, NOW)
    assert actual.state == state
    assert actual.note.startswith(note)
    assert bool(actual.note) == bool(note)


def test_a_finished_run_submitted_again_is_done(runs: Path) -> None:
    path = synthetic.finished(runs / "a", {"accuracy": 0.9}, job="7")
    synthetic.write(path / "status.json", {"state": "QUEUED"})
    assert states.view(run_state.read(path), says("COMPLETED"), NOW).state == "DONE"


def test_a_local_run_is_lost_without_heartbeat_and_process(runs: Path) -> None:
    path = synthetic.run(runs / "a", ago=900)
    assert states.view(run_state.read(path), UNKNOWN, NOW).state == "LOST", "started by accelerate launch"
    import os
    import socket

    here = {"host": socket.gethostname(), "pid": os.getpid()}
    synthetic.local_job(path, **here, process_start=processes.started(os.getpid()))
    assert states.view(run_state.read(path), UNKNOWN, NOW).state == "RUNNING", "a full disk stops the heartbeat only"
    synthetic.local_job(path, **here, process_start="another process of this id")
    assert states.view(run_state.read(path), UNKNOWN, NOW).state == "LOST"
    synthetic.local_job(path, **{**here, "host": "elsewhere"}, process_start=processes.started(os.getpid()))
    assert states.view(run_state.read(path), UNKNOWN, NOW).state == "LOST"


def test_the_time_left_comes_from_the_last_record(runs: Path) -> None:
    run = run_state.read(synthetic.run(runs / "a", step=40, steps=100, settings={"train_batch_size": 32}))
    assert states.view(run, UNKNOWN, NOW).seconds_left == 60 * 2.0


@pytest.mark.parametrize(
    ("reason", "never"),
    [
        ("QOSMaxJobsPerUserLimit", False),
        ("AssocGrpGRES", False),
        ("QOSMaxCpuPerJobLimit", True),
        ("AssocMaxWallDurationPerJobLimit", True),
        ("DependencyNeverSatisfied", True),
        ("QOSNotAllowed", True),
        ("QOSMaxMemoryPerNode", True),
        ("AccountNotAllowed", True),
        ("JobHoldMaxRequeue", True),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-2]", False),
        ("SomethingNew", False),
    ],
)
def test_pending_jobs_that_can_never_start_are_recognised(reason: str, never: bool) -> None:
    assert explanations.pending(reason).never_starts == never


def test_computing_time_that_is_used_up_does_not_come_back_when_other_jobs_end() -> None:
    used_up = "the account or QOS has used up its computing time (AssocGrpCPUMinutesLimit)"
    assert str(explanations.pending("AssocGrpCPUMinutesLimit")) == used_up
    assert str(explanations.pending("AssocGrpCPURunMinutesLimit")).startswith("waits for other jobs")


def test_the_first_error_is_the_cause_not_a_consequence(runs: Path) -> None:
    from launch.runs import failures

    path = synthetic.run(runs / "a", "FAILED", job="7")
    synthetic.log(path, "7", 0, "error: another process of this job ended\nsrun: error: n1: task 0: Exited\n")
    synthetic.log(
        path, "7", 1, "step 3\nTraceback (most recent call last):\n  x\ntorch.OutOfMemoryError: CUDA out of\n"
    )
    synthetic.log(path, "7", 10, "RuntimeError: Connection closed by peer [127.0.0.1]\n")
    actual = failures.first_error(run_state.read(path))
    assert actual is not None
    assert (actual.rank, actual.line) == (1, "torch.OutOfMemoryError: CUDA out of")


def test_the_first_error_is_the_earliest_of_all_ranks(runs: Path) -> None:
    from launch.runs import failures

    path = synthetic.run(runs / "a", "FAILED", job="7")
    at = "2026-11-26 15:00:0"
    late = f"{at}1 INFO step 1\n{at}5 ERROR Traceback (most recent call last):\n{at}5 ERROR ValueError: late\n"
    synthetic.log(path, "7", 0, late)
    early = f"{at}3 ERROR rank 1 Traceback (most recent call last):\n{at}3 ERROR rank 1 KeyError: 'early'\n"
    synthetic.log(path, "7", 1, early)
    actual = failures.first_error(run_state.read(path))
    assert actual is not None
    assert (actual.rank, actual.line) == (1, "KeyError: 'early'")
