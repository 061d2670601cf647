"""`evaluate`: how good a run was, with intervals; and the mean of runs that differ in their seed alone."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgc.evaluate.bootstrap import Unit, interval, resample, unit_numbers, unit_of
from mgc.evaluate.calibration import calibration_error
from mgc.evaluate.predictions import Floats, Integers, Predictions, check_same_split, few
from mgc.evaluate.ranking import mean_of_known, resampled_macro_auc, roc_aucs
from mgc.util.errors import MgcError, did_you_mean


@dataclass(frozen=True)
class ClassScore:
    """One class: precision, recall and F1 in 0..1 (0/0 is 0), how many test tracks truly are of it, and the
    area under its ROC curve, None where there is none."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    roc_auc: float | None = None


@dataclass(frozen=True)
class Scores:
    """How good one run was. All scores lie in 0..1; `log_loss` is in nats a track. Of `log_loss` and
    `calibration_error` lower is better.

    n_groups: how many artists (or tracks of unknown artist) stand behind the n_tracks.
    *_low, *_high: 95 % percentile bootstrap over `interval_unit`.
    top2_accuracy: the truth is among the two classes of highest probability; 1 where there are but two.
    roc_auc: mean over classes, each against the rest; None where no class has one.
    calibration_error: expected, of the top probability, in 15 bins of equal width.
    per_class: C entries in the order of the classes.
    confusion: (C, C) counts of tracks; rows are the truth, columns the prediction.
    """

    n_tracks: int
    n_groups: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    macro_f1: float
    macro_f1_low: float
    macro_f1_high: float
    interval_unit: Unit
    balanced_accuracy: float
    balanced_accuracy_low: float
    balanced_accuracy_high: float
    top2_accuracy: float
    roc_auc: float | None
    roc_auc_low: float | None
    roc_auc_high: float | None
    log_loss: float
    calibration_error: float
    per_class: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]

    def lines(self) -> list[str]:
        """For a person: accuracy, macro-F1 and log loss, then a line a class."""
        unit = "artists" if self.interval_unit == "group" else "tracks"
        interval = f"[{self.accuracy_low:.3f}, {self.accuracy_high:.3f}] (95 % over {self.n_groups} {unit})"
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
        """Plain dicts, lists, numbers and strings, ready for JSON."""
        plain = asdict(self)
        plain["per_class"] = list(plain["per_class"])
        plain["confusion"] = [list(row) for row in self.confusion]
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Scores":
        """The inverse of `to_dict`. Raises MgcError naming missing and unknown keys."""
        _check_keys("scores", cls, plain)
        for entry in plain["per_class"]:
            _check_keys("per_class", ClassScore, entry)
        per_class = tuple(ClassScore(**entry) for entry in plain["per_class"])
        confusion = tuple(tuple(row) for row in plain["confusion"])
        return cls(**{**plain, "per_class": per_class, "confusion": confusion})


def _check_keys(what: str, kind: type[Scores] | type[ClassScore], plain: object) -> None:
    if not isinstance(plain, Mapping):
        raise MgcError(f"{what} hold no names: {plain!r}", fix="score the saved predictions again")
    known = {field.name for field in fields(kind)}
    missing, unknown = sorted(known - set(plain)), sorted(set(plain) - known)
    if missing:
        raise MgcError(f"{what} lack {few(missing)}", fix="score the saved predictions again")
    if unknown:
        raise MgcError(f"{what} hold unknown keys: {few(unknown)}", fix=did_you_mean(unknown[0], known))


def evaluate(predictions: Predictions, *, n_bootstrap: int = 2000, seed: int = 0) -> Scores:
    """Score one run, with 95 % intervals from `n_bootstrap` resamples drawn by `seed`.

    Whole groups are drawn where any group holds several tracks, else single tracks. The log loss takes a
    probability of 0 for 2.2e-16, as scikit-learn does.

    Raises MgcError for fewer than 40 resamples, and where there are fewer than two groups to draw from.
    """
    n_classes = len(predictions.classes)
    confusion = confusion_matrix(predictions.labels, predictions.predicted, n_classes)  # (C, C)
    precision, recall, f1 = precision_recall_f1(confusion)  # (C,) each
    hits, support, guesses = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    areas = roc_aucs(predictions)  # (C,)

    return Scores(
        n_tracks=len(predictions),
        n_groups=len(set(predictions.groups)),
        accuracy=float(_accuracy(hits, support)),
        macro_f1=float(_macro_f1(hits, support, guesses)),
        interval_unit=unit_of(predictions),
        balanced_accuracy=float(_balanced_accuracy(hits, support)),
        top2_accuracy=top2_accuracy(predictions.labels, predictions.probabilities),
        roc_auc=_or_none(mean_of_known(areas)),
        log_loss=log_loss(predictions.labels, predictions.probabilities),
        calibration_error=calibration_error(predictions),
        per_class=tuple(
            ClassScore(
                name, float(precision[k]), float(recall[k]), float(f1[k]), int(support[k]), _or_none(areas[k])
            )
            for k, name in enumerate(predictions.classes)
        ),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        **_intervals([predictions], n_bootstrap, seed),
    )


@dataclass(frozen=True)
class OverSeeds:
    """Runs of one system that differ in nothing but their seed: the means of their `Scores` over the seeds.

    accuracy_deviation: the sample deviation of the accuracy over the seeds, None for a single one.
    *_low, *_high: 95 % bootstrap over artists or tracks of the mean over the seeds: how far it would move
        with other tracks, which is another question.
    """

    seeds: int
    accuracy: float
    accuracy_deviation: float | None
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


