"""Which folders lie on a disk that is this machine's alone: nodes would not see them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")
PRIVATE = tuple(map(Path, ("/tmp", "/var/tmp", "/dev/shm", "/run")))
SHARED = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "cephfs", "ceph", "fuse.ceph", "wekafs", "afs", "orangefs", "9p")
SHARED_WORDS = re.compile(rf"({'|'.join(map(re.escape, SHARED))})|fuse\..*")


def local(paths: Iterable[Path], mounts: Path = MOUNTS) -> Iterator[tuple[Path, str]]:
    """Those of `paths` that are certainly local, and why.

    Other disks cannot be distinguished: a cluster may be a single machine, or export its own disk.
    """
    kinds = _mounts(mounts)
    for path in dict.fromkeys(paths):
        whole = path.resolve()
        place = next((at for at in (whole, *whole.parents) if at in kinds), None)
        kind = kinds[place] if place else ""
        private = next((at for at in PRIVATE if whole.is_relative_to(at)), None)
        if kind in IN_MEMORY:
            yield path, kind
        elif private and not SHARED_WORDS.fullmatch(kind):
            yield path, str(private)


def _mounts(table: Path) -> dict[Path, str]:
    """Mount point -> type of file system; the last one counts where several are on top of each other."""
    try:
        lines = table.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # no Linux
        return {}
    fields = (line.split() for line in lines)
    return {Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), f[1])): f[2] for f in fields if len(f) > 2}
