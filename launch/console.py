"""What the launcher says to the user beside its result: on stderr, a line each."""

import sys


def warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
