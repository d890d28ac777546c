"""The entrypoint of the container image, outside of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from job.runtime import contract
from launch import cli, image
from launch.local import command, jobs

DOCKERFILE = Path(__file__).parents[2] / "docker" / "Dockerfile"


def test_apptainer_users_do_not_share_a_cache() -> None:
    assert f"HF_HOME={image.HF_HOME} " in DOCKERFILE.read_text(encoding="utf-8")
    for before, after in (
        ({"HF_HOME": image.HF_HOME, "APPTAINER_CONTAINER": "/muster.sif"}, {"APPTAINER_CONTAINER": "/muster.sif"}),
        ({"HF_HOME": "/mine", "APPTAINER_CONTAINER": "/muster.sif"}, None),
        ({"HF_HOME": image.HF_HOME}, None),
    ):
        environ = dict(before)
        image.leave_shared_cache(environ)
        assert environ == (before if after is None else after)


@pytest.mark.parametrize(
    ("mounted", "in_image", "warned"),
    [
        ("/", True, True),
        ("/proc", True, True),
        ("{here}", True, False),
        ("{here}/out", True, False),
        ("/", False, False),
    ],
)
def test_a_run_that_no_mount_keeps_is_warned_of(
    mounted: str,
    in_image: bool,
    warned: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    here = tmp_path / "a folder"
    here.mkdir()
    monkeypatch.chdir(here)
    point = mounted.format(here=here).replace(" ", "\\040")
    (tmp_path / "mounts").write_text(f"22 1 0:21 / / rw - overlay o rw\n23 22 8:1 /x {point} rw - ext4 /dev/sda rw\n")
    monkeypatch.setattr(jobs, "MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(command, "run", lambda *_: 0)
    if in_image:
        monkeypatch.setenv(contract.IN_IMAGE, "1")
    assert cli.main(["local", "--gpus=0", "--", "demo", "--output_dir", "out"]) == 0
    line = f"warning: {here}/out is inside the container and is removed with it: mount a folder, as in --volume"
    assert capfd.readouterr().err == (f'{line} "$PWD:/work"\n' if warned else "")
