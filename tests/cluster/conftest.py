"""The clusters and the small job that all tests here share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import slurm
from tests.cluster.jobs import STEPS, Work
from tests.cluster.slurm import Cluster
from tests.support import launch


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Without accounting."""
    yield from _cluster(accounting=False)


@pytest.fixture(scope="session")
def accounted() -> Iterator[Cluster]:
    """With slurmdbd and MariaDB; and the user's signal, rather than SIGTERM, is the first signal of a preempted job."""
    yield from _cluster(accounting=True, parameters=["SlurmctldParameters=preempt_send_user_signal"], enforce="NO")


def _cluster(accounting: bool, parameters: list[str] | None = None, enforce: str = "ALL") -> Iterator[Cluster]:
    if reason := slurm.missing(accounting):
        tell = pytest.fail if os.environ.get("CI") else pytest.skip
        tell(f"no Slurm can be started: {reason}")
    with (
        tempfile.TemporaryDirectory(prefix="muster-", dir="/tmp") as folder,
        slurm.cluster(Path(folder), accounting=accounting, parameters=parameters or [], enforce=enforce) as started,
    ):
        yield started


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    return Work.make(tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="session")
def uninterrupted(work: Work, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes that torchrun starts, uninterrupted: what an interrupted one must equal."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    env = launch.environment(work.folder / "hf")
    launch.cold_torchrun(2, launch.TRAIN, *work.flags(run, STEPS), env=env, cwd=work.folder).expect()
    return run
