"""`make bench-gpu`: ours and the Trainer on one GPU, BERT-base in bf16, long-tailed text; six minutes at most.

All contestants run in one process, one after the other, by the code of contestants.py: what is loaded, compiled or
planned once a process is then paid by none of them. Each is warmed up, timed over whole steps, and looked at by the
profiler for a few more; one that takes too long, as compiling may, is ended and says so in its row. cuDNN's attention
is off for all but the row that says otherwise: it plans for each new shape.

    python -m tests.bench.gpu [--output FOLDER] [--rounds N] [--seconds S] [--tiny]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from job.runtime import environment
from tests.bench import conductor, plan, report

PEAK = 989e12
"""Dense bf16 FLOP/s of an H100 or H200 (SXM) by its datasheet."""
PROFILED = 3
"""Steps under the profiler, after those that are timed."""
ROW_SECONDS, COMPILED_SECONDS = 75, 200
"""A row's share of the time, in each round."""
ALARM_SECONDS = 5.0
"""Between attempts to end a row: Python drops an exception that is raised in a finalizer."""
BF16, UNDROPPED = ("--mixed_precision", "bf16"), ("--attention_dropout", "0")


@dataclass(frozen=True)
class Row:
    """A contestant at one batch size.

    Attributes:
        name: in the table.
        runs: function of contestants.py.
        options: its keyword arguments.
        batch: examples of an optimizer step.
        warmup, steps: optimizer steps before the clock is read, and timed.
        cudnn: whether cuDNN may compute attention.
        seconds: after which it is ended.
    """

    name: str
    runs: str
    options: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 32
    warmup: int = 10
    steps: int = 40
    cudnn: bool = False
    seconds: float = ROW_SECONDS


def ours(name: str, *flags: str, **numbers: Any) -> Row:
    return Row(name, "ours", {"flags": [*BF16, *flags]}, **numbers)


def tuned(name: str, device_batch: int, **numbers: Any) -> Row:
    options = {"device_batch": device_batch, "bf16": True, "attention": "sdpa", "workers": 4}
    return Row(name, "trainer_tuned", options, **numbers)


def rows() -> tuple[Row, ...]:
    large = {"batch": 256, "warmup": 4, "steps": 12}
    compiled = {"seconds": COMPILED_SECONDS}
    return (
        ours("ours"),
        ours("ours", **large),
        tuned("(c) Trainer, tuned, 256 a device", 256, **large),
        tuned("(c) Trainer, tuned", 32),
        tuned("(c) Trainer, tuned, 32 a device", 32, **large),
        ours("ours, compiled", "--torch_compile", **compiled),
        ours("ours, attention dropout 0", *UNDROPPED),
        tuned("(c) Trainer, tuned, cuDNN on", 32, cudnn=True),
        Row("(b) Trainer", "trainer_defaults", {"bf16": True}),
        ours("ours, compiled", "--torch_compile", **compiled, **large),
    )


def tiny(row: Row) -> Row:
    """The same row, small enough to run in seconds on a CPU."""
    changes = {"device_batch": 4, "workers": 0, "flags": [flag for flag in BF16 if flag]}
    options = {name: changes.get(name, value) for name, value in row.options.items()}
    return replace(row, options=options, batch=8, warmup=1, steps=2)


# ---------------------------------------------------------------------------------------------------------------------
# Measuring


def measure(row: Row, work: Any, watched: list[Any]) -> dict[str, float]:
    """One run of a contestant: rates, memory, and a step's time on the host and on the device."""
    import torch
    from accelerate.state import AcceleratorState
    from torch._dynamo.utils import counters

    from tests.bench import contestants
    from tests.bench.steps import Steps

    AcceleratorState._reset_state(reset_partial_state=True)
    torch.compiler.reset()
    counters.clear()
    gc.collect()
    cuda = torch.cuda.is_available()
    if cuda:
        torch.backends.cuda.enable_cudnn_sdp(row.cudnn)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    steps = Steps(row.steps, row.warmup, PROFILED)
    watched[:] = [steps]
    try:
        getattr(contestants, row.runs)(replace(work, batch=row.batch), steps, **row.options)
    finally:
        steps.close()
    held = (torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()) if cuda else (0, 0)
    rate = row.batch * row.steps / steps.seconds
    evaluated = steps.evaluated_examples / steps.evaluated_seconds if steps.evaluated_seconds else 0.0
    return {
        "examples_per_second": rate,
        "step_seconds": steps.seconds / row.steps,
        "flops_per_second": 3 * work.needed_flops * rate,
        "real": steps.real / max(1, steps.computed),
        "host_seconds": steps.host_seconds,
        "device_seconds": steps.device_seconds,
        "kernels": steps.kernels,
        "graphs": counters["stats"]["unique_graphs"],
        "graph_breaks": sum(counters["graph_break"].values()),
        "allocated_bytes": held[0],
        "reserved_bytes": held[1],
        "evaluated_per_second": evaluated,
    }


