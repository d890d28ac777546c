"""The image, built as a user builds it, from a copy of this checkout and a base made of Debian's packages.

The copy contains what must not get into the image: a .env, a .git, a run, secrets in pip's configuration and next to
the proxy's certificates. Packages come from where this machine's own pip takes them.
"""

import configparser
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.image.engine import Docker

ROOT = Path(__file__).parents[2]
BASE = "muster-test-base"
IMAGE = "muster-test"
CANARY = "canary-4b1f"
PLANTED = {
    ".env": f"HF_TOKEN={CANARY}-env\n",
    "job/.env": f"HF_TOKEN={CANARY}-env\n",
    "runs/old/metrics.jsonl": f"{CANARY}-run\n",
    "job/__pycache__/old.pyc": f"{CANARY}-cache\n",
    ".venv/old.py": f"{CANARY}-venv\n",
}
PACKAGES = "python3,python3-venv,python3-dev,ca-certificates"
"""What the official Python image has: the interpreter, its headers and the well-known certificates."""


@dataclass(frozen=True)
class Built:
    """The image, the tree that it was built from, and the seconds that it took."""

    tree: Path
    pip: dict[str, str]
    seconds: float


def make(docker: Docker, built: Built, target: str, **more: str) -> tuple[float, str]:
    """`make target` in the tree: seconds and output."""
    variables = {"BASE_IMAGE": BASE, "BUILD_FLAGS": "--network host --progress plain"}
    if target == "image":
        variables["IMAGE"] = IMAGE
    command = ["make", target, *(f"{name}={value}" for name, value in {**variables, **more}.items())]
    environ = {**docker.environment, **built.pip}
    began = time.monotonic()
    done = subprocess.run(command, cwd=built.tree, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return time.monotonic() - began, done.stdout + done.stderr


def base(docker: Docker, folder: Path) -> None:
    """Make BASE: a minimal Debian with Python."""
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(folder)],
        check=True,
        capture_output=True,
    )
    for cache in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(folder / cache)
    with subprocess.Popen(["tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE) as tar:
        imported = ["docker", "import", "-", BASE]
        subprocess.run(imported, stdin=tar.stdout, env=docker.environment, check=True, capture_output=True)
    shutil.rmtree(folder)


def tree(folder: Path) -> Path:
    """A checkout in `folder` with the tracked files as they are now, and with the PLANTED files."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
        (folder / name).chmod(0o600)  # as after a checkout under a strict umask
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.invalid"]
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", CANARY]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    for name, text in PLANTED.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="ascii")
    return folder


def wheels(folder: Path, *requirements: str) -> None:
    """Wheels for the base's Python into `folder`, from where this machine's pip finds them."""
    options = ["--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--python-version=3.11"]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, "--dest", folder, *requirements], check=True)


def pip_settings(folder: Path) -> dict[str, str]:
    """PIP_CONFIG_FILE and, where this machine needs one, PIP_CERT: its own, with CANARY in both; no local paths."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    settings = dict(line.split("=", 1) for line in listed.stdout.splitlines())
    value = {name.rsplit(".", 1)[-1]: text.strip("'") for name, text in settings.items()}
    config = configparser.RawConfigParser()
    kept: dict[str, str] = {name: value[name] for name in ("index-url", "trusted-host") if name in value}
    config["global"] = {**kept, "extra-index-url": _remote(value.get("extra-index-url", ""))}
    with open(folder / "pip.conf", "w", encoding="ascii") as file:
        file.write(f"# {CANARY}-pip\n")
        config.write(file)
    settings = {"PIP_CONFIG_FILE": str(folder / "pip.conf")}
    if "cert" in value:
        (folder / "ca.pem").write_text(f"# {CANARY}-ca\n{Path(value['cert']).read_text()}", encoding="utf-8")
        settings["PIP_CERT"] = str(folder / "ca.pem")
    return settings


def _remote(urls: str) -> str:
    return " ".join(url for url in urls.replace("\\n", " ").split() if not url.startswith("file:"))


def layers(docker: Docker) -> list[tuple[int, str]]:
    """Bytes and instruction of each layer that holds files, the base first."""
    history = docker("history", "--no-trunc", "--human=false", "--format={{json .}}", IMAGE).stdout
    rows = [json.loads(line) for line in reversed(history.splitlines())]
    return [(int(row["Size"]), row["CreatedBy"].removeprefix("RUN /bin/sh -c ")) for row in rows if int(row["Size"])]
