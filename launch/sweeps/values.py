"""Parses --grid and --search: settings and their values, each read by the job's own parser.

learning_rate=2e-5,5e-5 seed=1,2,3
learning_rate=1e-5..1e-3:log weight_decay=0..0.1 lr_scheduler_type=linear,cosine
positive_label='yes, please',no
"""

from __future__ import annotations

import re
import shlex
from typing import Any

from job import config
from job.config.suggestions import suggestion
from job.errors import Refused
from job.run.space import Choices, Range

QUOTED = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\\.""", re.DOTALL)
LITERAL_COMMA = "\0"
"""In place of a quoted comma, which is part of a value, until the values are split; no argument contains it."""
RANGE = re.compile(r"(?P<low>[^,]*?[^,.])\.\.(?P<high>[^,:.][^,:]*)(?P<log>:log)?")
"""The third dot of `0...5` is a mistake, and neither the end of `0.` nor the start of `.5`."""
SAME_FOR_ALL_TRIALS = ("mixed_precision", "do_train", "do_eval", "metric_for_best_model", "greater_is_better")
"""Settings that the job needs before those of a trial are chosen, or by which a study compares its trials."""


def grid(text: str) -> dict[str, tuple[Any, ...]]:
    """Name of a setting -> its values, in the given order.

    Raises:
        Refused: a setting is unknown, is given twice or cannot vary, or a value is invalid.
    """
    grid: dict[str, tuple[Any, ...]] = {}
    for name, values in _split("--grid", text).items():
        if RANGE.fullmatch(values) and _is_number(name):
            raise Refused(f"--grid {name}={values}: a range is for --search; a grid takes values, as {name}=1,2")
        grid[name] = _choices("--grid", name, values)
    return grid


def space(text: str) -> dict[str, Range | Choices]:
    """Name of a setting -> its range or choices; Refused for the same reasons as in `grid`."""
    space: dict[str, Range | Choices] = {}
    for name, values in _split("--search", text).items():
        if name in SAME_FOR_ALL_TRIALS:
            raise Refused(f"--search {name}: it must be the same for all trials: give it after `--`")
        match = RANGE.fullmatch(values) if _is_number(name) else None
        space[name] = _range(name, values, match) if match else Choices(_choices("--search", name, values))
        if isinstance(choices := space[name], Choices) and len(choices.values) < 2:
            raise Refused(f"--search {name}={_restored(values)} is one value: give a range ({name}=LOW..HIGH), several "
                          f"values, or --{name} {_restored(values)} after `--`")  # fmt: skip
    return space


def _split(flag: str, text: str) -> dict[str, str]:
    """Name of a setting -> its values as text, in which a quoted comma is `LITERAL_COMMA`."""
    try:
        words = shlex.split(QUOTED.sub(lambda match: match[0].replace(",", LITERAL_COMMA), text))
    except ValueError as error:
        raise Refused(f"{flag} cannot be parsed: {str(error).lower()} in {text!r}") from None
    if not words:
        raise Refused(f"{flag} names no setting: {flag} 'learning_rate=2e-5,5e-5 seed=1,2,3'")
    texts: dict[str, str] = {}
    for word in words:
        name, equals, values = word.removeprefix("--").partition("=")
        if not equals or not values:
            raise Refused(f"{flag} takes setting=value,value, not {word!r}")
        _refuse_fixed(flag, name)
        if name in texts:
            raise Refused(f"{flag} names {name} twice")
        texts[name] = values
    return texts


def _refuse_fixed(flag: str, name: str) -> None:
    """Refused for an unknown setting, or one in which the runs of a sweep cannot differ."""
    known = config.fields()
    if name not in known:
        raise Refused(f"{flag}: unknown setting {name}{suggestion(name, known)}")
    group, declared = known[name]
    if not declared.metadata["changes_result"]:
        raise Refused(f"{flag} {name}: it does not change the result, so the runs of a sweep cannot differ in it: give "
                      "it after `--`")  # fmt: skip
    if isinstance(getattr(getattr(config.Config(), group), name), tuple):
        raise Refused(f"{flag} {name}: a list cannot vary: give it after `--`")


def _choices(flag: str, name: str, text: str) -> tuple[Any, ...]:
    values = [_typed(flag, name, _restored(value)) for value in text.split(",")]
    for position, value in enumerate(values):
        if value in values[:position]:
            raise Refused(f"{flag} {name}={_restored(text)}: {value} is given twice")
    return tuple(values)


def _range(name: str, text: str, match: re.Match[str]) -> Range:
    low, high = (_typed("--search", name, match[end]) for end in ("low", "high"))
    if low is None or high is None:
        raise Refused(f"--search {name}={text}: both ends of a range must be numbers")
    if not low < high:
        raise Refused(f"--search {name}={text}: the lower end of a range comes first")
    if match["log"] and low <= 0:
        raise Refused(f"--search {name}={text}: a logarithmic range must be above 0")
    return Range(low, high, bool(match["log"]))


def _restored(text: str) -> str:
    return text.replace(LITERAL_COMMA, ",")


def _is_number(name: str) -> bool:
    """Whether a setting takes numbers; only then can its text be a range."""
    return config.fields()[name][1].metadata["bounds"] is not None


def _typed(flag: str, name: str, text: str) -> Any:
    """The value of a setting, as parsed by the job's command line."""
    try:
        return config.as_dict(config.parse([f"--{name}={text}"]))[name]
    except Refused as error:
        raise Refused(f"{flag} {name}={text}: {error}") from None
