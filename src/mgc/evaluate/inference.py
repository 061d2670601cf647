"""Which differences between systems are real: one test over artists for any number of comparisons at once.

The unit is the group: the artist, or the track where artists are unknown. Without a difference, all gains of
a group could as well have had the opposite sign, so the reference distribution flips the signs of whole
groups. All comparisons of a family share the flips. The largest statistic of each flip gives p-values and
intervals that hold for the family (Westfall & Young 1993, step-down max-T), and similar systems cost little.
Training seeds and splits add variance, which repeated runs estimate (Bouthillier et al. 2021).

Test and interval use one statistic: an interval excludes 0 exactly where the test rejects.
`docs/statistics.md` describes the method, and `scripts/simulate_verdicts.py` measures its error rates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from mgc.evaluate.bootstrap import standard_error, unit_numbers
from mgc.evaluate.predictions import Floats, Integers, Predictions, check_same_split, check_same_tracks
from mgc.util.errors import MgcError

Verdict = Literal["better", "worse", "equivalent", "undecided", "one seed"]

SIGNIFICANCE = 0.05
POWER = 0.8
MARGIN = 0.03  # of accuracy: the default for "equivalent"
MIN_SEEDS = 3  # for a verdict on random training: fewer do not show how much the seed matters
DRAWS = 20_000  # the ends of an interval then vary by about 0.02 standard errors between seeds
DRAWS_AT_ONCE = 2_000
ENUMERATED_GROUPS = 14  # up to here all 2^G flips are enumerated, at most 16,384


@dataclass(frozen=True)
class Outcomes:
    """Which tracks the runs of one system classified correctly.

    Parameters
    ----------
    correct
        (R, N) 1.0 where a run is right about a track, else 0.0. N is the same for all systems of a family.
    splits
        R names, the split of each run.
    random
        Whether training depends on a seed.
    """

    correct: Floats
    splits: tuple[str, ...]
    random: bool

    @classmethod
    def of(
        cls, runs: Sequence[Predictions], splits: Sequence[str] = (), *, random: bool = False
    ) -> "Outcomes":
        """The outcomes of `runs`, which are all on one split unless `splits` names that of each.

        Raises:
            MgcError: the runs differ in their tracks, labels or groups, or runs on one split in their folds.
        """
        splits = tuple(splits) or ("",) * len(runs)
        first: dict[str, Predictions] = {}
        for run, split in zip(runs, splits, strict=True):
            check_same_tracks(runs[0], run)
            check_same_split(first.setdefault(split, run), run)
        return cls(np.array([run.predicted == run.labels for run in runs], np.float64), splits, random)

    @property
    def mean(self) -> Floats:
        """(N,) the share of runs that are right about each track; every split has the same weight."""
        return np.mean([self.on(split).mean(axis=0) for split in sorted(set(self.splits))], axis=0)

    def on(self, split: str) -> Floats:
        """(K, N) the runs on one split."""
        return self.correct[[own == split for own in self.splits]]

    @property
    def needs_seeds(self) -> bool:
        """Whether training is random and there are too few runs for a verdict."""
        return self.random and len(self.splits) < MIN_SEEDS


@dataclass(frozen=True)
class Comparison:
    """The difference between two systems, as part of a family of comparisons.

    Parameters
    ----------
    difference
        Accuracy of one minus that of the other, in -1..1; means over seeds and splits.
    low, high
        Its simultaneous 95 % interval: all differences of the family lie in their intervals with 95 %.
    low90, high90
        The simultaneous 90 % interval, for the two one-sided tests of equivalence (Schuirmann 1987).
    p_value
        Corrected for the family.
    group_error, repeat_error
        Standard errors of `difference` from the sample of groups, and from training seeds and splits.
    critical
        How many standard errors a difference without an effect stays below with 95 %, in the whole family.
    concentration
        The sum of squares of the groups' shares of the tracks; 1 / G for groups of one size.
    needs_seeds
        Whether one of the systems has random training and fewer than three runs.
    """

    difference: float
    low: float
    high: float
    low90: float
    high90: float
    p_value: float
    group_error: float
    repeat_error: float
    critical: float
    concentration: float
    n_tracks: int
    n_groups: int
    family_size: int
    needs_seeds: bool

    def verdict(self, margin: float = MARGIN) -> Verdict:
        """ "better" or "worse" if p < 0.05; "equivalent" if the 90 % interval lies within the margin."""
        if self.needs_seeds:
            return "one seed"
        if self.p_value < SIGNIFICANCE:
            return "better" if self.difference > 0 else "worse"
        return "equivalent" if -margin < self.low90 and self.high90 < margin else "undecided"

    @property
    def detectable(self) -> float:
        """The smallest true difference that these tracks, seeds and splits show with a power of 80 %."""
        return self._detectable(self.n_groups)

    def groups_needed(self, difference: float = MARGIN) -> int | None:
        """About how many groups of this kind show a true `difference` with a power of 80 %, to two digits.

        None if no number of groups would, because seeds and splits vary too much.
        """
        numbers = [*range(2, 10), *(digits * 10**zeros for zeros in range(6) for digits in range(10, 100))]
        return next((number for number in numbers if self._detectable(number) <= difference), None)

    def _detectable(self, n_groups: int) -> float:
        """The smallest d with d - z(0.8) se = critical sqrt(se^2 + concentration d^2).

        The right side is what the observed difference must exceed: the squares of the gains, which scale the
        statistic, include those of the difference itself.
        """
        fewer, power = self.n_groups / n_groups, NormalDist().inv_cdf(POWER)
        error = np.sqrt(fewer * self.group_error**2 + self.repeat_error**2)
        lead = 1 - fewer * self.concentration * self.critical**2
        if not lead > 0:
            return 1.0
        return min(1.0, error * (power + np.sqrt(power**2 + lead * (self.critical**2 - power**2))) / lead)


@dataclass(frozen=True)
class Repeats:
    """How much accuracy varies between runs that differ in seed or split, pooled over systems.

    Each entry is a variance of a single run and its degrees of freedom; (0, 0) if no runs show it.

    seed: between seeds on one split, for systems whose training is random. A system that varies more by
    itself keeps its own variance.
    interaction: between splits, beyond what all systems have in common; without several seeds on a split, it
    includes `seed`.
    split: between splits, in common for all systems.
    """

    seed: tuple[float, int]
    interaction: tuple[float, int]
    split: tuple[float, int]

    def of_mean(self, system: Outcomes, groups: Integers | None = None) -> tuple[float, float]:
        """The variances of the system's mean accuracy that come from its seeds and from its splits."""
        names, (within, freedom) = sorted(set(system.splits)), _within(system, groups)
        share = sum(1 / system.splits.count(name) for name in names) / len(names) ** 2
        seeds = max(self.seed[0], within / freedom if freedom else 0.0)
        return seeds * share * system.random, self.interaction[0] / len(names)


