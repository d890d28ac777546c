"""How Slurm's answers are parsed, what is rejected on the login node, and which files remain after a failure."""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from job import config
from job.errors import Refused
from job.runtime import files
from launch import cli, reads, sites
from launch.runs import folders
from launch.sites import Site
from launch.slurm import client, executor, filesystems, offline, queueing, script
from launch.slurm.client import Answer

ROOT = Path(__file__).parents[3]

ANSWERS = {
    "207": Answer("207", ""),
    "207;east": Answer("207", "east"),
    "Estimated cost of this job 3.20 EUR\n207": Answer("207", ""),
    "job 77 is still pending\n\n207;east\n": Answer("207", "east"),
    "Submitted batch job 207\nHave a nice day": Answer("207", ""),
    "Submitted batch job 207 on cluster east": Answer("207", "east"),
    "": None,
    "Your job 207 was queued": None,
    "207\nThank you": None,
    "Estimated cost of this job 3.20 EUR": None,
    "Submitted batch job 207.": None,
}


@pytest.mark.parametrize("text", ANSWERS)
def test_only_a_valid_sbatch_output_is_accepted(text: str) -> None:
    assert client.read_answer(text) == ANSWERS[text]


@pytest.mark.parametrize(
    ("owner", "run", "expected"),
    [
        ("slurm:12_3", "3", "12_3"),
        ("slurm:12", "run", None),
        ("muster:a", "4", "12_4"),
        ("muster:a", "5", None),
        ("muster:b", "run", "7"),
    ],
)
def test_the_job_of_a_run_folder_is_found_by_its_id_or_its_comment(owner: str, run: str, expected: str | None) -> None:
    elements = [client.Job(f"12_{index}", "PENDING", "None", "muster:a") for index in (3, 4)]
    known = client.find_by_owner(owner, run, [*elements, client.Job("7", "RUNNING", "None", "mine muster:b")])
    assert (known.id if known else None) == expected


def test_the_job_of_a_run_folder_is_not_a_later_one_with_its_id() -> None:
    mine, other = "muster:1111111111111111", "muster:2222222222222222"
    jobs = [client.Job("12", "RUNNING", "None", other)]
    assert client.find_by_owner("slurm:12", "run", jobs, mine) is None
    assert client.find_by_owner("slurm:12", "run", jobs, other) == jobs[0]
    assert client.find_by_owner("slurm:12", "run", jobs) == jobs[0], "an older record has no token"


FLAGS = {
    "--cpus-per-task=2": "the launcher has a flag for it, --cpus_per_task",
    "--partition=high": "the launcher has a flag for it, --partition",
    "--part=high": "the launcher has a flag for it, --partition",
    "--nodes=2": "the launcher has a flag for it, --nodes",
    "--gpus=2": "the launcher has a flag for it, --gpus",
    "--gres=gpu:1": "the launcher has a flag for GPUs",
    "--wckey=x": "the launcher has a flag for it, --wckey",
    "--signal=USR1@5": "the launcher has a flag for it, --signal_delay",
    "--gpus-per-task=1": "see only some GPUs of its node",
    "--gpu-bind=single:1": "see only some GPUs of its node",
    "--ntasks-per-gpu=1": "see only some GPUs of its node",
    "--tres-per-task=gres/gpu=1": "see only some GPUs of its node",
    "--no-kill": "the launcher sets this itself, or relies on it",
    "--outp=x": "the launcher sets this itself, or relies on it",
}


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_of_sbatch_that_is_the_launchers_is_rejected_with_it(flag: str) -> None:
    with pytest.raises(Refused, match=FLAGS[flag]):
        script.site_flags(Site(sbatch=flag), "muster:1")


def test_other_flags_and_a_comment_are_passed_on() -> None:
    given = "--mem=64G --exclusive --gres=lscratch:50 --comment=mine --propagate=MEMLOCK"
    assert script.site_flags(Site(sbatch=given), "muster:1") == {
        **{"mem": "64G", "exclusive": True, "gres": "lscratch:50"},
        **{"comment": "mine muster:1", "propagate": "MEMLOCK"},
    }


