"""The embedded dataset: the same bytes everywhere, correct labels, no overlap between splits."""

import hashlib
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from job.data import demo
from job.data.demo import Row
from job.errors import Refused

ROOT = Path(__file__).parents[3]

RECORDED_WITH = {
    "matplotlib": "3.11.2",
    "networkx": "3.6.1",
    "numpy": "2.4.6",
    "pandas": "3.1.1",
    "scikit-learn": "1.9.1",
    "scipy": "1.17.1",
    "sympy": "1.14.0",
    "transformers": "5.23.0",
}

GOLDEN = {
    "train": "c4d1f15ff11942ccb8d4ee8942a844285233fd4a66f95a309466ef54db0f55db",
    "validation": "c8b7c1993a150d02d49fc8cdae0fc3dd61ea3c770eeede03b71af389abed3ca3",
}

IMPORT_NAMES = {"matplotlib", "networkx", "numpy", "pandas", "scipy", "sklearn", "sympy", "transformers"}

BUILD = """
import json, sys
from pathlib import Path
from job.data.demo import files
paths = files(Path(sys.argv[1]))
print(json.dumps({"paths": {split: str(path) for split, path in paths.items()}, "modules": sorted(sys.modules)}))
"""

Built = list[dict[str, dict[str, str]]]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def built(cache: Path) -> Built:
    """What two processes report that built the data set in one cache at the same time."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", BUILD, str(cache)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    reports = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    return [json.loads(report) for report in reports]


@pytest.fixture(scope="module")
def rows(built: Built) -> list[Row]:
    return [
        Row(**json.loads(line), split=split)
        for split, path in built[0]["paths"].items()
        for line in Path(path).read_text(encoding="utf-8").split("\n")[:-1]
    ]


@pytest.mark.long
def test_the_bytes_match_the_recorded_digests(built: Built) -> None:
    installed = {library: metadata.version(library) for library in RECORDED_WITH}
    if installed != RECORDED_WITH:
        pytest.skip(f"recorded with other versions: {dict(RECORDED_WITH.items() - installed.items())}")
    assert {split: sha256(path) for split, path in built[0]["paths"].items()} == GOLDEN


@pytest.mark.long
def test_two_processes_at_once_get_the_same_complete_files_and_leave_nothing_else(built: Built, cache: Path) -> None:
    assert built[0]["paths"] == built[1]["paths"]
    folder = Path(built[0]["paths"]["train"]).parent
    assert list(cache.iterdir()) == [folder]
    assert sorted(path.name for path in folder.iterdir()) == ["train.jsonl", "validation.jsonl"]


@pytest.mark.long
def test_no_library_is_imported(built: Built) -> None:
    assert "job.data.demo" in built[0]["modules"]
    assert IMPORT_NAMES.isdisjoint(built[0]["modules"])


@pytest.mark.long
def test_every_library_has_about_the_requested_number_of_rows(rows: list[Row]) -> None:
    for split, expected in demo.ROWS.items():
        for library in demo.LIBRARIES:
            count = sum((row.label, row.split) == (library, split) for row in rows)
            assert 0.95 * expected <= count <= expected, (library, split)


@pytest.mark.long
def test_a_prefix_of_the_rows_is_a_sample_of_all_classes(rows: list[Row]) -> None:
    first = [row.label for row in rows if row.split == "train"][:400]
    assert all(25 <= first.count(library) <= 75 for library in demo.LIBRARIES)


@pytest.mark.long
def test_no_text_names_a_library(rows: list[Row]) -> None:
    for row in rows:
        assert not any(name in row.text.lower() for name in IMPORT_NAMES | {"scikit-learn"}), row
        assert not {"np", "pd", "plt", "mpl", "nx", "sp"} & set(row.text.replace(".", " ").split()), row


@pytest.mark.long
def test_no_text_is_in_both_splits_or_has_two_labels_or_occurs_twice(rows: list[Row]) -> None:
    assert len({demo.key(row.text) for row in rows}) == len(rows)


@pytest.mark.long
def test_no_text_is_too_short_or_has_line_breaks(rows: list[Row]) -> None:
    assert all(demo.is_long_enough(row.text) for row in rows)
    assert all(row.text.split() == row.text.split(" ") for row in rows)


def test_texts_of_one_file_are_in_one_split() -> None:
    files = [[f"{'abc'[of % 3] * (of // 3 + 1)} {'x' * (i + 1)}" for i in range(40)] for of in range(60)]
    dealt = demo.deal("numpy", files)
    sides = [{row.split for row in dealt if row.text in texts} for texts in files]
    assert all(len(side) <= 1 for side in sides)
    assert {"train"} in sides and {"validation"} in sides and set() in sides
    assert {split: sum(row.split == split for row in dealt) for split in demo.ROWS} == demo.ROWS


def test_only_needed_files_are_read() -> None:
    def endless() -> object:
        for of in range(10**9):
            yield [f"{'y' * of} {'x' * i}" for i in range(1, 40)]

    assert len(demo.deal("numpy", endless())) == sum(demo.ROWS.values())  # type: ignore[arg-type]


def test_a_text_with_two_labels_is_dropped_and_duplicates_are_kept_once() -> None:
    shared, own = "Return the Mean of 3 axes.", "Draw it."
    numpy = demo.deal("numpy", [[shared], [own, own.upper()]])
    pandas = demo.deal("pandas", [["return the mean of 4 axes"]])
    assert demo.unambiguous(numpy + pandas) == [Row(own, "numpy", "validation")]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("import numpy as np; np.array", "import library as library; library.array"),
        ("raises NetworkXError, see\n\n   nx.Graph", "raises libraryError, see library.Graph"),
        ("`to_numpy`, scikit-learn's SKLEARN", "`to_library`, library's library"),
        ("transformers from Hugging Face", "library from library"),
        ("input, snp, NP-hard, transformer", "input, snp, NP-hard, transformer"),
        ("a lone \ud800 surrogate", "a lone ? surrogate"),
    ],
)
def test_names_of_every_library_are_masked(written: str, shown: str) -> None:
    assert demo.masked(written) == shown


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("numpy/lib/_function_base_impl.py", True),
        ("scipy/stats/_page_trend_test.py", True),
        ("transformers/models/bert/tokenization_bert.py", True),
        ("numpy/__init__.py", False),
        ("numpy/__config__.py", False),
        ("numpy/version.py", False),
        ("numpy/distutils/ccompiler.py", False),
        ("numpy/lib/tests/test_io.py", False),
        ("pandas/_testing/asserters.py", False),
        ("pandas/_version_meson.py", False),
        ("sklearn/externals/_arff.py", False),
        ("scipy/_lib/array_api_compat/common/_aliases.py", False),
        ("networkx/conftest.py", False),
        ("numpy/core.pyi", False),
    ],
)
def test_tests_vendored_and_built_files_are_left_out(path: str, own: bool) -> None:
    assert demo.is_own(path) is own


def test_docstrings_come_in_source_order_and_line_ends_do_not_matter() -> None:
    source = (
        b'"""Module."""\nif x:\n    class A:\n        """\n        Class\n        A."""\n'
        b'        def f(self):\n            """F."""\nelse:\n    async def g():\n        "G, \\odd."\n'
        b'def h():\n    "H."\n'
    )
    unix = [demo.masked(text) for text in demo.docstrings("a.py", source)]
    windows = [demo.masked(text) for text in demo.docstrings("a.py", source.replace(b"\n", b"\r\n"))]
    assert unix == windows == ["Module.", "Class A.", "F.", "G, \\odd.", "H."]


def test_a_file_that_cannot_be_parsed_is_rejected_not_skipped() -> None:
    with pytest.raises(Refused, match=r"^dataset docstrings cannot read a/b\.py \(not valid Python: .*--force"):
        list(demo.docstrings("a/b.py", b"def f(:\n"))


def test_a_missing_library_is_rejected_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "LIBRARIES", ("numpy", "no-such-library"))
    with pytest.raises(Refused) as refusal:
        demo.files(tmp_path)
    expected = "dataset docstrings needs the package no-such-library: run `make setup`, or pip install -e '.[train]'"
    assert str(refusal.value) == expected
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_a_second_call_does_not_build_again(built: Built, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "corpus", lambda: pytest.fail("built again"))
    assert {split: str(path) for split, path in demo.files(cache).items()} == built[0]["paths"]


def test_other_versions_get_another_folder() -> None:
    newer = {**RECORDED_WITH, "numpy": "2.5.0"}
    assert demo.fingerprint(RECORDED_WITH) != demo.fingerprint(newer)


def test_the_second_of_two_writers_uses_the_files_of_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "docstrings-0"
    demo.publish([Row("first", "numpy", "train")], folder)
    demo.publish([Row("second", "numpy", "train")], folder)
    assert (folder / "train.jsonl").read_bytes() == b'{"text": "first", "label": "numpy"}\n'
    assert list(tmp_path.iterdir()) == [folder]


def test_a_killed_build_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full_disk(path: Path, rows: list[Row]) -> None:
        path.write_text("half")
        raise OSError("No space left on device")

    monkeypatch.setattr(demo, "write", full_disk)
    with pytest.raises(OSError, match="No space left"):
        demo.publish([], tmp_path / "docstrings-0")
    assert not list(tmp_path.iterdir())


def test_a_damaged_cache_is_rejected_with_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "corpus", list)
    demo.files(tmp_path)["train"].unlink()
    with pytest.raises(Refused, match=r"^dataset docstrings: files are missing in .*: delete this folder"):
        demo.files(tmp_path)


def sha256(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
