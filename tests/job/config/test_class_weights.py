"""--class_weights as it is written: on the command line, in a recipe, and in a file of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from job import config
from job.config import Config, Training, class_weights, task_settings
from job.config.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Task
from job.errors import Refused

ANSWERS = Task(SINGLE_LABEL, ("no", "yes", "1", "010", "1.0e+3"))


def test_class_weights_may_be_written_in_several_ways_and_config_yaml_repeats_them(tmp_path: Path) -> None:
    expected = {"no": 1.0, "yes": 20.0, "1": 0.5, "010": 3.0, "1.0e+3": 4.0}
    weights, recipe, repeated = (tmp_path / name for name in ("weights.yaml", "own.yaml", "config.yaml"))
    weights.write_text("no: 1\nyes: 2e1\n1: .5\n010: 3\n1.0e+3: 4\n")
    recipe.write_text("class_weights: {no: 1, yes: 2e1, 1: .5, 010: 3, 1.0e+3: 4}\n")
    for words in (["--class_weights", str(weights)], [str(recipe)],
                  ["--class_weights", "no", "1", "yes", "20", "1", "0.5", "010", "3", "1.0e+3", "4"]):  # fmt: skip
        parsed = config.parse(words)
        assert parsed.training.class_weights == expected
        repeated.write_text(config.to_yaml(parsed))
        assert config.parse([str(repeated)]) == parsed
        assert yaml.safe_load(repeated.read_text())["class_weights"] == expected
    task_settings.check(parsed, ANSWERS)


def test_changing_class_weights_starts_a_new_run_with_the_same_data_order() -> None:
    one, same, other = (
        Config(training=Training(class_weights=weights))
        for weights in ({"a": 1.0, "b": 2.0}, {"b": 2.0, "a": 1.0}, {"a": 1.0, "b": 2.5})
    )
    assert not config.differing_settings(one, same)
    assert config.differing_settings(one, other) == ["class_weights"]


@pytest.mark.parametrize(
    ("weights", "task", "message"),
    [
        ("balanced", Task(MULTI_LABEL, ("a", "b")), "needs one class per row, but the task is multi label"),
        ("balanced", Task(REGRESSION, ("score",)), "needs one class per row, but the task is regression"),
        ({"no": 1.0, "maybe": 1.0}, ANSWERS, "names maybe, not among the classes: no, yes, 1, 010, 1.0e+3"),
        ({"no": 1.0}, ANSWERS, "has no factor for yes, 1, 010, 1.0e+3: name every class, 1 changes nothing"),
        ({f"c{i}": 1.0 for i in range(8)}, ANSWERS, "names c0, c1, c2, c3, c4 and 3 more, not among"),
    ],
)
def test_weights_that_do_not_fit_the_task_are_rejected(
    weights: str | dict[str, float], task: Task, message: str
) -> None:
    with pytest.raises(Refused) as caught:
        task_settings.check(Config(training=Training(class_weights=weights)), task)
    assert str(caught.value).startswith("--class_weights ") and message in str(caught.value)
    task_settings.check(Config(training=Training(class_weights=weights, do_train=False)), task)


def test_balanced_fits_every_single_label_task() -> None:
    class_weights.check_task("balanced", ANSWERS)
    class_weights.check("balanced", "single_label_classification")
