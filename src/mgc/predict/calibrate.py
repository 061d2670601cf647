"""Calibration of a run: a temperature for each fold, and a threshold below which a genre is "unknown".

Both are chosen on the validation set of each fold, never on a test set. Temperature scaling (Guo et al. 2017)
and not isotonic regression: one number can be fitted on the few dozen tracks of a validation set, and it
changes neither the order of the genres nor ties. On a validation set without errors the temperature would go
to 0, so its logarithm has a standard normal prior. The prior costs nothing at temperature 1, so the fitted
temperature is never worse on the validation set than no calibration.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import Field, PositiveFloat
from scipy.optimize import minimize_scalar

from mgc.config import Recipe
from mgc.evaluate import Predictions
from mgc.predict.output import UNKNOWN

SMALLEST = 1e-12  # a head may give a probability of exactly 0
LOG_BOUNDS = (-3.0, 3.0)  # temperatures from 0.05 to 20
GIVEN_UP = 0.05  # share of correct predictions on the validation sets that the threshold makes "unknown"


class Calibration(Recipe):
    """A temperature for each fold, the threshold, and their effect on all validation sets."""

    temperatures: tuple[PositiveFloat, ...] = Field(strict=False)
    threshold: float | None  # for the highest calibrated probability; None: nothing is unknown
    tracks: int  # of the validation sets of all folds
    log_loss_before: float  # nats, mean over these tracks
    log_loss_after: float
    accuracy: float  # without a threshold
    named: float  # share of the tracks that reach the threshold
    accuracy_named: float  # of these

    @staticmethod
    def fit(validation: Sequence[Predictions]) -> "Calibration":
        """Fit on the validation predictions of each fold, in the order of the folds."""
        temperatures = tuple(temperature(fold.probabilities, fold.labels) for fold in validation)
        calibrated = [
            tempered(fold.probabilities, t) for fold, t in zip(validation, temperatures, strict=True)
        ]
        labels = np.concatenate([fold.labels for fold in validation])
        before = np.concatenate([fold.probabilities for fold in validation])
        after = np.concatenate(calibrated)
        confidence, correct = after.max(axis=1), before.argmax(axis=1) == labels
        threshold = None
        if correct.any() and UNKNOWN not in validation[0].classes:
            # "lower" takes one of the values, so that at most this share lies strictly below it.
            threshold = float(np.quantile(confidence[correct], GIVEN_UP, method="lower"))
        named = confidence >= (threshold or 0.0)
        return Calibration(
            temperatures=temperatures,
            threshold=threshold,
            tracks=len(correct),
            log_loss_before=float(_losses(before, labels).mean()),
            log_loss_after=float(_losses(after, labels).mean()),
            accuracy=float(correct.mean()),
            named=float(named.mean()),
            accuracy_named=float(correct[named].mean()),
        )

    def mean(self, folds: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities (N, C) of each fold, calibrated and averaged: (N, C)."""
        return np.mean([tempered(each, t) for each, t in zip(folds, self.temperatures, strict=True)], axis=0)

    def summary(self) -> str:
        """The threshold and what it costs, in words."""
        if self.threshold is None:
            none = f"none of the {self.tracks} validation tracks was predicted correctly"
            reason = f"{UNKNOWN} is one of the genres" if self.accuracy else none
            return f"no threshold, because {reason}: every file gets its likeliest genre"
        several = len(self.temperatures) > 1
        models = " (predicted by the model of their fold; new files by all models)" if several else ""
        return (
            f"{UNKNOWN}: probability below {self.threshold:.3f}. On {self.tracks} validation tracks{models} "
            f"this makes at most {GIVEN_UP:.0%} of the correct predictions {UNKNOWN}: {self.named:.0%} of "
            f"the tracks get a genre, correct for {self.accuracy_named:.0%} of them (without a threshold: "
            f"{self.accuracy:.0%})"
        ).replace("%", " %")


def temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the lowest log loss and prior, for (N, C) probabilities and (N,) labels.

    Its log loss is never above that of temperature 1.
    """

    def cost(logarithm: float) -> float:
        losses = _losses(tempered(probabilities, float(np.exp(logarithm))), labels)
        return float(losses.sum() + logarithm**2 / 2)

    found = minimize_scalar(cost, bounds=LOG_BOUNDS, method="bounded")
    return float(np.exp(found.x)) if cost(found.x) < cost(0.0) else 1.0


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """(N, C) to (N, C): softmax of the logarithms divided by `temperature`."""
    if temperature == 1.0:
        return probabilities
    logits = np.log(probabilities.clip(SMALLEST)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) log losses in nats."""
    return -np.log(probabilities[np.arange(len(labels)), labels].clip(SMALLEST))
