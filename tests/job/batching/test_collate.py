"""A micro-batch equals what the tokenizer itself would pad."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from job.batching import collate
from job.batching.collate import PackedFormat, Padding
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
def test_padding_equals_that_of_the_tokenizer(
    side: str, indices: list[int], columns: dict[str, list[list[int]]], tokenizer_folder: Path
) -> None:
    tokenizer = load(tokenizer_folder, padding_side=side)
    padding = Padding(tokenizer.pad_token_id, tokenizer.pad_token_type_id, left=side == "left")
    inputs, labels = collate.padded(split(**columns), padding, np.array(indices))
    chosen = {name: [rows[i] for i in indices] for name, rows in columns.items()}
    expected = tokenizer.pad(chosen, return_tensors="pt")
    assert set(inputs) == set(expected)
    for name, tensor in inputs.items():
        assert tensor.dtype == torch.int64
        assert torch.equal(tensor, expected[name]), name
    assert labels is not None and labels.tolist() == [LABELS[i] for i in indices]


def test_rows_are_padded_with_the_given_ids() -> None:
    columns = split(input_ids=ROWS, token_type_ids=KINDS)
    inputs, _ = collate.padded(columns, Padding(token_id=4, type_id=1), np.array([0, 3]))
    assert inputs["input_ids"][0].tolist() == [2, 5, 3, 4]
    assert inputs["token_type_ids"][0].tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize("indices", [[1, 3, 0], [2], [0, 0]], ids=str)
@pytest.mark.parametrize("round_to", [1, 8])
def test_packed_rows_are_concatenated_and_the_layout_has_their_offsets(indices: list[int], round_to: int) -> None:
    form = PackedFormat(pad_token_id=4, padding_position=None, round_to=round_to, longest=6, with_lengths=True)
    inputs, labels = collate.packed(split(input_ids=ROWS, token_type_ids=KINDS), form, np.array(indices))
    layout, rows = inputs["packed"], [ROWS[i] for i in indices]
    tokens = [token for row in rows for token in row]
    assert inputs["input_ids"].shape[1] % round_to == 0
    assert inputs["input_ids"][0].tolist() == tokens + [4] * (inputs["input_ids"].shape[1] - len(tokens))
    assert inputs["position_ids"][0, : len(tokens)].tolist() == [i for row in rows for i in range(len(row))]
    assert layout.lengths == tuple(map(len, rows)) and layout.longest == 6
    assert layout.bounds.tolist() == [0, *np.cumsum([len(row) for row in rows])]
    padded, _ = collate.padded(split(input_ids=ROWS, token_type_ids=KINDS), Padding(4), np.array(indices))
    assert torch.equal(layout.mask, padded["attention_mask"])
    assert torch.equal(layout.pad(inputs["input_ids"][0], 4), padded["input_ids"])
    assert torch.equal(layout.pad(inputs["token_type_ids"][0]), padded["token_type_ids"])
    assert labels is not None and labels.tolist() == [LABELS[i] for i in indices]


def test_no_python_lengths_reach_a_compiled_graph() -> None:
    form = PackedFormat(4, None, 1, longest=6, with_lengths=False)
    layouts = [collate.packed(split(input_ids=ROWS), form, np.array(i))[0]["packed"] for i in ([0, 1], [2])]
    assert [(layout.lengths, layout.longest) for layout in layouts] == [((), 6), ((), 6)]
