"""How sure a run is: a temperature a fold, and a threshold under which a genre is called unknown.

Both are chosen on the validation side of each fold, which its model has not learned from, and never on a
test side. Temperatures (Guo et al. 2017) and not isotonic curves: one number a fold can be told from the few
dozen tracks of a validation side, and it changes neither the order of the genres nor a tie. A validation side
that is predicted without an error would make it infinitely sure; so the logarithm of the temperature has a
normal prior of deviation 1. Its price is 0 at temperature 1: what is found is never worse there than nothing.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import Field, PositiveFloat
from scipy.optimize import minimize_scalar

from mgc.config import Recipe
from mgc.evaluate import Predictions
from mgc.predict.answers import UNKNOWN

SMALLEST = 1e-12  # a head may give exactly 0
LOG_BOUNDS = (-3.0, 3.0)  # temperatures from 0.05 to 20
GIVEN_UP = 0.05  # share of the right answers on validation that the threshold calls unknown


class Calibration(Recipe):
    """Temperatures, a fold each, and the threshold with what it costs on the validation sides."""

    temperatures: tuple[PositiveFloat, ...] = Field(strict=False)
    threshold: float | None = None  # of the highest calibrated probability; None: nothing is unknown
    tracks: int = 0  # on the validation sides of all folds; without any the rest says nothing
    log_loss_before: float = 0.0  # nats, the mean over them
    log_loss_after: float = 0.0
    accuracy: float = 0.0  # if every one is named
    named: float = 0.0  # share of them that reaches the threshold
    accuracy_named: float = 0.0  # among these

    @staticmethod
    def of(sides: Sequence[Predictions]) -> "Calibration":
        """Chosen on the validation sides of the folds, in their order."""
        temperatures = tuple(temperature(side.probabilities, side.labels) for side in sides)
        pairs = list(zip(sides, temperatures, strict=True))
        before = np.concatenate([_losses(side.probabilities, side.labels, 1.0) for side in sides])
        after = np.concatenate([_losses(side.probabilities, side.labels, t) for side, t in pairs])
        sure = np.concatenate([tempered(side.probabilities, t).max(axis=1) for side, t in pairs])
        right = np.concatenate([side.predicted == side.labels for side in sides])
        # "lower": one of the confidences, so that no more than this share lies strictly below it.
        tells = right.any() and UNKNOWN not in sides[0].classes  # a genre of that name would be taken for it
        threshold = float(np.quantile(sure[right], GIVEN_UP, method="lower")) if tells else None
        named = sure >= (threshold or 0.0)
        return Calibration(
            temperatures=temperatures,
            threshold=threshold,
            tracks=len(right),
            log_loss_before=float(before.mean()),
            log_loss_after=float(after.mean()),
            accuracy=float(right.mean()),
            named=float(named.mean()),
            accuracy_named=float(right[named].mean()),
        )

    def mean(self, folds: Sequence[np.ndarray]) -> np.ndarray:
        """(N, C) of each fold to (N, C): calibrated, then averaged."""
        parts = [tempered(each, t) for each, t in zip(folds, self.temperatures, strict=True)]
        return np.mean(parts, axis=0)

    def told(self) -> str:
        """What the numbers are worth, in words."""
        if not self.tracks:
            return (
                "probabilities are not calibrated and nothing is called unknown: the run did not keep what "
                "it says of its validation tracks (an older mgc); run it again"
            )
        if self.threshold is None and self.accuracy:
            return f"a genre is itself called {UNKNOWN}: every file gets the name of its likeliest genre"
        if self.threshold is None:
            return (
                f"none of the {self.tracks} validation tracks was predicted right: nothing is called unknown"
            )
        single = (
            "; there each by its own fold's model, new files by all" if len(self.temperatures) > 1 else ""
        )
        return (
            f"unknown: below {self.threshold:.3f}, chosen on {self.tracks} validation tracks so that at most "
            f"{100 * GIVEN_UP:.0f} % of the right answers are given up; there {100 * self.named:.0f} % of "
            f"the tracks get a name, and {100 * self.accuracy_named:.0f} % of these the right one "
            f"(of all tracks: {100 * self.accuracy:.0f} %){single}"
        )


def temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature for (N, C) probabilities and (N,) class numbers: smallest log loss, under the prior.

    Its log loss is never above that of temperature 1.
    """

    def cost(logarithm: float) -> float:
        losses = _losses(probabilities, labels, float(np.exp(logarithm)))
        return float(losses.sum() + logarithm**2 / 2)

    found = minimize_scalar(cost, bounds=LOG_BOUNDS, method="bounded")
    return float(np.exp(found.x)) if cost(found.x) < cost(0.0) else 1.0


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """(N, C) to (N, C): softmax of the logarithms over `temperature`."""
    if temperature == 1.0:
        return probabilities
    logits = np.log(probabilities.clip(SMALLEST)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _losses(probabilities: np.ndarray, labels: np.ndarray, temperature: float) -> np.ndarray:
    """(N,) nats."""
    of_truth = tempered(probabilities, temperature)[np.arange(len(labels)), labels]
    return -np.log(of_truth.clip(SMALLEST))
