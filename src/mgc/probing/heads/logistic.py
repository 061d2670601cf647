"""Multinomial logistic regression with an L2 penalty: scikit-learn's model, fitted in few steps.

Embeddings are correlated: the singular values of a layer span many powers of ten, and L-BFGS from scratch
takes thousands of steps on them. Here the features are turned to their principal axes, all of which are kept,
so that the penalty and hence the model stay the same; each axis is then measured in the width that the loss
has along it, and each strength starts from where the one before has ended.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.linalg import qr
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

MAX_STEPS = 2000
# The gradient, in widths of the loss, at which it stops: the mean loss is then about 1e-12 above the least.
STOP = 1e-6


class Logistic(LogisticRegression):  # type: ignore[misc]
    """scikit-learn's LogisticRegression, fitted by this module. Fitted: also `converged_`."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> "Logistic":
        """On (N, D), best standardised, and any classes (N,)."""
        (fitted,) = logistic_path(x, y, [self.C])
        self.__dict__.update(vars(fitted))
        return self


def logistic_path(x: np.ndarray, y: np.ndarray, strengths: Sequence[float]) -> Iterator[Logistic]:
    """Models of (N, D) and classes (N,), fitted one a strength (scikit-learn's C), the smallest first.

    Raises:
        ValueError: fewer than two classes.
    """
    classes, numbers = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError("logistic regression needs two classes")
    turned, axes, squares = _principal(np.asarray(x, np.float64))
    weights = np.zeros((turned.shape[1] + 1, len(classes)))  # the last row: the intercepts
    for strength in strengths:
        # scikit-learn has one vector for two classes, w; two, w / 2 and -w / 2, have half its penalty.
        penalty = 1 / strength if len(classes) > 2 else 2 / strength
        weights, steps, converged = _descend(turned, squares, numbers, penalty, weights)
        model = Logistic(C=strength, max_iter=MAX_STEPS)
        model.classes_, model.n_iter_, model.converged_ = classes, np.array([steps], np.int32), converged
        model.n_features_in_ = x.shape[1]
        coef, intercept = (axes @ weights[:-1]).T, weights[-1]
        if len(classes) == 2:
            coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
        model.coef_, model.intercept_ = np.ascontiguousarray(coef), np.ascontiguousarray(intercept)
        yield model


def _principal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, D) turned to (N, R), its axes (D, R) and its squared lengths along them (R,); R = min(N, D)."""
    span = None
    if x.shape[1] > len(x):  # weights off the span of the rows would be penalised for nothing
        span, rows = qr(x.T, mode="economic", check_finite=False)
        x = rows.T
    squares, axes = np.linalg.eigh(x.T @ x)
    return x @ axes, axes if span is None else span @ axes, squares.clip(0)


def _descend(
    x: np.ndarray, squares: np.ndarray, y: np.ndarray, penalty: float, start: np.ndarray
) -> tuple[np.ndarray, int, bool]:
    """The (R + 1, C) weights with the least log loss + penalty / 2 * squares; steps; whether it got there."""
    rows = np.arange(len(x))
    truth = np.zeros((len(x), start.shape[1]))
    truth[rows, y] = 1
    at_start = softmax(x @ start[:-1] + start[-1], axis=1)
    curvature = max(1e-4, float(np.mean(at_start * (1 - at_start))))  # of the loss of a row
    lengths = np.append(squares, len(x))[:, np.newaxis]
    width = 1 / np.sqrt(curvature * lengths + np.append(np.full(len(squares), penalty), 0)[:, np.newaxis])

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(start.shape) * width
        told = log_softmax(x @ weights[:-1] + weights[-1], axis=1)
        wrong = np.exp(told) - truth
        slope = np.vstack([x.T @ wrong + penalty * weights[:-1], wrong.sum(axis=0)]) * width
        value = penalty / 2 * np.square(weights[:-1]).sum() - told[rows, y].sum()
        return value / len(x), slope.ravel() / len(x)

    options = {
        "maxiter": MAX_STEPS,
        "maxfun": 2 * MAX_STEPS,
        "gtol": STOP / np.sqrt(len(x)),
        "ftol": 0,
        "maxcor": 20,
    }
    found = minimize(loss, (start / width).ravel(), jac=True, method="L-BFGS-B", options=options)
    return found.x.reshape(start.shape) * width, int(found.nit), bool(found.success)
