"""Unusual tables: the job reads exactly the rows that were written, or rejects the file. `make fuzz` has more.

Nothing else may happen: no other exception, no row lost, duplicated, moved or changed on its way to tokens and classes.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from job import checks, config
from job.config import tasks
from job.data import dataset
from job.errors import Refused
from tests.support.tiny import tiny_model, tiny_tokenizer

BOUNDED = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
ODD = ["", " ", "NA", "null", "007", "1e5", "ﷺ", "e\u0301", "\x00", "\x1b[31m", "\u2028", "a,b", 'say "hi"', "'",
       "\ufeff", "line\nbreak", "line\r\nbreak", "\t", "x" * 5000, "😀" * 50, "-1", "true"]  # fmt: skip
TEXT = st.sampled_from(ODD) | st.text(max_size=30)
LABEL = (
    st.sampled_from(["a", "b", "c"])
    | st.integers(-2, 3)
    | st.sampled_from([1.5, True, None, "", "NaN", [], ["a"], {"a": 1}, "0", "1.0"])
    | TEXT
)
ROWS = st.lists(st.tuples(TEXT, LABEL), max_size=12) | st.lists(
    st.tuples(st.text("abc ", min_size=1, max_size=9), st.sampled_from(["a", "b"]) | st.integers(0, 1)), max_size=12
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer(folder, ["break", "line"])
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


def as_csv(rows: list[tuple[str, Any]], delimiter: str, newline: str, quoting: int, bom: bool) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator=newline, quoting=quoting)  # type: ignore[arg-type]
    writer.writerow(["text", "label"])
    writer.writerows((text, "" if label is None else label) for text, label in rows)
    return ("\ufeff" * bom + file.getvalue()).encode("utf-8", "surrogatepass")


def as_jsonl(rows: list[tuple[str, Any]], ascii_only: bool) -> bytes:
    lines = [json.dumps({"text": text, "label": label}, ensure_ascii=ascii_only) for text, label in rows]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def prepared(folder: Path, name: str, content: bytes, tokenizer: Any) -> dataset.Data | str:
    """What the job reads from a file, or its one-line error."""
    path = folder / name
    path.write_bytes(content)
    try:
        given_config = config.from_dict({"train_file": str(path), "validation_file": str(path)})
        checks.check(given_config)
        return dataset.prepare(given_config, tokenizer, None, 32)
    except Refused as rejected:
        line = str(rejected)
    assert len(line.splitlines()) == 1
    return line


def same_rows(made: dataset.Data, rows: list[tuple[str, Any]], tokenizer: Any) -> None:
    """Fail unless `made` holds these very rows, in order."""
    assert made.train is not None
    assert made.train.labels is not None
    expected = [tokenizer(text, truncation=True, max_length=32)["input_ids"] for text, _ in rows]
    assert [row.tolist() for row in made.train.rows(np.arange(len(rows)))["input_ids"]] == expected
    values = [label for _, label in rows]
    if made.task.kind == tasks.SINGLE_LABEL:
        assert [made.task.names[i] for i in made.train.labels] == [str(value) for value in values]
    elif made.task.kind == tasks.REGRESSION:
        assert made.train.labels.tolist() == [float(value) for value in values]
    else:
        named = [{made.task.names[i] for i in np.flatnonzero(row)} for row in made.train.labels]
        assert named == [{str(v) for v in value} for value in values]


@BOUNDED
@given(rows=ROWS, tab=st.booleans(), crlf=st.booleans(), quoted=st.booleans(), bom=st.booleans())
@example(rows=[("a", str(i)) for i in range(300)], tab=False, crlf=False, quoted=False, bom=False)
@example(rows=[("a b", "x"), ("c\r\nd", "y")], tab=False, crlf=True, quoted=False, bom=True)
def test_csv_rows_are_read_as_written_or_rejected(
    rows: list[tuple[str, Any]], tab: bool, crlf: bool, quoted: bool, bom: bool, tokenizer: Any
) -> None:
    quoting = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    content = as_csv(rows, "\t" if tab else ",", "\r\n" if crlf else "\n", quoting, bom)
    with tempfile.TemporaryDirectory() as folder:
        made = prepared(Path(folder), "t.tsv" if tab else "t.csv", content, tokenizer)
        if not isinstance(made, str):
            same_rows(made, rows, tokenizer)


@BOUNDED
@given(rows=ROWS, ascii_only=st.booleans())
@example(rows=[("a", 0.0), ("b", 1)], ascii_only=True)
def test_jsonl_rows_are_read_as_written_or_rejected(
    rows: list[tuple[str, Any]], ascii_only: bool, tokenizer: Any
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = prepared(Path(folder), "t.jsonl", as_jsonl(rows, ascii_only), tokenizer)
        if not isinstance(made, str):
            same_rows(made, rows, tokenizer)


@BOUNDED
@given(
    content=st.binary(max_size=80) | st.text('text,label\n"\t{}[]:1a', max_size=60).map(str.encode),
    name=st.sampled_from(["t.csv", "t.tsv", "t.jsonl", "t.json", "t.parquet", "t.csv.gz"]),
    start=st.sampled_from([b"", b"text,label\n", b"text\tlabel\n", b'{"text": "a", "label": 1}\n', b"\xef\xbb\xbf"]),
)
def test_any_bytes_are_read_or_rejected(content: bytes, name: str, start: bytes, tokenizer: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prepared(Path(folder), name, start + content, tokenizer)


def test_the_comparison_detects_a_changed_row(tmp_path: Path, tokenizer: Any) -> None:
    rows: list[tuple[str, Any]] = [("line a", "x"), ("line b", "y"), ("break", "x")]
    made = prepared(tmp_path, "t.jsonl", as_jsonl(rows, False), tokenizer)
    assert not isinstance(made, str)
    same_rows(made, rows, tokenizer)
    for other in (rows[::-1], [*rows[:2], ("break", "y")], [*rows[:2], ("breaks", "x")]):
        with pytest.raises(AssertionError):
            same_rows(made, other, tokenizer)


def test_a_whole_run_on_an_unusual_table_uses_every_row(tmp_path: Path) -> None:
    from job import train

    rows = [(text, "ab"[i % 2]) for i, text in enumerate(ODD) if text.strip()]
    (tmp_path / "t.jsonl").write_bytes(as_jsonl(rows, False))
    tiny_model(tmp_path / "model", num_labels=None, layers=1)
    table = str(tmp_path / "t.jsonl")
    values = {"train_file": table, "validation_file": table, "num_train_epochs": 1,
              "model_name_or_path": str(tmp_path / "model"), "output_dir": str(tmp_path / "out")}  # fmt: skip
    results = train.train(config.from_dict(values))
    assert results["train"]["examples"] == results["eval"]["examples"] == len(rows)
