"""`python -m launch prefetch`: downloads everything that a job loads from the hub, on a login node.

job/prefetch.py downloads it, in the training environment. This process does not import that environment: it checks the
request and is then replaced by that script.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from job import checks, config
from job.errors import Refused
from job.runtime import environment, package
from launch import caches
from launch.console import warn
from launch.local import command
from launch.parsing import add_recipe, job_words
from launch.plan import Plan
from launch.slurm import filesystems

SCRIPT = package.JOB / "prefetch.py"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument("--dry_run", action="store_true", help="only print what would be downloaded")


def prefetch(arguments: argparse.Namespace) -> int:
    """Check the request, then download."""
    environment.load_dotenv()
    words = job_words(arguments)
    checks.check(config.parse(words))
    command.require_training()
    check(os.environ)
    run(plan(words, arguments.dry_run, Path.cwd()))


def plan(words: Sequence[str], dry_run: bool, directory: Path) -> Plan:
    """The command that downloads; `words` are the job's command line."""
    return Plan((sys.executable, str(SCRIPT), *(["--dry_run"] if dry_run else []), *words), (), directory)


def check(environ: Mapping[str, str]) -> None:
    """Refused if nothing can be downloaded: offline mode is set, or the caches cannot be written."""
    for name in environment.OFFLINE:
        if environ.get(name, "").lower() in environment.TRUE:
            raise Refused(f"{name} is set, so nothing can be fetched: {name}=0 in front of this command allows it")
    for folder in dict.fromkeys((caches.home(environ), caches.hub(environ))):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise Refused(f"{folder} cannot be written ({error.strerror}): set HF_HOME to a folder that you can write "
                          "to and that the nodes see") from None  # fmt: skip
    for path, kind in filesystems.local([caches.hub(environ)]):
        warn(f"{path} is on this machine's own disk ({kind}): other machines do not see what is fetched")


def run(plan: Plan) -> NoReturn:
    """Replace this process by the one that downloads."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir(plan.directory)
    os.execve(plan.argv[0], plan.argv, {**os.environ, **dict(plan.environment)})
