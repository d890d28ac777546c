"""Memory of this process."""

from __future__ import annotations

import re
import sys
from pathlib import Path


def anonymous_bytes() -> int:
    """Bytes that this process holds and the kernel cannot take back: mapped files, which it can, are left out.

    Only Linux tells them apart; elsewhere the most that was resident.
    """
    try:
        found = re.search(r"^RssAnon:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        found = None
    if found is not None:
        return int(found[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
