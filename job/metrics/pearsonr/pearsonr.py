"""Pearson correlation of predicted and true numbers; computed by SciPy."""

import datasets
import evaluate
from scipy.stats import pearsonr


class Pearson(evaluate.Metric):
    """predictions, references: numbers -> {"pearsonr": -1..1, nan where either is constant or there is one row}."""

    def _info(self):
        value = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=Pearson.__doc__,
            features=datasets.Features({"predictions": value, "references": value}),
        )

    def _compute(self, predictions, references):
        if len(references) < 2:
            return {"pearsonr": float("nan")}
        return {"pearsonr": pearsonr(references, predictions).statistic}
