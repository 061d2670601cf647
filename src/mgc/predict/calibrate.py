"""Calibration of a run: a temperature, and a threshold below which a genre is "unknown".

Both are chosen on the validation predictions of all folds together. Temperature scaling (Guo et al. 2017) and
not isotonic regression: one number can be fitted on a few dozen tracks, and it changes neither the order of
the genres nor ties. A normal prior of its logarithm keeps it from 0 if there are no errors. It is used only
if it improves the log loss by more than one standard error over artists (the rule of Breiman et al. 1984):
smaller gains often turn into losses on other artists (`scripts/measure_calibration.py`).

The stated quality is that of test predictions, in which every track occurs once. For the test tracks of a
fold, temperature and threshold are chosen again without the artists of these tracks.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import PositiveFloat
from scipy.optimize import minimize_scalar

from mgc.config import Recipe
from mgc.evaluate import Predictions

UNKNOWN = "unknown"
SMALLEST = 1e-12  # a head may give a probability of exactly 0
PRIOR_DEVIATION = 0.3  # of the logarithm of the temperature
GIVEN_UP = 0.05  # share of correct predictions on the validation sets that the threshold makes "unknown"


class Calibration(Recipe):
    """A temperature, a threshold, and the quality on test tracks that they lead to."""

    temperature: PositiveFloat
    threshold: float | None  # for the highest calibrated probability; None: nothing is unknown
    chosen_on: int  # different validation tracks
    tracks: int  # test tracks
    accuracy: float  # of these, without a threshold
    named: float  # share of the test tracks that reach the threshold
    accuracy_named: float  # of these

    @staticmethod
    def fit(validation: Sequence[Predictions], test: Predictions) -> "Calibration":
        """Fit on the validation predictions of each fold; `test` are those of all test tracks."""
        probabilities, labels, groups = (
            np.concatenate([getattr(fold, name) for fold in validation])
            for name in ("probabilities", "labels", "groups")
        )
        correct = probabilities.argmax(axis=1) == labels
        if UNKNOWN in test.classes:
            correct[:] = False  # no threshold

        def choose(used: np.ndarray) -> tuple[float, float | None]:
            """The temperature and threshold from the tracks `used` (N,)."""
            chosen = temperature(probabilities[used], labels[used], groups[used])
            sure = tempered(probabilities[used & correct], chosen).max(axis=1)
            # "lower" takes one of the values, so that at most this share lies strictly below it.
            return chosen, float(np.quantile(sure, GIVEN_UP, method="lower")) if len(sure) else None

        named = np.ones(len(test), bool)
        for fold in np.unique(test.fold):
            rows = test.fold == fold
            chosen, threshold = choose(~np.isin(groups, np.array(test.groups)[rows]))
            named[rows] = tempered(test.probabilities[rows], chosen).max(axis=1) >= (threshold or 0.0)
        chosen, threshold = choose(np.ones(len(labels), bool))
        right = test.predicted == test.labels
        return Calibration(
            temperature=chosen,
            threshold=threshold,
            chosen_on=len({track_id for fold in validation for track_id in fold.track_ids}),
            tracks=len(test),
            accuracy=float(right.mean()),
            named=float(named.mean()),
            accuracy_named=float(right[named].mean()) if named.any() else 0.0,
        )

    def summary(self) -> str:
        """The threshold and what it costs, in words."""
        if self.threshold is None:
            return (
                f"no threshold, because {UNKNOWN} is one of the genres or none of the {self.chosen_on} "
                "validation tracks was predicted correctly: every file gets its likeliest genre"
            )
        return (
            f"{UNKNOWN}: probability below {self.threshold:.3f}, chosen on {self.chosen_on} validation "
            f"tracks. Of the {self.tracks} test tracks, each predicted by a model not trained on it, "
            f"{self.named:.0%} get a genre, correct for {self.accuracy_named:.0%} of them (without a "
            f"threshold: {self.accuracy:.0%})"
        ).replace("%", " %")


def temperature(
    probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray, cautious: bool = True
) -> float:
    """The temperature with the lowest log loss and prior, for (N, C) probabilities, (N,) labels and groups.

    If `cautious`, it is 1.0 where the gain is not above one standard error over groups.
    """

    def cost(logarithm: float) -> float:
        losses = _losses(tempered(probabilities, float(np.exp(logarithm))), labels)
        return float(losses.sum() + (logarithm / PRIOR_DEVIATION) ** 2 / 2)

    found = float(np.exp(minimize_scalar(cost, bounds=(-3, 3), method="bounded").x))
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
