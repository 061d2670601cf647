"""How often verdicts are wrong: simulated datasets with artists, systems, training seeds and splits.

    python scripts/simulate_verdicts.py                             # the tables of docs/statistics.md
    python scripts/simulate_verdicts.py --replications 50           # a quick look
    python scripts/simulate_verdicts.py --only families             # one table
    python scripts/simulate_verdicts.py --records results/emotify   # committed predictions, signs flipped

A replication draws artists with one or more tracks, the difficulty of each artist and track, how well each
system suits each artist and track, the effect of each split on all systems and on each, and for every
training run an effect on each of five folds. A track is classified correctly if the sum is positive, so the
true accuracy (over artists, seeds and splits) is known exactly. Scenarios with one set of effects share
their random numbers.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import NormalDist

import numpy as np
from scipy.stats import binom

from mgc.evaluate import bootstrap, inference
from mgc.evaluate.inference import MARGIN, SIGNIFICANCE, Comparison, Outcomes, compare
from mgc.evaluate.ranking import nan_mean

ARTISTS = (5, 10, 20, 50, 138)
TRACKS_PER_ARTIST = 2.9  # Emotify: 400 tracks of 138 artists
FOLDS = 5
ACCURACY = 0.65
DRAWS = 1_000  # of the test and the bootstrap; mgc draws 20,000, which changes no error rate
# Standard deviations of what decides whether a track is classified correctly.
TRACK, ARTIST, SYSTEM_ARTIST, SYSTEM_TRACK, RUN_TRACK = 1.5, 1.0, 1.0, 0.7, 0.4
PER_POINT = 6.0  # such a deviation per unit of accuracy, near an accuracy of 0.65


@dataclass(frozen=True)
class Kind:
    """How a system is run: `runs` names the split of each run; standard deviations are of the accuracy."""

    runs: tuple[int, ...]
    seed_sd: float = 0.02


THREE_SEEDS = Kind((0, 0, 0))
THREE_SPLITS = Kind((0, 1, 2), seed_sd=0.0)
NINE_RUNS = Kind((0, 0, 0, 1, 1, 1, 2, 2, 2))
FIVE_SEEDS = Kind((0,) * 5)
# Split noise: in common for all systems, and of each system. Runs on one split cannot show it.
MORE_SPLITS = {"split_sd": 0.01, "interaction_sd": 0.01}
ONE_SPLIT = {"split_sd": 0.0, "interaction_sd": 0.0}


@dataclass(frozen=True)
class Scenario:
    """The number of artists and, for each system, its true accuracy and how it is run."""

    artists: int
    accuracies: tuple[float, ...]
    kinds: tuple[Kind, ...]
    split_sd: float = 0.01  # in common for all systems
    interaction_sd: float = 0.01  # of each system; 0 in scenarios of one split, where no run can show it

    @property
    def gaps(self) -> np.ndarray:
        """(S - 1,) true differences to the first system."""
        return np.array(self.accuracies[1:]) - self.accuracies[0]


def draw(scenario: Scenario, rng: np.random.Generator) -> tuple[list[Outcomes], np.ndarray]:
    """Systems, and the group number of each track."""
    groups = np.repeat(np.arange(scenario.artists), rng.geometric(1 / TRACKS_PER_ARTIST, scenario.artists))
    n, n_splits = len(groups), 3
    fold = rng.integers(0, FOLDS, (n_splits, scenario.artists))[:, groups]  # (L, N)
    common = rng.normal(0, TRACK, n) + rng.normal(0, ARTIST, scenario.artists)[groups]
    of_split = rng.normal(0, 1, n_splits) * scenario.split_sd * PER_POINT
    systems = []
    for accuracy, kind in zip(scenario.accuracies, scenario.kinds, strict=True):
        own = rng.normal(0, SYSTEM_ARTIST, scenario.artists)[groups] + rng.normal(0, SYSTEM_TRACK, n)
        on_split = of_split + rng.normal(0, 1, n_splits) * scenario.interaction_sd * PER_POINT
        of_fold = rng.normal(0, kind.seed_sd * FOLDS**0.5 * PER_POINT, (len(kind.runs), FOLDS))
        run_track = RUN_TRACK if kind.seed_sd else 0.0
        sds = [TRACK, ARTIST, SYSTEM_ARTIST, SYSTEM_TRACK, run_track, kind.seed_sd * FOLDS**0.5 * PER_POINT,
               scenario.split_sd * PER_POINT, scenario.interaction_sd * PER_POINT]  # fmt: skip
        level = NormalDist().inv_cdf(accuracy) * float(np.linalg.norm(sds))
        noise = rng.normal(0, 1, (len(kind.runs), n)) * run_track
        correct = [
            level + common + own + on_split[split] + of_fold[run][fold[split]] + noise[run] > 0
            for run, split in enumerate(kind.runs)
        ]
        names = tuple(map(str, kind.runs))
        systems.append(Outcomes(np.array(correct, float), names, random=kind.seed_sd > 0))
    return systems, groups


def replicate(
    scenario: Scenario, measure: Callable[[list[Outcomes], np.ndarray], Sequence[float]], count: int
) -> np.ndarray:
    """The mean over replications of what `measure` returns; NaN is left out."""
    rows = [measure(*draw(scenario, np.random.default_rng([7, number]))) for number in range(count)]
    return nan_mean(np.array(rows, float).T)


def family_of(scenario: Scenario) -> list[dict[int, int]]:
    """All systems against the first."""
    return [{index: 1, 0: -1} for index in range(1, len(scenario.kinds))]


def wrong(result: Comparison, gap: float) -> bool:
    """Whether the test shows a difference that does not exist, or one of the other sign."""
    return result.p_value < SIGNIFICANCE and result.difference * gap <= 0


def covers(result: Comparison, gap: float) -> bool:
    """Whether the interval holds the true difference."""
    return result.low - 1e-12 <= gap <= result.high + 1e-12


def mcnemar(systems: Sequence[Outcomes]) -> np.ndarray:
    """(S - 1,) p-values of exact McNemar tests of the first run of each system against the first system."""
    base = systems[0].correct[0]
    pairs = np.array([((s.correct[0] > base).sum(), (s.correct[0] < base).sum()) for s in systems[1:]])
    return np.minimum(1.0, 2 * binom.cdf(pairs.min(axis=1), pairs.sum(axis=1), 0.5))


def percent(value: float) -> str:
    """A share as text; empty for NaN."""
    return "" if np.isnan(value) else f"{100 * value:.1f} %"


def row(*cells: object) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def header(*names: str) -> Iterator[str]:
    """The first two rows of a Markdown table."""
    yield row(*names)
    yield row(*["---"] * len(names))


def single(count: int, chosen: Sequence[int]) -> Iterator[str]:
    """False positives of one comparison (five times as many replications)."""
    yield from header("artists", "runs of each system", "false", "McNemar", "interval covers")
    layouts = {
        "1 run, deterministic": (Kind((0,), 0.0), ONE_SPLIT),
        "3 seeds, 1 split": (THREE_SEEDS, ONE_SPLIT),
        "deterministic, 3 splits": (THREE_SPLITS, MORE_SPLITS),
        "3 seeds on each of 3 splits": (NINE_RUNS, MORE_SPLITS),
    }

    def measure(systems: list[Outcomes], groups: np.ndarray) -> Sequence[float]:
        result = compare(systems, [{1: 1, 0: -1}], groups, seed=len(groups))[0]
        return wrong(result, 0.0), mcnemar(systems)[0] < SIGNIFICANCE, covers(result, 0.0)

    for artists in chosen:
        for words, (kind, noise) in layouts.items():
            scenario = Scenario(artists, (ACCURACY, ACCURACY), (kind, kind), **noise)
            yield row(artists, words, *map(percent, replicate(scenario, measure, 5 * count)))


def families(count: int, chosen: Sequence[int]) -> Iterator[str]:
    """False positives and simultaneous coverage in families of 28 systems against one."""
    yield from header(
        "artists", "runs of each system", "true differences", "false, any of 28", "McNemar and Holm",
        "all 28 intervals cover",
    )  # fmt: skip
    noisy, steady = Kind((0, 0, 0), 0.03), Kind((0, 0, 0), 0.005)
    layouts = {
        "3 seeds, 1 split": ((THREE_SEEDS,) * 29, ONE_SPLIT),
        "deterministic, 3 splits": ((THREE_SPLITS,) * 29, MORE_SPLITS),
        "3 seeds on each of 3 splits": ((NINE_RUNS,) * 29, MORE_SPLITS),
        "3 to 5 seeds on 1 split, others deterministic on 3": (
            (THREE_SEEDS, *[THREE_SPLITS, THREE_SEEDS, FIVE_SEEDS, THREE_SPLITS] * 7), MORE_SPLITS
        ),
        "seed SD 0.03 of the baseline, 0.005 of others": ((noisy, *[steady] * 28), ONE_SPLIT),
        "seed SD 0.03 of every fourth, else 0.005": (
            (steady, *[noisy, steady, steady, steady] * 7), ONE_SPLIT
        ),
    }  # fmt: skip
    equal = (ACCURACY,) * 29
    half = (ACCURACY, *[ACCURACY] * 14, *np.linspace(ACCURACY - 0.12, ACCURACY + 0.12, 14))
    for artists in chosen:
        for words, (kinds, noise) in layouts.items():
            truths = {"none": equal, "14 of 28, up to 12 points": half}
            for truth in [*truths][: 2 if noise is MORE_SPLITS else 1]:
                scenario = Scenario(artists, truths[truth], kinds, **noise)
                found = replicate(scenario, lambda *drawn, s=scenario: family_measures(s, *drawn), count)
                yield row(artists, words, truth, *map(percent, found))


def family_measures(scenario: Scenario, systems: list[Outcomes], groups: np.ndarray) -> Sequence[float]:
    """Whether any comparison is wrong, the same for McNemar's tests, and whether all intervals cover."""
    gaps, p = scenario.gaps, mcnemar(systems)
    results = compare(systems, family_of(scenario), groups)
    holm = np.nan if gaps.any() else p.min() * len(p) < SIGNIFICANCE
    return any(map(wrong, results, gaps)), holm, all(map(covers, results, gaps))