def over_seeds(
    runs: Sequence[Predictions], scores: Sequence[Scores] = (), *, n_bootstrap: int = 2000, seed: int = 0
) -> OverSeeds:
    """Mean and deviation over seeds, and the intervals over tracks of the means.

    scores: of each run, where they are known; else they are found here.

    Raises MgcError as `paired` does where the runs do not stand on the same split.
    """
    for other in runs[1:]:
        check_same_split(runs[0], other)
    scores = scores or [evaluate(run, n_bootstrap=n_bootstrap, seed=seed) for run in runs]
    taken = [field.name for field in fields(OverSeeds) if field.name in {f.name for f in fields(Scores)}]
    each = {name: [getattr(score, name) for score in scores] for name in taken}
    means = {name: None if None in values else float(np.mean(values)) for name, values in each.items()}
    if len(runs) > 1:
        means |= _intervals(runs, n_bootstrap, seed)
    deviation = float(np.std(each["accuracy"], ddof=1)) if len(runs) > 1 else None
    return OverSeeds(seeds=len(runs), accuracy_deviation=deviation, **means)  # type: ignore[arg-type]


def _intervals(runs: Sequence[Predictions], n_bootstrap: int, seed: int) -> dict[str, Any]:
    """`<score>_low` and `<score>_high` of the means over runs of one split, the same tracks drawn for all."""
    counts = np.stack([_counts_by_unit(run) for run in runs], axis=1)  # (U, S, 3, C)
    hits, support, guesses = np.moveaxis(resample(counts, n_bootstrap, seed), 2, 0)  # (R, S, C) each
    resampled = {
        "accuracy": _accuracy(hits, support).mean(axis=1),
        "macro_f1": _macro_f1(hits, support, guesses).mean(axis=1),
        "balanced_accuracy": _balanced_accuracy(hits, support).mean(axis=1),
        "roc_auc": np.mean([resampled_macro_auc(run, n_bootstrap, seed) for run in runs], axis=0),
    }
    found: dict[str, Any] = {}
    for name, values in resampled.items():
        known = values[~np.isnan(values)]
        low, high = interval(known) if len(known) else (None, None)
        found |= {f"{name}_low": low, f"{name}_high": high}
    return found


def confusion_matrix(labels: Integers, predicted: Integers, n_classes: int) -> Integers:
    """(N,) truths and (N,) predictions to (C, C) counts; rows are the truth, columns the prediction."""
    cells = np.bincount(labels * n_classes + predicted, minlength=n_classes * n_classes)
    return cells.reshape(n_classes, n_classes).astype(np.int64)


def precision_recall_f1(confusion: Integers) -> tuple[Floats, Floats, Floats]:
    """(C, C) counts to (C,) precision, (C,) recall and (C,) F1 a class, with 0/0 taken as 0."""
    hits, support, guesses = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return _ratio(hits, guesses), _ratio(hits, support), _ratio(2 * hits, support + guesses)


def log_loss(labels: Integers, probabilities: Floats) -> float:
    """(N,) truths and (N, C) probabilities to the mean of -log(probability of the truth), in nats a track.

    A probability below 2.2e-16 counts as 2.2e-16.
    """
    of_truth = probabilities[np.arange(len(labels)), labels]  # (N,)
    tiny = np.finfo(np.float64).eps  # the clip of sklearn.metrics.log_loss
    return float(-np.log(np.clip(of_truth, tiny, 1 - tiny)).mean())


def top2_accuracy(labels: Integers, probabilities: Floats) -> float:
    """(N,) truths and (N, C) probabilities to the share whose truth is among the two likeliest classes.

    Of classes that tie the first come first, as in the accuracy (scikit-learn takes the last).
    """
    likeliest = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    return float((likeliest == labels[:, None]).any(axis=1).mean())


def _counts_by_unit(predictions: Predictions) -> Floats:
    """(U, 3, C): a unit's right predictions, true tracks and predictions of each class."""
    unit, labels, predicted = unit_numbers(predictions), predictions.labels, predictions.predicted
    n_units, n_classes = int(unit.max()) + 1, len(predictions.classes)

    def count(of_class: Integers, weights: Floats | None = None) -> Floats:
        cells = np.bincount(unit * n_classes + of_class, weights, minlength=n_units * n_classes)
        return cells.reshape(n_units, n_classes).astype(np.float64)  # (U, C)

    right = (predicted == labels).astype(np.float64)  # (N,)
    return np.stack([count(labels, right), count(labels), count(predicted)], axis=1)  # (U, 3, C)


def _accuracy(hits: NDArray[Any], support: NDArray[Any]) -> Floats:
    """(..., C) counts a class to (...) accuracies."""
    return np.asarray(hits.sum(axis=-1) / support.sum(axis=-1), dtype=np.float64)


def _balanced_accuracy(hits: NDArray[Any], support: NDArray[Any]) -> Floats:
    """(..., C) counts a class to (...) means of recall over the classes that occur in truth."""
    return np.asarray(_ratio(hits, support).sum(axis=-1) / (support > 0).sum(axis=-1), dtype=np.float64)


def _macro_f1(hits: NDArray[Any], support: NDArray[Any], guesses: NDArray[Any]) -> Floats:
    """(..., C) counts a class to (...) means of F1 over the classes that occur in truth or prediction."""
    occurs = support + guesses > 0  # (..., C)
    f1 = _ratio(2 * hits, support + guesses)  # (..., C)
    return np.asarray(f1.sum(axis=-1) / occurs.sum(axis=-1), dtype=np.float64)


def _ratio(over: NDArray[Any], under: NDArray[Any]) -> Floats:
    result = np.zeros(np.shape(under), dtype=np.float64)
    np.divide(over, under, out=result, where=under > 0)
    return result


def _or_none(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
