"""Small classifiers on embeddings: standardise, and fit with each strength; `fitting` chooses one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from mgc.probing.heads.logistic import Logistic, logistic_path
from mgc.probing.heads.neural import Perceptron, WeightedLayers
from mgc.probing.heads.svm import Machine
from mgc.util.errors import MgcError, did_you_mean


@dataclass(frozen=True)
class Head:
    """A classifier with one hyperparameter, its strength; `strengths` are tried in this order."""

    strength: str  # what the hyperparameter is
    strengths: tuple[float, ...]  # the simplest model first: it wins a tie
    make: Callable[[float, int], Any]  # (strength, seed) -> unfitted
    # Fits all strengths in one pass, if that is faster: (embeddings, classes, strengths) -> fitted models.
    path: Callable[[np.ndarray, np.ndarray, Sequence[float]], Iterable[Any]] | None = None
    revision: int = 1  # raised by hand when the same embeddings give another classifier


INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
HEADS: dict[str, Head] = {
    "logistic": Head("C", INVERSE_PENALTIES, lambda c, seed: Logistic(C=c), logistic_path),
    "knn": Head(
        "neighbours",
        (31, 15, 9, 5, 3, 1),
        lambda k, seed: KNeighborsClassifier(int(k), weights="distance"),
    ),
    "svm": Head("C", (0.1, 1.0, 10.0, 100.0), lambda c, seed: Machine(C=c), revision=2),
    "mlp": Head(
        "alpha",
        (10.0, 1.0, 0.1, 1e-3),
        lambda alpha, seed: MLPClassifier((256,), alpha=alpha, max_iter=400, random_state=seed),
    ),
    "random_forest": Head(
        "tracks per leaf",
        (8, 3, 1),
        lambda leaf, seed: RandomForestClassifier(300, min_samples_leaf=int(leaf), random_state=seed),
    ),
    # Of equally good thresholds a tree takes one at random.
    "decision_tree": Head(
        "tracks per leaf",
        (64, 32, 16, 8, 4, 1),
        lambda leaf, seed: DecisionTreeClassifier(min_samples_leaf=int(leaf), random_state=seed),
    ),
    # Smoothing: the share of the largest variance that is added to all variances.
    "naive_bayes": Head(
        "smoothing", (1.0, 1e-1, 1e-2, 1e-3, 1e-9), lambda x, seed: GaussianNB(var_smoothing=x)
    ),
    "mlp768": Head("epochs", (10, 30, 100), lambda n, seed: Perceptron(int(n), random_state=seed)),
}


def find_head(name: str) -> Head:
    """The entry of the table. Raises MgcError if there is none."""
    if name not in HEADS:
        raise MgcError(f"unknown head {name!r}", fix=did_you_mean(name, HEADS))
    return HEADS[name]


def weighted(layers: int) -> Head:
    """Logistic regression on a weighted sum of layers, for embeddings (N, layers * D)."""
    return Head("C", INVERSE_PENALTIES, lambda c, seed: WeightedLayers(layers, c))


@dataclass(frozen=True)
class Fitted:
    """A fitted head, and how its strength was chosen."""

    classifier: Any  # a pipeline of scaler and model
    strength: float
    tried: dict[float, float]  # the loss by which each strength was compared, on tracks that were held out
    not_converged: frozenset[float] = frozenset()  # strengths that reached the maximum number of steps

    @property
    def parameters(self) -> int:
        """Number of fitted values: coefficients, thresholds and leaves; 0 for kNN, which keeps the tracks."""
        model = self.classifier[-1]
        return next((int(count(model)) for kind, count in _COUNTS.items() if isinstance(model, kind)), 0)

    def probabilities(self, embeddings: np.ndarray, classes: int) -> np.ndarray:
        """(N, D) -> (N, classes); 0 for a class that the training set does not have."""
        return probabilities_of(self.classifier, embeddings, classes)


def fit_strengths(
    head: Head, x: np.ndarray, y: np.ndarray, seed: int, strengths: Sequence[float] = ()
) -> dict[float, Pipeline]:
    """Fit a scaler and a model on (N, D) and class numbers (N,), for each strength; by default, for all.

    With fewer tracks than neighbours, a strength is omitted.
    """
    scaler = StandardScaler().fit(x)
    x = scaler.transform(x)
    fitting = [k for k in strengths or head.strengths if head.strength != "neighbours" or k <= len(x)]
    made = (head.make(strength, seed).fit(x, y) for strength in fitting)
    models = head.path(x, y, fitting) if head.path else made
    return {k: make_pipeline(scaler, model) for k, model in zip(fitting, models, strict=True)}


def converged(pipeline: Pipeline) -> bool:
    """Whether an iterative model stopped before its maximum number of steps; True for other models."""
    model = pipeline[-1]
    if hasattr(model, "converged_"):
        return bool(model.converged_)
    steps, most = int(np.max(getattr(model, "n_iter_", 0))), getattr(model, "max_iter", -1)
    return not 0 < most <= steps


def probabilities_of(classifier: Any, embeddings: np.ndarray, classes: int) -> np.ndarray:
    """(N, D) -> (N, classes), from a classifier that may know some of the classes only."""
    probabilities = np.zeros((len(embeddings), classes))
    probabilities[:, classifier.classes_] = classifier.predict_proba(embeddings)
    return probabilities / probabilities.sum(axis=1, keepdims=True)


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
