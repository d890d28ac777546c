"""A row out for a row in: all columns as they were read, in order, then what was predicted."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from job import config
from job.data import sources
from job.data.inputs import Inputs
from job.errors import Refused
from job.report import output_file

pytestmark = pytest.mark.usefixtures("datasets_cache")

HALVES = pa.array([0.5, 0.25, 0.1], pa.float32())
REST = pa.array([0.5, 0.75, 0.9], pa.float32())


def predictions(path: Path, prediction: Any, index: Any = (0, 1, 2), **probabilities: Any) -> Path:
    columns = {"index": list(index), "label": pa.nulls(len(index)), "prediction": prediction}
    columns |= {f"probability_{name}": values for name, values in probabilities.items()}
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Of three rows: no, yes, yes."""
    return predictions(tmp_path / "p.parquet", ["no", "yes", "yes"], no=HALVES, yes=REST)


def inputs(**settings: Any) -> Inputs:
    asked = config.from_dict({"do_train": False, "do_eval": False, **settings})
    found = sources.read(asked.data, ("test",))["test"].inputs
    assert found is not None
    return found


def refusal(act: Any) -> str:
    with pytest.raises(Refused) as caught:
        act()
    return str(caught.value)


def read_csv(path: Path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file, strict=True))


ODD = 'text,id,note\n"a, ""b""",007,NA\n"two\nlines\r\n",1.0,\n," x ",2020-01-01\n'


def test_a_csv_keeps_every_cell_as_it_is(tmp_path: Path, classes: Path) -> None:
    (tmp_path / "new.csv").write_text(ODD, newline="")
    output_file.write(tmp_path / "a.csv", inputs(test_file=str(tmp_path / "new.csv")), classes, None)
    assert read_csv(tmp_path / "a.csv") == [
        ["text", "id", "note", "prediction", "score"],
        ['a, "b"', "007", "NA", "no", "0.5"],
        ["two\nlines\r\n", "1.0", "", "yes", "0.75"],
        ["", " x ", "2020-01-01", "yes", "0.9"],
    ]
    assert (tmp_path / "a.csv").read_bytes().count(b"\r") == 1, "lines end with a line feed"


def test_the_same_rows_in_the_other_formats(tmp_path: Path, classes: Path) -> None:
    (tmp_path / "new.csv").write_text(ODD, newline="")
    read = inputs(test_file=str(tmp_path / "new.csv"))
    expected = [
        {"text": 'a, "b"', "id": "007", "note": "NA", "prediction": "no", "score": 0.5},
        {"text": "two\nlines\r\n", "id": "1.0", "note": "", "prediction": "yes", "score": 0.75},
        {"text": "", "id": " x ", "note": "2020-01-01", "prediction": "yes", "score": 0.9},
    ]
    output_file.write(tmp_path / "a.jsonl", read, classes, None)
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()] == expected
    output_file.write(tmp_path / "a.parquet", read, classes, None)
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == expected


JSON_ROWS = [
    {"text": "a", "meta": {"n": [1, 2]}, "n": 1},
    {"text": None, "n": 2.5, "more": True},
    {"n": None, "text": "ü 😀", "meta": "x"},
]


def test_json_values_keep_their_types(tmp_path: Path, classes: Path) -> None:
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in JSON_ROWS))
    read = inputs(test_file=str(tmp_path / "new.jsonl"))
    output_file.write(tmp_path / "a.jsonl", read, classes, None)
    written = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [{k: v for k, v in row.items() if k not in ("prediction", "score")} for row in written] == JSON_ROWS
    output_file.write(tmp_path / "a.csv", read, classes, None)
    assert read_csv(tmp_path / "a.csv")[:3] == [
        ["text", "meta", "n", "more", "prediction", "score"],
        ["a", '{"n": [1, 2]}', "1", "", "no", "0.5"],
        ["", "", "2.5", "true", "yes", "0.75"],
    ]
    output_file.write(tmp_path / "a.parquet", read, classes, None)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.select(["text", "meta", "n", "more"]).to_pydict() == {
        "text": ["a", None, "ü 😀"],
        "meta": ['{"n": [1, 2]}', None, "x"],
        "n": [1.0, 2.5, None],
        "more": [None, True, None],
    }


