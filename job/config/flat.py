"""The flat form of a configuration: one name, one value, as in recipes, config.yaml and on the command line."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from job.config.settings import GROUPS, Config
from job.config.suggestions import suggestion
from job.config.values import as_type
from job.errors import Refused

OF_ONE_START = ("output_dir", "overwrite_output_dir", "resume_from_checkpoint")
"""Settings that config.yaml does not repeat: a start that resumes the run must not delete its checkpoints."""


def fields() -> dict[str, tuple[str, dataclasses.Field[Any]]]:
    """Every setting by name: (name of its group, its dataclass field)."""
    return {f.name: (group, f) for group, cls in GROUPS.items() for f in dataclasses.fields(cls)}


def as_dict(config: Config) -> dict[str, Any]:
    """`config` as a flat dict of plain values (str, int, float, bool, None, lists of str)."""
    flat = {name: getattr(getattr(config, group), name) for name, (group, _) in fields().items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in flat.items()}


def from_dict(values: Mapping[str, Any], base: Config | None = None, origin: str = "configuration") -> Config:
    """`base` (or the defaults) updated with `values` (flat); Refused for an unknown key or a wrong type."""
    known = fields()
    changes: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for name, value in values.items():
        if name not in known:
            raise Refused(f"{origin}: unknown setting {name}{suggestion(name, known)}")
        changes[known[name][0]][name] = as_type(value, annotation(name), f"{origin}: {name}")
    base = base or Config()
    return Config(**{g: dataclasses.replace(getattr(base, g), **changes[g]) for g in GROUPS})


def to_yaml(config: Config) -> str:
    """The text of `config.yaml`: all settings except those of one start."""
    values = {name: value for name, value in as_dict(config).items() if name not in OF_ONE_START}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def settled(config: Config) -> Config:
    """`config` with links in the model's path resolved: a link such as runs/latest may point elsewhere later."""
    model = Path(config.model.model_name_or_path)
    return from_dict({"model_name_or_path": str(model.resolve())}, base=config) if model.is_dir() else config


def differing_settings(one: Config, other: Config) -> list[str]:
    """Names of the settings that change the result and differ between two configurations."""
    a, b = as_dict(one), as_dict(other)
    return [name for name, (_, f) in fields().items() if f.metadata["changes_result"] and a[name] != b[name]]


def annotation(name: str) -> Any:
    """The type of the setting `name`."""
    return typing.get_type_hints(GROUPS[fields()[name][0]])[name]
