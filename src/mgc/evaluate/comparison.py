"""Two systems on the same tracks: the difference, its interval and test, and what may be said of it."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from mgc.evaluate.bootstrap import (
    Unit,
    interval,
    mean_of,
    resample,
    resampled_mean,
    sums_by_unit,
    unit_numbers,
    unit_of,
)
from mgc.evaluate.predictions import Floats, Predictions, check_same_split, only_in
from mgc.util.errors import MgcError

Verdict = Literal["better", "worse", "no difference shown"]

SIGNIFICANCE = 0.05
POWER = 0.8
LEAST_DIFFERENCE = 0.01  # a smaller one is not worth the tracks it would take to show it
SIGN_FLIPS = 10_000


@dataclass(frozen=True)
class Difference:
    """Run a against run b on the same tracks.

    accuracy_difference: accuracy of a less that of b, in -1..1; of several seeds, of their means.
    low, high: its 95 % paired percentile bootstrap over `interval_unit`; accounts for artists.
    only_a, only_b: how many tracks a alone, and b alone, got right; of several seeds, how many more often.
    p_value: exact two-sided McNemar test; where either has several seeds, its like for shares of seeds, a
        sign-flip test. Both take the tracks for independent, whoever the artist.
    standard_error: of the accuracy_difference, by the same bootstrap.
    p_corrected: the p-value for the family of comparisons it is one of; None where it stands alone.
    """

    n_tracks: int
    n_groups: int
    interval_unit: Unit
    accuracy_difference: float
    low: float
    high: float
    only_a: float
    only_b: float
    p_value: float
    standard_error: float = 0.0
    p_corrected: float | None = None

    @property
    def verdict(self) -> Verdict:
        """Of a: "better" or "worse" if p < 0.05 (corrected, if it is) and the interval excludes 0."""
        p = self.p_value if self.p_corrected is None else self.p_corrected
        if p < SIGNIFICANCE and self.low > 0:
            return "better"
        if p < SIGNIFICANCE and self.high < 0:
            return "worse"
        return "no difference shown"

    @property
    def tracks_needed(self) -> int | None:
        """About how many tracks would show a difference d, as large as this one but at least 1 point.

        N ((z(0.975) + z(0.8)) standard_error / d)^2, rounded up to two digits, where N are the tracks at
        hand: the usual sample size for a mean, of paired differences here, for a single two-sided test at 5 %
        with a power of 80 % (Lachin 1981). N standard_error^2 stands for the variance of a track. It comes
        from drawing artists and so holds their design effect (Kish 1965): the new tracks are taken to be
        as many to an artist. None where that is no more than there are, and where a difference is shown.
        """
        if self.verdict != "no difference shown":
            return None
        reach = NormalDist().inv_cdf(1 - SIGNIFICANCE / 2) + NormalDist().inv_cdf(POWER)
        needed = self.n_tracks * (reach * self.standard_error / self._sought) ** 2
        if needed <= self.n_tracks:
            return None
        step = 10 ** max(0, math.floor(math.log10(needed)) - 1)
        return step * math.ceil(needed / step)

    @property
    def words(self) -> str:
        """The verdict; where no difference is shown also how far the tracks are from showing one."""
        if self.verdict != "no difference shown":
            return self.verdict
        points = f"{100 * self._sought:.1f}".removesuffix(".0")
        points += " point" if points == "1" else " points"
        if self.only_a == self.only_b == 0:
            why = "right on the same tracks"
        elif self.tracks_needed is not None:
            why = f"needs about {self.tracks_needed:,} tracks to show {points}"
        elif abs(self.accuracy_difference) < LEAST_DIFFERENCE:
            why = f"{points} would probably have shown"
        else:
            why = "test and interval do not both show one"
        return f"{self.verdict} ({why})"

    @property
    def _sought(self) -> float:
        return max(abs(self.accuracy_difference), LEAST_DIFFERENCE)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON, with the verdict and the tracks needed."""
        return {**asdict(self), "verdict": self.verdict, "tracks_needed": self.tracks_needed}


@dataclass(frozen=True)
class Leak:
    """How much more a system seems to know on a split that leaks than on one that does not.

    accuracy_difference: accuracy on the leaky split less that on the honest one, in -1..1.
    low, high: its 95 % percentile bootstrap over artists (or tracks).
    n_paired: tracks judged in both runs, over which the difference is paired; 0 where each run was judged on
    its own tracks, and drawn for itself.
    """

    accuracy_difference: float
    low: float
    high: float
    n_paired: int