def test_integers_of_json_are_integers_of_parquet(tmp_path: Path, classes: Path) -> None:
    rows = [{"text": "a", "id": 2**63 - 1, "n": 2**53 + 1, "big": 2**63}, {"text": "b", "id": 1, "n": 0.5}]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"text": "c"}]))
    output_file.write(tmp_path / "a.parquet", inputs(test_file=str(tmp_path / "new.jsonl")), classes, None)
    assert pq.read_table(tmp_path / "a.parquet").select(["id", "n", "big"]).to_pydict() == {
        "id": [2**63 - 1, 1, None],
        "n": [str(2**53 + 1), "0.5", None],
        "big": [str(2**63), None, None],
    }


def test_parquet_keeps_its_types(tmp_path: Path, classes: Path) -> None:
    columns = pa.table(
        {
            "text": ["a", None, "b"],
            "n": pa.array([1, 2, None], pa.int16()),
            "when": pa.array([1, 2, 3], pa.timestamp("ms")),
            "tags": pa.array([["x"], [], None], pa.list_(pa.string())),
        }
    )
    pq.write_table(columns, tmp_path / "new.parquet")
    read = inputs(test_file=str(tmp_path / "new.parquet"))
    output_file.write(tmp_path / "a.parquet", read, classes, None)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.select(columns.column_names).equals(columns)
    output_file.write(tmp_path / "a.csv", read, classes, None)
    assert read_csv(tmp_path / "a.csv")[1] == ["a", "1", "1970-01-01 00:00:00.001000", '["x"]', "no", "0.5"]


@pytest.mark.parametrize("kind", ["saved", "folder"])
def test_a_data_set_is_kept_likewise(kind: str, tmp_path: Path, classes: Path) -> None:
    from datasets import Dataset

    (tmp_path / "d").mkdir()
    if kind == "saved":
        Dataset.from_dict({"text": ["a", "b", "c"], "id": [1, 2, 3]}).save_to_disk(str(tmp_path / "d"))
    else:
        (tmp_path / "d" / "train.csv").write_text("text,id\na,1\nb,2\nc,3\n")
    read = inputs(dataset_name=str(tmp_path / "d"), test_split_name="train")
    output_file.write(tmp_path / "a.csv", read, classes, None)
    assert (tmp_path / "a.csv").read_text() == "text,id,prediction,score\na,1,no,0.5\nb,2,yes,0.75\nc,3,yes,0.9\n"


