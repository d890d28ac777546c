"""job/train.py with --torch_compile, which counts the graphs that are compiled. Started by python.

They are traced as usual, but run without compiled code, which takes a minute to generate, and how many there are does
not depend on it. Arguments: the file for the counts, then those of job/train.py.
"""

import json
import sys
from functools import partialmethod
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from job.runtime import environment

environment.prepare()

import torch
from torch._dynamo.utils import counters

from job import train

if __name__ == "__main__":
    setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="eager"))  # noqa: B010
    code = train.main(["--torch_compile", *sys.argv[2:]])
    counts = {"graphs": counters["stats"]["unique_graphs"], "breaks": sum(counters["graph_break"].values())}
    Path(sys.argv[1]).write_text(json.dumps(counts))
    sys.exit(code)
