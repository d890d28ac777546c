"""The record of a local job, and its refusal in a folder where another job is active."""

import json
import os
from pathlib import Path

import pytest

from job.config import from_dict
from job.errors import Refused
from launch.local import jobs
from tests.launch.runs import synthetic
from tests.launch.runs.synthetic import StandIns


def test_a_local_job_is_recorded(tmp_path: Path) -> None:
    settings = from_dict({"output_dir": str(tmp_path / "run"), "seed": 3})
    begun = jobs.begin(settings, "demo", ["demo", "--tasks", "2"], 2, {})
    folder = tmp_path / "run" / "jobs" / begun.record.id
    kept = json.loads((folder / "job.json").read_text("utf-8"))
    assert (kept["launcher"], kept["pid"], kept["tasks"], kept["flags"]) == (
        *("local", os.getpid(), 2, ["demo", "--tasks", "2"]),
    )
    assert "seed: 3" in (tmp_path / "run" / kept["config"]).read_text("utf-8")
    assert begun.log == folder / "log.txt"
    assert begun.environment == ()
    begun.discard_if_new()
    assert folder.exists(), "the user's folder"


def test_a_second_job_in_a_folder_in_use_is_rejected_and_leaves_no_record(tmp_path: Path) -> None:
    """Its record would be the newest one: `cancel` and `logs` would not find the job that runs."""
    settings = from_dict({"output_dir": str(tmp_path / "run")})
    first = jobs.begin(settings, "demo", [], 1, {})
    with pytest.raises(
        Refused, match=rf"^another run \(process {os.getpid()}\) is active in {tmp_path}/run: wait until"
    ):
        jobs.begin(settings, "demo", [], 1, {})
    assert [path.name for path in (tmp_path / "run" / "jobs").iterdir()] == [first.record.id]
    record = tmp_path / "run" / first.record.folder / "job.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "process_start": "an earlier process"}))
    jobs.begin(settings, "demo", [], 1, {})


def test_a_local_job_in_the_folder_of_a_queued_slurm_job_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins = StandIns(tmp_path / "bin")
    stand_ins.squeue("8|PENDING|0:00|1:00||Priority|(null)")
    monkeypatch.setenv("PATH", f"{stand_ins.folder}:{os.environ['PATH']}")
    run = synthetic.run(tmp_path / "run", "QUEUED", job="8")
    settings = from_dict({"output_dir": str(run)})
    with pytest.raises(Refused, match=r"^another run \(job 8\) is active"):
        jobs.begin(settings, "demo", [], 1, {})
    stand_ins.add("squeue", "exit 1")
    with pytest.raises(Refused, match=r"^Slurm did not answer \(squeue says 'exit code 1'\): it may have a job for "):
        jobs.begin(settings, "demo", [], 1, {})
    stand_ins.squeue()
    jobs.begin(settings, "demo", [], 1, {})


def test_a_job_in_a_container_is_recorded_as_such(tmp_path: Path) -> None:
    settings = from_dict({"output_dir": str(tmp_path / "run")})
    begun = jobs.begin(settings, "demo", [], 1, {"MUSTER_OWNER": "docker:box:muster-run-1"})
    kept = json.loads((tmp_path / "run" / begun.record.folder / "job.json").read_text("utf-8"))
    assert (kept["launcher"], kept["host"], kept["container"]) == ("docker", "box", "muster-run-1")
