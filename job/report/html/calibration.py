"""Calibration: whether predictions with a probability of 0.8 are correct in 80 % of the rows.

Reliability curve and expected calibration error as in Naeini, Cooper and Hauskrecht, Obtaining Well Calibrated
Probabilities Using Bayesian Binning (AAAI 2015), with 15 bins of equal width that exclude their lower end, as in Guo et
al., On Calibration of Modern Neural Networks (ICML 2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from job.report.html.predictions import Predicted

BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Predictions binned by confidence; bin m is the interval (m / BINS, (m + 1) / BINS].

    Attributes:
        counts: int64[BINS], the number of predictions in each bin.
        confidence: float64[BINS], the mean confidence; NaN for empty bins.
        accuracy: float64[BINS], the share of correct predictions; NaN for empty bins.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def expected_error(self) -> float:
        """The mean distance between confidence and accuracy over the bins, weighted by their predictions."""
        filled = self.counts > 0
        distance = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float((distance * self.counts[filled]).sum() / self.counts.sum())

    @property
    def overconfidence(self) -> float:
        """Mean confidence minus accuracy: above 0 if the model is overconfident."""
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
    """The reliability of the predicted classes; with several labels per row, of each class as a binary prediction."""
    assert predicted.labels is not None
    if predicted.kind.one_label:
        return reliability(predicted.confidence, ~predicted.wrong)
    return reliability(predicted.probabilities.ravel(), predicted.labels.ravel())
