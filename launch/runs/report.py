"""`report RUN`: write report.html again from what is in the run folder, also while the run trains.

The page is made by the job's own code in a process of its own: the launcher imports neither it nor what it needs.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

from job.errors import Refused
from job.runtime import environment
from launch.runs import folders

NEEDED = ("jinja2", "matplotlib", "numpy", "pyarrow", "scipy")
SCRIPT = environment.ROOT / "job" / "report" / "html" / "__main__.py"


def write(run: str) -> int:
    """Write the report of a run and print where it is; the exit code."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise Refused(f"report needs {', '.join(missing)}: run it in the training environment (make setup, or "
                      "pip install -e '.[train]')")  # fmt: skip
    folder = folders.find(run)
    done = subprocess.run([sys.executable, "-P", str(SCRIPT), str(folder)], check=False)
    if done.returncode == 0:
        print(folder / "report.html")
    return done.returncode
