"""Fetch what a job loads from the hub, so that it then runs without a network: model, tokenizer, dataset, metrics.

    python -m launch prefetch mrpc -- --model_revision v2

First the hub is asked for commits and sizes, so that a wrong name, a missing token or a full disk is reported before
anything is downloaded. Then the job's own code opens each thing as the job will, the weights on torch's meta device,
which takes no memory: the cache gets the files that the job reads, and no others. Last, a process with the hub switched
off opens all of it again. Refused: downloading by patterns of file names, which needs no torch, but fetches what no job
reads and misses what a new family of models brings.

Not done: converting or tokenizing the data; the first job does that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # as in job/train.py: this code, not an installed copy
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from job import checks
from job import config as configuration
from job.config import Config, metrics
from job.data import hub
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
    """Why nothing is to be fetched; empty where the hub has it."""

    @property
    def kind(self) -> hub.Kind:
        return "dataset" if self.what == "dataset" else "model"

    def __str__(self) -> str:
        return f"{self.what:<10} {self.name}{f' at {self.revision}' if self.revision else ''}"


@dataclass(frozen=True)
class Remote:
    """What the hub has of an asset."""

    commit: str
    missing: int
    """Bytes of data or weights that are not in the cache."""


def assets(config: Config) -> tuple[Asset, ...]:
    """What the job of `config` loads by name."""
    from job.model import loading

    model, data = config.model, config.data
    found = [_model("model", model.model_name_or_path, loading.locate(model.model_name_or_path, model.model_revision),
                    model.model_revision)]  # fmt: skip
    if model.tokenizer_name and model.tokenizer_name != model.model_name_or_path:
        found.append(_model("tokenizer", model.tokenizer_name, loading.locate(model.tokenizer_name, None), None))
    if data.dataset_name:
        made = "made from installed packages" if data.dataset_name == configuration.BUILT_IN_DATASET else ""
        here = made or ("a folder" if Path(data.dataset_name).is_dir() else "")
        found.append(Asset("dataset", data.dataset_name, None if here else data.dataset_revision, here))
    for name in config.evaluation.metrics:
        here = "part of Muster" if name in metrics.METRICS else "a path" if Path(name).exists() else ""
        found.append(Asset("metric", name, here=here))
    return tuple(found)


def _model(what: str, name: str, place: str, revision: str | None) -> Asset:
    here = "comes with the installation" if place != name else "a folder" if Path(name).is_dir() else ""
    return Asset(what, name, None if here else revision, here)


def look_up(asset: Asset) -> Remote:
    """What the hub has of a model or dataset.

    Raises:
        Refused: no such repository or revision, no access, or no answer.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        commit = str(hub.commit(asset.name, asset.revision, asset.kind))
        with hub.network_errors():
            found = HfApi().repo_info(asset.name, revision=commit, repo_type=asset.kind, files_metadata=True)
            if getattr(found, "gated", False):
                HfApi().auth_check(asset.name, repo_type=asset.kind)
    except (OSError, ValueError) as error:
        raise Refused(hub.in_words(error, asset.what, asset.name, asset.revision)) from error
    sizes = {file.rfilename: file.size or 0 for file in getattr(found, "siblings", None) or ()}
    if asset.kind == "model":
        sizes = _weights(sizes) if asset.what == "model" else {}
    there = [name for name in sizes if isinstance(
        try_to_load_from_cache(asset.name, name, revision=commit, repo_type=asset.kind), str)]  # fmt: skip
    return Remote(commit, sum(size for name, size in sizes.items() if name not in there))


def _weights(sizes: dict[str, int]) -> dict[str, int]:
    """The weights among a repository's files: one file, or numbered parts of it."""
    whole = f"model{SAFETENSORS}"
    parts = {n: s for n, s in sizes.items() if n.startswith("model-") and n.endswith(SAFETENSORS)}
    return {whole: sizes[whole]} if whole in sizes else parts


