"""A browser for all tests of the page; in CI it must be there, elsewhere the tests are skipped without it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.support import browser as chromium
from tests.support.browser import Browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    missing = [name for name in chromium.NEEDED if shutil.which(name) is None]
    if missing and "CI" not in os.environ:
        pytest.skip(f"{', '.join(missing)} not installed: make report-packages")
    with chromium.browser(tmp_path_factory.mktemp("profile")) as made:
        yield made
