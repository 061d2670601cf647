"""The bootstrap: whole artists drawn where they recur, else tracks; counts or weights of the tracks drawn."""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from mgc.evaluate.predictions import Floats, Integers, Predictions
from mgc.util.errors import MgcError

Unit = Literal["group", "track"]

CONFIDENCE = 0.95
LEAST_RESAMPLES = 40  # 1 / 0.025: fewer leave no whole resample beyond either end of the interval
WEIGHTS_AT_ONCE = 2_000_000  # 16 MB


def unit_of(predictions: Predictions) -> Unit:
    """What is drawn."""
    return "group" if predictions.has_groups else "track"


def unit_numbers(predictions: Predictions) -> Integers:
    """(N,) the number of the drawing unit each track belongs to: its group, alone there or not."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(predictions.groups))}
    return np.array([numbers[group] for group in predictions.groups], dtype=np.int64)


def resample(counts: Floats, n_bootstrap: int, seed: int) -> Floats:
    """(U, ...) counts a unit to (R, ...) sums over U units drawn with replacement, R times.

    Units with equal counts are interchangeable, so only the number drawn of each distinct row matters, and
    that is multinomial: one matrix product gives all sums, and the order of the units changes nothing.
    """
    n_units = len(counts)
    _refuse_what_gives_no_interval(n_units, n_bootstrap)
    rows, copies = np.unique(counts.reshape(n_units, -1), axis=0, return_counts=True)  # (K, ...), (K,)
    drawn = np.random.default_rng(seed).multinomial(n_units, copies / n_units, size=n_bootstrap)  # (R, K)
    sums: Floats = drawn.astype(np.float64) @ rows
    return sums.reshape(n_bootstrap, *counts.shape[1:])


def drawn_weights(predictions: Predictions, n_bootstrap: int, seed: int) -> Iterator[Floats]:
    """(r, N) how often each track was drawn in each of some resamples, until there were `n_bootstrap`.

    For scores that are no function of a few counts a unit. Equal for equal tracks, groups and seeds.
    """
    unit = unit_numbers(predictions)
    n_units = int(unit.max()) + 1
    _refuse_what_gives_no_interval(n_units, n_bootstrap)
    rng, at_once = np.random.default_rng(seed), max(1, WEIGHTS_AT_ONCE // len(unit))
    for start in range(0, n_bootstrap, at_once):
        shape = (min(at_once, n_bootstrap - start), n_units)
        drawn = rng.integers(0, n_units, shape) + n_units * np.arange(shape[0])[:, None]
        times = np.bincount(drawn.ravel(), minlength=shape[0] * n_units).reshape(shape)
        yield times.astype(np.float64)[:, unit]


def resampled_mean(run: Predictions, values: Floats, n_bootstrap: int, seed: int) -> Floats:
    """(R,) the mean of `values` (N,) over the tracks of `run`, whole units drawn."""
    return mean_of(resample(sums_by_unit(unit_numbers(run), values), n_bootstrap, seed))


def sums_by_unit(unit: Integers, values: Floats) -> Floats:
    """(U, 2): what `values` (N,) add up to in each unit, and how many they are."""
    counts = np.bincount(unit).astype(np.float64)
    return np.stack([np.bincount(unit, weights=values), counts], axis=1)


def mean_of(sums: Floats) -> Floats:
    """(R, 2) sums and counts to (R,) means."""
    return np.asarray(sums[:, 0] / sums[:, 1])


def interval(values: Floats) -> tuple[float, float]:
    """The 95 % percentile interval of (R,) resampled values."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _refuse_what_gives_no_interval(n_units: int, n_bootstrap: int) -> None:
    if n_bootstrap < LEAST_RESAMPLES:
        raise MgcError(f"n_bootstrap is {n_bootstrap}, must be at least {LEAST_RESAMPLES}; 2000 is usual")
    if n_units < 2:
        raise MgcError(
            "all tracks are of one group: no interval can be drawn from it",
            fix="where the artist is unknown let a track's own id be its group; else judge more artists",
        )
