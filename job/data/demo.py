"""The embedded data set `docstrings`: which of eight libraries is a docstring taken from?

It needs real text on a machine without a network, and every environment of this project already holds some: the
docstrings of pinned wheels. The corpus is therefore built from what is installed, in seconds, and cached, instead
of being shipped as a data file that would have to be licensed, stored and kept. The price is that the rows follow
the installed versions: the same pins give the same bytes on every machine, other versions another corpus, in
another folder. The libraries are read, never imported: an import would cost seconds and memory, and would show the
docstrings that a platform assembles at run time.

All eight libraries' names are masked in every row. To mask only a row's own name would make the mask the label.

Not covered: templates that are filled in differently (two models' tokenizers, say) count as different texts.
"""

import ast
import hashlib
import json
import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path

from job.errors import Refused
from job.runtime.files import digest as digest_of_json
from job.runtime.files import flush

LIBRARIES: tuple[str, ...] = (
    "matplotlib", "networkx", "numpy", "pandas", "scikit-learn", "scipy", "sympy", "transformers",
)  # fmt: skip

FORMAT = 1
"""Part of the folder's name: raised whenever a rule below changes what the rows are."""

ROWS = {"validation": 175, "train": 1000}
"""Rows wanted of each library, so that the classes weigh the same whatever the libraries' sizes: the smallest,
numpy, has just enough. The validation split is dealt first, so that it is never the one that runs short."""

ROWS_PER_FILE = 50
"""One file of two hundred methods would otherwise be all that a library's validation rows are about."""

MIN_CHARACTERS, MIN_WORDS = 40, 6
"""Shorter docstrings ("Return the name.") could come from anywhere."""

MASK = "library"

NAMES = re.compile(
    # Long names also inside identifiers (NetworkXError, to_numpy, SymPyPrinter) ...
    r"(?i:scikit[-_ ]?learn|sklearn|matplotlib|mpl_toolkits|pyplot|pylab|networkx|numpy|pandas|scipy|sympy"
    r"|transformers|hugging[-_ ]?face)"
    # ... import aliases only as words, where an underscore ends a word, and only as code spells them: NP is hard.
    r"|(?<![a-zA-Z0-9])(?:np|pd|plt|mpl|nx|sp|hf|HF)(?![a-zA-Z0-9])"
)

TESTS = re.compile(r"(^|/)(tests?|_?testing|conftest\.py|test_[^/]*|testing_utils\.py)(/|$)")

# Third-party code that several libraries carry along: the same text would stand under several labels.
VENDORED = re.compile(r"(^|/)(_?vendor(ed)?|externals?|extern|_lib|array_api_\w+|_docscrape\.py|_pep440\.py)(/|$)")

# Written by the build (versions, compilers), patched by the tools that bundle DLLs (a library's first __init__.py),
# or, like distutils, in the wheels of some Pythons only.
BUILT = re.compile(
    r"(^|/)(__config__|_*version(_meson|__)?|_distributor_init\w*|cversions|distutils)(\.py|/)|^[^/]+/__init__\.py$"
)

GENERATED = b"automatically generated"
"""Says, in its first lines, a file that a program copied from another one: its docstrings are duplicates."""

Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Row:
    """One docstring: masked, on one line."""

    text: str
    label: str
    split: str


def files(cache: Path) -> dict[str, Path]:
    """The data set's files, built below `cache` if they are not there yet.

    Returns {"train": path, "validation": path}: UTF-8 JSON lines {"text": str, "label": str}, the label one of
    LIBRARIES, in an order that is random but fixed, so that the first rows are a sample of all.
    Safe to call in many processes at once: each sees no files or whole ones, and all get the same.

    Raises Refused if a library is not installed, not readable, or if the cached folder was damaged;
    OSError if `cache` cannot be written.
    """
    folder = cache / f"docstrings-{fingerprint(versions())}"
    if not is_complete(folder):
        publish(corpus(), folder)
    if not is_complete(folder):
        raise Refused(f"data set docstrings: files are missing in {folder}: delete this folder and start again")
    return paths(folder)


def versions() -> dict[str, str]:
    """The installed version of each library; raises Refused if one is not installed."""
    return {library: installed(library).version for library in LIBRARIES}


def installed(library: str) -> metadata.Distribution:
    try:
        return metadata.distribution(library)
    except metadata.PackageNotFoundError:
        raise Refused(f"data set docstrings needs the package {library}: pip install 'muster[train]'") from None


def fingerprint(of: dict[str, str]) -> str:
    """16 hexadecimal digits that name the corpus of these versions."""
    return digest_of_json([FORMAT, of])[:16]


def corpus() -> list[Row]:
    """All rows of both splits, in the order they are written in."""
    rows = [row for library in LIBRARIES for row in deal(library, map(texts, sources(library)))]
    return sorted(unambiguous(rows), key=lambda row: digest(row.text))


