"""What the bench runs: contestants, workloads and bars as values. Nothing here computes.

Every contestant of a workload trains the same weights on the same examples with the same recipe (AdamW, weight decay
0.01, linear decay without warm-up, one global batch size, dropout as the checkpoint has it). What differs is what the
table's column "settings" says, and nothing else: `contestants.py` has the code of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

LONG, SHORT, PAIRS = "long-tailed text", "short text", "sentence pairs"
LEVERS = "ours on long-tailed text, a lever changed"
OURS, BF16, PADDED, UNDROPPED = "ours", "ours, bf16", "ours, no packing", "ours, attention dropout 0"
UNTUNED = "ours, allocator as it comes"
TUTORIAL, TRAINER, TUNED, LOOP = "(a) tutorial loop", "(b) Trainer", "(c) Trainer, tuned", "(d) Accelerate loop"
MACHINE = "matrix product"
EVERY_LOSS = ("--logging_steps", "1")
CURVE = ("ours, no dropout", "(d), no dropout")


@dataclass(frozen=True)
class Entry:
    """One contestant in one workload.

    Attributes:
        name: of its row; entries of one name have a trial before the rounds, and only the fastest continues.
        runs: the function of contestants.py.
        options: its keyword arguments.
        settings: the same in words, for the table.
        precision: fp32 or bf16, which matrix product its share is taken of.
        steps: optimizer steps timed in each round.
        rounds: rounds it takes part in, the first ones.
        evaluations: timed evaluations after the last round.
        allocator: ours only: whether memory is allocated as job/train.py asks for when it starts.
        trimmed: whether freed memory is given back between turns, so that there is room for the others'.
    """

    name: str
    runs: str
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: str = ""
    precision: str = "fp32"
    steps: int = 0
    rounds: int = 3
    evaluations: int = 2
    allocator: bool = True
    trimmed: bool = False


@dataclass(frozen=True)
class Workload:
    """A data set and who runs on it.

    Attributes:
        rows: training rows; None: all there are.
        evaluation_rows: validation rows, the same for all.
        curve: names of two entries whose losses must agree step by step; none: not compared.
    """

    name: str
    entries: tuple[Entry, ...]
    rows: int | None = None
    evaluation_rows: int = 128
    curve: tuple[str, str] | None = None


@dataclass(frozen=True)
class Bar:
    """A target: printed next to the measured number, never asserted.

    Attributes:
        workload: its name.
        quantity: training, evaluation (both: ratios of examples/s), first step (ratio of seconds), real (share of the
            computed tokens), machine (share of the matrix product).
        of: the entry.
        to: the entry it is compared with; empty for a share.
        bar: the number.
        at_most: whether less is better.
    """

    workload: str
    quantity: str
    of: str
    to: str
    bar: float
    at_most: bool = False


@dataclass(frozen=True)
class Plan:
    """A whole run of the bench.

    Attributes:
        name: of the result files.
        device: cpu or cuda: whether GPUs are hidden from the contestants.
        size: of the model, as models.py knows it.
        warmup: untimed optimizer steps at the beginning of each turn.
        together: whether the contestants start at once: quicker, but then the time to the first step means nothing.
    """

    name: str
    device: str
    size: str
    workloads: tuple[Workload, ...]
    bars: tuple[Bar, ...]
    batch: int = 32
    learning_rate: float = 2e-4
    max_length: int = 512
    warmup: int = 0
    together: bool = False


def ours(name: str, *flags: str, settings: str = "", **numbers: Any) -> Entry:
    bf16 = "bf16" in flags
    words = settings or " ".join(flags).replace("--", "") or "defaults"
    return Entry(name, "ours", {"flags": list(flags)}, words, "bf16" if bf16 else "fp32", **numbers)


def tuned(device_batch: int, bf16: bool, attention: str = "sdpa", workers: int = 0, **numbers: Any) -> Entry:
    """One combination of the Trainer's optimizations."""
    options = {"device_batch": device_batch, "bf16": bf16, "attention": attention, "workers": workers}
    words = f"group_by_length, {device_batch} a device, {'bf16' if bf16 else 'fp32'}, {attention}, {workers} workers"
    return Entry(TUNED, "trainer_tuned", options, words, "bf16" if bf16 else "fp32", **numbers)


def tutorial(**numbers: Any) -> Entry:
    return Entry(TUTORIAL, "tutorial", {}, "padded to max_length, fp32", **numbers)


def trainer(**numbers: Any) -> Entry:
    return Entry(TRAINER, "trainer_defaults", {"bf16": False}, "defaults: dynamic padding, fp32", **numbers)


def loop(**numbers: Any) -> Entry:
    return Entry(LOOP, "accelerate_loop", {}, "dynamic padding, shuffled, fp32", **numbers)


