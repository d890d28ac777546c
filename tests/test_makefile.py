"""The Makefile: which variables count, and the environment in .venv; the Python here only records its calls."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = """#!/bin/bash
# `-m venv` makes an environment of two more such programs, but fails before pip is there if `no-ensurepip` exists.
echo "$(basename "$0") $*" >> {calls}
case "$*" in
    *"-m venv"*)
        bin="${{@: -1}}/bin"; mkdir -p "$bin"; cp "$0" "$bin/python"; touch "$bin/../pyvenv.cfg"
        [ ! -e {folder}/no-ensurepip ] || exit 1
        cp "$0" "$bin/pip" ;;
    "-m pip --version") [ -e "$(dirname "$0")/pip" ] ;;
    *install*) sleep 0.1 ;;
esac
"""


class Project:
    """A folder with the Makefile, its own Python, and the calls of that."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.venv = folder / ".venv"
        for name in ("Makefile", "pyproject.toml", "requirements.lock"):
            shutil.copy(ROOT / name, folder)
        self.python = folder / "python3"
        self.python.write_text(PYTHON.format(calls=folder / "calls", folder=folder), encoding="ascii")
        self.python.chmod(0o755)

    def start(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
        return subprocess.Popen(
            ["make", f"PYTHON={self.python}", *words],
            cwd=self.folder,
            env={**inherited, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def make(self, *words: str, **environ: str) -> tuple[int, str]:
        """Exit code and output."""
        running = self.start(*words, **environ)
        output, _ = running.communicate(timeout=60)
        return running.returncode, output

    @property
    def calls(self) -> list[str]:
        calls = self.folder / "calls"
        return calls.read_text(encoding="ascii").splitlines() if calls.exists() else []

    @property
    def installs(self) -> int:
        return sum("install" in call for call in self.calls)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_setup_that_failed_before_pip_was_there_can_be_repeated(project: Project) -> None:
    (project.folder / "no-ensurepip").touch()
    assert project.make("setup")[0] == 2
    assert (project.venv / "bin" / "python").exists() and project.installs == 0
    (project.folder / "no-ensurepip").unlink()
    assert project.make("setup")[0] == 0
    assert project.installs == 3 and (project.venv / ".complete").exists()


def test_two_setups_at_once_install_once(project: Project) -> None:
    both = [project.start("setup") for _ in range(2)]
    assert [running.wait(60) for running in both] == [0, 0]
    assert project.installs == 3


@pytest.mark.parametrize("target", ["status", "logs", "cancel", "recipes", "results", "compare", "report"])
def test_what_reads_or_stops_runs_leaves_the_packages_as_they_are(target: str, project: Project) -> None:
    assert project.make("setup")[0] == 0
    before = len(project.calls)
    os.utime(project.folder / "requirements.lock", (2**31, 2**31))
    code, output = project.make(target)
    assert (
        code == 0 and "note: .venv is older than pyproject.toml or requirements.lock: make setup updates it" in output
    )
    assert (
        len(project.calls) == before + 1
        and f"python -m launch{'' if target == 'recipes' else '.make'} {target}" in (project.calls[-1])
    )


@pytest.mark.parametrize("variables", [[], ["RUN=mrpc"]])
def test_they_create_a_missing_environment(variables: list[str], project: Project) -> None:
    assert project.make("status", *variables)[0] == 0
    assert project.installs == 3 and project.calls[-1] == "python -m launch.make status"


def test_a_run_is_started_in_an_environment_that_is_up_to_date(project: Project) -> None:
    assert project.make("setup")[0] == 0
    os.utime(project.folder / "requirements.lock", (2**31, 2**31))
    assert project.make("submit")[0] == 0
    assert project.installs == 6


@pytest.mark.parametrize("target", ["setup", "clean"])
def test_an_exported_environment_of_another_project_is_left_alone(target: str, project: Project) -> None:
    other = project.folder / "other"
    (other / "bin").mkdir(parents=True)
    (other / "pyvenv.cfg").touch()
    project.make("setup")
    assert project.make(target, VENV=str(other))[0] == 0
    assert [path.name for path in sorted(other.rglob("*"))] == ["bin", "pyvenv.cfg"]
    assert project.venv.exists() == (target == "setup")


def test_clean_removes_only_an_environment(project: Project) -> None:
    (project.folder / "data").mkdir()
    code, output = project.make("clean", "VENV=data")
    assert code == 2 and "data is not a Python environment" in output
    assert (project.folder / "data").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "GPU=2"], "unknown variable GPU: use "),
        (["train", "GPUS=2", "RECIP=$(shell touch X)"], "unknown variable RECIP: use "),
        (["submit", "HF_HUB_OFFLINE=1"], "or put it before make if it is meant for the environment"),
        (["clean", "DRY_RUN=1"], "DRY_RUN does not apply to clean"),
        (["image", "DRY_RUN=1"], "DRY_RUN does not apply to image, which takes IMAGE "),
        (["train", "clean", "DRY_RUN=1"], "DRY_RUN does not apply to clean"),
        (["test", "ARGS=x"], "ARGS does not apply to test"),
        (["train", "SHORT=1"], "SHORT does not apply to train"),
    ],
)
def test_a_variable_that_would_be_ignored_is_rejected(words: list[str], message: str, project: Project) -> None:
    code, output = project.make(*words)
    assert code == 2 and message in output
    assert project.calls == [] and not (project.folder / "X").exists()


def test_a_dry_run_from_the_environment_is_rejected_by_a_target_without_one(project: Project) -> None:
    code, output = project.make("clean", DRY_RUN="1")
    assert code == 2 and "DRY_RUN does not apply to clean" in output
    assert project.make("clean", DRY_RUN="0")[0] == 0


@pytest.mark.parametrize(("target", "name"), [("cancel", "RUN"), ("image", "IMAGE"), ("docker-run", "IMAGE")])
def test_an_exported_name_of_a_run_or_image_is_rejected(target: str, name: str, project: Project) -> None:
    code, output = project.make(target, **{name: "mine"})
    assert code == 2 and f"{name} is set in the environment: give it as `make {target} {name}=...`" in output
    assert project.calls == []


def test_the_documented_variables_are_accepted(project: Project) -> None:
    for words in (["fuzz", "SHORT=1"], ["image", "PIP_CERT=a", "BASE_IMAGE=b"], ["submit", "GPUS=4", "TIME=4h"]):
        assert project.make("--dry-run", *words)[0] == 0, words


def test_packages_are_installed_one_after_the_other_also_with_j(project: Project) -> None:
    (project.folder / "apt-get").write_text("#!/bin/sh\necho begin\nsleep 0.1\necho end\n", encoding="ascii")
    (project.folder / "apt-get").chmod(0o755)
    path = f"{project.folder}{os.pathsep}{os.environ['PATH']}"
    code, output = project.make("-j4", "cluster-packages", "report-packages", PATH=path)
    assert code == 0 and output.split() == ["begin", "end"] * (len(output.split()) // 2) != []
