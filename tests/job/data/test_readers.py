"""Rows are read exactly as written, and unreadable ones are reported with their line."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from job.data import readers
from job.errors import Refused

CELLS = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    [
        "",
        "NA",
        "null",
        "007",
        "1.0",
        "2020-01-01",
        "a, b",
        "a\tb",
        '"',
        'say "x"',
        "two\nlines",
        "two\r\nlines",
        " x ",
        "\ufeff",
    ]
)
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff"), min_size=1)
WRITTEN = st.sampled_from([(csv.QUOTE_ALL, "\n"), (csv.QUOTE_ALL, "\r\n"), (csv.QUOTE_ALL, "\r")]) | st.sampled_from(
    # Less quoting is only unambiguous where the writer quotes both line ends.
    [(csv.QUOTE_MINIMAL, "\r\n"), (csv.QUOTE_NONNUMERIC, "\r\n")]
)


def values(path: Any, names: Any = (), quoting: readers.Quoting = None) -> list[dict[str, Any]]:
    """The columns `names` of each row."""
    return [{name: row.values[name] for name in names} for row in readers.rows(path, names, quoting)]


on_disk = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def tables_of(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> tuple[list[str], list[list[Any]]]:
    """Names of the columns and rows."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    return names, draw(st.lists(st.lists(values, min_size=len(names), max_size=len(names)), max_size=6))


def write_csv(path: Path, names: list[str], rows: list[list[str]], how: tuple[int, str], encoding: str) -> None:
    quoting, newline = how
    separator = "," if ".csv" in path.suffixes else "\t"
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=separator, quoting=quoting, lineterminator=newline)  # type: ignore[arg-type]
        writer.writerows([names, *rows])


@on_disk
@given(
    st.sampled_from(["a.csv", "a.tsv", "a.csv.gz", "a.tsv.gz"]),
    tables_of(CELLS),
    WRITTEN,
    st.sampled_from(["utf-8", "utf-8-sig"]),
)
@example("a.csv", (["text", "label"], [["007", "NA"], ["", 'a,"b"\n\r\nc']]), (csv.QUOTE_MINIMAL, "\r\n"), "utf-8-sig")
def test_any_csv_or_tsv_round_trips_exactly(
    tmp_path: Path, name: str, table: tuple[list[str], list[list[str]]], how: tuple[int, str], encoding: str
) -> None:
    names, rows = table
    assume(names not in rows)
    path = tmp_path / name
    write_csv(path, names, rows, how, encoding)
    assert readers.columns(path) == names
    assert values(path, names, "minimal") == [dict(zip(names, row, strict=True)) for row in rows]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | CELLS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CELLS, inner, max_size=3),
    max_leaves=5,
)


def as_lines(rows: list[dict[str, Any]], ascii_only: bool) -> str:
    return "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)


def as_array(rows: list[dict[str, Any]], ascii_only: bool) -> str:
    return f" \n{json.dumps(rows, ensure_ascii=ascii_only)}\n"


def as_indented_array(rows: list[dict[str, Any]], ascii_only: bool) -> str:
    return json.dumps(rows, ensure_ascii=ascii_only, indent=1)


@on_disk
@given(
    st.sampled_from([("a.jsonl", as_lines), ("a.json", as_lines), ("a.json", as_array), ("a.json", as_indented_array)]),
    tables_of(JSON),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig"]),
    st.booleans(),
)
def test_any_json_round_trips_exactly(
    tmp_path: Path,
    form: tuple[str, Callable[[list[dict[str, Any]], bool], str]],
    table: tuple[list[str], list[list[Any]]],
    ascii_only: bool,
    newline: str,
    encoding: str,
    zipped: bool,
) -> None:
    (name, write), (names, rows) = form, table
    written = [dict(zip(names, row, strict=True)) for row in rows]
    content = write(written, ascii_only).replace("\n", newline).encode(encoding)
    path = tmp_path / f"{name}{'.gz' if zipped else ''}"
    path.write_bytes(gzip.compress(content) if zipped else content)
    assert repr(values(path, names)) == repr(written)  # repr: 1, 1.0 and True are equal but not the same
    if written:
        assert readers.columns(path) == names


