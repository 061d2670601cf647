"""`Predictions`: the validated output of a model on the test tracks; and the check for equal splits."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mgc.util.errors import MgcError, did_you_mean, explaining
from mgc.util.text import listed

if TYPE_CHECKING:
    import pandas as pd

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

ROW_SUM_TOLERANCE = 1e-4  # a float32 softmax over hundreds of classes stays well within it
NAMED_IN_ERRORS = 3
FRAME_COLUMNS = ("track_id", "label", "group", "fold", "predicted")
PROBABILITY_PREFIX = "p_"
ARTIST_PREFIX = "artist: "  # of a group that is an artist
SAME_SPLIT = "compare runs over the same dataset, split and seed of the split"


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted probabilities of N test tracks over C classes; validated, sorted by track id and read-only.

    Parameters
    ----------
    classes
        The C class names in order; a class number is an index into them.
    track_ids
        N distinct ids.
    labels
        (N,) int64, the true class numbers.
    probabilities
        (N, C) float64. Every row sums to 1 within 1e-4; rows are not rescaled.
    groups
        N names: the artist of each track, or the id of the track if its artist is unknown.
    fold
        (N,) int64 from 0, the fold whose test set holds the track; 0 for a single holdout.

    Raises
    ------
    MgcError
        Names the first few bad values: no tracks, fewer than two classes, duplicate or empty names or ids,
        wrong shapes, lengths or types, labels or folds out of range, probabilities that are negative,
        infinite or NaN, and rows that do not sum to 1.
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
        _check_distinct("class name", classes)

        track_ids = _names("track_ids", self.track_ids)
        n_tracks, n_classes = len(track_ids), len(classes)
        if n_tracks == 0:
            raise MgcError("predictions hold no tracks", fix="check that the test set is not empty")
        _check_distinct("track id", track_ids, fix="average the windows of a track before the evaluation")

        groups = _names("groups", self.groups)
        if len(groups) != n_tracks:
            raise MgcError(f"groups holds {len(groups)} names for {n_tracks} tracks")
        labels = _integers("labels", self.labels, n_tracks)
        if len(bad := np.flatnonzero((labels < 0) | (labels >= n_classes))):
            raise MgcError(f"labels outside 0..{n_classes - 1}: {_few_tracks(bad, track_ids, labels[bad])}")
        fold = _integers("fold", self.fold, n_tracks)
        if len(bad := np.flatnonzero(fold < 0)):
            what = f"folds below 0: {_few_tracks(bad, track_ids, fold[bad])}"
            raise MgcError(what, fix="number folds from 0")
        probabilities = _probabilities(self.probabilities, track_ids, n_classes)

        order = np.array(sorted(range(n_tracks), key=track_ids.__getitem__))
        arrays = {"labels": labels[order], "probabilities": probabilities[order], "fold": fold[order]}
        for array in arrays.values():
            array.setflags(write=False)  # a copy, so the caller's array stays writable
        names = {"track_ids": tuple(track_ids[i] for i in order), "groups": tuple(groups[i] for i in order)}
        for name, value in {"classes": classes, **names, **arrays}.items():
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Predictions):
            return NotImplemented
        names = [field.name for field in fields(self)]
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in names)

    def __hash__(self) -> int:
        return hash((self.classes, self.track_ids))

    def __len__(self) -> int:
        return len(self.track_ids)

    @property
    def predicted(self) -> Integers:
        """(N,) the class number of highest probability; the first of several that tie."""
        return np.asarray(np.argmax(self.probabilities, axis=1), dtype=np.int64)

    @property
    def has_groups(self) -> bool:
        """Whether any group holds several tracks, so that tracks are not independent."""
        return len(set(self.groups)) < len(self.groups)

    def check_covers(self, expected_ids: Iterable[str]) -> None:
        """Raise MgcError unless the tracks are exactly the expected ones, in any order."""
        expected, found = set(expected_ids), set(self.track_ids)
        differing = (("missing", sorted(expected - found)), ("unexpected", sorted(found - expected)))
        if faults := [f"{len(ids)} {what}: {few(ids)}" for what, ids in differing if ids]:
            raise MgcError(
                f"predictions do not cover the expected tracks; {'; '.join(faults)}",
                fix="predict every track of the test set exactly once, and no other",
            )

    def to_frame(self) -> "pd.DataFrame":
        """One row per track: track_id, label, group, fold, predicted, then `p_<class>` for each class.

        `label` and `predicted` hold class names, so that the table can be read without this class.
        """
        import pandas as pd

        names = np.array(self.classes, dtype=object)
        columns = [PROBABILITY_PREFIX + name for name in self.classes]
        return pd.DataFrame(
            {
                "track_id": list(self.track_ids),
                "label": names[self.labels],
                "group": list(self.groups),
                "fold": self.fold,
                "predicted": names[self.predicted],
                **dict(zip(columns, self.probabilities.T, strict=True)),
            }
        )

    @classmethod
    def from_frame(cls, frame: "pd.DataFrame") -> "Predictions":
        """The inverse of `to_frame`; rows may come in any order.

        Raises
        ------
        MgcError
            Missing, unknown or duplicate columns, a label that is not a class, a `predicted` that is not the
            class of highest probability, and everything that the constructor refuses.
        """
        _check_distinct("column", [str(name) for name in frame.columns])
        return cls.from_columns({str(name): frame[name].tolist() for name in frame.columns})

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence[Any]]) -> "Predictions":
        """`from_frame` for columns that were read without pandas, which takes long to import."""
        if missing := [name for name in FRAME_COLUMNS if name not in columns]:
            raise MgcError(f"predictions lack the columns {few(missing)}", fix=f"found: {', '.join(columns)}")
        others = [name for name in columns if name not in FRAME_COLUMNS]
        if unknown := [name for name in others if not name.startswith(PROBABILITY_PREFIX)]:
            raise MgcError(
                f"unknown columns in the predictions: {few(unknown)}",
                fix=f"keep {', '.join(FRAME_COLUMNS)} and one {PROBABILITY_PREFIX}<class> per class",
            )
        classes = tuple(name.removeprefix(PROBABILITY_PREFIX) for name in others)
        track_ids = _names("track_id", columns["track_id"])
        labels = _names("label", columns["label"])
        if unknown := sorted(set(labels) - set(classes)):
            raise MgcError(
                f"labels without a probability column: {few(unknown)}", fix=did_you_mean(unknown[0], classes)
            )
        predictions = cls(
            classes=classes,
            track_ids=track_ids,
            labels=np.array([classes.index(label) for label in labels], dtype=np.int64),
            probabilities=np.stack([np.asarray(columns[name]) for name in others], axis=1),
            groups=_names("group", columns["group"]),
            fold=np.asarray(columns["fold"]),
        )
        given = dict(zip(track_ids, columns["predicted"], strict=True))
        predicted = [classes[number] for number in predictions.predicted]
        expected = dict(zip(predictions.track_ids, predicted, strict=True))
        if wrong := [track_id for track_id in expected if given[track_id] != expected[track_id]]:
            raise MgcError(
                f"column 'predicted' is not the class of highest probability for {few(wrong)}: "
                f"it is {given[wrong[0]]!r}, expected {expected[wrong[0]]!r}"
            )
        return predictions


def _names(what: str, values: Iterable[object]) -> tuple[str, ...]:
    """The values as a tuple of non-empty strings. Numbers are refused, since 000123 would become 123."""
    if isinstance(values, str):
        raise MgcError(f"{what} must be a sequence of strings, got the single string {values!r}")
    values = tuple(values)
    if bad := [value for value in values if not isinstance(value, str) or not value]:
        raise MgcError(
            f"{what} must be non-empty strings, got {few(bad)}",
            fix="read ids and names as text, not as numbers",
        )
    return tuple(map(str, values))


def _check_distinct(what: str, names: Sequence[str], fix: str | None = None) -> None:
    if duplicates := [name for name, count in Counter(names).items() if count > 1]:
        raise MgcError(f"duplicate {what}: {few(duplicates)}", fix=fix)


def _integers(what: str, values: object, n_tracks: int) -> Integers:
    array = np.asarray(values)
    if array.shape != (n_tracks,):
        raise MgcError(f"{what} has shape {array.shape}, must be ({n_tracks},): one number per track")
    if array.dtype.kind not in "iu":
        raise MgcError(f"{what} must be integers, got {array.dtype}: {few(array.tolist())}")
    return array.astype(np.int64)


def _probabilities(values: object, track_ids: Sequence[str], n_classes: int) -> Floats:
    unequal = "probabilities are not a (tracks, classes) array"
    with explaining(unequal, where=None, errors=(ValueError,)):  # rows of unequal length
        array = np.asarray(values)
    if array.shape != (len(track_ids), n_classes):
        raise MgcError(f"probabilities have shape {array.shape}, must be ({len(track_ids)}, {n_classes})")
    if array.dtype.kind not in "fiu":
        raise MgcError(f"probabilities must be numbers, got {array.dtype}")
    array = array.astype(np.float64)

    for what, wrong in (("NaN", np.isnan(array)), ("infinite", np.isinf(array)), ("negative", array < 0)):
        bad, column = np.flatnonzero(wrong.any(axis=1)), wrong.argmax(axis=1)
        if len(bad):
            raise MgcError(f"{what} probabilities: {_few_tracks(bad, track_ids, array[bad, column[bad]])}")
    sums = array.sum(axis=1)
    if len(bad := np.flatnonzero(np.abs(sums - 1) > ROW_SUM_TOLERANCE)):
        raise MgcError(
            f"rows do not sum to 1 within {ROW_SUM_TOLERANCE:g}: {_few_tracks(bad, track_ids, sums[bad])}",
            fix="pass the output of a softmax in float32 or better, not logits or scores",
        )
    return array


def few(items: Sequence[object]) -> str:
    """The first items and the number of the others: `'a', 'b', 'c' and 4 more`."""
    return listed([repr(item) for item in items], NAMED_IN_ERRORS)


def _few_tracks(rows: Integers, track_ids: Sequence[str], values: Any) -> str:
    """`'a' (0.97), 'b' (1.2) and 4 more`, from the rows of tracks and one value for each of them."""
    pairs = zip(rows, values, strict=True)
    return listed([f"{track_ids[row]!r} ({value:.6g})" for row, value in pairs], NAMED_IN_ERRORS)


def check_same_split(a: Predictions, b: Predictions) -> None:
    """Raise MgcError, naming differences, unless classes, tracks, labels, groups and folds are equal."""
    check_same_tracks(a, b)
    _check_equal("folds", a.track_ids, a.fold.tolist(), b.fold.tolist())


def check_same_tracks(a: Predictions, b: Predictions) -> None:
    """Raise MgcError, naming differences, unless classes, tracks, labels and groups are equal."""
    if a.classes != b.classes:
        raise MgcError(
            f"the two runs differ in their classes; {only_in(a.classes, b.classes)}", fix=SAME_SPLIT
        )
    if a.track_ids != b.track_ids:
        raise MgcError(
            f"the two runs have different tracks; {only_in(a.track_ids, b.track_ids)}", fix=SAME_SPLIT
        )
    names = np.array(a.classes)
    _check_equal("labels", a.track_ids, names[a.labels].tolist(), names[b.labels].tolist())
    _check_equal("groups", a.track_ids, a.groups, b.groups)


def _check_equal(what: str, track_ids: Sequence[str], in_a: Sequence[Any], in_b: Sequence[Any]) -> None:
    if differing := [i for i in range(len(track_ids)) if in_a[i] != in_b[i]]:
        i = differing[0]
        raise MgcError(
            f"the two runs differ in the {what} of {few([track_ids[i] for i in differing])}: "
            f"{track_ids[i]!r} has {in_a[i]!r} and {in_b[i]!r}",
            fix=SAME_SPLIT,
        )


def only_in(a: Sequence[str], b: Sequence[str]) -> str:
    """Which names only one of two sequences holds, or that their order differs."""
    differing = (("a", sorted(set(a) - set(b))), ("b", sorted(set(b) - set(a))))
    faults = [f"only in {which}: {few(names)}" for which, names in differing if names]
    return "; ".join(faults) or f"the same names in another order: {few(a)} and {few(b)}"
