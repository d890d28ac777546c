"""One contestant in a process of its own: `python -m tests.bench.worker SPEC`, started by conductor.py.

Set here for all: offline, quiet libraries, threads as the conductor set them. Messages go out by the file
descriptor that SPEC names; stdout and stderr are the contestant's log.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from job.runtime import environment


def main(spec: dict[str, Any]) -> None:
    environment.prepare()
    with os.fdopen(spec.pop("out"), "w", encoding="utf-8") as out:
        from tests.bench import contestants, prepare
        from tests.bench.turns import Turns

        turns = Turns(out, **spec)
        watch_loaded_models(turns.watch)
        result = getattr(contestants, spec["runs"])(prepare.load(spec["work"]), turns, **spec["options"])
        turns.tell("end", peak_bytes=peak_memory(), **result)


def watch_loaded_models(watch: Callable[[Any], None]) -> None:
    """Let `watch` see every model that is loaded, to count tokens."""
    from transformers import PreTrainedModel

    load: Any = PreTrainedModel.__dict__["from_pretrained"].__func__

    def watched(cls: type, *args: Any, **options: Any) -> Any:
        loaded = load(cls, *args, **options)
        watch(loaded[0] if isinstance(loaded, tuple) else loaded)  # a pair where its weights are asked about
        return loaded

    PreTrainedModel.from_pretrained = classmethod(watched)  # type: ignore[assignment]


def peak_memory() -> int:
    """Most bytes of memory that this process held."""
    status = Path("/proc/self/status").read_text(encoding="ascii")  # ru_maxrss begins with the parent's
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
