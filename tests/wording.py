"""Rejects quaint words in code, docs and tests: `python -m tests.wording`, a part of `make check`."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
DENIED = {
    r"anew": "again",
    r"as ever": "as usual",
    r"beside": "next to, in addition to",
    r"for ever": "forever",
    r"(gone|goes|go|went|going) on (from|with|in)": "continue, resume",
    r"goes on": "continues, resumes",
    r"heed\w*": "handle",
    r"hence(forth)?": "so",
    r"hitherto": "so far",
    r"in reach": "reachable",
    r"in truth": "really",
    r"in vain": "without effect",
    r"lest": "so that ... not",
    r"let go": "release",
    r"mend(s|ed|ing)?": "fix",
    r"of no use": "useless, invalid",
    r"of which": "whose",
    r"owed": "pending",
    r"(put|puts) back": "restore",
    r"so many": "this many",
    r"stands?(?! ins?\b)": "is",
    r"thereby": "so",
    r"told": "set, passed, reported",
    r"vouch\w*": "guarantee",
    r"whatever": "any, regardless of",
    r"wherever": "if",
    r"yardstick": "reference",
}
"""Pattern of whole words -> what to write instead."""
SEARCHED = ("*.py", "*.md", "*.sh", "*.yaml", "*.toml", "Makefile", "docker/Dockerfile", ".env.example", ".ci/run")
NOT_SEARCHED = ("CHANGELOG.md", "tests/wording.py", "tests/test_wording.py", "tests/data", "tests/bench/RESULTS.md")
GAP = r"(?:\s*\n[\s#]*| )"
"""Between two words: a space, or the end of a line and the start of the next one, also in a comment."""
WORD = re.compile("|".join(f"(?<![a-z-])({word})(?![a-z-])" for word in DENIED).replace(" ", GAP), re.IGNORECASE)


def findings(text: str) -> Iterator[tuple[int, str, str]]:
    """(line number, word, what to write instead) of each denied word; in names, underscores separate words."""
    for match in WORD.finditer(text.replace("_", " ")):
        word = re.sub(GAP, " ", match[0].lower())
        better = next(better for known, better in DENIED.items() if re.fullmatch(known, word))
        yield text.count("\n", 0, match.start()) + 1, word, better


def tracked(root: Path) -> list[Path]:
    """The files to search, as git lists them."""
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", *SEARCHED, *(f":!{name}" for name in NOT_SEARCHED)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [root / name for name in listed.stdout.split("\0") if name]


def main(paths: Sequence[Path]) -> int:
    """Print each denied word with its place; the number of them, at most 1, is the exit code."""
    count = 0
    for path in paths:
        for number, word, better in findings(path.read_text(encoding="utf-8")):
            sys.stdout.write(f"{path.relative_to(ROOT)}:{number}: {word!r}: write {better}\n")
            count += 1
    return min(count, 1)


if __name__ == "__main__":
    sys.exit(main(tracked(ROOT)))
