"""`python -m launch`, which is installed as `muster`."""

import sys
from pathlib import Path

if not __package__:  # started by its path, as a sweep starts its runs: the working directory is not searched
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from launch.cli import main


def command() -> None:
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    command()