def paired(
    a: Sequence[Predictions], b: Sequence[Predictions], *, n_bootstrap: int = 2000, seed: int = 0
) -> Difference:
    """Compare two systems over the same split, track by track; each is one run, or one run a seed.

    The exact McNemar test (McNemar 1947; advised for one test set by Dietterich 1998) takes the tracks for
    independent; the interval, where artists recur, draws whole artists (Field & Welsh 2007). The verdict asks
    for both, since either alone can be too sure. Of single runs it is about these two trained models: another
    seed may differ.

    Raises MgcError, naming the first few, where classes, tracks, labels, groups or folds differ; for fewer
    than 40 resamples; and where there are fewer than two groups to draw from.
    """
    for other in [*a[1:], *b]:
        check_same_split(a[0], other)
    gain = _right(a) - _right(b)  # (N,) shares of seeds
    drawn = resampled_mean(a[0], gain, n_bootstrap, seed)  # (R,)
    low, high = interval(drawn)
    only_a, only_b = float(gain.clip(min=0).sum()), float((-gain).clip(min=0).sum())
    single = len(a) == len(b) == 1
    return Difference(
        n_tracks=len(gain),
        n_groups=len(set(a[0].groups)),
        interval_unit=unit_of(a[0]),
        accuracy_difference=float(gain.mean()),
        low=low,
        high=high,
        only_a=only_a,
        only_b=only_b,
        p_value=mcnemar_p(round(only_a), round(only_b)) if single else sign_flip_p(gain, seed),
        standard_error=float(drawn.std(ddof=1)),
    )


def leak(
    leaky: Sequence[Predictions], honest: Sequence[Predictions], *, n_bootstrap: int = 2000, seed: int = 0
) -> Leak:
    """Compare a system on a leaky split with itself on an honest one; each is one run, or one run a seed.

    Paired over the tracks of the smaller split where the other one judged all of them; else the difference of
    two independent samples.

    Raises MgcError where the classes differ, or there are fewer than two groups to draw from.
    """
    one, other = leaky[0], honest[0]
    if one.classes != other.classes:
        raise MgcError(f"the two runs differ in their classes; {only_in(one.classes, other.classes)}")
    both = set(one.track_ids) & set(other.track_ids)
    a, b = _right(leaky), _right(honest)
    if len(both) == min(len(one), len(other)):
        # Both are sorted by id, and so stay in step.
        a, kept = a[[i in both for i in one.track_ids]], np.array([i in both for i in other.track_ids])
        gain, unit = a - b[kept], unit_numbers(other)[kept]
        counts = sums_by_unit(unit, gain)
        low, high = interval(mean_of(resample(counts[counts[:, 1] > 0], n_bootstrap, seed)))
        return Leak(float(gain.mean()), low, high, len(gain))
    drawn = [
        resampled_mean(run, right, n_bootstrap, number)
        for number, (run, right) in enumerate(((one, a), (other, b)), start=seed)
    ]
    low, high = interval(drawn[0] - drawn[1])
    return Leak(float(a.mean() - b.mean()), low, high, 0)


def _right(runs: Sequence[Predictions]) -> Floats:
    """(N,) in how many of the runs each track was predicted right, as a share."""
    return np.mean([run.predicted == run.labels for run in runs], axis=0, dtype=np.float64)


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Exact two-sided McNemar test: are the tracks that one run alone got right split evenly between the two?

    1.0 where the runs never differ. Assumes independent tracks. (McNemar 1947, with the binomial in place of
    the chi-squared approximation.)
    """
    differing = only_a + only_b
    ways = total = 1  # of choosing k of the differing tracks; and up to k
    for k in range(1, min(only_a, only_b) + 1):
        ways = ways * (differing - k + 1) // k
        total += ways
    return min(1.0, 2 * total / 2**differing)  # whole numbers: exact


def sign_flip_p(gain: Floats, seed: int = 0) -> float:
    """Two-sided sign-flip test of the mean of `gain` (N,): how often chance alone would give as much.

    What McNemar's test is for single runs, for shares of seeds: under no difference a track's gain is as
    likely the other way round. By 10,000 draws; never 0 (Phipson & Smyth 2010).
    """
    sizes, counts = np.unique(np.abs(gain[gain != 0]), return_counts=True)  # (K,) each: shares are few
    if not len(sizes):
        return 1.0
    kept = np.random.default_rng(seed).binomial(counts, 0.5, (SIGN_FLIPS, len(sizes)))
    reached = np.abs((2 * kept - counts) @ sizes) >= abs(gain.sum()) - 1e-9
    return float((1 + reached.sum()) / (1 + SIGN_FLIPS))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of one family to those that hold for all of it together, in the same order (Holm 1979).

    The smallest of m is multiplied by m, the next by m - 1 and so on; none falls below one before it, nor
    rises above 1. Whatever depends on whatever: the chance of any false one stays below the level.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = stepped.clip(max=1)
    return [float(p) for p in adjusted]
