"""Whether probabilities mean what they say: of tracks predicted with 0.8, are eight in ten right?"""

from typing import NamedTuple

import numpy as np

from mgc.evaluate.predictions import Predictions

BINS = 15  # as Guo et al. 2017 have it


class Bin(NamedTuple):
    """The tracks with a top probability in (low, high]: how many, its mean, and the share predicted right."""

    low: float
    high: float
    tracks: int
    confidence: float
    accuracy: float


def reliability(predictions: Predictions) -> list[Bin]:
    """The bins that hold tracks, of 15 of equal width, for a reliability diagram (Guo et al. 2017)."""
    top = predictions.probabilities.max(axis=1)
    right = (predictions.predicted == predictions.labels).astype(np.float64)
    edges = np.linspace(0, 1, BINS + 1)
    place = np.searchsorted(edges[1:-1], top, side="left")  # (N,)
    found = []
    for number in np.unique(place):
        low, high = edges[number : number + 2]
        held = place == number
        confidence, accuracy = float(top[held].mean()), float(right[held].mean())
        found.append(Bin(float(low), float(high), int(held.sum()), confidence, accuracy))
    return found


def calibration_error(predictions: Predictions) -> float:
    """The mean gap of a bin of `reliability`, weighted by its tracks: 0 where probabilities are honest."""
    gaps = [entry.tracks * abs(entry.confidence - entry.accuracy) for entry in reliability(predictions)]
    return float(sum(gaps) / len(predictions))
