"""The same rows from any source are the same table, identified by their content and not by their path."""

import csv
import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from job import checks, config
from job.data import readers, sources
from job.data.columns import Columns
from job.data.sources import Source
from job.errors import Refused

pytestmark = pytest.mark.usefixtures("datasets_cache")

TEXTS = [
    "007", "NA", "null", "1.0", "2020-01-01", "a, b", 'say "x"', '"', "two\nlines", "two\r\nlines", "tab\there",
    "Grüße 😀", " x ", "\ufeffmark", "x" * 200_000,
]  # fmt: skip
LABELS = ["1", "02", "NA", "", "none"] * 3
ROWS = [{"id": str(i), "text": t, "label": n} for i, (t, n) in enumerate(zip(TEXTS, LABELS, strict=True))]
Rows = list[dict[str, Any]]


def separated(rows: Rows, separator: str, newline: str, encoding: str = "utf-8") -> bytes:
    from io import StringIO

    text = StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator=newline, quoting=csv.QUOTE_ALL)
    writer.writerows([list(rows[0]), *(row.values() for row in rows)])
    return text.getvalue().encode(encoding)


def as_csv(rows: Rows) -> bytes:
    return separated(rows, ",", "\r\n", "utf-8-sig")


def as_tsv(rows: Rows) -> bytes:
    return separated(rows, "\t", "\r\n", "utf-8-sig")


