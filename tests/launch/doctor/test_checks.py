"""One line a check: it fails if it fails anywhere, and skipped checks are named."""

from __future__ import annotations

from launch.doctor import checks
from launch.doctor.checks import CLUSTER, FAILED, GROUP, NAMES, OK, SHM, SKIPPED, Finding


def states(findings: list[Finding], expected: dict[str, int]) -> dict[str, str]:
    return {line.check.name: line.state for line in checks.lines(CLUSTER, findings, expected)}


def test_a_check_is_ok_only_if_every_process_reported_ok() -> None:
    two = [Finding(check.name, OK, "well", place=node) for check in CLUSTER for node in ("n1", "n2")]
    expected = dict.fromkeys((check.name for check in CLUSTER), 2)
    assert set(states(two, expected).values()) == {OK}
    silent = [finding for finding in two if (finding.check, finding.place) != (SHM.name, "n2")]
    lines = {line.check.name: line for line in checks.lines(CLUSTER, silent, expected)}
    assert lines[SHM.name].state == FAILED
    assert lines[SHM.name].detail == "1 of 2 processes did not answer"


def test_checks_after_a_failure_are_not_checked_but_other_failures_are_reported() -> None:
    findings = [Finding(check.name, OK, "well") for check in CLUSTER[:5]]
    findings += [Finding(NAMES.name, FAILED, "no n1", "set it", "n2"), Finding(SHM.name, FAILED, "full", "more", "n1")]
    lines = {line.check.name: line for line in checks.lines(CLUSTER, findings, {})}
    assert (lines[NAMES.name].state, lines[NAMES.name].detail, lines[NAMES.name].remedy) == (
        FAILED,
        "n2: no n1",
        "set it",
    )
    assert (lines[GROUP.name].state, lines[GROUP.name].detail) == (SKIPPED, "not checked, as names failed")
    assert lines[SHM.name].state == FAILED


def test_nodes_with_the_same_result_are_grouped() -> None:
    alike = [Finding(SHM.name, OK, "24.0 GB free", place=node) for node in ("n1", "n2")]
    assert checks.lines((SHM,), alike, {SHM.name: 2})[0].detail == "24.0 GB free (on n1, n2)"
    alike[1] = Finding(SHM.name, OK, "2.0 GB free", place="n2")
    assert checks.lines((SHM,), alike, {SHM.name: 2})[0].detail == "n1: 24.0 GB free; n2: 2.0 GB free"
