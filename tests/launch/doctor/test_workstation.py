"""The doctor on one machine: real processes, and real faults."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from pathlib import Path

import pytest

from launch import cli
from launch.doctor import checks, outcome, workstation
from launch.doctor.checks import FAILED, OK, SKIPPED
from tests.support import namespaces
from tests.support.launch import ROOT, Finished, environment, run

DOCTOR = (sys.executable, "-m", "launch", "doctor", "--local")


def doctor(folder: Path, *flags: str, mount: str = "", **environ: str) -> Finished:
    """`muster doctor --local` in `folder`, in a mount namespace of its own where `mount` holds commands."""
    words = [*DOCTOR, *flags]
    if mount:
        words = [*namespaces.command("mount"), "sh", "-c", f"{mount} && exec {shlex.join(words)}"]
    env = environment(folder / "home", PYTHONPATH=str(ROOT), TMPDIR=str(folder)) | environ
    return run(words, env, folder, 300)


def states(done: Finished) -> dict[str, str]:
    return {line["check"]: line["state"] for line in json.loads(done.stdout)}


def test_a_healthy_machine_gets_a_line_for_each_check_and_no_files_remain(tmp_path: Path) -> None:
    done = doctor(tmp_path, "--tasks", "2").expect(0)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ok"] * len(checks.LOCAL), done.stdout
    assert "torch 2." in done.stdout
    assert "2 processes, gloo" in done.stdout
    assert "correct; 67 MB in" in done.stdout
    assert done.stderr == "checks of this machine only\n"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("flag", ["--nodes 2", "--nodes 0", "--wait 60", "--time 30d", "--sbatch=--mem=9G"])
def test_flags_of_a_slurm_job_are_rejected_where_only_this_machine_is_checked(
    flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["doctor", "--local", *flag.split()]) == 2
    line = f"error: {flag.replace('=', ' ', 1)} needs a job on Slurm, and only this machine is checked: remove it"
    assert capfd.readouterr().err.splitlines()[-1] == line


def test_tasks_are_rejected_where_they_would_be_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["doctor", "--local", "--tasks", "0"]) == 2
    assert capfd.readouterr().err.endswith("error: --tasks must be above 0, not 0\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert cli.main(["doctor", "--local", "--gpus", "2", "--tasks", "2"]) == 2
    assert "error: --tasks applies to the CPU only" in capfd.readouterr().err


@pytest.mark.long
def test_small_shared_memory_and_a_full_disk_are_reported_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    mount = f"mount -t tmpfs -o size=64m none /dev/shm && mount -t tmpfs -o size=9m none {tmp_path}/small"
    done = doctor(tmp_path, "--json", mount=mount, TMPDIR=f"{tmp_path}/small").expect(2)
    findings = {line["check"]: line for line in json.loads(done.stdout)}
    assert findings["shm"]["detail"].endswith("/dev/shm has 67 MB free, NCCL needs 128 MB")
    assert findings["shm"]["remedy"].startswith("start the container with more shared memory (--shm-size 8g)")
    assert findings["disk"]["detail"].endswith(f"TMPDIR ({tmp_path}/small) has 9 MB free")
    assert findings["disk"]["remedy"] == "make room there, or set TMPDIR to another folder"
    assert {name for name, line in findings.items() if line["state"] == FAILED} == {"shm", "disk"}
    assert done.stderr.splitlines()[-1].startswith("2 of 7 checks failed; logs are in ")


def test_a_broken_torch_import_is_reported_with_what_shadows_it(tmp_path: Path) -> None:
    (tmp_path / "shadow" / "torch").mkdir(parents=True)
    (tmp_path / "shadow" / "torch" / "__init__.py").write_text("raise ImportError('libcudart.so.13 is missing')")
    done = doctor(tmp_path, PYTHONPATH=f"{ROOT}:{tmp_path}/shadow").expect(2)
    assert "cannot import what trains: ImportError: libcudart.so.13 is missing" in done.stdout
    assert f"remedy: PYTHONPATH is {ROOT}:{tmp_path}/shadow: unset it" in done.stdout
    assert "-       process group  not checked, as environment failed" in done.stdout


def test_an_unwritable_folder_is_the_first_failure(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("", encoding="utf-8")
    done = doctor(tmp_path, "--json").expect(2)
    assert states(done) == {"folder": FAILED} | dict.fromkeys((check.name for check in checks.LOCAL[1:]), SKIPPED)


@pytest.mark.long
def test_a_process_that_hangs_does_not_block_the_doctor(tmp_path: Path) -> None:
    """One of two processes stops at its start; the other may not have progressed far within the time limit."""
    (tmp_path / "site").mkdir()
    stop = f"import os\nif os.environ.get('RANK') == '1':\n    os.kill(os.getpid(), {int(signal.SIGSTOP)})\n"
    (tmp_path / "site" / "sitecustomize.py").write_text(stop, encoding="utf-8")
    env = environment(tmp_path / "home", PYTHONPATH=str(tmp_path / "site"))
    request = workstation.Request(gpus=0, processes=2, folder=tmp_path, seconds=5)
    findings = workstation.run(request, env)
    lines = {line.check.name: line for line in checks.lines(checks.LOCAL, findings, {"environment": 2, "disk": 2})}
    assert lines["environment"].state == FAILED
    assert lines["environment"].detail in ("1 of 2 processes did not answer", "2 of 2 processes did not answer")
    assert {line.state for line in lines.values()} <= {OK, FAILED, SKIPPED}


def test_without_slurm_the_local_checks_run_and_the_output_says_so(tmp_path: Path) -> None:
    words = [word for word in DOCTOR if word != "--local"]
    env = environment(tmp_path / "home", PYTHONPATH=str(ROOT)) | {"PATH": str(tmp_path)}
    done = run([*words, "--dry_run"], env, tmp_path, 60).expect(0)
    assert done.stderr == "checks of this machine only: no Slurm here\n"
    assert len(done.stdout.splitlines()) == len(checks.LOCAL) + 1


def test_ranks_with_another_clock_are_named(tmp_path: Path) -> None:
    """Times that the ranks wrote, against this machine's between submission and now."""
    rank = {"rank": 0, "host": "n1", "time": 1000.0, "findings": []}
    (tmp_path / "rank-0.json").write_text(json.dumps(rank), encoding="utf-8")
    [late] = outcome.of_ranks(tmp_path, 1060.0, 0)
    assert (late.check, late.state, late.detail) == ("clock", FAILED, "at least 60 s behind this machine")
    assert outcome.of_ranks(tmp_path, 1004.0, 0) == []
    rank["time"] = 4e9
    (tmp_path / "rank-0.json").write_text(json.dumps(rank), encoding="utf-8")
    [early] = outcome.of_ranks(tmp_path, 1000.0, 0)
    assert "s ahead of this machine" in early.detail
