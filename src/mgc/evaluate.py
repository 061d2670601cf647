"""Predictions in, numbers out: scores with intervals, and the paired comparison of two runs.

Conventions
-----------
* The unit is the track. Windows or segments have been averaged before they get here.
* `classes` is ordered and a label is an index into it. The predicted class is the one of highest probability;
  of several that tie, the first.
* A class stands in the macro-F1 if it occurs among the truths or the predictions, as scikit-learn has it by
  default: a class of which the test side holds nothing, and which nobody predicts, does not count. Elsewhere
  0/0 is 0 (scikit-learn's `zero_division=0`). Balanced accuracy is the mean recall of the classes that occur
  among the truths.
* Tracks of several folds are pooled and then scored, rather than scored and then averaged: the mean of an F1
  over folds is biased when classes are rare (Forman & Scholz 2010).
* Every interval is a 95 % percentile bootstrap (Efron & Tibshirani 1993, chapter 13). Tracks of one artist
  resemble one another, so whole groups (artists) are drawn wherever a group holds several tracks (the cluster
  bootstrap: Field & Welsh 2007), and single tracks only where none does.
* The intervals say how far the number would move with other test tracks. They do not hold the spread of
  training again with another seed: `over_seeds` gives that beside them, as a deviation. With few groups
  (below about 30) they are too narrow, and a run that errs nowhere has an interval of width nought.
* Order does not matter: `Predictions` sorts itself by track id, so the same tracks in any order are equal,
  pair up and give the same numbers for the same seed.

Sources
-------
Dietterich, "Approximate Statistical Tests for Comparing Supervised Classification Learning Algorithms",
Neural Computation 10(7), 1998. Efron & Tibshirani, "An Introduction to the Bootstrap", Chapman & Hall, 1993.
Field & Welsh, "Bootstrapping clustered data", Journal of the Royal Statistical Society B 69(3), 2007.
Forman & Scholz, "Apples-to-Apples in Cross-Validation Studies", SIGKDD Explorations 12(1), 2010.
McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
Psychometrika 12(2), 1947. Phipson & Smyth, "Permutation P-values Should Never Be Zero", Statistical
Applications in Genetics and Molecular Biology 9(1), 2010.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from mgc.config import MgcError, did_you_mean

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Unit = Literal["group", "track"]
Verdict = Literal["better", "worse", "no difference shown"]

ROW_SUM_TOLERANCE = 1e-4  # a float32 softmax over hundreds of classes stays well within it
CONFIDENCE = 0.95
SIGNIFICANCE = 0.05
SIGN_FLIPS = 10_000
LEAST_RESAMPLES = 40  # 1 / 0.025: fewer leave no whole resample beyond either end of the interval
NAMED_IN_ERRORS = 3

FRAME_COLUMNS = ("track_id", "label", "group", "fold", "predicted")
PROBABILITY_PREFIX = "p_"


# ---- what is judged


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model said of N test tracks, over C classes; checked, sorted by track id and read-only.

    classes: the C class names in order; the index is the class number.
    track_ids: N distinct ids.
    labels: (N,) int64, the true class numbers.
    probabilities: (N, C) float64; every row sums to 1 within 1e-4. Rows are never rescaled.
    groups: N names; the artist, or the track's own id where the artist is unknown.
    fold: (N,) int64 from 0, the fold on whose test side the track stood; 0 for a single holdout.

    Raises MgcError, naming the first few offenders, for: no tracks, fewer than two classes, duplicate or
    empty names or ids, wrong shapes, lengths or kinds, labels or folds out of range, probabilities that are
    negative, infinite or NaN, and rows that do not sum to 1.
    """

    classes: tuple[str, ...]
    track_ids: tuple[str, ...]
    labels: Integers
    probabilities: Floats
    groups: tuple[str, ...]
    fold: Integers

    def __post_init__(self) -> None:
        classes = _names("classes", self.classes)
        if len(classes) < 2:
            raise MgcError(f"predictions need at least two classes, got {len(classes)}: {_few(classes)}")
        _refuse_duplicates("class name", classes)

        track_ids = _names("track_ids", self.track_ids)
        n_tracks = len(track_ids)
        if n_tracks == 0:
            raise MgcError("predictions hold no tracks", fix="is the test side of the split empty?")
        _refuse_duplicates("track id", track_ids, fix="average the windows of a track before judging it")

        groups = _names("groups", self.groups)
        if len(groups) != n_tracks:
            raise MgcError(f"groups holds {len(groups)} names for {n_tracks} tracks")
        labels = _class_numbers(self.labels, track_ids, len(classes))
        fold = _fold_numbers(self.fold, track_ids)
        probabilities = _probabilities(self.probabilities, track_ids, len(classes))

        order = sorted(range(n_tracks), key=track_ids.__getitem__)
        checked: dict[str, Any] = {
            "classes": classes,
            "track_ids": tuple(track_ids[i] for i in order),
            "labels": labels[order],
            "probabilities": probabilities[order],
            "groups": tuple(groups[i] for i in order),
            "fold": fold[order],
        }
        for name, value in checked.items():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)  # fancy indexing made a copy: the caller's array stays as it was
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Predictions):
            return NotImplemented
        return all(
            np.array_equal(getattr(self, field.name), getattr(other, field.name)) for field in fields(self)
        )

    def __hash__(self) -> int:
        return hash((self.classes, self.track_ids))

    def __len__(self) -> int:
        return len(self.track_ids)

    @property
    def predicted(self) -> Integers:
        """(N,) the class number of highest probability; of several that tie, the first."""
        return np.asarray(np.argmax(self.probabilities, axis=1), dtype=np.int64)

    @property
    def has_groups(self) -> bool:
        """Whether any group holds several tracks, so that tracks may not count as independent."""
        return len(set(self.groups)) < len(self.groups)

    def check_covers(self, expected_ids: Iterable[str]) -> None:
        """Refuse, with MgcError, unless the tracks are exactly the expected ones, in whatever order."""
        expected, held = set(expected_ids), set(self.track_ids)
        missing, foreign = sorted(expected - held), sorted(held - expected)
        faults = [f"{len(missing)} missing: {_few(missing)}"] if missing else []
        faults += [f"{len(foreign)} foreign: {_few(foreign)}"] if foreign else []
        if faults:
            raise MgcError(
                f"predictions do not cover the expected tracks; {'; '.join(faults)}",
                fix="predict every track of the test side once and no other",
            )

    def to_frame(self) -> pd.DataFrame:
        """A row a track: track_id, label, group, fold, predicted, then `p_<class>` for each class in order.

        `label` and `predicted` hold class names, so that the table can be read without this class.
        """
        names = np.array(self.classes, dtype=object)
        table = pd.DataFrame(
            {
                "track_id": list(self.track_ids),
                "label": names[self.labels],
                "group": list(self.groups),
                "fold": self.fold,
                "predicted": names[self.predicted],
            }
        )
        columns = [PROBABILITY_PREFIX + name for name in self.classes]
        return pd.concat([table, pd.DataFrame(self.probabilities, columns=columns)], axis=1)

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> "Predictions":
        """The inverse of `to_frame`; rows may come in any order.

        Raises MgcError for missing, unknown or doubled columns, a label that is no class, a `predicted` that
        is not the class of highest probability, and for all that the constructor refuses.
        """
        classes = _classes_of_columns([str(name) for name in frame.columns])
        number = {name: index for index, name in enumerate(classes)}
        track_ids = _names("track_id", frame["track_id"].tolist())

        labels = _names("label", frame["label"].tolist())
        strange = sorted(set(labels) - set(number))
        if strange:
            raise MgcError(
                f"labels without a probability column: {_few(strange)}", fix=did_you_mean(strange[0], classes)
            )
        predictions = cls(
            classes=classes,
            track_ids=track_ids,
            labels=np.array([number[label] for label in labels], dtype=np.int64),
            probabilities=frame[[PROBABILITY_PREFIX + name for name in classes]].to_numpy(),
            groups=_names("group", frame["group"].tolist()),
            fold=frame["fold"].to_numpy(),
        )
        likeliest = {
            track_id: classes[index]
            for track_id, index in zip(predictions.track_ids, predictions.predicted, strict=True)
        }
        written = dict(zip(track_ids, frame["predicted"].tolist(), strict=True))
        wrong = [track_id for track_id in predictions.track_ids if written[track_id] != likeliest[track_id]]
        if wrong:
            raise MgcError(
                f"column 'predicted' is not the class of highest probability for {_few(wrong)}: "
                f"{written[wrong[0]]!r} stands there for {likeliest[wrong[0]]!r}"
            )
        return predictions


