"""What is imported is declared in pyproject.toml, and what is declared is used."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

from job.data.demo import LIBRARIES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
USED_BY_TORCH = {"tensorboard"}
"""torch.utils.tensorboard is nothing without it."""
NO_TOOL = {"pytest-timeout": "timeout = ", "types-pyyaml": "[tool.mypy]"}
"""Packages that are used by their presence, and where pyproject.toml counts on them."""
TRAINING = (
    "launch/doctor/node.py",
    "launch/runs/compare.py",
    "launch/runs/paired.py",
    "launch/slurm/rendezvous.py",
    "launch/sweeps/importance.py",
    "launch/sweeps/page.py",
)
"""Modules of the launcher that run in the training environment."""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> set[str]:
    """Names of the packages that the base install and these extras require."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    return {normal(re.split(r"[^\w.-]", line)[0]) for line in lines}


def imported(path: Path) -> set[str]:
    """Names of the packages that a module imports, at its beginning or inside a function."""
    return {package for name in modules(ast.parse(path.read_text(encoding="utf-8"))) for package in packages(name)}


def modules(tree: ast.AST) -> Iterator[str]:
    """The top-level names of the imports that are neither ours nor of the standard library."""
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for name in {name.split(".")[0] for name in names}:
            if name not in {*sys.stdlib_module_names, "job", "launch", "tests"}:
                yield name


def packages(module: str) -> set[str]:
    return {normal(name) for name in installed().get(module, [module])}


@cache
def installed() -> Mapping[str, list[str]]:
    """Top-level module -> the packages that bring it: reading that of all packages takes seconds."""
    return metadata.packages_distributions()


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def undeclared(paths: list[Path], among: set[str]) -> dict[str, set[str]]:
    missing = {str(path.relative_to(ROOT)): imported(path) - among for path in paths}
    return {path: names for path, names in missing.items() if names}


@pytest.mark.parametrize(
    ("folders", "extras"), [(("job", "launch"), ("train",)), (("tests",), ("train", "dev"))], ids=str
)
def test_imported_packages_are_declared(folders: tuple[str, ...], extras: tuple[str, ...]) -> None:
    assert undeclared(files(*folders), declared(*extras)) == {}


def test_the_launcher_needs_only_the_base_install() -> None:
    paths = [path for path in files("launch") if str(path.relative_to(ROOT)) not in TRAINING]
    assert undeclared(paths, declared()) == {}


def test_declared_packages_are_used() -> None:
    there = {name for path in files("job", "launch") for name in imported(path)}
    assert declared("train") - there <= USED_BY_TORCH | set(LIBRARIES)


def test_every_tool_is_used() -> None:
    there = {name for path in files("tests") for name in imported(path)}
    pages = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", "pyproject.toml"))
    commands = {"import-linter": "lint-imports", "pytest-xdist": "-n 2", **NO_TOOL}
    tools = declared("dev") - declared("train") - there
    assert {name for name in tools if commands.get(name, f"bin/{name}") not in pages} == set()


def test_an_undeclared_package_is_detected(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("import os\n\n\ndef late():\n    from sklearn import metrics\n    import unheard_of.part\n")
    assert imported(module) == {"scikit-learn", "unheard-of"}
