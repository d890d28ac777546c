"""The daemon, the image and its build time, for all tests of the image."""

import os
from collections.abc import Iterator

import pytest

from tests.image import building, engine
from tests.image.building import IMAGE, Built
from tests.image.engine import Docker

MEASURED = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    """A daemon to build and run with; skipped without one, except in continuous integration, where it must be there."""
    reason = engine.missing()
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    with engine.daemon() as docker:
        yield docker


@pytest.fixture(scope="session")
def measured(request: pytest.FixtureRequest) -> list[str]:
    """Lines shown at the end: sizes and seconds, which no test asserts."""
    return request.config.stash.setdefault(MEASURED, [])


@pytest.fixture(scope="session")
def built(docker: Docker, measured: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """The image IMAGE, with nothing in the build's cache but its base."""
    folder = tmp_path_factory.mktemp("build")
    building.base(docker, folder / "base")
    tree = building.tree(folder / "tree")
    building.wheels(tree / "docker" / "wheels", "--no-deps", "torch==2.13.0")
    pip = building.pip_settings(folder)
    seconds, _ = building.make(docker, Built(tree, pip, 0), "image")
    measured += [
        f"built in {seconds:.0f} s",
        *(f"{size / 1e6:8.1f} MB  {made}" for size, made in building.layers(docker)),
    ]
    yield Built(tree, pip, seconds)
    docker("image", "rm", "--force", IMAGE, building.BASE, check=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash.get(MEASURED, []):
        terminalreporter.write_line(line[:160])