def _names(what: str, values: Iterable[object]) -> tuple[str, ...]:
    """The values as a tuple of non-empty strings; numbers are refused, since 000123 would become 123."""
    if isinstance(values, str):
        raise MgcError(f"{what} must be a sequence of strings, got the single string {values!r}")
    values = tuple(values)
    bad = [value for value in values if not isinstance(value, str) or not value]
    if bad:
        raise MgcError(
            f"{what} must be non-empty strings, got {_few(bad)}",
            fix="read ids and names as text, not as numbers",
        )
    return tuple(map(str, values))


def _refuse_duplicates(what: str, names: Sequence[str], fix: str | None = None) -> None:
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise MgcError(f"duplicate {what}: {_few(doubled)}", fix=fix)


def _whole_numbers(what: str, values: object, n_tracks: int) -> Integers:
    array = np.asarray(values)
    if array.shape != (n_tracks,):
        raise MgcError(f"{what} has shape {array.shape}, must be ({n_tracks},): one number a track")
    if array.dtype.kind not in "iu":
        raise MgcError(f"{what} must be whole numbers, got {array.dtype}: {_few(array.tolist())}")
    return array.astype(np.int64)


def _class_numbers(values: object, track_ids: Sequence[str], n_classes: int) -> Integers:
    labels = _whole_numbers("labels", values, len(track_ids))
    bad = np.flatnonzero((labels < 0) | (labels >= n_classes))
    if len(bad):
        raise MgcError(f"labels outside 0..{n_classes - 1}: {_few_tracks(bad, track_ids, labels)}")
    return labels


