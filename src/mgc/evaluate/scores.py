"""`evaluate`: the scores of one run with intervals; `over_runs`: their means over seeds and splits."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgc.evaluate.bootstrap import (
    RESAMPLES,
    Unit,
    Variance,
    between_runs,
    interval,
    resample,
    standard_error,
    unit_numbers,
    unit_of,
)
from mgc.evaluate.inference import Outcomes
from mgc.evaluate.predictions import Floats, Integers, Predictions, few
from mgc.evaluate.ranking import nan_mean, resampled_macro_auc, roc_aucs
from mgc.util.errors import MgcError, did_you_mean

BINS = 15  # of the calibration error, as in Guo et al. 2017
RANKING_RESAMPLES = 2000  # areas under ROC curves are no function of counts, so each resample costs much


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class in 0..1 (0/0 is 0), its number of test tracks, and the area under its ROC curve,
    which is None if it cannot be computed."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    roc_auc: float | None = None


@dataclass(frozen=True, kw_only=True)
class _MeanScores:
    """The scores that are averaged over runs, in 0..1; `log_loss` is in nats per track.

    *_low, *_high: 95 % bootstrap interval over artists or tracks.
    top2_accuracy: share of tracks whose class is among the two of highest probability.
    roc_auc: mean over classes, each against the rest; None if no class has one.
    log_loss, calibration_error: lower is better; the latter is of the top probability, in 15 bins.
    """

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    macro_f1: float
    macro_f1_low: float
    macro_f1_high: float
    balanced_accuracy: float
    balanced_accuracy_low: float
    balanced_accuracy_high: float
    top2_accuracy: float
    roc_auc: float | None
    roc_auc_low: float | None
    roc_auc_high: float | None
    log_loss: float
    calibration_error: float


@dataclass(frozen=True, kw_only=True)
class Scores(_MeanScores):
    """The scores of one run.

    n_groups: the number of artists (or of tracks, for unknown artists).
    interval_unit: what the bootstrap resamples.
    per_class: C entries in the order of the classes.
    confusion: (C, C) counts of tracks; rows are true classes, columns predictions.
    """

    n_tracks: int
    n_groups: int
    interval_unit: Unit
    per_class: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]

    def lines(self) -> list[str]:
        """Text for people: accuracy, macro-F1 and log loss, then one line per class."""
        over = f"95 % over {self.n_groups} {self.interval_unit}s"
        interval = f"[{self.accuracy_low:.3f}, {self.accuracy_high:.3f}] ({over})"
        width = max(len(row.label) for row in self.per_class)
        return [
            f"accuracy {self.accuracy:.3f} {interval}, macro-F1 {self.macro_f1:.3f}, "
            f"log loss {self.log_loss:.3f} nats",
            *(
                f"  {row.label:<{width}}  precision {row.precision:.2f}  recall {row.recall:.2f}  "
                f"F1 {row.f1:.2f}  of {row.support}"
                for row in self.per_class
            ),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings for JSON."""
        rows = {"per_class": [*map(asdict, self.per_class)], "confusion": [*map(list, self.confusion)]}
        return asdict(self) | rows

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Scores":
        """The inverse of `to_dict`. Raises MgcError naming missing and unknown keys."""
        _check_keys("scores", cls, plain)
        for entry in plain["per_class"]:
            _check_keys("per_class", ClassScore, entry)
        per_class = tuple(ClassScore(**entry) for entry in plain["per_class"])
        return cls(**{**plain, "per_class": per_class, "confusion": tuple(map(tuple, plain["confusion"]))})


def _check_keys(what: str, kind: type[Scores] | type[ClassScore], plain: object) -> None:
    fix = "evaluate the saved predictions again"
    if not isinstance(plain, Mapping):
        raise MgcError(f"{what} is not a mapping: {plain!r}", fix=fix)
    known = {field.name for field in fields(kind)}
    if missing := sorted(known - set(plain)):
        raise MgcError(f"{what} lack {few(missing)}", fix=fix)
    if unknown := sorted(set(plain) - known):
        raise MgcError(f"{what} hold unknown keys: {few(unknown)}", fix=did_you_mean(unknown[0], known))