def product(work: Any) -> float:
    """FLOP/s of the products of the model's layers, as they are, on this device."""
    import torch

    from tests.bench import machine

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokens = 16384 if device == "cuda" else 64
    shapes = machine.layer_shapes(tokens, work.hidden, work.inner)
    return machine.flops_per_second(shapes, "bf16", device, seconds=0.5)


class RanOut(BaseException):
    """The time of a row is over. Not an Exception, which the measured code might catch."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """RanOut in the main thread, at any place, once `seconds` are over."""

    def end(*_: Any) -> None:
        raise RanOut

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), ALARM_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(chosen: Sequence[Row], work: Any, rounds: int, until: float) -> Iterator[list[dict[str, Any]]]:
    """Rounds of all rows, as far as time allows; one that fails or times out is dropped, with the reason in its row.

    Yields all results, before the first row and after each.
    """
    from tests.bench import worker

    watched: list[Any] = []
    worker.watch_loaded_models(lambda model: watched[0].watch(model))
    results: list[dict[str, Any]] = [{"row": asdict(row), "rounds": [], "error": None} for row in chosen]
    yield results
    for number in range(rounds):
        for row, result in zip(chosen, results, strict=True):
            if result["error"] or time.monotonic() > until:
                continue
            begun = time.monotonic()
            limit = min(row.seconds, until - begun)
            try:
                with limited(limit):
                    measured = measure(row, work, watched)
            except RanOut:
                result["error"] = f"not done after {limit:.0f} s"
                say(f"{row.name}, batch {row.batch}: {result['error']}")
                yield results
                continue
            except Exception as error:  # noqa: BLE001  the others are still worth measuring
                result["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
                say(f"{row.name}, batch {row.batch}: {result['error']}")
                yield results
                continue
            result["rounds"].append({**measured, "product": product(work)})
            say(f"round {number + 1}  {row.name}, batch {row.batch}: {measured['examples_per_second']:.0f} examples/s, "
                f"{time.monotonic() - begun:.0f} s, {measured['graphs']:.0f} compiled graphs")  # fmt: skip
            yield results


# ---------------------------------------------------------------------------------------------------------------------
# The table

COLUMNS = ("batch", "contestant", "examples/s", "ms a step", "host ms", "device ms", "kernels", "MFU",
           "of the product", "real", "peak GiB", "evaluation/s", "ours is faster by")  # fmt: skip


def table(measured: Sequence[Mapping[str, Any]]) -> str:
    """Medians over the rounds; in brackets the least and greatest where there are several."""
    fastest = {
        result["row"]["batch"]: _medians(result)["examples_per_second"]
        for result in measured
        if result["row"]["name"] == "ours" and result["rounds"]
    }
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for result in measured:
        row = result["row"]
        cells = [str(row["batch"]), row["name"]]
        if result["rounds"]:
            cells += _cells(result, fastest.get(row["batch"]))
        else:
            cells += [result["error"] or "not run"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _medians(result: Mapping[str, Any]) -> dict[str, float]:
    return {name: median(r[name] for r in result["rounds"]) for name in result["rounds"][0]}


def _cells(result: Mapping[str, Any], ours_rate: float | None) -> list[str]:
    m = _medians(result)
    rates = [r["examples_per_second"] for r in result["rounds"]]
    spread = f" ({min(rates):.0f}-{max(rates):.0f})" if len(rates) > 1 else ""
    return [
        f"{m['examples_per_second']:.0f}{spread}",
        f"{1e3 * m['step_seconds']:.1f}",
        f"{1e3 * m['host_seconds']:.1f}",
        f"{1e3 * m['device_seconds']:.1f}",
        f"{m['kernels']:.0f}",
        f"{m['flops_per_second'] / PEAK:.1%}",
        f"{m['flops_per_second'] / m['product']:.1%}",
        f"{m['real']:.2f}",
        f"{m['allocated_bytes'] / 2**30:.1f} ({m['reserved_bytes'] / 2**30:.1f} reserved)",
        f"{m['evaluated_per_second']:.0f}",
        f"{ours_rate / m['examples_per_second']:.2f}" if ours_rate else "",
    ]


# ---------------------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str]) -> int:
    options = arguments(argv)
    begun = time.monotonic()
    size, chosen = ("tiny", tuple(map(tiny, rows()))) if options.tiny else ("bert-base", rows())
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as scratch:
        folder = Path(scratch, "work")
        values = conductor.child_environment(plan.Plan("gpu", "cpu" if options.tiny else "cuda", size, (), ()), folder)
        os.environ.update(values)  # before torch and datasets are imported, which read it once
        environment.prepare()
        facts = hardware()
        if not (options.tiny or facts["gpu"]):
            print("error: no CUDA GPU here: `make bench` measures on the CPU", file=sys.stderr)
            return 2
        work = prepared(folder, size, options.tiny, values)
        say(f"prepared after {time.monotonic() - begun:.0f} s")
        results = {
            "date": time.strftime("%Y-%m-%d"), "hardware": facts, "size": size, "results": [],
            "tokens": work.tokens, "needed_flops": work.needed_flops,
        }  # fmt: skip
        name = f"gpu-{time.strftime('%Y-%m-%d-%H%M')}"
        for measured in run(chosen, work, options.rounds, begun + options.seconds):
            results |= {"results": measured, "seconds": time.monotonic() - begun}
            if options.output:  # after each row, as a limit of the machine may end all of this
                write(results, options.output, name)
    print(page(results))
    return int(any(result["error"] or not result["rounds"] for result in results["results"]))


def write(results: Mapping[str, Any], folder: Path, name: str) -> None:
    """The measurement under its name, and RESULTS.md of all that the folder has."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(page(results), encoding="utf-8")
    (folder / "RESULTS.md").write_text(report.document(folder), encoding="utf-8")