def _fold_numbers(values: object, track_ids: Sequence[str]) -> Integers:
    fold = _whole_numbers("fold", values, len(track_ids))
    bad = np.flatnonzero(fold < 0)
    if len(bad):
        raise MgcError(f"folds below 0: {_few_tracks(bad, track_ids, fold)}", fix="number folds from 0")
    return fold


def _probabilities(values: object, track_ids: Sequence[str], n_classes: int) -> Floats:
    try:
        array = np.asarray(values)
    except ValueError as error:  # numpy's word for rows of unequal length
        raise MgcError(f"probabilities are no (tracks, classes) array: {error}") from error
    if array.shape != (len(track_ids), n_classes):
        raise MgcError(f"probabilities have shape {array.shape}, must be ({len(track_ids)}, {n_classes})")
    if array.dtype.kind not in "fiu":
        raise MgcError(f"probabilities must be numbers, got {array.dtype}")
    array = array.astype(np.float64)

    for what, wrong in (("NaN", np.isnan(array)), ("infinite", np.isinf(array)), ("negative", array < 0)):
        bad = np.flatnonzero(wrong.any(axis=1))
        if len(bad):
            first_values = [array[row][wrong[row]][0] for row in bad]
            raise MgcError(f"{what} probabilities: {_few_tracks(bad, track_ids, first_values, by_row=False)}")
    sums = array.sum(axis=1)
    bad = np.flatnonzero(np.abs(sums - 1) > ROW_SUM_TOLERANCE)
    if len(bad):
        raise MgcError(
            f"rows do not sum to 1 within {ROW_SUM_TOLERANCE:g}: {_few_tracks(bad, track_ids, sums)}",
            fix="pass the output of a softmax in float32 or better, not logits or scores",
        )
    return array


def _classes_of_columns(columns: Sequence[str]) -> tuple[str, ...]:
    _refuse_duplicates("column", columns)
    missing = [name for name in FRAME_COLUMNS if name not in columns]
    if missing:
        raise MgcError(f"predictions lack the columns {_few(missing)}", fix=f"found: {', '.join(columns)}")
    others = [name for name in columns if name not in FRAME_COLUMNS]
    unknown = [name for name in others if not name.startswith(PROBABILITY_PREFIX)]
    if unknown:
        raise MgcError(
            f"unknown columns among the predictions: {_few(unknown)}",
            fix=f"keep {', '.join(FRAME_COLUMNS)} and one {PROBABILITY_PREFIX}<class> a class",
        )
    return tuple(name.removeprefix(PROBABILITY_PREFIX) for name in others)


def _few(items: Sequence[object]) -> str:
    """`'a', 'b', 'c' and 4 more`."""
    named = ", ".join(repr(item) for item in items[:NAMED_IN_ERRORS])
    rest = len(items) - NAMED_IN_ERRORS
    return f"{named} and {rest} more" if rest > 0 else named


