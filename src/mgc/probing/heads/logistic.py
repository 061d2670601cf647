"""Multinomial logistic regression with an L2 penalty: scikit-learn's model, fitted in fewer steps.

The features of an embedding are correlated: singular values span many powers of ten, and plain L-BFGS takes
thousands of steps. Here features are rotated to their principal axes, which leaves the penalty and so the
model unchanged, and each axis is scaled by the curvature of the loss along it. Each strength starts from the
weights of the previous one.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.linalg import qr
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

MAX_STEPS = 2000
# Stop at this gradient (in scaled coordinates): the mean loss is then about 1e-12 above the minimum.
STOP = 1e-6


class Logistic(LogisticRegression):  # type: ignore[misc]
    """scikit-learn's LogisticRegression, fitted by this module; `fit` also sets `converged_`."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> "Logistic":
        """Fit on (N, D), preferably standardised, and classes (N,) of any type."""
        (fitted,) = logistic_path(x, y, [self.C])
        self.__dict__.update(vars(fitted))
        return self


def logistic_path(x: np.ndarray, y: np.ndarray, strengths: Sequence[float]) -> Iterator[Logistic]:
    """Fit (N, D) and classes (N,) with each strength (scikit-learn's C), in the given order.

    Raises:
        ValueError: fewer than two classes.
    """
    classes, numbers = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError("logistic regression needs two classes")
    rotated, axes, squares = _principal(np.asarray(x, np.float64))
    weights = np.zeros((rotated.shape[1] + 1, len(classes)))  # the last row: the intercepts
    for strength in strengths:
        # For two classes scikit-learn has one vector w; w / 2 and -w / 2 have half its penalty.
        penalty = 1 / strength if len(classes) > 2 else 2 / strength
        weights, steps, converged = _minimise(rotated, squares, numbers, penalty, weights)
        model = Logistic(C=strength, max_iter=MAX_STEPS)
        model.classes_, model.n_iter_, model.converged_ = classes, np.array([steps], np.int32), converged
        model.n_features_in_ = x.shape[1]
        coef, intercept = (axes @ weights[:-1]).T, weights[-1]
        if len(classes) == 2:
            coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
        model.coef_, model.intercept_ = np.ascontiguousarray(coef), np.ascontiguousarray(intercept)
        yield model


def _principal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, D) rotated to (N, R), the axes (D, R) and the squared singular values (R,); R = min(N, D)."""
    span = None
    if x.shape[1] > len(x):  # the optimum lies in the span of the rows
        span, rows = qr(x.T, mode="economic", check_finite=False)
        x = rows.T
    squares, axes = np.linalg.eigh(x.T @ x)
    return x @ axes, axes if span is None else span @ axes, squares.clip(0)


def _minimise(
    x: np.ndarray, squares: np.ndarray, y: np.ndarray, penalty: float, start: np.ndarray
) -> tuple[np.ndarray, int, bool]:
    """The weights (R + 1, C) that minimise log loss + penalty / 2 * squares; steps; whether it converged."""
    rows = np.arange(len(x))
    truth = np.zeros((len(x), start.shape[1]))
    truth[rows, y] = 1
    at_start = softmax(x @ start[:-1] + start[-1], axis=1)
    curvature = max(1e-4, float(np.mean(at_start * (1 - at_start))))  # of the loss of a row
    lengths = np.append(squares, len(x))[:, np.newaxis]
    width = 1 / np.sqrt(curvature * lengths + np.append(np.full(len(squares), penalty), 0)[:, np.newaxis])

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(start.shape) * width
        log_probabilities = log_softmax(x @ weights[:-1] + weights[-1], axis=1)
        error = np.exp(log_probabilities) - truth
        gradient = np.vstack([x.T @ error + penalty * weights[:-1], error.sum(axis=0)]) * width
        value = penalty / 2 * np.square(weights[:-1]).sum() - log_probabilities[rows, y].sum()
        return value / len(x), gradient.ravel() / len(x)

    options = {"maxiter": MAX_STEPS, "maxfun": 2 * MAX_STEPS, "maxcor": 20}
    options |= {"gtol": STOP / np.sqrt(len(x)), "ftol": 0}
    found = minimize(loss, (start / width).ravel(), jac=True, method="L-BFGS-B", options=options)
    return found.x.reshape(start.shape) * width, int(found.nit), bool(found.success)
