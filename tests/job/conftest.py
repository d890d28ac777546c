"""For all tests of the job: nothing is fetched, and what is cached is thrown away."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from job.environment import OFFLINE

os.environ.update(dict.fromkeys(OFFLINE, "1"))  # the libraries read these once, at their import
settings.register_profile("job", deadline=None)  # a first example may import a library
settings.load_profile("job")


@pytest.fixture
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of `datasets`, for this test alone."""
    import datasets

    cache = tmp_path / "datasets-cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    return cache
