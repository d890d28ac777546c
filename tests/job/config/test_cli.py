"""The command line: recipe, flags and switches as typed, and a one-line error for every mistake."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job import checks, config
from job.config import Config, cli
from job.errors import Refused

ROOT = Path(__file__).parents[3]
ONE_LINE = cli._one_line


def refusal(argv: list[str]) -> str:
    with pytest.raises(Refused) as caught:
        config.parse(argv)
    return str(caught.value)


def test_help_describes_every_flag(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    with pytest.raises(SystemExit) as end:
        config.parse(["--help"])
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    described = re.findall(r"^[│ ]+--(\w+)[^\n]*\n[│ ]{5,}\w", shown, re.MULTILINE)
    assert end.value.code == 0
    assert sorted(described) == sorted(config.fields())


def test_with_no_arguments_the_demo_runs() -> None:
    assert config.parse([]) == config.load_recipe("demo") == config.parse(["demo"])
    assert (config.run_name([]), config.run_name(["mrpc"]), config.run_name(["a/my.yaml"])) == ("demo", "mrpc", "my")
    assert config.run_name(["--seed", "1"]) == "run"


def test_flags_override_the_recipe_and_the_recipe_overrides_defaults() -> None:
    parsed = config.parse(["mrpc", "--learning_rate", "3e-5", "--metrics", "f1"])
    assert (Config().training.learning_rate, parsed.training.learning_rate) == (5e-5, 3e-5)
    assert (Config().training.num_train_epochs, parsed.training.num_train_epochs) == (3.0, 5.0)
    assert parsed.evaluation.metrics == ("f1",)
    assert config.differing_settings(parsed, config.load_recipe("mrpc")) == ["learning_rate", "metrics"]


def test_flags_without_a_recipe_start_from_the_defaults() -> None:
    assert config.parse(["--seed", "7"]) == config.from_dict({"seed": 7})


@pytest.mark.parametrize("off", ["--no-do_train", "--no_do_train"])
def test_switches_have_an_off_form(off: str) -> None:
    assert config.parse(["--do_train"]).training.do_train
    assert not config.parse([off]).training.do_train


def test_an_optional_setting_is_unset_by_none(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("max_steps: 5\n")
    assert config.parse([str(tmp_path / "own.yaml"), "--max_steps", "None"]).training.max_steps is None


def test_the_embedded_data_set_is_not_shadowed_by_a_folder_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docstrings").mkdir()
    monkeypatch.chdir(tmp_path)
    assert config.parse([]).data.dataset_name == "docstrings"


@pytest.mark.parametrize("name", sorted(config.NOT_OURS))
def test_flags_of_other_scripts_are_answered_with_our_equivalent(name: str) -> None:
    message = refusal([f"--{name}", "1"])
    assert message == f"unknown flag --{name}: use {config.NOT_OURS[name]}"
    ours = re.findall(r"--(\w+)", config.NOT_OURS[name])
    assert (ours or name == "hub_token") and set(ours) <= set(config.fields())


@given(st.sampled_from(sorted(config.fields())), st.data())
def test_a_misspelt_flag_is_answered_with_the_nearest(name: str, data: st.DataObject) -> None:
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
        (["--seed"], "Missing argument", "--seed takes an integer, but no value is given"),
        (["--train_file", "a", "--eval_strategy"], "Missing argument",
         "--eval_strategy takes one of epoch, steps, no, but no value is given"),
        (["--eval_strategy", "x"], "Invalid choice", "--eval_strategy takes one of epoch, steps, no, not 'x'"),
        (["--seed", "1.5"], "Value error", "--seed takes an integer, not '1.5'"),
        (["--seed", "it's"], "Value error", """--seed takes an integer, not "it's\""""),
        (["--learning_rate", "fast"], "Value error", "--learning_rate takes a number, not 'fast'"),
        (["--max_steps", "x"], "Value error", "--max_steps takes an integer or None, not 'x'"),
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


def test_an_unknown_parser_error_is_shown_unchanged() -> None:
    assert cli._one_line(" Odd \n ---- \n It is so. \n") == "it is so; --help lists the flags"
    assert cli._one_line("Odd\n") == "odd; --help lists the flags"
    assert cli._one_line("") == "the command line cannot be read; --help lists the flags"


