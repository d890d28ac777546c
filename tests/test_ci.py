"""What continuous integration runs, and its message when a run is too slow to finish."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
ON_A_GPU = "test-gpu"
TARGETS = [*re.findall(r'^    "(.*)"$', (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE), ON_A_GPU]


def ci(folder: Path, started_seconds_ago: int, failing: str = "none") -> tuple[int, str, list[str]]:
    """Exit code, output and the calls of make, which a recorder replaces; on a machine with a GPU."""
    recorder = f'#!/bin/sh\necho "$@" >> {folder}/calls\n[ "$1" != {failing} ]\n'
    (folder / "make").write_text(recorder, encoding="ascii")
    (folder / "make").chmod(0o755)
    (folder / "nvidia-smi").symlink_to("/bin/true")
    (folder / "calls").touch()
    environ = {"PATH": f"{folder}:{os.environ['PATH']}", "SECONDS": str(started_seconds_ago)}
    done = subprocess.run([ROOT / ".ci" / "run"], env=environ, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, (folder / "calls").read_text(encoding="ascii").splitlines()


def test_every_target_runs_and_exists(tmp_path: Path) -> None:
    code, output, calls = ci(tmp_path, 0)
    assert (code, calls) == (0, TARGETS)
    assert "full pass" in output and "NOT A FULL PASS" not in output
    made = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = {word for target in TARGETS for word in target.split() if "=" not in word}
    assert named <= set(made)
    assert {target for target in made if target.startswith("test")} <= named, "a target of tests that CI does not run"


def test_after_70_minutes_the_remaining_targets_are_skipped_and_named(tmp_path: Path) -> None:
    code, output, calls = ci(tmp_path, 70 * 60)
    assert (code, calls) == (0, []), "what ran did not fail"
    assert "full pass" not in output
    assert output.splitlines()[-len(TARGETS) - 1 :] == [
        "NOT A FULL PASS: 70 minutes were over, so these did not run:",
        *(f"  make {target}" for target in TARGETS),
    ]


def test_a_target_that_fails_ends_the_run(tmp_path: Path) -> None:
    code, output, calls = ci(tmp_path, 0, failing=TARGETS[1])
    assert code == 1 and calls == TARGETS[:2]
    assert "full pass" not in output.lower()
