"""Calibration: is a class that is given a probability of 0.8 right in 80 % of the rows?

Reliability curve and expected calibration error after Naeini, Cooper and Hauskrecht, Obtaining Well Calibrated
Probabilities Using Bayesian Binning (AAAI 2015), with the 15 bins of equal width, open at their lower end, of Guo et
al., On Calibration of Modern Neural Networks (ICML 2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from job.report.html.predictions import Predicted

BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Bins of predictions by confidence; bin m holds those in (m / BINS, (m + 1) / BINS].

    Attributes:
        counts: int64[BINS].
        confidence: float64[BINS], the mean in the bin; NaN where it is empty.
        accuracy: float64[BINS], the share that is right; likewise.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def expected_error(self) -> float:
        """The mean distance of confidence and accuracy over the bins, weighted by their predictions."""
        filled = self.counts > 0
        distance = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float((distance * self.counts[filled]).sum() / self.counts.sum())

    @property
    def overconfidence(self) -> float:
        """Mean confidence less the share that is right: above 0 where the model is too sure."""
        filled = self.counts > 0
        difference = self.confidence[filled] - self.accuracy[filled]
        return float((difference * self.counts[filled]).sum() / self.counts.sum())


def reliability(confidence: np.ndarray, right: np.ndarray) -> Reliability:
    """Bin predictions.

    Args:
        confidence: float[n], 0..1.
        right: bool[n].
    """
    confidence = confidence.astype(np.float64)
    place = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    sums = (np.bincount(place, weights=values, minlength=BINS) for values in (confidence, right))
    with np.errstate(invalid="ignore"):
        mean_confidence, accuracy = (total / counts for total in sums)
    return Reliability(counts, mean_confidence, accuracy)


def of(predicted: Predicted) -> Reliability:
    """Of the predicted class; with several labels a row, of each class of each row as a yes or no of its own."""
    assert predicted.labels is not None
    if predicted.kind.one_label:
        return reliability(predicted.confidence, ~predicted.wrong)
    return reliability(predicted.probabilities.ravel(), predicted.labels.ravel())
