"""The doctor on a real Slurm: its job, and failures planted on the nodes.

The second node has a mount namespace of its own, so a folder can be missing, read-only or full on it alone.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from launch.doctor import job
from launch.doctor.checks import CLUSTER, FAILED, OK, SKIPPED, Problem
from launch.slurm.client import Answer
from tests.cluster.jobs import Work
from tests.cluster.slurm import Cluster

TWO = "--gpus 0 --nodes 2 --tasks 1 --cpus_per_task 1"
ONE = "--gpus 0 --cpus_per_task 1"
FAKED_TIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"


class Report:
    """The output of the doctor."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        assert done.returncode in (0, 2), done.stderr
        self.code, self.stderr = done.returncode, done.stderr
        self.lines = {line["check"]: line for line in json.loads(done.stdout)}
        assert list(self.lines) == [check.name for check in CLUSTER]

    def failed(self, name: str) -> str:
        assert self.lines[name]["state"] == FAILED, self.lines
        assert self.lines[name]["remedy"]
        return self.lines[name]["detail"]

    def states(self) -> dict[str, str]:
        return {name: line["state"] for name, line in self.lines.items()}

    def only(self, *failed: str) -> bool:
        """Whether exactly these failed; checks after them may have been skipped."""
        return {name for name, state in self.states().items() if state == FAILED} == set(failed)


def doctor(
    cluster: Cluster, folder: Path, own: str, *, setup: str = "", before: str = "", **environ: str
) -> subprocess.CompletedProcess[str]:
    """`muster doctor` in `folder`, in a mount namespace of its own where `before` holds commands."""
    words = [sys.executable, "-m", "launch", "doctor", *own.split(), *(["--setup", setup] if setup else [])]
    if before:
        words = ["unshare", "--mount", "sh", "-c", f"{before} && exec {shlex.join(words)}"]
    env = {**Work(folder).environ(cluster), **environ}
    return subprocess.run(words, env=env, cwd=folder, capture_output=True, text=True, timeout=300)


def report(cluster: Cluster, folder: Path, own: str, **more: str) -> Report:
    return Report(doctor(cluster, folder, f"{own} --json", **more))


@contextmanager
def mounted(cluster: Cluster, words: str, place: Path) -> Iterator[None]:
    """A mount that only the second node has."""
    if not place.exists():
        place.mkdir(parents=True)
    cluster.on_second_node(*words.split(), str(place))
    try:
        yield
    finally:
        cluster.on_second_node("umount", "--lazy", str(place))


def test_two_healthy_nodes_pass_every_check(cluster: Cluster, tmp_path: Path) -> None:
    done = doctor(cluster, tmp_path, TWO)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert [state for state, _ in lines] == [OK] * len(CLUSTER), done.stdout
    assert [text for _, text in lines][3] == f"shared folder  {tmp_path}/runs is visible and writable (on n1, n2)"
    assert "2 processes, gloo (on n1, n2)" in done.stdout
    assert "correct; 67 MB in " in done.stdout
    assert not (tmp_path / "runs").exists()


def test_each_of_several_failures_of_a_node_is_reported(cluster: Cluster, tmp_path: Path) -> None:
    """The first node's name does not resolve; the second node has little shared memory and a full disk for HF_HOME."""
    with (
        mounted(cluster, "mount -t tmpfs -o size=64m none", Path("/dev/shm")),
        mounted(cluster, "mount -t tmpfs -o size=16m none", tmp_path / "hf"),
    ):
        result = report(cluster, tmp_path, TWO, MUSTER_MASTER_ADDR="")
    assert result.only("names", "shm", "disk"), result.lines
    assert "the first node's name n1 does not resolve on " in result.failed("names")
    assert result.lines["names"]["remedy"] == "set MUSTER_MASTER_ADDR (--master_addr) to its address"
    assert result.failed("shm") == "n2: /dev/shm has 67 MB free, NCCL needs 128 MB"
    assert result.failed("disk") == f"n2: HF_HOME ({tmp_path}/hf) has 17 MB free"
    assert result.states()["process group"] == SKIPPED
    assert "3 of 12 checks failed; logs are in " in result.stderr


def test_unreachable_processes_are_reported(cluster: Cluster, tmp_path: Path) -> None:
    result = report(cluster, tmp_path, TWO, MUSTER_MASTER_ADDR="255.255.255.255")
    assert result.only("process group"), result.lines
    assert "rank 0 listens at 255.255.255.255" in result.failed("process group")
    assert result.lines["all-reduce"]["detail"] == "not checked, as process group failed"


def test_gpus_invisible_to_torch_are_reported(cluster: Cluster, tmp_path: Path) -> None:
    """Those of the test's cluster are plain files."""
    result = report(cluster, tmp_path, "--gpus 1 --cpus_per_task 1")
    assert result.only("GPU"), result.lines
    assert "1 GPUs were asked for and torch sees 0" in result.failed("GPU")


