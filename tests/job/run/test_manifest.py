"""What manifest.json contains, and what it must not contain."""

import json

import pytest

from job.run import manifest


def test_the_manifest_holds_no_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    made = manifest.new(seed=1, world_size=2, device="cpu", fingerprint="f", before={})
    assert "hf_secret" not in json.dumps(made)
    assert made["packages"].keys() >= {"torch", "transformers"}