def repeats(systems: Sequence[Outcomes], groups: Integers | None = None) -> Repeats:
    """Estimate the variance between seeds and between splits.

    Seeds: the pooled variance within a system and split. Splits: mean accuracies by system and split are
    fitted by system plus split (least squares, for systems on several splits); the residual is the
    interaction, from which the part of the seeds is subtracted. If too few systems share splits to tell both
    apart, all variance between splits counts as interaction, which is never too small.

    The group error of a comparison already includes what varies between runs in each group by itself. With
    `groups`, only the remainder is counted: the covariance between groups, which runs have in common.
    """
    within, freedom = np.sum([_within(system, groups) for system in systems], axis=0)
    cells: list[tuple[int, str, Floats, float]] = []  # system, split, mean shares, part of the seed variance
    for index, system in enumerate(systems):
        names = sorted(set(system.splits))
        for name in names if len(names) > 1 else []:
            shares = _shares(system.on(name), groups)  # (K, G)
            cells.append((index, name, shares.mean(axis=0), system.random / len(shares)))
    seed = (max(0.0, float(within / freedom)), int(freedom)) if freedom else (0.0, 0)
    if not cells:
        return Repeats(seed, (0.0, 0), (0.0, 0))
    number, split, observed, parts = (np.array(column) for column in zip(*cells, strict=True))
    by_system = (number[:, None] == np.unique(number)).astype(np.float64)  # (M, S)
    design = np.hstack([by_system, split[:, None] == np.unique(split)])
    fit, _, rank, _ = np.linalg.lstsq(design, observed, rcond=None)
    fitted = design @ fit  # (M, G)
    effects = fitted - by_system @ (by_system.T @ fitted / by_system.sum(axis=0)[:, None])
    shared = max(0.0, _variation(effects, groups) / (len(cells) - by_system.shape[1]))
    shared_freedom, left = int(rank) - by_system.shape[1], len(cells) - int(rank)
    residual = _variation(observed - fitted, groups) / left if left else shared
    beyond_seeds = max(0.0, residual - seed[0] * float(parts.mean()))
    if not left:
        return Repeats(seed, (beyond_seeds, shared_freedom), (0.0, 0))
    return Repeats(seed, (beyond_seeds, left), (shared, shared_freedom))


