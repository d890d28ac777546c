"""Converts make's variables to the launcher's command line, for `make train`, `submit`, `status` and so on.

make exports the variables and no shell evaluates them, so `GPUS='4; rm -rf x'` is an invalid number, not a command.
Only ARGS and RUN are split into arguments, with shell quoting but without substitution.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from job.errors import Refused
from job.runtime.environment import TRUE
from launch import cli

SWITCHES = ("DRY_RUN", "FOLLOW", "LOCAL")
FALSE = {"", "0", "false", "no", "off"}


def main(environ: Mapping[str, str], target: str = "train") -> int:
    """Run a make target with the variables RECIPE, GPUS, ...; returns the exit code."""
    try:
        _refuse_unused(environ, target)
        argv = TARGETS[target].argv(environ)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return cli.main(argv)


def _refuse_unused(environ: Mapping[str, str], target: str) -> None:
    used = TARGETS[target].variables
    for name in VARIABLES:
        unset = FALSE if name in SWITCHES else {""}
        if name not in used and environ.get(name, "").strip().lower() not in unset:
            raise Refused(f"{name} does not apply to {target}, which takes {', '.join(used)}: unset it")


def local_argv(environ: Mapping[str, str]) -> list[str]:
    """The arguments of `python -m launch local ...`; Refused for values that could be mistaken for other arguments."""
    return _argv("local", ("gpus", "tasks"), environ)


def submit_argv(environ: Mapping[str, str]) -> list[str]:
    """The arguments of `python -m launch submit ...`; without PARTITION, the environment and .env apply."""
    return _argv("submit", ("gpus", "nodes", "tasks", "time", "partition"), environ)


def sweep_argv(environ: Mapping[str, str]) -> list[str]:
    """The arguments of `python -m launch sweep ...`."""
    own = ("grid", "search", "trials", "parallel")
    argv = _argv("sweep", (*own, "gpus", "nodes", "tasks", "time", "partition"), environ)
    return [*argv[:1], *(["--local"] if _switch(environ, "LOCAL") else []), *argv[1:]]


def docker_argv(environ: Mapping[str, str]) -> list[str]:
    """The arguments of `python -m launch docker ...`."""
    return _argv("docker", ("gpus", "image"), environ)


def prefetch_argv(environ: Mapping[str, str]) -> list[str]:
    """The arguments of `python -m launch prefetch ...`."""
    return _argv("prefetch", (), environ)


def doctor_argv(environ: Mapping[str, str]) -> list[str]:
    """The arguments of `python -m launch doctor`; ARGS are additional launcher flags."""
    given = [f"--{name}={environ.get(name.upper(), '')}" for name in ("gpus", "nodes", "tasks", "time", "partition")]
    return ["doctor", *given, *(["--dry_run"] if _switch(environ, "DRY_RUN") else []), *_words(environ.get("ARGS", ""))]


def status_argv(environ: Mapping[str, str]) -> list[str]:
    """The arguments of `python -m launch status [RUN]`."""
    return ["status", *_runs(environ)]


def logs_argv(environ: Mapping[str, str]) -> list[str]:
    """The arguments of `python -m launch logs [RUN]`."""
    return ["logs", *_runs(environ), *(["--follow"] if _switch(environ, "FOLLOW") else [])]


def cancel_argv(environ: Mapping[str, str]) -> list[str]:
    """The arguments of `python -m launch cancel RUN...`."""
    return ["cancel", *_runs(environ)]


def rerun_argv(environ: Mapping[str, str]) -> list[str]:
    """The arguments of `python -m launch rerun RUN`."""
    runs = _runs(environ)
    if len(runs) != 1:
        raise Refused(f"RUN must be the one run to start again, not {environ.get('RUN', '')!r}")
    given = [f"--{name}={environ.get(name.upper(), '')}" for name in ("gpus", "nodes", "tasks", "time", "partition")]
    dry_run = ["--dry_run"] if _switch(environ, "DRY_RUN") else []
    return ["rerun", *runs, *given, *dry_run, "--", *_words(environ.get("ARGS", ""))]


def results_argv(environ: Mapping[str, str]) -> list[str]:
    """The arguments of `python -m launch results [FOLDER]`."""
    return ["results", *_runs(environ), f"--by={environ.get('BY', '')}"]


def compare_argv(environ: Mapping[str, str]) -> list[str]:
    """The arguments of `python -m launch compare A B`."""
    runs = _runs(environ)
    if len(runs) != 2:
        raise Refused(f'RUN must be two runs, as in RUN="a b", not {environ.get("RUN", "")!r}')
    return ["compare", *runs, f"--by={environ.get('BY', '')}"]


def report_argv(environ: Mapping[str, str]) -> list[str]:
    """The arguments of `python -m launch report [RUN]`."""
    return ["report", *_runs(environ)]


def _runs(environ: Mapping[str, str]) -> list[str]:
    """The runs in RUN."""
    named = _words(environ.get("RUN", ""), "RUN")
    if flags := [word for word in named if word.startswith("-")]:
        raise Refused(f"RUN must name runs, not flags such as {flags[0]!r}")
    return named


def _argv(verb: str, flags: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    recipe = environ.get("RECIPE", "").strip()
    if recipe.startswith("-"):
        raise Refused(f"RECIPE must be a recipe or a YAML file, not {recipe!r}: put flags into ARGS")
    given = [f"--{name}={environ.get(name.upper(), '')}" for name in flags]
    dry_run = ["--dry_run"] if _switch(environ, "DRY_RUN") else []
    return [verb, *([recipe] if recipe else []), *given, *dry_run, "--", *_words(environ.get("ARGS", ""))]


def _switch(environ: Mapping[str, str], name: str) -> bool:
    value = environ.get(name, "").strip().lower()
    if value not in TRUE | FALSE:
        raise Refused(f"{name} must be 1 or unset, not {environ[name]!r}")
    return value in TRUE


def _words(text: str, name: str = "ARGS") -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise Refused(f"{name} cannot be split into arguments: {str(error).lower()} in {text!r}") from None


@dataclass(frozen=True)
class Target:
    """A make target."""

    argv: Callable[[Mapping[str, str]], list[str]]
    """Variables -> the launcher's command line."""
    variables: tuple[str, ...]
    """Those that it uses; others are rejected, so that `make cancel DRY_RUN=1` does not cancel."""


