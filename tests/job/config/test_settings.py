"""The command line and the recipes: every flag on record, one default each, and answers on one line."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from job import checks, config
from job.config import Config, cli
from job.errors import Refused
from tests.job import snapshots

ROOT = Path(__file__).parents[3]
ONE_LINE = cli._one_line
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
    }
    annotation = str(declared.type)
    if "Literal" in annotation:
        choices = st.sampled_from(re.findall(r"'(\w+)'", annotation.replace('"', "'")))
        return choices | st.none() if "None" in annotation else choices
    return st.one_of([kinds[part.strip()] for part in annotation.split("|")])


def configs() -> st.SearchStrategy[Config]:
    flat = {name: values_of(f) for name, (_, f) in config.fields().items()}
    return st.fixed_dictionaries({}, optional=flat).map(config.from_dict)


def refusal(argv: list[str]) -> str:
    with pytest.raises(Refused) as caught:
        config.parse(argv)
    return str(caught.value)


def test_every_flag_its_type_default_and_effect_are_on_record() -> None:
    lines = [
        f"{group:<10} --{name}: {' '.join(str(f.type).split())} = {f.default!r}"
        f"  [{'changes the result' if f.metadata['changes_result'] else 'hardware'}]"
        for name, (group, f) in config.fields().items()
    ]
    snapshots.check("flags.txt", "\n".join(lines) + "\n")


def test_names_are_unique_across_groups() -> None:
    assert len(config.fields()) == sum(len(dataclasses.fields(cls)) for cls in config.GROUPS.values())


def test_help_shows_every_flag_and_says_what_it_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    with pytest.raises(SystemExit) as end:
        config.parse(["--help"])
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    described = re.findall(r"^[│ ]+--(\w+)[^\n]*\n[│ ]{5,}\w", shown, re.MULTILINE)
    assert end.value.code == 0
    assert sorted(described) == sorted(config.fields())


def test_no_words_mean_the_demo() -> None:
    assert config.parse([]) == config.load_recipe("demo") == config.parse(["demo"])
    assert (config.run_name([]), config.run_name(["mrpc"]), config.run_name(["a/my.yaml"])) == ("demo", "mrpc", "my")
    assert config.run_name(["--seed", "1"]) == "run"


def test_flags_beat_the_recipe_and_the_recipe_beats_the_defaults() -> None:
    parsed = config.parse(["mrpc", "--learning_rate", "3e-5", "--metrics", "f1"])
    assert (Config().training.learning_rate, parsed.training.learning_rate) == (5e-5, 3e-5)
    assert (Config().training.num_train_epochs, parsed.training.num_train_epochs) == (3.0, 5.0)
    assert parsed.evaluation.metrics == ("f1",)
    assert config.differing_settings(parsed, config.load_recipe("mrpc")) == ["learning_rate", "metrics"]


def test_flags_alone_start_from_the_defaults() -> None:
    assert config.parse(["--seed", "7"]) == config.from_dict({"seed": 7})


@pytest.mark.parametrize("off", ["--no-do_train", "--no_do_train"])
def test_switches_have_an_off_form(off: str) -> None:
    assert config.parse(["--do_train"]).training.do_train
    assert not config.parse([off]).training.do_train


def test_an_optional_setting_is_unset_by_the_word_none(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("max_steps: 5\n")
    assert config.parse([str(tmp_path / "own.yaml"), "--max_steps", "None"]).training.max_steps is None


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
def test_yaml_values_become_the_fields_type(line: str, name: str, value: object, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(line)
    read = config.as_dict(config.load_recipe(str(tmp_path / "own.yaml")))[name]
    assert (read, type(read)) == (value, type(value))


@given(configs())
def test_any_configuration_survives_config_yaml(written: Config) -> None:
    values = yaml.safe_load(config.to_yaml(written))
    assert not {"output_dir", "resume_from_checkpoint"} & set(values)
    run = dataclasses.replace(written.run, output_dir=None, resume_from_checkpoint="auto")
    expected = dataclasses.replace(written, run=run)
    assert config.from_dict(values) == expected


@given(configs(), configs())
def test_differing_settings_are_those_that_change_the_result(one: Config, other: Config) -> None:
    a, b = config.as_dict(one), config.as_dict(other)
    differing = config.differing_settings(one, other)
    assert {name for name in a if a[name] != b[name] and CHANGES_RESULT[name]} == set(differing)
    assert config.differing_settings(one, one) == []


@pytest.mark.parametrize(
    ("name", "value"), [("max_tokens_per_device", 7), ("output_dir", "x"), ("logging_steps", 3), ("report_to", ["a"])]
)
def test_a_run_may_go_on_with_other_hardware(name: str, value: object) -> None:
    assert config.differing_settings(Config(), config.from_dict({name: value})) == []


@pytest.mark.parametrize("name", sorted(config.recipes()))
def test_every_recipe_loads_passes_preflight_and_says_what_it_is(name: str) -> None:
    more = ["--dataset_name", "docstrings", "--test_split_name", "test"] if name == "predict" else []
    checks.check(config.parse([name, *more]))
    assert config.recipes()[name] and ":" not in config.recipes()[name].split()[0]


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


def test_the_embedded_data_set_is_not_shadowed_by_a_folder_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docstrings").mkdir()
    monkeypatch.chdir(tmp_path)
    assert config.parse([]).data.dataset_name == "docstrings"


@pytest.mark.parametrize("name", sorted(config.NOT_OURS))
def test_flags_of_other_scripts_are_answered_with_ours(name: str) -> None:
    message = refusal([f"--{name}", "1"])
    assert message == f"unknown flag --{name}: here {config.NOT_OURS[name]}"
    ours = re.findall(r"--(\w+)", config.NOT_OURS[name])
    assert ours and set(ours) <= set(config.fields())


@given(st.sampled_from(sorted(config.fields())), st.data())
def test_a_letter_left_out_is_answered_with_the_flag(name: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(name) - 1))
    typed = name[:at] + name[at + 1 :]
    if typed not in config.fields() and typed not in config.NOT_OURS:
        suggested = re.fullmatch(rf"unknown flag --{typed}; did you mean --(\w+)\?", refusal([f"--{typed}", "1"]))
        assert suggested is not None and suggested[1] in config.fields()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--mixed_precision", "fp8"], "--mixed_precision takes one of no, bf16, fp16 or None, not 'fp8'"),
        (["--eval_strategy", "x"], "--eval_strategy takes one of epoch, steps, no, not 'x'"),
        (["--greater_is_better", "maybe"], "--greater_is_better takes true or false or None, not 'maybe'"),
    ],
)
def test_a_wrong_choice_is_answered_with_the_choices_in_the_order_declared(argv: list[str], message: str) -> None:
    assert refusal(argv) == message


@pytest.mark.parametrize(
    ("argv", "kind", "message"),
    [
        (["--seed"], "Missing argument", "--seed takes a whole number, and none is given"),
        (["--train_file", "a", "--eval_strategy"], "Missing argument",
         "--eval_strategy takes one of epoch, steps, no, and none is given"),
        (["--eval_strategy", "x"], "Invalid choice", "--eval_strategy takes one of epoch, steps, no, not 'x'"),
        (["--seed", "1.5"], "Value error", "--seed takes a whole number, not '1.5'"),
        (["--seed", "it's"], "Value error", """--seed takes a whole number, not "it's\""""),
        (["--learning_rate", "fast"], "Value error", "--learning_rate takes a number, not 'fast'"),
        (["--max_steps", "x"], "Value error", "--max_steps takes a whole number or None, not 'x'"),
        (["--seed", "1", "2"], "Unrecognized options", "unrecognized options: 2; --help lists the flags"),
        (["-x"], "Unrecognized options", "unrecognized options: -x; --help lists the flags"),
    ],
)  # fmt: skip
def test_each_kind_of_error_of_the_parser_is_one_line(
    argv: list[str], kind: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = []

    def recorded(box: str) -> str:
        boxes.append(box)
        return ONE_LINE(box)

    monkeypatch.setattr(cli, "_one_line", recorded)
    assert refusal(argv) == message
    assert boxes[0].strip().startswith(kind)  # the parser's own, not a check before it


def test_an_error_of_no_known_kind_shows_what_the_parser_says() -> None:
    assert cli._one_line(" Odd \n ---- \n It is so. \n") == "it is so; --help lists the flags"
    assert cli._one_line("Odd\n") == "odd; --help lists the flags"
    assert cli._one_line("") == "the command line cannot be read; --help lists the flags"


def test_the_parser_is_the_version_whose_messages_are_read() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pinned,) = (name for name in project["dependencies"] if name.startswith("tyro"))
    assert pinned == f"tyro=={metadata.version('tyro')}"
    assert pinned in (ROOT / "requirements.lock").read_text().split()


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
FLAGS = st.sampled_from([f"--{name}" for name in [*config.fields(), *config.NOT_OURS]])


