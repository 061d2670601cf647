"""Splits: which tracks are for training, validation and testing, and who decided that.

A group (an artist, or files of the same content) is never in two parts of a fold, except in "random", which
measures how much such a leak is worth and is marked as leaky everywhere.
"""

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from mgc.data.dataset import Dataset, Track
from mgc.evaluate import ARTIST_PREFIX
from mgc.util.errors import MgcError

REVISION = 1  # raised by hand when a rule splits the same tracks in another way
CV5_BELOW_TRACKS = 2000  # smaller datasets are cross-validated: every track is tested once
SPLIT_WORDS = {
    "train": ("train", "training", "tr"),
    "val": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_PART_NAMES = {"train": "training set", "val": "validation set", "test": "test set"}
_TOO_FEW_TRACKS = "add tracks, remove the class, or try --split holdout or another --split-seed"


@dataclass(frozen=True)
class Fold:
    """Ids of the training, validation and test tracks."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """The ids by "train", "val" and "test"."""
        return {**vars(self)}

    def shared(self, owner: Mapping[str, str]) -> dict[str, tuple[str, str]]:
        """Values of `owner` (by track id) that occur in two parts, and the names of those parts."""
        owners = {part: {owner[i] for i in ids if i in owner} for part, ids in self.parts.items()}
        pairs = [*combinations(owners, 2)]
        return {name: (a, b) for a, b in pairs[::-1] for name in sorted(owners[a] & owners[b])}


@dataclass(frozen=True)
class Split:
    """Folds and the rule that made them; every track is tested at most once.

    Raises:
        MgcError: a part is empty, a track is in two parts or tested in two folds, a class is tested but has
            no training track, or, unless `leaky`, a group is in two parts of a fold.
    """

    name: str  # "holdout", "cv5", "random", or the source's name for its own: "official", "given", ...
    authority: str  # the rule in a sentence, as written into every record
    folds: tuple[Fold, ...]
    dataset: Dataset
    leaky: bool = False  # groups are in several parts of a fold, on purpose

    def __post_init__(self) -> None:
        tracks = self.dataset.by_id
        owners = {"track": {i: i for i in tracks}, "artist": {i: t.group for i, t in tracks.items()}}
        if self.leaky:
            del owners["artist"]
        for number, fold in enumerate(self.folds):
            where = f"{self.dataset.name}, split {self.name}, fold {number}"
            for part, ids in fold.parts.items():
                if not ids:
                    raise MgcError(f"the {_PART_NAMES[part]} is empty", where=where, fix=_TOO_FEW_TRACKS)
            for kind, owner in owners.items():
                for name, (one, other) in fold.shared(owner).items():
                    what = (
                        f"the {kind} {name.removeprefix(ARTIST_PREFIX)!r} is in the {_PART_NAMES[one]} and in"
                    )
                    reason = f"the {_PART_NAMES[other]}: the scores would count what a model remembers of it"
                    fix = "fix the split column, or let mgc split by artist with --split cv5"
                    raise MgcError(f"{what} {reason}", where=where, fix=fix)
            untrained = {tracks[i].label for i in fold.test} - {tracks[i].label for i in fold.train}
            if untrained:
                what = f"the class {min(untrained)!r} is in the test set but not in the training set: it has "
                what += "too few artists or tracks for this split"
                raise MgcError(what, where=where, fix=_TOO_FEW_TRACKS)
        for track_id, count in Counter(i for fold in self.folds for i in fold.test).items():
            if count > 1:
                raise MgcError(f"track {track_id!r} is in the test set of two folds", where=self.name)

    @property
    def tested(self) -> tuple[str, ...]:
        """Ids of all test tracks, sorted."""
        return tuple(sorted(track_id for fold in self.folds for track_id in fold.test))

    @property
    def hash(self) -> str:
        """Hash of the track ids of all parts. Only records with equal hashes are compared."""
        text = json.dumps([[sorted(ids) for ids in fold.parts.values()] for fold in self.folds])
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def make_split(dataset: Dataset, name: str = "auto", seed: int = 0) -> Split:
    """The split called `name`: "given", "holdout", "cv5", "random", or "auto".

    "auto" is the given split if every track has one, else "cv5" below 2,000 tracks, else "holdout". "random"
    has parts of the same sizes as "auto", but is stratified by label alone: it leaks.

    Raises:
        MgcError: no split is given, or the tracks cannot be split in this way.
    """
    is_given = all(track.split is not None for track in dataset.tracks)
    by_size = "cv5" if len(dataset) < CV5_BELOW_TRACKS else "holdout"
    if name == "random":
        return _random(dataset, "given" if is_given else by_size, seed)
    if name == "auto":
        name = "given" if is_given else by_size
    if name == "given" and not is_given:
        fix = "name the column with --column split=NAME, or use --split cv5"
        raise MgcError("the split 'given' needs a split for every track", where=dataset.name, fix=fix)
    if name == "given":
        return _given(dataset, seed)
    folds, rule = _drawn(dataset, name, seed)
    authority = f"{rule}, {_grouping(dataset)}, seed {seed}, {_validation_share(folds)}"
    return Split(name, authority, folds, dataset)


def subsample_training(split: Split, per_class: int, seed: int) -> Split:
    """The same validation and test sets, with at most `per_class` training tracks of each class.

    With the same seed, a larger `per_class` contains the tracks of a smaller one.
    """
    import pandas as pd

    tracks = split.dataset.by_id
    folds = []
    for fold in split.folds:
        drawn = pd.Series([fold.train[k] for k in np.random.default_rng(seed).permutation(len(fold.train))])
        kept = drawn.groupby([tracks[i].label for i in drawn]).head(per_class)
        folds.append(replace(fold, train=tuple(sorted(kept))))
    authority = f"{split.authority}; at most {per_class} training tracks per class, seed {seed}"
    return replace(split, folds=tuple(folds), authority=authority)


def unevaluated_classes(split: Split) -> list[str]:
    """Warnings about genres of which no fold has a test track, or no fold has a validation track."""
    label_of = {track.track_id: track.label for track in split.dataset.tracks}
    lines = []
    effects = {"test": "are not evaluated", "val": "are ignored in choosing epochs and hyperparameters"}
    for part, effect in effects.items():
        present = {label_of[i] for fold in split.folds for i in fold.parts[part]}
        if missing := ", ".join(label for label in split.dataset.classes if label not in present):
            lines.append(f"genres without tracks in the {_PART_NAMES[part]} {effect}: {missing}")
    return lines


def side_of(word: str) -> str | None:
    """ "train", "val" or "test" for the usual words, None for any other."""
    return next((part for part, words in SPLIT_WORDS.items() if word.strip().lower() in words), None)


def _drawn(dataset: Dataset, name: str, seed: int) -> tuple[tuple[Fold, ...], str]:
    """Folds of whole groups, drawn by seed, and the rule in words."""
    count = 5
    for label, size in sorted(Counter(track.label for track in dataset.tracks).items()):
        if size < count:
            what = f"the class {label!r} has {size} tracks, but splitting needs at least {count}"
            raise MgcError(what, where=dataset.name, fix="add tracks or remove the class")
    folds = []
    for number, test in enumerate(
        grouped_parts(dataset.tracks, count, seed)[: 1 if name == "holdout" else count]
    ):
        rest = _without(dataset.tracks, test)
        val = _validation(rest, 8, seed + number)  # an eighth of four fifths is a tenth of all
        folds.append(Fold(_ids(_without(rest, val)), _ids(val), _ids(test)))
    return tuple(folds), f"{'one fifth for testing' if name == 'holdout' else 'five folds'}, stratified"


def _given(dataset: Dataset, seed: int) -> Split:
    train, val, test = _given_parts(dataset)
    authority = dataset.split_authority
    if train and not val:
        authority += f"; a tenth of its training tracks for validation, {_grouping(dataset)}, seed {seed}"
        val = _validation(train, 10, seed)
        train = _without(train, val)
    return Split(dataset.split_name, authority, (Fold(_ids(train), _ids(val), _ids(test)),), dataset)


def _given_parts(dataset: Dataset) -> list[list[Track]]:
    return [[track for track in dataset.tracks if track.split == part] for part in _PART_NAMES]


def _random(dataset: Dataset, sizes: str, seed: int) -> Split:
    """Every track is its own group, as in most published tables of this field."""
    alone = replace(dataset, tracks=tuple(replace(track, group=track.track_id) for track in dataset.tracks))
    if sizes == "given":
        folds, rule = _as_large_as_given(alone, seed), f"sizes of the {dataset.split_name} split"
    else:
        folds, rule = _drawn(alone, sizes, seed)
    rule = f"LEAKY: random, {rule}, {_leak(dataset, folds)}, seed {seed}, {_validation_share(folds)}"
    return Split("random", rule, folds, dataset, leaky=True)


def _as_large_as_given(dataset: Dataset, seed: int) -> tuple[Fold, ...]:
    from sklearn.model_selection import train_test_split

    train, val, test = map(len, _given_parts(dataset))
    labels = [track.label for track in dataset.tracks]
    try:
        rest, tests = train_test_split(dataset.tracks, test_size=test, stratify=labels, random_state=seed)
        labels, size = [track.label for track in rest], val or max(1, train // 10)
        trains, vals = train_test_split(rest, test_size=size, stratify=labels, random_state=seed)
    except ValueError as error:  # a class of one track, or a part smaller than the number of classes
        raise MgcError(f"no random split: {error}", where=dataset.name, fix=_TOO_FEW_TRACKS) from None
    return (Fold(_ids(trains), _ids(vals), _ids(tests)),)


def _validation(tracks: Sequence[Track], count: int, seed: int) -> list[Track]:
    """The first of `count` parts that leaves every class for training; empty if none does."""
    for part in grouped_parts(tracks, min(count, len({track.group for track in tracks})), seed):
        if part and {t.label for t in _without(tracks, part)} == {t.label for t in tracks}:
            return part
    return []


def grouped_parts(tracks: Sequence[Track], count: int, seed: int) -> list[list[Track]]:
    """`count` disjoint parts of whole groups, stratified; fewer if no class has so many tracks."""
    from sklearn.model_selection import StratifiedGroupKFold

    labels = [track.label for track in tracks]
    count = max(2, min(count, max(Counter(labels).values(), default=0)))
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    # Too few tracks or groups make a warning or an error here; `Split` reports them with a better message.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            cuts = list(folds.split(np.zeros(len(tracks)), labels, [track.group for track in tracks]))
        except ValueError:
            return [[] for _ in range(count)]
    return [[tracks[index] for index in test] for _, test in cuts]


def _grouping(dataset: Dataset) -> str:
    known = any(track.artist for track in dataset.tracks)
    return "grouped by artist" if known else "artists unknown: every track is its own group"


def _validation_share(folds: Sequence[Fold]) -> str:
    share = len(folds[0].val) / sum(map(len, folds[0].parts.values()))
    return f"{100 * share:.0f} % of the tracks for validation"


def _leak(dataset: Dataset, folds: Sequence[Fold]) -> str:
    """How many test tracks share a group with tracks that the model was trained or chosen on."""
    if not any(track.artist for track in dataset.tracks):
        return "not grouped, artists unknown"
    groups = {track.track_id: track.group for track in dataset.tracks}
    known = [{groups[i] for i in (*fold.train, *fold.val)} for fold in folds]
    is_shared = [groups[i] in own for fold, own in zip(folds, known, strict=True) for i in fold.test]
    share = f"{100 * np.mean(is_shared):.0f} % of the test tracks share an artist with the training set"
    return f"not grouped by artist ({share})"


def _without(tracks: Iterable[Track], taken: Iterable[Track]) -> list[Track]:
    ids = {track.track_id for track in taken}
    return [track for track in tracks if track.track_id not in ids]


def _ids(tracks: Iterable[Track]) -> tuple[str, ...]:
    return tuple(track.track_id for track in tracks)
