"""A summary in one paragraph, and the scores."""

from __future__ import annotations

import contextlib
import datetime
import math

from job.config.tasks import REGRESSION
from job.report.html import scoring
from job.report.html.blocks import Paragraph, Section, Table, count, numbers_from, short
from job.report.html.predictions import Predicted
from job.report.html.run_files import RunFiles
from job.report.html.scoring import Baseline
from job.runtime import contract

SPLITS = {"validation": "evaluation", "test": "test"}
NOTICED = 0.02
"""Confidence is called too high or too low if it differs from the accuracy by more than this."""


def section(run: RunFiles) -> Section:
    """The quality of the model, as far as it is known."""
    if run.labelled is not None:
        found = scoring.baseline(run, run.labelled)
        sentences = [_score(run, run.labelled), *_against(run, found), *_trust(run, run.labelled)]
        if run.labelled.kind.has_classes and run.label_errors and _is_better(run, found):
            sentences.append(f"It contradicts {count(len(run.label_errors), 'label')}: see the probable label errors.")
    elif run.predicted is not None:
        predicted = count(len(run.predicted), "row")
        sentences = [f"{predicted} of the {run.split} set were predicted. Without labels there is nothing to score."]
    elif run.results:
        table = run.folder.predictions if "eval" in run.results else run.folder.test_predictions
        sentences = [f"This run has finished, but {table.name} is missing: the sections that need it are left out."]
    else:
        sentences = _unfinished(run)
    return Section("verdict", "Verdict", [Paragraph(" ".join(sentences), lead=True), *_scores(run)])


def _score(run: RunFiles, predicted: Predicted) -> str:
    number = scoring.deciding_number(run)
    value = run.scores.get(number)
    trained = f"the model of step {run.results['best_step']:,}" if run.results.get("train") else "the model"
    known = f"{value:.4f}" if isinstance(value, float) else "no value"
    sentence = f"On {count(len(predicted), f'{SPLITS[run.split or str()]} row')} {trained} has {number} {known}"
    interval = scoring.interval(run, predicted)
    if interval is not None and not math.isnan(interval.low):
        sentence += (f" (95 % interval {interval.low:.4f} to {interval.high:.4f}, bootstrap over the rows with "
                     f"{interval.resamples:,} resamples)")  # fmt: skip
    return f"{sentence}."


def _against(run: RunFiles, found: Baseline) -> list[str]:
    if found.score is None:
        return []
    judged = "" if _is_better(run, found) else ": the model is no better than that"
    return [f"Always predicting {found.prediction} gives {found.score:.4f}{judged}."]


def _is_better(run: RunFiles, found: Baseline) -> bool:
    """Whether the model is better than the baseline; True if one of them has no score."""
    value = run.scores.get(scoring.deciding_number(run))
    if found.score is None or not isinstance(value, float):
        return True
    return value < found.score if scoring.lower_is_better(run) else value > found.score


def _trust(run: RunFiles, predicted: Predicted) -> list[str]:
    """Reasons to doubt the score or the probabilities."""
    sentences = []
    description = run.data.get("description", {})
    leaks = description.get("overlap" if run.split == "validation" else "test_overlap", 0)
    if leaks:
        sentences.append(f"{leaks:,} of these rows have a text of the training data: the score is optimistic.")
    if predicted.kind != REGRESSION:
        sure = run.reliability.overconfidence
        how = "too high" if sure > NOTICED else "too low" if sure < -NOTICED else "about right"
        sentences.append(f"Its confidence is {how}: expected calibration error {run.reliability.expected_error:.3f}.")
    return sentences


def _unfinished(run: RunFiles) -> list[str]:
    state, step, steps = (run.status.get(key) for key in ("state", "step", "steps"))
    reached = f"step {step or 0:,}" + (f" of {steps:,}" if steps else "")
    silent = _silent_since(run)
    running = f"This run was probably killed (no heartbeat since {silent})" if silent else "This run is active"
    words = {"RUNNING": running, "STOPPED": "This run was stopped", "FAILED": "This run failed",
             "NEEDS_HUMAN": "This run needs a human", "CANCELLED": "This run was cancelled"}  # fmt: skip
    sentences = [f"{words.get(str(state), 'This run has not finished')}: it has reached {reached}."]
    if state != "RUNNING" and run.status.get("reason"):
        sentences.append(f"Reason: {short(str(run.status['reason']), 300)}.")
    number = scoring.deciding_number(run)
    evaluations = [record for record in run.of_split("eval") if isinstance(record.get(number), int | float)]
    best = [record for record in evaluations if record.get("best")]
    if best:
        so_far = f"{count(len(evaluations), 'evaluation')} so far"
        sentences.append(f"The best of {so_far}, at step {best[-1]['step']:,}, has {number} {best[-1][number]:.4f}.")
    else:
        sentences.append("It has not been evaluated yet.")
    return [*sentences, "Predictions, and the sections that need them, are added at the end."]


def _silent_since(run: RunFiles) -> str:
    """The last heartbeat, if it is old; empty if it is not, or not known."""
    last = str(run.status.get("heartbeat"))
    with contextlib.suppress(ValueError, TypeError):  # not a time, or one without a time zone
        silence = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(last)
        return last if silence.total_seconds() > contract.STALE_SECONDS else ""
    return ""


def _scores(run: RunFiles) -> list[Table]:
    found = {key: run.results[key] for key in ("eval", "test") if isinstance(run.results.get(key), dict)}
    names = list(dict.fromkeys(n for scores in found.values() for n, v in scores.items() if isinstance(v, float)))
    if not names:
        return []
    names.sort(key=lambda name: name != scoring.deciding_number(run))
    words = {"eval": "evaluation", "test": "test"}
    rows = [
        [words[key], f"{scores.get('examples', 0):,}", *(_number(scores.get(name)) for name in names)]
        for key, scores in found.items()
    ]
    columns = ["set", "rows", *names]
    return [Table("Scores of the best model", columns, rows, numbers_from(1, columns))]


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "-"