def machine(tokens: int, rounds: int) -> Entry:
    return Entry(MACHINE, "matrix_product", {"tokens": tokens}, f"{tokens} rows", rounds=rounds, evaluations=0)


def curve(steps: int) -> tuple[Entry, Entry]:
    """Two runs without dropout, whose losses are compared; they take part in no round."""
    numbers: dict[str, Any] = {"steps": steps, "rounds": 0, "evaluations": 0}
    mine = Entry(CURVE[0], "ours", {"flags": list(EVERY_LOSS), "dropout": False}, "fp32", **numbers)
    return mine, Entry(CURVE[1], "accelerate_loop", {"dropout": False}, "fp32", **numbers)


def levers() -> tuple[Entry, ...]:
    """Ours as it is, and with one lever changed."""
    numbers: dict[str, Any] = {"steps": 4, "rounds": 2, "evaluations": 0}
    bf16 = ("--mixed_precision", "bf16")
    return (
        ours(OURS, **numbers),
        ours(PADDED, "--no_packing", **numbers),
        ours(UNTUNED, settings="glibc's settings", allocator=False, **numbers),
        ours(UNDROPPED, "--attention_dropout", "0", **numbers),
        ours(BF16, *bf16, **numbers),
        ours(f"{UNDROPPED}, bf16", *bf16, "--attention_dropout", "0", **numbers),
    )


def cpu() -> Plan:
    """Two cores and the MiniLM weights: a, b and d do a single step in their one round, which takes them a minute."""
    fast: dict[str, Any] = {"steps": 4, "rounds": 5}
    slow: dict[str, Any] = {"steps": 1, "rounds": 1, "evaluations": 1, "trimmed": True}
    bf16 = ("--mixed_precision", "bf16")
    long = (
        machine(2048, 5),
        ours(OURS, **fast),
        ours(BF16, *bf16, **fast),
        tuned(8, True, "eager", **fast),
        tuned(8, True, "eager", workers=1, **fast),
        tuned(4, True, "eager", **fast),
        tutorial(**slow),
        trainer(**slow),
        loop(**slow),
    )
    brief: dict[str, Any] = {"steps": 10, "evaluations": 1}
    short = (
        machine(2048, 3),
        ours(OURS, **brief),
        ours(BF16, *bf16, **brief),
        tuned(16, True, "eager", **brief),
        tuned(32, True, "eager", **brief),
        trainer(**brief),
    )
    pair: dict[str, Any] = {"steps": 4, "evaluations": 1}
    pairs = (
        machine(2048, 3),
        ours(OURS, **pair),
        ours(BF16, *bf16, **pair),
        tuned(16, True, "eager", **pair),
        trainer(**pair),
        *curve(12),
    )
    workloads = (
        Workload(LONG, long, evaluation_rows=64),
        Workload(LEVERS, (machine(2048, 2), *levers()), evaluation_rows=64),
        Workload(SHORT, short, evaluation_rows=400),
        Workload(PAIRS, pairs, evaluation_rows=100, curve=CURVE),
    )
    return Plan("cpu", "cpu", "minilm", workloads, CPU_BARS)


def tiny(plan: Plan) -> Plan:
    """The same code in seconds on any CPU: the first workload, one of each kind, one short round."""
    first = plan.workloads[0]
    chosen = (machine(64, 1), ours(OURS, *EVERY_LOSS), tuned(4, True), tutorial(), loop())
    entries = tuple(replace(e, steps=2, rounds=1, evaluations=min(e.evaluations, 1)) for e in chosen)
    workload = replace(first, entries=entries, rows=400, evaluation_rows=12, curve=(OURS, LOOP))
    small = replace(plan, size="tiny", workloads=(workload,), batch=8, max_length=64, warmup=1)
    return replace(small, bars=tuple(bar for bar in plan.bars if bar.workload == first.name), together=True)


CPU_BARS = (
    Bar(LONG, "training", OURS, TUTORIAL, 8),
    Bar(LONG, "training", OURS, TRAINER, 8),
    Bar(LONG, "training", OURS, LOOP, 8),
    Bar(LONG, "training", BF16, TUNED, 1.5),
    Bar(LONG, "evaluation", OURS, TRAINER, 3),
    Bar(LONG, "machine", OURS, "", 0.55),
    Bar(LEVERS, "real", PADDED, "", 0.90),
    Bar(LONG, "real", OURS, "", 1.0),
    Bar(LONG, "first step", OURS, TRAINER, 1.0, at_most=True),
    Bar(SHORT, "training", OURS, TRAINER, 1.5),
    Bar(SHORT, "first step", OURS, TRAINER, 1.0, at_most=True),
)
