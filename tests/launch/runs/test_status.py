"""`status` as a user sees it."""

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from launch import cli, make
from tests.launch.running import ROOT
from tests.launch.runs import synthetic
from tests.launch.runs.synthetic import StandIns

_counted: Counter[str] | None = None
SCORE = {"loss": 0.4, "accuracy": 0.9, "correct": 90}
TABLE = """\
run     job  state       step   left  score            learning_rate  note
waits   8    QUEUED         -      -  -                               waits for free resources, next in line
trains  9    RUNNING   30/100  2 min  accuracy 0.9000  2e-05          on n1
failed  -    FAILED         3      -  -                5e-05          ValueError: no
done    -    DONE     100/100      -  accuracy 0.9000  5e-05
broken  -    UNKNOWN        -      -  -
"""


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _counted is not None and event in ("open", "subprocess.Popen"):
        of_a_run = event != "open" or (isinstance(arguments[0], str) and "/run-" in f"/{arguments[0]}")
        _counted[event] += of_a_run


sys.addaudithook(_audit)


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Files of runs opened and processes started within."""
    global _counted
    _counted = Counter()
    try:
        yield _counted
    finally:
        _counted = None


def printed(capfd: pytest.CaptureFixture[str], *argv: str) -> str:
    assert cli.main(["status", *argv]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    return out


def test_the_table_of_runs(runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]) -> None:
    stand_ins.squeue("8|PENDING|0:00|1:00:00||Resources|(null)", "9|RUNNING|1:00|59:00|n1|None|(null)")
    synthetic.run(runs / "waits", "QUEUED", job="8", submitted=10)
    more: dict[str, Any] = {"step": 30, "steps": 100, "scores": [SCORE], "submitted": 20}
    synthetic.run(runs / "trains", job="9", settings={"learning_rate": 2e-5}, **more)
    synthetic.run(runs / "failed", "FAILED", reason="ValueError: no", step=3, submitted=30)
    synthetic.finished(runs / "done", SCORE, submitted=40, step=100, steps=100)
    (runs / "broken" / "jobs").mkdir(parents=True)
    assert printed(capfd) == TABLE


def test_fewer_trials_than_before_make_no_count_negative(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    synthetic.write(runs / "lr" / "sweep.json", {"elements": [{"run": "0"}]})
    for name in ("0", "1", "2"):
        synthetic.run(runs / "lr" / name, "DONE")
    assert printed(capfd).splitlines()[-1] == "lr        3  3 DONE"


def test_a_sweep_is_one_row_and_its_name_or_array_id_shows_its_table(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    stand_ins.squeue("12_2|PENDING|0:00|1:00:00||Resources|(null)")
    synthetic.run(runs / "alone", "DONE")
    synthetic.write(runs / "lr" / "sweep.json", {"elements": [{"run": name} for name in ("0", "2", "7", "10")]})
    for number, state in ((10, "FAILED"), (2, "QUEUED"), (0, "DONE")):
        settings = {"learning_rate": 0.0012345678901234567 * (1 + number)}
        synthetic.run(runs / "lr" / str(number), state, job=f"12_{number}", settings=settings)
    assert cli.main(["status"]) == 0
    out = capfd.readouterr().out
    assert "lr" not in out.split("\n\n")[0]
    assert out.splitlines()[-2:] == [
        "sweep  runs  states",
        "lr        4  1 DONE, 1 FAILED, 1 QUEUED, 1 not started",
    ]
    for name in ("lr", "runs/lr", "12"):
        assert cli.main(["status", name]) == 0
        rows = [line.split() for line in capfd.readouterr().out.splitlines()[1:]]
        assert [row[:3] for row in rows] == [["0", "12_0", "DONE"], ["2", "12_2", "QUEUED"], ["10", "12_10", "FAILED"]]
    assert "0.001235" in rows[0] and "0.01358" in rows[2]
    assert cli.main(["status", "12_10", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["path"] == "runs/lr/10"
    assert cli.main(["logs", "lr", "--follow"]) == 2
    assert "lr is a sweep of 3 runs: name one, as runs/lr/0" in capfd.readouterr().err


def test_one_run_in_full(runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]) -> None:
    path = synthetic.run(runs / "a", "FAILED", job="7", reason="OutOfMemoryError: CUDA", step=3, steps=9)
    synthetic.log(path, "7", 1, "torch.OutOfMemoryError: CUDA out of memory. Tried\n")
    out = printed(capfd, "a")
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert facts["run"] == "runs/a"
    assert facts["state"] == "FAILED"
    assert facts["step"] == "3/9"
    assert facts["error"] == "rank 1: torch.OutOfMemoryError: CUDA out of memory. Tried"
    assert facts["in"] == "runs/a/jobs/7/7_1_log.err"
    assert "`rerun a -- --max_tokens_per_device 4096`" in facts["try"]


def test_after_a_failed_upload_only_the_upload_is_suggested(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    reason = "UploadFailed: model is complete, but was not uploaded to ada/a (the hub answered 400: rejected)"
    synthetic.run(runs / "a", "FAILED", job="7", reason=reason, step=9, steps=9)
    facts = dict(line.split(maxsplit=1) for line in printed(capfd, "a").splitlines())
    assert (facts["note"], facts["try"]) == (reason, "`rerun a` uploads the model and trains nothing")


def test_an_exit_code_alone_is_explained_by_the_log(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    path = synthetic.run(runs / "a", "FAILED", job="7", reason="exit code 2")
    synthetic.log(path, "7", 0, "error: file not found: x.csv\n")
    assert "exit code 2: rejected: a flag, file, column or label is wrong; error: file not found: x.csv" in printed(
        capfd
    )
    assert "`rerun a -- --flag value`" in printed(capfd, "a")


def test_json_has_the_content_of_the_table(runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]) -> None:
    stand_ins.squeue("9|RUNNING|1:00|59:00|n1|None|(null)")
    synthetic.run(runs / "a", job="9", step=30, steps=100, scores=[SCORE])
    one = json.loads(printed(capfd, "a", "--json"))
    assert (one["state"], one["step"], one["steps"], one["score"]) == ("RUNNING", 30, 100, {"accuracy": 0.9})
    assert (one["job"], one["nodes"], one["settings"]["seed"]) == ("9", "n1", 42)
    assert json.loads(printed(capfd, "--json")) == [one]


def test_an_unreachable_slurm_is_reported_once_below_the_table(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    stand_ins.add("squeue", "echo 'squeue: error: no controller' >&2; exit 1")
    synthetic.run(runs / "a", "QUEUED", job="7")
    synthetic.run(runs / "b", "QUEUED", job="8")
    out = printed(capfd)
    assert out.count("Slurm did not answer") == 3
    assert out.endswith("\nSlurm did not answer: squeue says 'no controller'\n")
    assert len(stand_ins.calls("squeue")) == 1


def test_slurm_is_asked_once_for_all_sweeps_and_its_silence_is_reported(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    stand_ins.add("squeue", "echo 'squeue: error: no controller' >&2; exit 1")
    for name, job in (("lr", 12), ("seeds", 13)):
        synthetic.write(runs / name / "sweep.json", {"elements": []})
        for number in (0, 1):
            synthetic.run(runs / name / str(number), "QUEUED", job=f"{job}_{number}")
    assert printed(capfd).splitlines() == [
        *("sweep  runs  states", "lr        2  2 QUEUED", "seeds     2  2 QUEUED", ""),
        "Slurm did not answer: squeue says 'no controller'",
    ]
    assert len(stand_ins.calls("squeue")) == 1


def test_json_has_the_runs_of_sweeps(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    synthetic.run(runs / "alone", "DONE")
    synthetic.write(runs / "lr" / "sweep.json", {"elements": []})
    for number in (10, 2):
        synthetic.run(runs / "lr" / str(number), "DONE")
    listed = json.loads(printed(capfd, "--json"))
    assert [one["path"] for one in listed] == ["runs/alone", "runs/lr/2", "runs/lr/10"]


def test_accounting_is_queried_only_for_jobs_unknown_to_squeue(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    stand_ins.squeue("9|RUNNING|1:00|59:00|n1|None|(null)")
    stand_ins.sacct("7|TIMEOUT|0:0|n1")
    synthetic.run(runs / "gone", job="7", ago=900)
    synthetic.run(runs / "runs", job="9")
    synthetic.finished(runs / "done", SCORE, job="5")
    out = printed(capfd)
    assert "FAILED" in out and "time limit reached" in out
    assert [call.split("--jobs=")[1] for call in stand_ins.calls("sacct")] == ["7"]
    assert [call.split("--jobs=")[1] for call in stand_ins.calls("squeue")] == ["7,9"]


def test_two_hundred_runs_read_seven_files_each_and_start_two_processes(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str]
) -> None:
    stand_ins.squeue("1000|RUNNING|1:00|59:00|n1|None|(null)")
    stand_ins.sacct()
    for number in range(200):
        state = ("DONE", "RUNNING", "QUEUED", "FAILED")[number % 4]
        synthetic.run(runs / f"run-{number}", state, job=str(1000 + number), reason="x", scores=[SCORE])
    with counting() as counted:
        out = printed(capfd)
    assert len(out.splitlines()) == 201
    assert counted["subprocess.Popen"] == 2
    assert counted["open"] <= 7 * 200


def test_a_name_is_printed_as_it_is(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("e[/x]", "exp [old] :smile:"):
        Path(name).mkdir(parents=True)
        assert printed(capfd, name) == f"no runs in {name}/: start one with `make train` or `make submit`\n"


def test_advice_names_a_run_so_that_it_is_found(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    synthetic.write(runs / "lr" / "sweep.json", {"elements": []})
    for path, named in ((runs / "a", "a"), (runs / "lr" / "3", "runs/lr/3"), (Path("elsewhere"), "elsewhere")):
        synthetic.run(path, "FAILED", reason="NonFiniteLoss: nan")
        assert f": `rerun {named} -- --learning_rate 1e-5`" in printed(capfd, str(path))


def test_json_is_not_watched(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--json", "--watch"]) == 2
    assert capfd.readouterr() == ("", "error: --json prints once: leave out --watch, or repeat `status --json`\n")


def test_a_name_that_is_too_long_is_no_run(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "x" * 300]) == 2
    assert capfd.readouterr().err.startswith("error: no run xxx")


def test_watching_refreshes_until_ctrl_c(
    runs: Path, stand_ins: StandIns, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = synthetic.run(runs / "a", step=1)
    looks = iter((lambda: synthetic.write(path / "status.json", {"state": "DONE"}), None))

    def pause(_: float) -> None:
        if (event := next(looks)) is None:
            raise KeyboardInterrupt
        event()

    monkeypatch.setattr(time, "sleep", pause)
    out = printed(capfd, "--watch")
    assert [line.split()[2] for line in out.splitlines() if line.startswith("a ")] == ["RUNNING", "DONE"]


def test_a_pipe_gets_full_plain_lines_and_may_be_closed(runs: Path, stand_ins: StandIns) -> None:
    for number in range(200):
        synthetic.run(runs / f"run-{number}", "FAILED", reason="x" * 200)
    command = f"{sys.executable} -m launch status | {shutil.which('cat', path='/usr/bin:/bin')}"
    environ = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "FORCE_COLOR": "", "TERM": "xterm"}
    done = subprocess.run(["/bin/sh", "-c", command], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.count("x" * 200) == 200
    assert "\x1b" not in done.stdout and not any(line.endswith(" ") for line in done.stdout.splitlines())
    closed = ["bash", "-c", f"set -o pipefail; {sys.executable} -m launch status | head -1"]
    done = subprocess.run(closed, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_empty_and_a_missing_folder(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert printed(capfd) == "no runs in runs/: start one with `make train` or `make submit`\n"
    runs.rmdir()
    assert printed(capfd) == "no runs in runs/: start one with `make train` or `make submit`\n"


def test_make_passes_the_run(capfd: pytest.CaptureFixture[str]) -> None:
    assert make.status_argv({"RUN": "'a b'"}) == ["status", "a b"]
    assert make.status_argv({}) == ["status"]
    assert make.main({"RUN": "--watch"}, "status") == 2
    assert "RUN must name runs, not flags such as '--watch'" in capfd.readouterr().err
