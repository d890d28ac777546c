"""A sweep as a value: its elements, its folder, and what identifies it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from job import config
from job.errors import Refused
from job.run.space import Choices, Range, Space
from launch.sweeps import sweep as sweeps

DEMO = config.load_recipe("demo")
GRID = {"learning_rate": (1e-4, 2e-4), "seed": (1, 2, 3)}
SPACE: Space = {"learning_rate": Range(1e-5, 1e-3, log=True), "lr_scheduler_type": Choices(("linear", "cosine"))}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_grid_has_every_combination_once_with_all_its_settings() -> None:
    made = sweeps.grid(DEMO, "demo", GRID)
    assert [str(element) for element in made.elements] == [
        f"learning_rate={rate} seed={seed}" for rate in (0.0001, 0.0002) for seed in (1, 2, 3)
    ]
    for number, element in enumerate(made.elements):
        assert (element.number, element.run) == (number, made.folder / str(number))
        assert config.differing_settings(element.config, config.from_dict(element.settings, base=DEMO)) == []


def test_the_folder_depends_on_the_arguments() -> None:
    folder = sweeps.grid(DEMO, "demo", GRID).folder
    assert folder == sweeps.grid(DEMO, "demo", GRID).folder
    assert folder.parent == Path("runs").absolute() and folder.name.startswith("demo-sweep-")
    assert folder == sweeps.grid(config.from_dict({"max_tokens_per_device": 99}, base=DEMO), "demo", GRID).folder
    others = [
        sweeps.grid(config.from_dict({"weight_decay": 0.5}, base=DEMO), "demo", GRID).folder,
        sweeps.grid(DEMO, "demo", {**GRID, "seed": (1, 2)}).folder,
        sweeps.trials(DEMO, "demo", SPACE, 3).folder,
    ]
    assert len({folder, *others}) == 4


def test_a_folder_of_another_sweep_is_rejected() -> None:
    chosen = config.from_dict({"output_dir": "mine"}, base=DEMO)
    sweeps.write(sweeps.grid(chosen, "demo", GRID), [])
    sweeps.write(sweeps.grid(chosen, "demo", GRID), [])
    with pytest.raises(Refused, match="mine holds a sweep with another seed: choose another folder"):
        sweeps.write(sweeps.grid(chosen, "demo", {**GRID, "seed": (1, 4)}), [])
    with pytest.raises(Refused, match="mine holds a sweep with another weight_decay"):
        sweeps.write(sweeps.grid(config.from_dict({"weight_decay": 0.5}, base=chosen), "demo", GRID), [])
    Path("other").mkdir()
    Path("other", "thesis.tex").touch()
    with pytest.raises(Refused, match="other exists and is not a sweep"):
        sweeps.write(sweeps.grid(config.from_dict({"output_dir": "other"}, base=DEMO), "demo", GRID), [])


def test_a_grid_in_another_order_would_renumber_its_runs_and_is_rejected() -> None:
    sweeps.write(sweeps.grid(DEMO, "demo", GRID), [])
    turned = sweeps.grid(DEMO, "demo", dict(reversed(GRID.items())))
    assert turned.elements[1].settings != sweeps.grid(DEMO, "demo", GRID).elements[1].settings
    with pytest.raises(Refused, match="in another order: give them as learning_rate, seed, or"):
        sweeps.refuse_others(turned)


def test_the_table_of_elements_is_in_the_folder() -> None:
    made = sweeps.grid(DEMO, "demo", {"seed": (1, 2)})
    sweeps.write(made, ["demo", "--grid", "seed=1,2"])
    table = json.loads((made.folder / "sweep.json").read_text(encoding="utf-8"))
    assert table["elements"] == [{"run": "0", "settings": {"seed": 1}}, {"run": "1", "settings": {"seed": 2}}]
    assert config.differing_settings(config.load_recipe(str(made.folder / "config.yaml")), DEMO) == []


def test_more_trials_continue_a_search_and_a_trial_keeps_its_settings() -> None:
    made = sweeps.trials(DEMO, "demo", SPACE, 2)
    sweeps.write(made, [])
    known = json.loads((made.folder / "1" / "trial.json").read_text(encoding="utf-8"))
    own = {"learning_rate": 3e-4, "lr_scheduler_type": "cosine"}
    (made.folder / "1" / "trial.json").write_text(json.dumps({**known, "number": 0, "settings": own}), encoding="utf-8")
    more = sweeps.trials(DEMO, "demo", SPACE, 4)
    sweeps.write(more, [])
    assert more.folder == made.folder
    assert [dict(element.settings) for element in more.elements] == [{}, own, {}, {}]
    assert more.elements[1].config.training.learning_rate == 3e-4
    assert len(list(made.folder.glob("*/trial.json"))) == 4


REJECTED = {
    "a value out of bounds": lambda: sweeps.grid(DEMO, "demo", {"learning_rate": (1e-4, -1.0), "seed": (1,)}),
    "an end of a range out of bounds": lambda: sweeps.trials(DEMO, "demo", {"warmup_ratio": Range(0.0, 1.0)}, 3),
    "a combination that cannot work": lambda: sweeps.grid(DEMO, "demo", {"eval_strategy": ("epoch", "steps")}),
    "no trials": lambda: sweeps.trials(DEMO, "demo", SPACE, 0),
    "no training": lambda: sweeps.trials(config.from_dict({"do_train": False}, base=DEMO), "demo", SPACE, 3),
    "too many": lambda: sweeps.grid(DEMO, "demo", {"seed": tuple(range(200)), "max_steps": tuple(range(1, 200))}),
    "too many to be listed": lambda: sweeps.grid(
        DEMO, "demo", {name: tuple(range(10**4)) for name in ("seed", "max_steps", "lora_rank")}
    ),
}
SAID = {
    "a value out of bounds": "--grid learning_rate=-1.0 seed=1: --learning_rate must be above 0, not -1.0",
    "an end of a range out of bounds": "--search warmup_ratio=1.0: --warmup_ratio must be",
    "a combination that cannot work": "--grid eval_strategy=steps: --eval_strategy steps needs --eval_steps",
    "no trials": "--trials must be above 0, not 0",
    "no training": "a search needs runs that train",
    "too many": "39800 runs are too many for one sweep: 10000 at most",
    "too many to be listed": "1000000000000 runs are too many for one sweep: 10000 at most",
}


@pytest.mark.parametrize("case", REJECTED)
def test_settings_that_no_run_accepts_are_rejected(case: str) -> None:
    with pytest.raises(Refused) as rejected:
        REJECTED[case]()
    assert SAID[case] in str(rejected.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["demo", "--overwrite_output_dir"], "--overwrite_output_dir is not for a sweep: a sweep continues"),
        (["demo", "--push_to_hub"], "--push_to_hub is not for a sweep: each run would upload its model"),
        (["demo", "--seed", "3"], "--seed is given and varies"),
        (["demo", "--seed=3"], "--seed is given and varies"),
    ],
)
def test_settings_that_runs_cannot_share_are_rejected(words: list[str], message: str) -> None:
    with pytest.raises(Refused, match=message):
        sweeps.base(words, ["seed"])
