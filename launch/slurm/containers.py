"""What a container runtime adds to a batch script: lines before srun, arguments of srun, and the Python command.

The image provides the dependencies. The code is the snapshot, which is mounted, like all other paths, under its path on
the host. The batch script runs outside the container, because an image has no scontrol. Each runtime is a pure
function.

Images are not built or pulled here. Docker is not supported: its containers are children of dockerd, so scancel does
not end them.
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
    """Command that starts Python on the node."""


def wrap(runtime: str, image: str, *, python: str, mounts: Sequence[Path], directory: Path, gpus: bool) -> Container:
    """How the worker is started in a container, or without one.

    Args:
        runtime: none, apptainer or pyxis.
        image: an image in the runtime's notation; empty for none.
        python: this interpreter, which the nodes use if there is no container.
        mounts: paths to mount, each under the same path.
        directory: working directory.
        gpus: whether GPUs are used.

    Raises:
        Refused: the image is missing, is given without a container, or a path contains a separator of the mount list.
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
    """`apptainer exec`, which passes the environment on. PYTHONNOUSERSITE hides the user's packages from the image."""
    words = [
        *("apptainer", "exec", *(["--nv"] if gpus else [])),
        *("--bind", ",".join(map(str, mounts))),
        *("--pwd", str(directory)),
        *("--env", "PYTHONNOUSERSITE=1"),
        *(image, "python"),
    ]
    return Container(("unset PYTHONPATH PYTHONHOME",), (), tuple(words))


def pyxis(image: str, mounts: Sequence[Path], directory: Path, gpus: bool) -> Container:
    """srun's container flags; enroot finds the GPUs itself. They cannot be #SBATCH lines: a `#` in an image name would
    start a comment."""
    if image.endswith(".sqsh") and not image.startswith(("/", "./")):
        raise Refused(f"--image {image}: pyxis needs a path for a file, as ./{image}")
    arguments = (
        f"--container-image={image}",
        f"--container-mounts={','.join(f'{path}:{path}' for path in mounts)}",
        f"--container-workdir={directory}",
        "--no-container-mount-home",
    )
    return Container(("unset PYTHONPATH PYTHONHOME", "export PYTHONNOUSERSITE=1"), arguments, ("python",))


def _outermost(paths: Sequence[Path]) -> list[Path]:
    """`paths` in order, without those inside another one."""
    return sorted({path for path in paths if not any(parent in paths for parent in path.parents)})


def _mountable(path: Path) -> Path:
    if set(",:") & set(str(path)):
        raise Refused(f"{path} cannot be mounted in a container: its name has a comma or colon")
    return path