LETTERS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\r\ufeff"), min_size=1)


@on_disk
@given(st.sampled_from(["a.csv", "a.tsv", "a.tsv.gz"]), tables_of(LETTERS | st.sampled_from(['"', '"a', 'a"b"'])))
@example("a.tsv", (["text", "label"], [['"i loved it .', "1"], ["bad", "0"], ['poor . "', "0"]]))
def test_without_quoting_every_line_is_a_row(
    tmp_path: Path, name: str, table: tuple[list[str], list[list[str]]]
) -> None:
    names, rows = table
    separator = "," if ".csv" in name else "\t"
    assume(names not in rows and not any({separator, "\n", "\r"} & set(cell) for row in [names, *rows] for cell in row))
    content = "".join(separator.join(row) + "\n" for row in [names, *rows]).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert readers.columns(tmp_path / name, "none") == names
    assert values(tmp_path / name, names, "none") == [dict(zip(names, row, strict=True)) for row in rows]


def test_a_blank_line_is_a_row_only_in_a_one_column_file(tmp_path: Path) -> None:
    for name in ("a.csv", "a.tsv"):
        (tmp_path / name).write_text("a\n\n1\n\n")
        assert values(tmp_path / name, ["a"]) == [{"a": ""}, {"a": "1"}, {"a": ""}]
    (tmp_path / "b.csv").write_text("a,b\n\n1,2\n\n")
    (tmp_path / "b.jsonl").write_text('\n{"a": "1", "b": "2"}\n  \n')
    assert values(tmp_path / "b.csv", ["a", "b"]) == values(tmp_path / "b.jsonl", ["a", "b"]) == [{"a": "1", "b": "2"}]


