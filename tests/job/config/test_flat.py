"""The flat form of a configuration: YAML values round-trip, and differences are named."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from job import checks, config
from job.config import Config

CHANGES_RESULT = {name: f.metadata["changes_result"] for name, (_, f) in config.fields().items()}


def values_of(declared: dataclasses.Field[Any]) -> st.SearchStrategy[Any]:
    """Any value of a field's type, as its annotation names it."""
    # Names and paths: PyYAML itself loses the line ends of Unicode other than \n.
    words = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]) | st.just("\n"), max_size=10)
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "str": words,
        "int": st.integers(),
        "float": st.floats(allow_nan=False),
        "bool": st.booleans(),
        "None": st.none(),
        "tuple[str, ...]": st.lists(words).map(tuple),
        "Mapping[str, float]": st.dictionaries(words, st.floats(allow_nan=False)),
    }
    annotation = str(declared.type)
    if "Literal" in annotation:
        choices = st.sampled_from(re.findall(r"'(\w+)'", annotation.replace('"', "'")))
        return choices | st.none() if "None" in annotation else choices
    return st.one_of([kinds[part.strip()] for part in annotation.split("|")])


def configs() -> st.SearchStrategy[Config]:
    flat = {name: values_of(f) for name, (_, f) in config.fields().items()}
    return st.fixed_dictionaries({}, optional=flat).map(config.from_dict)


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("learning_rate: 2e-5", "learning_rate", 2e-5),  # YAML 1.1 reads this as text
        ("num_train_epochs: 3", "num_train_epochs", 3.0),
        ("max_steps: null", "max_steps", None),
        ("text_column_names: [a, b]", "text_column_names", ["a", "b"]),
        ("text_column_names: a", "text_column_names", ["a"]),
        ("do_train: no", "do_train", False),
        ("mixed_precision: no", "mixed_precision", "no"),  # and this as false
        ("eval_strategy: no", "eval_strategy", "no"),
    ],
)
def test_yaml_values_are_converted_to_the_fields_type(line: str, name: str, value: object, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(line)
    read = config.as_dict(config.load_recipe(str(tmp_path / "own.yaml")))[name]
    assert (read, type(read)) == (value, type(value))


@given(configs())
def test_any_configuration_round_trips_through_config_yaml(written: Config) -> None:
    values = yaml.safe_load(config.to_yaml(written))
    assert not {"output_dir", "overwrite_output_dir", "resume_from_checkpoint"} & set(values)
    run = dataclasses.replace(written.run, output_dir=None, overwrite_output_dir=False, resume_from_checkpoint="auto")
    expected = dataclasses.replace(written, run=run)
    assert config.from_dict(values) == expected


@given(configs(), configs())
def test_only_settings_that_change_the_result_count_as_differing(one: Config, other: Config) -> None:
    a, b = config.as_dict(one), config.as_dict(other)
    differing = config.differing_settings(one, other)
    assert {name for name in a if a[name] != b[name] and CHANGES_RESULT[name]} == set(differing)
    assert config.differing_settings(one, one) == []


@pytest.mark.parametrize(
    ("name", "value"), [("max_tokens_per_device", 7), ("output_dir", "x"), ("logging_steps", 3), ("report_to", ["a"])]
)
def test_a_run_may_be_resumed_with_another_runtime_setting(name: str, value: object) -> None:
    assert config.differing_settings(Config(), config.from_dict({name: value})) == []


def test_config_yaml_repeats_the_run_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    data.mkdir()
    elsewhere.mkdir()
    for name in ("train.csv", "eval.csv"):
        (data / name).write_text("text,label\na,b\n")
    monkeypatch.chdir(data)
    first = config.parse(["--train_file", "train.csv", "--validation_file", "eval.csv"])
    (elsewhere / "config.yaml").write_text(config.to_yaml(first))
    monkeypatch.chdir(elsewhere)
    again = config.parse(["config.yaml"])
    assert again == first
    checks.check(again)
