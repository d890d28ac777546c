"""Facts about the run: time by phase, provenance, settings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from job import config
from job.report.html.blocks import Section, Table, percent
from job.report.html.run_files import RunFiles

PHASES = {
    "data": "reading and tokenizing the data",
    "model": "loading the model",
    "training": "training",
    "checkpoints": "training held up by checkpoints",
    "evaluation": "evaluation",
    "test": "predicting the test set",
    "results": "writing the results",
}


def time(run: RunFiles) -> Section | None:
    """Time by phase, over all starts of the run."""
    seconds = dict(run.manifest.get("seconds", {}))
    if isinstance(train := run.results.get("train"), dict):
        stall = train.get("checkpoint_stall_seconds", 0.0)
        seconds |= {"training": train["seconds"] - stall, "checkpoints": stall}
    elif (trained := _trained(run)) > 0:
        seconds["training"] = trained
    known = {name: seconds[name] for name in PHASES if name in seconds}
    total = sum(known.values())
    if not total:
        return None
    rows = [[PHASES[name], _duration(value), percent(value / total)] for name, value in known.items()]
    rows.append(["all of these", _duration(total), ""])
    table = Table("Time by phase, over all starts", ["phase", "time", "share"], rows, frozenset({1, 2}))
    return Section("time", "Time", [table])


def _trained(run: RunFiles) -> float:
    """Seconds of training, estimated from the records of an active run: steps, batch size and rate of each."""
    batch, before, total = run.settings.get("train_batch_size", 0), 0, 0.0
    for record in run.of_split("train"):
        if rate := record.get("examples_per_second"):
            total += (record["step"] - before) * batch / rate
        before = record["step"]
    return total


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def provenance(run: RunFiles) -> Section | None:
    """Model, data, code, machine and times of the run."""
    manifest = run.manifest
    if not manifest:
        return None
    git = manifest.get("git") or {}
    commit = f"{git.get('commit', '')}{' with local edits' if git.get('dirty') else ''}"
    packages = ", ".join(f"{name} {version}" for name, version in (manifest.get("packages") or {}).items())
    facts = {
        "model": run.settings.get("model_name_or_path"),
        "data": run.settings.get("dataset_name") or run.settings.get("train_file") or run.settings.get("test_file"),
        "data fingerprint": manifest.get("dataset_fingerprint"),
        "command": shlex.join(map(str, manifest.get("command") or ())),
        "code": commit,
        "image": manifest.get("image"),
        "host": manifest.get("host"),
        "device": manifest.get("device"),
        "processes": manifest.get("world_size"),
        "forward passes": manifest.get("forward"),
        "Python": manifest.get("python"),
        "packages": packages,
        "seed": manifest.get("seed"),
        "started": manifest.get("started"),
        "ended": manifest.get("ended"),
        "restarts": manifest.get("restarts"),
    }
    rows = [[name, str(value)] for name, value in facts.items() if value not in (None, "")]
    return Section("provenance", "Provenance", [Table("Provenance", ["what", "value"], rows, texts=frozenset({1}))])


def settings(run: RunFiles) -> Section | None:
    """The settings that differ from the defaults, and a folded table of all settings."""
    if not run.settings:
        return None
    defaults = config.as_dict(config.Config())
    changed = {name: value for name, value in run.settings.items() if name in defaults and value != defaults[name]}
    return Section("settings", "Settings", [_table("Settings that differ from the defaults", changed, False),
                                            _table("All settings", run.settings, True)])  # fmt: skip


def _table(caption: str, values: Mapping[str, Any], folded: bool) -> Table:
    rows = [[name, _value(value)] for name, value in values.items()]
    return Table(caption, ["setting", "value"], rows, texts=frozenset({1}), folded=folded)


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
