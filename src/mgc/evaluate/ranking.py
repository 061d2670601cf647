"""ROC curves and the areas under them, one class against the rest.

Each fold is ranked separately, since it was scored by another model, and the folds are averaged.
"""

import numpy as np
from numpy.typing import NDArray

from mgc.evaluate.bootstrap import resampled_weights
from mgc.evaluate.predictions import Floats, Predictions

FPR_GRID = 501  # points of a curve that is averaged over folds


def roc_aucs(predictions: Predictions) -> Floats:
    """(C,) the area under the ROC curve of each class.

    It is the probability that a track of the class gets a higher probability of it than another track; ties
    count half. Mean over the folds that hold tracks of the class and others; NaN if there is no such fold.
    """
    return _aucs(predictions, np.ones((1, len(predictions))))[0]


def resampled_macro_auc(predictions: Predictions, n_bootstrap: int, seed: int) -> Floats:
    """(R,) the mean of `roc_aucs` over classes in each resample; NaN where only one class is drawn."""
    chunks = resampled_weights(predictions, n_bootstrap, seed)
    return np.concatenate([nan_mean(_aucs(predictions, weights)) for weights in chunks])


def roc_curves(predictions: Predictions) -> dict[str, tuple[Floats, Floats]]:
    """False and true positive rates from (0, 0) to (1, 1), for each class that has a curve.

    Several folds are averaged at equal false positive rates (Fawcett 2006), so that the area under the curve
    is the mean of their areas, as in the scores.
    """
    from sklearn.metrics import roc_curve

    curves = {}
    for number, name in enumerate(predictions.classes):
        folds = []
        for rows in _folds(predictions):
            positive = predictions.labels[rows] == number
            if 0 < positive.sum() < len(rows):
                fpr, tpr, _ = roc_curve(positive, predictions.probabilities[rows, number])
                folds.append((fpr, tpr))
        if len(folds) == 1:
            curves[name] = folds[0]
        elif folds:
            grid = np.linspace(0, 1, FPR_GRID)
            mean = np.mean([np.interp(grid, fpr, tpr) for fpr, tpr in folds], axis=0)
            curves[name] = (np.append(0.0, grid), np.append(0.0, mean))
    return curves


def nan_mean(values: Floats) -> Floats:
    """(..., K) to (...): the mean of the values that are not NaN, without a warning where all are."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def _folds(predictions: Predictions) -> list[NDArray[np.intp]]:
    return [np.flatnonzero(predictions.fold == fold) for fold in np.unique(predictions.fold)]


def _aucs(predictions: Predictions, weights: Floats) -> Floats:
    """(r, N) weights to (r, C) areas, averaged over folds."""
    folds = []
    for rows in _folds(predictions):
        labels, probabilities = predictions.labels[rows], predictions.probabilities[rows]
        classes = range(len(predictions.classes))
        areas = [_auc(probabilities[:, k], labels == k, weights[:, rows]) for k in classes]
        folds.append(np.stack(areas, axis=1))
    return nan_mean(np.stack(folds, axis=2))


def _auc(values: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """(n,) values, (n,) membership of the class and (r, n) weights to (r,) areas.

    scikit-learn computes it for one set of weights; here thousands of them share one sorting.
    """
    negatives = np.flatnonzero(~positive)
    negatives = negatives[np.argsort(values[negatives])]
    below = np.zeros((len(weights), len(negatives) + 1))  # cumulated weight of the lowest negatives
    np.cumsum(weights[:, negatives], axis=1, out=below[:, 1:])
    first, last = (np.searchsorted(values[negatives], values[positive], side) for side in ("left", "right"))
    won = (below[:, first] + below[:, last]) / 2
    pairs = weights[:, positive].sum(axis=1) * below[:, -1]
    in_order = np.einsum("ri,ri->r", weights[:, positive], won)
    return np.divide(in_order, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)