def test_a_time_limit_within_the_signals_delay_is_rejected() -> None:
    with pytest.raises(Refused, match="--time 1 is within --signal_delay 120"):
        script.resources(Site(time="1"), gpus=1, tasks=None, nodes=1, name="x")
    assert script.resources(Site(time="3"), gpus=1, tasks=None, nodes=1, name="x")["time"] == 3


@pytest.mark.parametrize("setup", ["if true", "echo 'a", "a; )"])
def test_a_setup_that_is_invalid_shell_is_rejected(setup: str) -> None:
    with pytest.raises(Refused, match="is not valid shell code: "):
        script.check_setup(setup)
    script.check_setup("module load cuda && source /x; export A=1 # comment")


def test_a_misspelt_setting_is_rejected_with_the_nearest() -> None:
    with pytest.raises(Refused, match=r"^MUSTER_PARTITON, in the environment or \.env, .*mean MUSTER_PARTITION\?"):
        sites.read({}, {"MUSTER_PARTITON": "gpu"})
    with pytest.raises(Refused, match=r"MUSTER_XYZZY, .* choose one of MUSTER_PARTITION, "):
        sites.read({}, {"MUSTER_XYZZY": "1"})
    shared = {"MUSTER_OWNER": "slurm:1", "MUSTER_THREADS": "1", "MUSTER_PARTITION": "gpu"}
    assert sites.read({}, shared).partition == "gpu"


def test_no_wckey_is_sent_by_default_and_it_may_be_set_or_emptied() -> None:
    assert sites.read({}, {}).wckey == ""
    assert sites.read({}, {"MUSTER_WCKEY": "mine"}).wckey == "mine"
    assert sites.read({"wckey": ""}, {"MUSTER_WCKEY": "mine"}).wckey == ""
    assert sites.read({"partition": ""}, {"MUSTER_PARTITION": "gpu"}).partition == "gpu"


def test_offline_missing_cache_entries_are_rejected(tmp_path: Path) -> None:
    settings = config.from_dict({"model_name_or_path": "org/model", "dataset_name": "org/data"})
    environ = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    with pytest.raises(Refused, match="--model_name_or_path org/model is not in the cache"):
        offline.check(settings, environ)
    for kind, name in (("models", "model"), ("datasets", "data")):
        folder = tmp_path / "hub" / f"{kind}--org--{name}" / "snapshots" / "abc"
        if kind == "datasets":
            with pytest.raises(Refused, match="--dataset_name org/data is not in the cache"):
                offline.check(settings, environ)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}", encoding="ascii")
    offline.check(settings, environ)
    offline.check(config.from_dict({"dataset_name": "docstrings"}), environ)
    offline.check(settings, {"HF_HOME": "/nowhere"})


