"""A command to run, as a value: printed by --dry_run, compared with golden files, and only then executed.

A plan contains no secrets: it sets only its own variables, and everything else is inherited by the process. Building
and running a command in one place would be shorter, but the command could not be inspected without running it.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

END = "END-OF-SCRIPT"


@dataclass(frozen=True)
class Plan:
    """A command, its environment and its working directory."""

    argv: tuple[str, ...]
    """Program and arguments, without a shell."""
    environment: tuple[tuple[str, str], ...]
    """Variables to set in addition to the inherited ones; never secrets, because they are printed."""
    directory: Path
    """Working directory, to which relative paths in the job's flags refer."""
    script: str = ""
    """Standard input of the command, such as sbatch's batch script; ends with a line break."""

    def text(self) -> str:
        """The command as it would be typed in `directory`."""
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.environment]
        command = " ".join([*settings, shlex.join(self.argv)])
        return f"{command} <<'{END}'\n{self.script}{END}" if self.script else command

    def __str__(self) -> str:
        return self.text()
