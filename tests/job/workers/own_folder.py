"""On every process: job/train.py in the folder rank<RANK>, as on machines that share no disk.

The folder's environment.json is added to the environment; the exit code is written to its file `code`.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
os.chdir(f"rank{os.environ['RANK']}")
os.environ.update(json.loads(Path("environment.json").read_text()))

from job import train
from job.runtime import ending

code = train.main(sys.argv[1:])
Path("code").write_text(str(code))
ending.end_process(code)
