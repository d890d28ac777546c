"""Errors that end a job, each with one line for the user and an exit code for the launcher.

Only these kinds are shown without a traceback: the reader can act on the line alone. Everything else is a fault
of the program, and a traceback is then what helps.
"""


class JobError(Exception):
    """Ends the job on every rank with one line and `exit_code`."""

    exit_code = 1
    on_every_rank = True

    def __init__(self, line: str) -> None:
        super().__init__(" ".join(line.splitlines()))  # a file's or flag's own text may hold breaks


class Refused(JobError):
    """The request cannot be carried out as given: the line names the thing and the remedy."""

    exit_code = 2


class NonFiniteLoss(JobError):
    """The loss became infinite or not a number: the line names the step and the examples."""


class NonFiniteOutput(JobError):
    """The model's outputs are infinite or not a number: the line names the rows."""


SMALLER = "lower --max_seq_length, or try --mixed_precision bf16 or --gradient_checkpointing"
"""What makes a step need less memory."""


class OutOfMemory(JobError):
    """One example alone does not fit into the GPU's memory."""


class OutOfMemoryInExchange(OutOfMemory):
    """The GPU's memory was full on this process while the others waited for its gradients."""

    on_every_rank = False


class NeedsHuman(JobError):
    """Work is there and cannot be used: going on would lose it, so somebody has to look."""

    exit_code = 3


class Stopped(JobError):
    """Ended on request, by a signal or a time limit. Raised where the request is noticed, and nowhere else.

    Attributes:
        reason: what asked for it.
        progress: how far the job got, and what to do; set by whoever saves a checkpoint on the way out.
    """

    exit_code = 75

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.progress = "before the first step; run the same command to start again"

    def __str__(self) -> str:
        return f"stopped by {self.reason} {self.progress}"
