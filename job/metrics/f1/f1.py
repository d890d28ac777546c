"""F1, the harmonic mean of precision and recall, in the usual averages; computed by scikit-learn's f1_score."""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import f1_score


class F1(evaluate.Metric):
    """predictions, references: class numbers -> {"f1_macro", "f1_weighted", and for two classes "f1"}.

    `labels`: all class numbers. `positive`: the class of "f1". Averages are over the classes that occur, which is
    scikit-learn's default.
    Configuration `multilabel`: both are lists with a 0 or 1 for each class -> {"f1_micro", "f1_macro"} of all classes.
    """

    def _info(self):
        value = datasets.Value("int64")
        value = datasets.List(value) if self.config_name == "multilabel" else value
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=F1.__doc__,
            features=datasets.Features({"predictions": value, "references": value}),
        )

    def _compute(self, predictions, references, labels=(), positive=1):
        if self.config_name == "multilabel" and len(labels) == 1:  # scikit-learn would take 0 and 1 for two classes
            of_class = f1_score(np.ravel(references), np.ravel(predictions), zero_division=0)
            return {"f1_micro": of_class, "f1_macro": of_class}
        averages = ("micro", "macro") if self.config_name == "multilabel" else ("macro", "weighted")
        found = {
            f"f1_{average}": f1_score(references, predictions, average=average, zero_division=0)
            for average in averages
        }
        if self.config_name != "multilabel" and len(labels) == 2:
            found["f1"] = f1_score(references, predictions, pos_label=positive, zero_division=0)
        return found