def test_the_parser_has_the_version_whose_messages_we_parse() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pinned,) = (name for name in project["dependencies"] if name.startswith("tyro"))
    assert pinned == f"tyro=={metadata.version('tyro')}"
    assert pinned in (ROOT / "requirements.lock").read_text().split()


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
FLAGS = st.sampled_from([f"--{name}" for name in [*config.fields(), *config.NOT_OURS]])


@given(st.lists(FLAGS | WORDS, max_size=5))
def test_any_command_line_is_parsed_or_rejected_in_one_line(argv: list[str]) -> None:
    if {"-h", "--help"} & set(argv):
        return
    try:
        config.parse(argv)
    except Refused as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017


def test_messages_do_not_depend_on_the_terminals_width(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = []
    for width in ("20", "200"):
        monkeypatch.setenv("COLUMNS", width)
        messages.append(refusal(["--seed", "a rather long value that no terminal shows on one line" * 4]))
    monkeypatch.delenv("COLUMNS")
    messages.append(refusal(["--seed", "a rather long value that no terminal shows on one line" * 4]))
    assert len(set(messages)) == 1
    assert "COLUMNS" not in os.environ


def test_messages_are_the_same_without_utf8() -> None:
    program = "from job import config; config.parse(['--seed', 'x'])"
    environ = {**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"}
    shown = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert shown.stderr.splitlines()[-1] == "job.errors.Refused: --seed takes an integer, not 'x'"


def test_a_login_node_needs_no_training_library() -> None:
    modules = "job.config, job.checks, job.runtime.environment, job.data.columns, job.data.readers"
    program = f"import {modules}, json, sys; job.config.parse(['mrpc']); print(json.dumps(sorted(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(shown.stdout)}
    assert "tyro" in loaded
    assert loaded & {"torch", "transformers", "datasets", "evaluate", "accelerate", "numpy", "pyarrow"} == set()


@pytest.mark.parametrize(
    ("words", "evaluated"),
    [
        ("--do_eval True", True), ("--do_eval", True), ("--do_eval=1", True), ("--do-eval yes", True),
        ("--do_eval False", False), ("--do_eval=false", False), ("--no_do_eval", False), ("--do_eval 0", False),
    ],
)  # fmt: skip
def test_a_switch_may_have_an_explicit_value(words: str, evaluated: bool) -> None:
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
def test_an_optional_switch_may_have_an_explicit_value(words: str, greater: bool | None) -> None:
    parsed = config.parse([*words.split(), "--seed", "7"])
    assert (parsed.evaluation.greater_is_better, parsed.training.seed) == (greater, 7)


@pytest.mark.parametrize("words", ["--do_eval maybe", "--greater_is_better maybe", "--greater_is_better=maybe"])
def test_a_value_that_is_not_boolean_is_rejected_for_a_switch(words: str) -> None:
    with pytest.raises(Refused, match="maybe"):
        config.parse(words.split())


@pytest.mark.parametrize("name", ["text_column_names", "metrics", "report_to", "class_weights"])
@pytest.mark.parametrize("again", ["--{} b 2", "--{}=b", "--{}"])
def test_a_flag_with_several_values_is_rejected_if_it_is_given_twice(name: str, again: str) -> None:
    argv = f"--{name} a 1 --seed 3 {again.format(name.replace('_', '-'))}".split()
    assert refusal(argv) == f"--{name} is given twice: give all its values after one flag"


def test_the_last_value_of_any_other_flag_counts() -> None:
    parsed = config.parse(["--seed", "1", "--metrics", "f1", "accuracy", "--seed", "2", "--do_eval", "--no_do_eval"])
    assert (parsed.training.seed, parsed.training.do_eval) == (2, False)
    assert parsed.evaluation.metrics == ("f1", "accuracy")


def test_the_folder_of_a_metric_is_found_again_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("own", "accuracy"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    names = config.parse(["--metrics", "accuracy", "./own", "own", "acme/share"]).evaluation.metrics
    assert names == ("accuracy", str(tmp_path / "own"), str(tmp_path / "own"), "acme/share")


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_a_schedule_without_warmup_may_be_chosen_for_any_recipe(schedule: str) -> None:
    for name in config.recipes():
        if name != "predict":
            checks.check(config.parse([name, "--lr_scheduler_type", schedule]))