def _within(system: Outcomes, groups: Integers | None) -> tuple[float, int]:
    """Sum of squares between seeds on one split, and its degrees of freedom; 0 if training is not random."""
    if not system.random:
        return 0.0, 0
    names = sorted(set(system.splits))
    shares = [_shares(system.on(name), groups) for name in names]
    residuals = np.concatenate([own - own.mean(axis=0) for own in shares])
    return _variation(residuals, groups), len(residuals) - len(names)


def _shares(correct: Floats, groups: Integers | None) -> Floats:
    """(K, N) outcomes to (K, G) parts of the accuracy by group; one part without groups."""
    if groups is None:
        return correct.mean(axis=1, keepdims=True)
    return np.stack([np.bincount(groups, row) for row in correct]) / correct.shape[1]


def _variation(residuals: Floats, groups: Integers | None) -> float:
    """(M, G) residuals by group to the sum of squares of their totals, without the groups' own squares."""
    own = 0.0 if groups is None else float((residuals**2).sum())
    return float((residuals.sum(axis=1) ** 2).sum()) - own


def compare(
    systems: Sequence[Outcomes], contrasts: Sequence[dict[int, int]], groups: Integers, *, seed: int = 0
) -> list[Comparison]:
    """Test contrasts of systems as one family.

    Parameters
    ----------
    systems
        Systems on the same N tracks.
    contrasts
        Coefficients by index into `systems`, which sum to 0: {a: 1, b: -1} compares a with b, and
        {a: 1, b: -1, c: -1, d: 1} the differences a - b and c - d. To compare the best of several systems,
        pass every pair that could be the best: the result for the best then accounts for the selection.
    groups
        (N,) number of the group of each track, 0..G-1.

    Raises
    ------
    MgcError
        There are fewer than two groups.
    """
    n_groups = int(groups.max()) + 1
    if n_groups < 2:
        raise MgcError(
            "all test tracks belong to one group, so differences cannot be tested",
            fix="evaluate more artists; if artists are unknown, use the id of each track as its group",
        )
    if not contrasts:
        return []
    sizes = np.bincount(groups, minlength=n_groups).astype(np.float64)  # (G,)
    n_tracks = sizes.sum()
    weights = np.zeros((len(contrasts), len(systems)))  # (P, S)
    for row, contrast in zip(weights, contrasts, strict=True):
        row[list(contrast)] = list(contrast.values())
    hits = np.stack([np.bincount(groups, system.mean, n_groups) for system in systems])  # (S, G)
    gains = weights @ hits  # (P, G)
    sources = _sources(systems, weights, groups)
    noise = np.sum([(loadings**2).sum(axis=1) for loadings, _ in sources], axis=0)  # (P,) variances
    differences = gains.sum(axis=1) / n_tracks
    scale = np.sqrt((gains**2).sum(axis=1) / n_tracks**2 + noise)
    scale[scale == 0] = np.inf  # systems that are right about the same tracks: p = 1
    exact = n_groups <= ENUMERATED_GROUPS and not noise.any()
    drawn = np.abs(_all_flips(gains / n_tracks) if exact else _drawn(gains / n_tracks, sources, seed)) / scale
    p_values = _step_down(np.abs(differences) / scale, drawn, exact)
    largest = np.sort(drawn.max(axis=1))[::-1]
    critical, critical90 = (_critical(largest, level, exact) for level in (SIGNIFICANCE, 2 * SIGNIFICANCE))
    low, high = _interval(gains, sizes, noise, critical)
    low90, high90 = _interval(gains, sizes, noise, critical90)
    # A later step rejects with a smaller critical value: its interval then ends at 0.
    rejected = p_values < SIGNIFICANCE
    low = np.where(rejected & (differences > 0), low.clip(min=0), low)
    high = np.where(rejected & (differences < 0), high.clip(max=0), high)
    columns = {
        "difference": differences, "low": low, "high": high, "low90": low90, "high90": high90,
        "p_value": p_values, "group_error": standard_error(gains, sizes), "repeat_error": np.sqrt(noise),
    }  # fmt: skip
    return [
        Comparison(
            **{name: float(values[number]) for name, values in columns.items()},
            critical=critical,
            concentration=float((sizes**2).sum() / n_tracks**2),
            n_tracks=int(n_tracks),
            n_groups=n_groups,
            family_size=len(contrasts),
            needs_seeds=any(systems[index].needs_seeds for index in contrast),
        )
        for number, contrast in enumerate(contrasts)
    ]


