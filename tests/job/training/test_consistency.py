"""A checkpoint is resumed only in the precision in which it was saved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from job.errors import Refused
from job.training import consistency


def checkpoint(folder: Path, **state: str) -> Path:
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def test_another_precision_than_that_of_the_checkpoint_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"was saved in mixed precision bf16, and this start has no: start it with "):
        consistency.refuse_other_precision(checkpoint(tmp_path, mixed_precision="bf16"), "no")


def test_the_same_precision_is_accepted(tmp_path: Path) -> None:
    consistency.refuse_other_precision(checkpoint(tmp_path, mixed_precision="bf16"), "bf16")
    consistency.refuse_other_precision(None, "bf16")


def test_a_checkpoint_of_a_version_that_did_not_record_the_precision_is_accepted(tmp_path: Path) -> None:
    consistency.refuse_other_precision(checkpoint(tmp_path), "bf16")
