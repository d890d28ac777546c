"""`rerun`: what is launched again, in which folder."""

import json
import os
import re
import socket
from pathlib import Path

import pytest

from job import config
from launch import cli, make
from launch.runs import processes, rerun
from tests.launch.runs import synthetic
from tests.launch.runs.synthetic import StandIns


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The launcher's command lines that rerun would run; none is run."""
    lines: list[list[str]] = []
    whole = cli.main

    def main(argv: list[str]) -> int:
        if argv[0] == "rerun":
            return whole(argv)
        lines.append(list(argv))
        return 0

    monkeypatch.setattr(cli, "main", main)
    return lines


def stopped(path: Path, *flags: str, launcher: str = "slurm", state: str = "STOPPED", job: str = "7") -> Path:
    """A run with the settings of a job that was launched with `flags`."""
    run = synthetic.run(path, state)
    (run / "config.yaml").unlink(missing_ok=True)
    settings = config.to_yaml(config.from_dict({"learning_rate": 2e-5}))
    (run / "jobs" / "submitted").mkdir(parents=True)
    (run / "jobs" / "submitted" / "config.yaml").write_text(settings)
    record = {"id": job, "launcher": launcher, "flags": flags, "config": "jobs/submitted/config.yaml"}
    synthetic.write(run / "jobs" / job / "job.json", record)
    return run.absolute()


def words(line: list[str]) -> tuple[list[str], list[str]]:
    cut = line.index("--")
    return line[:cut], line[cut + 1 :]


