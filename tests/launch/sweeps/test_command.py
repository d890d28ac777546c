"""The verb `sweep`: what it prints before it starts anything, what it queues, and what it leaves alone.

To update the golden files: `UPDATE_GOLDEN=1 pytest tests/launch/sweeps/test_command.py`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from job import config
from job.run.space import Choices, Range, Space
from job.runtime import files
from launch import cli, make
from launch.local.command import Machine
from launch.local.gpus import Gpus
from launch.runs.slurm import SQUEUE_HEADER
from launch.sweeps import sweep as sweeps
from launch.sweeps import workstation
from launch.sweeps.sweep import Sweep
from tests.support import golden

GOLDEN = Path(__file__).parent / "golden"
DEMO = config.from_dict({"output_dir": "/sweeps/mine"}, base=config.load_recipe("demo"))
GRID = {"learning_rate": (2e-5, 5e-5), "lr_scheduler_type": ("linear", "cosine"), "seed": (1, 2)}
SPACE: Space = {"learning_rate": Range(1e-5, 1e-3, log=True), "weight_decay": Range(0.0, 0.1), "seed": Choices((1, 2))}


def started_here(made: Sweep, gpus: int) -> str:
    machine = Machine(Gpus(gpus), cores=8, omp_num_threads="")
    return str(workstation.schedule(made, made.elements, gpus=None, tasks=None, parallel=2, machine=machine))


@pytest.mark.parametrize("name", ["grid", "search"])
def test_the_plan_equals_the_golden_file(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    made = sweeps.grid(DEMO, "demo", GRID) if name == "grid" else sweeps.trials(DEMO, "demo", SPACE, 3)
    text = f"{made}\n{started_here(made, 4 if name == 'grid' else 0)}\n"
    text = text.replace(sys.executable, "<python>").replace(f"{workstation.PROGRAM.parents[1]}/", "<code>/")
    golden.check(GOLDEN / f"{name}.txt", text)


def test_make_variables_become_arguments() -> None:
    environ = {"RECIPE": "mrpc", "GRID": "learning_rate=2e-5,5e-5 seed=1,2", "PARALLEL": "4", "GPUS": "1", "LOCAL": "1"}
    assert make.sweep_argv({**environ, "ARGS": "--max_steps 9"}) == [
        *("sweep", "--local", "mrpc", "--grid=learning_rate=2e-5,5e-5 seed=1,2", "--search=", "--trials="),
        *("--parallel=4", "--gpus=1", "--nodes=", "--tasks=", "--time=", "--partition=", "--", "--max_steps", "9"),
    ]


# ---------------------------------------------------------------------------------------------------------------------
# With stand-ins for Slurm's programs

SBATCH = """#!/bin/sh
[ "$1" = --parsable ] || { %(test)s; exit; }
echo once >> %(here)s/asked
%(queue)s
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in; sbatch takes everything as job 12, and squeue knows nothing."""
    slurm(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def slurm(
    folder: Path, *, test: str = "exit 0", queue: str = "echo 12", squeue: str = f"echo '{SQUEUE_HEADER}'"
) -> None:
    programs = {
        "sbatch": SBATCH % {"here": folder, "test": test, "queue": queue},
        "squeue": f"#!/bin/sh\n{squeue}\n",
        "sacct": "#!/bin/sh\necho 'JobID|State|ExitCode|NodeList'\n",
        "srun": "#!/bin/sh\n",
    }
    for name, text in programs.items():
        (folder / name).write_text(text, encoding="ascii")
        (folder / name).chmod(0o755)


SWEEP = ["sweep", "demo", "--gpus=1", "--grid", "seed=1,2,3", "--parallel=2"]
MINE = ["--", "--output_dir", "mine"]


def test_one_array_is_queued_with_a_run_folder_for_each_element(
    cluster: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*SWEEP, *MINE]) == 0
    out = capfd.readouterr().out
    assert "submitted 12: 3 runs: 0, 1, 2, 2 at a time\n" in out
    assert (cluster / "asked").read_text() == "once\n"
    [script] = (cluster / "mine" / "0" / "jobs" / "12_0").glob("12_submission.sh")
    assert "#SBATCH --array=0-2%2\n" in script.read_text()
    for number in range(3):
        run = cluster / "mine" / str(number)
        record = json.loads((run / "jobs" / f"12_{number}" / "job.json").read_text())
        assert record["id"] == f"12_{number}" and record["flags"] == ["--gpus=1"]
        assert config.load_recipe(str(run / record["config"])).training.seed == number + 1
        assert json.loads((run / "status.json").read_text())["state"] == "QUEUED"
        assert (run / "jobs" / f"12_{number}" / f"12_{number}_submitted.pkl").is_file()
    assert not list((cluster / "mine").glob("*.pkl"))


def test_only_missing_or_failed_runs_are_submitted_again(cluster: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*SWEEP, *MINE]) == 0
    rows = [
        f"12_{number}|{state}|0:00|1:00:00||None|(null)"
        for number, state in enumerate(("PENDING", "RUNNING", "FAILED"))
    ]
    slurm(cluster, squeue="\n".join(f"echo '{row}'" for row in (SQUEUE_HEADER, *rows)), queue="echo 13")
    capfd.readouterr()
    assert cli.main([*SWEEP, *MINE]) == 0
    out = capfd.readouterr().out
    assert "existing  1 QUEUED, 1 RUNNING\n" in out and "submitted 13: 1 run: 2\n" in out
    assert (cluster / "mine" / "2" / "jobs" / "13_2" / "job.json").is_file()
    states = {0: ("DONE", ""), 1: ("DONE", "pruned"), 2: ("NEEDS_HUMAN", "")}
    for number, (state, reason) in states.items():
        files.write_json(cluster / "mine" / str(number) / "status.json", {"state": state, "reason": reason})
    capfd.readouterr()
    assert cli.main([*SWEEP, *MINE]) == 0
    assert "existing  2 DONE, 1 NEEDS_HUMAN\nnothing to start" in capfd.readouterr().out
    assert (cluster / "asked").read_text() == "once\nonce\n"


def test_without_an_answer_of_slurm_nothing_is_submitted_twice(
    cluster: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*SWEEP, *MINE]) == 0
    slurm(cluster, squeue="echo 'cannot reach the controller' >&2; exit 1")
    assert cli.main([*SWEEP, *MINE]) == 2
    assert "error: Slurm did not answer (squeue says 'cannot reach the controller')" in capfd.readouterr().err
    assert (cluster / "asked").read_text() == "once\n"


def test_an_interrupted_submission_is_found_by_its_comment(cluster: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As after a kill between sbatch and the records: the elements that Slurm has are left alone."""
    assert cli.main([*SWEEP, *MINE]) == 0
    for record in (cluster / "mine").glob("*/jobs/12_*/job.json"):
        record.unlink()
        for path in record.parent.iterdir():
            path.unlink()
        record.parent.rmdir()
        record.parent.parent.rmdir()
    token = json.loads((cluster / "mine" / "0" / "status.json").read_text())["owner"]
    slurm(cluster, squeue=f"echo '12_0|PENDING|None|{token}'; echo '12_1|RUNNING|None|{token}'", queue="echo 13")
    capfd.readouterr()
    assert cli.main([*SWEEP, *MINE]) == 0
    assert "submitted 13: 1 run: 2\n" in capfd.readouterr().out


