"""The launcher's command line: `python -m launch VERB [RECIPE] [launcher flags] [-- job flags]`.

Errors are reported in one line before anything is started: the job's flags are parsed and checked here by the job's own
code, which imports no torch. Launcher flags come before `--`, job flags after it, so that their names cannot collide.
argparse is enough for the launcher's few flags; the job's flags are generated from its dataclasses by tyro.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence

from job import config
from job.errors import JobError, Refused
from job.runtime import console, files
from launch.console import discard_stdout
from launch.parsing import Parser
from launch.verbs import PROGRAM, VERBS, overview


def main(argv: Sequence[str]) -> int:
    """Run the command line and return the exit code; 2, with one line on stderr, if it is rejected."""
    console.replace_closed()
    console.escape_on_stdout()
    code = 0
    try:
        own, job = _split(argv)
        code = _run(own, job)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader has closed the pipe, as in `submit | head -1`; the work itself is done
        discard_stdout()
        return code
    except OSError as error:
        if error.errno not in files.DISK_ERRORS or error.filename:
            raise
        discard_stdout()
        print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr, flush=True)
        return 1
    except JobError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return 130


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments before the first `--` and those after it."""
    cut = argv.index("--") if "--" in argv else len(argv)
    return list(argv[:cut]), list(argv[cut + 1 :])


def _run(own: list[str], job: list[str]) -> int:
    if not own:
        raise Refused(f"no verb given: choose one of {', '.join(VERBS)}; --help describes them")
    if own[0] in ("-h", "--help"):
        print(overview())
        return 0
    if own[0] not in VERBS:
        raise Refused(f"unknown verb {own[0]}: choose one of {', '.join(VERBS)}{_nearest(own[0], VERBS)}")
    verb, flags = VERBS[own[0]], own[1:]
    parser = verb.parser()
    arguments, unknown = parser.parse_known_args(flags)
    if unknown:
        raise Refused(_about_unknown(unknown[0], verb.name, parser))
    if job and not verb.takes_job_flags:
        raise Refused(f"`{verb.name}` takes no job flags: remove what follows `--`")
    arguments.flags, arguments.job = flags, job
    return verb.run(arguments)


def _about_unknown(word: str, verb: str, parser: Parser) -> str:
    name = word.split("=")[0]
    if name.lstrip("-").replace("-", "_").removeprefix("no_") in config.fields():
        return f"{name} is a job flag: put it after `--`, as in {PROGRAM} {verb} -- {name} ..."
    kind = "unknown flag" if word.startswith("-") else "unexpected argument"
    return f"{kind} {name}{_nearest(name, parser.long_flags())}; job flags go after `--`"


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""
