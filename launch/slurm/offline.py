"""Checks before submission that an offline job finds what it loads from the hub in the cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from job.config import BUILT_IN_DATASET, Config, Model
from job.errors import Refused
from job.runtime import environment
from launch import caches


def check(config: Config, environ: Mapping[str, str]) -> None:
    """Refused if HF_HUB_OFFLINE is set and a model, tokenizer or dataset of the hub is not in the cache."""
    if not any(environ.get(name, "").lower() in environment.TRUE for name in environment.OFFLINE):
        return
    hub = caches.hub(environ)
    model = config.model
    names = {"--model_name_or_path": model.model_name_or_path, "--tokenizer_name": model.tokenizer_name}
    for flag, name in names.items():
        if name and not _is_bundled(model, name) and not Path(name).is_dir() and not _has_files(hub, "models", name):
            raise Refused(_missing(flag, name, hub))
    name = config.data.dataset_name
    if name and name != BUILT_IN_DATASET and not Path(name).exists() and not _has_files(hub, "datasets", name):
        raise Refused(_missing("--dataset_name", name, hub))


def _is_bundled(model: Model, name: str) -> bool:
    return name == Model().model_name_or_path and model.model_revision is None


def _has_files(hub: Path, kind: str, name: str) -> bool:
    """Whether the cache holds a snapshot with at least one file."""
    folder = hub / f"{kind}--{name.replace('/', '--')}" / "snapshots"
    return any(path.exists() for path in folder.glob("*/*"))


def _missing(flag: str, name: str, hub: Path) -> str:
    return (
        f"{flag} {name} is not in the cache {hub}, and HF_HUB_OFFLINE keeps the job from the hub: fetch it first "
        "(make prefetch), or unset HF_HUB_OFFLINE"
    )
