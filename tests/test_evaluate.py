"""Predictions and scores: scikit-learn, hand calculations, refusals."""

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

from mgc.evaluate import (
    ClassScore,
    Predictions,
    Scores,
    calibration_error,
    compare_runs,
    confusion_matrix,
    evaluate,
    log_loss,
    over_runs,
    precision_recall_f1,
    reliability,
    roc_aucs,
    roc_curves,
)
from mgc.util.errors import MgcError


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
    assert never == ClassScore("genre 2", precision=0.0, recall=0.0, f1=0.0, support=2, roc_auc=0.5)


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
    assert scores.per_class[0] == ClassScore("genre 0", 0.75, 0.75, 0.75, 4, 0.625)
    assert scores.per_class[1] == ClassScore("genre 1", 0.5, 0.5, 0.5, 2, 0.625)
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


# ---- ranking and calibration


@pytest.mark.parametrize("n_classes", [2, 6])
def test_areas_and_top_2_agree_with_sklearn(n_classes: int) -> None:
    case = dataclasses.replace(random_case(2, n_classes=n_classes), fold=np.zeros(120, int))
    # Rounded, so that many tracks tie.
    tied = np.round(case.probabilities, 1) + 1e-9
    case = dataclasses.replace(case, probabilities=tied / tied.sum(axis=1, keepdims=True))
    scores = evaluate(case, n_bootstrap=40)
    for k, score in enumerate(scores.per_class):
        area = metrics.roc_auc_score(case.labels == k, case.probabilities[:, k])
        assert score.roc_auc == pytest.approx(area)
        assert metrics.auc(*roc_curves(case)[score.label]) == pytest.approx(area)
    if n_classes > 2:
        truth, given = case.labels, case.probabilities
        macro = metrics.roc_auc_score(truth, given, multi_class="ovr", average="macro")
        assert scores.roc_auc == pytest.approx(macro)
        untied = random_case(2, n_classes=n_classes)
        top = metrics.top_k_accuracy_score(untied.labels, untied.probabilities, k=2, labels=range(n_classes))
        assert evaluate(untied, n_bootstrap=40).top2_accuracy == pytest.approx(top)


def test_areas_are_means_over_folds_and_a_constant_has_one_half() -> None:
    # Each fold's model ranks its tracks perfectly, the second with lower probabilities of genre 1 throughout.
    given = np.array([0.6, 0.8, 0.9, 0.1, 0.2, 0.3])
    both = make(
        [0, 1, 1, 0, 1, 1], [0] * 6, probabilities=np.stack([1 - given, given], 1), fold=[0, 0, 0, 1, 1, 1]
    )
    assert evaluate(both, n_bootstrap=40).roc_auc == 1.0
    assert evaluate(dataclasses.replace(both, fold=np.zeros(6, int)), n_bootstrap=40).roc_auc == 0.75
    case = random_case(4)
    areas = [
        [metrics.roc_auc_score(case.labels[rows] == k, case.probabilities[rows, k]) for k in range(5)]
        for rows in (case.fold == fold for fold in range(3))
    ]
    assert roc_aucs(case) == pytest.approx(np.mean(areas, axis=0))
    for name, area in zip(case.classes, roc_aucs(case), strict=True):
        fpr, tpr = roc_curves(case)[name]
        assert metrics.auc(fpr, tpr) == pytest.approx(area, abs=0.005)
        assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    # What a majority floor says: other shares in each fold.
    shares = np.array([[0.6, 0.4], [0.4, 0.6]])[both.fold]
    floor = evaluate(dataclasses.replace(both, probabilities=shares))
    assert (floor.roc_auc, floor.roc_auc_low, floor.roc_auc_high) == (0.5, 0.5, 0.5)


@pytest.mark.filterwarnings("error")
def test_classes_and_folds_without_tracks_have_no_area_and_raise_nothing() -> None:
    case = make([0, 0, 1, 1, 1], [0, 1, 1, 1, 0], n_classes=3, fold=[0, 0, 0, 0, 1])
    scores = evaluate(case)
    assert [s.roc_auc is None for s in scores.per_class] == [False, False, True]
    assert list(roc_curves(case)) == ["genre 0", "genre 1"]
    one_class = make([0, 0, 0], [0, 1, 0])
    scores = evaluate(one_class)
    assert (scores.roc_auc, scores.roc_auc_low, scores.roc_auc_high, roc_curves(one_class)) == (
        None,
        None,
        None,
        {},
    )
    assert Scores.from_dict(json.loads(json.dumps(scores.to_dict(), allow_nan=False))) == scores
    assert over_runs([one_class, one_class]).roc_auc is None


