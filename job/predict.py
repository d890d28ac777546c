"""Predict with a fine-tuned model: the recipe `predict` of job/train.py, to be started by its own name.

    accelerate launch job/predict.py --model_name_or_path runs/latest/model --test_file new.csv

Data, model, the evaluation's exact sharding and the run folder are the training job's own chapters, so that a row gets
the answer here that it gets as a test set after training. A page of its own that calls them would be a second story to
keep true; what is to be left out is a setting, which the run's config.yaml keeps and every launcher carries.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # as in job/train.py: this code, and signals before imports that take long
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from job.runtime import signals

if __name__ == "__main__":
    signals.install()

from job import train

if __name__ == "__main__":
    train.end_process(train.main(["predict", *sys.argv[1:]], "job/predict.py"))
