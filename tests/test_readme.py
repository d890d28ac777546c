"""README and docs agree with the project: files, links, anchors, commands, flags, and the tests that prove promises."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from job import config
from launch.verbs import VERBS

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
OTHER_PROGRAMS = re.compile(r"\b(docker|pip|torchrun|apptainer|sbatch|scontrol|squeue|sacct|srun|git|pytest)\b")
OTHERS_FLAGS = frozenset(
    (
        *("help", "nproc-per-node", "gpus-per-task", "gpu-bind", "ntasks-per-gpu", "gpus-per-node", "propagate"),
        *("test-only", "parsable", "mem", "exclude", "gres", "no-index", "config_file", "durations"),
        *("cpu", "ipc", "network", "tmpfs", "shm-size", "stop-timeout", "env", "env-file", "init"),
    )
)
"""Flags of sbatch, accelerate, docker and pytest that the pages mention outside of their commands."""


def page(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def commands(text: str) -> Iterator[str]:
    """The lines of shell blocks and the code in backticks, without prompts and comments."""
    blocks = re.findall(r"^```(?:bash|console|shell)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for line in "".join(blocks).replace("\\\n", " ").splitlines():
        yield line.removeprefix("$ ").split("  #")[0].strip()
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def listed(folder: str) -> set[str]:
    """Entries of `folder/` in the tree of docs/architecture.md."""
    block = re.search(rf"^{folder}/ .*\n((?:  \S.*\n)+)", page(ROOT / "docs" / "architecture.md"), re.MULTILINE)
    assert block, f"the tree has no {folder}/"
    return {line.split()[0].rstrip("/") for line in block[1].splitlines()}


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", plain, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def flags_of(verb: str) -> set[str]:
    parser = argparse.ArgumentParser()
    VERBS[verb].add_arguments(parser)
    return {flag for action in parser._actions for flag in action.option_strings}


@pytest.mark.parametrize("folder", ["job", "launch"])
def test_the_tree_lists_exactly_the_tracked_files(folder: str) -> None:
    hidden = {"__init__.py", "__main__.py", "__pycache__", "py.typed"}
    assert listed(folder) == {path.name for path in (ROOT / folder).iterdir()} - hidden


def test_the_readme_is_short() -> None:
    assert len(page(ROOT / "README.md").splitlines()) <= 170


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_and_anchors_resolve(path: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", page(path)):
        file = path.parent / target if target else path
        assert file.exists(), target
        assert not anchor or anchor in anchors(page(file)), f"{target}#{anchor}"


def test_a_wrong_anchor_is_detected() -> None:
    assert anchors("# One page\n```\n# no heading\n```\n## What's `new`?\n") == {"one-page", "whats-new"}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_make_targets_and_variables_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    lists = re.findall(r"^(?:LAUNCHER|TAKES_[a-z-]+) := (.*)", MAKEFILE, re.MULTILINE)
    variables = {"PYTHON", "VENV", *" ".join(lists).split()}
    for command in commands(page(path)):
        if not (match := re.match(r"(?:[A-Z_]+=\S+ )*make ((?:[a-z-]+ ?)+)(.*)", command)):
            continue
        assert set(match[1].split()) <= targets, command
        given = re.findall(r"(?:^|\s)([A-Z_]+)=", re.sub(r'"[^"]*"', '""', match[2]))
        assert set(given) <= variables, command


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_verbs_and_their_flags_exist(path: Path) -> None:
    for command in commands(page(path)):
        if not (match := re.match(r"(?:python -m launch|muster) ([a-z]+)\b(.*)", command)):
            continue
        assert match[1] in VERBS, command
        own = match[2].split(" -- ")[0]
        assert set(re.findall(r"(?<=\s)--?[a-z][\w-]*", own)) <= flags_of(match[1]) | {"--help"}, command


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_job_flags_exist(path: Path) -> None:
    """Flags in prose, and those of the job in commands; other programs' commands are skipped."""
    launcher = {flag.removeprefix("--") for verb in VERBS for flag in flags_of(verb)}
    known = set(config.fields()) | launcher | OTHERS_FLAGS
    for command in commands(page(path)):
        if OTHER_PROGRAMS.search(command):
            continue
        for name in re.findall(r"(?<![\w-])--([A-Za-z][\w-]+)", command):
            assert name in known or name.removeprefix("no_") in known, command


def test_every_command_of_the_readme_is_well_formed() -> None:
    for command in commands(page(ROOT / "README.md")):
        if command.startswith(("make ", "accelerate ", "torchrun ", "python ")):
            shlex.split(command)


def test_every_proof_of_a_promise_is_a_test() -> None:
    named = re.findall(r"`(tests/[\w/.]+\.py)(?:::(\w+))?`", page(ROOT / "docs" / "promises.md"))
    assert len(named) > 15
    for file, test in named:
        tree = ast.parse(page(ROOT / file))
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert any(name.startswith("test_") for name in names)
        assert not test or test in names, f"{file}::{test}"
