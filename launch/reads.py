"""The files and folders that a job reads, which a container must mount.

Links are followed, because a container sees only what is mounted: the files of a hub snapshot are links to the adjacent
blobs folder, and a data file may be a link to another disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from job import config
from job.config import Config
from job.data import readers
from job.runtime import files

FILE_SETTINGS = ("train_file", "validation_file", "test_file")
"""Settings of the job that may be glob patterns."""


def of_job(words: Sequence[str], settings: Config, directory: Path) -> tuple[Path, ...]:
    """The existing paths in the settings, as given. `words` is the job's command line, which may start with a file.

    Patterns are expanded. The run folder and the output file, which are written, are excluded.
    """
    values = config.as_dict(settings)
    values.pop("output_dir")
    values.pop("output_file")
    data = [name for setting in FILE_SETTINGS if (name := values.pop(setting))]
    named = [match for name in data for match in (readers.files(name) if files.is_pattern(name) else [name])]
    others = [name for value in values.values() for name in (value if isinstance(value, list) else [value])]
    named += [name for name in others if isinstance(name, str) and name]
    named += [word for word in words[:1] if word.endswith((".yaml", ".yml"))]
    return tuple(dict.fromkeys(path for path in (directory / name for name in named) if path.exists()))


def output_file_folder(settings: Config, directory: Path) -> tuple[Path, ...]:
    """The folder of --output_file, in which the job also writes a temporary file; () without one."""
    name = settings.run.output_file
    return ((directory / name).parent,) if name else ()


def with_links(paths: Iterable[Path]) -> tuple[Path, ...]:
    """`paths` and the targets of all links in them, above them and inside them."""
    found: dict[Path, None] = {}
    waiting = list(paths)
    while waiting:
        for path in real_places([waiting.pop(0)]):
            if path not in found:
                found[path] = None
                waiting += _links_inside(path)
    return tuple(found)


def real_places(paths: Iterable[Path]) -> tuple[Path, ...]:
    """`paths` and the targets of links, including each step of a chain of links."""
    found: dict[Path, None] = {}
    for path in paths:
        step = Path(os.path.abspath(path))  # noqa: PTH100 (resolve() would follow the links)
        while step not in found:
            found[step] = None
            if step.is_symlink():
                step = Path(os.path.abspath(step.parent / step.readlink()))  # noqa: PTH100
        real = step.resolve()
        if real.exists():
            found[real] = None
    return tuple(found)


def _links_inside(folder: Path) -> Iterator[Path]:
    if folder.is_dir() and not folder.is_symlink():
        for at, folders, names in os.walk(folder):
            yield from (path for name in (*folders, *names) if (path := Path(at, name)).is_symlink())