@given(st.lists(FLAGS | WORDS, max_size=5))
def test_whatever_is_typed_is_parsed_or_refused_on_one_line(argv: list[str]) -> None:
    if {"-h", "--help"} & set(argv):
        return
    try:
        config.parse(argv)
    except Refused as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017


def test_the_terminals_width_neither_changes_a_message_nor_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = []
    for width in ("20", "200"):
        monkeypatch.setenv("COLUMNS", width)
        messages.append(refusal(["--seed", "a rather long value that no terminal shows on one line" * 4]))
    monkeypatch.delenv("COLUMNS")
    messages.append(refusal(["--seed", "a rather long value that no terminal shows on one line" * 4]))
    assert len(set(messages)) == 1
    assert "COLUMNS" not in os.environ


def test_a_message_is_the_same_where_the_terminal_has_no_utf8() -> None:
    program = "from job import config; config.parse(['--seed', 'x'])"
    environ = {**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"}
    shown = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert shown.stderr.splitlines()[-1] == "job.errors.Refused: --seed takes a whole number, not 'x'"


def test_a_login_node_needs_no_library_of_training() -> None:
    modules = "job.config, job.checks, job.runtime.environment, job.data.columns, job.data.readers"
    program = f"import {modules}, json, sys; job.config.parse(['mrpc']); print(json.dumps(sorted(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(shown.stdout)}
    assert "tyro" in loaded
    assert loaded & {"torch", "transformers", "datasets", "evaluate", "accelerate", "numpy", "pyarrow"} == set()


def test_every_number_declares_its_bounds_and_keeps_to_them() -> None:
    for name, (_, declared) in config.fields().items():
        numeric = {"int", "float"} & set(re.findall(r"\w+", str(declared.type)))
        bounds = declared.metadata["bounds"]
        assert bool(numeric) == (bounds is not None), name
        assert bounds is None or declared.default is None or bounds.hold(declared.default), name


@pytest.mark.parametrize(
    ("words", "evaluated"),
    [
        ("--do_eval True", True), ("--do_eval", True), ("--do_eval=1", True), ("--do-eval yes", True),
        ("--do_eval False", False), ("--do_eval=false", False), ("--no_do_eval", False), ("--do_eval 0", False),
    ],
)  # fmt: skip
def test_a_switch_may_have_a_value_as_other_tools_write_it(words: str, evaluated: bool) -> None:
    parsed = config.parse([*words.split(), "--seed", "7"])
    assert (parsed.training.do_eval, parsed.training.seed) == (evaluated, 7)


@pytest.mark.parametrize(
    ("words", "greater"),
    [
        ("", None), ("--greater_is_better", True), ("--greater_is_better True", True), ("--greater_is_better=1", True),
        ("--greater-is-better yes", True), ("--greater_is_better false", False), ("--greater_is_better=False", False),
        ("--no_greater_is_better", False), ("--greater_is_better None", None),
    ],
)  # fmt: skip
def test_so_may_one_that_may_be_unset(words: str, greater: bool | None) -> None:
    parsed = config.parse([*words.split(), "--seed", "7"])
    assert (parsed.evaluation.greater_is_better, parsed.training.seed) == (greater, 7)


@pytest.mark.parametrize("words", ["--do_eval maybe", "--greater_is_better maybe", "--greater_is_better=maybe"])
def test_a_value_that_is_no_switch_is_refused(words: str) -> None:
    with pytest.raises(Refused, match="maybe"):
        config.parse(words.split())
