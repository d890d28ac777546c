"""The launcher's command line: `python -m launch VERB [RECIPE] [launcher flags] [-- job flags]`.

What is wrong is said before anything is started, in one line: the job's flags are parsed and checked here by the job's
own code, which imports no torch. Launcher flags stand before `--`, job flags after it: two lists of names that cannot
come to mean each other. argparse is enough for the few here; tyro's is the job's, whose flags are its dataclasses.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NoReturn

from job import checks, config
from job.errors import JobError, Refused
from job.runtime import environment
from launch import sites
from launch.docker import command as docker
from launch.local import command as local
from launch.local import jobs
from launch.runs import cli as runs


class Parser(argparse.ArgumentParser):
    """argparse that refuses in one line, without printing its usage first."""

    def error(self, message: str) -> NoReturn:
        raise Refused(re.sub(r"^argument (--[a-z_]+): ", r"\1 ", message) + "; --help lists the flags")


def main(argv: Sequence[str]) -> int:
    """Do what the command line says; the exit code, 2 with one line on stderr where it is refused."""
    try:
        own, job = _split(argv)
        code = _run(own, job)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # nobody reads on, as in `submit | head -1`: what was to be done is done
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except JobError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted: nothing was started", file=sys.stderr, flush=True)
        return 130


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words before the first `--` and those after it."""
    cut = argv.index("--") if "--" in argv else len(argv)
    return list(argv[:cut]), list(argv[cut + 1 :])


def _run(own: list[str], job: list[str]) -> int:
    if not own:
        raise Refused(f"no verb given: there are {', '.join(VERBS)}; --help says more")
    if own[0] not in VERBS and own[0] not in ("-h", "--help"):
        raise Refused(f"no verb {own[0]}: there are {', '.join(VERBS)}{_nearest(own[0], VERBS)}")
    arguments, unknown = parser().parse_known_args(own)
    if unknown:
        raise Refused(_about_unknown(unknown[0], own[0]))
    arguments.flags = own[1:]
    return VERBS[own[0]](arguments, job)


def parser() -> Parser:
    """The parser of all verbs."""
    parser = Parser(prog="python -m launch", description="Fine-tune here or on a cluster.", allow_abbrev=False)
    verbs = parser.add_subparsers(metavar="VERB", dest="verb")
    train = verbs.add_parser(
        "local",
        help="train on this machine",
        allow_abbrev=False,
        usage="python -m launch local [RECIPE] [--gpus N] [--tasks N] [--dry_run] [-- job flags]",
        epilog="`python -m launch local -- --help` lists the job's flags.",
    )
    train.add_argument("recipe", nargs="?", help="a recipe's name or a YAML file; nothing at all: the demo")
    train.add_argument("--gpus", type=_count, metavar="N", help="GPUs to use; 0: none (default: all)")
    train.add_argument("--tasks", type=_count, metavar="N", help="processes on the CPU (default: 1)")
    train.add_argument("--dry_run", action="store_true", help="print the command, start nothing")
    _add_submit(verbs)
    _add_docker(verbs)
    verbs.add_parser("recipes", help="list the recipes", allow_abbrev=False)
    runs.add(verbs)
    return parser


def _add_submit(verbs: Any) -> None:
    parser = verbs.add_parser(
        "submit",
        help="queue the job on a Slurm cluster",
        allow_abbrev=False,
        usage="python -m launch submit [RECIPE] --gpus N [--nodes N] [--dry_run] [site flags] [-- job flags]",
        epilog="A site's flags may stand in the environment or .env as MUSTER_PARTITION and so on.",
    )
    parser.add_argument("recipe", nargs="?", help="a recipe's name or a YAML file; nothing at all: the demo")
    parser.add_argument("--gpus", type=_count, metavar="N", help="GPUs of a node; 0: train on the CPU")
    parser.add_argument("--nodes", type=_count, metavar="N", help="nodes (default: 1)")
    parser.add_argument("--tasks", type=_count, metavar="N", help="processes of a node on the CPU (default: 1)")
    parser.add_argument("--dry_run", action="store_true", help="print the batch script, queue nothing")
    for known in fields(sites.Site):
        default = f" (default: {known.default})" if known.default else ""
        parser.add_argument(f"--{known.name}", metavar="X", help=known.metadata["help"].replace("%", "%%") + default)


