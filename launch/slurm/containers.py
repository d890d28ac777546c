"""The three places where a container enters a batch script: lines before srun, arguments of srun, the worker's Python.

The image brings the dependencies; the code is the snapshot, which is mounted like every other path at the place where
the host has it. The batch script itself stays outside, since an image has no scontrol. Each runtime is a pure function.

Does not: build or pull images, or offer docker, whose containers outlive their job (they are dockerd's children, out of
reach of scancel).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from job.errors import Refused


@dataclass(frozen=True)
class Container:
    """What a runtime adds to a batch script."""

    setup: tuple[str, ...]
    """Shell lines before srun."""
    srun_args: tuple[str, ...]
    """Arguments of srun."""
    python: tuple[str, ...]
    """Words that start Python on the node."""


def enter(runtime: str, image: str, *, python: str, mounts: Sequence[Path], directory: Path, gpus: bool) -> Container:
    """How the worker is started.

    Args:
        runtime: none, apptainer or pyxis.
        image: what the runtime takes as one; none takes nothing.
        python: this interpreter, which the nodes see too where there is no container.
        mounts: what the container must see, at the same place.
        directory: working directory.
        gpus: whether GPUs are used.

    Raises:
        Refused: no image, an image without a container, or a path that the runtime would read as two.
    """
    if runtime == "none":
        if image:
            raise Refused(f"an image is given ({image}) but no container: add --container apptainer or pyxis")
        return Container((), (), (python,))
    if not image or image.startswith("-"):
        raise Refused(f"--container {runtime} needs an image: --image, or MUSTER_IMAGE in .env")
    paths = [_mountable(path) for path in _outermost(mounts)]
    return {"apptainer": apptainer, "pyxis": pyxis}[runtime](image, paths, directory, gpus)


def apptainer(image: str, mounts: Sequence[Path], directory: Path, gpus: bool) -> Container:
    """`apptainer exec`, which passes the environment on; the user's own packages would shadow the image's."""
    words = [
        *("apptainer", "exec", *(["--nv"] if gpus else [])),
        *("--bind", ",".join(map(str, mounts))),
        *("--pwd", str(directory)),
        *("--env", "PYTHONNOUSERSITE=1"),
        *(image, "python"),
    ]
    return Container(("unset PYTHONPATH PYTHONHOME",), (), tuple(words))


def pyxis(image: str, mounts: Sequence[Path], directory: Path, gpus: bool) -> Container:
    """srun's own container flags; enroot finds the GPUs by itself. They are arguments of srun because `#` ends an
    #SBATCH line."""
    if image.endswith(".sqsh") and not image.startswith(("/", "./")):
        raise Refused(f"--image {image}: pyxis takes a file only with its path, as ./{image}")
    arguments = (
        f"--container-image={image}",
        f"--container-mounts={','.join(f'{path}:{path}' for path in mounts)}",
        f"--container-workdir={directory}",
        "--no-container-mount-home",
    )
    return Container(("unset PYTHONPATH PYTHONHOME", "export PYTHONNOUSERSITE=1"), arguments, ("python",))


def _outermost(paths: Sequence[Path]) -> list[Path]:
    """`paths` in order, without those that lie in another."""
    return sorted({path for path in paths if not any(parent in paths for parent in path.parents)})


def _mountable(path: Path) -> Path:
    if set(",:") & set(str(path)):
        raise Refused(f"{path} cannot be mounted in a container: its name has a comma or colon")
    return path
