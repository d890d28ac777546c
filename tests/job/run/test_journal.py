"""A search continues after an append to its journal that was cut off."""

from __future__ import annotations

from pathlib import Path

import pytest

from job.config import Config
from job.errors import Refused
from job.run import lock, trial
from job.run.space import Range


def ask(sweep: Path, number: int) -> int:
    """The number in the study of a trial that starts now."""
    run = sweep / str(number)
    run.mkdir()
    trial.prepare(run, {"weight_decay": Range(0.0, 0.1)}, sweep)
    try:
        started, _ = trial.ask(run, Config())
    finally:
        lock.release(run)
    assert started is not None
    return started.number


@pytest.mark.parametrize("torn", [b'{"op_code":4,"work', b"\0\0\0\0", b"{"])
def test_half_a_line_at_the_end_is_removed_before_the_next_append(torn: bytes, tmp_path: Path) -> None:
    ask(tmp_path, 0)
    journal = tmp_path / trial.JOURNAL
    before = journal.read_bytes()
    journal.write_bytes(before + torn)
    assert [ask(tmp_path, 1), ask(tmp_path, 2)] == [1, 2]
    assert journal.read_bytes().startswith(before) and torn + b"{" not in journal.read_bytes()
    assert len(trial._study(tmp_path / "0").trials) == 3


def test_a_damaged_line_is_named_with_the_remedy(tmp_path: Path) -> None:
    ask(tmp_path, 0)
    journal = tmp_path / trial.JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:1], b"\0\0{}\n", *lines[1:]]))
    with pytest.raises(Refused, match=r"study\.journal: line 2 is damaged: .* delete that line"):
        ask(tmp_path, 1)
    journal.write_bytes(b"".join(lines))
    assert ask(tmp_path, 2) == 1
