"""Root of the mean squared error, in the unit of the labels; computed by scikit-learn."""

import datasets
import evaluate
from sklearn.metrics import root_mean_squared_error


class RootMeanSquaredError(evaluate.Metric):
    """predictions, references: numbers -> {"rmse": 0 or more}."""

    def _info(self):
        value = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=RootMeanSquaredError.__doc__,
            features=datasets.Features({"predictions": value, "references": value}),
        )

    def _compute(self, predictions, references):
        return {"rmse": root_mean_squared_error(references, predictions)}