def _add_docker(verbs: Any) -> None:
    parser = verbs.add_parser(
        "docker",
        help="train on this machine, in a container of the image",
        allow_abbrev=False,
        usage="python -m launch docker [RECIPE] [--gpus N] [--image NAME] [--dry_run] [-- job flags]",
    )
    parser.add_argument("recipe", nargs="?", help="a recipe's name or a YAML file; nothing at all: the demo")
    parser.add_argument("--gpus", type=_count, metavar="N", help="GPUs to use; 0: none (default: all)")
    parser.add_argument("--image", type=_image, metavar="NAME", help=f"the image (default: {docker.IMAGE})")
    parser.add_argument("--dry_run", action="store_true", help="print the command, start nothing")


def _image(text: str) -> str:
    """An image's name; nothing, as an unset variable gives it, means the usual one."""
    if not re.fullmatch(r"([a-zA-Z0-9][\w.:/@-]*)?", text):
        raise argparse.ArgumentTypeError(f"takes an image's name, not {text!r}")
    return text or docker.IMAGE


def _count(text: str) -> int | None:
    """A whole number; nothing, as an unset variable gives it, is not given."""
    if not text.strip():
        return None
    if not re.fullmatch("[0-9]{1,4}", text.strip()):
        raise argparse.ArgumentTypeError(f"takes a whole number, not {text!r}")
    return int(text)


def _about_unknown(word: str, verb: str) -> str:
    name = word.split("=")[0]
    if name.lstrip("-").replace("-", "_").removeprefix("no_") in config.fields():
        return f"{name} is a flag of the job: it goes after `--`, as in python -m launch {verb} -- {name} ..."
    own = ("--help", *OWN_FLAGS.get(verb, ()))
    kind = "unknown flag" if word.startswith("-") else "unexpected word"
    return f"{kind} {name}{_nearest(name, own)}; flags of the job go after `--`"


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _local(arguments: argparse.Namespace, job: list[str]) -> int:
    environment.refuse_unjoined_tasks(os.environ)
    environment.load_dotenv()
    words = (arguments.recipe, *job) if arguments.recipe else tuple(job)
    settings = config.parse(words)
    checks.check(settings)
    request = local.Request(words, settings.training.mixed_precision, arguments.gpus, arguments.tasks)
    plan = local.plan(request, local.look(os.environ), Path.cwd())
    if arguments.dry_run:
        print(plan)
        return 0
    local.require_training()
    tasks = local.gpus(arguments.gpus, local.look(os.environ).gpus) or arguments.tasks or 1
    begun = jobs.begin(settings, config.run_name(words), arguments.flags, tasks, os.environ)
    code = local.run(replace(plan, environment=(*plan.environment, *begun.environment)), begun.log)
    if code == Refused.exit_code:
        begun.discard_if_new()
    return code


def _submit(arguments: argparse.Namespace, job: list[str]) -> int:
    from launch.slurm import command as slurm

    return slurm.submit(arguments, job, arguments.flags)


def _docker(arguments: argparse.Namespace, job: list[str]) -> int:
    dotenv = environment.load_dotenv()
    words = (arguments.recipe, *job) if arguments.recipe else tuple(job)
    settings = config.parse(words)
    checks.check(settings)
    here = Path.cwd()
    machine = docker.look(os.environ, dotenv)
    request = docker.request(words, settings, arguments.gpus, arguments.image or docker.IMAGE, here)
    plan = docker.plan(request, machine, here)
    if arguments.dry_run:
        print(plan)
        return 0
    if not machine.gpus:
        print("no GPU can be seen here: the container has the CPU", file=sys.stderr, flush=True)
    return docker.run(plan, request.image, docker.writable(request, machine, here))


def _recipes(_: argparse.Namespace, job: list[str]) -> int:
    if job:
        raise Refused("`recipes` takes no flags of the job")
    known = config.recipes()
    width = max(map(len, known), default=0)
    for name, description in known.items():
        print(f"{name:<{width}}  {description}")
    return 0


VERBS: dict[str, Callable[[argparse.Namespace, list[str]], int]] = {
    "local": _local,
    "submit": _submit,
    "docker": _docker,
    "recipes": _recipes,
    **runs.VERBS,
}
OWN_FLAGS = {
    "local": ("--gpus", "--tasks", "--dry_run"),
    "submit": ("--gpus", "--nodes", "--tasks", "--dry_run", *(f"--{known.name}" for known in fields(sites.Site))),
    "docker": ("--gpus", "--image", "--dry_run"),
    **runs.OWN_FLAGS,
}
