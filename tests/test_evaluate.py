"""Predictions, scores and the paired comparison: against scikit-learn, worked by hand, and by simulation."""

import contextlib
import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from mgc.config import MgcError
from mgc.evaluate import (
    ClassScore,
    Predictions,
    Scores,
    confusion_matrix,
    evaluate,
    leak,
    log_loss,
    mcnemar_p,
    over_seeds,
    paired,
    precision_recall_f1,
    sign_flip_p,
)


def make(labels: Any, predicted: Any, n_classes: int = 2, **changes: Any) -> Predictions:
    """Predictions with the given truths and predictions; each track a group of its own unless changed."""
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    ids = tuple(f"t{i:05d}" for i in range(len(labels)))
    probabilities = np.full((len(labels), n_classes), 0.3 / (n_classes - 1))
    probabilities[np.arange(len(labels)), predicted] = 0.7
    parts: dict[str, Any] = {
        "classes": tuple(f"genre {k}" for k in range(n_classes)),
        "track_ids": ids,
        "labels": labels,
        "probabilities": probabilities,
        "groups": ids,
        "fold": np.zeros(len(labels), dtype=int),
    }
    return Predictions(**{**parts, **changes})


def random_case(seed: int, n: int = 120, n_classes: int = 5, n_groups: int | None = None) -> Predictions:
    rng = np.random.default_rng(seed)
    changes: dict[str, Any] = {
        "probabilities": rng.dirichlet(np.ones(n_classes), n),
        "fold": rng.integers(0, 3, n),
    }
    if n_groups:
        changes["groups"] = tuple(f"artist {g}" for g in rng.integers(0, n_groups, n))
    labels = rng.integers(0, n_classes, n)
    return make(labels, labels, n_classes, **changes)


def shuffled(predictions: Predictions, seed: int) -> Predictions:
    order = np.random.default_rng(seed).permutation(len(predictions))
    return Predictions(
        predictions.classes,
        tuple(predictions.track_ids[i] for i in order),
        predictions.labels[order],
        predictions.probabilities[order],
        tuple(predictions.groups[i] for i in order),
        predictions.fold[order],
    )


def agree_with_sklearn(predictions: Predictions) -> None:
    scores = evaluate(predictions, n_bootstrap=40)
    truth, guess = predictions.labels, predictions.predicted
    numbers = list(range(len(predictions.classes)))
    assert scores.accuracy == pytest.approx(metrics.accuracy_score(truth, guess))
    assert scores.macro_f1 == pytest.approx(metrics.f1_score(truth, guess, average="macro", zero_division=0))
    by_class = metrics.precision_recall_fscore_support(truth, guess, labels=numbers, zero_division=0)
    for score, precision, recall, f1, support in zip(scores.per_class, *by_class, strict=True):
        assert (score.precision, score.recall, score.f1) == pytest.approx((precision, recall, f1))
        assert score.support == support
    assert np.array_equal(scores.confusion, metrics.confusion_matrix(truth, guess, labels=numbers))
    stray = set(guess) - set(truth)
    with pytest.warns(UserWarning, match="not in y_true") if stray else contextlib.nullcontext():
        assert scores.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(truth, guess))
    assert scores.log_loss == pytest.approx(
        metrics.log_loss(truth, predictions.probabilities, labels=numbers)
    )


# ---- scores against scikit-learn and by hand


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_classes", [2, 5, 16])
def test_scores_agree_with_sklearn(seed: int, n_classes: int) -> None:
    agree_with_sklearn(random_case(seed, n_classes=n_classes))


def test_class_never_predicted_agrees_with_sklearn() -> None:
    predictions = make([0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 0, 1], n_classes=3)
    agree_with_sklearn(predictions)
    never = evaluate(predictions).per_class[2]
    assert never == ClassScore("genre 2", precision=0.0, recall=0.0, f1=0.0, support=2)


def test_class_predicted_but_never_true_agrees_with_sklearn() -> None:
    agree_with_sklearn(make([0, 0, 1, 1], [0, 2, 1, 1], n_classes=3))


