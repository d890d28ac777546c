"""Finds folders on this machine's own disk, which other nodes cannot see."""

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
    """Those of `paths` that are certainly local, each with the reason.

    Other paths may be local too: nothing distinguishes a disk that this machine exports to the nodes.
    """
    kinds = _mounts(mounts)
    for path in dict.fromkeys(paths):
        resolved = path.resolve()
        mount = next((folder for folder in (resolved, *resolved.parents) if folder in kinds), None)
        kind = kinds[mount] if mount else ""
        private = next((folder for folder in PRIVATE if resolved.is_relative_to(folder)), None)
        if kind in IN_MEMORY:
            yield path, kind
        elif private and not SHARED_WORDS.fullmatch(kind):
            yield path, str(private)


def _mounts(table: Path) -> dict[Path, str]:
    """Mount point -> type of file system; if several are mounted at one point, the last one."""
    try:
        lines = table.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # not Linux
        return {}
    fields = (line.split() for line in lines)
    return {Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), f[1])): f[2] for f in fields if len(f) > 2}