def as_jsonl(rows: Rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8-sig")


def as_json(rows: Rows) -> bytes:
    return json.dumps(rows, indent=1).encode()


WRITERS: dict[str, Callable[[Rows], bytes]] = {
    ".csv": as_csv,
    ".tsv": as_tsv,
    ".jsonl": as_jsonl,
    ".json": as_json,
    ".csv.gz": lambda rows: gzip.compress(as_csv(rows)),
    ".tsv.gz": lambda rows: gzip.compress(separated(rows, "\t", "\n")),
    ".jsonl.gz": lambda rows: gzip.compress(as_jsonl(rows)),
    ".json.gz": lambda rows: gzip.compress(as_jsonl(rows)),
    ".CSV": lambda rows: separated(rows, ",", "\n"),
}


def write(path: Path, rows: Rows) -> str:
    ending = path.name[path.name.index(".") :]
    if ending == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_bytes(WRITERS[ending](rows))
    return str(path)


def given(**settings: Any) -> config.Data:
    return config.from_dict(settings).data


def one(**settings: Any) -> Source:
    """The training data."""
    return sources.read(given(**settings), ("train",))["train"]


def content(source: Source) -> list[tuple[str, Any]]:
    """Text and label of each row."""
    label = source.columns.label
    assert label is not None
    assert source.labels is not None
    values = [source.labels.values[code] for code in source.labels.codes]
    return list(zip(source.table["text"], values, strict=True))


def refusal(read: Callable[[], Any]) -> str:
    with pytest.raises(Refused) as caught:
        read()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def texts(*words: str) -> Rows:
    return [{"text": word, "label": "a"} for word in words]


# ---------------------------------------------------------------------------------------------------------------------
# Files


@pytest.mark.parametrize("ending", [*WRITERS, ".parquet"])
def test_every_format_gives_the_same_table(ending: str, tmp_path: Path) -> None:
    source = one(train_file=write(tmp_path / f"a{ending}", ROWS))
    assert content(source) == [(text, label or None) for text, label in zip(TEXTS, LABELS, strict=True)]
    assert source.table.column_names == ["text", "label"]
    assert source.columns == Columns(("text",), "label")


def test_a_pattern_matches_files_sorted_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d" / "deep").mkdir(parents=True)
    write(Path("d/b.csv"), texts("third"))
    write(Path("d/a.tsv.gz"), texts("first", "second"))
    write(Path("d/deep/c.json"), [{"label": 1, "text": "fourth"}])
    assert [text for text, _ in content(one(train_file="d/*.*"))] == ["first", "second", "third"]
    assert content(one(train_file="d/**"))[2:] == [("third", "a"), ("fourth", 1)]
    assert [text for text, _ in content(one(train_file="d/[b-z].csv"))] == ["third"]
    assert [text for text, _ in content(one(train_file="d/**/**/*.json"))] == ["fourth"]


def test_an_existing_file_is_not_a_pattern(tmp_path: Path) -> None:
    write(tmp_path / "a1.csv", texts("other"))
    for name in ("a[1].csv", "a[1].parquet"):
        assert content(one(train_file=write(tmp_path / name, texts("own")))) == [("own", "a")]


def test_parquet_files_are_read_together(tmp_path: Path) -> None:
    write(tmp_path / "b.parquet", texts("second"))
    write(tmp_path / "a.parquet", [{"more": 1, "label": "b", "text": "first"}])
    assert content(one(train_file=str(tmp_path / "*.parquet"))) == [("first", "b"), ("second", "a")]


@pytest.mark.parametrize("in_lists", [False, True])
def test_class_numbers_with_other_names_are_not_mixed(in_lists: bool, tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, List, Value

    for name, classes in (("a", ["no", "yes"]), ("b", ["yes", "no"])):
        label = List(ClassLabel(names=classes)) if in_lists else ClassLabel(names=classes)
        features = Features({"text": Value("string"), "label": label})
        rows = {"text": ["x"], "label": [[0]] if in_lists else [0]}
        Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{name}.parquet")
    message = refusal(lambda: one(train_file=str(tmp_path / "*.parquet")))
    assert message == (
        f"{tmp_path}/b.parquet: the class names of column label differ from those in {tmp_path}/a.parquet: "
        "save both with the same ones"
    )


def test_files_are_identified_by_content_and_order(tmp_path: Path) -> None:
    def known(*parts: str) -> str:
        shutil.rmtree(tmp_path / "d", ignore_errors=True)
        (tmp_path / "d").mkdir()
        for number, part in enumerate(parts):
            write(tmp_path / "d" / f"{len(parts)}{number}.csv", texts(part))
        return one(train_file=str(tmp_path / "d" / "*.csv")).fingerprint

    first = known("a", "b")
    (tmp_path / "d" / "20.csv").rename(tmp_path / "d" / "1.csv")
    os.utime(tmp_path / "d" / "1.csv", (1, 1))
    assert one(train_file=str(tmp_path / "d" / "*.csv")).fingerprint == first
    assert len({first, known("b", "a"), known("a"), known("a", "c"), known("a", "b", "b")}) == 5


def test_the_same_bytes_in_another_format_are_different_data(tmp_path: Path) -> None:
    for name in ("a.csv", "a.tsv"):
        (tmp_path / name).write_bytes(b"text\na\n")
    known = {
        sources.read(given(test_file=str(tmp_path / name)), ("test",))["test"].fingerprint
        for name in ("a.csv", "a.tsv")
    }
    assert len(known) == 2


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".json.gz", ".parquet"])
@pytest.mark.parametrize("empty", ["", " \t\n"])
def test_a_row_without_text_is_rejected_with_file_and_number(ending: str, empty: str, tmp_path: Path) -> None:
    write(tmp_path / f"a{ending}", texts("x", "y"))
    write(tmp_path / f"b{ending}", texts("x", empty, "y"))
    message = refusal(lambda: one(train_file=str(tmp_path / f"*{ending}")))
    assert message == f"{tmp_path}/b{ending}, row 2: text is empty: add text or remove the row"


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_row_to_predict_may_be_empty_and_is_still_rejected_for_training(ending: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a{ending}", texts("x", "", " "))
    read = sources.read(given(test_file=path), ("test",))["test"]
    assert [text for text, _ in content(read)] == ["x", "", " "]
    assert ", row 2: text is empty: " in refusal(lambda: one(train_file=path))


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet"])
def test_a_null_text_is_empty(ending: str, tmp_path: Path) -> None:
    rows = [*texts("x", "y"), {"text": None, "label": "a"}, *texts("")]
    path = write(tmp_path / f"a{ending}", rows)
    read = sources.read(given(test_file=path), ("test",))["test"]
    assert [text or "" for text, _ in content(read)] == ["x", "y", "", ""]
    assert refusal(lambda: one(train_file=path)) == f"{path}, row 3: text is empty: add text or remove the row"


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_a_column_of_nulls_only_can_be_predicted(ending: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a{ending}", [{"text": None, "label": None}] * 2)
    read = sources.read(given(test_file=path), ("test",))["test"]
    assert [(text or "", label) for text, label in content(read)] == [("", None)] * 2


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_pair_has_text_if_one_of_its_columns_has(ending: str, tmp_path: Path) -> None:
    halves = (("a", "b"), ("", "b"), ("a", None), (" ", ""))
    pairs = [{"sentence1": a, "sentence2": b, "label": "1"} for a, b in halves]
    assert len(one(train_file=write(tmp_path / f"a{ending}", pairs[:3])).table) == 3
    message = refusal(lambda: one(train_file=write(tmp_path / f"b{ending}", pairs)))
    assert ", row 4: sentence1 and sentence2 are empty: " in message


def test_a_null_label_is_kept(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": "x", "label": None}, {"text": "y", "label": 1}]
    for ending in (".jsonl", ".parquet"):
        assert content(one(train_file=write(tmp_path / f"a{ending}", rows))) == [("x", None), ("y", 1)]
    (tmp_path / "nan.jsonl").write_text('{"text": "x", "label": NaN}\n')
    assert repr(content(one(train_file=str(tmp_path / "nan.jsonl")))) == "[('x', nan)]"


@pytest.mark.parametrize("column", ["text", "label"])
def test_invalid_unicode_is_rejected_with_file_and_number(column: str, tmp_path: Path) -> None:
    rows = [*texts("x"), {"text": "y", "label": "b", column: "\ud83d"}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    message = refusal(lambda: one(train_file=str(tmp_path / "a.json")))
    assert message.startswith(f"{tmp_path}/a.json, row 2: \\ud83d is an unpaired surrogate")


def test_a_pattern_matches_the_same_files_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data [1]"
    folder.mkdir()
    for name in ("a", "b"):
        write(folder / f"{name}.csv", texts(name))
    monkeypatch.chdir(folder)
    first = config.parse(["--train_file", "*.csv", "--test_file", "[b].csv"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(config.to_yaml(first))
    again = config.parse(["config.yaml"])
    checks.check(again)
    assert again == first
    read = sources.read(again.data, ("train", "validation", "test"))
    assert {split: content(source) for split, source in read.items()} == {
        "train": [("a", "a"), ("b", "a")],
        "test": [("b", "a")],
    }


def test_preflight_reads_the_columns_of_a_hundred_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[Any] = []
    columns = readers.columns

    def watched(path: Path, quoting: Any) -> Any:
        looked_at.append(path)
        return columns(path, quoting)

    monkeypatch.setattr(readers, "columns", watched)
    for number in range(120):
        write(tmp_path / f"{number:03}.csv", texts("x"))
    settings = config.from_dict({"train_file": str(tmp_path / "*.csv")})
    checks.check(settings)
    assert len(looked_at) == 100
    (tmp_path / "119.csv").write_text("text\n")
    checks.check(settings)
    assert f"{tmp_path}/119.csv has no column label" in refusal(lambda: sources.read(settings.data, ("train",)))


def test_preflight_leaves_parquet_to_the_job_where_pyarrow_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config.from_dict({"train_file": write(tmp_path / "a.parquet", [{"words": "x", "label": 1}])})
    assert "no text column recognised" in refusal(lambda: checks.check(settings))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    checks.check(settings)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_test_set_may_have_no_labels(ending: str, tmp_path: Path) -> None:
    test, bare = write(tmp_path / f"a{ending}", texts("x")), write(tmp_path / f"b{ending}", [{"text": "x"}])
    read = sources.read(given(train_file=test, test_file=bare), ("train", "validation", "test"))
    assert list(read) == ["train", "test"]
    assert read["test"].columns == Columns(("text",), None)
    assert read["test"].table.column_names == ["text"]
    assert sources.read(given(test_file=test), ("test",))["test"].columns.label == "label"
    assert "has no column label" in refusal(
        lambda: sources.read(given(test_file=bare, label_column_name="label"), ("test",))
    )
    assert "no label column recognised" in refusal(lambda: one(train_file=bare))


# ---------------------------------------------------------------------------------------------------------------------
# Data sets


def saved(path: Path, **splits: list[str]) -> Path:
    """A folder made by save_to_disk: of a DatasetDict, or of a Dataset where the one split is named `single`."""
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    made = {
        name: Dataset.from_dict({"text": words, "label": [1] * len(words)}, features=features)
        for name, words in splits.items()
    }
    (made["single"] if "single" in made else DatasetDict(made)).save_to_disk(str(path))
    return path


def layout(path: Path, **splits: list[str]) -> Path:
    """A folder laid out as a repository of the hub."""
    path.mkdir(exist_ok=True)
    for name, words in splits.items():
        (path / f"{name}.jsonl").write_bytes(as_jsonl(texts(*words)))
    files = "".join(f"  - {{split: {name}, path: {name}.jsonl}}\n" for name in splits)
    (path / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n")
    return path


def test_a_saved_dataset_is_read_with_its_class_names(tmp_path: Path) -> None:
    folder = saved(tmp_path / "d", train=["a", "b"], dev=["c"], test=["e"])
    listed = sorted(path.name for path in folder.rglob("*"))
    read = sources.read(given(dataset_name=str(folder), test_split_name="test"), ("train", "validation", "test"))
    assert [content(source) for source in read.values()] == [
        [("a", "yes"), ("b", "yes")],
        [("c", "yes")],
        [("e", "yes")],
    ]
    assert read["train"].table.features["label"].names == ["no", "yes"]
    read["train"].table.map(lambda row: row)
    assert sorted(path.name for path in folder.rglob("*")) == listed, "what is computed from it lies elsewhere"


def test_the_shards_of_a_saved_dataset_keep_their_order(tmp_path: Path) -> None:
    from datasets import Dataset

    words = [f"word {number}" for number in range(24)]
    Dataset.from_dict({"text": words, "label": [0] * 24}).save_to_disk(str(tmp_path / "d"), num_shards=12)
    assert [text for text, _ in content(one(dataset_name=str(tmp_path / "d")))] == words


def test_a_saved_dataset_without_splits_is_the_training_data(tmp_path: Path) -> None:
    from datasets import Dataset

    table = Dataset.from_dict({"text": ["b", "a"], "label": [1, 0]}).sort("text").with_format("numpy")
    table.save_to_disk(str(tmp_path / "d"))
    read = sources.read(given(dataset_name=str(tmp_path / "d")), ("train", "validation"))
    assert list(read) == ["train"]
    assert content(read["train"]) == [("a", 0), ("b", 1)]
    assert type(read["train"].table[0]["text"]) is str


@pytest.mark.parametrize("make", [saved, layout])
def test_a_folder_is_identified_by_the_content_of_its_files(make: Callable[..., Path], tmp_path: Path) -> None:
    def known(folder: Path) -> str:
        return one(dataset_name=str(folder)).fingerprint

    folder = make(tmp_path / "d", train=["a", "b"])
    first = known(folder)
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    assert known(folder) == first
    assert known(shutil.copytree(folder, tmp_path / "copy")) == first
    (folder / "notes.txt").write_text("mine")
    assert known(folder) == first
    assert known(make(tmp_path / "other", train=["a", "c"])) != first


@pytest.mark.parametrize("make", [saved, layout])
@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (["train", "validation", "dev"], "validation"),
        (["train", "eval", "dev"], "dev"),
        (["train", "valid"], "valid"),
        (["train", "test"], None),
    ],
)
def test_the_validation_split_is_recognised_by_name(
    make: Callable[..., Path], there: list[str], expected: str | None, tmp_path: Path
) -> None:
    folder = str(make(tmp_path / "d", **{name: [name] for name in there}))
    read = sources.read(given(dataset_name=folder), ("train", "validation"))
    actual = {split: content(source)[0][0] for split, source in read.items()}
    assert actual == {"train": "train"} | ({"validation": expected} if expected else {})


def test_a_name_like_a_validation_splits_in_other_case_needs_the_flag(tmp_path: Path) -> None:
    folder = str(saved(tmp_path / "d", train=["a"], Validation=["b"]))
    message = refusal(lambda: sources.read(given(dataset_name=folder), ("train", "validation")))
    assert message == f"{folder}: choose the evaluation split with --validation_split_name: Validation"


def test_the_training_data_is_not_used_for_validation(tmp_path: Path) -> None:
    data = given(dataset_name=str(saved(tmp_path / "d", validation=["a"])), train_split_name="validation")
    assert list(sources.read(data, ("train", "validation"))) == ["train"]


@pytest.mark.parametrize("make", [saved, layout])
def test_a_named_split_must_exist(make: Callable[..., Path], tmp_path: Path) -> None:
    folder = make(tmp_path / "d", train=["a"], dev=["b"])
    for split in ("validation", "test"):
        data = given(**{"dataset_name": str(folder), f"{split}_split_name": "held_out"})
        message = refusal(lambda data=data, split=split: sources.read(data, ("train", split)))  # type: ignore[misc]
        assert message == f"{folder} has no split held_out; its splits: train, dev"


def test_a_dataset_without_labels_can_be_predicted(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_dict({"text": ["a"]}).save_to_disk(str(tmp_path / "d"))
    read = sources.read(given(dataset_name=str(tmp_path / "d"), test_split_name="train"), ("test",))
    assert read["test"].columns == Columns(("text",), None)


def test_a_saved_split_without_rows_is_rejected_only_if_it_is_used(tmp_path: Path) -> None:
    folder = str(saved(tmp_path / "d", train=["a"], validation=["b"], test=[]))
    assert list(sources.read(given(dataset_name=folder), ("train", "validation"))) == ["train", "validation"]
    message = refusal(lambda: sources.read(given(dataset_name=folder, test_split_name="test"), ("train", "test")))
    assert message == f"{folder} (test) has no rows: choose another split, or save one with rows"


def test_a_row_without_text_is_rejected_with_split_and_number(tmp_path: Path) -> None:
    folder = saved(tmp_path / "d", train=["a", ""])
    message = refusal(lambda: one(dataset_name=str(folder)))
    assert message == f"{folder} (train), row 2: text is empty: add text or remove the row"


@pytest.mark.parametrize("name", ["dataset_dict.json", "train/state.json", "train/data-00000-of-00001.arrow"])
def test_a_damaged_saved_dataset_is_rejected(name: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "d", train=["a"])
    (folder / name).write_text("{")
    assert refusal(lambda: one(dataset_name=str(folder))).startswith(f"dataset {folder}")


def test_a_saved_dataset_has_no_configurations(tmp_path: Path) -> None:
    folder = saved(tmp_path / "d", train=["a"])
    message = refusal(lambda: one(dataset_name=str(folder), dataset_config_name="x"))
    assert message == f"{folder} was written by save_to_disk and has no configurations: remove --dataset_config_name"


# ---------------------------------------------------------------------------------------------------------------------
# The same rows as a file and in a data set's folder

ODD = [{"text": t, "label": n} for t, n in zip(["NA", "007", "1e5", "null", "2020-01-01", "x"],
                                              ["01", "02", "NA", "None", "1e5", "01"], strict=True)]  # fmt: skip


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".json", ".csv.gz", ".jsonl.gz"])
def test_a_file_in_a_folder_is_read_like_the_file_alone(ending: str, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    path = write(tmp_path / "d" / f"train{ending}", ODD)
    alone, folder = one(train_file=path), one(dataset_name=str(tmp_path / "d"))
    assert content(folder) == content(alone) == [(row["text"], row["label"]) for row in ODD]
    assert alone.labels is not None and folder.labels is not None
    assert folder.labels.untyped == alone.labels.untyped == (".csv" in ending or ending == ".tsv")
    assert folder.place(2) == f"{path}, row 3"


def test_the_files_of_a_split_are_read_in_their_order(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    for number in range(3):
        write(folder / f"train-{number}.csv", [{"text": f"NA{number}", "label": "01"}])
    write(folder / "test.csv", [{"text": "007"}])
    read = sources.read(given(dataset_name=str(folder), test_split_name="test"), ("train", "test"))
    assert content(read["train"]) == [("NA0", "01"), ("NA1", "01"), ("NA2", "01")]
    assert list(read["test"].table["text"]) == ["007"]


def card(folder: Path, yaml: str) -> None:
    (folder / "README.md").write_text(f"---\n{yaml}---\n")


def test_the_types_that_a_folder_declares_apply_to_its_labels(tmp_path: Path) -> None:
    declared = {
        "{class_label: {names: {'0': neg, '1': pos}}}": (["1", "0", "neg"], ["pos", "neg", "neg"], False),
        "string": (["3.1", "3.10", "3.1"], ["3.1", "3.10", "3.1"], False),
        "float64": (["1", "2", "3"], [1.0, 2.0, 3.0], False),
        "int64": (["1", "2", "3"], ["1", "2", "3"], True),
    }
    for number, (dtype, (written, expected, untyped)) in enumerate(declared.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder / "train.csv", [{"text": "NA", "label": label} for label in written])
        card(
            folder,
            f"dataset_info:\n  features:\n  - {{name: text, dtype: string}}\n  - {{name: label, dtype: {dtype}}}\n",
        )
        read = one(dataset_name=str(folder))
        assert content(read) == [("NA", label) for label in expected], dtype  # type: ignore[attr-defined]
        assert read.labels is not None and read.labels.untyped == untyped


def test_the_class_names_that_a_folder_declares_apply_to_lists(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"text": "NA", "label": [1, 0]}\n{"text": "b", "label": [1]}\n')
    names = "{list: {class_label: {names: {'0': sport, '1': politics}}}}"
    card(
        folder, f"dataset_info:\n  features:\n  - {{name: text, dtype: string}}\n  - {{name: label, dtype: {names}}}\n"
    )
    read = one(dataset_name=str(folder))
    assert read.labels is not None
    assert (read.labels.declared, read.labels.values) == (("sport", "politics"), ([1, 0], [1]))


def test_a_csv_with_custom_options_is_read_by_the_library(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "train.csv").write_text("text;label\nNA;x\nc, d;y\n")
    card(folder, "configs:\n- config_name: default\n  data_files: train.csv\n  sep: ';'\n")
    assert content(one(dataset_name=str(folder))) == [("NA", "x"), ("c, d", "y")]


def test_options_of_a_csv_and_declared_classes_are_part_of_what_identifies_the_data(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "train.csv").write_text("text,label\na,0\nb,1\n")
    classes = (
        "dataset_info:\n  features:\n  - {{name: label, dtype: {{class_label: {{names: {{'0': {}, '1': {}}}}}}}}}\n"
    )
    cards = {
        "configs:\n- config_name: default\n  data_files: train.csv\n  skiprows: [2]\n": [("a", 0)],
        "configs:\n- config_name: default\n  data_files: train.csv\n  skiprows: [1]\n": [("b", 1)],
        classes.format("bad", "good"): [("a", "bad"), ("b", "good")],
        classes.format("good", "bad"): [("a", "good"), ("b", "bad")],
        "license: mit\n": [("a", "0"), ("b", "1")],
    }
    fingerprints = set()
    for text, rows in cards.items():
        card(folder, text)
        read = one(dataset_name=str(folder))
        assert content(read) == rows
        fingerprints.add(read.fingerprint)
    assert len(fingerprints) == len(cards)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_hub_dataset_is_identified_by_the_files_of_the_split_and_not_by_the_commit(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def known(commit: str, word: str, readme: str) -> str:
        folder = tmp_path / commit
        folder.mkdir()
        write(folder / f"train{ending}", texts(word))
        write(folder / f"test{ending}", texts(commit))
        card(folder, readme)
        monkeypatch.setattr(sources, "_fetched", lambda name, revision: str(folder))
        read = one(dataset_name="acme/reviews")
        assert content(read) == [(word, "a")]
        return read.fingerprint

    first = known("1" * 40, "good", "license: mit\n")
    assert known("2" * 40, "good", "license: apache-2.0\n") == first
    assert known("3" * 40, "film", "license: mit\n") != first


# ---------------------------------------------------------------------------------------------------------------------
# Files that are replaced by others with the same time


def as_parquet(path: Path, words: list[str]) -> dict[str, Any]:
    path.mkdir(exist_ok=True)
    return {"train_file": write(path / "train.parquet", texts(*words))}


def as_folder(path: Path, words: list[str]) -> dict[str, Any]:
    as_parquet(path, words)
    return {"dataset_name": str(path)}


def as_saved(path: Path, words: list[str]) -> dict[str, Any]:
    shutil.rmtree(path, ignore_errors=True)
    return {"dataset_name": str(saved(path, train=words))}


@pytest.mark.parametrize("make", [as_parquet, as_folder, as_saved])
def test_a_file_replaced_by_one_with_the_same_time_is_read_again(
    make: Callable[[Path, list[str]], dict[str, Any]], tmp_path: Path
) -> None:
    for words in (["old", "rows"], ["new", "ones"]):
        settings = make(tmp_path / "d", words)
        for path in (tmp_path / "d").rglob("*"):
            os.utime(path, (1, 1))
        assert [text for text, _ in content(one(**settings))] == words


def test_a_saved_dataset_may_have_brackets_in_its_path_and_another_folder_may_not(tmp_path: Path) -> None:
    folder = saved(tmp_path / "d[1]", train=["own"])
    checks.check(config.from_dict({"dataset_name": str(folder)}))
    assert content(one(dataset_name=str(folder))) == [("own", "yes")]
    as_folder(tmp_path / "e1", ["other"])
    for given_as in (as_folder(tmp_path / "e[1]", ["own"]), as_folder(tmp_path / "e?", ["own"])):
        message = refusal(lambda given_as=given_as: one(**given_as))  # type: ignore[misc]
        assert message.endswith(", which is read as a pattern: use a path without it")


# ---------------------------------------------------------------------------------------------------------------------
# Files that store a column in different types


def parquet(path: Path, texts: Any, labels: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": texts, "label": labels}), path)


def test_parquet_files_of_different_widths_are_read_together(tmp_path: Path) -> None:
    import pyarrow as pa

    parquet(tmp_path / "a.parquet", pa.array(["a"]), pa.array([1], pa.int8()))
    parquet(tmp_path / "b.parquet", pa.array(["b"], pa.large_string()), pa.array([2**40]))
    parquet(tmp_path / "c.parquet", pa.array(["c"]).dictionary_encode(), pa.array([3], pa.uint16()))
    assert content(one(train_file=str(tmp_path / "*.parquet"))) == [("a", 1), ("b", 2**40), ("c", 3)]
    parquet(tmp_path / "d.parquet", pa.array(["d"], pa.string_view()), pa.array(["x"], pa.string_view()))
    assert content(one(train_file=str(tmp_path / "d.parquet"))) == [("d", "x")]
    parquet(tmp_path / "a.parquet", pa.array(["a"]), pa.array([[1, 0]], pa.list_(pa.int64(), 2)))
    parquet(tmp_path / "b.parquet", pa.array(["b"]), pa.array([[0, 1]], pa.list_(pa.int8())))
    assert content(one(train_file=str(tmp_path / "[ab].parquet"))) == [("a", [1, 0]), ("b", [0, 1])]


def test_a_parquet_file_without_rows_may_be_among_others(tmp_path: Path) -> None:
    import pyarrow as pa

    parquet(tmp_path / "a.parquet", pa.array([], pa.string()), pa.array([], pa.string()))
    parquet(tmp_path / "b.parquet", pa.nulls(0), pa.nulls(0))
    parquet(tmp_path / "c.parquet", ["a", "b"], ["x", "y"])
    read = one(train_file=str(tmp_path / "*.parquet"))
    assert content(read) == [("a", "x"), ("b", "y")]
    assert read.place(1) == f"{tmp_path}/c.parquet, row 2"


def test_the_first_row_group_of_a_parquet_file_may_be_empty(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"text": ["a", "b"], "label": ["x", "y"]})
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema) as file:
        file.write_table(table.slice(0, 0))
        file.write_table(table)
    assert content(one(train_file=str(tmp_path / "a.parquet"))) == [("a", "x"), ("b", "y")]


def test_a_parquet_column_that_is_not_used_may_have_any_type(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    maps = pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))
    pq.write_table(pa.table({"meta": maps, "text": ["a"], "label": ["x"]}), tmp_path / "a.parquet")
    assert content(one(train_file=str(tmp_path / "a.parquet"))) == [("a", "x")]


def test_parquet_files_in_a_folder_are_read_like_the_files_alone(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    for number, labels in enumerate((["1"], ["2"])):
        parquet(folder / f"train-{number}.parquet", ["a"], labels)
    assert content(one(dataset_name=str(folder))) == [("a", "1"), ("a", "2")]
    parquet(folder / "train-0.parquet", ["a"], [1])
    message = refusal(lambda: one(dataset_name=str(folder)))
    assert message == (
        f"{folder}/train-1.parquet: column label is string, but int64 in {folder}/train-0.parquet: "
        "save both with one type"
    )


@pytest.mark.parametrize(
    ("one_type", "other", "shown"),
    [
        ([1], ["01"], "string, but int64"),
        ([1], [1.5], "double, but int64"),
        (["a"], [["a"]], "list<element: string>, but string"),
    ],
)
def test_parquet_files_whose_labels_have_other_types_are_rejected(
    one_type: list[Any], other: list[Any], shown: str, tmp_path: Path
) -> None:
    parquet(tmp_path / "a.parquet", ["a"], one_type)
    parquet(tmp_path / "b.parquet", ["b"], other)
    message = refusal(lambda: one(train_file=str(tmp_path / "*.parquet")))
    assert message == f"{tmp_path}/b.parquet: column label is {shown} in {tmp_path}/a.parquet: save both with one type"


def test_text_of_json_together_with_a_csv_is_not_read_as_numbers(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", [{"text": "a", "label": "3.1"}])
    write(tmp_path / "b.jsonl", [{"text": "b", "label": "3.10"}])
    read = one(train_file=str(tmp_path / "*.*"))
    assert read.labels is not None and not read.labels.untyped
    assert content(read) == [("a", "3.1"), ("b", "3.10")]


def test_a_row_of_several_files_is_reported_with_its_file(tmp_path: Path) -> None:
    for name, ending in (("a", ".csv"), ("b", ".jsonl")):
        write(tmp_path / f"{name}{ending}", texts("x", "y", "z"))
    read = one(train_file=str(tmp_path / "*.*"))
    assert [read.place(row) for row in (2, 3)] == [f"{tmp_path}/a.csv, row 3", f"{tmp_path}/b.jsonl, row 1"]


FIRST = {"text": "a", "label": "x"}


@pytest.mark.parametrize(
    ("later", "message"),
    [
        (
            FIRST | {"text_pair": "b"},
            "has a column text_pair, which {first} does not have: set --text_column_names to text to ignore it, or "
            "correct the rows without it",
        ),
        (
            FIRST | {"class": "y"},
            ": ambiguous label columns (label, class): set --label_column_name; its columns: text, label, class",
        ),
    ],
)
def test_columns_that_would_change_the_choice_are_rejected_in_later_rows_and_files(
    later: dict[str, str], message: str, tmp_path: Path
) -> None:
    cases = {
        "rows.jsonl": ([FIRST, FIRST, later], "row 1"),
        "rows.json": ([FIRST, FIRST, later], "row 1"),
        "files*.csv": ([FIRST], f"{tmp_path}/files1.csv"),
    }
    write(tmp_path / "files2.csv", [later])
    for name, (rows, first) in cases.items():
        write(tmp_path / name.replace("*", "1"), rows)
        found = refusal(lambda name=name: one(train_file=str(tmp_path / name)))  # type: ignore[misc]
        place = f"{tmp_path}/files2.csv" if "*" in name else f"{tmp_path}/{name}, row 3"
        assert found.removeprefix(place).lstrip(" ") == message.format(first=first)
        named = one(train_file=str(tmp_path / name), text_column_names=("text",), label_column_name="label")
        assert content(named)[0] == ("a", "x")
        refusal(lambda name=name: one(train_file=str(tmp_path / name)))  # type: ignore[misc]  # not from the cache


def test_a_label_that_only_later_rows_have_is_not_ignored(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": "a"}, {"text": "b", "label": "x"}])
    message = refusal(lambda: sources.read(given(test_file=path), ("test",)))
    assert message == f"{path}, row 2 has a column label, which row 1 does not have: label every row, or add --no_label"
    assert sources.read(given(test_file=path, no_label=True), ("test",))["test"].labels is None


def test_a_missing_key_is_a_null(tmp_path: Path) -> None:
    for ending in (".jsonl", ".json"):
        path = write(tmp_path / f"a{ending}", [FIRST, {"label": "x"}, {"text": "b"}])
        read = sources.read(given(test_file=path), ("test",))["test"]
        assert content(read) == [("a", "x"), ("", "x"), ("b", None)]
        assert refusal(lambda path=path: one(train_file=path)) == (  # type: ignore[misc]
            f"{path}, row 2: text is empty: add text or remove the row"
        )


def test_other_keys_may_differ_from_row_to_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [FIRST, FIRST | {"note": "n"}, {"id": "7"} | FIRST])
    assert content(one(train_file=path)) == [("a", "x")] * 3


# ---------------------------------------------------------------------------------------------------------------------
# Evaluation and test data


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_other_splits_have_the_columns_of_the_training_data(ending: str, tmp_path: Path) -> None:
    pair = write(tmp_path / f"pair{ending}", [{"sentence1": "a", "sentence2": "b", "label": "1"}])
    single = write(tmp_path / f"single{ending}", [{"text": "a", "label": "1"}])
    both = write(tmp_path / f"both{ending}", [{"text": "a", "text_pair": "b", "label": "1"}])
    for split in ("validation", "test"):
        settings = given(train_file=pair, **{f"{split}_file": single})
        message = f"{single} has no column sentence1, as in the training data; its columns: text, label"
        assert refusal(lambda settings=settings, split=split: sources.read(settings, ("train", split))) == message  # type: ignore[misc]
        assert refusal(lambda settings=settings: checks.check(config.Config(data=settings))) == message  # type: ignore[misc]
    read = sources.read(given(train_file=single, validation_file=both), ("train", "validation"))["validation"]
    assert read.columns == Columns(("text",), "label")
    assert read.notes == (f"{both}: column text_pair is ignored, because the training data has only text",)


def test_with_no_label_a_recognised_label_column_is_ignored(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [{"text": "a", "category": "books"}])
    read = sources.read(given(test_file=path, no_label=True), ("test",))["test"]
    assert (read.columns.label, read.labels) == (None, None)
