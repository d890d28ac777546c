"""Share of examples whose class is right; after scikit-learn's accuracy_score."""

import datasets
import evaluate
from sklearn.metrics import accuracy_score


class Accuracy(evaluate.Metric):
    """predictions, references: class numbers -> {"accuracy": 0..1, "correct": number of examples}."""

    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=Accuracy.__doc__,
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions, references):
        return {
            "accuracy": accuracy_score(references, predictions),
            "correct": int(accuracy_score(references, predictions, normalize=False)),
        }
