"""The code finds its own files from any working directory, in a checkout, a snapshot or a wheel."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from launch.slurm import snapshot
from tests.support import reports
from tests.support.launch import ROOT, environment
from tests.support.reports import Made

Pytest = pytest.TempPathFactory


@dataclass(frozen=True)
class Place:
    """The location of the code, and how it is started there."""

    root: Path
    """The folder of job/ and launch/."""
    command: tuple[str, ...]
    home: Path
    variables: dict[str, str] = field(default_factory=dict)

    def muster(self, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """The launcher, in a folder of the user's."""
        return self._run([*self.command, *words], cwd)

    def python(self, code: str, cwd: Path) -> str:
        """What a program prints that runs on this code."""
        done = self._run([self.command[0], "-c", code], cwd)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def _run(self, command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
        env = environment(self.home, PYTHONSAFEPATH="1", **self.variables)
        del env["OMP_NUM_THREADS"]
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)


def copied(folder: Path) -> Path:
    """The packages and what is built with them, as in a checkout, without its .env and .git."""
    for name in ("job", "launch"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def checkout(folder: Path) -> Place:
    """Not installed: found by PYTHONPATH."""
    root = copied(folder / "check out")
    return Place(root, (sys.executable, "-m", "launch"), folder / "home", {"PYTHONPATH": str(root)})


def taken(folder: Path) -> Place:
    """A snapshot of this checkout, as a submitted job has one."""
    root = folder / "run" / "code"
    root.parent.mkdir()
    snapshot.copy(snapshot.describe(ROOT), root)
    return Place(root, (sys.executable, "-m", "launch"), folder / "home", {"PYTHONPATH": str(root)})


def wheel(folder: Path) -> Place:
    """Installed in an environment that sees the other packages, and not the checkout."""
    source = folder / "source"
    copied(source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    [built] = folder.glob("muster-*.whl")
    python = folder / "env" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", built], check=True)
    shutil.rmtree(source)
    packages = next((folder / "env" / "lib").glob("python*/site-packages"))
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return Place(packages, (str(python), str(python.with_name("muster"))), folder / "home")


PLACES: dict[str, Callable[[Path], Place]] = {"checkout": checkout, "snapshot": taken, "wheel": wheel}


@pytest.fixture(scope="module", params=["checkout", "wheel", pytest.param("snapshot", marks=pytest.mark.long)])
def place(request: pytest.FixtureRequest, tmp_path_factory: Pytest) -> Place:
    return PLACES[request.param](tmp_path_factory.mktemp(request.param))


def test_recipes_plans_scripts_and_metrics_are_those_of_the_code(place: Place, tmp_path: Path) -> None:
    recipes = place.muster("recipes", cwd=tmp_path)
    assert recipes.returncode == 0, recipes.stderr
    assert {line.split()[0] for line in recipes.stdout.splitlines()} == names("recipes/*.yaml")
    plan = place.muster("local", "mrpc", "--gpus", "0", "--dry_run", cwd=tmp_path)
    assert plan.returncode == 0, plan.stderr
    for file in ("launch/local/accelerate.yaml", "launch/local/wrap_launcher.py", "job/train.py"):
        assert (place.root / file).is_file()
        assert str(place.root / file) in plan.stdout.replace("'", "")
    script = place.muster("submit", "mrpc", "--gpus", "1", "--dry_run", cwd=tmp_path)
    assert script.returncode == 0, script.stderr
    for file in ("requeue.sh", "functions.sh"):
        assert (ROOT / "launch" / "slurm" / file).read_text(encoding="utf-8").strip() in script.stdout
    metrics = place.python("from job.evaluation import metrics; print(metrics.FOLDER)", tmp_path)
    assert Path(metrics) == place.root / "job" / "metrics"
    assert {path.stem for path in Path(metrics).glob("*/*.py")} >= names("metrics/*/*.py")
    assert all((place.root / package / "py.typed").is_file() for package in ("job", "launch"))


def test_the_report_finds_its_template_and_style(place: Place, tmp_path: Path) -> None:
    folder = reports.begun(tmp_path / "run", Made())
    done = place.muster("report", "run", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "run/report.html\n"), done.stderr
    page = folder.report.read_text(encoding="utf-8")
    assert "it has reached step 90 of 100" in page and "@media print" in page


def names(pattern: str) -> set[str]:
    return {path.stem for path in (ROOT / "job").glob(pattern)}


def test_dotenv_of_the_users_folder_comes_before_that_of_the_code(place: Place, tmp_path: Path) -> None:
    def threads() -> str:
        done = place.muster("local", "--tasks", "2", "--gpus", "0", "--dry_run", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return next(word for word in done.stdout.split() if word.startswith("OMP_NUM_THREADS="))

    (place.root / ".env").write_text("OMP_NUM_THREADS=5\n", encoding="ascii")
    assert threads() == "OMP_NUM_THREADS=5"
    (tmp_path / ".env").write_text("OMP_NUM_THREADS=7\n", encoding="ascii")
    assert threads() == "OMP_NUM_THREADS=7"


@pytest.mark.long
@pytest.mark.parametrize("place", ["wheel"], indirect=True)
def test_three_steps_of_the_demo(place: Place, tmp_path: Path) -> None:
    flags = ("--max_steps", "3", "--train_batch_size", "8", "--max_eval_samples", "40", "--output_dir", "out")
    done = place.muster("local", "demo", "--gpus", "0", "--", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert results["train"]["steps"] == 3
    assert results["eval"]["accuracy"] >= 0, "the metrics were found"