def test_the_same_settings_and_flags_in_the_same_folder(
    runs: Path, stand_ins: StandIns, launched: list[list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    stand_ins.squeue()
    run = stopped(runs / "a", "mrpc", "--gpus", "4", "--nodes=2", "--time", "4h", "--sbatch=--mem=64G")
    assert cli.main(["rerun", "a"]) == 0
    own, job = words(launched[0])
    assert own[:2] == ["submit", str(run / "jobs" / "submitted" / "config.yaml")]
    assert own[2:] == ["--gpus=4", "--nodes=2", "--time=4h", "--sbatch=--mem=64G"]
    parsed = config.parse([own[1], *job])
    assert parsed.run.output_dir == str(run)
    assert parsed.training.learning_rate == 2e-5
    assert capfd.readouterr().err == f"starting {run} again with the same settings\n"


def test_a_new_flag_overrides_the_old_one(runs: Path, stand_ins: StandIns, launched: list[list[str]]) -> None:
    stand_ins.squeue()
    stopped(runs / "a", "--gpus", "4", "--time", "4h")
    cli.main(["rerun", "a", "--time", "8h", "--gpus", "0", "--tasks", "2", "--dry_run"])
    assert words(launched[0])[0][2:] == ["--gpus=0", "--time=8h", "--tasks=2", "--dry_run"]


def test_no_wckey_stays_none(runs: Path, stand_ins: StandIns, launched: list[list[str]]) -> None:
    stand_ins.squeue()
    stopped(runs / "a", "--gpus=1", "--wckey=", "--partition=")
    cli.main(["rerun", "a"])
    assert words(launched[0])[0][2:] == ["--gpus=1", "--wckey="]


@pytest.mark.parametrize(("gpus", "flags"), [("2", ["--gpus=2"]), ("0", ["--gpus=0", "--tasks=4"])])
def test_gpus_replace_the_tasks_on_the_cpu(
    gpus: str, flags: list[str], runs: Path, stand_ins: StandIns, launched: list[list[str]]
) -> None:
    stand_ins.squeue()
    stopped(runs / "a", "--gpus", "0", "--tasks", "4", launcher="local")
    cli.main(["rerun", "a", "--gpus", gpus])
    assert words(launched[0])[0][2:] == flags


def test_a_setting_that_changes_the_result_starts_a_new_run_and_is_reported(
    runs: Path, stand_ins: StandIns, launched: list[list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    stand_ins.squeue()
    run = stopped(runs / "mrpc-20260101-101500", "--gpus", "4", state="DONE")
    cli.main(["rerun", "7", "--", "--learning_rate", "3e-5", "--save_steps", "9"])
    own, job = words(launched[0])
    parsed = config.parse([own[1], *job])
    made = Path(str(parsed.run.output_dir))
    assert made.parent == run.parent
    assert re.fullmatch(r"mrpc-\d{8}-\d{6}", made.name) and made != run
    assert (parsed.training.learning_rate, parsed.run.save_steps) == (3e-5, 9)
    assert capfd.readouterr().err == f"changing learning_rate changes the result: starting a new run in {made}\n"


@pytest.mark.parametrize("words", ["--overwrite_output_dir", "--overwrite-output-dir", "--overwrite_output_dir=True"])
def test_a_finished_run_is_started_over_however_the_flag_is_written(
    words: str, runs: Path, stand_ins: StandIns, launched: list[list[str]]
) -> None:
    stand_ins.squeue()
    stopped(runs / "a", state="DONE")
    assert cli.main(["rerun", "a", "--", words]) == 0
    assert launched[0][-1] == words


def trial_of(sweep: Path, *flags: str, chosen: dict[str, float]) -> Path:
    """The stopped run 3 of a search, for which it chose the settings `chosen`."""
    synthetic.write(sweep / "sweep.json", {"elements": []})
    run = stopped(sweep / "3", *flags, job="7_3")
    space = {"learning_rate": {"low": 1e-5, "high": 1e-3}}
    synthetic.write(run / "trial.json", {"search": space, **({"number": 3, "settings": chosen} if chosen else {})})
    if chosen:
        (run / "config.yaml").write_text(config.to_yaml(config.from_dict(chosen)))
    return run


def test_a_changed_trial_keeps_the_settings_that_its_search_chose(
    runs: Path, stand_ins: StandIns, launched: list[list[str]]
) -> None:
    stand_ins.squeue()
    run = trial_of(runs / "lr", "--gpus", "4", chosen={"learning_rate": 3e-4})
    cli.main(["rerun", "runs/lr/3", "--", "--seed", "9"])
    own, job = words(launched[0])
    parsed = config.parse([own[1], *job])
    assert (parsed.training.learning_rate, parsed.training.seed) == (3e-4, 9), "2e-5 is the base of the search"
    made = Path(str(parsed.run.output_dir))
    assert made.parent == run.parent.parent, "the search's results and importance do not count it"
    assert re.fullmatch(r"lr-3-\d{8}-\d{6}", made.name)


def test_an_unchanged_trial_continues_in_its_folder(runs: Path, stand_ins: StandIns, launched: list[list[str]]) -> None:
    stand_ins.squeue()
    run = trial_of(runs / "lr", "--gpus", "4", chosen={"learning_rate": 3e-4})
    cli.main(["rerun", "7_3"])
    parsed = config.parse([words(launched[0])[0][1], *words(launched[0])[1]])
    assert (parsed.training.learning_rate, parsed.run.output_dir) == (3e-4, str(run))


def test_a_trial_without_settings_cannot_be_changed(
    runs: Path, stand_ins: StandIns, launched: list[list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    stand_ins.squeue()
    trial_of(runs / "lr", chosen={})
    assert cli.main(["rerun", "runs/lr/3", "--", "--seed", "9"]) == 2
    assert "is a trial that the search has not given settings yet: rerun it without changes" in capfd.readouterr().err
    assert launched == []


def test_a_setting_that_keeps_the_result_stays_in_the_folder(
    runs: Path, stand_ins: StandIns, launched: list[list[str]]
) -> None:
    stand_ins.squeue()
    run = stopped(runs / "a", "--gpus", "4")
    cli.main(["rerun", "a", "--", "--max_tokens_per_device", "2048"])
    parsed = config.parse([words(launched[0])[0][1], *words(launched[0])[1]])
    assert (parsed.run.output_dir, parsed.training.max_tokens_per_device) == (str(run), 2048)


@pytest.mark.parametrize(("launcher", "verb"), [("local", "local"), ("docker", "docker"), ("slurm", "submit")])
def test_a_run_is_rerun_by_the_launcher_that_started_it(
    launcher: str, verb: str, runs: Path, stand_ins: StandIns, launched: list[list[str]]
) -> None:
    stand_ins.squeue()
    stopped(runs / "a", "--gpus", "0", launcher=launcher)
    cli.main(["rerun", "latest"])
    assert words(launched[0])[0][0] == verb and words(launched[0])[0][2:] == ["--gpus=0"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("rerun done", "done is DONE: change a setting after `--`, or start over with -- --overwrite_output_dir"),
        ("rerun waits", "waits is QUEUED (job 8): `cancel waits` first"),
        ("rerun bare", "bare was not started by this launcher: resume it with accelerate launch job/train.py "),
        ("rerun lost", "lost has no config.yaml, because its job never started"),
        ("rerun done -- --output_dir x", "rerun chooses the run folder itself: remove --output_dir"),
        ("rerun done -- --lerning_rate 1", "unknown flag --lerning_rate; did you mean --learning_rate?"),
        ("rerun none", "no run none"),
        ("rerun", "the following arguments are required: RUN"),
        ("rerun done --learning_rate 1", "--learning_rate is a job flag: put it after `--`"),
    ],
)
def test_invalid_requests_are_rejected(
    line: str,
    message: str,
    runs: Path,
    stand_ins: StandIns,
    launched: list[list[str]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    stand_ins.squeue("8|PENDING|0:00|1:00||Priority|(null)")
    stopped(runs / "done", state="DONE")
    stopped(runs / "waits", state="QUEUED", job="8")
    synthetic.run(runs / "bare")
    (runs / "lost" / "jobs" / "9").mkdir(parents=True)
    assert cli.main(line.split()) == 2
    assert capfd.readouterr().err.startswith(f"error: {message}")
    assert launched == []


def test_a_local_run_that_is_starting_is_not_started_again(
    runs: Path, launched: list[list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    run = stopped(runs / "a", launcher="local")
    record = run / "jobs" / "7" / "job.json"
    who = {"host": socket.gethostname(), "pid": os.getpid(), "process_start": processes.started(os.getpid())}
    synthetic.write(record, {**json.loads(record.read_text()), **who, "time": synthetic.moment(0)})
    assert cli.main(["rerun", "a"]) == 2
    assert capfd.readouterr().err == "error: a is RUNNING (job local): `cancel a` first\n"
    assert launched == []


def test_a_done_run_is_repeated_on_request(runs: Path, stand_ins: StandIns, launched: list[list[str]]) -> None:
    run = stopped(runs / "a", "--gpus", "0", launcher="local", state="DONE")
    cli.main(["rerun", "a", "--", "--overwrite_output_dir"])
    parsed = config.parse([words(launched[0])[0][1], *words(launched[0])[1]])
    assert (parsed.run.output_dir, parsed.run.overwrite_output_dir) == (str(run), True)


def test_folders_created_in_one_second_differ(runs: Path) -> None:
    first = rerun._new_folder(runs / "a")
    first.mkdir()
    assert rerun._new_folder(runs / "a") not in (first, runs / "a")


def test_the_plan_of_a_local_run_is_printed(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Through the whole launcher, without stand-ins."""
    run = stopped(runs / "a", "--gpus", "0", launcher="local")
    values = json.loads((run / "jobs" / "7" / "job.json").read_text())
    table = runs.absolute() / "t.csv"
    table.write_text("text,label\na,b\nc,d\n")
    made = config.from_dict({"train_file": str(table), "validation_file": str(table)})
    (run / values["config"]).write_text(config.to_yaml(made))
    assert cli.main(["rerun", "a", "--dry_run"]) == 0
    out = capfd.readouterr().out
    assert f"{run}/jobs/submitted/config.yaml" in out and f"--output_dir {run}" in out


def test_make_passes_run_flags_and_changes() -> None:
    given = {"RUN": "a", "TIME": "8h", "ARGS": "--seed 3", "DRY_RUN": "1"}
    flags = ["--gpus=", "--nodes=", "--tasks=", "--time=8h", "--partition="]
    assert make.rerun_argv(given) == ["rerun", "a", *flags, "--dry_run", "--", "--seed", "3"]
    assert make.main({"RUN": ""}, "rerun") == 2
