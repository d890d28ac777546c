"""`python -m launch`, which is installed as `muster`."""

import sys

from launch.cli import main


def command() -> None:
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    command()
