"""The test over groups: against enumeration, scipy, published figures and simulation; means over runs."""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import permutation_test
from scipy.stats import t as student

from mgc.evaluate import (
    Comparison,
    Outcomes,
    Predictions,
    compare,
    compare_runs,
    evaluate,
    inference,
    over_runs,
    repeats,
)
from mgc.evaluate.bootstrap import between_runs, interval, resample, standard_error
from mgc.util.errors import MgcError

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import simulate_verdicts as simulated

PAIR = [{0: 1, 1: -1}]


def outcomes(correct: Any, splits: tuple[str, ...] = (), *, random: bool = False) -> Outcomes:
    """One system; (N,) for one run, (R, N) for several."""
    rows = np.atleast_2d(np.asarray(correct, float))
    return Outcomes(rows, splits or ("",) * len(rows), random)


def drawn_family(
    rng: np.random.Generator, n_systems: int, n_groups: int, n_runs: int = 1
) -> tuple[list[Outcomes], np.ndarray]:
    """Systems that differ by chance only, on groups of one to four tracks."""
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 5, n_groups))
    shape = (n_runs, len(groups))
    return [
        outcomes(rng.random(shape) < rng.uniform(0.5, 0.8), random=n_runs > 1) for _ in range(n_systems)
    ], groups


def assert_equal(one: list[Comparison], other: list[Comparison]) -> None:
    """Equal up to rounding."""
    for a, b in zip(one, other, strict=True):
        assert list(vars(a).values()) == pytest.approx(list(vars(b).values()))


def against_first(n_systems: int) -> list[dict[int, int]]:
    return [{index: 1, 0: -1} for index in range(1, n_systems)]


def prediction(correct: Any, groups: Any, fold: Any = None, name: str = "t") -> Predictions:
    """Two classes; the tracks that `correct` marks are classified correctly."""
    n = len(correct)
    labels = np.arange(n) % 2
    predicted = np.where(np.asarray(correct, bool), labels, 1 - labels)
    probabilities = np.where(predicted[:, None] == [0, 1], 0.7, 0.3)
    ids = tuple(f"{name}{i:04d}" for i in range(n))
    names = tuple(f"g{group:03d}" for group in groups)
    fold = np.zeros(n, int) if fold is None else fold
    return Predictions(("x", "y"), ids, labels, probabilities, names, fold)


# ---- p-values: other ways to compute the same


def test_step_down_equals_plain_enumeration() -> None:
    """Westfall & Young 1993, algorithm 2.8, written as loops over all 2^G signs."""
    for number in range(5):
        systems, groups = drawn_family(np.random.default_rng(number), 5, 7)
        found = [result.p_value for result in compare(systems, against_first(5), groups)]
        gains = [
            [float((s.mean - systems[0].mean)[groups == g].sum()) for g in range(7)] for s in systems[1:]
        ]
        scale = [sum(x * x for x in row) ** 0.5 or 1.0 for row in gains]
        observed = [abs(sum(row)) / by for row, by in zip(gains, scale, strict=True)]
        order = sorted(range(4), key=lambda k: -observed[k])
        reached = [0] * 4
        for signs in itertools.product((1, -1), repeat=7):
            flipped = [
                abs(sum(s * x for s, x in zip(signs, row, strict=True))) / by
                for row, by in zip(gains, scale, strict=True)
            ]
            for place, k in enumerate(order):
                reached[place] += max(flipped[j] for j in order[place:]) >= observed[k] - 1e-9
        steps = [count / 2**7 for count in reached]
        expected = {k: max(steps[: place + 1]) for place, k in enumerate(order)}
        assert found == pytest.approx([expected[k] for k in range(4)])


@pytest.mark.parametrize("n_groups", [3, 8, 11])
def test_one_comparison_equals_the_permutation_test_of_scipy(n_groups: int) -> None:
    rng = np.random.default_rng(n_groups)
    for _ in range(5):
        systems, groups = drawn_family(rng, 2, n_groups)
        gains = np.bincount(groups, systems[0].mean - systems[1].mean)
        reference = permutation_test(
            (gains,), np.sum, permutation_type="samples", n_resamples=np.inf, vectorized=False
        )
        if gains.sum():
            assert compare(systems, PAIR, groups)[0].p_value == pytest.approx(reference.pvalue)


