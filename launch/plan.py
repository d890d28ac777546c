"""What would be done, as a value: printed by --dry_run, compared with golden files, and only then carried out.

A plan holds what can be read off the command line and nothing that must stay secret: values it sets are its own,
everything else reaches the process by inheritance. Commands built and run in one place are shorter, but cannot be
looked at without being run.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

END = "END-OF-SCRIPT"


@dataclass(frozen=True)
class Plan:
    """A command, and what is different about its surroundings."""

    argv: tuple[str, ...]
    """Program and arguments; no shell reads them."""
    environment: tuple[tuple[str, str], ...]
    """Variables set on top of the inherited ones; never a secret, since they are printed."""
    directory: Path
    """Working directory, which relative paths among the job's flags refer to."""
    script: str = ""
    """What the command is given to read, as sbatch a batch script; ends with a line break."""

    def text(self) -> str:
        """The command as it would be typed in `directory`."""
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.environment]
        command = " ".join([*settings, shlex.join(self.argv)])
        return f"{command} <<'{END}'\n{self.script}{END}" if self.script else command

    def __str__(self) -> str:
        return self.text()