def test_class_that_occurs_nowhere_stands_in_the_table_but_not_in_the_macro_f1() -> None:
    predictions = make([0, 0, 1, 1], [0, 0, 1, 1], n_classes=3)
    agree_with_sklearn(predictions)
    scores = evaluate(predictions)
    assert scores.macro_f1 == scores.balanced_accuracy == 1.0
    assert scores.per_class[2] == ClassScore("genre 2", 0.0, 0.0, 0.0, 0)


def test_log_loss_of_a_truth_given_no_chance_agrees_with_sklearn() -> None:
    agree_with_sklearn(make([0, 1, 1], [0, 0, 1], probabilities=[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))


def test_scores_worked_by_hand() -> None:
    # Truth 0: four tracks, three right. Truth 1: two tracks, one right.
    scores = evaluate(make([0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0]))
    assert scores.confusion == ((3, 1), (1, 1))
    assert scores.accuracy == pytest.approx(4 / 6)
    assert scores.per_class[0] == ClassScore("genre 0", 0.75, 0.75, 0.75, 4)
    assert scores.per_class[1] == ClassScore("genre 1", 0.5, 0.5, 0.5, 2)
    assert scores.macro_f1 == scores.balanced_accuracy == pytest.approx(0.625)
    assert scores.log_loss == pytest.approx(-(4 * np.log(0.7) + 2 * np.log(0.3)) / 6)


def test_array_functions_by_hand() -> None:
    confusion = confusion_matrix(np.array([0, 0, 1]), np.array([0, 2, 2]), 3)
    assert confusion.tolist() == [[1, 0, 1], [0, 0, 1], [0, 0, 0]]
    precision, recall, f1 = precision_recall_f1(confusion)
    assert precision.tolist() == [1, 0, 0]
    assert recall.tolist() == [0.5, 0, 0]
    assert f1.tolist() == pytest.approx([2 / 3, 0, 0])
    assert log_loss(np.array([0]), np.array([[0.5, 0.5]])) == pytest.approx(np.log(2))


def test_of_classes_that_tie_the_first_is_predicted() -> None:
    tied = make([0, 1], [0, 0], probabilities=[[0.5, 0.5], [0.5, 0.5]])
    assert tied.predicted.tolist() == [0, 0]


# ---- the intervals


def plain_bootstrap(predictions: Predictions, n_bootstrap: int, seed: int) -> np.ndarray:
    """(R, 2) accuracy and macro-F1, the slow way: draw groups, gather their tracks, ask scikit-learn."""
    rng = np.random.default_rng(seed)
    names = sorted(set(predictions.groups))
    members = [np.flatnonzero(np.array(predictions.groups) == name) for name in names]
    truth, guess = predictions.labels, predictions.predicted
    found = []
    for _ in range(n_bootstrap):
        rows = np.concatenate([members[g] for g in rng.integers(0, len(names), len(names))])
        found.append(
            (
                metrics.accuracy_score(truth[rows], guess[rows]),
                metrics.f1_score(truth[rows], guess[rows], average="macro", zero_division=0),
            )
        )
    return np.array(found)


def test_class_absent_from_most_resamples_still_gives_an_interval() -> None:
    # One track of class 2 among 20: 36 % of the resamples hold none of it.
    labels = [0] * 10 + [1] * 9 + [2]
    scores = evaluate(make(labels, labels, n_classes=3))
    assert (scores.macro_f1_low, scores.macro_f1_high) == (1.0, 1.0)
    missed = evaluate(make(labels, [*labels[:-1], 0], n_classes=3))
    assert 0 < missed.macro_f1_low < missed.macro_f1 < missed.macro_f1_high <= 1


def simulated(rng: np.random.Generator, n_groups: int, group_size: int, spread: float) -> Predictions:
    """Two classes, 70 % right in expectation; `spread` in 0..1 is the correlation within an artist."""
    chance: Any = 0.7
    if spread:
        scale = (1 - spread) / spread  # beta-binomial: the correlation is 1 / (a + b + 1)
        chance = np.repeat(rng.beta(0.7 * scale, 0.3 * scale, n_groups), group_size)
    n = n_groups * group_size
    labels = rng.integers(0, 2, n)
    right = rng.random(n) < chance
    groups = tuple(f"artist {i // group_size}" for i in range(n))
    return make(labels, np.where(right, labels, 1 - labels), groups=groups)


@pytest.mark.parametrize(
    "predictions",
    [random_case(3, n=200, n_classes=4), simulated(np.random.default_rng(3), 25, 8, 0.4)],
    ids=["tracks", "artists"],
)
def test_interval_is_that_of_the_plain_bootstrap(predictions: Predictions) -> None:
    scores = evaluate(predictions, n_bootstrap=4000)
    low, high = np.quantile(plain_bootstrap(predictions, 800, seed=1), [0.025, 0.975], axis=0)
    found = [scores.accuracy_low, scores.macro_f1_low, scores.accuracy_high, scores.macro_f1_high]
    # The 2.5 % quantile of 800 draws has a standard error of a tenth of their deviation (0.03 to 0.05).
    assert found == pytest.approx([*low, *high], abs=0.015)


def coverage(cases: list[Predictions]) -> float:
    scores = [evaluate(case, n_bootstrap=300) for case in cases]
    return float(np.mean([score.accuracy_low <= 0.7 <= score.accuracy_high for score in scores]))


def test_interval_over_independent_tracks_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    cases = [simulated(rng, 200, 1, 0.0) for _ in range(200)]
    assert evaluate(cases[0]).interval_unit == "track"
    assert (
        0.91 <= coverage(cases) <= 0.985
    )  # 95 % +- 2.5 standard errors of 200 draws, and a percentile's bias


def test_interval_over_artists_covers_the_truth_where_that_over_tracks_does_not() -> None:
    rng = np.random.default_rng(1)
    grouped = [simulated(rng, 60, 8, 0.4) for _ in range(200)]
    ungrouped = [dataclasses.replace(case, groups=case.track_ids) for case in grouped]
    assert evaluate(grouped[0]).interval_unit == "group"
    assert 0.90 <= coverage(grouped) <= 0.985
    assert coverage(ungrouped) < 0.80


def test_interval_over_correlated_artists_is_wider() -> None:
    grouped = simulated(np.random.default_rng(2), 40, 10, 0.5)
    by_group = evaluate(grouped)
    by_track = evaluate(dataclasses.replace(grouped, groups=grouped.track_ids))
    assert (by_group.interval_unit, by_group.n_groups) == ("group", 40)
    assert (by_track.interval_unit, by_track.n_groups) == ("track", 400)
    assert by_group.accuracy == by_track.accuracy
    for score in ("accuracy", "macro_f1"):
        wide, narrow = (
            getattr(s, f"{score}_high") - getattr(s, f"{score}_low") for s in (by_group, by_track)
        )
        assert wide > 1.5 * narrow


def test_one_group_of_several_makes_the_group_the_unit() -> None:
    assert not make([0, 1, 1], [0, 1, 0]).has_groups
    assert make([0, 1, 1], [0, 1, 0], groups=("x", "x", "y")).has_groups


def test_same_seed_same_numbers_and_another_seed_others() -> None:
    predictions, other = random_case(0, n_groups=30), random_case(0, n_groups=30)
    assert evaluate(predictions) == evaluate(other)
    assert evaluate(predictions, seed=1) != evaluate(predictions, seed=0)
    rival = dataclasses.replace(predictions, probabilities=predictions.probabilities[:, ::-1])
    assert paired([predictions], [rival]) == paired([predictions], [rival])


def test_stored_scores() -> None:
    # Found by this code and stored, so that no change of the numbers goes unseen; the intervals to 0.01 only,
    # since the stream of numpy's multinomial may change between versions (NEP 19).
    scores = evaluate(random_case(0, n_groups=30), seed=0)
    assert (scores.n_tracks, scores.n_groups, scores.interval_unit) == (120, 30, "group")
    assert scores.accuracy == 21 / 120
    assert scores.macro_f1 == pytest.approx(0.173447383)
    assert [scores.accuracy_low, scores.accuracy_high] == pytest.approx([0.0917, 0.2681], abs=0.01)
    assert [scores.macro_f1_low, scores.macro_f1_high] == pytest.approx([0.0889, 0.2647], abs=0.01)


# ---- two runs


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (10, 2, 0.03857421875),  # 2 (1 + 12 + 66) / 2^12
        (2, 10, 0.03857421875),
        (5, 0, 0.0625),  # 2 / 2^5
        (6, 0, 0.03125),  # 2 / 2^6
        (9, 1, 0.021484375),  # 2 (1 + 10) / 2^10
        (4, 4, 1.0),
        (1, 0, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_by_hand(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar_p(only_a, only_b) == pytest.approx(p, rel=1e-12)


def pair_of(both: int, only_a: int, only_b: int, neither: int) -> tuple[Predictions, Predictions]:
    right_a = np.array([True] * (both + only_a) + [False] * (only_b + neither))
    right_b = np.array([True] * both + [False] * only_a + [True] * only_b + [False] * neither)
    labels = np.arange(len(right_a)) % 2
    return (
        make(labels, np.where(right_a, labels, 1 - labels)),
        make(labels, np.where(right_b, labels, 1 - labels)),
    )


def test_paired_counts_and_verdicts() -> None:
    a, b = pair_of(both=60, only_a=10, only_b=2, neither=28)
    better, worse = paired([a], [b]), paired([b], [a])
    assert (better.only_a, better.only_b, better.n_tracks) == (10, 2, 100)
    assert better.accuracy_difference == pytest.approx(0.08)
    assert evaluate(a).accuracy - evaluate(b).accuracy == pytest.approx(better.accuracy_difference)
    assert better.p_value == worse.p_value == pytest.approx(0.03857421875)
    assert 0 < better.low < 0.08 < better.high
    assert worse.low < -0.08 < worse.high < 0
    assert (better.verdict, worse.verdict) == ("better", "worse")


def test_paired_interval_is_that_of_the_normal_approximation() -> None:
    a, b = pair_of(both=500, only_a=80, only_b=40, neither=380)
    difference = paired([a], [b])
    standard_error = np.sqrt((80 + 40) - (80 - 40) ** 2 / 1000) / 1000
    expected = [0.04 - 1.96 * standard_error, 0.04 + 1.96 * standard_error]
    assert [difference.low, difference.high] == pytest.approx(expected, abs=0.002)


def test_a_run_does_not_differ_from_itself() -> None:
    a = random_case(0)
    difference = paired([a], [shuffled(a, 1)])
    assert (difference.accuracy_difference, difference.low, difference.high) == (0.0, 0.0, 0.0)
    assert (difference.only_a, difference.only_b, difference.p_value) == (0, 0, 1.0)
    assert difference.verdict == "no difference shown"


def test_verdict_asks_for_both_the_test_and_the_interval() -> None:
    # Every difference comes from one artist of twenty: McNemar is sure, the artists are not.
    a, b = pair_of(both=80, only_a=20, only_b=0, neither=100)
    groups = tuple("one" if 80 <= i < 100 else f"artist {i % 19}" for i in range(200))
    by_artist = paired(*([dataclasses.replace(run, groups=groups)] for run in (a, b)))
    assert by_artist.p_value < 0.001
    assert by_artist.low == 0.0
    assert by_artist.verdict == "no difference shown"
    assert paired([a], [b]).verdict == "better"
    unsure = dataclasses.replace(paired([a], [b]), p_value=0.05)
    assert unsure.verdict == "no difference shown"


def test_runs_equally_good_are_seldom_told_apart() -> None:
    rng = np.random.default_rng(5)
    told_apart = 0
    for _ in range(200):
        a, b = simulated(rng, 60, 4, 0.3), simulated(rng, 60, 4, 0.3)
        flipped = np.where((b.predicted == b.labels), a.labels, 1 - a.labels)
        rival = make(a.labels, flipped, groups=a.groups)
        told_apart += paired([a], [rival], n_bootstrap=200).verdict != "no difference shown"
    assert told_apart / 200 <= 0.09


def test_leak_over_the_same_tracks_is_paired() -> None:
    honest = random_case(3, n_groups=30)
    ids = list(honest.track_ids)
    right = np.eye(len(honest.classes))[honest.labels]
    leaky = Predictions(
        honest.classes, ids, honest.labels, right, honest.groups, np.zeros(len(ids), np.int64)
    )
    found = leak([leaky], [honest])
    accuracy = float((honest.predicted == honest.labels).mean())
    assert found.n_paired == len(honest)
    assert found.accuracy_difference == pytest.approx(1 - accuracy)
    assert 0 < found.low < found.accuracy_difference < found.high < 1
    # What is judged elsewhere as well changes nothing where the honest run has all its tracks in the other.
    some = range(0, len(ids), 2)
    part = Predictions(
        honest.classes,
        [ids[i] for i in some],
        honest.labels[::2],
        honest.probabilities[::2],
        [honest.groups[i] for i in some],
        np.zeros(len(some), np.int64),
    )
    assert leak([leaky], [part]).n_paired == len(some)
    assert leak([honest], [part]).accuracy_difference == 0.0


def test_leak_over_other_tracks_is_that_of_two_samples() -> None:
    labels = np.zeros(400, int)
    others = tuple(f"other{i:05d}" for i in range(400))
    a = make(labels, (np.arange(400) % 4 == 0).astype(int))
    b = make(labels, (np.arange(400) % 2 == 0).astype(int), track_ids=others, groups=others)
    found = leak([a], [b])
    assert found.n_paired == 0
    assert found.accuracy_difference == pytest.approx(0.25)
    spread = np.sqrt(0.75 * 0.25 / 400 + 0.5 * 0.5 / 400)
    assert found.low == pytest.approx(0.25 - 1.96 * spread, abs=0.012)
    assert found.high == pytest.approx(0.25 + 1.96 * spread, abs=0.012)


def seeds_of(a: Predictions, count: int, flips: int) -> list[Predictions]:
    """Runs like `a`, each with other tracks predicted otherwise."""
    runs = []
    for seed in range(count):
        other = np.random.default_rng(seed).choice(len(a), flips, replace=False)
        probabilities = a.probabilities.copy()
        probabilities[other] = probabilities[other][:, ::-1]
        runs.append(dataclasses.replace(a, probabilities=probabilities))
    return runs


def test_over_seeds_keeps_the_two_spreads_apart() -> None:
    labels = np.arange(200) % 2
    right = make(labels, labels)
    runs = seeds_of(right, 3, 40)
    found = over_seeds(runs)
    assert (found.seeds, found.accuracy, found.accuracy_deviation) == (
        3,
        pytest.approx(0.8),
        pytest.approx(0),
    )
    uneven = over_seeds([*seeds_of(right, 1, 20), *seeds_of(right, 1, 60)])
    assert uneven.accuracy == pytest.approx(0.8)
    assert uneven.accuracy_deviation == pytest.approx(np.std([0.9, 0.7], ddof=1))
    # The mean over seeds varies less over tracks than a single run does.
    single = over_seeds(runs[:1])
    assert single.accuracy_deviation is None
    assert (single.accuracy_low, single.accuracy_high) == (
        evaluate(runs[0]).accuracy_low,
        evaluate(runs[0]).accuracy_high,
    )
    assert found.accuracy_high - found.accuracy_low < single.accuracy_high - single.accuracy_low


def test_sign_flips_are_mcnemar_for_single_runs() -> None:
    for only_a, only_b in ((10, 2), (30, 18), (5, 5)):
        gain = np.array([1.0] * only_a + [-1.0] * only_b + [0.0] * 50)
        assert sign_flip_p(gain) == pytest.approx(mcnemar_p(only_a, only_b), abs=0.012)
    assert sign_flip_p(np.zeros(9)) == 1.0
    assert 0 < sign_flip_p(np.ones(500)) < 0.001


def test_systems_of_several_seeds_are_paired_by_their_means() -> None:
    labels = np.arange(300) % 2
    right = make(labels, labels)
    good, poor = seeds_of(right, 3, 30), [*seeds_of(right, 5, 120)]
    found = paired(good, poor)
    assert found.accuracy_difference == pytest.approx(0.9 - 0.6)
    assert found.low < 0.3 < found.high
    assert found.verdict == "better"
    assert paired(good, good[::-1]).accuracy_difference == 0.0
    with pytest.raises(MgcError, match="differ in the labels"):
        paired([right, dataclasses.replace(right, labels=1 - right.labels)], [right])


def test_difference_is_ready_for_json() -> None:
    plain = paired(*([run] for run in pair_of(60, 10, 2, 28))).to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["verdict"] == "better"


BASE = make([0, 1, 1, 0], [0, 1, 0, 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"classes": ("genre 0", "other")},
            r"differ in their classes; only in a: 'genre 1'; only in b: 'other'",
        ),
        ({"classes": ("genre 1", "genre 0")}, r"classes; the same names in another order"),
        (
            {"track_ids": ("t00000", "t00001", "t00002", "new")},
            r"different tracks; only in a: 't00003'; only in b: 'new'",
        ),
        ({"labels": [0, 1, 0, 0]}, r"labels of 't00002': 't00002' has 'genre 1' against 'genre 0'"),
        ({"groups": ("x", "x", "t00002", "t00003")}, r"groups of 't00000', 't00001': 't00000' has 't00000'"),
        ({"fold": [0, 0, 0, 1]}, r"folds of 't00003': 't00003' has 0 against 1"),
    ],
)
def test_paired_refuses_runs_over_different_splits(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MgcError, match=message):
        paired([BASE], [dataclasses.replace(BASE, **changes)])


def test_paired_refuses_runs_of_which_one_covers_less() -> None:
    with pytest.raises(MgcError, match=r"different tracks; only in a: 't00003'\n"):
        paired([BASE], [make([0, 1, 1], [0, 1, 0])])


# ---- order


@pytest.mark.parametrize("seed", range(3))
def test_order_of_the_tracks_changes_nothing(seed: int) -> None:
    predictions, rival = random_case(seed, n_groups=20), random_case(seed, n_groups=20)
    rival = dataclasses.replace(rival, probabilities=rival.probabilities[::-1])
    other = shuffled(predictions, seed)
    assert other == predictions
    assert hash(other) == hash(predictions)
    assert other.track_ids == tuple(sorted(predictions.track_ids))
    assert evaluate(other) == evaluate(predictions)
    assert paired([other], [rival]) == paired([predictions], [shuffled(rival, 9)])


def test_constructor_sorts_every_field() -> None:
    predictions = Predictions(
        ("a", "b"), ("z", "y", "x"), [0, 1, 1], [[1, 0], [0, 1], [0.5, 0.5]], ("g", "h", "i"), [0, 1, 2]
    )
    assert predictions.track_ids == ("x", "y", "z")
    assert predictions.labels.tolist() == [1, 1, 0]
    assert predictions.probabilities.tolist() == [[0.5, 0.5], [0, 1], [1, 0]]
    assert predictions.groups == ("i", "h", "g")
    assert predictions.fold.tolist() == [2, 1, 0]
    assert (predictions.labels.dtype, predictions.probabilities.dtype) == (np.int64, np.float64)


@pytest.mark.parametrize("what", ["labels", "probabilities", "groups", "fold", "classes"])
def test_equality_sees_every_field(what: str) -> None:
    changed = {
        "labels": [1, 1, 1, 0],
        "probabilities": BASE.probabilities[::-1],
        "groups": ("x", "x", "y", "y"),
        "fold": [0, 0, 0, 1],
        "classes": ("x", "y"),
    }
    assert dataclasses.replace(BASE, **{what: changed[what]}) != BASE
    assert BASE != "something else"


def test_arrays_are_read_only_copies() -> None:
    probabilities = np.array([[0.7, 0.3], [0.2, 0.8]])
    predictions = make([0, 1], [0, 1], probabilities=probabilities)
    probabilities[0] = [0.0, 1.0]
    assert predictions.probabilities[0].tolist() == [0.7, 0.3]
    with pytest.raises(ValueError, match="read-only"):
        predictions.probabilities[0, 0] = 1.0
    assert pickle.loads(pickle.dumps(predictions)) == predictions


# ---- refusals


def rows(**changed: list[float]) -> list[list[float]]:
    found = {"t0": [0.7, 0.3], "t1": [0.3, 0.7], "t2": [0.6, 0.4], "t3": [0.7, 0.3], **changed}
    return list(found.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("only",)}, r"at least two classes, got 1: 'only'"),
        ({"classes": ()}, r"at least two classes, got 0"),
        ({"classes": ("pop", "pop")}, r"duplicate class name: 'pop'"),
        ({"classes": ("pop", "")}, r"classes must be non-empty strings, got ''"),
        ({"track_ids": ()}, r"predictions hold no tracks"),
        ({"track_ids": ("a", "a", "b", "b")}, r"duplicate track id: 'a', 'b'"),
        ({"track_ids": (1, 2, 3, 4)}, r"track_ids must be non-empty strings, got 1, 2, 3 and 1 more"),
        ({"track_ids": "abcd"}, r"track_ids must be a sequence of strings, got the single string 'abcd'"),
        ({"groups": ("x", "y")}, r"groups holds 2 names for 4 tracks"),
        ({"groups": ("x", "y", "", None)}, r"groups must be non-empty strings, got '', None"),
        ({"labels": [0, 1]}, r"labels has shape \(2,\), must be \(4,\)"),
        ({"labels": [[0], [1], [1], [0]]}, r"labels has shape \(4, 1\), must be \(4,\)"),
        (
            {"labels": [0.0, 1.0, 1.0, 0.0]},
            r"labels must be whole numbers, got float64: 0.0, 1.0, 1.0 and 1 more",
        ),
        ({"labels": [0, 2, -1, 0]}, r"labels outside 0..1: 't00001' \(2\), 't00002' \(-1\)"),
        ({"fold": [0, 0, 0]}, r"fold has shape \(3,\), must be \(4,\)"),
        ({"fold": [0, 0, 0, -1]}, r"folds below 0: 't00003' \(-1\)"),
        ({"fold": ["a", "b", "c", "d"]}, r"fold must be whole numbers"),
        ({"probabilities": [[0.5, 0.5]]}, r"probabilities have shape \(1, 2\), must be \(4, 2\)"),
        ({"probabilities": np.full((4, 3), 1 / 3)}, r"probabilities have shape \(4, 3\), must be \(4, 2\)"),
        ({"probabilities": [[0.5, 0.5], [1.0]]}, r"probabilities are no \(tracks, classes\) array"),
        ({"probabilities": [["0.5", "0.5"]] * 4}, r"probabilities must be numbers, got <U3"),
        ({"probabilities": rows(t1=[np.nan, 1.0])}, r"NaN probabilities: 't00001' \(nan\)"),
        ({"probabilities": rows(t2=[0.0, np.inf])}, r"infinite probabilities: 't00002' \(inf\)"),
        ({"probabilities": rows(t3=[1.25, -0.25])}, r"negative probabilities: 't00003' \(-0.25\)"),
        (
            {"probabilities": [[0.7, 0.2]] * 4},
            r"sum to 1 within 0.0001: 't00000' \(0.9\), 't00001' \(0.9\), 't00002' \(0.9\) and 1 more",
        ),
        ({"probabilities": rows(t1=[0.3, 0.7002])}, r"sum to 1 within 0.0001: 't00001' \(1.0002\)"),
    ],
)
def test_constructor_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MgcError, match=message):
        dataclasses.replace(BASE, **changes)


