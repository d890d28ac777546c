"""A real Slurm of two nodes on this machine, for the length of a test session.

Everything is private to a folder: munge's key and socket, the configuration, state, logs, and MariaDB where jobs are
accounted for. The nodes claim more cores than there are and GPUs that are plain files. Their names do not resolve, as
on some real clusters, so jobs need MUSTER_MASTER_ADDR.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
ACCOUNTING_PROGRAMS = ("slurmdbd", "mariadbd", "mariadb-install-db", "mariadb")
WORKER = re.compile(rb"[^\0]*python[^\0]*\0.*worker\.py")
NODES = ("n1", "n2")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE")
CONF = """
ClusterName=muster
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
EnforcePartLimits={enforce}
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=1
KillWait=6
SlurmctldTimeout=30
SlurmdTimeout=60
MinJobAge=3600
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
GresTypes=gpu
{more}
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=16 RealMemory=4000 Gres=gpu:2 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=16 RealMemory=4000 Gres=gpu:2 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES MaxTime=60 State=UP PriorityTier=1 GraceTime={grace} PreemptMode=REQUEUE
PartitionName=high Nodes=ALL Default=NO MaxTime=60 State=UP PriorityTier=10 PreemptMode=OFF
"""
DBD_CONF = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={ports[3]}
SlurmUser=root
PidFile={folder}/slurmdbd.pid
LogFile={folder}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageLoc=slurm
StorageUser=root
"""
GRACE = 25
"""Seconds that a preempted job has."""


def missing(accounting: bool = False) -> str:
    """Why no cluster can run here; empty if one can."""
    if os.geteuid() != 0:
        return "Slurm's daemons need root"
    search = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = [name for name in PROGRAMS + accounting * ACCOUNTING_PROGRAMS if not shutil.which(name, path=search)]
    return f"not installed: {', '.join(absent)} (make cluster-packages)" if absent else ""


