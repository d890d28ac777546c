"""Matthews correlation of predicted and true classes, GLUE's metric for CoLA; computed by scikit-learn."""

import datasets
import evaluate
from sklearn.metrics import matthews_corrcoef


class MatthewsCorrelation(evaluate.Metric):
    """predictions, references: class numbers -> {"matthews_correlation": -1..1}."""

    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=MatthewsCorrelation.__doc__,
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions, references):
        return {"matthews_correlation": matthews_corrcoef(references, predictions)}
