"""A Docker daemon for the tests: the one that runs here, or one of their own with nothing in it.

The client must have BuildKit: built in up to version 22, a plugin from then on. The first on PATH that has it is used.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.launch.running import wait_until


@dataclass(frozen=True)
class Docker:
    """A client and the environment in which it and `make` find the daemon."""

    environment: dict[str, str] = field(repr=False)

    def __call__(self, *words: str, check: bool = True, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run `docker words`; what it printed, and its exit code."""
        done = subprocess.run(
            ["docker", *words], env=self.environment, capture_output=True, text=True, check=False, timeout=timeout
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def stream(self, *words: str) -> subprocess.Popen[bytes]:
        """Start `docker words`, its output to be read."""
        return subprocess.Popen(["docker", *words], env=self.environment, stdout=subprocess.PIPE)

    def inspect(self, name: str, what: str) -> str:
        return self("inspect", f"--format={{{{{what}}}}}", name).stdout.strip()


def missing() -> str | None:
    """What this machine lacks for these tests, or None."""
    if os.geteuid() != 0:
        return "needs root, for debootstrap"
    if shutil.which("debootstrap") is None:
        return "needs debootstrap (make image-packages)"
    if client() is None:
        return "needs a docker client with BuildKit (make image-packages)"
    if not _answers(_environment({})) and shutil.which("dockerd") is None:
        return "needs a Docker daemon, running or to be started (make image-packages)"
    return None


def client() -> Path | None:
    """The folder of the first docker client that can build with BuildKit."""
    folders = [Path(folder) for folder in os.environ["PATH"].split(os.pathsep) if folder]
    return next((folder for folder in folders if (folder / "docker").is_file() and _builds(folder / "docker")), None)


def _builds(docker: Path) -> bool:
    version = subprocess.run([docker, "--version"], capture_output=True, text=True, check=False).stdout
    built_in = version.startswith("Docker version ") and int(version.split()[2].split(".")[0]) < 23
    return built_in or subprocess.run([docker, "buildx", "version"], capture_output=True, check=False).returncode == 0


def _environment(more: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "PATH": f"{client()}{os.pathsep}{os.environ['PATH']}", **more}


def _answers(environment: dict[str, str]) -> bool:
    return subprocess.run(["docker", "info"], env=environment, capture_output=True, check=False).returncode == 0


@contextmanager
def daemon() -> Iterator[Docker]:
    """The daemon that runs here; else a new one, without a network of its own, gone at the end with all it holds."""
    environment = _environment({})
    if _answers(environment):
        yield Docker(environment)
        return
    folder = Path(tempfile.mkdtemp(prefix="dockerd-"))  # short: the path of a socket has 107 bytes at most
    environment["DOCKER_HOST"] = f"unix://{folder}/socket"
    options = ["--bridge=none", "--iptables=false", f"--pidfile={folder}/pid", f"--host={environment['DOCKER_HOST']}"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            ["dockerd", f"--data-root={folder}/data", f"--exec-root={folder}/exec", *options], stdout=log, stderr=log
        )
    try:
        wait_until(lambda: _answers(environment) or process.poll() is not None)
        assert process.poll() is None, (folder / "log").read_text()
        yield Docker(environment)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)