def compare_runs(a: Sequence[Predictions], b: Sequence[Predictions], *, random: bool = False) -> Comparison:
    """Compare two systems on one split; each is a list of runs, one per seed."""
    for run in b:
        check_same_split(a[0], run)
    systems = [Outcomes.of(runs, random=random) for runs in (a, b)]
    return compare(systems, [{0: 1, 1: -1}], unit_numbers(a[0]))[0]


def _sources(systems: Sequence[Outcomes], weights: Floats, groups: Integers) -> list[tuple[Floats, int]]:
    """Noise from seeds and splits in each contrast: loadings (P, K) of K normal variables, and the degrees of
    freedom of their estimated variance."""
    found = repeats(systems, groups)
    of_mean = np.array([found.of_mean(system, groups) for system in systems])  # (S, 2)
    names = sorted({name for system in systems for name in system.splits})
    share = np.array([[(name in s.splits) / len(set(s.splits)) for name in names] for s in systems])  # (S, L)
    sources = [
        (weights * np.sqrt(of_mean[:, 0]), found.seed[1]),
        (weights * np.sqrt(of_mean[:, 1]), found.interaction[1]),
        (weights @ share * np.sqrt(found.split[0]), found.split[1]),
    ]
    # What all systems of a contrast have in common cancels, up to rounding.
    return [(np.where(np.abs(loadings) < 1e-12, 0.0, loadings), freedom) for loadings, freedom in sources]


def _all_flips(gains: Floats) -> Floats:
    """(2^G, P) differences for all signs of the groups."""
    n_groups = gains.shape[1]
    signs = 1.0 - 2.0 * (np.arange(2**n_groups)[:, None] >> np.arange(n_groups) & 1)
    return signs @ gains.T


def _drawn(gains: Floats, sources: Sequence[tuple[Floats, int]], seed: int) -> Floats:
    """(D, P) differences without a true difference: random signs, and noise of seeds and splits."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(DRAWS // DRAWS_AT_ONCE):
        signs = rng.integers(0, 2, (DRAWS_AT_ONCE, gains.shape[1])) * 2.0 - 1.0
        drawn = signs @ gains.T  # (d, P)
        for loadings, freedom in sources:
            if loadings.any():
                normal = rng.standard_normal((DRAWS_AT_ONCE, loadings.shape[1]))
                # Multivariate t, since the variance is estimated from few runs.
                normal /= np.sqrt(rng.chisquare(freedom, (DRAWS_AT_ONCE, 1)) / freedom)
                drawn += normal @ loadings.T
        parts.append(drawn)
    return np.concatenate(parts)


def _step_down(statistic: Floats, drawn: Floats, exact: bool) -> Floats:
    """(P,) corrected p-values: the largest statistic against the maximum over all, the next over the rest."""
    order = np.argsort(-statistic, kind="stable")
    largest = np.zeros(len(drawn))
    raw = np.empty(len(order))
    for place in range(len(order) - 1, -1, -1):
        largest = np.maximum(largest, drawn[:, order[place]])
        reached = (largest >= statistic[order[place]] - 1e-9).sum()
        # An estimated p-value is never 0 (Phipson & Smyth 2010).
        raw[place] = reached / len(drawn) if exact else (1 + reached) / (1 + len(drawn))
    corrected = np.empty(len(order))
    corrected[order] = np.maximum.accumulate(raw)
    return corrected


def _critical(largest: Floats, level: float, exact: bool) -> float:
    """The value that a statistic must exceed for p < level, from descending maxima; inf if none does."""
    n = len(largest)
    allowed = np.ceil(level * n) - 1 if exact else np.ceil(level * (1 + n)) - 2
    return float(largest[int(allowed)]) if allowed >= 0 else np.inf


def _interval(gains: Floats, sizes: Floats, noise: Floats, critical: float) -> tuple[Floats, Floats]:
    """(P,) ends: all d with |difference - d| <= critical * se(d), where
    se(d)^2 = sum_g (gain_g - d size_g)^2 / N^2 + noise. This is the test's own statistic, shifted by d; the
    ends solve a quadratic equation. With few groups, the interval may be -1..1."""
    n = sizes.sum()
    k = (critical * (1 + 1e-9) / n) ** 2
    lead = 1 - k * (sizes**2).sum()
    if not lead > 0:
        return np.full(len(gains), -1.0), np.full(len(gains), 1.0)
    mean = gains.sum(axis=1) / n
    middle = mean - k * (gains @ sizes)
    last = mean**2 - k * (gains**2).sum(axis=1) - critical**2 * noise
    root = np.sqrt(np.maximum(middle**2 - lead * last, 0.0))
    return ((middle - root) / lead).clip(-1, 1), ((middle + root) / lead).clip(-1, 1)
