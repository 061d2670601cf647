"""Whether predicted probabilities match observed frequencies."""

from typing import NamedTuple

import numpy as np

from mgc.evaluate.predictions import Predictions

BINS = 15  # as in Guo et al. 2017


class Bin(NamedTuple):
    """The tracks whose top probability is in (low, high]: number, mean probability and accuracy."""

    low: float
    high: float
    tracks: int
    confidence: float
    accuracy: float


def reliability(predictions: Predictions) -> list[Bin]:
    """The non-empty ones of 15 bins of equal width, for a reliability diagram (Guo et al. 2017)."""
    top = predictions.probabilities.max(axis=1)  # (N,)
    correct = (predictions.predicted == predictions.labels).astype(np.float64)
    edges = np.linspace(0, 1, BINS + 1)
    bin_numbers = np.searchsorted(edges[1:-1], top, side="left")  # (N,)
    bins = []
    for number in np.unique(bin_numbers):
        inside = bin_numbers == number
        confidence, accuracy = float(top[inside].mean()), float(correct[inside].mean())
        low, high = float(edges[number]), float(edges[number + 1])
        bins.append(Bin(low, high, int(inside.sum()), confidence, accuracy))
    return bins


def calibration_error(predictions: Predictions) -> float:
    """Mean gap between confidence and accuracy in the bins of `reliability`, weighted by tracks."""
    gaps = [entry.tracks * abs(entry.confidence - entry.accuracy) for entry in reliability(predictions)]
    return float(sum(gaps) / len(predictions))
