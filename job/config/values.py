"""Values of settings: conversion to the declared type, and types in words."""

from __future__ import annotations

import contextlib
import reprlib
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from job.errors import Refused


def as_type(value: Any, wanted: Any, name: str) -> Any:
    """`value` converted to the type `wanted`: YAML may have 3 for 3.0, parses 2e-5 as text, and has no tuples.

    Raises:
        Refused: it has another type; `name` is the setting in the message.
    """
    for option in _options(wanted):
        if option is type(None):
            if value is None:
                return None
        elif typing.get_origin(option) is Literal:
            value = "no" if value is False else value  # a bare `no` is false in YAML
            if value in typing.get_args(option):
                return value
        elif typing.get_origin(option) is tuple:
            if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
                return tuple(value)
            if isinstance(value, str):
                return (value,)
        elif typing.get_origin(option) is Mapping:
            if isinstance(value, Mapping):
                return {key: as_type(number, float, f"{name}: {key}") for key, number in value.items()}
        elif option is float and isinstance(value, int | float | str) and not isinstance(value, bool):
            with contextlib.suppress(ValueError, OverflowError):
                return float(value)
        elif type(value) is option:
            return value
    raise Refused(
        f"{name} takes {type_in_words(wanted)}, not {reprlib.repr(value) if isinstance(value, int) else repr(value)}"
    )


def takes_several(wanted: Any) -> bool:
    """Whether a flag of this type may have several values."""
    return any(typing.get_origin(option) in (tuple, Mapping) for option in _options(wanted))


def _options(wanted: Any) -> tuple[Any, ...]:
    """The types that a value may have, any one of them."""
    return typing.get_args(wanted) if typing.get_origin(wanted) in (types.UnionType, typing.Union) else (wanted,)


def type_in_words(wanted: Any) -> str:
    """A type in words."""
    words = {int: "an integer", float: "a number", str: "text", bool: "true or false", type(None): "None"}
    if len(options := _options(wanted)) > 1:
        *most, last = map(type_in_words, options)
        return f"{', '.join(most)}{',' if len(most) > 1 else ''} or {last}"
    if typing.get_origin(wanted) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(wanted)))
    if typing.get_origin(wanted) is tuple:
        return "a list of names"
    if typing.get_origin(wanted) is Mapping:
        return "pairs of a name and a number"
    return words.get(wanted, str(wanted))
