"""Memory of this process."""

from __future__ import annotations

import re
import sys
from pathlib import Path


def anonymous_bytes() -> int:
    """Anonymous memory of this process, in bytes. Mapped files, which the kernel can reclaim, do not count.

    Only Linux distinguishes them; on other systems this is the peak resident size.
    """
    try:
        match = re.search(r"^RssAnon:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        match = None
    if match is not None:
        return int(match[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
