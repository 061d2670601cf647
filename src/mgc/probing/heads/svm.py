"""A support vector machine whose most probable class is its decision."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.svm import SVC

LOG_SLOPES = (-4.0, 4.0)  # of 0.02 to 55


class Machine(SVC):  # type: ignore[misc]
    """scikit-learn's SVC (RBF kernel), with probabilities that agree with `predict`.

    SVC compares each pair of classes and decides by their votes. Platt's sigmoid for one class against the
    rest gives another decision, and a worse one where classes are small; libsvm's coupling of pairs (Wu, Lin
    and Weng 2004) differs from the votes too. Here the logit of a class is `slope` times its mean margin over
    the others; where the largest margin is not that of the decision, the two are exchanged. The slope is
    fitted to tracks that were held out (temperature scaling, Guo et al. 2017): see `calibrate`.
    """

    slope = 1.0

    def fit(self, x: np.ndarray, y: np.ndarray) -> "Machine":
        """Fit on (N, D) and classes (N,). A tie of votes is broken by the margins."""
        self.break_ties = True
        return super().fit(x, y)

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """(N, classes)."""
        decided = self.decision_function(x)
        if len(self.classes_) == 2:
            return softmax(self.slope * np.stack([-decided, decided], axis=1), axis=1)
        # scikit-learn adds a third of m / (|m| + 1) to the votes, where m is the sum of margins.
        share = 3 * (decided - decided.round())
        margins = share / (1 - np.abs(share)) / (len(self.classes_) - 1)
        rows, voted, widest = np.arange(len(x)), decided.argmax(axis=1), margins.argmax(axis=1)
        margins[rows, voted], margins[rows, widest] = margins[rows, widest], margins[rows, voted]
        return softmax(self.slope * margins, axis=1)


def calibrate(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """The slope with the smallest log loss on (N, C) probabilities at slope 1; and those at this slope."""
    logits = np.log(probabilities.clip(1e-300))
    rows = np.arange(len(labels))

    def loss(logarithm: float) -> float:
        return -float(log_softmax(np.exp(logarithm) * logits, axis=1)[rows, labels].mean())

    slope = float(np.exp(minimize_scalar(loss, bounds=LOG_SLOPES, method="bounded").x))
    return slope, softmax(slope * logits, axis=1)
