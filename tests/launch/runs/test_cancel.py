"""`cancel`: what is sent to whom, and that CANCELLED is written only when the end is confirmed."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from launch import cli, make
from launch.runs import cancel, processes
from launch.runs.slurm import SQUEUE_HEADER
from tests.launch.runs import synthetic
from tests.launch.runs.synthetic import StandIns

WAITS = "{id}|PENDING|0:00|1:00||Priority|(null)"
RUNS = "{id}|RUNNING|0:10|1:00|n1|None|(null)"
GONE = "{id}|CANCELLED|0:10|1:00|n1|None|(null)"


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancel, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(cancel, "SAVE_SECONDS", 0.05)
    monkeypatch.setattr(cancel, "END_SECONDS", 0.05)


def ran(capfd: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> str:
    assert cli.main(["cancel", *argv]) == code
    return capfd.readouterr().err


def state(run: Path) -> str:
    return json.loads((run / "status.json").read_text())["state"]


def queue(stand_ins: StandIns, *jobs: str, after: str, on: str = "") -> None:
    """squeue shows `jobs`; once scancel was called with words that hold `on`, it shows `after`."""
    before = "\n".join(f"echo '{job}'" for job in jobs)
    stand_ins.add(
        "squeue",
        f"echo '{SQUEUE_HEADER}'\nif [ -e {stand_ins.folder}/signalled ]; then echo '{after}'\nelse\n{before}\nfi",
    )
    stand_ins.add("scancel", f'[[ "$*" == *"{on}"* ]] && touch {stand_ins.folder}/signalled; exit 0')


def test_a_pending_job_is_removed_from_the_queue(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    queue(stand_ins, WAITS.format(id=7), after=GONE.format(id=7))
    run = synthetic.run(runs / "a", "QUEUED", job="7")
    assert ran(capfd, "a") == "a: cancelled (job 7)\na: CANCELLED\n"
    assert (stand_ins.calls("scancel"), state(run)) == (["7"], "CANCELLED")


@pytest.fixture
def reused(runs: Path, stand_ins: StandIns) -> tuple[Path, Path]:
    """An old stopped run and a running one, both with job 12: Slurm started over with its ids in between."""
    row = RUNS.format(id=12).replace("(null)", "muster:2222222222222222")
    queue(stand_ins, row, after="", on="--signal=TERM")
    old = synthetic.run(runs / "a-old", "STOPPED", job="12", ago=9e5, submitted=9e6, token="muster:1111111111111111")
    new = synthetic.run(runs / "b-new", job="12", token="muster:2222222222222222")
    os.utime(old / "jobs" / "12" / "job.json", (1, 1))
    return old, new


def test_an_old_run_whose_job_id_is_used_again_is_left_alone(
    reused: tuple[Path, Path], stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ran(capfd, "a-old") == "a-old is STOPPED: nothing to cancel\n"
    assert (stand_ins.calls("scancel"), state(reused[0])) == ([], "STOPPED")


def test_a_job_id_that_is_used_again_is_that_of_the_newest_run(
    reused: tuple[Path, Path], stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "b-new: CANCELLED" in ran(capfd, "12")
    assert (stand_ins.calls("scancel"), [*map(state, reused)]) == (["--signal=TERM 12"], ["STOPPED", "CANCELLED"])


def test_a_job_whose_comment_was_changed_is_not_cancelled(
    reused: tuple[Path, Path], stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    stand_ins.squeue(RUNS.format(id=12).replace("(null)", "of my own"))
    assert ran(capfd, "b-new", code=2) == (
        "error: b-new: the comment of job 12 is 'of my own' without muster:2222222222222222, so it may not be this "
        "run's: `scontrol show job 12` shows it, `scancel 12` ends it\n"
    )
    assert stand_ins.calls("scancel") == []


def test_a_running_job_saves_and_its_checkpoint_is_reported(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    queue(stand_ins, RUNS.format(id=7), after="", on="--signal=TERM")
    run = synthetic.run(runs / "a", job="7", step=30)
    (run / "checkpoints" / "step-00000030").mkdir(parents=True)
    output = ran(capfd, "7")
    assert "a: CANCELLED, step-00000030 is kept" in output
    assert stand_ins.calls("scancel") == ["--signal=TERM 7"]
    assert (state(run), json.loads((run / "status.json").read_text())["step"]) == ("CANCELLED", 30)


def test_a_running_job_may_take_a_while_to_save(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    """SAVE_SECONDS are five polls here."""
    asked = stand_ins.folder / "squeue.calls"
    stand_ins.add("squeue", f"mapfile -t asked < {asked}\necho '{SQUEUE_HEADER}'\n"
                  f"[ ${{#asked[@]}} -gt 4 ] || echo '{RUNS.format(id=7)}'")  # fmt: skip
    stand_ins.add("scancel", "exit 0")
    run = synthetic.run(runs / "a", job="7")
    ran(capfd, "a")
    assert stand_ins.calls("scancel") == ["--signal=TERM 7"]
    assert state(run) == "CANCELLED"


def again_as(run: Path, job: str) -> None:
    """Record that `run` was submitted again, as this job."""
    record = next(run.glob("jobs/*/job.json"))
    os.utime(record, (0, 0))
    synthetic.write(run / "jobs" / job / "job.json", {**json.loads(record.read_text()), "id": job})


def test_the_id_of_an_array_selects_its_current_runs(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    queue(stand_ins, WAITS.format(id="7_0"), WAITS.format(id="8_1"), after=GONE.format(id="8_1"))
    synthetic.write(runs / "lr" / "sweep.json", {"elements": []})
    first, again = (synthetic.run(runs / "lr" / name, "QUEUED", job=f"7_{name}") for name in ("0", "1"))
    again_as(again, "8_1")
    ran(capfd, "8")
    assert stand_ins.calls("scancel") == ["8_1"]
    assert (state(first), state(again)) == ("QUEUED", "CANCELLED")


def test_an_old_array_whose_runs_were_resubmitted_is_not_cancelled(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    queue(stand_ins, WAITS.format(id="8_0"), after="")
    synthetic.write(runs / "lr" / "sweep.json", {"elements": []})
    again_as(synthetic.run(runs / "lr" / "0", "QUEUED", job="7_0"), "8_0")
    assert "the runs of array 7 were submitted again since: name the sweep, runs/lr" in ran(capfd, "7", code=2)
    assert not stand_ins.calls("scancel")


def test_the_id_of_an_old_job_does_not_cancel_the_newer_one(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    queue(stand_ins, WAITS.format(id="15"), after=GONE.format(id="15"))
    again_as(synthetic.run(runs / "a", "QUEUED", job="10"), "15")
    message = "error: job 10 is not the newest of a, which is 15: to cancel that, name it or a\n"
    assert ran(capfd, "10", code=2) == message
    assert not stand_ins.calls("scancel")
    ran(capfd, "15")
    assert stand_ins.calls("scancel") == ["15"]


def test_a_run_named_by_a_number_is_no_job(runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]) -> None:
    queue(stand_ins, WAITS.format(id="15"), after=GONE.format(id="15"))
    again_as(synthetic.run(runs / "10", "QUEUED", job="10"), "15")
    ran(capfd, "10")
    assert stand_ins.calls("scancel") == ["15"]


def test_a_job_requeued_meanwhile_is_cancelled_in_the_queue(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    synthetic.run(runs / "a", job="7")
    at = stand_ins.folder
    waits, trains = f"[ -e {at}/signalled ] && echo '{WAITS.format(id=7)}'", f"echo '{RUNS.format(id=7)}'"
    stand_ins.add("squeue", f"echo '{SQUEUE_HEADER}'\n[ -e {at}/gone ] && exit\n{waits} || {trains}")
    stand_ins.add("scancel", f'[[ "$*" == 7 ]] && touch {at}/gone\ntouch {at}/signalled')
    ran(capfd, "a")
    assert stand_ins.calls("scancel") == ["--signal=TERM 7", "7"]
    assert state(runs / "a") == "CANCELLED"


def test_a_job_that_does_not_save_in_time_is_cancelled_without_a_checkpoint(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    stand_ins.add(
        "squeue", f"echo '{SQUEUE_HEADER}'\n[ -e {stand_ins.folder}/signalled ] || echo '{RUNS.format(id=7)}'"
    )
    stand_ins.add("scancel", f'[[ "$*" == 7 ]] && touch {stand_ins.folder}/signalled; exit 0')
    synthetic.run(runs / "a", job="7")
    ran(capfd, "a")
    assert stand_ins.calls("scancel") == ["--signal=TERM 7", "7"]


def test_without_slurms_confirmation_nothing_is_written(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    queue(stand_ins, WAITS.format(id=7), after="never", on="never")
    run = synthetic.run(runs / "a", "QUEUED", job="7")
    assert ran(capfd, "a", code=1).endswith("a has not ended yet: check `status a`\n")
    assert state(run) == "QUEUED"


def test_without_an_answer_of_slurm_no_signal_is_sent(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    queue(stand_ins, after="")
    stand_ins.add("squeue", "echo 'no controller' >&2; exit 1")
    run = synthetic.run(runs / "a", "QUEUED", job="7")
    output = "error: squeue says 'no controller': nothing was cancelled, try again\n"
    assert ran(capfd, "a", code=2) == output
    assert (stand_ins.calls("scancel"), state(run)) == ([], "QUEUED")


def test_a_failed_cancellation_does_not_stop_the_others(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    queue(stand_ins, WAITS.format(id=7), WAITS.format(id=8), after=WAITS.format(id=7))
    stand_ins.add(
        "scancel", f'[ "$*" = 8 ] && touch {stand_ins.folder}/signalled || {{ echo "Access denied"; exit 1; }}'
    )
    for number in (7, 8):
        synthetic.run(runs / f"run{number}", "QUEUED", job=str(number))
    output = ran(capfd, "run7", "run8", code=1)
    assert "run7: not cancelled: scancel says 'Access denied' (job 7)\n" in output
    assert [state(runs / f"run{n}") for n in (7, 8)] == ["QUEUED", "CANCELLED"]


def test_a_run_that_finishes_first_stays_finished(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    run = synthetic.run(runs / "a", job="7")
    queue(stand_ins, RUNS.format(id=7), after="")
    done = json.dumps({"state": "DONE"})
    stand_ins.add("scancel", f"touch {stand_ins.folder}/signalled\necho '{done}' > {run.absolute()}/status.json")
    assert "a: DONE before it was cancelled" in ran(capfd, "a")
    assert state(run) == "DONE"


def test_cancelling_pending_jobs_leaves_others_running(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    queue(stand_ins, *(WAITS.format(id=n) for n in (7, 8)), RUNS.format(id=9), after="", on="8")
    for number, name in ((7, "QUEUED"), (8, "QUEUED"), (9, "RUNNING")):
        synthetic.run(runs / f"run{number}", name, job=str(number))
    ran(capfd, "--queued")
    assert sorted(stand_ins.calls("scancel")) == ["7", "8"]
    assert [state(runs / f"run{n}") for n in (7, 8, 9)] == ["CANCELLED", "CANCELLED", "RUNNING"]


def test_latest_is_the_newest_submission(runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]) -> None:
    queue(stand_ins, WAITS.format(id=8), after="")
    for number, name in ((8, "b"), (7, "a")):
        path = synthetic.run(runs / name, "QUEUED" if name == "b" else "DONE", job=str(number))
        os.utime(path / "jobs" / str(number) / "job.json", (number, number))
        synthetic.log(path, str(number), 0, "started")  # which changes the job's folder
    (runs / "latest").symlink_to("a")
    ran(capfd, "latest")
    assert stand_ins.calls("scancel") == ["8"]


@contextmanager
def process() -> Iterator[tuple[subprocess.Popen[bytes], dict[str, object]]]:
    """A process that ends 0.2 s after SIGTERM, and what a local job's record says of it."""
    code = "import signal, time, sys; signal.signal(15, lambda *_: (time.sleep(0.2), sys.exit())); print(flush=True)\n"
    with subprocess.Popen([sys.executable, "-c", f"{code}signal.pause()"], stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        started.stdout.readline()
        try:
            who = {"host": socket.gethostname(), "pid": started.pid, "process_start": processes.started(started.pid)}
            yield started, who
        finally:
            started.kill()


def test_a_local_run_is_cancelled_by_its_process(
    runs: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancel, "SAVE_SECONDS", 50.0)
    with process() as (started, who):
        run = synthetic.local_job(synthetic.run(runs / "a"), **who)
        assert f"a: saving a checkpoint, then stopping (process {started.pid})\na: CANCELLED" in ran(capfd, "a")
        assert (state(run), started.wait(5)) == ("CANCELLED", 0)


@pytest.mark.parametrize("before", [None, "STOPPED", "FAILED"])
def test_a_local_run_that_is_starting_is_cancelled(
    before: str | None, runs: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process has not written a status yet: there is none, or that of an earlier start."""
    monkeypatch.setattr(cancel, "SAVE_SECONDS", 50.0)
    with process() as (started, who):
        if before:
            synthetic.run(runs / "a", before, ago=900)
        synthetic.local_job(runs / "a", **who)
        assert f"a: saving a checkpoint, then stopping (process {started.pid})\n" in ran(capfd, "a")
        assert started.wait(5) == 0


def test_a_local_run_that_is_ending_keeps_its_state(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with process() as (started, who):
        synthetic.local_job(synthetic.run(runs / "a", "STOPPED", ago=2), **who)
        assert ran(capfd, "a") == "a is STOPPED: nothing to cancel\n"
        assert started.poll() is None


def test_a_run_that_cannot_be_cancelled_does_not_keep_the_others_of_its_sweep(
    runs: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancel, "SAVE_SECONDS", 50.0)
    synthetic.write(runs / "lr" / "sweep.json", {"elements": []})
    with process() as (started, who):
        synthetic.local_job(synthetic.run(runs / "lr" / "0"), **{**who, "process_start": "an earlier one"})
        run = synthetic.local_job(synthetic.run(runs / "lr" / "1"), **who)
        lines = ran(capfd, "lr", code=1).splitlines()
        assert lines[0].startswith(f"runs/lr/0: process {started.pid} on ")
        assert lines[-1] == "runs/lr/1: CANCELLED"
        assert (state(run), started.wait(5)) == ("CANCELLED", 0)


def test_an_end_that_cannot_be_written_is_reported(
    runs: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancel, "SAVE_SECONDS", 50.0)
    with process() as (started, who):
        run = synthetic.local_job(runs / "a", **who)
        (run / "status.json").mkdir()
        output = ran(capfd, "a", code=1)
        assert "a has ended, but runs/a/status.json cannot be written (Is a directory): free some space there" in output
        assert started.wait(5) == 0


@pytest.mark.parametrize("wrong", [{"process_start": "an earlier one"}, {"host": "elsewhere"}])
def test_another_process_with_the_same_id_is_not_killed(
    wrong: dict[str, str], runs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with process() as (started, who):
        run = synthetic.local_job(synthetic.run(runs / "a"), **{**who, **wrong})
        ran(capfd, "a", code=2)
        assert (state(run), started.poll()) == ("RUNNING", None)
        os.kill(started.pid, signal.SIGKILL)


def test_a_docker_run_is_cancelled_by_its_container(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    signalled = stand_ins.folder / "signalled"
    stand_ins.add("docker", f'[ "$1" = kill ] && touch {signalled}\n[ -e {signalled} ] || echo 0123abcd')
    values = {"launcher": "docker", "host": socket.gethostname(), "container": "muster-a"}
    run = synthetic.local_job(synthetic.run(runs / "a"), **values)
    assert "a: saving a checkpoint, then stopping (container muster-a)\na: CANCELLED" in ran(capfd, "a")
    assert "kill --signal=TERM muster-a" in stand_ins.calls("docker")
    assert state(run) == "CANCELLED"
    signalled.unlink()
    (run / "status.json").unlink()
    assert "a: saving a checkpoint, then stopping (container muster-a)\n" in ran(capfd, "a"), "it was starting"
    synthetic.write(run / "status.json", {"state": "RUNNING", "heartbeat": synthetic.moment(1)})
    assert "a: container muster-a on" in ran(capfd, "a", code=2)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("", "name the runs to cancel, or use --queued for all queued ones"),
        ("a --queued", "--queued cancels all queued runs"),
        ("b", "b was not started by this launcher"),
        (
            "lost",
            "lost was submitted, but sbatch's answer with the job id was lost: the job, if there is one, has the co",
        ),
        ("c", "no run c"),
        ("a -- --seed 1", "`cancel` takes no job flags"),
    ],
)
def test_invalid_requests_are_rejected(
    argv: str, message: str, runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    synthetic.run(runs / "a", "DONE", job="7")
    synthetic.run(runs / "b")
    synthetic.run(runs / "lost", "QUEUED", owner="muster:1")
    assert ran(capfd, *argv.split(), code=2).startswith(f"error: {message}")


def test_ended_runs_are_unchanged(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = synthetic.finished(runs / "a", {"accuracy": 0.9}, job="7")
    assert ran(capfd, "a") == "a is DONE: nothing to cancel\n"
    assert cli.main(["cancel", "a", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == [{"run": "a", "path": "runs/a", "state": "DONE"}]
    assert state(run) == "DONE"


def test_make_accepts_several_runs() -> None:
    assert make.cancel_argv({"RUN": "a b"}) == ["cancel", "a", "b"]


def test_cancel_of_a_sweep_on_this_machine_keeps_it_from_starting_others(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, launcher in (("here", "local"), ("there", "slurm")):
        synthetic.write(runs / name / "sweep.json", {"elements": []})
        run = synthetic.run(runs / name / "0", "DONE", job="7_0")
        record = run / "jobs" / "7_0" / "job.json"
        synthetic.write(record, {**json.loads(record.read_text()), "launcher": launcher})
    stand_ins.add("squeue", f"echo '{SQUEUE_HEADER}'")
    ran(capfd, "here/0")
    assert not (runs / "here" / ".stop").exists(), "the others go on when one run is cancelled"
    ran(capfd, "here", "there")
    assert (runs / "here" / ".stop").exists() and not (runs / "there" / ".stop").exists()