def selection(count: int, chosen: Sequence[int]) -> Iterator[str]:
    """The best of several systems against the best of others: all pairs as one family, and the pair alone."""
    yield from header(
        "artists", "best of, against best of", "true differences", "false", "interval covers",
        "false, selection ignored", "interval covers, selection ignored",
    )  # fmt: skip

    def measure(
        scenario: Scenario, split: int, systems: list[Outcomes], groups: np.ndarray
    ) -> Sequence[float]:
        pairs = [(a, b) for a in range(split) for b in range(split, len(systems))]
        means = [system.mean.mean() for system in systems]
        best = int(np.argmax(means[:split])), split + int(np.argmax(means[split:]))
        gap = scenario.accuracies[best[0]] - scenario.accuracies[best[1]]
        kept = compare(systems, [{a: 1, b: -1} for a, b in pairs], groups)[pairs.index(best)]
        alone = compare([systems[i] for i in best], [{0: 1, 1: -1}], groups)[0]
        return wrong(kept, gap), covers(kept, gap), wrong(alone, gap), covers(alone, gap)

    spread = tuple(ACCURACY + 0.01 * np.array([*range(-5, 5), *range(-2, 3)]))
    equal = (ACCURACY,) * 15
    cases = ((14, "none", equal), (10, "none", equal), (10, "1 point apart", spread))
    for artists in chosen:
        for split, words, truth in cases:
            scenario = Scenario(artists, truth, (THREE_SEEDS,) * 15, **ONE_SPLIT)
            found = replicate(scenario, partial(measure, scenario, split), count)
            yield row(artists, f"{split}, {15 - split}", words, *map(percent, found))