def sources(library: str) -> Iterator[tuple[str, bytes]]:
    """(path, content) of the library's own Python files, in the order of their paths' hash.

    That order is random but fixed, and spreads over the whole library however few files are then read.
    """
    listed = [str(path) for path in installed(library).files or () if is_own(str(path))]
    if not listed:
        raise Refused(f"data set docstrings finds no files of {library}: pip install --force-reinstall {library}")
    for path in sorted(listed, key=digest):
        content = read(library, path)
        # Lines, not bytes, are counted: Windows wheels end them with two.
        if not any(GENERATED in line for line in content.split(b"\n", 20)[:20]):
            yield path, content


def is_own(path: str) -> bool:
    """Whether a file says the same on every platform and is the library's own prose."""
    return path.endswith(".py") and not any(rule.search(path) for rule in (TESTS, VENDORED, BUILT))


def read(library: str, path: str) -> bytes:
    try:
        return Path(str(installed(library).locate_file(path))).read_bytes()
    except OSError as error:
        raise unusable(path, error.strerror or "unreadable") from None


def unusable(path: str, why: str) -> Refused:
    """A file is never skipped: one missing docstring would silently be another corpus under the same name."""
    return Refused(f"data set docstrings cannot read {path} ({why}): pip install --force-reinstall its package")


def texts(source: tuple[str, bytes]) -> list[str]:
    """The masked docstrings of one file that are long enough, in source order."""
    path, content = source
    candidates = (masked(docstring) for docstring in docstrings(path, content))
    return list(islice(filter(is_long_enough, candidates), ROWS_PER_FILE))


def docstrings(path: str, content: bytes) -> Iterator[str]:
    """The docstrings of a Python file, as written, in source order; raises Refused if it cannot be parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes; which warning they give depends on the Python version
            tree = ast.parse(content)
    except (SyntaxError, ValueError) as error:
        raise unusable(path, f"not valid Python: {error}".splitlines()[0]) from None
    for definition in definitions(tree):
        # Uncleaned: what counts as indentation differs between Python versions, and masked() removes it anyway.
        yield ast.get_docstring(definition, clean=False) or ""


def definitions(node: ast.AST) -> Iterator[Definition]:
    """The node and what is defined below it, going through statements only: expressions hold no docstring."""
    if isinstance(node, Definition):
        yield node
    for block in ("body", "cases", "handlers", "orelse", "finalbody"):
        for child in getattr(node, block, ()):
            yield from definitions(child)


def masked(docstring: str) -> str:
    """The docstring on one line, every library's name replaced; what UTF-8 cannot hold becomes a question mark."""
    return NAMES.sub(MASK, " ".join(docstring.split())).encode(errors="replace").decode()


def key(text: str) -> str:
    """What two texts share if they differ in case, numbers and punctuation only: then they are duplicates."""
    return " ".join(re.findall("[a-z]+", text.lower()))


def is_long_enough(text: str) -> bool:
    return len(text) >= MIN_CHARACTERS and len(key(text).split()) >= MIN_WORDS


def deal(label: str, files: Iterable[list[str]]) -> list[Row]:
    """Rows without duplicates from texts given file by file, the first files to validation, the next to train.

    Whole files, because a file's docstrings resemble each other: split up, they would be learnt, not understood.
    `files` is consumed only as far as ROWS asks for.
    """
    remaining = iter(files)
    rows: dict[str, Row] = {}
    for split, wanted in ROWS.items():
        full = len(rows) + wanted
        while len(rows) < full and (of_file := next(remaining, None)) is not None:
            for text in of_file:
                if len(rows) < full:
                    rows.setdefault(key(text), Row(text, label, split))
    return list(rows.values())


def unambiguous(rows: list[Row]) -> list[Row]:
    """Without the texts that stand under more than one label: nobody could tell them apart."""
    labels: dict[str, set[str]] = {}
    for row in rows:
        labels.setdefault(key(row.text), set()).add(row.label)
    return [row for row in rows if len(labels[key(row.text)]) == 1]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def paths(folder: Path) -> dict[str, Path]:
    return {split: folder / f"{split}.jsonl" for split in ("train", "validation")}


def is_complete(folder: Path) -> bool:
    return all(path.is_file() for path in paths(folder).values())


def publish(rows: list[Row], folder: Path) -> None:
    """Write the splits aside and rename their folder into place; if another process was first, its files stay."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".docstrings-") as aside:
        made = Path(aside) / folder.name
        made.mkdir()  # not the temporary folder itself, which only its owner may read
        for split, path in paths(made).items():
            write(path, [row for row in rows if row.split == split])
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise


def write(path: Path, rows: list[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps({"text": row.text, "label": row.label}, ensure_ascii=False) + "\n")
    flush(path)  # or a crash after the rename could leave an empty file under the final name
