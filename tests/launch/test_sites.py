"""Values from flags and the environment: how they are parsed, and which are rejected."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.errors import Refused
from launch import sites

TIMES = {
    "30": 30,
    "30m": 30,
    "4h": 240,
    "2d": 2880,
    "1-12:00:00": 2160,
    "1-12": 2160,
    "1-12:30": 2190,
    "00:00:01": 1,
    "01:30:30": 91,
}


@pytest.mark.parametrize("text", TIMES)
def test_times_are_minutes(text: str) -> None:
    assert sites.minutes(text) == TIMES[text]


@pytest.mark.parametrize("text", ["", "0", "0h", "-1", "1.5h", "30:00", "4 h", "h", "1-", "00:00:00", "1e3", "\u0664"])
def test_other_times_are_rejected(text: str) -> None:
    with pytest.raises(Refused, match="--time takes 30"):
        sites.minutes(text)


@given(st.sampled_from([known.name for known in sites.fields(sites.Site)]), st.text())
def test_no_value_can_inject_a_line(name: str, text: str) -> None:
    try:
        site = sites.read({name: text}, {})
    except Refused:
        return
    assert len(getattr(site, name).splitlines()) <= 1
    assert not re.search(r"[\x00-\x1f\x7f]", getattr(site, name))


def test_sbatch_flags_are_split_like_a_shell() -> None:
    assert sites.sbatch_flags("--mem=64G --exclusive --comment='my run'") == {
        "mem": "64G",
        "exclusive": True,
        "comment": "my run",
    }


def test_unset_values_have_defaults() -> None:
    assert sites.read({"partition": ""}, {"MUSTER_TIME": ""}) == sites.Site()
