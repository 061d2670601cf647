"""`Predictions`: what a model said of the test tracks, checked; and whether two runs share their split."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mgc.util.errors import MgcError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

ROW_SUM_TOLERANCE = 1e-4  # a float32 softmax over hundreds of classes stays well within it
NAMED_IN_ERRORS = 3
FRAME_COLUMNS = ("track_id", "label", "group", "fold", "predicted")
PROBABILITY_PREFIX = "p_"


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
            raise MgcError(f"predictions need at least two classes, got {len(classes)}: {few(classes)}")
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
        faults = [f"{len(missing)} missing: {few(missing)}"] if missing else []
        faults += [f"{len(foreign)} foreign: {few(foreign)}"] if foreign else []
        if faults:
            raise MgcError(
                f"predictions do not cover the expected tracks; {'; '.join(faults)}",
                fix="predict every track of the test side once and no other",
            )

    def to_frame(self) -> "pd.DataFrame":
        """A row a track: track_id, label, group, fold, predicted, then `p_<class>` for each class in order.

        `label` and `predicted` hold class names, so that the table can be read without this class.
        """
        import pandas as pd

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
    def from_frame(cls, frame: "pd.DataFrame") -> "Predictions":
        """The inverse of `to_frame`; rows may come in any order.

        Raises MgcError for missing, unknown or doubled columns, a label that is no class, a `predicted` that
        is not the class of highest probability, and for all that the constructor refuses.
        """
        _classes_of_columns([str(name) for name in frame.columns])
        return cls.from_columns({str(name): frame[name].tolist() for name in frame.columns})

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence[Any]]) -> "Predictions":
        """`from_frame` for columns that were read without pandas, which takes long to import."""
        classes = _classes_of_columns([*columns])
        number = {name: index for index, name in enumerate(classes)}
        track_ids = _names("track_id", columns["track_id"])

        labels = _names("label", columns["label"])
        strange = sorted(set(labels) - set(number))
        if strange:
            raise MgcError(
                f"labels without a probability column: {few(strange)}", fix=did_you_mean(strange[0], classes)
            )
        predictions = cls(
            classes=classes,
            track_ids=track_ids,
            labels=np.array([number[label] for label in labels], dtype=np.int64),
            probabilities=np.stack(
                [np.asarray(columns[PROBABILITY_PREFIX + name]) for name in classes], axis=1
            ),
            groups=_names("group", columns["group"]),
            fold=np.asarray(columns["fold"]),
        )
        likeliest = {
            track_id: classes[index]
            for track_id, index in zip(predictions.track_ids, predictions.predicted, strict=True)
        }
        written = dict(zip(track_ids, columns["predicted"], strict=True))
        wrong = [track_id for track_id in predictions.track_ids if written[track_id] != likeliest[track_id]]
        if wrong:
            raise MgcError(
                f"column 'predicted' is not the class of highest probability for {few(wrong)}: "
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
            f"{what} must be non-empty strings, got {few(bad)}",
            fix="read ids and names as text, not as numbers",
        )
    return tuple(map(str, values))


def _refuse_duplicates(what: str, names: Sequence[str], fix: str | None = None) -> None:
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise MgcError(f"duplicate {what}: {few(doubled)}", fix=fix)


def _whole_numbers(what: str, values: object, n_tracks: int) -> Integers:
    array = np.asarray(values)
    if array.shape != (n_tracks,):
        raise MgcError(f"{what} has shape {array.shape}, must be ({n_tracks},): one number a track")
    if array.dtype.kind not in "iu":
        raise MgcError(f"{what} must be whole numbers, got {array.dtype}: {few(array.tolist())}")
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
        raise MgcError(f"predictions lack the columns {few(missing)}", fix=f"found: {', '.join(columns)}")
    others = [name for name in columns if name not in FRAME_COLUMNS]
    unknown = [name for name in others if not name.startswith(PROBABILITY_PREFIX)]
    if unknown:
        raise MgcError(
            f"unknown columns among the predictions: {few(unknown)}",
            fix=f"keep {', '.join(FRAME_COLUMNS)} and one {PROBABILITY_PREFIX}<class> a class",
        )
    return tuple(name.removeprefix(PROBABILITY_PREFIX) for name in others)


def few(items: Sequence[object]) -> str:
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


def check_same_split(a: Predictions, b: Predictions) -> None:
    """Refuse, with MgcError, naming the first few, where classes, tracks, labels, groups or folds differ."""
    fix = "compare runs over the same dataset, split and seed of the split"
    if a.classes != b.classes:
        raise MgcError(f"the two runs differ in their classes; {only_in(a.classes, b.classes)}", fix=fix)
    if a.track_ids != b.track_ids:
        raise MgcError(f"the two runs judge different tracks; {only_in(a.track_ids, b.track_ids)}", fix=fix)
    for what, in_a, in_b in (
        ("labels", [a.classes[k] for k in a.labels], [b.classes[k] for k in b.labels]),
        ("groups", a.groups, b.groups),
        ("folds", a.fold.tolist(), b.fold.tolist()),
    ):
        differing = [i for i in range(len(a)) if in_a[i] != in_b[i]]
        if differing:
            i = differing[0]
            raise MgcError(
                f"the two runs differ in the {what} of {few([a.track_ids[i] for i in differing])}: "
                f"{a.track_ids[i]!r} has {in_a[i]!r} against {in_b[i]!r}",
                fix=fix,
            )


def only_in(a: Sequence[str], b: Sequence[str]) -> str:
    """What the one holds and the other does not, or that their order differs."""
    first, second = sorted(set(a) - set(b)), sorted(set(b) - set(a))
    faults = [f"only in a: {few(first)}"] if first else []
    faults += [f"only in b: {few(second)}"] if second else []
    return "; ".join(faults) or f"the same names in another order: {few(a)} against {few(b)}"
