"""The bootstrap over groups (artists) where groups recur, otherwise over tracks."""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from mgc.evaluate.predictions import ARTIST_PREFIX, Floats, Integers, Predictions
from mgc.util.errors import MgcError

Unit = Literal["artist", "group", "track"]  # singular: + "s" in text

CONFIDENCE = 0.95
MIN_RESAMPLES = 40  # 1 / 0.025: with fewer, no resample lies beyond either end of the interval
CHUNK_WEIGHTS = 2_000_000  # weights computed at once, 16 MB


def unit_of(predictions: Predictions) -> Unit:
    """What a group is: always an artist, else a group of tracks (an artist, or files of equal content) if any
    holds several tracks, else a track."""
    if all(group.startswith(ARTIST_PREFIX) for group in predictions.groups):
        return "artist"
    return "group" if predictions.has_groups else "track"


def unit_numbers(predictions: Predictions) -> Integers:
    """(N,) the number of each track's resampling unit."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(predictions.groups))}
    return np.array([numbers[group] for group in predictions.groups], dtype=np.int64)


def resample(counts: Floats, n_bootstrap: int, seed: int) -> Floats:
    """(U, ...) counts per unit to (R, ...) sums over U units drawn with replacement, R times.

    Units with equal counts are interchangeable. So only the multinomial number of draws of each distinct row
    matters: one matrix product gives all sums, and the order of the units has no effect.
    """
    n_units = len(counts)
    _check_resampling(n_units, n_bootstrap)
    rows, copies = np.unique(counts.reshape(n_units, -1), axis=0, return_counts=True)  # (K, ...), (K,)
    drawn = np.random.default_rng(seed).multinomial(n_units, copies / n_units, size=n_bootstrap)  # (R, K)
    sums: Floats = drawn.astype(np.float64) @ rows
    return sums.reshape(n_bootstrap, *counts.shape[1:])


def resampled_weights(predictions: Predictions, n_bootstrap: int, seed: int) -> Iterator[Floats]:
    """How often each track is drawn, (r, N) for r resamples at a time, `n_bootstrap` in all.

    For scores that are not a function of a few counts per unit.
    """
    unit = unit_numbers(predictions)
    n_units = int(unit.max()) + 1
    _check_resampling(n_units, n_bootstrap)
    rng, chunk = np.random.default_rng(seed), max(1, CHUNK_WEIGHTS // len(unit))
    for start in range(0, n_bootstrap, chunk):
        shape = (min(chunk, n_bootstrap - start), n_units)
        drawn = rng.integers(0, n_units, shape) + n_units * np.arange(shape[0])[:, None]
        times = np.bincount(drawn.ravel(), minlength=shape[0] * n_units).reshape(shape)
        yield times.astype(np.float64)[:, unit]


def resampled_mean(unit: Integers, values: Floats, n_bootstrap: int, seed: int) -> Floats:
    """(R,) means of `values` (N,) over resampled units; `unit` (N,) are the numbers of `unit_numbers`."""
    counts = np.stack([np.bincount(unit, values), np.bincount(unit)], axis=1).astype(np.float64)  # (U, 2)
    sums = resample(counts[counts[:, 1] > 0], n_bootstrap, seed)  # (R, 2)
    return np.asarray(sums[:, 0] / sums[:, 1])


def interval(values: Floats) -> tuple[float, float]:
    """The 95 % percentile interval of (R,) resampled values."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _check_resampling(n_units: int, n_bootstrap: int) -> None:
    if n_bootstrap < MIN_RESAMPLES:
        raise MgcError(f"n_bootstrap is {n_bootstrap}, must be at least {MIN_RESAMPLES}; 2000 is usual")
    if n_units < 2:
        raise MgcError(
            "all tracks belong to one group, so no interval can be computed",
            fix="evaluate more artists; if artists are unknown, use the id of each track as its group",
        )
