"""A micro-batch is what the tokenizer itself would pad."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from job.batching import collate
from job.data.dataset import Split
from tests.support.tiny import tiny_tokenizer

ROWS = [[2, 5, 3], [2, 5, 6, 7, 8, 3], [2, 3], [2, 9, 9, 3], [2, 8, 3]]
KINDS = [[0, 1, 1], [0, 0, 1, 1, 1, 1], [0, 1], [0, 0, 0, 1], [0, 0, 1]]
LABELS = np.array([4, 0, 2, 1, 3])


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer(folder, [])
    return folder


def load(folder: Path, **options: Any) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, **options)


def split(**columns: list[list[int]]) -> Split:
    lengths = np.array([len(row) for row in columns["input_ids"]], dtype=np.int32)
    return Split(Dataset.from_dict(columns).with_format("numpy"), lengths, LABELS, np.arange(len(LABELS)))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("indices", [[1, 3, 0], [2], [0, 4], [0, 0], [4, 3, 2, 1, 0]], ids=str)
@pytest.mark.parametrize("columns", [{"input_ids": ROWS}, {"input_ids": ROWS, "token_type_ids": KINDS}], ids=len)
def test_padding_is_the_tokenizers_own(
    side: str, indices: list[int], columns: dict[str, list[list[int]]], tokenizer_folder: Path
) -> None:
    tokenizer = load(tokenizer_folder, padding_side=side)
    inputs, labels = collate.padded(split(**columns), tokenizer, np.array(indices))
    chosen = {name: [rows[i] for i in indices] for name, rows in columns.items()}
    expected = tokenizer.pad(chosen, return_tensors="pt")
    assert set(inputs) == set(expected)
    for name, tensor in inputs.items():
        assert tensor.dtype == torch.int64
        assert torch.equal(tensor, expected[name]), name
    assert labels.tolist() == [LABELS[i] for i in indices]


def test_the_tokenizers_own_padding_ids_are_used(tokenizer_folder: Path) -> None:
    tokenizer = load(tokenizer_folder)
    tokenizer.pad_token, tokenizer._pad_token_type_id = "[MASK]", 1
    columns = split(input_ids=ROWS, token_type_ids=KINDS)
    inputs, _ = collate.padded(columns, tokenizer, np.array([0, 3]))
    assert inputs["input_ids"][0].tolist() == [2, 5, 3, tokenizer.mask_token_id]
    assert inputs["token_type_ids"][0].tolist() == [0, 1, 1, 1]