def test_calibration_by_hand() -> None:
    top = np.array(
        [0.95, 0.97, 0.7, 0.8, 1.0]
    )  # bins of 1/15: the 15th, the 15th, the 11th, the 12th, the 15th
    case = make([0, 1, 0, 0, 0], [0] * 5, probabilities=np.stack([top, 1 - top], axis=1))
    bins = reliability(case)
    assert [(b.tracks, b.accuracy) for b in bins] == [(1, 1.0), (1, 1.0), (3, pytest.approx(2 / 3))]
    assert (bins[1].low, bins[1].high) == pytest.approx((11 / 15, 12 / 15))  # its upper edge belongs to a bin
    assert bins[2].confidence == pytest.approx((0.95 + 0.97 + 1) / 3)
    gaps = [1 - 0.7, 1 - 0.8, abs(2 / 3 - bins[2].confidence)]
    assert calibration_error(case) == pytest.approx((gaps[0] + gaps[1] + 3 * gaps[2]) / 5)
    assert evaluate(case).calibration_error == calibration_error(case)
    even = make([0, 1] * 50, [0] * 100, probabilities=np.full((100, 2), 0.5))
    assert calibration_error(even) == 0.0


# ---- the intervals


def plain_bootstrap(predictions: Predictions, n_bootstrap: int, seed: int) -> np.ndarray:
    """(R, 4) scores, the slow way: draw groups, gather their tracks, ask scikit-learn."""
    rng = np.random.default_rng(seed)
    names = sorted(set(predictions.groups))
    members = [np.flatnonzero(np.array(predictions.groups) == name) for name in names]
    found = []
    for _ in range(n_bootstrap):
        rows = np.concatenate([members[g] for g in rng.integers(0, len(names), len(names))])
        truth, guess, given = (
            x[rows] for x in (predictions.labels, predictions.predicted, predictions.probabilities)
        )
        areas = [metrics.roc_auc_score(truth == k, given[:, k]) for k in range(given.shape[1])]
        found.append(
            (
                metrics.accuracy_score(truth, guess),
                metrics.f1_score(truth, guess, average="macro", zero_division=0),
                metrics.balanced_accuracy_score(truth, guess),
                np.mean(areas),
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
    predictions = dataclasses.replace(predictions, fold=np.zeros(200, int))
    scores = evaluate(predictions, n_bootstrap=2000)
    low, high = np.quantile(plain_bootstrap(predictions, 100, seed=1), [0.025, 0.975], axis=0)
    names = ("accuracy", "macro_f1", "balanced_accuracy", "roc_auc")
    found = [getattr(scores, f"{name}_{end}") for end in ("low", "high") for name in names]
    # The 2.5 % quantile of 100 draws has a standard error of a quarter of their deviation (0.02 to 0.05).
    assert found == pytest.approx([*low, *high], abs=0.03)


def coverage(cases: list[Predictions]) -> float:
    scores = [evaluate(case, n_bootstrap=150) for case in cases]
    return float(np.mean([score.accuracy_low <= 0.7 <= score.accuracy_high for score in scores]))


def test_interval_over_independent_tracks_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    cases = [simulated(rng, 200, 1, 0.0) for _ in range(120)]
    assert evaluate(cases[0]).interval_unit == "track"
    assert 0.89 <= coverage(cases) <= 0.995  # 95 % +- 2.5 standard errors of 120 draws, a percentile's bias


def test_interval_over_artists_covers_the_truth_where_that_over_tracks_does_not() -> None:
    rng = np.random.default_rng(1)
    grouped = [simulated(rng, 60, 8, 0.4) for _ in range(120)]
    ungrouped = [dataclasses.replace(case, groups=case.track_ids) for case in grouped]
    assert evaluate(grouped[0]).interval_unit == "group"
    assert 0.88 <= coverage(grouped) <= 0.995
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
    assert compare_runs([predictions], [rival]) == compare_runs([predictions], [rival])


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


def seeds_of(a: Predictions, count: int, flips: int) -> list[Predictions]:
    """Runs like `a`, each with other tracks predicted otherwise."""
    runs = []
    for seed in range(count):
        other = np.random.default_rng(seed).choice(len(a), flips, replace=False)
        probabilities = a.probabilities.copy()
        probabilities[other] = probabilities[other][:, ::-1]
        runs.append(dataclasses.replace(a, probabilities=probabilities))
    return runs


def test_over_runs_keeps_the_two_spreads_apart() -> None:
    labels = np.arange(200) % 2
    right = make(labels, labels)
    runs = seeds_of(right, 3, 40)
    found = over_runs(runs)
    assert (found.seeds, found.accuracy, found.seed_sd) == (
        3,
        pytest.approx(0.8),
        pytest.approx(0),
    )
    uneven = over_runs([*seeds_of(right, 1, 20), *seeds_of(right, 1, 60)])
    assert uneven.accuracy == pytest.approx(0.8)
    assert uneven.seed_sd == pytest.approx(np.std([0.9, 0.7], ddof=1))
    # The mean over seeds varies less over tracks than a single run does.
    single = over_runs(runs[:1])
    assert single.seed_sd is None
    assert (single.accuracy_low, single.accuracy_high) == (
        evaluate(runs[0]).accuracy_low,
        evaluate(runs[0]).accuracy_high,
    )
    assert found.accuracy_high - found.accuracy_low < single.accuracy_high - single.accuracy_low


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
        ({"labels": [0, 1, 0, 0]}, r"labels of 't00002': 't00002' has 'genre 1' and 'genre 0'"),
        ({"groups": ("x", "x", "t00002", "t00003")}, r"groups of 't00000', 't00001': 't00000' has 't00000'"),
        ({"fold": [0, 0, 0, 1]}, r"folds of 't00003': 't00003' has 0 and 1"),
    ],
)
def test_compare_refuses_runs_over_different_splits(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MgcError, match=message):
        compare_runs([BASE], [dataclasses.replace(BASE, **changes)])