def test_rows_within_the_tolerance_are_kept_as_they_are() -> None:
    predictions = dataclasses.replace(BASE, probabilities=rows(t1=[0.3, 0.70005]))
    assert predictions.probabilities[1].tolist() == [0.3, 0.70005]


def test_check_covers() -> None:
    BASE.check_covers(reversed(BASE.track_ids))
    with pytest.raises(MgcError, match=r"; 2 missing: 'u', 'v'; 1 foreign: 't00003'"):
        BASE.check_covers(["t00000", "t00001", "t00002", "u", "v"])
    with pytest.raises(MgcError, match=r"tracks; 5 missing: 'u0', 'u1', 'u2' and 2 more\n"):
        BASE.check_covers([*BASE.track_ids, *(f"u{i}" for i in range(5))])
    with pytest.raises(MgcError, match=r"tracks; 1 foreign: 't00000'"):
        BASE.check_covers(BASE.track_ids[1:])


def test_bootstrap_refuses_what_gives_no_interval() -> None:
    one_artist = dataclasses.replace(BASE, groups=("x",) * 4)
    for judge in (evaluate, lambda p, **more: paired([p], [p], **more)):
        with pytest.raises(MgcError, match="all tracks are of one group"):
            judge(one_artist)
        with pytest.raises(MgcError, match="n_bootstrap is 10, must be at least 40"):
            judge(BASE, n_bootstrap=10)


