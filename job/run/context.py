"""What every part of a run needs: settings, accelerator, run folder and status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from job.config import Config
from job.run.folder import RunFolder
from job.run.status import Status
from job.run.trial import Trial

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class RunContext:
    """Created once, after the run folder has been opened.

    Attributes:
        config: all settings.
        accelerator: of this process.
        folder: of the run.
        status: writer of status.json.
        trial: the trial of a search that this run is, if any.
    """

    config: Config
    accelerator: Accelerator
    folder: RunFolder
    status: Status
    trial: Trial | None = None