def test_compare_refuses_runs_of_which_one_covers_less() -> None:
    with pytest.raises(MgcError, match=r"different tracks; only in a: 't00003'\n"):
        compare_runs([BASE], [make([0, 1, 1], [0, 1, 0])])


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
    assert compare_runs([other], [rival]) == compare_runs([predictions], [shuffled(rival, 9)])


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
            r"labels must be integers, got float64: 0.0, 1.0, 1.0 and 1 more",
        ),
        ({"labels": [0, 2, -1, 0]}, r"labels outside 0..1: 't00001' \(2\), 't00002' \(-1\)"),
        ({"fold": [0, 0, 0]}, r"fold has shape \(3,\), must be \(4,\)"),
        ({"fold": [0, 0, 0, -1]}, r"folds below 0: 't00003' \(-1\)"),
        ({"fold": ["a", "b", "c", "d"]}, r"fold must be integers"),
        ({"probabilities": [[0.5, 0.5]]}, r"probabilities have shape \(1, 2\), must be \(4, 2\)"),
        ({"probabilities": np.full((4, 3), 1 / 3)}, r"probabilities have shape \(4, 3\), must be \(4, 2\)"),
        ({"probabilities": [[0.5, 0.5], [1.0]]}, r"probabilities are not a \(tracks, classes\) array"),
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
    with pytest.raises(MgcError, match=r"; 2 missing: 'u', 'v'; 1 unexpected: 't00003'"):
        BASE.check_covers(["t00000", "t00001", "t00002", "u", "v"])
    with pytest.raises(MgcError, match=r"tracks; 5 missing: 'u0', 'u1', 'u2' and 2 more\n"):
        BASE.check_covers([*BASE.track_ids, *(f"u{i}" for i in range(5))])
    with pytest.raises(MgcError, match=r"tracks; 1 unexpected: 't00000'"):
        BASE.check_covers(BASE.track_ids[1:])


def test_bootstrap_refuses_what_gives_no_interval() -> None:
    one_artist = dataclasses.replace(BASE, groups=("x",) * 4)
    with pytest.raises(MgcError, match="all tracks belong to one group"):
        evaluate(one_artist)
    with pytest.raises(MgcError, match="all test tracks belong to one group"):
        compare_runs([one_artist], [one_artist])
    with pytest.raises(MgcError, match="n_bootstrap is 10, must be at least 40"):
        evaluate(BASE, n_bootstrap=10)


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
        (lambda f: f.assign(loudness=0.0), r"unknown columns in the predictions: 'loudness'"),
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
        (lambda f: f.assign(fold=[0, 0, 0, np.nan]), r"fold must be integers"),
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
    assert list(plain["per_class"][0]) == ["label", "precision", "recall", "f1", "support", "roc_auc"]


def test_scores_from_dict_refuses_other_keys() -> None:
    plain = evaluate(BASE).to_dict()
    with pytest.raises(MgcError, match="scores lack 'accuracy', 'log_loss'"):
        Scores.from_dict({k: v for k, v in plain.items() if k not in ("accuracy", "log_loss")})
    with pytest.raises(MgcError, match=r"scores hold unknown keys: 'macro_f2'\n.*did you mean 'macro_f1'"):
        Scores.from_dict({**plain, "macro_f2": 1.0})
    with pytest.raises(MgcError, match="per_class lack 'recall'"):
        Scores.from_dict({**plain, "per_class": [{"label": "x", "precision": 1, "f1": 1, "support": 1}]})