def interactions(count: int, chosen: Sequence[int]) -> Iterator[str]:
    """Two systems on 13 alterations: does an alteration cost one more than the other?"""
    yield from header("artists", "false, one interaction", "false, any of 13", "all intervals cover")
    accuracies = (ACCURACY, ACCURACY + 0.1, *[ACCURACY - 0.1, ACCURACY] * 13)
    contrasts = [{0: 1, 2 + 2 * k: -1, 1: -1, 3 + 2 * k: 1} for k in range(13)]
    for artists in chosen:
        scenario = Scenario(artists, accuracies, (THREE_SEEDS,) * 28, split_sd=0.0, interaction_sd=0.0)

        def measure(systems: list[Outcomes], groups: np.ndarray) -> Sequence[float]:
            results = compare(systems, contrasts, groups)
            alone = compare(systems, contrasts[:1], groups)[0]
            covered = all(covers(r, 0.0) for r in results)
            return alone.p_value < SIGNIFICANCE, any(wrong(r, 0.0) for r in results), covered

        yield row(artists, *map(percent, replicate(scenario, measure, count)))


def power(count: int, chosen: Sequence[int]) -> Iterator[str]:
    """One comparison: power, McNemar's at the same true error, and equivalence at the margin and within."""
    yield from header(
        "artists", "runs", "power at 5 points", "McNemar", "power at 10 points", "McNemar",
        "equivalent within 3 points, true difference 3", "true difference 0",
    )  # fmt: skip
    for artists in chosen:
        for words, kind in (("3 seeds", THREE_SEEDS), ("deterministic, 3 splits", THREE_SPLITS)):
            found = {}
            for gap in (0.0, 0.05, 0.1, MARGIN):
                scenario = Scenario(artists, (ACCURACY, ACCURACY + gap), (kind, kind))
                scenario = replace(scenario, interaction_sd=0.0) if kind is THREE_SEEDS else scenario
                found[gap] = np.array(
                    [
                        (r.p_value, r.verdict() == "equivalent", mcnemar(systems)[0])
                        for systems, groups in (
                            draw(scenario, np.random.default_rng([7, number])) for number in range(count)
                        )
                        for r in compare(systems, [{1: 1, 0: -1}], groups)
                    ]
                )
            # McNemar's test at the level that gives it a true error of 5 %.
            level = np.quantile(found[0.0][:, 2], SIGNIFICANCE)
            rates = [
                rate
                for gap in (0.05, 0.1)
                for rate in ((found[gap][:, 0] < SIGNIFICANCE).mean(), (found[gap][:, 2] < level).mean())
            ]
            yield row(
                artists, words, *map(percent, rates), *(percent(found[g][:, 1].mean()) for g in (MARGIN, 0.0))
            )