def test_a_sweep_rejected_by_slurm_leaves_no_files(cluster: Path, capfd: pytest.CaptureFixture[str]) -> None:
    slurm(cluster, test="echo 'sbatch: error: invalid partition specified: x' >&2; exit 1")
    assert cli.main([*SWEEP, *MINE]) == 2
    assert "error: Slurm does not take the job: invalid partition specified: x\n" in capfd.readouterr().err
    assert not (cluster / "mine").exists()


def test_runs_of_a_sweep_are_kept_when_slurm_rejects_more_of_them(
    cluster: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*SWEEP, *MINE]) == 0
    for number in range(3):
        files.write_json(cluster / "mine" / str(number) / "status.json", {"state": "FAILED", "reason": ""})
    for folder in (cluster / "mine").glob("submitted-*"):  # as after the user has tidied up
        files.remove(folder)
    before = sorted((cluster / "mine").rglob("*"))
    slurm(cluster, test="echo 'sbatch: error: invalid partition specified: x' >&2; exit 1")
    assert cli.main([*SWEEP, *MINE]) == 2
    assert "error: Slurm does not take the job: invalid partition specified: x\n" in capfd.readouterr().err
    assert sorted((cluster / "mine").rglob("*")) == before


def test_a_sweep_rejected_when_it_is_queued_keeps_the_files_of_its_runs(
    cluster: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """sbatch was called: the log of what it got is with the runs."""
    slurm(cluster, queue="echo 'sbatch: error: Invalid qos specification' >&2; exit 1")
    assert cli.main([*SWEEP, *MINE]) == 2
    assert "error: Slurm does not take the job: Invalid qos specification\n" in capfd.readouterr().err
    assert [json.loads((cluster / "mine" / str(n) / "status.json").read_text())["state"] for n in range(3)] == (
        ["FAILED"] * 3
    )


REJECTED = {
    "sweep demo --gpus=1": "give either --grid 'learning_rate=2e-5,5e-5 seed=1,2,3' or --search",
    "sweep demo --gpus=1 --grid seed=1 --search seed=1..2": "give either --grid",
    "sweep demo --gpus=1 --grid seed=1 --trials 3": "--trials is for --search",
    "sweep demo --gpus=1 --search seed=1..2": "--search needs --trials N",
    "sweep demo --gpus=1 --grid seed=1 --parallel 0": "--parallel must be above 0, not 0",
    "sweep demo --grid seed=1": "say how many GPUs a node has",
    "sweep demo --gpus=1 --grid seed=1 -- --train_file no.csv": "--dataset_name cannot be combined with --train_file",
    "sweep demo --local --time 4h --grid seed=1": "--time is for Slurm, and this sweep runs on this machine",
    "sweep demo --local --gpus 1 --grid seed=1": "--gpus 1: only 0 are visible",
}


@pytest.mark.parametrize("line", REJECTED)
def test_a_bad_request_is_rejected_before_anything_is_written(
    line: str, cluster: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sorted(cluster.iterdir())
    assert cli.main(line.split()) == 2
    assert f"error: {REJECTED[line]}" in capfd.readouterr().err
    assert sorted(cluster.iterdir()) == before


def test_a_dry_run_shows_the_elements_and_the_script_and_writes_nothing(
    cluster: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sorted(cluster.iterdir())
    assert cli.main([*SWEEP, "--dry_run", *MINE]) == 0
    out = capfd.readouterr().out
    assert "# 1  seed=2\n" in out and "#SBATCH --array=0-2%2\n" in out
    assert sorted(cluster.iterdir()) == before


def test_a_sweep_above_the_clusters_array_size_is_rejected_with_it(
    cluster: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    slurm(
        cluster, test="echo 'sbatch: error: Batch job submission failed: Invalid job array specification' >&2; exit 1"
    )
    (cluster / "scontrol").write_text("#!/bin/sh\necho 'MaxArrayCount = 7'\necho 'MaxArraySize            = 3'\n")
    (cluster / "scontrol").chmod(0o755)
    assert cli.main(["sweep", "demo", "--grid", "seed=1,2,3,4", "--gpus", "1"]) == 2
    assert "must be below MaxArraySize (3) here: split it into several sweeps\n" in capfd.readouterr().err
    assert not (cluster / "asked").exists()


SEARCH_MODELS = ["sweep", "demo", "--search", "model_name_or_path=one,two", "--trials", "2", "--gpus", "1"]


def test_the_models_of_a_search_are_mounted(
    cluster: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [cluster / "disk" / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir(parents=True)
        (cluster / folder.name).symlink_to(folder)
        (folder / "config.json").write_text('{"model_type": "bert"}', encoding="ascii")
        (folder / "model.safetensors").touch()
    (cluster / "image.sif").touch()
    (cluster / "work").mkdir()
    monkeypatch.setenv("MUSTER_CONTAINER", "apptainer")
    monkeypatch.setenv("MUSTER_IMAGE", str(cluster / "image.sif"))
    monkeypatch.chdir("work")
    words = [word.replace("one,two", f"{cluster}/one,{cluster}/two") for word in SEARCH_MODELS]
    assert cli.main([*words, "--dry_run", "--", "--output_dir", str(cluster / "mine")]) == 0
    out = capfd.readouterr().out
    assert [f",{folder}," in out for folder in folders] == [True, True]


def test_a_search_over_models_that_are_not_in_the_cache_is_rejected_offline(
    cluster: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(cluster / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = [word.replace("one,two", "org/one,org/two") for word in SEARCH_MODELS]
    snapshot = cluster / "home" / "hub" / "models--org--one" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"model_type": "bert"}', encoding="ascii")
    assert cli.main(words) == 2
    assert "--model_name_or_path org/two is not in the cache" in capfd.readouterr().err
    assert not (cluster / "asked").exists()


def test_a_sweep_is_rerun_logged_and_cancelled_by_its_folder(cluster: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*SWEEP, *MINE]) == 0
    for number, state in enumerate(("DONE", "FAILED", "QUEUED")):
        run = cluster / "mine" / str(number)
        files.write_json(run / "status.json", {"state": state, "step": 0, "reason": ""})
        (run / "jobs" / f"12_{number}" / f"12_{number}_0_log.out").write_text(f"line of {number}\n")
    slurm(cluster, squeue=f"echo '{SQUEUE_HEADER}'; echo '12_2|PENDING|0:00|1:00:00||None|(null)'", queue="echo 13")
    capfd.readouterr()
    assert cli.main(["logs", "mine"]) == 0
    assert [line for line in capfd.readouterr().out.splitlines() if "mine/1" in line or "line of" in line] == [
        "line of 0",
        "==> mine/1 <== FAILED",
        "line of 1",
        "line of 2",
    ]
    assert cli.main(["rerun", "mine", "--time", "8h"]) == 0
    assert "submitted 13: 1 run: 1\n" in capfd.readouterr().out
    [script] = (cluster / "mine" / "1" / "jobs" / "13_1").glob("13_submission.sh")
    assert "#SBATCH --array=1%1\n" in script.read_text() and "#SBATCH --time=480\n" in script.read_text()
    assert cli.main(["rerun", "mine", "--", "--seed", "9"]) == 2
    assert "mine is a sweep, and its settings are fixed: name one of its runs, as mine/0" in capfd.readouterr().err
    token = json.loads((cluster / "mine" / "2" / "jobs" / "12_2" / "job.json").read_text())["token"]
    row = f"12_2|PENDING|0:00|1:00:00||None|{token}"
    slurm(cluster, squeue=f"echo '{SQUEUE_HEADER}'; [ -e {cluster}/cancelled ] || echo '{row}'")
    (cluster / "scancel").write_text(f'#!/bin/sh\necho "$*" >> {cluster}/cancelled\n')
    (cluster / "scancel").chmod(0o755)
    assert cli.main(["cancel", "mine"]) == 0
    assert (cluster / "cancelled").read_text() == "12_2\n"
    assert json.loads((cluster / "mine" / "2" / "status.json").read_text())["state"] == "CANCELLED"
    assert json.loads((cluster / "mine" / "0" / "status.json").read_text())["state"] == "DONE"
