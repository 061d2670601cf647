"""The bootstrap over groups (artists) where groups recur, otherwise over tracks; variance between runs."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mgc.evaluate.predictions import ARTIST_PREFIX, Floats, Integers, Predictions
from mgc.util.errors import MgcError

Unit = Literal["artist", "group", "track"]  # singular: + "s" in text
Variance = tuple[float, int]  # and the degrees of freedom of its estimate

CONFIDENCE = 0.95
ROUNDING = 1e-9  # scores that differ by less are equal
MIN_RESAMPLES = 40  # 1 / 0.025: with fewer, no resample lies beyond either end of the interval
RESAMPLES = 20_000  # the ends of an interval then vary by about 0.02 standard errors between seeds
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


def resample(counts: Floats, n_bootstrap: int, seed: int) -> Iterator[Floats]:
    """(U, ...) counts per unit to sums over U units that are drawn with replacement.

    (r, ...) for r resamples at a time, `n_bootstrap` in all.

    Units with equal counts are interchangeable. So only the multinomial number of draws of each distinct row
    matters: one matrix product gives all sums, and the order of the units has no effect.
    """
    n_units = len(counts)
    _check_resampling(n_units, n_bootstrap)
    rows, copies = np.unique(counts.reshape(n_units, -1), axis=0, return_counts=True)  # (K, ...), (K,)
    rng, chunk = np.random.default_rng(seed), max(1, CHUNK_WEIGHTS // max(rows.shape))
    for start in range(0, n_bootstrap, chunk):
        drawn = rng.multinomial(n_units, copies / n_units, size=min(chunk, n_bootstrap - start))  # (r, K)
        yield (drawn.astype(np.float64) @ rows).reshape(len(drawn), *counts.shape[1:])


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


def interval(values: Floats, n_units: int, noise: Variance = (0.0, 1), seed: int = 0) -> tuple[float, float]:
    """The expanded 95 % percentile interval (Hesterberg 2015) of (R,) resampled values of a score in 0..1.

    Few units make percentile intervals too narrow: the resampled variance is (U - 1) / U of the unbiased one,
    and the normal quantile takes the place of Student's. So the percentiles are taken farther out. `noise` is
    the variance between runs, which is added; the degrees of freedom of the sum are those of Satterthwaite.
    """
    from scipy.special import ndtr, stdtrit

    between_units, (between_runs, freedom) = float(values.var()) * n_units / (n_units - 1), noise
    if between_runs:
        drawn = np.random.default_rng(seed).normal(0, between_runs**0.5, len(values))
        values = (values + drawn).clip(0, 1)
    total = between_units + between_runs
    if total <= ROUNDING**2:
        return float(values.min()), float(values.max())
    together = total**2 / (between_units**2 / (n_units - 1) + between_runs**2 / freedom)
    reach = stdtrit(together, (1 + CONFIDENCE) / 2) * np.sqrt(total / values.var())
    low, high = np.quantile(values, [ndtr(-reach), ndtr(reach)])
    return float(low), float(high)


def standard_error(sums: NDArray[Any], sizes: NDArray[Any]) -> Floats:
    """(...) standard errors of means over tracks, from sums (..., U) and numbers of tracks (U,) of units."""
    n_tracks, n_units = sizes.sum(), len(sizes)
    residual = sums - sums.sum(axis=-1, keepdims=True) / n_tracks * sizes
    return np.asarray(np.sqrt((residual**2).sum(axis=-1) * n_units / (n_units - 1)) / n_tracks)


def between_runs(
    values: Sequence[float], splits: Sequence[str]
) -> tuple[float | None, float | None, Variance]:
    """Variances of a score of one system, from (R,) values of runs and the split of each.

    Between seeds on one split; between splits, without the part of the seeds where there are several; and of
    the mean over splits, with its degrees of freedom. None where no runs show it.
    """
    # In the order of the runs: the order of a set differs between processes, and with it the last digits.
    names = dict.fromkeys(splits)
    by_split = [np.array([v for v, of in zip(values, splits, strict=True) if of == name]) for name in names]
    freedom, n_splits = len(values) - len(by_split), len(by_split)
    seeds = float(sum(((own - own.mean()) ** 2).sum() for own in by_split)) / freedom if freedom else None
    if n_splits == 1:
        return seeds, None, (seeds / len(values), freedom) if seeds is not None else (0.0, 1)
    between = float(np.var([own.mean() for own in by_split], ddof=1))
    of_seeds = (seeds or 0.0) * float(np.mean([1 / len(own) for own in by_split]))
    return seeds, max(0.0, between - of_seeds), (between / n_splits, n_splits - 1)


def _check_resampling(n_units: int, n_bootstrap: int) -> None:
    if n_bootstrap < MIN_RESAMPLES:
        raise MgcError(f"n_bootstrap is {n_bootstrap}, must be at least {MIN_RESAMPLES}; 2000 is usual")
    if n_units < 2:
        raise MgcError(
            "all tracks belong to one group, so no interval can be computed",
            fix="evaluate more artists; if artists are unknown, use the id of each track as its group",
        )
