"""How --grid and --search are parsed, and why they are rejected."""

from __future__ import annotations

import pytest

from job.errors import Refused
from job.run.space import Choices, Range
from launch.sweeps import values


def test_a_grid_is_parsed_by_the_types_of_its_settings_in_the_given_order() -> None:
    grid = values.grid("seed=3,1 learning_rate=2e-5,5e-5 do_train=true,no max_steps=None,5 lr_scheduler_type=linear")
    assert list(grid.items()) == [
        ("seed", (3, 1)),
        ("learning_rate", (2e-5, 5e-5)),
        ("do_train", (True, False)),
        ("max_steps", (None, 5)),
        ("lr_scheduler_type", ("linear",)),
    ]


def test_a_value_may_contain_spaces_and_dots() -> None:
    assert values.grid("label_column_name='my label',x train_file=../a..b.csv") == {
        "label_column_name": ("my label", "x"),
        "train_file": ("../a..b.csv",),
    }


@pytest.mark.parametrize("quoted", ["'a,b',c", '"a,b",c', "a\\,b,c", "'a,b','c'"])
def test_a_quoted_comma_is_part_of_a_value(quoted: str) -> None:
    assert values.grid(f"positive_label={quoted} seed=1,2") == {"positive_label": ("a,b", "c"), "seed": (1, 2)}
    assert values.space(f"positive_label={quoted}") == {"positive_label": Choices(("a,b", "c"))}


def test_a_search_has_ranges_and_choices() -> None:
    assert values.space("learning_rate=1e-5..1e-3:log train_batch_size=8..64 weight_decay=0..0.1 seed=1,2") == {
        "learning_rate": Range(1e-5, 1e-3, log=True),
        "train_batch_size": Range(8, 64),
        "weight_decay": Range(0.0, 0.1),
        "seed": Choices((1, 2)),
    }
    whole = values.space("train_batch_size=8..64")["train_batch_size"]
    assert isinstance(whole, Range) and (type(whole.low), type(whole.high)) == (int, int)


GRIDS = {
    "": "--grid names no setting",
    "lerning_rate=1": "--grid: unknown setting lerning_rate; did you mean learning_rate?",
    "batch_size=1": "--grid: unknown setting batch_size: use --train_batch_size, the global batch",
    "output_dir=a,b": "--grid output_dir: it does not change the result",
    "max_tokens_per_device=1,2": "--grid max_tokens_per_device: it does not change the result",
    "metrics=f1": "--grid metrics: a list cannot vary",
    "learning_rate=1,x": "--grid learning_rate=x: --learning_rate takes a number, not 'x'",
    "seed=1,01": "--grid seed=1,01: 1 is given twice",
    "seed='1,2'": "--grid seed=1,2: --seed takes an integer, not '1,2'",
    "learning_rate=2e-5,0.00002": "is given twice",
    "seed=1 seed=2": "--grid names seed twice",
    "seed": "--grid takes setting=value,value, not 'seed'",
    "seed=": "--grid takes setting=value,value, not 'seed='",
    "seed='1": "--grid cannot be parsed: no closing quotation",
    "learning_rate=1e-5..1e-3": "a range is for --search",
}
SEARCHES = {
    "learning_rate=1e-3..1e-5": "the lower end of a range comes first",
    "learning_rate=1..1": "the lower end of a range comes first",
    "weight_decay=0..1:log": "a logarithmic range must be above 0",
    "max_steps=10..None": "--search max_steps=10..None: both ends of a range must be numbers",
    "seed=3": "--search seed=3 is one value",
    "weight_decay=0...5": "--search weight_decay=0...5: --weight_decay takes a number, not '0...5'",
    "seed=1..x": "--search seed=x: --seed takes an integer, not 'x'",
    "mixed_precision=no,bf16": "--search mixed_precision: it must be the same for all trials",
    "metric_for_best_model=loss,accuracy": "--search metric_for_best_model: it must be the same for all trials",
    "greater_is_better=true,false": "--search greater_is_better: it must be the same for all trials",
    "lr_scheduler_type=a..b": "--lr_scheduler_type takes one of",
}


@pytest.mark.parametrize("text", GRIDS)
def test_a_bad_grid_is_rejected(text: str) -> None:
    with pytest.raises(Refused) as rejected:
        values.grid(text)
    assert GRIDS[text] in str(rejected.value)


@pytest.mark.parametrize("text", SEARCHES)
def test_a_bad_search_is_rejected(text: str) -> None:
    with pytest.raises(Refused) as rejected:
        values.space(text)
    assert SEARCHES[text] in str(rejected.value)