def test_several_files_follow_each_other(tmp_path: Path, classes: Path) -> None:
    (tmp_path / "a.csv").write_text("text,id\na,1\n")
    (tmp_path / "b.tsv").write_text("other\ttext\nx\tb\ny\tc\n")
    output_file.write(tmp_path / "out.csv", inputs(test_file=str(tmp_path / "[ab].*")), classes, None)
    assert (tmp_path / "out.csv").read_text().splitlines() == [
        "text,id,other,prediction,score",
        "a,1,,no,0.5",
        "b,,x,yes,0.75",
        "c,,y,yes,0.9",
    ]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_of_a_part_of_the_rows_each_has_its_own_answer(ending: str, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("text\n" + "".join(f"row {number}\n" for number in range(25_000)))
    index = [0, 9_999, 10_000, 24_999]
    path = predictions(tmp_path / "p.parquet", [str(i) for i in index], index, **{str(i): [0.25] * 4 for i in index})
    output_file.write(tmp_path / f"a{ending}", inputs(test_file=str(tmp_path / "new.csv")), path, None)
    if ending == ".csv":
        rows = [dict(zip(("text", "prediction"), row, strict=False)) for row in read_csv(tmp_path / "a.csv")[1:]]
    elif ending == ".jsonl":
        rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    else:
        rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [(row["text"], row["prediction"]) for row in rows] == [(f"row {i}", str(i)) for i in index]


def test_a_name_that_is_taken_is_numbered(tmp_path: Path, classes: Path) -> None:
    (tmp_path / "new.csv").write_text("text,prediction,prediction_1,score\n" + "a,x,y,z\n" * 3)
    output_file.write(tmp_path / "a.csv", inputs(test_file=str(tmp_path / "new.csv")), classes, None)
    assert read_csv(tmp_path / "a.csv")[:2] == [
        ["text", "prediction", "prediction_1", "score", "prediction_2", "score_1"],
        ["a", "x", "y", "z", "no", "0.5"],
    ]


@pytest.fixture
def new(tmp_path: Path) -> Inputs:
    (tmp_path / "new.csv").write_text("text\na\nb\nc\n")
    return inputs(test_file=str(tmp_path / "new.csv"))


def test_the_best_classes_come_in_their_order_the_prediction_first(tmp_path: Path, new: Inputs, classes: Path) -> None:
    output_file.write(tmp_path / "a.csv", new, classes, 5)
    assert read_csv(tmp_path / "a.csv") == [
        ["text", "prediction", "score", "top_1", "top_1_score", "top_2", "top_2_score"],
        ["a", "no", "0.5", "no", "0.5", "yes", "0.5"],
        ["b", "yes", "0.75", "yes", "0.75", "no", "0.25"],
        ["c", "yes", "0.9", "yes", "0.9", "no", "0.1"],
    ]
    equal = predictions(tmp_path / "q.parquet", ["yes", "no", "yes"], no=[0.5] * 3, yes=[0.5] * 3)
    output_file.write(tmp_path / "b.csv", new, equal, 1)
    assert [row[3] for row in read_csv(tmp_path / "b.csv")[1:]] == ["yes", "no", "yes"]


def test_several_labels_are_lists(tmp_path: Path, new: Inputs) -> None:
    path = predictions(tmp_path / "p.parquet", [["no", "yes"], [], ["yes"]], no=HALVES, yes=REST)
    output_file.write(tmp_path / "a.csv", new, path, 1)
    assert read_csv(tmp_path / "a.csv") == [
        ["text", "prediction", "score", "top_1", "top_1_score"],
        ["a", '["no", "yes"]', "[0.5, 0.5]", "no", "0.5"],
        ["b", "[]", "[]", "yes", "0.75"],
        ["c", '["yes"]', "[0.9]", "yes", "0.9"],
    ]
    output_file.write(tmp_path / "a.parquet", new, path, None)
    table = pq.read_table(tmp_path / "a.parquet").to_pydict()
    assert (table["prediction"], table["score"]) == ([["no", "yes"], [], ["yes"]], [[0.5, 0.5], [], [0.9]])


def test_a_number_has_no_score(tmp_path: Path, new: Inputs) -> None:
    path = predictions(tmp_path / "p.parquet", [1.5, 1 / 3, -2.0])
    output_file.write(tmp_path / "a.csv", new, path, None)
    assert (tmp_path / "a.csv").read_text() == f"text,prediction\na,1.5\nb,{1 / 3!r}\nc,-2.0\n"


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_input_that_changed_meanwhile_is_rejected(ending: str, tmp_path: Path, classes: Path) -> None:
    path = tmp_path / f"new{ending}"

    def write(*texts: str) -> None:
        if ending == ".csv":
            path.write_text("\n".join(["text", *texts]))
        else:
            pq.write_table(pa.table({"text": list(texts)}), path)

    write("a", "b", "c")
    read = inputs(test_file=str(path))
    write("a", "c", "b")
    message = refusal(lambda: output_file.write(tmp_path / "a.csv", read, classes, None))
    assert message == f"{path} changed during the prediction: run it again"
    assert not (tmp_path / "a.csv").exists()


def test_rows_that_are_missing_are_a_fault_of_the_program(tmp_path: Path, new: Inputs) -> None:
    path = predictions(tmp_path / "p.parquet", ["no"] * 4, range(4), no=[1.0] * 4)
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        with pytest.raises(RuntimeError, match="4 rows were predicted and 3 of them are in the input"):
            output_file.write(tmp_path / name, new, path, None)
        assert not (tmp_path / name).exists()


def test_two_columns_of_one_name_are_rejected(tmp_path: Path, classes: Path) -> None:
    (tmp_path / "new.csv").write_text("text,id,id\na,1,2\nb,1,2\nc,1,2\n")
    message = refusal(
        lambda: output_file.write(tmp_path / "a.csv", inputs(test_file=str(tmp_path / "new.csv")), classes, None)
    )
    assert message == f"{tmp_path}/new.csv has 2 columns named 'id': rename all but one"


def test_a_new_folder_is_made_and_what_cannot_be_written_is_rejected(
    tmp_path: Path, new: Inputs, classes: Path
) -> None:
    output_file.write(tmp_path / "x" / "y" / "a.csv", new, classes, None)
    assert [path.name for path in (tmp_path / "x" / "y").iterdir()] == ["a.csv"]
    path = tmp_path / "x" / "y" / "a.csv" / "b.csv"
    message = refusal(lambda: output_file.write(path, new, classes, None))
    assert message.startswith(f"--output_file {path} cannot be written: ")