def test_darwins_maize_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fisher, The Design of Experiments, 1935, section 21: 863 of 32,768 on one side."""
    eighths = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    groups = np.repeat(np.arange(15), np.abs(eighths))
    better = np.repeat(np.array(eighths) > 0, np.abs(eighths))
    systems = [outcomes(better), outcomes(~better)]
    assert compare(systems, PAIR, groups)[0].p_value == pytest.approx(2 * 863 / 32768, abs=0.005)  # drawn
    monkeypatch.setattr(inference, "ENUMERATED_GROUPS", 15)
    assert compare(systems, PAIR, groups)[0].p_value == pytest.approx(2 * 863 / 32768)


def test_exact_and_drawn_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    systems, groups = drawn_family(np.random.default_rng(4), 6, 12)
    exact = compare(systems, against_first(6), groups)
    monkeypatch.setattr(inference, "ENUMERATED_GROUPS", 0)
    drawn = compare(systems, against_first(6), groups)
    for one, other in zip(exact, drawn, strict=True):
        assert other.p_value == pytest.approx(one.p_value, abs=0.012)  # 3 errors of 20,000 draws
        assert (other.low, other.high) == pytest.approx((one.low, one.high), abs=0.02)


def test_correction_is_at_least_the_single_p_and_about_at_most_bonferroni() -> None:
    for number in range(4):
        systems, groups = drawn_family(np.random.default_rng(number), 8, 40, n_runs=3)
        family = compare(systems, against_first(8), groups)
        # Alone with the same variance between seeds: all systems, and one contrast.
        alone = [compare(systems, [contrast], groups)[0] for contrast in against_first(8)]
        for one, corrected in zip(alone, family, strict=True):
            assert one.p_value - 0.005 <= corrected.p_value <= min(1.0, 7 * one.p_value * 1.15 + 0.01)
            assert one.low >= corrected.low - 0.002 and one.high <= corrected.high + 0.002


def test_similar_systems_cost_nothing() -> None:
    """Copies of one system are one comparison: max-T uses the correlation, Bonferroni would not."""
    systems, groups = drawn_family(np.random.default_rng(1), 2, 30)
    copies = [systems[0], *[systems[1]] * 20]
    (alone,), family = compare(systems, PAIR, groups), compare(copies, against_first(21), groups)
    assert {result.p_value for result in family} == {alone.p_value}
    assert {(-r.high, -r.low) for r in family} == {(alone.low, alone.high)}


# ---- what holds for any data


def test_an_interval_excludes_0_exactly_where_the_test_rejects() -> None:
    rejected = undecided = 0
    for number in range(100):
        rng = np.random.default_rng(number)
        n_groups, n_runs = int(rng.integers(2, 40)), int(rng.choice([1, 3]))
        systems, groups = drawn_family(rng, int(rng.integers(2, 7)), n_groups, n_runs)
        for result in compare(systems, against_first(len(systems)), groups, seed=number):
            assert -1 <= result.low <= result.difference <= result.high <= 1
            assert result.low <= result.low90 + 1e-12 or result.low == 0
            if result.p_value < 0.05:
                rejected += 1
                assert result.low >= 0 or result.high <= 0
                assert result.verdict() in ("better", "worse")
            else:
                undecided += 1
                assert result.low < 0 < result.high or result.difference == 0 == result.low == result.high
                assert result.verdict() in ("equivalent", "undecided")
    assert min(rejected, undecided) > 20


def test_order_of_tracks_and_of_systems_has_no_effect() -> None:
    rng = np.random.default_rng(5)
    systems, groups = drawn_family(rng, 5, 30, n_runs=3)
    contrasts = against_first(5)
    family = compare(systems, contrasts, groups)
    tracks = rng.permutation(len(groups))
    moved = [outcomes(s.correct[:, tracks], random=True) for s in systems]
    assert_equal(compare(moved, contrasts, groups[tracks]), family)
    assert_equal(compare(systems, contrasts[::-1], groups), family[::-1])
    # Other order of systems: other draws of the noise, so equal up to that.
    turned = compare(systems[::-1], [{4 - i: 1, 4: -1} for i in range(1, 5)], groups)
    for one, other in zip(family, turned, strict=True):
        assert other.p_value == pytest.approx(one.p_value, abs=0.015)
        assert (other.difference, other.group_error) == pytest.approx((one.difference, one.group_error))


def test_exchanging_two_systems_mirrors_the_result() -> None:
    systems, groups = drawn_family(np.random.default_rng(6), 2, 30, n_runs=3)
    one, other = compare(systems, PAIR, groups)[0], compare(systems[::-1], [{0: -1, 1: 1}], groups)[0]
    back = compare(systems, [{0: -1, 1: 1}], groups)[0]
    assert (back.difference, back.low, back.high, back.p_value) == pytest.approx(
        (-one.difference, -one.high, -one.low, one.p_value)
    )
    assert other.difference == pytest.approx(one.difference)


def test_systems_with_equal_answers_are_equivalent() -> None:
    systems, groups = drawn_family(np.random.default_rng(7), 2, 20)
    result = compare([systems[0], systems[0]], PAIR, groups)[0]
    assert (result.p_value, result.low, result.difference, result.high) == (1.0, 0.0, 0.0, 0.0)
    assert result.verdict() == "equivalent"
    # In a family with others, too.
    assert compare([systems[0], systems[0], systems[1]], against_first(3), groups)[0].p_value == 1.0


def test_no_verdict_with_few_groups_whatever_the_answers() -> None:
    """Five groups have 32 signs: p is at least 2 / 32."""
    systems = [outcomes(np.ones(50)), outcomes(np.zeros(50))]
    result = compare(systems, PAIR, np.repeat(np.arange(5), 10))[0]
    assert (result.p_value, result.verdict(), result.detectable) == (2 / 32, "undecided", 1.0)
    assert (result.low, result.high) == (-1.0, 1.0)
    assert compare(systems, PAIR, np.repeat(np.arange(10), 5))[0].verdict() == "better"


def test_one_group_is_an_error() -> None:
    with pytest.raises(MgcError, match="one group"):
        compare([outcomes(np.ones(4)), outcomes(np.zeros(4))], PAIR, np.zeros(4, int))


def test_interaction_of_two_differences() -> None:
    rng = np.random.default_rng(8)
    systems, groups = drawn_family(rng, 4, 30)
    crossed = compare(systems, [{0: 1, 1: -1, 2: -1, 3: 1}], groups)[0]
    accuracies = [system.mean.mean() for system in systems]
    expected = accuracies[0] - accuracies[1] - accuracies[2] + accuracies[3]
    assert crossed.difference == pytest.approx(expected)
    # Equal losses of both systems are no interaction, however large.
    lost = [systems[0], systems[1], outcomes(np.zeros(len(groups))), outcomes(np.zeros(len(groups)))]
    same = compare(lost, [{0: 1, 2: -1, 1: -1, 3: 1}, {0: 1, 1: -1}], groups)
    assert same[0].difference == pytest.approx(same[1].difference)


# ---- verdicts


def result_with(**changes: Any) -> Comparison:
    values: dict[str, Any] = {
        "difference": 0.0, "low": -0.02, "high": 0.02, "low90": -0.018, "high90": 0.018, "p_value": 0.9,
        "group_error": 0.01, "repeat_error": 0.0, "critical": 2.0, "concentration": 0.01, "n_tracks": 400,
        "n_groups": 100, "family_size": 1, "needs_seeds": False,
    }  # fmt: skip
    return Comparison(**{**values, **changes})


def test_verdicts() -> None:
    assert result_with().verdict() == "equivalent"
    assert result_with().verdict(margin=0.018) == "undecided"  # the interval ends at the margin
    assert result_with(low90=-0.031).verdict() == "undecided"
    assert result_with(p_value=0.05, difference=0.1, high90=0.2).verdict() == "undecided"
    assert result_with(p_value=0.0499, difference=0.1).verdict() == "better"
    assert result_with(p_value=0.0499, difference=-0.1).verdict() == "worse"
    assert result_with(p_value=0.001, difference=0.01).verdict() == "better"  # though within the margin
    assert result_with(p_value=0.001, difference=0.1, needs_seeds=True).verdict() == "one seed"


@pytest.mark.parametrize(
    ("n_runs", "random", "needs"),
    [(1, False, False), (1, True, True), (2, True, True), (3, True, False)],
)
def test_random_training_needs_three_runs(n_runs: int, random: bool, needs: bool) -> None:
    rng = np.random.default_rng(0)
    system = outcomes(rng.random((n_runs, 60)) < 0.6, random=random)
    assert system.needs_seeds is needs
    sure = outcomes(np.ones(60))
    result = compare([sure, system], PAIR, np.arange(60))[0]
    assert result.verdict() == ("one seed" if needs else "better")


def test_three_splits_with_one_seed_each_are_three_runs() -> None:
    assert not outcomes(np.eye(3, 20), ("0", "1", "2"), random=True).needs_seeds


# ---- what the data can show


def test_groups_needed_is_where_the_difference_becomes_detectable() -> None:
    result = result_with(group_error=0.02, repeat_error=0.005)
    needed = result.groups_needed(0.05)
    assert needed is not None
    enough = result_with(
        group_error=0.02 * (100 / needed) ** 0.5,
        repeat_error=0.005,
        n_groups=needed,
        concentration=1 / needed,
    )
    assert 0.045 < enough.detectable <= 0.05
    assert result.groups_needed(result.detectable) in (100, 99)
    assert result_with(group_error=0.02, repeat_error=0.03).groups_needed(0.05) is None
    assert result_with(critical=np.inf).detectable == 1.0
    assert result_with(critical=np.inf).groups_needed(0.05) is None
    # With many groups: the usual sum of two quantiles.
    many = result_with(critical=1.96, concentration=1e-9)
    assert many.detectable == pytest.approx((1.96 + 0.8416) * 0.01, rel=1e-4)


# ---- seeds and splits


def runs_of(
    rng: np.random.Generator, splits: list[int], seed_sd: float, on_split: np.ndarray, n: int
) -> Outcomes:
    """Runs of accuracy 0.6 + effect of the split + effect of the seed, without noise of tracks."""
    accuracies = 0.6 + on_split[splits] + rng.normal(0, seed_sd, len(splits))
    correct = np.arange(n) < np.round(accuracies * n)[:, None]
    return outcomes(correct, tuple(map(str, splits)), random=seed_sd > 0)


@pytest.mark.parametrize(
    "layout",
    [
        [[0, 0, 0, 1, 1, 1, 2, 2, 2]] * 3,  # balanced
        [[0, 0, 0, 1, 2], [0, 1, 1, 2, 2], [0, 1], [1, 2, 2, 2], [0, 0, 0]],  # unbalanced
        [[0, 0, 1, 1], [0, 0, 1, 1, 1], [2, 2, 3], [2, 3, 3]],  # disconnected: no split links the two halves
    ],
    ids=["balanced", "unbalanced", "disconnected"],
)
def test_repeats_recover_known_variances_on_average(layout: list[list[int]]) -> None:
    rng, seed_sd, interaction_sd, split_sd = np.random.default_rng(0), 0.02, 0.03, 0.04
    found = []
    for _ in range(300):
        split = rng.normal(0, split_sd, 4)
        systems = [
            runs_of(rng, splits, seed_sd, split + rng.normal(0, interaction_sd, 4), 5000) for splits in layout
        ]
        estimate = repeats(systems)
        found.append((estimate.seed[0], estimate.interaction[0], estimate.split[0]))
        freedom = sum(len(splits) - len(set(splits)) for splits in layout)
        assert estimate.seed[1] == freedom
        several = [set(splits) for splits in layout if len(set(splits)) > 1]
        assert estimate.interaction[1] + estimate.split[1] == sum(len(names) - 1 for names in several)
    seed, interaction, shared = np.mean(found, axis=0) ** 0.5
    assert seed == pytest.approx(seed_sd, rel=0.1)
    assert interaction == pytest.approx(interaction_sd, rel=0.2)
    # The fitted effects of splits include a part of the interaction, so the variance is never too small.
    assert split_sd * 0.9 < shared < 0.055


def test_variance_between_splits_counts_though_only_one_system_shows_it() -> None:
    """A probe on three splits against a network on one: what the probe shows holds for the difference."""
    rng = np.random.default_rng(3)
    probe = runs_of(rng, [0, 1, 2], 0.0, np.array([0.0, 0.05, 0.1]), 200)
    network = runs_of(rng, [0, 0, 0], 0.02, np.zeros(3), 200)
    found = repeats([probe, network])
    assert found.interaction == pytest.approx((0.05**2, 2), rel=0.05)
    groups = np.arange(200)
    result, beyond_groups = compare([probe, network], PAIR, groups)[0], repeats([probe, network], groups)
    assert 0.9 < beyond_groups.interaction[0] / found.interaction[0] < 1
    of_seeds = beyond_groups.seed[0] / 3
    assert result.repeat_error**2 == pytest.approx(beyond_groups.interaction[0] * (1 / 3 + 1) + of_seeds)


def test_two_systems_without_a_common_split_keep_the_variance_between_splits() -> None:
    rng = np.random.default_rng(3)
    one = runs_of(rng, [0, 1], 0.0, np.array([0.0, 0.1]), 200)
    other = runs_of(rng, [2, 3], 0.0, np.array([0, 0, 0.0, 0.1]), 200)
    assert repeats([one, other]).interaction == pytest.approx((0.1**2 / 2, 2), rel=0.05)
    assert compare([one, other], PAIR, np.arange(200))[0].repeat_error > 0.06


def test_deterministic_systems_on_one_split_have_no_repeat_error() -> None:
    systems, groups = drawn_family(np.random.default_rng(9), 3, 20)
    assert repeats(systems) == inference.Repeats((0.0, 0), (0.0, 0), (0.0, 0))
    assert {result.repeat_error for result in compare(systems, against_first(3), groups)} == {0.0}


def test_a_system_that_varies_more_than_others_has_its_own_variance() -> None:
    rng = np.random.default_rng(0)
    steady = [runs_of(rng, [0] * 3, 0.002, np.zeros(1), 2000) for _ in range(20)]
    wild = outcomes(np.arange(2000) < np.array([1100, 1200, 1300])[:, None], random=True)
    found = repeats([*steady, wild])
    assert found.of_mean(wild)[0] == pytest.approx(0.05**2 / 3)
    assert found.of_mean(steady[0])[0] == pytest.approx(found.seed[0] / 3)


def test_what_varies_within_groups_is_not_counted_twice() -> None:
    """Seeds that change tracks independently of one another are in the group error already."""
    rng, groups = np.random.default_rng(1), np.repeat(np.arange(100), 4)
    pairs = []
    for _ in range(100):
        systems = [outcomes(rng.random((3, 400)) < 0.6, random=True) for _ in range(2)]
        pairs.append([repeats(systems).seed[0], repeats(systems, groups).seed[0]])
    all_of_it, beyond_groups = np.mean(pairs, axis=0)
    assert all_of_it == pytest.approx(0.6 * 0.4 / 400, rel=0.15)
    assert beyond_groups < 0.5 * all_of_it  # 0 on average, but estimates below 0 are set to 0
    # Seeds that shift all groups are not.
    shifted = outcomes(np.arange(400) % 4 < np.array([1, 2, 3])[:, None], random=True)
    assert repeats([shifted], groups).seed[0] == pytest.approx(repeats([shifted]).seed[0], rel=0.02)


def test_splits_have_equal_weight() -> None:
    correct = np.array([[1, 1], [1, 1], [1, 1], [0, 0]])
    system = outcomes(correct, ("0", "0", "0", "1"))
    assert system.mean.tolist() == [0.5, 0.5]
    assert repeats([system]).of_mean(outcomes(correct, ("0", "0", "0", "1"), random=True))[0] == 0


def test_runs_of_other_tracks_or_folds_are_an_error() -> None:
    groups, right = np.arange(6), np.ones(6)
    run, other_fold = prediction(right, groups), prediction(right, groups, np.arange(6) % 2)
    other_tracks = prediction(right, groups, name="u")
    assert len(Outcomes.of([run, other_fold], ["0", "1"]).correct) == 2
    for call in (
        lambda: Outcomes.of([run, other_fold]),
        lambda: Outcomes.of([run, other_tracks], ["0", "1"]),
        lambda: over_runs([run, other_fold]),
        lambda: over_runs([run, other_tracks], splits=["0", "1"]),
        lambda: compare_runs([run], [other_tracks]),
    ):
        with pytest.raises(MgcError, match="differ"):
            call()


# ---- mean scores over runs


def test_over_runs_gives_every_split_the_same_weight() -> None:
    groups = np.arange(40)
    runs = [
        prediction(np.arange(40) < right, groups, fold)
        for right, fold in ((20, groups % 2), (24, groups % 2), (34, groups % 4))
    ]
    found = over_runs(runs, splits=["0", "0", "1"])
    assert (found.runs, found.seeds, found.splits) == (3, 2, 2)
    assert found.accuracy == pytest.approx((22 / 40 + 34 / 40) / 2)
    assert found.seed_sd == pytest.approx(np.std([0.5, 0.6], ddof=1))
    between = np.var([22 / 40, 34 / 40], ddof=1) - found.seed_sd**2 * (1 / 2 + 1) / 2
    assert found.split_sd == pytest.approx(between**0.5)
    assert found.accuracy_low < found.accuracy < found.accuracy_high


def test_over_runs_shows_what_runs_can_show() -> None:
    runs = [prediction(np.arange(40) < right, np.arange(40)) for right in (20, 24, 28)]
    single, seeds = over_runs(runs[:1]), over_runs(runs)
    splits = over_runs(runs, splits=["0", "1", "2"])
    assert (single.seed_sd, single.split_sd) == (None, None)
    assert (single.accuracy_low, single.accuracy_high) == (
        evaluate(runs[0]).accuracy_low,
        evaluate(runs[0]).accuracy_high,
    )
    assert (seeds.seed_sd, seeds.split_sd) == (pytest.approx(0.1), None)
    assert (splits.seed_sd, splits.split_sd) == (None, pytest.approx(0.1))
    # The standard error of a mean over 40 groups of one track.
    assert single.group_error == pytest.approx(np.std([0.0, 1.0] * 20, ddof=1) / 40**0.5)


def test_interval_includes_the_variance_between_runs() -> None:
    """The same mean answers; the runs agree, or differ by up to 20 points."""
    agree = [prediction(np.arange(100) < 60, np.arange(100)) for _ in range(3)]
    differ = [prediction(np.arange(100) < right, np.arange(100)) for right in (50, 60, 70)]
    one, other = over_runs(agree), over_runs(differ)
    assert one.accuracy == pytest.approx(other.accuracy)
    assert one.seed_sd == pytest.approx(0)
    widths = [each.accuracy_high - each.accuracy_low for each in (one, other)]
    assert widths[1] > widths[0] + 0.05


@pytest.mark.parametrize("n_groups", [5, 20, 200])
def test_interval_is_that_of_student_for_a_mean(n_groups: int) -> None:
    rng = np.random.default_rng(n_groups)
    values = rng.uniform(0.3, 0.7, n_groups)
    counts = np.stack([values, np.ones(n_groups)], axis=1)
    sums = np.concatenate([*resample(counts, 20_000, 0)])
    low, high = interval(sums[:, 0] / sums[:, 1], n_groups)
    half = student.ppf(0.975, n_groups - 1) * values.std(ddof=1) / n_groups**0.5
    # The shape of the bootstrap distribution differs from the normal one with few groups.
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.25 * half)
    assert standard_error(values, np.ones(n_groups)) == pytest.approx(values.std(ddof=1) / n_groups**0.5)


def test_interval_of_the_variance_between_runs_alone() -> None:
    low, high = interval(np.full(20_000, 0.5), 30, (0.01**2, 2))
    half = student.ppf(0.975, 2) * 0.01
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.1 * half)


def test_ends_of_intervals_vary_by_less_than_a_tenth_of_a_point_between_seeds() -> None:
    rng = np.random.default_rng(2)
    run = prediction(rng.random(400) < 0.65, np.repeat(np.arange(100), 4))
    ends = [
        (score.accuracy_low, score.accuracy_high) for score in (evaluate(run, seed=seed) for seed in range(6))
    ]
    assert np.std(ends, axis=0, ddof=1).max() < 0.001


def test_between_runs_without_repeats() -> None:
    assert between_runs([0.5], [""]) == (None, None, (0.0, 1))
    assert between_runs([0.5, 0.7], ["0", "1"]) == (None, pytest.approx(0.02), (pytest.approx(0.01), 1))


# ---- simulation: a short form of scripts/simulate_verdicts.py


@pytest.fixture(autouse=True)
def _fewer_draws(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "simulated" in request.node.name:
        monkeypatch.setattr(inference, "DRAWS", 500)
        monkeypatch.setattr(inference, "DRAWS_AT_ONCE", 500)


def test_simulated_false_positives_and_coverage() -> None:
    """28 systems without a difference, 3 seeds: McNemar's test fails the same bounds."""
    scenario = simulated.Scenario(
        50, (simulated.ACCURACY,) * 29, (simulated.THREE_SEEDS,) * 29, split_sd=0, interaction_sd=0
    )
    family, holm, covered = simulated.replicate(
        scenario, lambda *drawn: simulated.family_measures(scenario, *drawn), 60
    )
    assert family <= 0.1 and covered >= 0.9
    assert holm > 0.1


