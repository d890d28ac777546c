"""Fetch what a job loads from the hub, so that it then runs without a network: model, tokenizer, dataset, metrics.

    python -m launch prefetch mrpc -- --model_revision v2

First, commits and sizes are looked up on the hub, so a wrong name, a missing token or a full disk is reported before
anything is downloaded. Then everything is loaded with the job's own code, the weights on torch's meta device, which
takes no memory: the cache gets exactly the files that the job reads. Finally, another process with the hub switched off
loads everything again. Alternative considered: downloading by file name patterns needs no torch, but fetches files that
no job reads and misses those that a new model family needs.

The data is neither converted nor tokenized; the first job does that.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # as in job/train.py: this code, not an installed copy
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from job import checks
from job import config as configuration
from job.config import Config, metrics
from job.config.settings import Hub
from job.data import hub
from job.data.library_errors import full_disk_refused
from job.errors import JobError, Refused
from job.runtime import console, environment

DRY_RUN = "--dry_run"
VERIFY = "--verify"
UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
SAFETENSORS = ".safetensors"


@dataclass(frozen=True)
class Asset:
    """Something that the job loads by name."""

    what: str
    """model, tokenizer, dataset or metric."""
    name: str
    revision: str | None = None
    here: str = ""
    """Why it need not be fetched; empty if it comes from the hub."""

    @property
    def kind(self) -> hub.Kind:
        return "dataset" if self.what == "dataset" else "model"

    def __str__(self) -> str:
        return f"{self.what:<10} {self.name}{f' at {self.revision}' if self.revision else ''}"


@dataclass(frozen=True)
class Remote:
    """An asset as it is on the hub."""

    commit: str
    missing: int
    """Bytes of data or weights that are not yet in the cache."""


def assets(config: Config) -> tuple[Asset, ...]:
    """The assets that a job with this configuration loads by name."""
    from job.model import loading

    model, data = config.model, config.data
    needed = [_model("model", model.model_name_or_path, loading.locate(model.model_name_or_path, model.model_revision),
                    model.model_revision)]  # fmt: skip
    if model.tokenizer_name and model.tokenizer_name != model.model_name_or_path:
        needed.append(_model("tokenizer", model.tokenizer_name, loading.locate(model.tokenizer_name, None), None))
    if data.dataset_name:
        built_in = "made from installed packages" if data.dataset_name == configuration.BUILT_IN_DATASET else ""
        here = built_in or ("a folder" if Path(data.dataset_name).is_dir() else "")
        needed.append(Asset("dataset", data.dataset_name, None if here else data.dataset_revision, here))
    for name in config.evaluation.metrics:
        here = "part of Muster" if name in metrics.METRICS else "a path" if Path(name).exists() else ""
        needed.append(Asset("metric", name, here=here))
    return tuple(needed)


def _model(what: str, name: str, place: str, revision: str | None) -> Asset:
    here = "comes with the installation" if place != name else "a folder" if Path(name).is_dir() else ""
    return Asset(what, name, None if here else revision, here)


def look_up(asset: Asset) -> Remote:
    """Look up a model or dataset on the hub.

    Raises:
        Refused: no such repository or revision, no access, or no answer.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        commit = str(hub.commit(asset.name, asset.revision, asset.kind))
        with hub.network_errors():
            info = HfApi().repo_info(asset.name, revision=commit, repo_type=asset.kind, files_metadata=True)
            if getattr(info, "gated", False):
                HfApi().auth_check(asset.name, repo_type=asset.kind)
    except (OSError, ValueError) as error:
        raise Refused(hub.in_words(error, asset.what, asset.name, asset.revision)) from error
    sizes = {file.rfilename: file.size or 0 for file in getattr(info, "siblings", None) or ()}
    if asset.kind == "model":
        sizes = _weights(sizes) if asset.what == "model" else {}
    cached = [name for name in sizes if isinstance(
        try_to_load_from_cache(asset.name, name, revision=commit, repo_type=asset.kind), str)]  # fmt: skip
    return Remote(commit, sum(size for name, size in sizes.items() if name not in cached))


def _weights(sizes: dict[str, int]) -> dict[str, int]:
    """The weights among the files of a repository: one file, or its shards."""
    single = f"model{SAFETENSORS}"
    shards = {n: s for n, s in sizes.items() if n.startswith("model-") and n.endswith(SAFETENSORS)}
    return {single: sizes[single]} if single in sizes else shards


def fetch(config: Config, asset: Asset) -> None:
    """Load `asset` with the job's own code, which puts it into the cache.

    Raises:
        Refused: the job cannot use it.
    """
    if asset.what == "model":
        _fetch_model(config)
    elif asset.what == "tokenizer":
        from job.model import loading, tokenizers

        tokenizers.load(config.model, loading.load_config(config.model))
    elif asset.what == "dataset":
        from job.data import dataset

        dataset.fetch(config)
    elif asset.what == "metric":
        from job.config.tasks import SINGLE_LABEL
        from job.evaluation import metrics as evaluation

        evaluation.load([asset.name], SINGLE_LABEL)


