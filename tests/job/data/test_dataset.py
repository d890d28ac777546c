"""Text is tokenised once, with exactly the tokens that the tokenizer gives row by row."""

import csv
import json
import re
import resource
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from job import config
from job.config.tasks import SINGLE_LABEL, Task
from job.data import dataset
from job.errors import Refused
from tests.support.tiny import tiny_tokenizer

TEXTS = ["good", "é", "a very bad film, sadly", "Grüße 😀\nsecond line", "x" * 300, "NA", "007", "good " * 40] * 3
LABELS = ["10", "2", "1"] * 8
MAX_LENGTH = 16


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer(folder, ["good", "bad", "film"])
    return folder


def load(folder: Path, **options: Any) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, **options)


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> Any:
    return load(tokenizer_folder)


def write(path: Path, **columns: list[str]) -> str:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
    return str(path)


def prepared(path: str, tokenizer: Any, max_length: int = MAX_LENGTH, **settings: Any) -> Any:
    given = config.from_dict({"train_file": path, "validation_file": path, **settings})
    return dataset.prepare(given, tokenizer, None, max_length)


def ids(split: dataset.Split, column: str = "input_ids") -> list[list[int]]:
    return [row.tolist() for row in split.rows(np.arange(len(split)))[column]]


@pytest.mark.usefixtures("datasets_cache")
def test_tokens_equal_those_of_each_text_alone(tmp_path: Path, tokenizer: Any) -> None:
    read = prepared(write(tmp_path / "a.csv", text=TEXTS, label=LABELS), tokenizer)
    alone = [tokenizer(text, truncation=True, max_length=MAX_LENGTH)["input_ids"] for text in TEXTS]
    assert read.train is not None
    assert ids(read.train) == ids(read.evaluation) == alone
    assert read.train.lengths.tolist() == [len(tokens) for tokens in alone]
    assert max(map(len, alone)) == MAX_LENGTH and len({*map(len, alone)}) > 3
    assert (read.train.lengths.dtype, read.train.labels.dtype) == (np.int32, np.int64)
    assert read.task.names == ("1", "2", "10")
    assert [read.task.names[i] for i in read.train.labels] == LABELS
    assert read.train.row_ids.tolist() == list(range(len(TEXTS)))


@pytest.mark.usefixtures("datasets_cache")
@pytest.mark.parametrize("now", [TEXTS[::-1], TEXTS[:-1], [*TEXTS, "new"]])
def test_the_rows_of_a_finished_run_are_read_again_only_if_they_are_unchanged(
    now: list[str], tmp_path: Path, tokenizer: Any
) -> None:
    path = write(tmp_path / "a.csv", text=TEXTS, label=LABELS)
    test = write(tmp_path / "test.csv", text=TEXTS)
    fingerprint = prepared(path, tokenizer, test_file=test).fingerprint
    given = config.from_dict({"train_file": path, "validation_file": path, "test_file": test})
    inputs = dataset.read_test_inputs(given, fingerprint)
    assert inputs is not None and [row["text"] for row in inputs.rows()] == TEXTS
    write(tmp_path / "test.csv", text=now)
    with pytest.raises(Refused, match="the data changed since this run finished: choose another --output_dir, or"):
        dataset.read_test_inputs(given, fingerprint)


@pytest.mark.usefixtures("datasets_cache")
def test_pairs_are_tokenised_together_with_segment_ids(tmp_path: Path, tokenizer: Any) -> None:
    other = TEXTS[::-1]
    read = prepared(write(tmp_path / "a.csv", sentence1=TEXTS, sentence2=other, label=LABELS), tokenizer)
    alone = [tokenizer([a], [b], truncation=True, max_length=MAX_LENGTH) for a, b in zip(TEXTS, other, strict=True)]
    assert read.text_columns == ("sentence1", "sentence2")
    assert ids(read.evaluation) == [row["input_ids"][0] for row in alone]
    assert ids(read.evaluation, "token_type_ids") == [row["token_type_ids"][0] for row in alone]
    assert {kind for row in ids(read.evaluation, "token_type_ids") for kind in row} == {0, 1}


