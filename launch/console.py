"""Warnings of the launcher, on stderr, one line each."""

import sys


def warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