def fetch(config: Config, asset: Asset) -> None:
    """Let the job's own code open `asset`.

    Raises:
        Refused: it is not what the job can use.
    """
    if asset.what == "model":
        _fetch_model(config)
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
    """Fetch what the job with the command line `argv` needs; the exit code.

    With --dry_run as the first word, only say what would be fetched; with --verify, only open it.
    """
    console.install()
    mode, words = (argv[0], list(argv[1:])) if argv[:1] and argv[0] in (DRY_RUN, VERIFY) else ("", list(argv))
    try:
        environment.prepare()
        config = configuration.parse(words, "prefetch")
        checks.check(config)
        if mode == VERIFY:
            _open_all(config)
            return 0
        _prefetch(config, mode == DRY_RUN)
        return 0 if mode == DRY_RUN else _verify(words)
    except JobError as error:
        place = "what was fetched does not open with the hub switched off: " if mode == VERIFY else ""
        console.last_line(f"error: {place}{error}")
        return error.exit_code
    except KeyboardInterrupt:
        console.last_line("interrupted: what was fetched is kept, the same command fetches the rest")
        return 130


def _prefetch(config: Config, only_look: bool) -> None:
    from huggingface_hub import constants

    home, cache = Path(constants.HF_HOME), Path(constants.HF_HUB_CACHE)
    needed = assets(config)
    remote = {asset: look_up(asset) for asset in needed if not asset.here and asset.what != "metric"}
    missing = sum(found.missing for found in remote.values())
    if not only_look:
        _require_room(cache, missing)
    for asset in needed:
        print(f"{asset}: {asset.here or _described(asset, remote.get(asset))}", flush=True)
    if only_look:
        print(f"to fetch   {_size(missing)} of weights and data into {home}")
        return
    before = _content(home, cache)
    with _room_needed(cache):
        _open_all(config)
    new = {path: size for path, size in _content(home, cache).items() if path not in before}
    print(f"fetched    {len(new)} files, {_size(sum(new.values()))}, into {home}", flush=True)


def _open_all(config: Config) -> None:
    """The model, which may be large, last: a wrong name of a split is found before."""
    for asset in reversed(assets(config)):
        if not asset.here:
            fetch(config, asset)


def _verify(words: Sequence[str]) -> int:
    """Open everything in a process with the hub switched off; its exit code."""
    command = [sys.executable, __file__, VERIFY, *words]
    quiet = {"HF_HUB_OFFLINE": "1", "EVALUATE_VERBOSITY": "error"}
    code = subprocess.run(command, env={**os.environ, **quiet}).returncode
    if code == 0:
        print("verified   all of it opens with HF_HUB_OFFLINE=1", flush=True)
    return code


def _described(asset: Asset, remote: Remote | None) -> str:
    if remote is None:
        return "on the hub"
    state = f"{_size(remote.missing)} to fetch" if remote.missing else "in the cache"
    return f"commit {remote.commit[:12]}, {'with the model' if asset.what == 'tokenizer' else state}"


def _require_room(cache: Path, missing: int) -> None:
    free = shutil.disk_usage(next(path for path in (cache, *cache.parents) if path.exists())).free
    if free < missing:
        raise Refused(f"{_size(missing)} are to be fetched and {cache} has {_size(free)} free: make room there, or set "
                      "HF_HOME to a folder on a larger disk")  # fmt: skip


@contextlib.contextmanager
def _room_needed(cache: Path) -> Iterator[None]:
    """A full disk in one line, whichever library met it."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and getattr(cause, "errno", None) not in (errno.ENOSPC, errno.EDQUOT):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise Refused(f"the disk of {cache} is full: make room there, or set HF_HOME to a folder on a larger disk; "
                      "what was fetched is kept") from error  # fmt: skip


def _content(*folders: Path) -> dict[Path, int]:
    """The files in the caches, without links to them, locks and marks."""
    found: dict[Path, int] = {}
    for folder in folders:
        for at, _, names in os.walk(folder):
            if ".locks" not in at:
                for path in (Path(at, name) for name in names if not name.endswith(".lock")):
                    with contextlib.suppress(FileNotFoundError):  # another process may rename what it has fetched
                        if not path.is_symlink():
                            found[path] = path.stat().st_size
    return found


def _size(number: float) -> str:
    """`number` bytes as 1.5 GB."""
    factor, unit = next((pair for pair in UNITS if number >= pair[0]), (1, "bytes"))
    return f"{number / factor:.{0 if factor == 1 else 1}f} {unit}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
