"""The command line: an optional recipe or YAML file first, then flags, read by tyro over the settings' dataclasses."""

from __future__ import annotations

import contextlib
import glob
import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from job.config import class_weights, yaml_text
from job.config.flat import annotation, as_dict, fields, from_dict
from job.config.metrics import METRICS
from job.config.settings import BUILT_IN_DATASET, Config
from job.config.suggestions import suggestion
from job.config.values import takes_several, type_in_words
from job.errors import Refused, unreadable_refused
from job.runtime import package
from job.runtime.files import is_pattern

RECIPES = package.JOB / "recipes"
DEFAULT_RECIPE = "demo"

SWITCHES = dict.fromkeys(("true", "t", "yes", "y", "1"), True) | dict.fromkeys(("false", "f", "no", "n", "0"), False)
"""Values of a switch that other tools accept."""


def recipes() -> dict[str, str]:
    """The recipes of this project: name -> the text of its first comment line."""
    found = sorted(RECIPES.glob("*.yaml"), key=lambda path: path.stem)
    return {path.stem: path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ") for path in found}


@unreadable_refused()
def load_recipe(name: str) -> Config:
    """The configuration of a recipe or a YAML file; Refused if it does not exist or is not valid."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not path.is_file():
        raise Refused(f"no recipe {name}: choose one of {', '.join(recipes())}, or a file that ends in .yaml")
    values = yaml_text.load(path)
    if not isinstance(values, dict):
        raise Refused(f"{path} must contain lines of the form `setting: value`")
    return from_dict(values, origin=str(path))


def run_name(argv: Sequence[str]) -> str:
    """The prefix of a new run folder's name: the recipe's name, or `run` if only flags are given."""
    if not argv:
        return DEFAULT_RECIPE
    return Path(argv[0]).stem if _names_recipe(argv) else "run"


def parse(argv: Sequence[str], prog: str = "job/train.py") -> Config:
    """Command line -> configuration: an optional recipe first, flags override it; without arguments, the demo.

    Raises:
        Refused: a flag or value does not exist; the message suggests the nearest name.
        SystemExit: with status 0, after --help.
    """
    import tyro

    recipe = argv[0] if _names_recipe(argv) else DEFAULT_RECIPE if not argv else None
    flags = list(argv[1:] if _names_recipe(argv) else argv)
    base = load_recipe(recipe) if recipe else Config()
    if base.run.overwrite_output_dir:
        raise Refused(f"{recipe}: overwrite_output_dir would delete the run at each start: remove the line, and give "
                      "--overwrite_output_dir once")  # fmt: skip
    _refuse_unknown(flags)
    _refuse_repeated(flags)
    class_weights.refuse_repeated(flags)
    flags = _with_plain_switches(flags)
    with contextlib.nullcontext() if {"--help", "-h"} & set(flags) else _one_line_errors():
        config = tyro.cli(
            Config,
            args=flags,
            default=base,
            prog=prog,
            use_underscores=True,
            config=(tyro.conf.OmitArgPrefixes,),
            description=(Config.__doc__ or "")
            + f" The first argument may be a recipe ({', '.join(recipes())}) or a YAML file.",
        )
    return _with_absolute_paths(config)


def _with_absolute_paths(config: Config) -> Config:
    """Local files and folders as absolute paths, those of metrics too, and class weights by value, so that config.yaml
    repeats the run from any folder."""
    values = as_dict(config)
    files = ("train_file", "validation_file", "test_file")
    local = (*files, "dataset_name", "model_name_or_path", "tokenizer_name", "output_dir")
    there = {name: values[name] for name in local if values[name] and os.path.exists(values[name])}  # noqa: PTH110
    changes: dict[str, Any] = {
        name: str(Path(value).absolute()) for name, value in there.items() if value != BUILT_IN_DATASET
    }
    changes["metrics"] = [_absolute_metric(name) for name in values["metrics"]]
    if values["output_file"]:  # does not exist yet
        changes["output_file"] = str(Path(values["output_file"]).absolute())
    if values["class_weights"] is not None:
        changes["class_weights"] = class_weights.read(values["class_weights"])
    patterns = {name: values[name] for name in files if values[name] and is_pattern(values[name])}
    # The working directory is escaped: only what the user typed is a pattern, not a [ in the folder's name.
    changes |= {name: str(Path(glob.escape(str(Path.cwd())), value)) for name, value in patterns.items()}
    return from_dict(changes, base=config)


def _absolute_metric(name: str) -> str:
    """A folder or file as an absolute path; ours are found by name, even if a folder here has it."""
    return str(Path(name).absolute()) if name not in METRICS and os.path.exists(name) else name  # noqa: PTH110


def _names_recipe(argv: Sequence[str]) -> bool:
    return bool(argv) and not argv[0].startswith("-")


def _refuse_unknown(flags: Sequence[str]) -> None:
    known = fields()
    for flag in flags:
        match = re.match(r"--([A-Za-z][\w-]*)", flag)
        if not match:
            continue
        name = match[1].replace("-", "_")
        if name not in known and name.removeprefix("no_") not in known and name != "help":
            raise Refused(f"unknown flag --{match[1]}{suggestion(name, known).replace('mean ', 'mean --')}")


def _refuse_repeated(flags: Sequence[str]) -> None:
    """Refused for a flag that takes several values and is there twice: the parser would keep only the last ones."""
    written = [flag.removeprefix("--").partition("=")[0].replace("-", "_") for flag in flags if flag.startswith("--")]
    for name in written:
        if written.count(name) > 1 and name in fields() and takes_several(annotation(name)):
            raise Refused(f"--{name} is given twice: give all its values after one flag")


def _with_plain_switches(flags: Sequence[str]) -> list[str]:
    """Rewrite switches for tyro: --do_eval True and --do_eval=false, as in other tools, to --do_eval and --no_do_eval;
    switches that may be unset to their value, True or False."""
    known, found = {name: annotation(name) for name in fields()}, list(flags)
    for position, flag in reversed(list(enumerate(flags))):
        written, equals, value = flag.removeprefix("--").replace("-", "_").partition("=")
        name = written if written in known else written.removeprefix("no_")
        if not flag.startswith("--") or known.get(name) not in (bool, bool | None):
            continue
        following = value if equals else next(iter(found[position + 1 :]), "")
        valued = name == written and following.lower() in SWITCHES
        if not valued and (known[name] is bool or equals or (name == written and following[:2] not in ("", "--"))):
            continue
        on = SWITCHES[following.lower()] if valued else name == written
        switch = [f"--{name}" if on else f"--no_{name}"] if known[name] is bool else [f"--{name}", str(on)]
        found[position : position + (2 if valued and not equals else 1)] = switch
    return found


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Convert tyro's boxed error message and exit code 2 to Refused with one line."""
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"  # tyro wraps its messages at the terminal's width, even inside names
    printed = io.StringIO()  # has no encoding, so tyro draws its box in ASCII
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
            yield
    except SystemExit:
        raise Refused(_one_line(printed.getvalue())) from None
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns


def _one_line(box: str) -> str:
    """tyro's error box as one line. The box contains the kind of error, a rule and sentences.

    Only this function depends on tyro's wording, which is not an interface: pyproject.toml pins the version.
    """
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in box.splitlines()]
    kind, sentence, *_ = [*(line for line in lines if line.strip("-")), "", ""]
    named = re.search(r"^Error parsing --(\w+): |for argument '--(\w+)'", sentence)
    name = next(filter(None, named.groups()), "") if named else ""
    if name in fields():
        takes = f"--{name} takes {type_in_words(annotation(name))}"
        if kind == "Missing argument":
            return f"{takes}, but no value is given"
        value = re.search(r"""from \[(.*)\]|choice (.*) for argument|: ('[^']*'|"[^"]*")\.?$""", sentence)
        shown = next(filter(None, value.groups()), "") if value else ""
        return takes + (f", not {shown}" if shown else "")
    sentence = sentence or kind or "the command line cannot be read"
    return sentence[0].lower() + sentence[1:].rstrip(".") + "; --help lists the flags"
