"""Share of examples that are predicted correctly; computed by scikit-learn's accuracy_score."""

import datasets
import evaluate
from sklearn.metrics import accuracy_score


class Accuracy(evaluate.Metric):
    """predictions, references: class numbers -> {"accuracy": 0..1, "correct": number of examples}.

    Configuration `multilabel`: both are lists with a 0 or 1 for each class, and all must agree.
    """

    def _info(self):
        value = datasets.Value("int64")
        value = datasets.List(value) if self.config_name == "multilabel" else value
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=Accuracy.__doc__,
            features=datasets.Features({"predictions": value, "references": value}),
        )

    def _compute(self, predictions, references):
        return {
            "accuracy": accuracy_score(references, predictions),
            "correct": int(accuracy_score(references, predictions, normalize=False)),
        }
