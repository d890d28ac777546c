"""A printed plan is the command: a shell that runs it does the same."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from launch.plan import Plan

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@given(st.lists(WORDS, min_size=1, max_size=5), WORDS)
def test_printed_commands_parse_to_the_same_arguments(words: list[str], value: str) -> None:
    plan = Plan(("run", *words), (("NAME", value),), Path("/"))
    setting, *command = shlex.split(plan.text())
    assert setting == f"NAME={value}"
    assert tuple(command) == plan.argv


@settings(max_examples=10)
@given(WORDS, WORDS)
def test_a_shell_runs_exactly_the_arguments(word: str, value: str) -> None:
    show = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['NAME']]))"
    plan = Plan((sys.executable, "-c", show, word, "$(touch x); `touch x`"), (("NAME", value),), Path("/"))
    shown = subprocess.run(["sh", "-c", str(plan)], capture_output=True, text=True, check=True).stdout
    assert json.loads(shown) == [[word, "$(touch x); `touch x`"], value]