def _few_tracks(bad: Integers, track_ids: Sequence[str], values: Any, *, by_row: bool = True) -> str:
    """`'a' (0.97), 'b' (1.2) and 4 more`; `values` has one a track, or one a bad track if not `by_row`."""
    shown = [
        f"{track_ids[row]!r} ({values[row if by_row else place]:.6g})"
        for place, row in enumerate(bad[:NAMED_IN_ERRORS])
    ]
    rest = len(bad) - NAMED_IN_ERRORS
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")


# ---- what comes out


@dataclass(frozen=True)
class ClassScore:
    """One class: precision, recall and F1 in 0..1 (0/0 is 0) and how many test tracks truly are of it."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Scores:
    """How good one run was. All scores lie in 0..1; `log_loss` is in nats a track, and lower is better.

    n_groups: how many artists (or tracks of unknown artist) stand behind the n_tracks.
    *_low, *_high: 95 % percentile bootstrap over `interval_unit`.
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
    log_loss: float
    per_class: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]

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


@dataclass(frozen=True)
class Difference:
    """Run a against run b on the same tracks.

    accuracy_difference: accuracy of a less that of b, in -1..1; of several seeds, of their means.
    low, high: its 95 % paired percentile bootstrap over `interval_unit`; accounts for artists.
    only_a, only_b: how many tracks a alone, and b alone, got right; of several seeds, how many more often.
    p_value: exact two-sided McNemar test; where either has several seeds, its like for shares of seeds, a
        sign-flip test. Both take the tracks for independent, whoever the artist.
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

    @property
    def verdict(self) -> Verdict:
        """Of a: "better" or "worse" if p < 0.05 and the interval excludes 0, else "no difference shown"."""
        if self.p_value < SIGNIFICANCE and self.low > 0:
            return "better"
        if self.p_value < SIGNIFICANCE and self.high < 0:
            return "worse"
        return "no difference shown"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON, with the verdict."""
        return {**asdict(self), "verdict": self.verdict}


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


def _check_keys(what: str, kind: type[Scores] | type[ClassScore], plain: Mapping[str, Any]) -> None:
    known = {field.name for field in fields(kind)}
    missing, unknown = sorted(known - set(plain)), sorted(set(plain) - known)
    if missing:
        raise MgcError(f"{what} lack {_few(missing)}", fix="score the saved predictions again")
    if unknown:
        raise MgcError(f"{what} hold unknown keys: {_few(unknown)}", fix=did_you_mean(unknown[0], known))