def equivalence(count: int, chosen: Sequence[int]) -> Iterator[str]:
    """How often one comparison is "equivalent within 3 points": at a difference of 3 points it is wrong."""
    yield from header("artists", "runs", "true difference 3 points", "1 point", "0")

    def equivalent(systems: list[Outcomes], groups: np.ndarray) -> Sequence[float]:
        return (compare(systems, [{1: 1, 0: -1}], groups)[0].verdict() == "equivalent",)

    kinds = {"deterministic, 1 split": Kind((0,), 0.0), "5 seeds, 1 split": FIVE_SEEDS}
    for artists in (500, 2000) if len(chosen) > 1 else chosen:  # fewer cannot show it
        for words, kind in kinds.items():
            rates = []
            for gap in (MARGIN, 0.01, 0.0):
                scenario = Scenario(artists, (ACCURACY, ACCURACY + gap), (kind, kind), **ONE_SPLIT)
                rates.extend(replicate(scenario, equivalent, count))
            yield row(artists, words, *map(percent, rates))


def detectable(count: int, chosen: Sequence[int]) -> Iterator[str]:
    """Whether the detectable difference and the groups needed have the power of 80 % that they promise."""
    yield from header(
        "artists",
        "family of",
        "detectable difference",
        "power at it",
        "artists needed for 10 points",
        "power with them",
    )

    def with_gap(scenario: Scenario, gap: float) -> Scenario:
        return replace(scenario, accuracies=(*scenario.accuracies[:-1], ACCURACY + gap))

    def measure(systems: list[Outcomes], groups: np.ndarray) -> Sequence[float]:
        last = compare(systems, [{index: 1, 0: -1} for index in range(1, len(systems))], groups)[-1]
        return last.p_value < SIGNIFICANCE, last.detectable, last.groups_needed(0.1) or np.inf

    for artists in [number for number in chosen if number >= 10]:  # fewer never show a difference
        for size in (1, 28):
            scenario = Scenario(artists, (ACCURACY,) * (size + 1), (THREE_SEEDS,) * (size + 1), **ONE_SPLIT)
            found = [measure(*draw(scenario, np.random.default_rng([7, number]))) for number in range(count)]
            _, reach, needed = np.median(np.array(found, float), axis=0)
            cells = [artists, size, f"{100 * reach:.1f} points"]
            if reach < 1 - ACCURACY:
                cells.append(percent(replicate(with_gap(scenario, reach), measure, count)[0]))
            else:
                cells.append("beyond the simulation")
            if np.isfinite(needed):
                enough = replace(with_gap(scenario, 0.1), artists=round(needed))
                cells.extend([round(needed), percent(replicate(enough, measure, count)[0])])
            yield row(*cells, *["no number", ""][: 6 - len(cells)])


