"""What manifest.json contains, what it must not contain, and the token limit that it keeps for the next start."""

import json
from pathlib import Path

import pytest

from job.run import manifest
from job.run.folder import RunFolder


def test_the_manifest_holds_no_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    made = manifest.new(seed=1, world_size=2, device="cpu", fingerprint="f", before={})
    assert "hf_secret" not in json.dumps(made)
    assert made["packages"].keys() >= {"torch", "transformers"}


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (320, 320, 80),  # the same command
        (320, 1000, 1000),  # a larger GPU, and the user says so
        (320, 100, 100),
        (320, 40, 40),
        (320, None, 80),
        (None, None, 80),
        (None, 1000, 1000),
    ],
)
def test_the_limit_found_by_running_out_of_memory_is_kept_until_the_user_sets_another(
    before: int | None, now: int | None, expected: int, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    folder.manifest.write_text("{}")
    manifest.keep_token_limit(folder, 80, before)
    known = json.loads(folder.manifest.read_text())
    again = manifest.new(seed=1, world_size=1, device="cpu", fingerprint="f", before=known)
    folder.manifest.write_text(json.dumps(again))
    assert manifest.token_limit(folder, now or 4096, now) == expected


def test_a_limit_without_the_setting_that_it_replaced_is_kept(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.manifest.write_text(json.dumps({manifest.TOKEN_LIMIT: 80}))
    assert manifest.token_limit(folder, 1000, 1000) == 80
