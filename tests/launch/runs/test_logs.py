"""`logs`: every rank's lines, once and in order, also while they are written."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from launch import cli, make
from launch.runs import logs
from tests.launch.runs import synthetic
from tests.launch.runs.synthetic import StandIns


def printed(capfd: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> tuple[list[str], str]:
    assert cli.main(["logs", *argv]) == code
    out, err = capfd.readouterr()
    return out.splitlines(), err


def test_logs_of_all_ranks_or_of_one(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = synthetic.run(runs / "a", "DONE", job="7")
    for rank in (0, 2, 10):
        synthetic.log(path, "7", rank, f"started {rank}\n", "out")
        synthetic.log(path, "7", rank, f"step {rank}\nbar 1\rbar 2\nno end")
    out, _ = printed(capfd, "a")
    assert out == [f"{r}: {line}" for r in (0, 2, 10) for line in (f"started {r}", f"step {r}", "bar 2", "no end")]
    assert printed(capfd, "a", "--rank", "2")[0] == ["started 2", "step 2", "bar 2", "no end"]
    objects = [json.loads(line) for line in printed(capfd, "a", "--json")[0]]
    assert objects[4] == {"rank": 2, "file": "7_2_log.out", "line": "started 2"}
    message = printed(capfd, "a", "--rank", "11", code=2)[1]
    assert message == "error: no log of rank 11: a has ranks 0 to 10\n"


def test_ranks_are_merged_by_the_times_of_their_lines(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = synthetic.run(runs / "a", "DONE", job="7")
    at = "2026-11-26 15:00:0"
    synthetic.log(path, "7", 0, f"{at}1 INFO one\n{at}3 ERROR Traceback\n{at}3 ERROR   x\nno time\n{at}6 INFO six\n")
    synthetic.log(path, "7", 1, f"{at}2 WARNING rank 1 two\n{at}4 INFO rank 1 four\n")
    synthetic.log(path, "7", 0, f"submitit INFO ({at}0,123) - Starting\n", "out")
    assert [line.split()[-1] for line in printed(capfd, "a")[0]] == [
        *("Starting", "one", "two", "Traceback", "x", "time", "four", "six"),
    ]


def test_a_single_rank_has_no_prefix(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = synthetic.run(runs / "a", "DONE", job="7")
    synthetic.log(path, "7", 0, "step 1\n")
    assert printed(capfd, "a")[0] == ["step 1"]


def test_a_local_run_has_one_log(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = synthetic.local_job(synthetic.run(runs / "a", "DONE"))
    (path / "jobs" / "box-7-20270115" / "log.txt").write_text("step 1\n")
    (runs / "latest").symlink_to("a")
    assert printed(capfd)[0] == ["step 1"]
    assert "has a single log for all ranks" in printed(capfd, "a", "--rank", "0", code=2)[1]


def test_a_job_id_selects_that_job_and_a_name_the_newest(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = synthetic.run(runs / "a", "DONE", job="7")
    synthetic.log(path, "7", 0, "first\n")
    synthetic.write(path / "jobs" / "8" / "job.json", {"id": "8", "time": synthetic.moment(500)})
    synthetic.log(path, "8", 0, "second\n")
    assert printed(capfd, "7")[0] == ["first"]
    for name in ("a", "runs/a", str(path.absolute())):
        assert printed(capfd, name)[0] == ["second"], name


def test_without_a_log_the_state_is_printed(runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]) -> None:
    stand_ins.squeue("7|PENDING|0:00|1:00:00||Priority|(null)")
    synthetic.run(runs / "a", "QUEUED", job="7")
    assert printed(capfd, "a") == ([], "no log yet: a is QUEUED, waits for jobs with higher priority\n")
    synthetic.run(runs / "b")
    assert "was not started by this launcher" in printed(capfd, "b", code=2)[1]


def followed(path: Path, events: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Follow the run in `path`; one event happens at each poll."""
    monkeypatch.setattr(logs, "POLLS_PER_LOOK", 1)
    logs._follow(logs.Log(path, None, None), lambda _: events.pop(0)())


def test_following_survives_a_requeue_and_ends_with_the_run(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = synthetic.run(runs / "a", job="7")
    stand_ins.squeue("7|RUNNING|1:00|59:00|n1|None|(null)")
    file = synthetic.log(path, "7", 0, "step 1\n")

    def add(text: str) -> None:
        with file.open("a") as log:
            log.write(text)

    def state(name: str) -> None:
        synthetic.write(path / "status.json", {"state": name, "heartbeat": synthetic.moment(1)})

    def end() -> None:
        add("done")
        state("DONE")

    events = [
        lambda: add("step "),  # half a line
        lambda: add("2\nstopped\n"),
        lambda: state("STOPPED"),
        lambda: stand_ins.squeue("7|PENDING|1:00|59:00||BeginTime|(null)"),
        lambda: stand_ins.add("squeue", "exit 1"),  # no answer is no end
        lambda: stand_ins.squeue("7|RUNNING|1:00|59:00|n1|None|(null)"),
        lambda: state("RUNNING"),
        lambda: add("step 3\n"),
        end,
    ]
    followed(path, events, monkeypatch)
    out, err = capfd.readouterr()
    assert out.splitlines() == ["step 1", "step 2", "stopped", "step 3", "done"]
    assert (err, events) == ("a: DONE\n", [])


def test_a_line_that_is_half_written_when_following_starts_is_printed_once_and_whole(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = synthetic.run(runs / "a", job="7")
    stand_ins.squeue("7|RUNNING|1:00|59:00|n1|None|(null)")
    file = synthetic.log(path, "7", 0, "step 1\nste")

    def finish(_: float) -> None:
        file.write_text("step 1\nstep 2\n")
        synthetic.write(path / "status.json", {"state": "DONE"})

    monkeypatch.setattr(logs, "POLLS_PER_LOOK", 1)
    monkeypatch.setattr(logs.time, "sleep", finish)
    assert printed(capfd, "a", "-f")[0] == ["step 1", "step 2"]


def test_following_continues_with_the_next_job_of_the_run_and_new_ranks(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = synthetic.run(runs / "a", "QUEUED", job="7")
    stand_ins.squeue("7|PENDING|0:00|1:00||Priority|(null)", "8|RUNNING|0:00|1:00|n1|None|(null)")

    def resubmitted() -> None:
        synthetic.write(path / "jobs" / "8" / "job.json", {"id": "8", "time": synthetic.moment(500)})
        for rank in (0, 1):
            synthetic.log(path, "8", rank, f"step {rank}\n")

    def done() -> None:
        synthetic.write(path / "status.json", {"state": "FAILED", "reason": "ValueError: x"})

    followed(path, [resubmitted, done], monkeypatch)
    out, err = capfd.readouterr()
    assert (out.splitlines(), err) == (["0: step 0", "1: step 1"], "a: FAILED, ValueError: x\n")


def test_make_passes_run_and_follow() -> None:
    assert make.logs_argv({"RUN": "a", "FOLLOW": "1"}) == ["logs", "a", "--follow"]
    assert make.logs_argv({}) == ["logs"]