def evaluate(predictions: Predictions, *, n_bootstrap: int = RESAMPLES, seed: int = 0) -> Scores:
    """Score one run, with 95 % intervals from `n_bootstrap` resamples (ROC areas: at most 2000).

    The bootstrap resamples groups if any group holds several tracks, otherwise tracks.

    Raises:
        MgcError: fewer than 40 resamples, or fewer than two groups.

    Examples:
        >>> scores = evaluate(Predictions(
        ...     classes=("pop", "rock"), track_ids=("a", "b"), labels=[0, 1],
        ...     probabilities=[[0.9, 0.1], [0.6, 0.4]], groups=("x", "y"), fold=[0, 0]))
        >>> scores.accuracy
        0.5
    """
    labels, probabilities = predictions.labels, predictions.probabilities
    confusion = confusion_matrix(labels, predictions.predicted, len(predictions.classes))  # (C, C)
    areas = roc_aucs(predictions)  # (C,)
    by_class = [values.tolist() for values in (*precision_recall_f1(confusion), confusion.sum(axis=1))]
    rows = zip(predictions.classes, *by_class, map(_none_if_nan, areas), strict=True)
    means = _means(np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0))
    return Scores(
        n_tracks=len(predictions),
        n_groups=len(set(predictions.groups)),
        interval_unit=unit_of(predictions),
        **{name: float(mean) for name, mean in means.items()},
        top2_accuracy=top2_accuracy(labels, probabilities),
        roc_auc=_none_if_nan(nan_mean(areas)),
        log_loss=log_loss(labels, probabilities),
        calibration_error=calibration_error(predictions),
        per_class=tuple(ClassScore(*row) for row in rows),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        **_intervals([predictions], np.ones(1), {}, n_bootstrap, seed),
    )


@dataclass(frozen=True, kw_only=True)
class OverRuns(_MeanScores):
    """Mean scores of runs of one system that differ in their training seed or their split.

    Every split has the same weight. Intervals include the variance between artists (or tracks), and that
    between training seeds and splits as far as runs show it.

    seeds: the number of runs on a split, the largest if splits differ.
    group_error: standard error of the accuracy from the sample of artists (or tracks).
    seed_sd: standard deviation of the accuracy between seeds on one split; None with one run on each.
    split_sd: between splits, beyond what seeds explain; None with one split. With one run on each split, it
        includes the variation between seeds.
    """

    runs: int
    seeds: int
    splits: int
    group_error: float
    seed_sd: float | None
    split_sd: float | None


def over_runs(
    runs: Sequence[Predictions],
    scores: Sequence[Scores] = (),
    *,
    splits: Sequence[str] = (),
    n_bootstrap: int = RESAMPLES,
    seed: int = 0,
) -> OverRuns:
    """Mean scores of the runs of one system, which are all on one split unless `splits` names that of each.

    `scores` are those of each run, if they are known; otherwise they are computed.

    Raises:
        MgcError: the runs differ in their tracks, labels or groups, or runs on one split in their folds.
    """
    splits = tuple(splits) or ("",) * len(runs)
    correct, unit = Outcomes.of(runs, splits).mean, unit_numbers(runs[0])
    scores = scores or [evaluate(run, n_bootstrap=n_bootstrap, seed=seed) for run in runs]
    weights = np.array([1 / splits.count(split) / len(set(splits)) for split in splits])
    values = {field.name: [getattr(score, field.name) for score in scores] for field in fields(_MeanScores)}
    means = {name: None if None in each else float(weights @ each) for name, each in values.items()}
    if len(runs) > 1:
        noise = {name: between_runs(values[name], splits)[2] for name in means if means[name] is not None}
        means |= _intervals(runs, weights, noise, n_bootstrap, seed)
    between_seeds, between_splits, _ = between_runs(values["accuracy"], splits)
    return OverRuns(
        runs=len(runs),
        seeds=max(splits.count(split) for split in splits),
        splits=len(set(splits)),
        group_error=float(standard_error(np.bincount(unit, correct), np.bincount(unit))),
        seed_sd=None if between_seeds is None else between_seeds**0.5,
        split_sd=None if between_splits is None else between_splits**0.5,
        **means,  # type: ignore[arg-type]
    )


def _intervals(
    runs: Sequence[Predictions], weights: Floats, noise: Mapping[str, Variance], n_bootstrap: int, seed: int
) -> dict[str, Any]:
    """`<score>_low` and `<score>_high` of the weighted means over (S,) runs, all on the same resamples.

    `noise` is the variance between runs of the mean of each score.
    """
    counts = np.stack([_counts_by_unit(run) for run in runs], axis=1)  # (U, S, 3, C)
    drawn = [_means(*np.moveaxis(sums, 2, 0)) for sums in resample(counts, n_bootstrap, seed)]  # (r, S) each
    resampled = {name: np.concatenate([part[name] @ weights for part in drawn]) for name in drawn[0]}
    rankings = min(n_bootstrap, RANKING_RESAMPLES)
    resampled["roc_auc"] = weights @ [resampled_macro_auc(run, rankings, seed) for run in runs]
    intervals: dict[str, Any] = {}
    for name, values in resampled.items():
        known = values[~np.isnan(values)]
        ends = interval(known, len(counts), noise.get(name, (0.0, 1)), seed) if len(known) else (None, None)
        intervals |= dict(zip((f"{name}_low", f"{name}_high"), ends, strict=True))
    return intervals


