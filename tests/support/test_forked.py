"""A forked run equals a cold one: the same bytes in its run folder, for any number of processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.support.interrupted import World, differences
from tests.support.launch import TRAIN, Finished, alone, cold, cold_torchrun, environment, torchrun

OWN = {"started", "ended", "seconds", "command"}
"""What the manifests of two runs differ in."""


WORLD = {"num_train_epochs": 1}


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_cold_and_a_forked_run_give_identical_bytes(world: World, processes: int) -> None:
    starts: dict[str, Callable[..., Finished]] = {"cold": cold, "forked": alone}
    if processes > 1:
        starts = {"cold": partial(cold_torchrun, processes), "forked": partial(torchrun, processes)}
    outs, outputs = [world.folder / f"{name}{processes}" for name in starts], []
    for start, out in zip(starts.values(), outs, strict=True):
        done = start(TRAIN, *world.words(out, {}), env=world.environment(), cwd=world.folder).expect(0)
        assert "terminate called" not in done.stderr
        notices = [line for line in done.stderr.splitlines() if line.endswith(" ...")]  # of what took five seconds
        outputs.append((done.stdout, done.stderr.count("\n") - len(notices)))
    assert differences(*outs) == []
    one, other = (yaml.safe_load((out / "config.yaml").read_text()) for out in outs)
    assert one == other
    one, other = (json.loads((out / "manifest.json").read_text()) for out in outs)
    assert {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)} <= OWN
    assert outputs[0] == outputs[1]


def test_settings_read_at_import_are_rejected_for_forked_runs(tmp_path: Path) -> None:
    env = environment(tmp_path, HF_ENDPOINT="http://127.0.0.1:1")
    with pytest.raises(ValueError, match=r"^HF_ENDPOINT: read when the libraries are imported"):
        alone(TRAIN, env=env, cwd=tmp_path)