def test_all_columns_of_a_row_are_given(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b,c\n1,2,3\n")
    assert [row.values for row in readers.rows(tmp_path / "a.csv", ["c"])] == [{"a": "1", "b": "2", "c": "3"}]


def test_multi_line_cells_are_counted_in_every_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('a,b\n1,2\n"x\ny","p\nq"\n\n"1",2\n"x\n\ny",3\n')
    assert [(row.where, row.spanning) for row in readers.rows(tmp_path / "a.csv")] == [
        ("line 2", 0),
        ("line 5", 2),
        ("line 7", 0),
        ("line 10", 1),
    ]


TWO_COLUMNS = b'text\tlabel\n"i loved it .\t1\nawful\t0\npoor . "\t0\nbad\t0\n'
ONE_COLUMN = b'text\n"i loved it .\nawful\npoor . "\nbad\n'


@pytest.mark.parametrize("content", [TWO_COLUMNS, ONE_COLUMN, TWO_COLUMNS.replace(b"\n", b"\r\n")])
def test_a_tsv_with_ambiguous_quotation_marks_needs_the_flag(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.tsv").write_bytes(content)
    assert refusal(lambda: list(readers.rows("a.tsv"))) == (
        "a.tsv, line 2: a double quote joins lines 2 to 4 into one cell: add --csv_quoting none if quotation marks are "
        "ordinary characters in this file, or --csv_quoting minimal if this is one cell"
    )
    assert len(values("a.tsv", ["text"], "minimal")) == 2
    assert [row["text"] for row in values("a.tsv", ["text"], "none")] == ['"i loved it .', "awful", 'poor . "', "bad"]


def test_a_multi_line_tsv_text_without_tabs_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('text\tlabel\n"two\nlines"\t1\nplain\t0\n"said"\t1\n')
    rows = list(readers.rows(tmp_path / "a.tsv"))
    assert [row.values["text"] for row in rows] == ["two\nlines", "plain", "said"]
    assert [(row.spanning, row.quoted) for row in rows] == [(1, True), (0, False), (0, True)]


@pytest.mark.parametrize("content", ["a,b\n1,2\na,b\n3,4\n", "\ufeffa,b\n1,2\n\ufeffa,b\n3,4\n"])
def test_a_repeated_header_is_rejected_with_its_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content)
    message = refusal(lambda: list(readers.rows(tmp_path / "a.csv")))
    assert message == f"{tmp_path}/a.csv, line 3: the header is repeated: remove this line"


def test_a_cell_may_be_longer_than_the_csv_modules_limit(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"text,label\n{'x' * 200_000},1\n")
    assert [len(row["text"]) for row in values(tmp_path / "a.csv", ["text"])] == [200_000]


NOTE = ": add --csv_quoting none if quotation marks are ordinary characters in this file"


def refusal(act: Callable[[], Any]) -> str:
    with pytest.raises(Refused) as caught:
        act()
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"a,b\n1,2\n3\n", "a.csv, line 3: no value for b: add it or remove the row"),
        (
            "a.csv",
            b"a,b\n1,2\n3,4,5\n",
            "a.csv, line 3: 3 values for 2 columns: put text that contains a comma in double quotes",
        ),
        ("a.csv", b'a,b\n"1\n1",2\n3\n', "a.csv, line 4: no value for b: add it or remove the row"),
        ("a.csv", b'a,b\n"1"x,2\n', "a.csv, line 2: ',' expected after '\"'" + NOTE),
        ("a.csv", b'a,b\n1,2\n"3,4\n', "a.csv, line 3: a double quote is never closed" + NOTE),
        (
            "a.jsonl",
            b'{"a": 1, "b": 2}\n\n{"a": 1\n',
            "a.jsonl, line 3 is not JSON: Expecting ',' delimiter",
        ),
        ("a.jsonl", b'{"a": 1, "b": 2}\n[1]\n', "a.jsonl, line 2: not a JSON object"),
        ("a.json", b'{"a": 1, "b": 2}\n[1]\n', "a.json, line 2: not a JSON object"),
        ("a.jsonl", b'{"a": 1, "b": 2} 3\n', "a.jsonl, line 1 is not JSON: Extra data"),
        ("a.json", b'\n[\n{"a": 1, "b": 2},\n{"a": 1', "a.json, line 4 is not JSON: Expecting ',' delimiter"),
        ("a.json", b'[{"a": 1, "b": 2},\n]', "a.json, line 2 is not JSON: Expecting value"),
        ("a.json", b'[{"a": 1, "b": 2}\n{"a": 1, "b": 2}]', "a.json, line 2 is not JSON: Expecting ',' delimiter"),
        ("a.json", b'[{"a": 1, "b": 2}\n', "a.json, line 1 is not JSON: Expecting ',' delimiter"),
        ("a.json", b'[{"a": 1, "b": 2}]\n]', "a.json, line 2 is not JSON: Extra data"),
        ("a.json", b'[{"a": 1, "b": 2}, 3]', "a.json, row 2: not a JSON object"),
        (
            "a.jsonl",
            b'{"a": 1, "b": 2}\n\n{"a": 1, "b": 2, "a": 3}\n',
            "a.jsonl, line 3: the key 'a' occurs twice in an object: remove one",
        ),
        (
            "a.json",
            b'[\n{"a": 1, "b": [2]},\n{"a": 1, "b": [{"c": 1, "c": 1}]}\n]',
            "a.json, row 2: the key 'c' occurs twice in an object: remove one",
        ),
        (
            "a.json",
            b"[" * 100_000,
            "a.json, line 1: the JSON is nested too deeply or has a number with too many digits",
        ),
        (
            "a.tsv",
            b"a\tb\n1\t2\n3\t4\t5\n",
            "a.tsv, line 3: 3 values for 2 columns: put text that contains a tab in double quotes",
        ),
    ],
)
def test_a_row_with_a_wrong_number_of_values_is_rejected_with_its_line(
    name: str, content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    assert refusal(lambda: list(readers.rows(name, ["a", "b"]))) == message


def test_rows_before_an_invalid_one_are_still_yielded(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3\n")
    reader = readers.rows(tmp_path / "a.csv", ["a", "b"])
    assert next(reader).values == {"a": "1", "b": "2"}


@pytest.mark.parametrize(("name", "newline"), [("a.csv", b"a,b\n"), ("a.jsonl", b'{"a": "x", "b": 1}\n')])
def test_a_row_that_is_not_utf8_is_rejected(name: str, newline: bytes, tmp_path: Path) -> None:
    """Also behind the part of the file that was read for its columns."""
    row = b"gr\xfc\xdfe,1\n" if name == "a.csv" else b'{"a": "gr\xfc\xdfe", "b": 1}\n'
    (tmp_path / name).write_bytes(newline * 20_000 + row)
    assert readers.columns(tmp_path / name) == ["a", "b"]
    message = refusal(lambda: list(readers.rows(tmp_path / name, ["a", "b"])))
    assert message.startswith(f"{tmp_path / name}") and len(message.splitlines()) == 1


@pytest.mark.parametrize("name", ["a.csv", "a.tsv.gz", "a.jsonl", "a.json", "a.json.gz"])
def test_an_empty_file_is_rejected(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    assert refusal(lambda: readers.columns(tmp_path / name)).startswith(f"{tmp_path / name} is empty: ")


def test_a_header_whose_quote_is_never_closed_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('"text,label\n' + "some words,1\n" * 20_000)
    assert refusal(lambda: readers.columns(tmp_path / "a.csv")).startswith(f"{tmp_path / 'a.csv'}")


def test_latin_1_inside_gzip_is_rejected_with_line_and_byte(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 19_999 + b"gr\xfc\xdfe,1\n"))
    message = refusal(lambda: list(readers.rows(tmp_path / "a.csv.gz", ["a"])))
    assert message.startswith(f"{tmp_path / 'a.csv.gz'}, line 20001: byte 0xfc is not UTF-8")


@pytest.mark.parametrize("name", ["a.csv.gz", "a.json.gz", "a.jsonl.gz"])
@pytest.mark.parametrize("damage", ["cut off", "no gzip", "a byte changed", "more behind it"])
def test_a_damaged_gzip_file_is_rejected(name: str, damage: str, tmp_path: Path) -> None:
    rows = "".join(f'{{"a": "{number**9}"}}\n' for number in range(5000)).encode()
    whole = gzip.compress(rows.replace(b'"', b"") if name == "a.csv.gz" else rows)
    middle = len(whole) // 2
    content = {
        "cut off": whole[:middle],
        "no gzip": rows,
        "a byte changed": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
        "more behind it": whole + b"more",
    }[damage]
    (tmp_path / name).write_bytes(content)
    message = refusal(lambda: list(readers.rows(tmp_path / name, [])))
    assert message.startswith(str(tmp_path / name)) and len(message.splitlines()) == 1


@pytest.mark.parametrize("name", ["a.csv", "d/a.csv", "d/**", "a?.csv", "[a].csv"])
def test_paths_and_patterns_with_the_same_files_are_equivalent(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    for path in ("a.csv", "d/a.csv", "d/b.csv", "a?.csv"):
        Path(path).touch()
    expected = {"d/**": ["d/a.csv", "d/b.csv"], "[a].csv": ["a.csv"]}
    assert readers.files(name) == expected.get(name, [name])


@pytest.mark.parametrize(
    ("name", "kind"), [("a.csv", ".csv"), ("a.tar.TSV.gz", ".tsv"), ("a.json", ".json"), ("a.b.parquet", ".parquet")]
)
def test_the_format_of_a_file_is_known_by_its_suffix(name: str, kind: str) -> None:
    assert readers.kind(name) == kind


@pytest.mark.parametrize("name", ["a", "a.txt", "a.parquet.gz", "a.gz", "csv"])
def test_other_suffixes_are_rejected(name: str) -> None:
    assert refusal(lambda: readers.kind(name)).startswith(f"{name}: the name must end in .csv, ")