def test_wrong_clocks_are_reported(cluster: Cluster, tmp_path: Path) -> None:
    """The second node's is faked by libfaketime for the job's processes: nodes that share a kernel share its clock."""
    assert Path(FAKED_TIME).exists(), "libfaketime is not installed (make cluster-packages)"
    for name, offset in (("right", "+0s"), ("ahead", "+90s")):
        (tmp_path / name).write_text(offset, encoding="ascii")
    setup = f"export LD_PRELOAD={FAKED_TIME} FAKETIME_TIMESTAMP_FILE={tmp_path}/right"
    with mounted(cluster, f"mount --bind {tmp_path}/ahead", tmp_path / "right"):
        result = report(cluster, tmp_path, TWO, setup=setup)
    assert result.only("clock"), result.lines
    assert "n2: 90 s ahead of rank 0" in result.failed("clock"), result.lines
    assert "s ahead of this machine" in result.failed("clock")
    assert "n1: " not in result.failed("clock")
    assert "NTP" in result.lines["clock"]["remedy"]


# ---------------------------------------------------------------------------------------------------------------------
# Before Python


def test_a_folder_invisible_to_the_nodes_is_reported(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    own = f"{TWO} --json"
    done = doctor(cluster, tmp_path, own, before=f"mount -t tmpfs none {tmp_path}/here && cd {tmp_path}/here")
    result = Report(done)
    assert result.only("shared folder"), result.lines
    assert f"n1: {tmp_path}/here/runs is not on this node, which is on this machine's own disk" in result.failed(
        "shared folder"
    )
    assert result.states()["environment"] == SKIPPED


@pytest.mark.parametrize(
    ("mount", "place", "check", "message"),
    [
        ("mount -t tmpfs none", "runs", "shared folder", "n2: {folder}/runs/.doctor-"),
        ("mount -o bind,ro {folder}/runs", "runs", "shared folder",
         "n2: the folder of the runs cannot be written here: Read-only file system"),
        ("mount -t tmpfs none", "{prefix}/bin", "environment",
         "n2: the Python environment {python} is not on this node"),
    ],
)  # fmt: skip
def test_files_missing_on_the_second_node_are_reported(
    mount: str, place: str, check: str, message: str, cluster: Cluster, tmp_path: Path
) -> None:
    names = {"folder": tmp_path, "prefix": sys.prefix, "python": sys.executable}
    (tmp_path / "runs").mkdir()
    with mounted(cluster, mount.format(**names), tmp_path / place.format(**names)):
        result = report(cluster, tmp_path, TWO)
    assert result.only(check), result.lines
    assert result.failed(check).startswith(message.format(**names))


@pytest.mark.parametrize("own", [TWO, f"{ONE} --sbatch=--nodelist=n2"])
def test_a_folder_that_is_not_shared_is_reported(own: str, cluster: Cluster, tmp_path: Path) -> None:
    """The second node sees all that others write, and what it writes stays with it: an overlay."""
    folders = [tmp_path / name for name in ("runs", "upper", "work")]
    for folder in folders:
        folder.mkdir()
    runs, upper, work = folders
    overlay = f"mount -t overlay -o lowerdir={runs},upperdir={upper},workdir={work} none"
    with mounted(cluster, overlay, runs):
        result = report(cluster, tmp_path, own)
    assert result.only("shared folder"), result.lines
    assert result.failed("shared folder") == f"n2: what it writes into {runs} is not visible elsewhere"


def test_missing_container_images_are_reported(cluster: Cluster, tmp_path: Path) -> None:
    """No runtime, no image, an image without Python."""
    path = cluster.environ["PATH"]
    own = f"{ONE} --container apptainer --image"
    result = report(cluster, tmp_path, f"{own} {tmp_path}/none.sif", PATH=path)
    assert result.only("environment"), result.lines
    assert result.failed("environment").startswith("n1: apptainer is not on PATH (")
    path = f"{Path(__file__).parent}:{path}"
    result = report(cluster, tmp_path, f"{own} {tmp_path}/none.sif", PATH=path)
    assert result.only("environment"), result.lines
    assert result.failed("environment") == f"n1: the image {tmp_path}/none.sif is not on this node"
    (tmp_path / "image.txt").write_text("/usr\n", encoding="ascii")
    result = report(cluster, tmp_path, f"{own} {tmp_path}/image.txt", PATH=f"{path}:/nowhere")
    assert result.only("environment"), result.lines
    assert result.failed("environment").startswith("Python did not start: ")


def test_a_setup_that_fails_or_breaks_the_environment_is_reported(cluster: Cluster, tmp_path: Path) -> None:
    result = report(cluster, tmp_path, ONE, setup="module load nothing && export A=1")
    assert result.only("environment"), result.lines
    assert "a command of --setup failed, exit code 127" in result.failed("environment")
    assert result.lines["environment"]["remedy"] == "correct --setup (MUSTER_SETUP)"
    (tmp_path / "shadow" / "torch").mkdir(parents=True)
    (tmp_path / "shadow" / "torch" / "__init__.py").write_text("raise ImportError('libcudart.so.13 is missing')")
    result = report(cluster, tmp_path, ONE, setup=f"export PYTHONPATH={tmp_path}/shadow")
    assert result.only("environment"), result.lines
    assert "cannot import what trains: ImportError: libcudart.so.13 is missing" in result.failed("environment")
    assert result.lines["environment"]["remedy"].startswith(f"PYTHONPATH is {tmp_path}/shadow: unset it; ")


# ---------------------------------------------------------------------------------------------------------------------
# Before the job


def test_a_job_that_does_not_start_is_cancelled(cluster: Cluster, tmp_path: Path) -> None:
    for node in ("n1", "n2"):
        cluster.run("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
    try:
        result = report(cluster, tmp_path, f"{ONE} --wait 4")
    finally:
        for node in ("n1", "n2"):
            cluster.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
    assert result.only("job"), result.lines
    assert "did not start within 4 s and was cancelled: it " in result.failed("job")
    assert result.lines["request"]["detail"].endswith("but cannot start now: n1 drain, n2 drain")
    number = result.failed("job").split()[1]
    assert cluster.state(number) == "CANCELLED"


def test_a_job_that_does_not_end_is_cancelled(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 600")
    number = cluster.run(*words).strip()
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.environ[name])
    with pytest.raises(Problem, match=f"job {number} did not end in time and was cancelled"):
        job.wait(Answer(number, ""), 60, print, limit=1)
    assert cluster.end(number) == "CANCELLED"


def test_a_submission_rejected_by_sbatch_is_reported(cluster: Cluster, tmp_path: Path) -> None:
    """A site's limits may be checked by sbatch alone, not by --test-only."""
    site = tmp_path / "site"
    site.mkdir()
    script = '#!/bin/bash\n[[ "$*" != *--test-only* ]] || exit 0\necho "sbatch: error: QOSMaxSubmitJob" >&2; exit 1\n'
    (site / "sbatch").write_text(script, encoding="ascii")
    (site / "sbatch").chmod(0o755)
    result = report(cluster, tmp_path, ONE, PATH=f"{site}:{cluster.environ['PATH']}")
    assert result.only("job"), result.lines
    assert result.failed("job") == "Slurm does not take the job: QOSMaxSubmitJob"


def test_an_invalid_request_is_reported_with_the_available_partitions(cluster: Cluster, tmp_path: Path) -> None:
    result = report(cluster, tmp_path, f"{ONE} --partition nowhere")
    assert result.only("request"), result.lines
    assert "invalid partition specified: nowhere" in result.failed("request")
    assert "low (2 nodes, gpu:2, 1:00:00)" in result.lines["request"]["remedy"]
    too_many = report(cluster, tmp_path, "--gpus 3 --cpus_per_task 1")
    assert too_many.only("request"), too_many.lines


def test_missing_commands_and_an_unreachable_controller_are_reported(cluster: Cluster, tmp_path: Path) -> None:
    missing = report(cluster, tmp_path, ONE, PATH=str(Path(sys.executable).parent))
    assert missing.only("tools"), missing.lines
    assert missing.failed("tools").startswith("not on PATH: sbatch, srun, ")
    conf = (cluster.folder / "slurm.conf").read_text(encoding="ascii")
    lines = [line for line in conf.splitlines() if not line.startswith("SlurmctldPort")]
    (tmp_path / "slurm.conf").write_text("\n".join([*lines, "SlurmctldPort=9", "MessageTimeout=2"]), encoding="ascii")
    dead = report(cluster, tmp_path, ONE, SLURM_CONF=str(tmp_path / "slurm.conf"))
    assert dead.only("tools"), dead.lines
    assert "scontrol ping" in dead.lines["tools"]["remedy"]


def test_a_dry_run_prints_the_checks_and_the_script(cluster: Cluster, tmp_path: Path) -> None:
    done = doctor(cluster, tmp_path, f"{TWO} --dry_run")
    assert done.returncode == 0, done.stderr
    assert [line.split("  ")[0] for line in done.stdout.splitlines()][: len(CLUSTER)] == [
        f"# {c.name}" for c in CLUSTER
    ]
    assert "#SBATCH --nodes=2" in done.stdout
    assert not (tmp_path / "runs").exists()
