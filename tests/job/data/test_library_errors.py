"""Errors of the libraries that load data."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from job.data.library_errors import causes, full_disk_refused
from job.errors import Refused


def circle() -> Refused:
    """As text_tables raises the error of a row, from the library's error that wraps it."""
    row, wrapper = Refused("row 3: no label"), RuntimeError("while generating the dataset")
    row.__cause__, wrapper.__cause__ = wrapper, row
    return row


def test_a_circle_of_causes_ends() -> None:
    assert [str(cause) for cause in causes(circle())] == ["row 3: no label", "while generating the dataset"]


def test_an_error_that_is_no_full_disk_is_raised_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"^row 3: no label$"), full_disk_refused(tmp_path):
        raise circle()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_reported_for_the_cache_though_a_library_wraps_it(number: int, tmp_path: Path) -> None:
    wrapper = RuntimeError("while generating the dataset")
    wrapper.__cause__ = OSError(number, "no room")
    with pytest.raises(Refused, match=f"^the disk of {tmp_path} is full: "), full_disk_refused(tmp_path):
        raise wrapper
