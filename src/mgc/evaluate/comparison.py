"""Two systems on the same tracks: the difference, its interval, its test and the verdict."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from mgc.evaluate.bootstrap import Unit, interval, resampled_mean, unit_numbers, unit_of
from mgc.evaluate.predictions import Floats, Predictions, check_same_split, only_in
from mgc.util.errors import MgcError

Verdict = Literal["better", "worse", "no difference shown"]

SIGNIFICANCE = 0.05
POWER = 0.8
MIN_DIFFERENCE = 0.01  # accuracy; smaller differences are not worth the tracks needed to show them
SIGN_FLIPS = 10_000


@dataclass(frozen=True)
class Difference:
    """System a compared with system b on the same tracks.

    Parameters
    ----------
    accuracy_difference
        Accuracy of a minus that of b, in -1..1; with several seeds, of their means.
    low, high
        Its 95 % paired percentile bootstrap interval over `interval_unit`, which accounts for artists.
    only_a, only_b
        Number of tracks that only a, or only b, classified correctly; with several seeds, sums of the
        differences between their shares of correct seeds.
    p_value
        Exact two-sided McNemar test, or a sign-flip test if either system has several seeds. Both assume
        that tracks are independent, whatever the artist.
    standard_error
        Of `accuracy_difference`, from the same bootstrap.
    p_corrected
        The p-value corrected for the family of comparisons; None for a single comparison.
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
        """Whether a is better or worse: p < 0.05 (corrected, if given) and the interval excludes 0."""
        p = self.p_value if self.p_corrected is None else self.p_corrected
        if p < SIGNIFICANCE and self.low > 0:
            return "better"
        if p < SIGNIFICANCE and self.high < 0:
            return "worse"
        return "no difference shown"

    @property
    def tracks_needed(self) -> int | None:
        """The approximate number of tracks that would show a difference of this size, of at least 1 point.

        N ((z(0.975) + z(0.8)) standard_error / difference)^2 with N tracks at hand, rounded up to two digits:
        the usual sample size for a mean of paired differences, for one two-sided test at 5 % with a power of
        80 % (Lachin 1981). N standard_error^2 replaces the variance of a track. Since it comes from
        resampling artists, it includes their design effect (Kish 1965) and assumes as many tracks per artist.
        None if a difference is shown, and if the tracks at hand are already enough.
        """
        if self.verdict != "no difference shown":
            return None
        reach = NormalDist().inv_cdf(1 - SIGNIFICANCE / 2) + NormalDist().inv_cdf(POWER)
        needed = self.n_tracks * (reach * self.standard_error / self._difference_to_show) ** 2
        if needed <= self.n_tracks:
            return None
        step = 10 ** max(0, math.floor(math.log10(needed)) - 1)
        return step * math.ceil(needed / step)

    @property
    def words(self) -> str:
        """The verdict and, if no difference is shown, the reason."""
        if self.verdict != "no difference shown":
            return self.verdict
        points = f"{100 * self._difference_to_show:.1f}".removesuffix(".0")
        points += " point" if points == "1" else " points"
        if self.only_a == self.only_b == 0:
            reason = "right on the same tracks"
        elif self.tracks_needed is not None:
            reason = f"needs about {self.tracks_needed:,} tracks to show {points}"
        elif abs(self.accuracy_difference) < MIN_DIFFERENCE:
            reason = f"{points} would probably have shown"
        else:
            reason = "test and interval do not both show one"
        return f"{self.verdict} ({reason})"

    @property
    def _difference_to_show(self) -> float:
        return max(abs(self.accuracy_difference), MIN_DIFFERENCE)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings for JSON, with the verdict and the tracks needed."""
        return {**asdict(self), "verdict": self.verdict, "tracks_needed": self.tracks_needed}


@dataclass(frozen=True)
class Leak:
    """How much higher the accuracy of a system is on a split that leaks than on one that does not.

    accuracy_difference: accuracy on the leaky split minus that on the honest one, in -1..1.
    low, high: its 95 % percentile bootstrap interval over artists (or tracks).
    n_paired: number of tracks evaluated in both runs, over which the difference is paired; 0 if the runs were
    evaluated on different tracks, which are then resampled independently.
    """

    accuracy_difference: float
    low: float
    high: float
    n_paired: int


def paired(
    a: Sequence[Predictions], b: Sequence[Predictions], *, n_bootstrap: int = 2000, seed: int = 0
) -> Difference:
    """Compare two systems on the same split, track by track; each is a list of runs, one per seed.

    The exact McNemar test (McNemar 1947; recommended for one test set by Dietterich 1998) assumes independent
    tracks; the interval resamples whole artists where artists recur (Field & Welsh 2007). The verdict needs
    both, since either alone can be overconfident. With single runs it applies to these two trained models
    only: another seed may give another verdict.

    Raises:
        MgcError: classes, tracks, labels, groups or folds differ; fewer than 40 resamples or two groups.
    """
    for other in [*a[1:], *b]:
        check_same_split(a[0], other)
    gain = _correct(a) - _correct(b)  # (N,) differences in the share of correct seeds
    resampled = resampled_mean(unit_numbers(a[0]), gain, n_bootstrap, seed)  # (R,)
    low, high = interval(resampled, len(set(a[0].groups)))
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
        standard_error=float(resampled.std(ddof=1)),
    )


def leak(
    leaky: Sequence[Predictions], honest: Sequence[Predictions], *, n_bootstrap: int = 2000, seed: int = 0
) -> Leak:
    """Compare a system on a leaky split with itself on an honest one; each is a list of runs, one per seed.

    Paired over the tracks of the smaller split if the other run evaluated all of them; otherwise the
    difference of two independent samples.

    Raises:
        MgcError: the classes differ, or there are fewer than two groups.
    """
    one, other = leaky[0], honest[0]
    if one.classes != other.classes:
        raise MgcError(f"the two runs differ in their classes; {only_in(one.classes, other.classes)}")
    both = set(one.track_ids) & set(other.track_ids)
    a, b = _correct(leaky), _correct(honest)
    if len(both) == min(len(one), len(other)):
        # Both are sorted by track id, so equal tracks stay aligned.
        in_a, in_b = ([track_id in both for track_id in run.track_ids] for run in (one, other))
        gain = a[in_a] - b[in_b]
        unit = unit_numbers(other)[in_b]
        low, high = interval(resampled_mean(unit, gain, n_bootstrap, seed), len(set(unit)))
        return Leak(float(gain.mean()), low, high, len(gain))
    resampled_a = resampled_mean(unit_numbers(one), a, n_bootstrap, seed)
    resampled_b = resampled_mean(unit_numbers(other), b, n_bootstrap, seed + 1)
    low, high = interval(resampled_a - resampled_b, len(set(one.groups)))
    return Leak(float(a.mean() - b.mean()), low, high, 0)


def _correct(runs: Sequence[Predictions]) -> Floats:
    """(N,) the share of the runs that classified each track correctly."""
    return np.mean([run.predicted == run.labels for run in runs], axis=0, dtype=np.float64)


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Exact two-sided McNemar test of the numbers of tracks that only one of two runs classified correctly.

    1.0 if the runs never differ. Assumes independent tracks (McNemar 1947, with the binomial distribution
    instead of its chi-squared approximation).
    """
    differing = only_a + only_b
    ways = total = 1  # of choosing k of the differing tracks; and up to k
    for k in range(1, min(only_a, only_b) + 1):
        ways = ways * (differing - k + 1) // k
        total += ways
    return min(1.0, 2 * total / 2**differing)  # whole numbers: exact


def sign_flip_p(gain: Floats, seed: int = 0) -> float:
    """Two-sided sign-flip test of the mean of `gain` (N,).

    It replaces McNemar's test for several seeds: without a difference, the sign of each gain is random. From
    10,000 draws; never 0 (Phipson & Smyth 2010).
    """
    sizes, counts = np.unique(np.abs(gain[gain != 0]), return_counts=True)  # (K,) each: few distinct shares
    if not len(sizes):
        return 1.0
    kept = np.random.default_rng(seed).binomial(counts, 0.5, (SIGN_FLIPS, len(sizes)))
    reached = np.abs((2 * kept - counts) @ sizes) >= abs(gain.sum()) - 1e-9
    return float((1 + reached.sum()) / (1 + SIGN_FLIPS))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of the p-values of one family of tests, in the same order (Holm 1979).

    The smallest of m is multiplied by m, the next by m - 1 and so on; values are made monotone and at most 1.
    The chance of any false positive stays below the level, however the tests depend on one another.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    corrected = np.empty_like(values)
    corrected[order] = stepped.clip(max=1)
    return [float(p) for p in corrected]
