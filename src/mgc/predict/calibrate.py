"""Calibration of a run: a temperature, and a threshold below which a genre is "unknown".

Both are chosen on the validation predictions of all folds together. Temperature scaling (Guo et al. 2017) and
not isotonic regression: one number can be fitted on a few dozen tracks, and it changes neither the order of
the genres nor ties. The logarithm of the temperature has a normal prior, so that a validation set without
errors does not lead to 0. The temperature is used only if it improves the log loss by more than one standard
error over artists (the rule of Breiman et al. 1984): smaller gains often turn into losses on other artists.
`scripts/measure_calibration.py` compares this with its alternatives.

What is said about the quality comes from the test predictions, in which every track occurs once. For the test
tracks of a fold, temperature and threshold are chosen again without the artists of these tracks.
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
PRIOR_DEVIATION = 0.3  # of the logarithm of the temperature
GIVEN_UP = 0.05  # share of correct predictions on the validation sets that the threshold makes "unknown"


class Calibration(Recipe):
    """A temperature for each fold, the threshold, and their effect on test tracks."""

    temperatures: tuple[PositiveFloat, ...] = Field(strict=False)  # equal, but in exports of format 1
    threshold: float | None  # for the highest calibrated probability; None: nothing is unknown
    chosen_on: int = 0  # different validation tracks; 0 in exports of format 1, which have no test values
    tracks: int  # test tracks
    log_loss_before: float  # nats, mean over these tracks
    log_loss_after: float
    accuracy: float  # without a threshold
    named: float  # share of the tracks that reach the threshold
    accuracy_named: float  # of these

    @staticmethod
    def fit(validation: Sequence[Predictions], test: Predictions) -> "Calibration":
        """Fit on the validation predictions of each fold; `test` are those of all test tracks."""
        probabilities = np.concatenate([fold.probabilities for fold in validation])
        labels = np.concatenate([fold.labels for fold in validation])
        groups = np.concatenate([fold.groups for fold in validation])
        unknown = UNKNOWN not in test.classes
        after, named = test.probabilities.copy(), np.ones(len(test), bool)
        for fold in np.unique(test.fold):
            rows = test.fold == fold
            apart = ~np.isin(groups, np.array(test.groups)[rows])
            chosen, limit = _choose(probabilities[apart], labels[apart], groups[apart], unknown)
            after[rows] = tempered(test.probabilities[rows], chosen)
            named[rows] = after[rows].max(axis=1) >= (limit or 0.0)
        chosen, threshold = _choose(probabilities, labels, groups, unknown)
        correct = test.predicted == test.labels
        return Calibration(
            temperatures=(chosen,) * len(validation),
            threshold=threshold,
            chosen_on=len({track_id for fold in validation for track_id in fold.track_ids}),
            tracks=len(test),
            log_loss_before=float(_losses(test.probabilities, test.labels).mean()),
            log_loss_after=float(_losses(after, test.labels).mean()),
            accuracy=float(correct.mean()),
            named=float(named.mean()),
            accuracy_named=float(correct[named].mean()) if named.any() else 0.0,
        )

    def mean(self, folds: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities (N, C) of each fold, calibrated and averaged: (N, C)."""
        return np.mean([tempered(each, t) for each, t in zip(folds, self.temperatures, strict=True)], axis=0)

    def summary(self) -> str:
        """The threshold and what it costs, in words."""
        if not self.chosen_on:
            what = f"{UNKNOWN}: probability below {self.threshold:.3f}" if self.threshold else "no threshold"
            return f"{what}. An older version of mgc made this export: export the run again for its quality"
        if self.threshold is None:
            none = f"none of the {self.chosen_on} validation tracks was predicted correctly"
            reason = f"{UNKNOWN} is one of the genres" if self.accuracy else none
            return f"no threshold, because {reason}: every file gets its likeliest genre"
        several = len(self.temperatures) > 1
        models = ", each predicted by the one model that was not trained on it," if several else ""
        return (
            f"{UNKNOWN}: probability below {self.threshold:.3f}, chosen on {self.chosen_on} validation "
            f"tracks. Of the {self.tracks} test tracks{models} {self.named:.0%} get a genre, correct for "
            f"{self.accuracy_named:.0%} of them (without a threshold: {self.accuracy:.0%})"
        ).replace("%", " %")


def _choose(
    probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray, unknown: bool
) -> tuple[float, float | None]:
    """The temperature and, if `unknown` and a prediction is correct, the threshold, from N tracks."""
    chosen = temperature(probabilities, labels, groups)
    correct = probabilities.argmax(axis=1) == labels
    if not unknown or not correct.any():
        return chosen, None
    confidence = tempered(probabilities, chosen).max(axis=1)
    # "lower" takes one of the values, so that at most this share lies strictly below it.
    return chosen, float(np.quantile(confidence[correct], GIVEN_UP, method="lower"))


def temperature(
    probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray, cautious: bool = True
) -> float:
    """The temperature with the lowest log loss and prior, for (N, C) probabilities, (N,) labels and groups.

    If `cautious`, it is 1.0 where the gain is not above one standard error over groups.
    """

    def cost(logarithm: float) -> float:
        losses = _losses(tempered(probabilities, float(np.exp(logarithm))), labels)
        return float(losses.sum() + (logarithm / PRIOR_DEVIATION) ** 2 / 2)

    found = float(np.exp(minimize_scalar(cost, bounds=LOG_BOUNDS, method="bounded").x))
    gains = _losses(probabilities, labels) - _losses(tempered(probabilities, found), labels)
    of_groups = np.bincount(np.unique(groups, return_inverse=True)[1], gains)
    clear = of_groups.sum() > np.sqrt((of_groups**2).sum())
    return found if clear or not cautious else 1.0


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