def test_local_folders_are_distinguished_from_shared_ones(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    lines = ["/dev/sda / ext4 rw 0 0", "shm /dev/shm tmpfs rw 0 0", "server:/x /scratch nfs4 rw 0 0"]
    mounts.write_text("\n".join([*lines, "server:/t /tmp lustre rw 0 0", "tmpfs /in\\040memory tmpfs rw 0 0"]) + "\n")
    paths = [Path(name) for name in ("/home/me", "/dev/shm/x", "/scratch/x", "/tmp/x", "/var/tmp/x", "/in memory/x")]
    assert dict(filesystems.local(paths, mounts)) == {
        Path("/dev/shm/x"): "tmpfs",
        Path("/var/tmp/x"): "/var/tmp",
        Path("/in memory/x"): "tmpfs",
    }


# ---------------------------------------------------------------------------------------------------------------------
# What a container must see


def test_links_are_followed_and_patterns_expanded(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc"
    for folder in (blobs, snapshot, tmp_path / "disk", *(tmp_path / "data" / name for name in "ab")):
        folder.mkdir(parents=True)
    (blobs / "123").write_text("weights", encoding="ascii")
    (snapshot / "model.safetensors").symlink_to("../../blobs/123")
    for name in "ab":
        (tmp_path / "data" / name / "part.csv").write_text("text,label\na,1\n", encoding="ascii")
    (tmp_path / "disk" / "real.csv").write_text("text,label\na,1\n", encoding="ascii")
    (tmp_path / "step.csv").symlink_to(tmp_path / "disk" / "real.csv")
    (tmp_path / "eval.csv").symlink_to("step.csv")
    values = {"model_name_or_path": str(snapshot), "train_file": "data/*/part.csv", "validation_file": "eval.csv"}
    settings = config.from_dict(values)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(tmp_path)
        seen = set(reads.with_links(reads.of_job((), settings, tmp_path)))
    assert seen == {
        *(snapshot, snapshot / "model.safetensors", blobs / "123"),
        *(tmp_path / "data" / name / "part.csv" for name in "ab"),
        *(tmp_path / "eval.csv", tmp_path / "step.csv", tmp_path / "disk" / "real.csv"),
    }


# ---------------------------------------------------------------------------------------------------------------------
# With an sbatch that gives prepared answers


SBATCH = """#!/bin/bash
case "$1" in --test-only) exit 0 ;; esac
%s
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts an sbatch with this body on PATH, together with a squeue that knows no job; returns the folder to work
    in."""

    def make(body: str) -> Path:
        tools = {"sbatch": SBATCH % body, "srun": "#!/bin/sh\n", "squeue": "#!/bin/sh\n", "sleep": "#!/bin/sh\n"}
        for name, text in tools.items():
            (tmp_path / name).write_text(text, encoding="ascii")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        monkeypatch.setattr(client.time, "sleep", lambda _: None)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return make


def test_after_sbatch_started_nothing_is_removed(
    site: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    here = site("echo 'sbatch: error: Invalid qos specification' >&2; exit 1")
    assert cli.main(["submit", "demo", "--gpus=1", "--", "--output_dir", "run"]) == 2
    assert capfd.readouterr().err.endswith("error: Slurm does not take the job: Invalid qos specification\n")
    status = json.loads((here / "run" / "status.json").read_text("utf-8"))
    assert (status["state"], status["reason"]) == ("FAILED", "Slurm does not take the job: Invalid qos specification")
    assert list((here / "run" / "jobs").glob("*.pkl"))


def test_an_unreadable_sbatch_output_is_shown_and_all_files_are_kept(
    site: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    here = site("echo Hello")
    assert cli.main(["submit", "demo", "--gpus=1", "--", "--output_dir", "run"]) == 1
    message = capfd.readouterr().err.splitlines()[-1]
    assert message.startswith(
        "error: whether Slurm took the job is not known: sbatch's answer cannot be read ('Hello')"
    )
    assert json.loads((here / "run" / "status.json").read_text("utf-8"))["state"] == "QUEUED"


def test_a_full_disk_is_reported_and_leaves_existing_files(site: Callable[[str], Path]) -> None:
    """The limit on the size of a file stands in for the disk's."""
    here = site("echo 7")
    (here / "run" / "jobs" / "6").mkdir(parents=True)
    words = [sys.executable, "-m", "launch", "submit", "demo", "--gpus=1", "--", "--output_dir", "run"]
    done = subprocess.run(
        words,
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"error: {here}/run cannot be written: File too large; nothing was queued: make room there, or choose another "
        "--output_dir"
    )
    assert [path.name for path in (here / "run").iterdir()] == ["jobs"]
    assert [path.name for path in (here / "run" / "jobs").iterdir()] == ["6"]


def test_a_run_folder_with_other_settings_is_rejected_before_submission(
    site: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    here = site("echo 7")
    (here / "run").mkdir()
    (here / "run" / "config.yaml").write_text("dataset_name: docstrings\nseed: 5\n", encoding="ascii")
    (here / "run" / "results.json").write_text("{}", encoding="ascii")
    assert cli.main(["submit", "demo", "--gpus=1", "--", "--output_dir", "run"]) == 2
    assert "contains a run with a different " in capfd.readouterr().err
    assert not (here / "run" / "status.json").exists()


SUBMIT = ["submit", "demo", "--gpus=1", "--", "--output_dir", "run"]


def test_the_printed_command_cancels_the_run_from_any_folder(
    site: Callable[[str], Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site("echo 7")
    assert cli.main(["submit", "demo", "--gpus=1", "--", "--output_dir", "an experiment"]) == 0
    [line] = [line for line in capfd.readouterr().out.splitlines() if line.startswith("cancel ")]
    monkeypatch.chdir("/")
    *command, run = shlex.split(line.removeprefix("cancel "))
    assert (command, folders.find(run)) == (["python", "-m", "launch", "cancel"], here / "an experiment")


def test_a_job_whose_id_cannot_be_printed_to_stdout_is_named_on_stderr(
    site: Callable[[str], Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site("echo 7")
    with Path("/dev/full").open("w", encoding="ascii") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert cli.main(SUBMIT) == 0
    err = capfd.readouterr().err
    assert "warning: stdout cannot be written (No space left on device); it would say:\nsubmitted 7\n" in err


def test_variables_that_the_job_would_reject_are_rejected_before_submission(
    site: Callable[[str], Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site("echo 7")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert cli.main(SUBMIT) == 2
    assert "the accelerate configuration enables DeepSpeed (ACCELERATE_USE_DEEPSPEED)" in capfd.readouterr().err
    assert not (here / "run").exists()


def test_sbatch_gets_access_to_the_cluster_and_no_options(
    site: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site("env > seen; echo 7")
    access = {"SLURM_CONF": "/etc/slurm/site.conf", "SLURM_JWT": "token"}
    for name, value in {**access, "SLURM_CLUSTERS": "other", "SBATCH_PARTITION": "debug"}.items():
        monkeypatch.setenv(name, value)
    assert cli.main(SUBMIT) == 0
    seen = [line for line in (here / "seen").read_text("utf-8").splitlines() if line.startswith(("SLURM_", "SBATCH_"))]
    assert sorted(seen) == [f"{name}={value}" for name, value in access.items()]
    assert os.environ["SLURM_CLUSTERS"] == "other"


def test_ctrl_c_during_the_wait_for_a_reason_hides_no_job(
    site: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    here = site("echo 7")
    (here / "squeue").write_text("#!/bin/sh\nkill -INT $PPID; sleep 1; echo '7|PENDING|None|x'\n", encoding="ascii")
    assert cli.main(SUBMIT) == 0
    assert capfd.readouterr().out.startswith("submitted 7\n")


@pytest.mark.parametrize("place", ["executor.JobPaths.move_temporary_file", "queueing.Record.write"])
def test_ctrl_c_after_sbatch_leaves_a_recorded_job(
    place: str, site: Callable[[str], Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site("echo 7")
    owner, _, name = place.rpartition(".")
    module, _, of_class = owner.partition(".")
    changed = getattr({"executor": executor, "queueing": queueing}[module], of_class)
    before = getattr(changed, name)

    def interrupted(*arguments: object, **named: object) -> None:
        signal.raise_signal(signal.SIGINT)
        before(*arguments, **named)

    monkeypatch.setattr(changed, name, interrupted)
    assert cli.main(SUBMIT) == 0
    out, err = capfd.readouterr()
    assert out.startswith("submitted 7\n")
    assert "warning: interrupted too late: the job was queued already; scancel 7 cancels it\n" in err
    assert sorted(path.name for path in (here / "run" / "jobs" / "7").iterdir()) == [
        *("7_submission.sh", "7_submitted.pkl", "job.json")
    ]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_job_that_cannot_be_recorded_is_named(
    site: Callable[[str], Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site("echo '7;east'")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(queueing.Record, "write", full)
    assert cli.main(SUBMIT) == 1
    assert capfd.readouterr().err.splitlines()[-1] == (
        f"error: {here}/run cannot be written: No space left on device, but job 7 is queued: scancel --clusters=east "
        "7, make room and submit again"
    )


@pytest.mark.parametrize("blocked", ["run", "run/jobs"])
def test_a_file_in_the_place_of_a_folder_is_rejected(
    blocked: str, site: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    here = site("echo 7")
    (here / blocked).parent.mkdir(exist_ok=True)
    (here / blocked).write_text("", encoding="ascii")
    assert cli.main(SUBMIT) == 2
    assert f"error: {here / blocked} is in the way (not a folder, or a link to nothing)" in capfd.readouterr().err


def test_a_dangling_link_in_the_place_of_runs_is_rejected(
    site: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    here = site("echo 7")
    (here / "runs").symlink_to("nowhere")
    assert cli.main(["submit", "demo", "--gpus=1"]) == 2
    assert f"error: {here / 'runs'} is in the way (not a folder, or a link to nothing)" in capfd.readouterr().err


def started_before(here: Path, state: str, owner: str) -> None:
    """The run folder of an earlier start, as the job has written it."""
    (here / "run").mkdir()
    files.write_json(here / "run" / "status.json", {"state": state, "owner": owner, "reason": ""})


@pytest.mark.parametrize("state", ["STOPPED", "RUNNING"])
def test_a_job_that_was_requeued_is_not_queued_twice(
    state: str, site: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """It has started before, and the owner of its folder is its id."""
    here = site("touch called; echo 8")
    started_before(here, state, "slurm:7")
    (here / "squeue").write_text("#!/bin/sh\necho '7|PENDING|BeginTime|muster:x'\n", encoding="ascii")
    assert cli.main(SUBMIT) == 2
    assert capfd.readouterr().err.endswith(
        f"error: {here}/run has the job 7 (PENDING): scancel 7 first, or choose another --output_dir\n"
    )
    assert not (here / "called").exists()


@pytest.mark.parametrize("active", [True, False])
def test_no_job_is_queued_into_the_folder_of_an_active_local_run(
    active: bool, site: Callable[[str], Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site("touch called; echo 8")
    started_before(here, "RUNNING", "box:4711")
    monkeypatch.setattr(queueing.lock, "is_active", lambda run: active and run == here / "run")
    assert cli.main(SUBMIT) == (2 if active else 0)
    message = f"error: another run (box:4711) is active in {here}/run: wait until it ends, or choose another"
    assert (message in capfd.readouterr().err) == active
    assert (here / "called").exists() != active


# ---------------------------------------------------------------------------------------------------------------------
# Several clusters

ON_EAST = """#!/bin/sh
case "$*" in *--clusters=east*) echo "CLUSTER: east"; echo "7|PENDING|Resources|$(cat token)" ;; esac
"""
"""squeue of a site whose cluster `east` has the job with the comment in the file `token`."""


@pytest.fixture
def east(site: Callable[[str], Path]) -> Path:
    here = site("sed -n 's/.*--comment=//p' \"${@: -1}\" > token; echo '7;east'")
    (here / "squeue").write_text(ON_EAST, encoding="ascii")
    return here


@pytest.mark.parametrize("recorded", [True, False])
def test_a_job_that_waits_on_another_cluster_is_not_queued_twice(
    recorded: bool, east: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["submit", "demo", "--gpus=1", "--sbatch=--clusters=east", "--", "--output_dir", "run"]
    assert cli.main(words) == 0
    if not recorded:  # as after a kill before it was
        (east / "run" / "jobs" / "7" / "job.json").unlink()
    capfd.readouterr()
    assert cli.main(words) == 2
    assert capfd.readouterr().err.endswith(
        f"error: {east}/run has the job 7 (PENDING): scancel --clusters=east 7 first, or choose another --output_dir\n"
    )
    if recorded:
        assert cli.main(SUBMIT) == 2, "its record says where it waits"


def test_a_run_whose_job_id_is_used_again_can_be_submitted(east: Path) -> None:
    words = ["submit", "demo", "--gpus=1", "--sbatch=--clusters=east", "--", "--output_dir", "run"]
    assert cli.main(words) == 0
    record = json.loads((east / "run" / "jobs" / "7" / "job.json").read_text("utf-8"))
    assert record["token"] == (east / "token").read_text("ascii").strip()
    status = {"state": "STOPPED", "step": 0, "owner": "slurm:7"}
    (east / "run" / "status.json").write_text(json.dumps(status), encoding="utf-8")
    assert cli.main(words) == 2, "its job is still ending"
    (east / "token").write_text("muster:2222222222222222\n", encoding="ascii")
    assert cli.main(words) == 0


def test_a_lost_answer_is_looked_up_on_the_cluster_of_the_job(east: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = (east / "sbatch").read_text("ascii")
    (east / "sbatch").write_text(text.replace("echo '7;east'", "echo Hello"), encoding="ascii")
    words = ["submit", "demo", "--gpus=1", "--sbatch=--clusters=west,east", "--", "--output_dir", "run"]
    assert cli.main(words) == 0
    assert capfd.readouterr().out.startswith("submitted 7\n")
    assert json.loads((east / "run" / "jobs" / "7" / "job.json").read_text("utf-8"))["cluster"] == "east"
