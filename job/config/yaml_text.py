"""YAML as the user wrote it: keys are text, where YAML reads `no` as false and 010 as 8.

A key that is there twice is an error, where YAML would silently keep the last.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from job.errors import Refused

MERGE = "tag:yaml.org,2002:merge"
"""Tag of the key <<."""


def load(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        OSError: the file cannot be read.
        Refused: it is not YAML, or has a key twice.
    """
    node = compose(path)
    try:
        return None if node is None else yaml.SafeLoader("").construct_document(_with_text_keys(node))
    except (ValueError, yaml.YAMLError) as error:  # such as a date that does not exist, or a tag that is not YAML's own
        raise Refused(f"{path} has a value that cannot be read: {' '.join(str(error).split())}") from None


def compose(path: Path) -> yaml.Node | None:
    """The nodes of a YAML file, whose scalars are text; raises as `load` does."""
    try:
        node: yaml.Node | None = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    _refuse_repeated(node, path)
    return node


def _with_text_keys(node: yaml.Node) -> yaml.Node:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                key.tag = yaml.SafeLoader.DEFAULT_SCALAR_TAG
            _with_text_keys(value)
    return node


def _refuse_repeated(node: yaml.Node | None, path: Path) -> None:
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise Refused(f"{path} has {key} twice: remove one of the lines")
        for _, value in node.value:
            _refuse_repeated(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_repeated(value, path)
