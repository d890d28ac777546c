"""--class_weights: `balanced`, or a factor for each class. Factors may be in a YAML file of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from job.config import yaml_text
from job.config.tasks import SINGLE_LABEL, Task
from job.config.values import as_type
from job.errors import Refused

BALANCED = "balanced"
ClassWeights = str | Mapping[str, float]
LISTED = 5
SMALLEST, LARGEST = 1e-9, 1e9
"""Of a factor above 0: the loss and its sums are computed in float32, where extreme ones overflow or vanish."""


def read(asked: ClassWeights) -> ClassWeights:
    """`balanced` and factors as they are, a file's name as the factors in it.

    Raises:
        Refused: neither, or a file that does not hold `name: factor` lines.
    """
    if asked == BALANCED or not isinstance(asked, str):
        return asked
    path = Path(asked)
    if not asked.endswith((".yaml", ".yml")):
        raise Refused(f"--class_weights takes {BALANCED}, or a .yaml file with a line `name: factor` for each class, "
                      f"not {asked}")  # fmt: skip
    try:
        node = yaml_text.compose(path)
    except OSError as error:
        raise Refused(f"--class_weights {path} cannot be read: {error.strerror}") from None
    pairs: list[tuple[Any, Any]] = node.value if isinstance(node, yaml.MappingNode) else [(None, None)]
    if not all(isinstance(scalar, yaml.ScalarNode) for pair in pairs for scalar in pair):
        raise Refused(f"--class_weights {path} must hold a line `name: factor` for each class")
    # Names as text: a bare no would be false.
    return {name.value: as_type(factor.value, float, f"{path}: the factor of {name.value}") for name, factor in pairs}


def refuse_repeated(flags: Sequence[str]) -> None:
    """Refused if a class is named twice on the command line, where only its last factor would count."""
    for position, flag in enumerate(flags):
        written, equals, first = flag.partition("=")
        if written.replace("-", "_") == "__class_weights":
            following = takewhile(lambda word: not word.startswith("--"), flags[position + 1 :])
            words = [*([first] if equals else []), *following]
            for name in words[::2]:
                if words[::2].count(name) > 1:
                    raise Refused(f"--class_weights has the class {name} twice: remove one of its factors")


def check(asked: ClassWeights | None, problem_type: str | None) -> None:
    """Refused for weights that are invalid for any classes."""
    if asked is None:
        return
    if problem_type is not None:
        _require_one_label(problem_type)
    if not isinstance(asked, Mapping):
        read(asked)
        return
    for name, factor in asked.items():
        if factor != 0 and not SMALLEST <= factor <= LARGEST:
            raise Refused(f"--class_weights: the factor of {name} must be 0, or from {SMALLEST:g} to {LARGEST:g}, not "
                          f"{factor}")  # fmt: skip
    if not any(asked.values()):
        raise Refused("--class_weights: at least one factor must be above 0, or the loss is always 0")


def check_task(asked: ClassWeights | None, task: Task) -> None:
    """Refused where rows have not one class each, or where not each class has its factor."""
    if asked is None:
        return
    _require_one_label(task.kind.problem_type)
    if isinstance(asked, str):
        return
    if unknown := [name for name in asked if name not in task.names]:
        raise Refused(f"--class_weights names {_listed(unknown)}, not among the classes: {_listed(task.names)}")
    if missing := [name for name in task.names if name not in asked]:
        raise Refused(f"--class_weights has no factor for {_listed(missing)}: name every class, 1 changes nothing")


def _require_one_label(problem_type: str) -> None:
    if problem_type != SINGLE_LABEL.problem_type:
        raise Refused(
            f"--class_weights needs one class per row, but the task is {problem_type.replace('_', ' ')}: remove it"
        )


def _listed(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
