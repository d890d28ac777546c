"""The tests' own order, and the size of functions: helpers live in tests/support, our deprecated calls are errors."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def imported(path: Path) -> set[str]:
    """The dotted names that a module imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_no_module_imports_a_test_module() -> None:
    there = [path for folder in ("job", "launch", "tests") for path in (ROOT / folder).rglob("*.py")]
    wrong = [(path, name) for path in there for name in imported(path) if name.split(".")[-1].startswith("test_")]
    assert wrong == []


def deprecated() -> None:
    """Of a library."""
    warnings.warn("use another", DeprecationWarning, stacklevel=2)


@pytest.mark.parametrize("caller", ["job.model.packing", "launch", "tests.test_structure"])
def test_a_deprecated_call_in_our_code_is_an_error(caller: str) -> None:
    with pytest.raises(DeprecationWarning):
        exec("deprecated()", {"__name__": caller, "deprecated": deprecated})


@pytest.mark.parametrize("caller", ["joblib.parallel", "numpy", "transformers.job"])
def test_a_deprecated_call_in_a_library_is_not(caller: str) -> None:
    exec("deprecated()", {"__name__": caller, "deprecated": deprecated})


def test_functions_have_at_most_60_lines_and_7_parameters() -> None:
    for function, where in functions():
        arguments = function.args
        parameters = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        lines = (function.end_lineno or 0) - function.lineno + 1
        assert lines <= 60, f"{where} has {lines} lines"
        assert sum(one.arg not in ("self", "cls") for one in parameters) <= 7, (
            f"{where} has {len(parameters)} parameters"
        )


def functions() -> list[tuple[ast.FunctionDef | ast.AsyncFunctionDef, str]]:
    """Every function of job and launch, and where it is; job/metrics holds modules in the style of `evaluate`."""
    functions = []
    for path in (path for room in ("job", "launch") for path in (ROOT / room).rglob("*.py")):
        if "metrics" in path.relative_to(ROOT).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions.append((node, f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"))
    assert len(functions) > 1000
    return functions
