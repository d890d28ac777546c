"""A hundred thousand evaluation rows: a page under 2 MB. The time is printed, for a goal of 3 seconds."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from job.config.tasks import MULTI_LABEL, REGRESSION
from tests.support import reports
from tests.support.launch import ROOT
from tests.support.reports import Made

NAMES = tuple(f"class {number}" for number in range(77))
RUNS = {
    "2 classes": Made(),
    "77 classes": Made(names=NAMES),
    "20 labels": Made(MULTI_LABEL, NAMES[:20]),
    "numbers": Made(REGRESSION),
}
WRITE = """
import sys, time
begun = time.process_time()
from pathlib import Path
from job.report.html import writing
from job.run.folder import RunFolder
writing.write(RunFolder(Path(sys.argv[1])))
print(time.process_time() - begun)
"""


@pytest.mark.parametrize("rows", [800, 100_000])
@pytest.mark.parametrize("kind", RUNS)
def test_the_page_stays_small_for_any_number_of_rows(
    kind: str, rows: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is printed is the CPU time of a process with its imports: on a busy machine it is up to a third more."""
    made = Made(**{**vars(RUNS[kind]), "rows": rows})
    folder = reports.finished(tmp_path / "run", made)
    begun = time.perf_counter()
    command = [sys.executable, "-c", WRITE, str(folder.path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    took, size = float(done.stdout), folder.report.stat().st_size
    kept = sum(path.stat().st_size for path in folder.report_files.glob("*.json"))
    with capsys.disabled():
        print(f"\n{kind}, {rows:,} rows: {took:.2f} s of a processor ({time.perf_counter() - begun:.2f} s in all), "
              f"{size / 1e6:.2f} MB, {kept / 1e3:.0f} kB of texts and counts", end="")  # fmt: skip
    assert size < 2_000_000
    assert kept < 60_000