def test_simulated_power_at_the_detectable_difference() -> None:
    def shown(gap: float) -> tuple[float, float]:
        kinds = (simulated.Kind((0,), 0.0),) * 2
        scenario = simulated.Scenario(30, (0.6, 0.6 + gap), kinds, split_sd=0, interaction_sd=0)
        found = simulated.replicate(scenario, measure, 150)
        return float(found[0]), float(found[1])

    def measure(systems: list[Outcomes], groups: np.ndarray) -> tuple[float, float]:
        result = compare(systems, [{1: 1, 0: -1}], groups)[0]
        return result.p_value < 0.05, result.detectable

    false, detectable = shown(0.0)
    assert false < 0.12
    assert 0.68 < shown(detectable)[0] < 0.95


IN_A_PROCESS = """
import numpy as np
from mgc.evaluate import Outcomes, repeats
from mgc.evaluate.bootstrap import between_runs
rng, splits = np.random.default_rng(0), tuple("aabbbcdeef")
correct = (rng.random((len(splits), 97)) < 0.6).astype(float)
systems = [Outcomes(correct, splits, True), Outcomes(correct[::-1], splits, False)]
print(between_runs(list(rng.random(len(splits))), splits), repeats(systems, np.arange(97) // 3))
"""


def test_the_last_digit_is_the_same_in_every_process() -> None:
    """Sets of text have another order in each process; sums over them would differ in the last digit."""
    found = set()
    for seed in "1234":
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        words = [sys.executable, "-c", IN_A_PROCESS]
        found.add(subprocess.run(words, env=environment, check=True, capture_output=True, text=True).stdout)
    assert len(found) == 1
