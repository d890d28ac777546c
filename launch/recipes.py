"""The verb `recipes`."""

from __future__ import annotations

import argparse

from job import config


def show(_: argparse.Namespace) -> int:
    """Print one line per recipe."""
    known = config.recipes()
    width = max(map(len, known), default=0)
    for name, description in known.items():
        print(f"{name:<{width}}  {description}")
    return 0
