"""Errors that end a job, each with one line for the user and an exit code for the launcher.

Only these are shown without a traceback: the line alone tells the user what to do. Any other exception is a bug and
shows its traceback.
"""

import contextlib
from collections.abc import Iterator


class JobError(Exception):
    """Ends the job on every rank with one line and `exit_code`."""

    exit_code = 1
    on_every_rank = True

    def __init__(self, line: str) -> None:
        super().__init__(" ".join(line.splitlines()))  # text from a file or flag may contain line breaks


class Refused(JobError):
    """The request cannot be carried out as given: the line names the thing and the remedy."""

    exit_code = 2


@contextlib.contextmanager
def unreadable_refused() -> Iterator[None]:
    """Refused for a path of the user that cannot be accessed: in somebody else's folder, or with a name too long."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise
        raise Refused(f"{error.filename} cannot be read: {error.strerror}: give another path, or ask its owner for "
                      "access") from error  # fmt: skip


class NonFiniteLoss(JobError):
    """The loss or the gradient became infinite or not a number: the line names the step and the examples."""


class NonFiniteOutput(JobError):
    """The model's outputs are infinite or not a number: the line names the rows."""


class Pruned(JobError):
    """A trial of a search that does worse than the others: it ends here, and that is its result."""

    exit_code = 0


SMALLER = "lower --max_seq_length, or try --mixed_precision bf16 or --gradient_checkpointing"
"""How to make a step need less memory."""


class OutOfMemory(JobError):
    """A single example does not fit into the GPU's memory."""


class Interrupted(JobError):
    """The run ended before its time, and resumes when it is started again. Made with the line up to the command.

    Attributes:
        command: starts the run again; set by code that knows the run folder.
    """

    command = "the same command"

    def __str__(self) -> str:
        return f"{super().__str__()} {self.command} to resume from the last checkpoint"


class LostProcess(Interrupted):
    """Another process died or cannot be reached."""

    on_every_rank = False


class OutOfMemoryInExchange(Interrupted, OutOfMemory):
    """This process ran out of GPU memory while the others waited for its gradients."""

    on_every_rank = False


class UploadFailed(JobError):
    """The run is finished and its model complete, but not on the hub."""


class NeedsHuman(JobError):
    """There are checkpoints but none can be used. Starting over would lose them, so a person has to decide."""

    exit_code = 3


class Stopped(JobError):
    """Stopped on request, by a signal or a time limit. Raised only where the request is detected.

    Attributes:
        reason: the signal or limit.
        progress: how far the job got, and what to do; set by the code that saves a checkpoint before the job ends.
    """

    exit_code = 75

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.progress = "before the first step; run the same command to start again"

    def __str__(self) -> str:
        return f"stopped by {self.reason} {self.progress}"
