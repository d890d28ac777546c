"""`python -m job.report.html FOLDER` writes the report of a run folder; called by `muster report`."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run from a checkout or snapshot: this code, not an installed copy
    sys.path[0] = str(Path(__file__).resolve().parents[3])

from job.errors import JobError, Refused
from job.run.folder import RunFolder
from job.runtime import console, files


def main(argv: list[str]) -> int:
    """Write the report of the run folder `argv[0]`; returns the exit code."""
    console.install()
    folder = RunFolder(Path(argv[0]))
    try:
        write(folder)
    except JobError as error:
        console.last_line(f"error: {error}")
        return error.exit_code
    return 0


def write(folder: RunFolder) -> None:
    """Write the report.

    Raises:
        Refused: there is no run, it has not started, or its folder cannot be written.
    """
    if not folder.config.is_file():
        raise Refused(f"{folder.path} has not started: there is nothing to report yet")
    from job.report.html import writing

    try:
        writing.write(folder)
    except OSError as error:
        if error.errno in files.DISK_ERRORS or isinstance(error, PermissionError):
            raise Refused(f"{folder.report} cannot be written: {error.strerror}") from None
        raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
