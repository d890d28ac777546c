"""What is installed is whole: from a wheel, in an environment that has no checkout, from a folder of the user's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.launch import ROOT, environment

Muster = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def muster(tmp_path_factory: pytest.TempPathFactory) -> Muster:
    """Calls the installed command in a folder; the environment sees the other packages, and not the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("job", "launch"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    [wheel] = folder.glob("muster-*.whl")
    python = folder / "env" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True)
    shutil.rmtree(source)
    packages = next((folder / "env" / "lib").glob("python*/site-packages"))
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")

    def call(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        env = environment(folder / "home", PYTHONSAFEPATH="1")
        command = [str(folder / "env" / "bin" / "muster"), *words]
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)

    return call


def test_recipes_and_plans_are_found(muster: Muster, tmp_path: Path) -> None:
    recipes = muster("recipes", cwd=tmp_path)
    assert recipes.returncode == 0, recipes.stderr
    for recipe in (ROOT / "job" / "recipes").glob("*.yaml"):
        assert recipe.stem in recipes.stdout
    plan = muster("local", "--gpus", "0", "--dry_run", cwd=tmp_path)
    assert plan.returncode == 0, plan.stderr
    named = [Path(word) for word in plan.stdout.split() if word.endswith(("accelerate.yaml", "train.py"))]
    assert len(named) == 2
    for path in named:
        assert path.is_file() and "site-packages" in path.parts
    job, launch = named[0].parent.parent.parent / "job", named[0].parent.parent.parent / "launch"
    assert (launch / "slurm" / "requeue.sh").is_file()
    assert (job / "py.typed").is_file() and (launch / "py.typed").is_file()


@pytest.mark.long
def test_three_steps_of_the_demo(muster: Muster, tmp_path: Path) -> None:
    flags = ("--max_steps", "3", "--train_batch_size", "8", "--max_eval_samples", "40", "--output_dir", "out")
    done = muster("local", "demo", "--gpus", "0", "--", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert results["train"]["steps"] == 3
    assert results["eval"]["accuracy"] >= 0, "the metrics were found"