@pytest.fixture
def rows_tokenised(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows in each tokenizer call so far."""
    calls: list[int] = []
    call = type(tokenizer).__call__

    def counting(self: Any, *texts: list[str], **options: Any) -> Any:
        calls.append(len(texts[0]))
        return call(self, *texts, **options)

    monkeypatch.setattr(type(tokenizer), "__call__", counting)
    return calls


@pytest.mark.usefixtures("datasets_cache")
def test_text_is_tokenised_once_for_all_processes_and_runs(
    tmp_path: Path, tokenizer_folder: Path, rows_tokenised: list[int]
) -> None:
    path = write(tmp_path / "a.csv", text=TEXTS, label=LABELS)
    first = prepared(path, load(tokenizer_folder))
    assert sum(rows_tokenised) == len(TEXTS)  # both splits are this one file
    rows_tokenised.clear()

    used = load(tokenizer_folder)
    used(["a text"], padding="max_length", truncation=True, max_length=9)  # leaves its state in the tokenizer
    rows_tokenised.clear()
    copied = write(tmp_path / "copy.csv", text=TEXTS, label=LABELS)
    assert ids(prepared(copied, used).evaluation) == ids(first.evaluation)
    assert rows_tokenised == []


@pytest.mark.usefixtures("datasets_cache")
@pytest.mark.parametrize("change", ["max_length", "one letter of the text", "tokenizer", "columns"])
def test_settings_that_change_the_tokens_miss_the_cache(
    change: str, tmp_path: Path, tokenizer_folder: Path, tokenizer: Any, rows_tokenised: list[int]
) -> None:
    columns = {"text": TEXTS, "label": LABELS, "other": TEXTS[::-1]}
    path = write(tmp_path / "a.csv", **columns)
    prepared(path, tokenizer)
    rows_tokenised.clear()
    if change == "max_length":
        prepared(path, tokenizer, MAX_LENGTH - 1)
    elif change == "columns":
        prepared(path, tokenizer, text_column_names=["other"])
    elif change == "tokenizer":
        tiny_tokenizer(tmp_path / "more", ["good", "bad", "film", "sadly"])
        prepared(path, load(tmp_path / "more"))
    else:
        prepared(write(tmp_path / "a.csv", **columns | {"text": ["food", *TEXTS[1:]]}), tokenizer)
    assert sum(rows_tokenised) == len(TEXTS)


@pytest.mark.usefixtures("datasets_cache")
def test_parquet_without_rows_is_rejected_for_that(tmp_path: Path, tokenizer: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.int64())}), path)
    with pytest.raises(Refused, match=f"{path} has no rows to train on"):
        prepared(path, tokenizer)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("largest", [10_000, 150_000])
def test_a_full_disk_of_the_cache_is_named(
    largest: int, ending: str, tmp_path: Path, tokenizer: Any, datasets_cache: Path
) -> None:
    """Where there is no room for the table, and where there is room for it but not for the tokens."""
    import pandas

    path = tmp_path / f"a.{ending}"
    rows = pandas.DataFrame({"text": [f"{number} " * 10 for number in range(2000)], "label": ["a", "b"] * 1000})
    rows.to_csv(path, index=False) if ending == "csv" else rows.to_parquet(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
    try:
        with pytest.raises(Refused) as caught:
            prepared(str(path), tokenizer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value) == (
        f"the disk of {datasets_cache} is full: make room there, or set HF_HOME to a folder on a larger disk"
    )
    assert ("tokenization.py" in "".join(traceback.format_exception(caught.value))) == (largest > 10_000)


@pytest.mark.usefixtures("datasets_cache")
def test_special_tokens_in_texts_are_not_read_from_the_cache_of_a_tokenizer_that_treats_them_otherwise(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    path = write(tmp_path / "a.csv", text=["good [SEP] bad", "film"] * 3, label=["1", "2"] * 3)
    for split in (False, True, False):
        tokenizer = load(tokenizer_folder, split_special_tokens=split)
        alone = tokenizer("good [SEP] bad", truncation=True, max_length=MAX_LENGTH)["input_ids"]
        assert ids(prepared(path, tokenizer).evaluation)[0] == alone
        assert alone.count(tokenizer.sep_token_id) == (1 if split else 2)


@pytest.mark.parametrize(("size", "limit"), [(100, 10), (100, 99), (7, 1), (5, 5), (5, 9), (5, None)])
def test_a_subset_equals_that_of_the_tutorial(size: int, limit: int | None) -> None:
    from datasets import Dataset

    shuffled = Dataset.from_dict({"i": range(size)}).shuffle(seed=42)["i"]
    drawn = dataset.subset(size, limit).tolist()
    assert set(drawn) == set(list(shuffled)[:limit])
    assert drawn == sorted(drawn)


@pytest.mark.usefixtures("datasets_cache")
def test_a_subset_keeps_rows_labels_and_row_numbers_together(tmp_path: Path, tokenizer: Any) -> None:
    path = write(tmp_path / "a.csv", text=TEXTS, label=LABELS)
    whole, part = prepared(path, tokenizer).train, prepared(path, tokenizer, max_train_samples=5).train
    assert whole is not None and part is not None
    assert part.row_ids.tolist() == dataset.subset(len(TEXTS), 5).tolist()
    assert ids(part) == [ids(whole)[i] for i in part.row_ids]
    assert part.labels.tolist() == whole.labels[part.row_ids].tolist()
    assert part.lengths.tolist() == whole.lengths[part.row_ids].tolist()


@pytest.mark.usefixtures("datasets_cache")
def test_the_subset_does_not_define_the_classes(tmp_path: Path, tokenizer: Any) -> None:
    path = write(tmp_path / "a.csv", text=TEXTS, label=LABELS)
    assert prepared(path, tokenizer, max_train_samples=1, max_eval_samples=1).task.names == ("1", "2", "10")


@pytest.mark.usefixtures("datasets_cache")
def test_without_training_the_models_classes_are_used(tmp_path: Path, tokenizer: Any) -> None:
    path = write(tmp_path / "a.csv", text=["x", "y"], label=["neg", "pos"])
    given = config.from_dict({"validation_file": path, "do_train": False})
    read = dataset.prepare(given, tokenizer, Task(SINGLE_LABEL, ("pos", "neg")), MAX_LENGTH)
    assert read.train is None
    assert read.evaluation is not None and read.evaluation.labels is not None
    assert read.evaluation.labels.tolist() == [1, 0]
    with pytest.raises(Refused) as caught:
        dataset.prepare(given, tokenizer, None, MAX_LENGTH)
    assert str(caught.value) == "the model has no class names: give a fine-tuned model as --model_name_or_path"


def bare_tokenizer(**special: str) -> Any:
    """A tokenizer that adds no special tokens, as those of decoders."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    bare = Tokenizer(models.WordLevel({"x": 0, "?": 1, "</s>": 2, "<pad>": 3}, unk_token="?"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=bare, **special)


@pytest.mark.usefixtures("datasets_cache")
@pytest.mark.parametrize(
    ("special", "token"),
    [({"eos_token": "</s>", "pad_token": "<pad>"}, 2), ({"pad_token": "<pad>"}, 3), ({"unk_token": "?"}, 1)],
)
def test_a_test_row_without_tokens_gets_one(special: dict[str, str], token: int, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl({"text": "x"}, {"text": None}, {"text": " "}, {"text": "x x"}))
    path = str(tmp_path / "a.jsonl")
    settings = config.from_dict({"test_file": path, "do_train": False, "do_eval": False})
    task = Task(SINGLE_LABEL, ("pos", "neg"))
    read = dataset.prepare(settings, bare_tokenizer(**special), task, MAX_LENGTH)
    assert read.test is not None
    assert ids(read.test) == [[0], [token], [token], [0, 0]]
    assert read.test.lengths.tolist() == [1, 1, 1, 2]
    assert read.description["notes"] == [
        f"{path}: 2 rows have no text and are still predicted; the first is {path}, row 2"
    ]


@pytest.mark.usefixtures("datasets_cache")
def test_a_training_row_without_tokens_is_rejected(tmp_path: Path) -> None:
    from tokenizers import normalizers

    tokenizer = bare_tokenizer(eos_token="</s>")
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("y", "")
    path = write(tmp_path / "a.csv", text=["x", "y", "x x"], label=["a", "b", "a"])
    with pytest.raises(Refused) as caught:
        prepared(path, tokenizer)
    assert str(caught.value) == (
        f"{path}, row 2: the tokenizer returns no tokens for the text: add text or remove the row"
    )


@pytest.mark.usefixtures("datasets_cache")
def test_prediction_needs_no_other_data(tmp_path: Path, tokenizer: Any) -> None:
    path = write(tmp_path / "a.csv", text=["x", ""])
    settings = config.from_dict({"test_file": path, "train_file": "no.csv", "do_train": False, "do_eval": False})
    read = dataset.prepare(settings, tokenizer, Task(SINGLE_LABEL, ("pos", "neg")), MAX_LENGTH)
    assert read.test is not None and read.test.labels is None and read.label_column is None
    assert (read.train, read.evaluation, read.cut) == (None, None, False)
    assert ids(read.test)[1] == tokenizer("")["input_ids"]


@pytest.mark.usefixtures("datasets_cache")
def test_rows_are_predicted_if_no_row_of_a_typed_table_has_text(tmp_path: Path, tokenizer: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": pa.nulls(2)}), tmp_path / "a.parquet")
    settings = config.from_dict({"test_file": str(tmp_path / "a.parquet"), "do_train": False, "do_eval": False})
    read = dataset.prepare(settings, tokenizer, Task(SINGLE_LABEL, ("pos", "neg")), MAX_LENGTH)
    assert read.test is not None
    assert ids(read.test) == [tokenizer("")["input_ids"]] * 2


def jsonl(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.usefixtures("datasets_cache")
@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"text,label\n", lambda path: f"{path} has no rows to train on"),
        (
            "a.csv",
            b"text,label\na,b\nc\n",
            lambda path: f"{path}, line 3: no value for label: add it or remove the row",
        ),
        (
            "a.jsonl",
            jsonl({"text": "a", "label": 1}, {"text": 7, "label": 2}),
            lambda path: f"{path}, row 2: text is 7, not text: correct it or remove the row",
        ),
        (
            "a.jsonl",  # half an emoji, as cut tweets have it
            jsonl({"text": "a", "label": 1}, {"text": "\ud83d", "label": 2}),
            lambda path: None,
        ),
        ("a.csv", b"text,label\n" + b"a,b\n" * 5000 + b"gr\xfc\xdfe,c\n", lambda path: None),
        ("a.parquet", b"no parquet", lambda path: None),
    ],
    ids=["no rows", "short row", "text is a number", "half a surrogate pair", "latin-1", "no parquet"],
)
def test_an_unusable_file_is_rejected_in_one_line(
    name: str, content: bytes, expected: Callable[[str], str | None], tmp_path: Path, tokenizer: Any
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(Refused) as caught:
        prepared(str(path), tokenizer)
    message = str(caught.value)
    assert message.startswith(str(path)) and len(message.splitlines()) == 1
    assert message == (expected(str(path)) or message)


@pytest.mark.usefixtures("datasets_cache")
def test_parquet_keeps_types_and_categories(tmp_path: Path, tokenizer: Any) -> None:
    import pandas as pd

    table = pd.DataFrame({"text": ["007", "NA", "x"], "label": pd.Categorical(["b", "a", "b"])})
    table.to_parquet(tmp_path / "a.parquet")
    read = prepared(str(tmp_path / "a.parquet"), tokenizer)
    assert [read.task.names[i] for i in read.evaluation.labels] == ["b", "a", "b"]
    assert ids(read.evaluation)[:2] == [tokenizer(text)["input_ids"] for text in ("007", "NA")]


@pytest.mark.usefixtures("datasets_cache")
def test_the_log_says_how_a_file_was_read(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "a.csv").write_text('id,text,label\n1,x,a\n2,y,b\n"3\n",z,a\n4,"v\nw","b"\n5,v,a\n')
    (tmp_path / "b.tsv").write_text('text\tlabel\nx\ta\n"y"\tb\n"u v"\tb\n')
    read = dataset.prepare(
        config.from_dict({"train_file": str(tmp_path / "a.csv"), "validation_file": str(tmp_path / "b.tsv")}),
        tokenizer,
        None,
        MAX_LENGTH,
    )
    assert read.remarks == (
        f"2 cells span several lines; the first is {tmp_path}/a.csv, row 3",
        f"2 rows have a cell in double quotes, read without the quotes; the first is {tmp_path}/b.tsv, row 2 "
        "(--csv_quoting none keeps them)",
    )


@pytest.mark.usefixtures("datasets_cache")
def test_test_data_that_cannot_be_written_to_the_output_file_is_rejected_first(tmp_path: Path, tokenizer: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = write(tmp_path / "a.csv", text=["x", "y"], label=["no", "yes"])
    for number, note in enumerate((1, "one")):
        pq.write_table(pa.table({"text": ["a"], "note": [note]}), tmp_path / f"types{number}.parquet")
    pq.write_table(pa.table([["a"], [1], [2]], names=["text", "id", "id"]), tmp_path / "twice.parquet")
    (tmp_path / "excel.csv").write_text("text,label,,\nx,no,,\n")
    messages = {
        "excel.csv": f"{tmp_path}/excel.csv has 2 columns named '': rename all but one",
        "twice.parquet": f"{tmp_path}/twice.parquet has 2 columns named 'id': rename all but one",
        "types*.parquet": f"the parquet files of {tmp_path}/types0.parquet store a column with different types: ",
    }
    for name, message in messages.items():
        prepared(path, tokenizer, test_file=str(tmp_path / name))
        with pytest.raises(Refused, match=re.escape(message)):
            prepared(path, tokenizer, test_file=str(tmp_path / name), output_file="answers.csv")


@pytest.mark.usefixtures("datasets_cache")
@pytest.mark.parametrize(("names", "special"), [(["text"], 2), (["sentence1", "sentence2"], 3)])
def test_a_length_without_room_for_text_is_rejected(
    names: list[str], special: int, tmp_path: Path, tokenizer: Any
) -> None:
    columns = {name: ["good film", "bad film"] for name in names}
    path = write(tmp_path / "a.csv", **columns, label=["no", "yes"])
    assert prepared(path, tokenizer, special + 1).train.lengths.tolist() == [special + 1] * 2
    for length in (1, special):
        with pytest.raises(Refused) as caught:
            prepared(path, tokenizer, length)
        assert str(caught.value) == (
            f"--max_seq_length {length} leaves no room for text: the tokenizer adds {special} special tokens: "
            f"set it to {special + 1} or more"
        )


def test_rows_are_numbered_from_one_and_many_are_not_all_listed() -> None:
    assert dataset.row_numbers([0, 4]) == "1, 5"
    assert dataset.row_numbers(range(8)) == "1, 2, 3, 4, 5, 6, 7, 8"
    assert dataset.row_numbers(range(9)) == "1, 2, 3, 4, 5, 6, 7, 8, ..."


@pytest.mark.usefixtures("datasets_cache")
def test_regression_has_no_top_k(tmp_path: Path, tokenizer: Any) -> None:
    path = write(tmp_path / "a.csv", text=["x", "y"], label=["1.5", "2.5"])
    with pytest.raises(Refused, match="--top_k does not apply to regression, which has no classes"):
        prepared(path, tokenizer, top_k=2)
