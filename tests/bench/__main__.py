"""`make bench`: ours against its peers on the CPU, side by side in one run. See plan.py for what is run.

Writes results-cpu.json and cpu.png, and RESULTS.md with the tables of every results file there is. The numbers
are of this machine at this hour; the ratios, each taken within one round, are what to look at.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench import conductor, plan, plot, report

HERE = Path(__file__).parent


def main(argv: list[str]) -> int:
    options = arguments(argv)
    chosen = plan.tiny(plan.cpu()) if options.tiny else plan.cpu()
    facts = hardware()
    cache = Path(str(facts.pop("cache")))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as on Ctrl-C: the contestants are ended first
    begun = time.monotonic()
    results: dict[str, Any] = {
        "plan": chosen.name,
        "date": time.strftime("%Y-%m-%d"),
        "hardware": facts,
        "size": chosen.size,
    }
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as scratch:
        for number, workload in enumerate(chosen.workloads):
            folder = Path(scratch, str(number))
            results.setdefault("workloads", {})[workload.name] = conductor.run(chosen, workload, folder, cache, say)
    results["seconds"] = time.monotonic() - begun
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    finished = report.finish(results, chosen)
    (output / f"results-{chosen.name}.json").write_text(json.dumps(finished, indent=1) + "\n", encoding="utf-8")
    (output / "RESULTS.md").write_text(report.document(output), encoding="utf-8")
    plot.draw(finished, output / f"{chosen.name}.png")
    print(report.section(finished))
    return 0


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--output", default=str(HERE), help="folder of the results")
    parser.add_argument("--tiny", action="store_true", help="the same code with a toy model, in seconds")
    return parser.parse_args(argv)


def hardware() -> dict[str, str]:
    """What the numbers were measured on, as a process of its own sees it: the conductor imports no torch."""
    command = [sys.executable, "-m", "tests.bench.hardware"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
