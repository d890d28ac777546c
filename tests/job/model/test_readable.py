"""Rows that the model cannot read are named before anything is computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from job.config import Model
from job.data.dataset import Split
from job.errors import Refused
from job.model import loading, readable, tokenizers
from tests.support import families


def split(rows: list[list[int]], row_ids: list[int] | None = None) -> Any:
    return Split(
        tokens=Dataset.from_dict({"input_ids": rows}),
        lengths=np.array([len(row) for row in rows], dtype=np.int32),
        labels=None,
        row_ids=np.array(row_ids or range(len(rows)), dtype=np.int32),
    )


class Parts:
    """What is asked of job.data.dataset.Data."""

    def __init__(self, **parts: Split) -> None:
        self.train, self.evaluation, self.test = (parts.get(name) for name in ("train", "evaluation", "test"))


def check(family: str, folder: Path, **parts: Split) -> None:
    asked = Model(model_name_or_path=str(families.make(family, folder)))
    pretrained = loading.load_config(asked)
    data: Any = Parts(**parts)
    readable.check_rows(data, tokenizers.load(asked, pretrained), pretrained)


def test_an_end_token_in_a_text_is_named_with_its_rows(tmp_path: Path) -> None:
    rows = [[0, 9, 2], [0, 9, 2, 9, 2], [0, 7, 8, 2], [2, 2, 2]]
    with pytest.raises(Refused, match=r"^rows 2, 4 of the test data: </s> in a text ends it; take it out of the text$"):
        check("bart", tmp_path, train=split(rows[:1]), test=split(rows))
    check("bart", tmp_path, train=split([rows[0], rows[2]]), test=split([[0, 9, 2, 2, 9, 2]]))
    check("bert", tmp_path / "other", train=split(rows))


def test_rows_of_a_part_have_the_numbers_of_the_file(tmp_path: Path) -> None:
    whole = split([[0, 9, 2], [0, 2, 2], [0, 7, 2], [0, 8, 2]])
    part = replace(whole, tokens=whole.tokens.select([3, 1, 0]), lengths=whole.lengths[[3, 1, 0]],
                   row_ids=np.array([30, 10, 0], dtype=np.int32))  # fmt: skip
    with pytest.raises(Refused, match=r"^row 11 of the training data"):
        check("bart", tmp_path, train=part)


def test_a_token_without_an_embedding_is_named_with_its_row(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    families.make("llama", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, extra_special_tokens={"image_token": "<image>"})
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    tokenizer.save_pretrained(tmp_path)
    asked = Model(model_name_or_path=str(tmp_path))
    pretrained = loading.load_config(asked)
    loaded = tokenizers.load(asked, pretrained)
    data: Any = Parts(train=split([[1, 9]]), evaluation=split([[1, 9], loaded("see <image>")["input_ids"]]))
    with pytest.raises(Refused, match=r"^row 2 of the evaluation data: it has a token that the model has no embedding"):
        readable.check_rows(data, loaded, pretrained)