def accuracy_intervals(count: int, chosen: Sequence[int]) -> Iterator[str]:
    """Coverage of the 95 % interval of one system's accuracy."""
    yield from header(
        "artists", "1 run", "percentile interval, 1 run", "3 seeds", "3 splits", "3 seeds on each of 3 splits"
    )

    def measure(systems: list[Outcomes], groups: np.ndarray) -> Sequence[float]:
        found = []
        for system in systems:
            counts = np.stack([np.bincount(groups, system.mean), np.bincount(groups)], axis=1)
            sums = np.concatenate([*bootstrap.resample(counts, DRAWS, 0)])
            accuracies = [float(run.mean()) for run in system.correct]
            values, noise = (
                sums[:, 0] / sums[:, 1],
                bootstrap.between_runs(accuracies, system.splits)[2],
            )
            low, high = bootstrap.interval(values, len(counts), noise)
            found.append(low <= ACCURACY <= high)
            if len(system.splits) == 1:
                low, high = np.quantile(values, [0.025, 0.975])
                found.append(low <= ACCURACY <= high)
        return found

    kinds = (Kind((0,), 0.0), THREE_SEEDS, THREE_SPLITS, NINE_RUNS)
    for artists in chosen:
        found = []
        for kind in kinds:
            one = len(set(kind.runs)) == 1
            noise = ONE_SPLIT if one else MORE_SPLITS
            found.extend(replicate(Scenario(artists, (ACCURACY,), (kind,), **noise), measure, count))
        yield row(artists, *map(percent, found))


def from_records(folder: Path, count: int) -> str:
    """False positives on committed predictions after flipping the signs of real gains, artist by artist."""
    from mgc.evaluate.bootstrap import unit_numbers
    from mgc.runs.record import load_record

    records = [load_record(file) for file in sorted(folder.glob("*/record.json"))]
    runs = [record.predictions() for record in records if record.kind != "floor" and not record.leaky]
    groups = unit_numbers(runs[0])
    correct = np.array([run.predicted == run.labels for run in runs], float)
    rng = np.random.default_rng(0)
    rates = []
    for number in range(count):
        # The gains keep their sizes, so each replication needs draws of its own.
        # Where an artist is flipped, every system and the baseline exchange their predictions of its tracks.
        flip = rng.integers(0, 2, groups.max() + 1)[groups].astype(bool)
        gains = correct[1:] - correct[0]
        rows = [correct[0], *(correct[0] + np.where(flip, -gains, gains))]
        systems = [Outcomes(each[None], ("",), random=False) for each in rows]
        results = compare(systems, [{index: 1, 0: -1} for index in range(1, len(rows))], groups, seed=number)
        one = 1 + int(rng.integers(len(gains)))
        alone = compare([systems[0], systems[one]], [{1: 1, 0: -1}], groups, seed=number)[0]
        p = mcnemar(systems)
        rates.append(
            (alone.p_value < SIGNIFICANCE, min(r.p_value for r in results) < SIGNIFICANCE,
             p[one - 1] < SIGNIFICANCE, p.min() * len(p) < SIGNIFICANCE)
        )  # fmt: skip
    one, family, single, holm = map(percent, np.mean(rates, axis=0))
    return (
        f"{folder.name}: {len(runs) - 1} comparisons, {groups.max() + 1} groups: {one} per comparison "
        f"(McNemar {single}), {family} per family (McNemar and Holm {holm})"
    )


TABLES = {
    function.__name__: function
    for function in (
        single, families, selection, interactions, power, equivalence, detectable, accuracy_intervals,
    )
}  # fmt: skip


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replications", type=int, default=1000, help="per scenario")
    parser.add_argument("--only", choices=TABLES, action="append", help="a table; may be repeated")
    parser.add_argument("--records", type=Path, help="a folder of runs, results/<data>")
    parser.add_argument("--artists", type=int, choices=ARTISTS, help="one number of artists only")
    arguments = parser.parse_args()
    inference.DRAWS = inference.DRAWS_AT_ONCE = DRAWS
    if arguments.records:
        print(from_records(arguments.records, arguments.replications))
        return
    chosen = (arguments.artists,) if arguments.artists else ARTISTS
    for name in arguments.only or TABLES:
        print(f"{TABLES[name].__doc__}\n", flush=True)
        for line in TABLES[name](arguments.replications, chosen):
            print(line, flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
