"""The settings: a snapshot of every flag, one default each, bounds for each number, recipes that can run."""

import dataclasses
import re

import pytest

from job import checks, config
from tests.job import snapshots


def test_flags_types_defaults_and_effects_match_the_snapshot() -> None:
    lines = [
        f"{group:<10} --{name}: {' '.join(str(f.type).split())} = {f.default!r}"
        f"  [{'changes the result' if f.metadata['changes_result'] else 'may change on resume'}]"
        for name, (group, f) in config.fields().items()
    ]
    snapshots.check("flags.txt", "\n".join(lines) + "\n")


def test_names_are_unique_across_groups() -> None:
    assert len(config.fields()) == sum(len(dataclasses.fields(cls)) for cls in config.GROUPS.values())


def test_every_number_declares_bounds_and_its_default_is_within() -> None:
    for name, (_, declared) in config.fields().items():
        numeric = {"int", "float"} & set(re.findall(r"\w+", str(declared.type).replace("Mapping[str, float]", "")))
        bounds = declared.metadata["bounds"]
        assert bool(numeric) == (bounds is not None), name
        assert bounds is None or declared.default is None or bounds.remedy(declared.default) is None, name


@pytest.mark.parametrize("name", sorted(config.recipes()))
def test_every_recipe_loads_passes_preflight_and_has_a_description(name: str) -> None:
    more = ["--dataset_name", "docstrings", "--test_split_name", "test"] if name == "predict" else []
    checks.check(config.parse([name, *more]))
    assert config.recipes()[name] and ":" not in config.recipes()[name].split()[0]
