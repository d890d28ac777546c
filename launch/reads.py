"""Which files and folders of this machine a job reads: what a container must see.

A link is followed, since a container sees only what is bound: the files of a hub snapshot are links into a folder of
blobs beside it, and a data file may be a link to another disk.
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
"""Settings of the job that may be patterns."""


def of_job(words: Sequence[str], settings: Config, directory: Path) -> tuple[Path, ...]:
    """The paths among the settings, as given, that exist; `words` is the job's command line, whose first may be a file.

    Patterns are expanded. The run folder and the file of answers, which are written, are not among them.
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


def answers_folder(settings: Config, directory: Path) -> tuple[Path, ...]:
    """The folder of --output_file, where the job writes its answers under another name first; () without one."""
    name = settings.run.output_file
    return ((directory / name).parent,) if name else ()


def with_links(paths: Iterable[Path]) -> tuple[Path, ...]:
    """`paths` and all that links at them, above them and inside them lead to."""
    found: dict[Path, None] = {}
    waiting = list(paths)
    while waiting:
        for path in real_places([waiting.pop(0)]):
            if path not in found:
                found[path] = None
                waiting += _links_inside(path)
    return tuple(found)


def real_places(paths: Iterable[Path]) -> tuple[Path, ...]:
    """`paths` and where they are in truth: each step of a chain of links is needed to follow it."""
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