def _target(argv: Callable[[Mapping[str, str]], list[str]], variables: str) -> Target:
    return Target(argv, tuple(variables.split()))


TARGETS = {
    "train": _target(local_argv, "RECIPE GPUS TASKS ARGS DRY_RUN"),
    "submit": _target(submit_argv, "RECIPE GPUS NODES TASKS TIME PARTITION ARGS DRY_RUN"),
    "sweep": _target(
        sweep_argv, "RECIPE GRID SEARCH TRIALS PARALLEL GPUS NODES TASKS TIME PARTITION LOCAL ARGS DRY_RUN"
    ),
    "docker-run": _target(docker_argv, "RECIPE GPUS IMAGE ARGS DRY_RUN"),
    "prefetch": _target(prefetch_argv, "RECIPE ARGS DRY_RUN"),
    "doctor": _target(doctor_argv, "GPUS NODES TASKS TIME PARTITION ARGS DRY_RUN"),
    "status": _target(status_argv, "RUN"),
    "logs": _target(logs_argv, "RUN FOLLOW"),
    "cancel": _target(cancel_argv, "RUN"),
    "rerun": _target(rerun_argv, "RUN GPUS NODES TASKS TIME PARTITION ARGS DRY_RUN"),
    "results": _target(results_argv, "RUN BY"),
    "compare": _target(compare_argv, "RUN BY"),
    "report": _target(report_argv, "RUN"),
}
VARIABLES = tuple(dict.fromkeys(name for target in TARGETS.values() for name in target.variables))

if __name__ == "__main__":
    sys.exit(main(os.environ, *sys.argv[1:]))
