"""How well the probability of a class ranks its tracks above the others: ROC curves and the areas under them.

Each fold is ranked by itself, since another model scored it, and the folds are averaged.
"""

import numpy as np
from numpy.typing import NDArray

from mgc.evaluate.bootstrap import drawn_weights
from mgc.evaluate.predictions import Floats, Predictions

FPR_GRID = 501  # points of a curve that is averaged over folds


def roc_aucs(predictions: Predictions) -> Floats:
    """(C,) the area under each class's ROC curve, one against the rest: the chance that a track of the class
    is given a higher probability of it than another track; ties count half. Mean over the folds that hold
    both; NaN where none does."""
    return _aucs(predictions, np.ones((1, len(predictions))))[0]


def resampled_macro_auc(predictions: Predictions, n_bootstrap: int, seed: int) -> Floats:
    """(R,) the mean of `roc_aucs` over classes, in each resample; NaN where it holds one class only."""
    drawn = drawn_weights(predictions, n_bootstrap, seed)
    return np.concatenate([mean_of_known(_aucs(predictions, weights)) for weights in drawn])


def roc_curves(predictions: Predictions) -> dict[str, tuple[Floats, Floats]]:
    """Of each class that has one: false and true positive rates, from (0, 0) to (1, 1), for a drawing.

    Several folds are averaged at equal false positive rates (Fawcett 2006), so that the area under the curve
    is the mean of theirs, as in the scores.
    """
    from sklearn.metrics import roc_curve

    curves = {}
    for number, name in enumerate(predictions.classes):
        of_folds = []
        for rows in _folds(predictions):
            positive = predictions.labels[rows] == number
            if 0 < positive.sum() < len(rows):
                fpr, tpr, _ = roc_curve(positive, predictions.probabilities[rows, number])
                of_folds.append((fpr, tpr))
        if len(of_folds) == 1:
            curves[name] = of_folds[0]
        elif of_folds:
            grid = np.linspace(0, 1, FPR_GRID)
            mean = np.mean([np.interp(grid, fpr, tpr) for fpr, tpr in of_folds], axis=0)
            curves[name] = (np.append(0.0, grid), np.append(0.0, mean))
    return curves


def mean_of_known(values: Floats) -> Floats:
    """(..., K) to (...) the mean over those that are not NaN; NaN where all are."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def _folds(predictions: Predictions) -> list[NDArray[np.intp]]:
    return [np.flatnonzero(predictions.fold == fold) for fold in np.unique(predictions.fold)]


def _aucs(predictions: Predictions, weights: Floats) -> Floats:
    """(r, N) weights to (r, C) areas, each the mean over folds."""
    of_folds = []
    for rows in _folds(predictions):
        of_fold, labels = weights[:, rows], predictions.labels[rows]
        classes = range(len(predictions.classes))
        areas = [_auc(predictions.probabilities[rows, k], labels == k, of_fold) for k in classes]
        of_folds.append(np.stack(areas, axis=1))
    return mean_of_known(np.stack(of_folds, axis=2))


def _auc(values: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """(n,) values, (n,) whether of the class and (r, n) weights to (r,) shares of pairs in the right order.

    scikit-learn has it for one set of weights; here thousands share one sorting.
    """
    negatives = np.flatnonzero(~positive)
    negatives = negatives[np.argsort(values[negatives])]
    below = np.zeros((len(weights), len(negatives) + 1))  # the weight of the lowest negatives
    np.cumsum(weights[:, negatives], axis=1, out=below[:, 1:])
    first, last = (np.searchsorted(values[negatives], values[positive], side) for side in ("left", "right"))
    won = (below[:, first] + below[:, last]) / 2
    pairs = weights[:, positive].sum(axis=1) * below[:, -1]
    right = np.einsum("ri,ri->r", weights[:, positive], won)
    return np.divide(right, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)