def page(results: Mapping[str, Any]) -> str:
    """The table under its date, hardware and versions: a section of RESULTS.md."""
    facts = results["hardware"]
    versions = ", ".join(f"{name} {value}" for name, value in facts.items() if name != "gpu")
    head = f"## {facts['gpu'] or 'no GPU'}, {results['date']}"
    about = (f"Model: {results['size']}, bf16. Long-tailed text, mean {results['tokens']:.0f} tokens an example. "
             f"Driver, memory and versions: {versions}. {results['seconds']:.0f} s in all.")  # fmt: skip
    return f"{head}\n\n{about}\n\n{table(results['results'])}\n"


def hardware() -> dict[str, Any]:
    """GPU, driver and versions."""
    import torch

    from tests.bench import hardware as known

    gpu = {"gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else ""}
    versions = {name: known.metadata.version(name) for name in known.VERSIONS}
    query = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
    try:
        gpu["driver"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        gpu["driver"] = ""
    return {**gpu, "cuda": torch.version.cuda, **versions}


def prepared(folder: Path, size: str, is_tiny: bool, values: Mapping[str, str]) -> Any:
    """The workload's folder (prepare.py), made by a process of its own."""
    from tests.bench import prepare

    folder.mkdir(parents=True)
    spec = {
        "folder": str(folder), "cache": str(folder.with_name("corpus")), "workload": plan.LONG, "size": size,
        "rows": 400 if is_tiny else None, "evaluation_rows": 12 if is_tiny else 500, "batch": 8 if is_tiny else 32,
        "learning_rate": 5e-5, "max_length": 64 if is_tiny else 512, "warmup": 10, "turn": 53, "rounds": 1,
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.bench.prepare", json.dumps(spec)]
    subprocess.run(command, cwd=conductor.ROOT, env=dict(values), check=True)
    return prepare.load(str(folder))


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description=__doc__)
    parser.add_argument("--output", type=Path, help="folder of the results, and of RESULTS.md")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=330, help="after which everything is ended")
    parser.add_argument("--tiny", action="store_true", help="the same code with a toy model on any CPU")
    return parser.parse_args(argv)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