# ---- round trips


def test_frame_round_trip_through_parquet(tmp_path: Path) -> None:
    predictions = random_case(7, n_groups=20)
    file = tmp_path / "predictions.parquet"
    predictions.to_frame().to_parquet(file)
    assert Predictions.from_frame(pd.read_parquet(file)) == predictions


def test_frame_round_trip_through_csv_in_another_order(tmp_path: Path) -> None:
    predictions = random_case(8)
    file = tmp_path / "predictions.csv"
    predictions.to_frame().sample(frac=1, random_state=0).to_csv(file, index=False)
    assert Predictions.from_frame(pd.read_csv(file, float_precision="round_trip")) == predictions


def test_frame_columns_keep_the_order_of_the_classes() -> None:
    predictions = dataclasses.replace(BASE, classes=("Rock", "Ambient"))
    frame = predictions.to_frame()
    assert list(frame.columns) == ["track_id", "label", "group", "fold", "predicted", "p_Rock", "p_Ambient"]
    assert frame["label"].tolist() == ["Rock", "Ambient", "Ambient", "Rock"]
    assert frame["predicted"].tolist() == ["Rock", "Ambient", "Rock", "Rock"]
    assert Predictions.from_frame(frame).classes == ("Rock", "Ambient")


def test_class_named_like_the_prefix_survives() -> None:
    predictions = dataclasses.replace(BASE, classes=("p_p_", "redicted"))
    assert Predictions.from_frame(predictions.to_frame()) == predictions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns=["fold", "group"]), r"lack the columns 'group', 'fold'"),
        (lambda f: f.assign(loudness=0.0), r"unknown columns among the predictions: 'loudness'"),
        (lambda f: f.drop(columns="p_genre 1"), r"labels without a probability column: 'genre 1'"),
        (
            lambda f: f.assign(label=["genre 0", "genre 1", "genre 2", "jazz"]),
            r"column: 'genre 2', 'jazz'\n.*did",
        ),
        (
            lambda f: f.assign(label=["genre 0", None, "genre 1", "genre 0"]),
            r"label must be non-empty strings",
        ),
        (
            lambda f: f.assign(track_id=range(4)),
            r"track_id must be non-empty strings, got 0, 1, 2 and 1 more",
        ),
        (lambda f: f.assign(fold=[0, 0, 0, np.nan]), r"fold must be whole numbers"),
        (
            lambda f: f.assign(predicted="genre 1"),
            r"not the class of highest probability for 't00000', 't00002'",
        ),
        (lambda f: f.assign(**{"p_genre 0": np.nan}), r"NaN probabilities"),
        (lambda f: pd.concat([f, f]), r"duplicate track id: 't00000'"),
        (lambda f: pd.concat([f, f["fold"]], axis=1), r"duplicate column: 'fold'"),
        (lambda f: f.iloc[:0], r"predictions hold no tracks"),
    ],
)
def test_from_frame_refuses(change: Any, message: str) -> None:
    with pytest.raises(MgcError, match=message):
        Predictions.from_frame(change(BASE.to_frame()))


def test_scores_round_trip_through_json() -> None:
    scores = evaluate(random_case(1, n_groups=10))
    plain = scores.to_dict()
    assert Scores.from_dict(json.loads(json.dumps(plain, allow_nan=False))) == scores
    assert isinstance(plain["confusion"], list)
    assert list(plain["per_class"][0]) == ["label", "precision", "recall", "f1", "support"]


def test_scores_from_dict_refuses_other_keys() -> None:
    plain = evaluate(BASE).to_dict()
    with pytest.raises(MgcError, match="scores lack 'accuracy', 'log_loss'"):
        Scores.from_dict({k: v for k, v in plain.items() if k not in ("accuracy", "log_loss")})
    with pytest.raises(MgcError, match=r"scores hold unknown keys: 'macro_f2'\n.*did you mean 'macro_f1'"):
        Scores.from_dict({**plain, "macro_f2": 1.0})
    with pytest.raises(MgcError, match="per_class lack 'recall'"):
        Scores.from_dict({**plain, "per_class": [{"label": "x", "precision": 1, "f1": 1, "support": 1}]})