def _fetch_model(config: Config) -> None:
    from transformers import AutoModelForSequenceClassification

    from job.model import loading, tokenizers

    pretrained = loading.load_config(config.model)
    tokenizers.load(config.model, pretrained)
    loading.from_pretrained(
        AutoModelForSequenceClassification,
        config.model,
        config.model.model_name_or_path,
        config=pretrained,
        use_safetensors=True,
        device_map="meta",
    )


def main(argv: Sequence[str]) -> int:
    """Fetch what a job with the command line `argv` needs; returns the exit code.

    With --dry_run as first argument, only print what would be fetched; with --verify, only load it.
    """
    console.install()
    mode, arguments = (argv[0], list(argv[1:])) if argv[:1] and argv[0] in (DRY_RUN, VERIFY) else ("", list(argv))
    try:
        environment.prepare()
        config = configuration.parse(arguments, "prefetch")
        if mode == VERIFY:  # without the upload, which needs the hub
            config = dataclasses.replace(config, hub=Hub())
        checks.check(config)
        if mode == VERIFY:
            _load_all(config)
            return 0
        _prefetch(config, mode == DRY_RUN)
        return 0 if mode == DRY_RUN else _verify(arguments)
    except JobError as error:
        place = "what was fetched does not load with the hub switched off: " if mode == VERIFY else ""
        console.last_line(f"error: {place}{error}")
        return error.exit_code
    except KeyboardInterrupt:
        console.last_line("interrupted: what was fetched is kept, the same command fetches the rest")
        return 130


def _prefetch(config: Config, dry_run: bool) -> None:
    from huggingface_hub import constants

    home, cache = Path(constants.HF_HOME), Path(constants.HF_HUB_CACHE)
    needed = assets(config)
    remote = {asset: look_up(asset) for asset in needed if not asset.here and asset.what != "metric"}
    missing = sum(state.missing for state in remote.values())
    if not dry_run:
        _require_space(cache, missing)
    for asset in needed:
        print(f"{asset}: {asset.here or _described(asset, remote.get(asset))}", flush=True)
    if dry_run:
        print(f"to fetch   {_size(missing)} of weights and data into {home}")
        return
    before = _cached_files(home, cache)
    with full_disk_refused(cache):
        _load_all(config)
    new = {path: size for path, size in _cached_files(home, cache).items() if path not in before}
    print(f"fetched    {len(new)} files, {_size(sum(new.values()))}, into {home}", flush=True)


def _load_all(config: Config) -> None:
    """Load all assets; the model, which may be large, comes last, so that a wrong split name is found first."""
    for asset in reversed(assets(config)):
        if not asset.here:
            fetch(config, asset)


def _verify(arguments: Sequence[str]) -> int:
    """Load everything in a process with the hub switched off; returns its exit code."""
    command = [sys.executable, __file__, VERIFY, *arguments]
    quiet = {"HF_HUB_OFFLINE": "1", "EVALUATE_VERBOSITY": "error"}
    code = subprocess.run(command, env={**os.environ, **quiet}).returncode
    if code == 0:
        print("verified   all of it loads with HF_HUB_OFFLINE=1", flush=True)
    return code


def _described(asset: Asset, remote: Remote | None) -> str:
    if remote is None:
        return "on the hub"
    state = f"{_size(remote.missing)} to fetch" if remote.missing else "in the cache"
    return f"commit {remote.commit[:12]}, {'with the model' if asset.what == 'tokenizer' else state}"


def _require_space(cache: Path, missing: int) -> None:
    free = shutil.disk_usage(next(path for path in (cache, *cache.parents) if path.exists())).free
    if free < missing:
        raise Refused(f"{_size(missing)} must be fetched, but {cache} has only {_size(free)} free: make room "
                      "there, or set HF_HOME to a folder on a larger disk")  # fmt: skip


def _cached_files(*folders: Path) -> dict[Path, int]:
    """The files in the caches and their sizes, without symbolic links and locks."""
    sizes: dict[Path, int] = {}
    for folder in folders:
        for parent, _, names in os.walk(folder):
            if ".locks" not in parent:
                for path in (Path(parent, name) for name in names if not name.endswith(".lock")):
                    with contextlib.suppress(FileNotFoundError):  # another process may rename its files
                        if not path.is_symlink():
                            sizes[path] = path.stat().st_size
    return sizes


def _size(number: float) -> str:
    """A number of bytes in readable form, such as `1.5 GB`."""
    factor, unit = next((pair for pair in UNITS if number >= pair[0]), (1, "bytes"))
    return f"{number / factor:.{0 if factor == 1 else 1}f} {unit}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