def confusion_matrix(labels: Integers, predicted: Integers, n_classes: int) -> Integers:
    """(N,) true and (N,) predicted class numbers to (C, C) counts; rows are true classes."""
    counts = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def precision_recall_f1(confusion: Integers) -> tuple[Floats, Floats, Floats]:
    """(C, C) counts to (C,) precision, recall and F1 of each class; 0/0 is 0."""
    hits, support, guesses = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return _ratio(hits, guesses), _ratio(hits, support), _ratio(2 * hits, support + guesses)


def log_loss(labels: Integers, probabilities: Floats) -> float:
    """(N,) class numbers and (N, C) probabilities to the mean of -log(probability of the class), in nats.

    Probabilities below 2.2e-16 count as 2.2e-16, as in scikit-learn.
    """
    of_label = probabilities[np.arange(len(labels)), labels]  # (N,)
    tiny = np.finfo(np.float64).eps  # the clip of sklearn.metrics.log_loss
    return float(-np.log(np.clip(of_label, tiny, 1 - tiny)).mean())


def top2_accuracy(labels: Integers, probabilities: Floats) -> float:
    """(N,) class numbers and (N, C) probabilities to the share of tracks in their two likeliest classes.

    The first of several classes that tie is taken, as for the accuracy (scikit-learn takes the last).
    """
    likeliest = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    return float((likeliest == labels[:, None]).any(axis=1).mean())


class Bin(NamedTuple):
    """The tracks whose top probability is in (low, high]: number, mean probability and accuracy."""

    low: float
    high: float
    tracks: int
    confidence: float
    accuracy: float


def reliability(predictions: Predictions) -> list[Bin]:
    """The non-empty ones of 15 bins of equal width, for a reliability diagram (Guo et al. 2017)."""
    top = predictions.probabilities.max(axis=1)  # (N,)
    correct = predictions.predicted == predictions.labels
    edges = np.linspace(0, 1, BINS + 1)
    numbers = np.searchsorted(edges[1:-1], top, side="left")  # (N,)
    bins = []
    for number in np.unique(numbers):
        inside = numbers == number
        low, high = edges[number : number + 2].tolist()
        means = float(top[inside].mean()), float(correct[inside].mean())
        bins.append(Bin(low, high, int(inside.sum()), *means))
    return bins


def calibration_error(predictions: Predictions) -> float:
    """Mean gap between confidence and accuracy in the bins of `reliability`, weighted by tracks."""
    gaps = [entry.tracks * abs(entry.confidence - entry.accuracy) for entry in reliability(predictions)]
    return float(sum(gaps) / len(predictions))


def _counts_by_unit(predictions: Predictions) -> Floats:
    """(U, 3, C): correct predictions, tracks and predictions of each class in each resampling unit."""
    unit, labels, predicted = unit_numbers(predictions), predictions.labels, predictions.predicted
    counts = np.zeros((int(unit.max()) + 1, 3, len(predictions.classes)))
    for kind, classes, weights in ((0, labels, predicted == labels), (1, labels, 1), (2, predicted, 1)):
        np.add.at(counts[:, kind], (unit, classes), weights)
    return counts


def _means(hits: NDArray[Any], support: NDArray[Any], guesses: NDArray[Any]) -> dict[str, Floats]:
    """The means over classes of (..., C) correct predictions, tracks and predictions of each class: (...)."""
    occurs = support + guesses > 0  # (..., C)
    f1 = _ratio(2 * hits, support + guesses)  # (..., C)
    return {
        "accuracy": hits.sum(axis=-1) / support.sum(axis=-1),
        "macro_f1": f1.sum(axis=-1) / occurs.sum(axis=-1),
        "balanced_accuracy": _ratio(hits, support).sum(axis=-1) / (support > 0).sum(axis=-1),
    }


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> Floats:
    """The quotient; 0/0 is 0."""
    return np.divide(numerator, denominator, out=np.zeros(denominator.shape), where=denominator > 0)


def _none_if_nan(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
