"""`report RUN`: writes report.html from the files in the run folder, also during training.

The job's code writes the report, in a separate process: the launcher imports neither that code nor its dependencies.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

from job.errors import Refused
from job.runtime import package
from launch.runs import folders

NEEDED = ("jinja2", "matplotlib", "numpy", "pyarrow", "scipy")
SCRIPT = package.ROOT / "job" / "report" / "html" / "__main__.py"


def write(run: str) -> int:
    """Write the report of a run and print its path; returns the exit code."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise Refused(f"report needs {', '.join(missing)}: run it in the training environment (make setup, or "
                      "pip install -e '.[train]')")  # fmt: skip
    folder = folders.find(run)
    done = subprocess.run([sys.executable, "-P", str(SCRIPT), str(folder)], check=False)
    if done.returncode == 0:
        print(folder / "report.html")
    return done.returncode
