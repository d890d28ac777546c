"""Predict with a fine-tuned model: a shortcut for `job/train.py predict`.

    accelerate launch job/predict.py --model_name_or_path runs/latest/model --test_file new.csv

Implemented as a recipe of train.py, so that there is one code path and a row gets the same prediction here as in a test
set after training. Which phases to skip is a setting, which config.yaml records and every launcher passes on.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # as in job/train.py: run this checkout's code, and handle signals before slow imports
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from job.runtime import signals

if __name__ == "__main__":
    signals.install()

from job import train
from job.runtime import ending

if __name__ == "__main__":
    ending.end_process(train.main(["predict", *sys.argv[1:]], "job/predict.py"))
