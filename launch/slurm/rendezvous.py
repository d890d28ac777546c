"""How the ranks of a Slurm job find each other.

Rank 0 opens torch's store on a free port and writes the port to a file in the job's folder, from which the other ranks
read it. Alternative considered: a port chosen in advance, as in submitit and torchrun, which may be in use by then.

Every node sees the run folder, or the job could not run at all. The file's name contains the job id and the number of
the start, so that no rank reads the port of an earlier start.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job.errors import JobError, Refused
from job.runtime import contract
from job.runtime.signals import raise_if_stopping

if TYPE_CHECKING:
    from submitit import JobEnvironment

SECONDS = 600
"""How long the other ranks wait for rank 0: nodes start at different times."""
CONNECT_SECONDS = 60


def name_rank(rank: JobEnvironment) -> None:
    """Set the rank for torch and accelerate. GPUs are not masked: each process uses the GPU with its local rank."""
    os.environ.update(
        RANK=str(rank.global_rank),
        WORLD_SIZE=str(rank.num_tasks),
        LOCAL_RANK=str(rank.local_rank),
        LOCAL_WORLD_SIZE=str(rank.num_tasks // rank.num_nodes),
    )


def join(rank: JobEnvironment, restarts: int, seconds: float = SECONDS) -> Any:
    """Connect to rank 0 and set the variables with which torch finds it; wait for it for up to `seconds`.

    Returns:
        The store on rank 0, which closes when this object is deleted; None on other ranks.

    Raises:
        Refused: the first node's name does not resolve, or its address cannot be reached from here.
        JobError: rank 0 did not open its port in time.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    address = first_node(rank)
    path = rank.paths.folder / f"rendezvous-{rank.job_id}-{restarts}"
    store = None
    if rank.global_rank == 0:
        store = TCPStore("127.0.0.1", 0, rank.num_tasks, is_master=True, wait_for_workers=False)
        _write_port(path, store.port)
        port = store.port
    else:
        port = _read_port(path, seconds)
        _connect(address, port)
    os.environ.update(
        MASTER_ADDR="127.0.0.1" if rank.global_rank == 0 else address,
        MASTER_PORT=str(port),
        TORCHELASTIC_USE_AGENT_STORE="True",  # for torch: the store exists already
    )
    return store


def first_node(rank: JobEnvironment) -> str:
    """The address of rank 0; Refused if its name does not resolve here."""
    if rank.num_nodes == 1:
        return "127.0.0.1"
    address = os.environ.get(contract.MASTER_ADDR) or rank.hostnames[0]
    try:
        socket.getaddrinfo(address, None)
    except OSError as error:
        raise Refused(f"the first node's name {address} does not resolve on {socket.gethostname()} ({error.strerror}): "
                      "set MUSTER_MASTER_ADDR (--master_addr) to its address") from None  # fmt: skip
    return address


def _write_port(path: Path, port: int) -> None:
    aside = path.with_name(f".{path.name}")
    aside.write_text(f"{port}\n", encoding="ascii")
    aside.replace(path)


def _read_port(path: Path, seconds: float) -> int:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        raise_if_stopping()
        try:
            return int(path.read_text(encoding="ascii"))
        except FileNotFoundError:
            os.listdir(path.parent)  # noqa: PTH208 (makes a network file system look for the file again)
            time.sleep(0.1)
    raise JobError(
        f"rank 0 did not open its port within {seconds:.0f} seconds ({path} is missing): see the log of rank 0"
    )


def _connect(address: str, port: int) -> None:
    """Refused if rank 0 cannot be reached; torch would wait for minutes and end with a traceback."""
    try:
        socket.create_connection((address, port), CONNECT_SECONDS).close()
    except OSError as error:
        raise Refused(f"rank 0 listens at {address}, port {port}, but cannot be reached from {socket.gethostname()} "
                      f"({error}): set MUSTER_MASTER_ADDR (--master_addr) to an address of the first node that the "
                      "other nodes reach") from None  # fmt: skip