# ---- the functions


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

    resampled = _resample(_counts_by_unit(predictions), n_bootstrap, seed)  # (R, 3, C)
    accuracy_low, accuracy_high = _interval(_accuracy(resampled[:, 0], resampled[:, 1]))
    macro_f1_low, macro_f1_high = _interval(_macro_f1(resampled[:, 0], resampled[:, 1], resampled[:, 2]))

    return Scores(
        n_tracks=len(predictions),
        n_groups=len(set(predictions.groups)),
        accuracy=float(_accuracy(hits, support)),
        accuracy_low=accuracy_low,
        accuracy_high=accuracy_high,
        macro_f1=float(_macro_f1(hits, support, guesses)),
        macro_f1_low=macro_f1_low,
        macro_f1_high=macro_f1_high,
        interval_unit=_unit(predictions),
        balanced_accuracy=float(recall[support > 0].mean()),
        log_loss=log_loss(predictions.labels, predictions.probabilities),
        per_class=tuple(
            ClassScore(name, float(precision[k]), float(recall[k]), float(f1[k]), int(support[k]))
            for k, name in enumerate(predictions.classes)
        ),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


@dataclass(frozen=True)
class OverSeeds:
    """Runs of one system that differ in nothing but their seed.

    accuracy, macro_f1: means over the seeds.
    accuracy_deviation: the sample deviation of the accuracy over the seeds, None for a single one.
    accuracy_low, accuracy_high: 95 % bootstrap over artists or tracks of the mean over the seeds: how far it
        would move with other tracks, which is another question.
    """

    seeds: int
    accuracy: float
    accuracy_deviation: float | None
    accuracy_low: float
    accuracy_high: float
    macro_f1: float


def over_seeds(runs: Sequence[Predictions], *, n_bootstrap: int = 2000, seed: int = 0) -> OverSeeds:
    """Mean and deviation over seeds, and the interval over tracks of the mean.

    Raises MgcError as `paired` does where the runs do not stand on the same split.
    """
    for other in runs[1:]:
        _check_same_split(runs[0], other)
    scores = [evaluate(run, n_bootstrap=n_bootstrap, seed=seed) for run in runs]
    each = [score.accuracy for score in scores]
    low, high = scores[0].accuracy_low, scores[0].accuracy_high
    if len(runs) > 1:
        low, high = _mean_interval(runs[0], _right(runs), n_bootstrap, seed)
    return OverSeeds(
        seeds=len(runs),
        accuracy=float(np.mean(each)),
        accuracy_deviation=float(np.std(each, ddof=1)) if len(runs) > 1 else None,
        accuracy_low=low,
        accuracy_high=high,
        macro_f1=float(np.mean([score.macro_f1 for score in scores])),
    )


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
        _check_same_split(a[0], other)
    gain = _right(a) - _right(b)  # (N,) shares of seeds
    low, high = _mean_interval(a[0], gain, n_bootstrap, seed)
    only_a, only_b = float(gain.clip(min=0).sum()), float((-gain).clip(min=0).sum())
    single = len(a) == len(b) == 1
    return Difference(
        n_tracks=len(gain),
        n_groups=len(set(a[0].groups)),
        interval_unit=_unit(a[0]),
        accuracy_difference=float(gain.mean()),
        low=low,
        high=high,
        only_a=only_a,
        only_b=only_b,
        p_value=mcnemar_p(round(only_a), round(only_b)) if single else sign_flip_p(gain, seed),
    )


def _right(runs: Sequence[Predictions]) -> Floats:
    """(N,) in how many of the runs each track was predicted right, as a share."""
    return np.mean([run.predicted == run.labels for run in runs], axis=0, dtype=np.float64)


def _mean_interval(run: Predictions, values: Floats, n_bootstrap: int, seed: int) -> tuple[float, float]:
    """Of the mean of `values` (N,) over the tracks of `run`, whole units drawn."""
    unit = _unit_numbers(run)  # (N,)
    resampled = _resample(_sums(unit, values), n_bootstrap, seed)  # (R, 2)
    return _interval(resampled[:, 0] / resampled[:, 1])


def _sums(unit: Integers, values: Floats) -> Floats:
    """(U, 2): what `values` (N,) add up to in each unit, and how many they are."""
    counts = np.bincount(unit).astype(np.float64)
    return np.stack([np.bincount(unit, weights=values), counts], axis=1)


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
        raise MgcError(f"the two runs differ in their classes; {_only_in(one.classes, other.classes)}")
    both = set(one.track_ids) & set(other.track_ids)
    a, b = _right(leaky), _right(honest)
    if len(both) == min(len(one), len(other)):
        # Both are sorted by id, and so stay in step.
        a, kept = a[[i in both for i in one.track_ids]], np.array([i in both for i in other.track_ids])
        gain, unit = a - b[kept], _unit_numbers(other)[kept]
        counts = _sums(unit, gain)
        drawn = _resample(counts[counts[:, 1] > 0], n_bootstrap, seed)  # (R, 2)
        low, high = _interval(drawn[:, 0] / drawn[:, 1])
        return Leak(float(gain.mean()), low, high, len(gain))
    drawn_means = []
    for number, (run, right) in enumerate(((one, a), (other, b)), start=seed):
        unit = _unit_numbers(run)
        counts = _sums(unit, right)
        drawn = _resample(counts, n_bootstrap, number)  # (R, 2)
        drawn_means.append(drawn[:, 0] / drawn[:, 1])
    low, high = _interval(drawn_means[0] - drawn_means[1])
    return Leak(float(a.mean() - b.mean()), low, high, 0)


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


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Exact two-sided McNemar test: are the tracks that one run alone got right split evenly between the two?

    1.0 where the runs never differ. Assumes independent tracks. (McNemar 1947, with the binomial in place of
    the chi-squared approximation.)
    """
    differing = only_a + only_b
    return float(binomtest(only_a, differing, 0.5).pvalue) if differing else 1.0


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


def _accuracy(hits: NDArray[Any], support: NDArray[Any]) -> Floats:
    """(..., C) counts a class to (...) accuracies."""
    return np.asarray(hits.sum(axis=-1) / support.sum(axis=-1), dtype=np.float64)


def _macro_f1(hits: NDArray[Any], support: NDArray[Any], guesses: NDArray[Any]) -> Floats:
    """(..., C) counts a class to (...) means of F1 over the classes that occur in truth or prediction."""
    occurs = support + guesses > 0  # (..., C)
    f1 = _ratio(2 * hits, support + guesses)  # (..., C)
    return np.asarray(f1.sum(axis=-1) / occurs.sum(axis=-1), dtype=np.float64)


def _ratio(over: NDArray[Any], under: NDArray[Any]) -> Floats:
    result = np.zeros(np.shape(under), dtype=np.float64)
    np.divide(over, under, out=result, where=under > 0)
    return result


# ---- the bootstrap


def _unit(predictions: Predictions) -> Unit:
    return "group" if predictions.has_groups else "track"


def _unit_numbers(predictions: Predictions) -> Integers:
    """(N,) the number of the drawing unit each track belongs to: its group, alone there or not."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(predictions.groups))}
    return np.array([numbers[group] for group in predictions.groups], dtype=np.int64)


def _counts_by_unit(predictions: Predictions) -> Floats:
    """(U, 3, C): a unit's right predictions, true tracks and predictions of each class."""
    unit, labels, predicted = _unit_numbers(predictions), predictions.labels, predictions.predicted
    n_units, n_classes = int(unit.max()) + 1, len(predictions.classes)

    def count(of_class: Integers, weights: Floats | None = None) -> Floats:
        cells = np.bincount(unit * n_classes + of_class, weights, minlength=n_units * n_classes)
        return cells.reshape(n_units, n_classes).astype(np.float64)  # (U, C)

    right = (predicted == labels).astype(np.float64)  # (N,)
    return np.stack([count(labels, right), count(labels), count(predicted)], axis=1)  # (U, 3, C)


def _resample(counts: Floats, n_bootstrap: int, seed: int) -> Floats:
    """(U, ...) counts a unit to (R, ...) sums over U units drawn with replacement, R times.

    Units with equal counts are interchangeable, so only the number drawn of each distinct row matters, and
    that is multinomial: one matrix product gives all sums, and the order of the units changes nothing.
    """
    if n_bootstrap < LEAST_RESAMPLES:
        raise MgcError(f"n_bootstrap is {n_bootstrap}, must be at least {LEAST_RESAMPLES}; 2000 is usual")
    n_units = len(counts)
    if n_units < 2:
        raise MgcError(
            "all tracks are of one group: no interval can be drawn from it",
            fix="where the artist is unknown let a track's own id be its group; else judge more artists",
        )
    rows, copies = np.unique(counts.reshape(n_units, -1), axis=0, return_counts=True)  # (K, ...), (K,)
    drawn = np.random.default_rng(seed).multinomial(n_units, copies / n_units, size=n_bootstrap)  # (R, K)
    sums: Floats = drawn.astype(np.float64) @ rows
    return sums.reshape(n_bootstrap, *counts.shape[1:])


def _interval(values: Floats) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _check_same_split(a: Predictions, b: Predictions) -> None:
    fix = "compare runs over the same dataset, split and seed of the split"
    if a.classes != b.classes:
        raise MgcError(f"the two runs differ in their classes; {_only_in(a.classes, b.classes)}", fix=fix)
    if a.track_ids != b.track_ids:
        raise MgcError(f"the two runs judge different tracks; {_only_in(a.track_ids, b.track_ids)}", fix=fix)
    for what, in_a, in_b in (
        ("labels", [a.classes[k] for k in a.labels], [b.classes[k] for k in b.labels]),
        ("groups", a.groups, b.groups),
        ("folds", a.fold.tolist(), b.fold.tolist()),
    ):
        differing = [i for i in range(len(a)) if in_a[i] != in_b[i]]
        if differing:
            i = differing[0]
            raise MgcError(
                f"the two runs differ in the {what} of {_few([a.track_ids[i] for i in differing])}: "
                f"{a.track_ids[i]!r} has {in_a[i]!r} against {in_b[i]!r}",
                fix=fix,
            )


def _only_in(a: Sequence[str], b: Sequence[str]) -> str:
    first, second = sorted(set(a) - set(b)), sorted(set(b) - set(a))
    faults = [f"only in a: {_few(first)}"] if first else []
    faults += [f"only in b: {_few(second)}"] if second else []
    return "; ".join(faults) or f"the same names in another order: {_few(a)} against {_few(b)}"