@dataclass
class Cluster:
    """The running cluster."""

    folder: Path
    environ: dict[str, str]
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)
    """In the order of their start: the last one is the second node's."""

    def run(self, *words: str, check: bool = True) -> str:
        """A command of Slurm's; its output."""
        done = subprocess.run(words, env=self.environ, capture_output=True, text=True, timeout=120)
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def on_second_node(self, *words: str) -> None:
        """Run a command in the mount namespace that the second node has for itself."""
        subprocess.run(["nsenter", f"--target={self.daemons[-1].pid}", "--mount", *words], check=True, timeout=60)

    def show(self, job: str) -> dict[str, str]:
        """What scontrol says of a job."""
        return dict(re.findall(r"(\S+?)=(\S*)", self.run("scontrol", "--oneliner", "show", "job", job)))

    def state(self, job: str) -> str:
        return self.show(job)["JobState"]

    def restarts(self, job: str) -> int:
        return int(self.show(job)["Restarts"])

    def end(self, job: str, timeout: float = 240) -> str:
        """The job's final state; requeued jobs are started without Slurm's delay of two minutes."""
        seen: list[str] = []

        def has_ended() -> bool:
            seen.append(self.state(job))
            return seen[-1] in ENDED

        self.wait(job, has_ended, timeout)
        return seen[-1]

    def wait(self, job: str, condition: Callable[[], bool], timeout: float = 240) -> None:
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f"waited too long\n{self.report(job)}"
            self.hurry(job)
            time.sleep(0.5)

    def preempt(self) -> str:
        """A job of the higher partition that takes both nodes for itself."""
        flags = ("--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 2")
        return self.run("sbatch", "--parsable", *flags).strip()

    def hurry(self, job: str) -> None:
        """Start a requeued job, but not in the second in which the nodes end its last start: they would reject it."""
        now = self.show(job)
        if now["JobState"] == "PENDING" and now["Reason"] == "BeginTime":
            requeued = datetime.datetime.fromisoformat(now["SubmitTime"])
            if datetime.datetime.now() - requeued > datetime.timedelta(seconds=4):
                self.run("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)

    def processes(self, job: str, **variables: str) -> list[int]:
        """The processes of a job on both nodes: its ranks, with SLURM_PROCID, and their children."""
        return processes(SLURM_CONF=self.environ["SLURM_CONF"], SLURM_JOB_ID=job, **variables)

    def ranks(self, job: str) -> list[int]:
        """The process of each rank that runs, in order; srun has a rank in its environment too."""
        pids = []
        for number in range(16):
            own = sorted(self.processes(job, SLURM_PROCID=str(number)))
            pids += [pid for pid in own if WORKER.match(command_line(pid))][:1]
        return pids

    def report(self, job: str) -> str:
        """All that is known of a job, for the message of a failed test."""
        shown = self.run("scontrol", "show", "job", job, check=False)
        ctld = (self.folder / "log" / "slurmctld.log").read_text(errors="replace")[-3000:]
        folder = re.search(r"StdOut=(.*)/[^/]*$", shown, re.MULTILINE)
        logs = sorted(Path(folder[1]).glob("*_log.*")) if folder else []
        texts = [f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}" for path in logs]
        return "\n".join([shown, ctld, *texts])


@contextlib.contextmanager
def cluster(
    folder: Path, *, accounting: bool = False, parameters: Sequence[str] = (), enforce: str = "ALL"
) -> Iterator[Cluster]:
    """Start the cluster in `folder` and stop it, with all that still runs on it, at the end.

    Args:
        folder: an empty folder with a short path: a socket's may have 107 characters.
        accounting: with slurmdbd and MariaDB.
        parameters: more lines of slurm.conf.
        enforce: whether a job above its partition's limits is rejected (ALL), or kept pending (NO, Slurm's default).
    """
    for name in ("state", "spool/n1", "spool/n2", "log", "gpu"):
        (folder / name).mkdir(parents=True)
    for node in NODES:
        for number in (0, 1):
            (folder / "gpu" / f"{node}-{number}").touch()
    folder.chmod(0o755)  # munge wants its socket to be reachable
    ports, host = _free_ports(4), socket.gethostname().split(".")[0]
    more = [*parameters, *([_ACCOUNTING.format(folder=folder, ports=ports)] if accounting else [])]
    values = {"folder": folder, "host": host, "ports": ports, "more": "\n".join(more), "grace": GRACE,
              "enforce": enforce}  # fmt: skip
    (folder / "slurm.conf").write_text(CONF.format(**values), encoding="ascii")
    (folder / "slurmdbd.conf").write_text(DBD_CONF.format(**values), encoding="ascii")
    (folder / "slurmdbd.conf").chmod(0o600)
    gpus = "".join(f"NodeName={node} Name=gpu File={folder}/gpu/{node}-[0-1]\n" for node in NODES)
    (folder / "gres.conf").write_text(gpus, encoding="ascii")
    started = Cluster(folder, _environment(folder))
    try:
        _start(started, accounting)
        yield started
    finally:
        _stop(started)


_ACCOUNTING = """AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={ports[3]}
AccountingStoragePass={folder}/munge.sock"""


def _environment(folder: Path) -> dict[str, str]:
    names = ("PATH", "HOME", "LANG", "TMPDIR", "TZ", "USER")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    path = f"{kept.get('PATH', '')}:/usr/sbin:/sbin"
    return {**kept, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf"), "MUSTER_MASTER_ADDR": "127.0.0.1"}


def _start(started: Cluster, accounting: bool) -> None:
    folder = started.folder
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    files = {"key-file": "key", "socket": "sock", "log-file": "log", "pid-file": "pid", "seed-file": "seed"}
    _daemon(started, "munged", "--foreground", "--force", *(f"--{a}={folder}/munge.{b}" for a, b in files.items()))
    _until(lambda: (folder / "munge.sock").exists(), started)
    if accounting:
        _start_accounting(started)
    _daemon(started, "slurmctld", "-D", "-c")
    for node in NODES:
        own = ("unshare", "--mount") if node == NODES[-1] else ()
        _daemon(started, *own, "slurmd", "-D", "-N", node)
    idle = f"{len(NODES)} idle"
    _until(lambda: idle in started.run("sinfo", "-h", "-p", "low", "-o", "%D %t", check=False), started)


def _start_accounting(started: Cluster) -> None:
    data, server = started.folder / "mariadb", started.folder / "mariadb.sock"
    started.run("mariadb-install-db", "--user=root", f"--datadir={data}", "--auth-root-authentication-method=normal")
    server_flags = (f"--datadir={data}", f"--socket={server}", "--skip-networking", "--user=root")
    _daemon(started, "mariadbd", "--no-defaults", *server_flags, f"--pid-file={started.folder}/mariadb.pid")
    _until(server.exists, started)
    started.environ["MYSQL_UNIX_PORT"] = str(server)
    started.run("mariadb", f"--socket={server}", "-e", "create database slurm")
    _daemon(started, "slurmdbd", "-D")
    _until(lambda: "Cluster" in started.run("sacctmgr", "-i", "show", "cluster", check=False), started)
    started.run("sacctmgr", "-i", "add", "cluster", "muster", check=False)


def _daemon(started: Cluster, *words: str) -> None:
    with open(started.folder / "log" / f"{words[0]}-{len(started.daemons)}.out", "wb") as log:
        started.daemons.append(
            subprocess.Popen(words, env=started.environ, stdout=log, stderr=log, start_new_session=True)
        )


def _until(condition: Callable[[], bool], started: Cluster, timeout: float = 60) -> None:
    end = time.monotonic() + timeout
    while not condition():
        ended = [daemon.args for daemon in started.daemons if daemon.poll() is not None]
        logs = "\n".join(p.read_text(errors="replace")[-1500:] for p in sorted((started.folder / "log").iterdir()))
        assert not ended, f"ended at once: {ended}\n{logs}"
        assert time.monotonic() < end, f"the cluster does not come up\n{logs}"
        time.sleep(0.2)


def _stop(started: Cluster) -> None:
    """End the jobs, then the daemons, the last one first; then any processes that a node left."""
    with contextlib.suppress(subprocess.SubprocessError, OSError):
        started.run("scancel", "--user=root", check=False)
        end = time.monotonic() + 20
        while started.run("squeue", "-h", check=False).strip() and time.monotonic() < end:
            time.sleep(0.5)
    for daemon in reversed(started.daemons):
        daemon.terminate()
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
    for pid in processes(SLURM_CONF=started.environ["SLURM_CONF"]):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def processes(**variables: str) -> list[int]:
    """The living processes that were started with these variables."""
    expected = {f"{name}={value}".encode() for name, value in variables.items()}
    pids = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):
                is_zombie = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] in "ZX"
                if expected <= set((folder / "environ").read_bytes().split(b"\0")) and not is_zombie:
                    pids.append(int(folder.name))
    return pids


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # ended since
        return b""


def have_pending(pids: Sequence[int], number: int) -> bool:
    """Whether the signal is pending for each of the processes; those that have ended do not count."""
    return all((_mask(pid, "SigPnd") | _mask(pid, "ShdPnd")) >> (number - 1) & 1 for pid in pids if _is_there(pid))


def send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}/status").exists()


def _mask(pid: int, name: str) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:  # ended since
        return 0
    match = re.search(rf"^{name}:\s*(\w+)", text, re.MULTILINE)
    return int(match[1], 16) if match else 0


def _free_ports(count: int) -> list[int]:
    """Below the range that the system takes ports from: none is given to another program before a daemon has it."""
    free: list[int] = []
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            free.append(port)
    return free[:count]
