"""Small classifiers on embeddings: standardise, fit, and choose the strength on the validation set."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from mgc.probing.heads.logistic import Logistic, logistic_path
from mgc.probing.heads.neural import Perceptron, WeightedLayers
from mgc.util.errors import MgcError, did_you_mean


@dataclass(frozen=True)
class Head:
    """A classifier with one hyperparameter, its strength; `strengths` are tried in this order."""

    strength: str  # what the hyperparameter is
    strengths: tuple[float, ...]
    make: Callable[[float, int, int], Any]  # (strength, seed, tracks of the rarest class) -> unfitted
    # Fits all strengths in one pass, if that is faster: (embeddings, classes, strengths) -> fitted models.
    path: Callable[[np.ndarray, np.ndarray, Sequence[float]], Iterable[Any]] | None = None
    revision: int = 1  # raised by hand when the same embeddings give another classifier


INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
HEADS: dict[str, Head] = {
    "logistic": Head("C", INVERSE_PENALTIES, lambda c, seed, rarest: Logistic(C=c), logistic_path),
    "knn": Head(
        "neighbours",
        (31, 15, 9, 5, 3, 1),
        lambda k, seed, rarest: KNeighborsClassifier(int(k), weights="distance"),
    ),
    # Probabilities by Platt's sigmoid on inner folds, as in scikit-learn's own SVC(probability=True).
    "svm": Head(
        "C",
        (0.1, 1.0, 10.0, 100.0),
        lambda c, seed, rarest: CalibratedClassifierCV(SVC(C=c), ensemble=False, cv=min(5, rarest)),
    ),
    "mlp": Head(
        "alpha",
        (10.0, 1.0, 0.1, 1e-3),
        lambda alpha, seed, rarest: MLPClassifier((256,), alpha=alpha, max_iter=400, random_state=seed),
    ),
    "random_forest": Head(
        "tracks per leaf",
        (8, 3, 1),
        lambda leaf, seed, rarest: RandomForestClassifier(300, min_samples_leaf=int(leaf), random_state=seed),
    ),
    "decision_tree": Head(
        "tracks per leaf",
        (64, 32, 16, 8, 4, 1),
        lambda leaf, seed, rarest: DecisionTreeClassifier(min_samples_leaf=int(leaf), random_state=seed),
    ),
    # Smoothing: the share of the largest variance that is added to all variances.
    "naive_bayes": Head(
        "smoothing", (1.0, 1e-1, 1e-2, 1e-3, 1e-9), lambda x, seed, rarest: GaussianNB(var_smoothing=x)
    ),
    "mlp768": Head("epochs", (10, 30, 100), lambda n, seed, rarest: Perceptron(int(n), random_state=seed)),
}


def find_head(name: str) -> Head:
    """The entry of the table. Raises MgcError if there is none."""
    if name not in HEADS:
        raise MgcError(f"unknown head {name!r}", fix=did_you_mean(name, HEADS))
    return HEADS[name]


def weighted(layers: int) -> Head:
    """Logistic regression on a weighted sum of layers, for embeddings (N, layers * D)."""
    return Head("C", INVERSE_PENALTIES, lambda c, seed, rarest: WeightedLayers(layers, c))


@dataclass(frozen=True)
class Fitted:
    """A fitted head, and how its strength was chosen."""

    classifier: Any  # a pipeline of scaler and model
    strength: float
    tried: dict[float, float]  # validation log loss of each strength
    parameters: int
    not_converged: tuple[float, ...] = ()  # strengths whose maximum number of steps was reached

    @property
    def loss(self) -> float:
        """Validation log loss of the chosen strength."""
        return self.tried[self.strength]

    def probabilities(self, embeddings: np.ndarray, classes: int) -> np.ndarray:
        """(N, D) -> (N, classes); 0 for a class that the training set does not have."""
        return _probabilities(self.classifier, embeddings, classes)


def fit_head(
    head: Head, train: tuple[np.ndarray, np.ndarray], val: tuple[np.ndarray, np.ndarray], seed: int
) -> Fitted:
    """Fit on `train` with each strength, and keep the one with the smallest log loss on `val`.

    Both are (embeddings (N, D), class numbers (N,)). The scaler is fitted on the training set only.

    Raises:
        MgcError: there are too few tracks for this head.
    """
    classes = int(max(train[1].max(), val[1].max())) + 1
    rarest = int(np.unique(train[1], return_counts=True)[1].min())
    if head is HEADS["svm"] and rarest < 2:
        raise MgcError(
            "a class has a single training track, but an SVM needs two for its probabilities",
            fix="add tracks, or use --head logistic",
        )
    strengths = head.strengths
    if head.strength == "neighbours":
        strengths = tuple(k for k in strengths if k <= len(train[0]))
    scaler = StandardScaler().fit(train[0])
    x, x_val = scaler.transform(train[0]), scaler.transform(val[0])
    made = (head.make(strength, seed, rarest).fit(x, train[1]) for strength in strengths)
    models = dict(zip(strengths, head.path(x, train[1], strengths) if head.path else made, strict=True))
    losses = {
        strength: float(log_loss(val[1], _probabilities(model, x_val, classes), labels=range(classes)))
        for strength, model in models.items()
    }
    best = min(losses, key=lambda strength: losses[strength])
    pipeline = make_pipeline(scaler, models[best])
    not_converged = tuple(strength for strength, model in models.items() if not _converged(model))
    return Fitted(pipeline, best, losses, _parameters(pipeline), not_converged)


def _converged(model: Any) -> bool:
    """Whether an iterative model stopped before its maximum number of steps; True for other models."""
    if hasattr(model, "converged_"):
        return bool(model.converged_)
    steps, most = int(np.max(getattr(model, "n_iter_", 0))), getattr(model, "max_iter", -1)
    return not 0 < most <= steps


def _probabilities(classifier: Any, embeddings: np.ndarray, classes: int) -> np.ndarray:
    """(N, D) -> (N, classes), from a classifier that may know some of the classes only."""
    probabilities = np.zeros((len(embeddings), classes))
    probabilities[:, classifier.classes_] = classifier.predict_proba(embeddings)
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def _parameters(pipeline: Any) -> int:
    """Number of fitted values: coefficients, thresholds and leaves; 0 for kNN, which keeps the tracks."""
    model = pipeline[-1]
    if isinstance(model, CalibratedClassifierCV):
        model = model.calibrated_classifiers_[0].estimator
    return next((int(count(model)) for kind, count in _COUNTS.items() if isinstance(model, kind)), 0)


_COUNTS: dict[type, Callable[[Any], int]] = {
    LogisticRegression: lambda m: m.coef_.size + m.intercept_.size,
    SVC: lambda m: m.dual_coef_.size + m.intercept_.size,
    MLPClassifier: lambda m: sum(array.size for array in [*m.coefs_, *m.intercepts_]),
    RandomForestClassifier: lambda m: sum(tree.tree_.node_count for tree in m.estimators_),
    DecisionTreeClassifier: lambda m: m.tree_.node_count,
    GaussianNB: lambda m: m.theta_.size + m.var_.size + m.class_prior_.size,
    WeightedLayers: lambda m: m.coef_.size + m.intercept_.size + m.layers,
    Perceptron: lambda m: sum(parameter.numel() for parameter in m.network_.parameters()),
}
