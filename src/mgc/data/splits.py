"""Splits: who learns from which tracks and is judged on which, on what authority.

A group (an artist, or files of the same content) never stands on two sides of a fold: `Split` refuses it.
The one exception is "random", which is there to measure what such a leak is worth, and says so everywhere.
"""

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mgc.data.dataset import Dataset, Track
from mgc.util.errors import MgcError

CV5_BELOW_TRACKS = 2000  # smaller sets are judged on every track, out of fold
REVISION = 1  # of the splitting rules: raised by hand when one of them splits the same tracks otherwise

SPLIT_WORDS = {
    "train": ("train", "training", "tr"),
    "val": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing", "eval", "evaluation"),
}


@dataclass(frozen=True)
class Fold:
    """Track ids on the three sides."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """Named folds with the rule that made them; every track is tested at most once.

    Raises:
        MgcError: an empty side, a track on two sides or tested twice, a class that is tested but not
            learned, or, unless `leaky`, a group on two sides of a fold.
    """

    name: str  # "holdout", "cv5", "random", or what the source calls its own: "official", "given" ...
    authority: str  # the rule in a sentence, as it is written into every record
    folds: tuple[Fold, ...]
    dataset: Dataset
    leaky: bool = False  # groups stand on two sides, and shall

    def __post_init__(self) -> None:
        tracks = self.dataset.by_id
        for number, fold in enumerate(self.folds):
            where = f"{self.dataset.name}, split {self.name}, fold {number}"
            sides = {"train": fold.train, "val": fold.val, "test": fold.test}
            for side, ids in sides.items():
                if not ids:
                    raise MgcError(f"no track stands on the {side} side", where=where, fix=_FEW_TRACKS)
            _refuse_shared(sides, {track_id: track_id for track_id in tracks}, "track", where)
            if not self.leaky:
                _refuse_shared(sides, {track_id: t.group for track_id, t in tracks.items()}, "artist", where)
            unlearned = {tracks[i].label for i in fold.test} - {tracks[i].label for i in fold.train}
            if unlearned:
                raise MgcError(
                    f"the class {min(unlearned)!r} is tested but not learned: it has too few artists "
                    "or tracks for this split",
                    where=where,
                    fix=_FEW_TRACKS,
                )
        tested = Counter(track_id for fold in self.folds for track_id in fold.test)
        twice = [track_id for track_id, count in tested.items() if count > 1]
        if twice:
            raise MgcError(f"track {twice[0]!r} is tested in two folds", where=self.name)

    @property
    def tested(self) -> tuple[str, ...]:
        """Ids of all tracks that are predicted, sorted."""
        return tuple(sorted(track_id for fold in self.folds for track_id in fold.test))

    @property
    def fingerprint(self) -> str:
        """Hash of who stands where. Records are compared only where it is equal."""
        text = json.dumps([[sorted(f.train), sorted(f.val), sorted(f.test)] for f in self.folds])
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


_FEW_TRACKS = "add tracks, leave the class out, or try --split holdout or another --split-seed"


def make_split(dataset: Dataset, name: str = "auto", seed: int = 0) -> Split:
    """The split called `name`: "given", "holdout", "cv5", "random", or "auto".

    "auto" takes the given split where every track has one, else "cv5" below 2,000 tracks, else "holdout".
    "random" is as large on every side as "auto" is, but stratified by label alone: it leaks.

    Raises:
        MgcError: no split is given, or the tracks cannot be split so.
    """
    given = all(track.split is not None for track in dataset.tracks)
    if name == "random":
        return _random(dataset, given, seed)
    if name == "auto":
        name = "given" if given else _by_size(dataset)
    if name == "given":
        if not given:
            raise MgcError(
                "the split 'given' needs a split for every track",
                where=dataset.name,
                fix="name the column with --column split=NAME, or use --split cv5",
            )
        return _given(dataset, seed)
    folds, rule = _drawn(dataset, name, seed)
    return Split(name, f"{rule}, {_grouping(dataset)}, seed {seed}, {_held_out(folds)}", folds, dataset)


def thinned(split: Split, per_class: int, seed: int) -> Split:
    """The same validation and test sides, but at most `per_class` training tracks of each class.

    They are drawn by `seed`; of two such splits the larger one holds the tracks of the smaller one.
    """
    tracks = split.dataset.by_id
    folds = []
    for fold in split.folds:
        order = np.random.default_rng(seed).permutation(len(fold.train))
        seen: Counter[str] = Counter()
        kept = []
        for track_id in (fold.train[place] for place in order):
            label = tracks[track_id].label
            seen[label] += 1
            if seen[label] <= per_class:
                kept.append(track_id)
        folds.append(replace(fold, train=tuple(sorted(kept))))
    authority = f"{split.authority}; at most {per_class} training tracks a class, seed {seed}"
    return replace(split, folds=tuple(folds), authority=authority)


def side_of(word: str) -> str | None:
    """ "train", "val" or "test" for the usual words, None for any other."""
    return next((side for side, words in SPLIT_WORDS.items() if word.strip().lower() in words), None)


def _by_size(dataset: Dataset) -> str:
    return "cv5" if len(dataset) < CV5_BELOW_TRACKS else "holdout"


def _drawn(dataset: Dataset, name: str, seed: int) -> tuple[tuple[Fold, ...], str]:
    """Folds drawn by seed, whole groups, and the rule in words."""
    count = 5
    _refuse_small_classes(dataset, count)
    tests = _parts(dataset.tracks, count, seed)[: 1 if name == "holdout" else count]
    folds = tuple(_fold(dataset.tracks, test, seed + number) for number, test in enumerate(tests))
    return folds, "one fifth tested, stratified" if name == "holdout" else "five folds, stratified"


def _held_out(folds: Sequence[Fold]) -> str:
    fold = folds[0]
    share = len(fold.val) / (len(fold.train) + len(fold.val) + len(fold.test))
    return f"{100 * share:.0f} % of the tracks for validation"


def _given(dataset: Dataset, seed: int) -> Split:
    sides = _given_sides(dataset)
    authority = dataset.split_authority
    if sides["val"] or not sides["train"]:
        train, val = sides["train"], sides["val"]
    else:
        authority += f"; a tenth of its training tracks for validation, {_grouping(dataset)}, seed {seed}"
        val = _validation(sides["train"], 10, seed)
        train = _without(sides["train"], val)
    fold = Fold(_ids(train), _ids(val), _ids(sides["test"]))
    return Split(dataset.split_name, authority, (fold,), dataset)


def _given_sides(dataset: Dataset) -> dict[str | None, list[Track]]:
    sides: dict[str | None, list[Track]] = {"train": [], "val": [], "test": []}
    for track in dataset.tracks:
        sides[track.split].append(track)
    return sides


def _random(dataset: Dataset, given: bool, seed: int) -> Split:
    """Each track for itself: what most published tables of this field do, and what it hides."""
    alone = replace(dataset, tracks=tuple(replace(track, group=track.track_id) for track in dataset.tracks))
    if given:
        folds, rule = _as_large_as_given(alone, seed), f"sides as large as in the {dataset.split_name} split"
    else:
        folds, rule = _drawn(alone, _by_size(dataset), seed)
    rule = f"LEAKY: random, {rule}, {_shared(dataset, folds)}, seed {seed}, {_held_out(folds)}"
    return Split("random", rule, folds, dataset, leaky=True)


def _as_large_as_given(dataset: Dataset, seed: int) -> tuple[Fold, ...]:
    from sklearn.model_selection import train_test_split

    sizes = {side: len(tracks) for side, tracks in _given_sides(dataset).items()}
    n_val = sizes["val"] or max(1, sizes["train"] // 10)

    def cut(tracks: list[Track], count: int) -> tuple[list[Track], list[Track]]:
        labels = [track.label for track in tracks]
        try:
            rest, part = train_test_split(tracks, test_size=count, stratify=labels, random_state=seed)
        except ValueError as error:  # scikit-learn's words: a class of one track, a side below the classes
            raise MgcError(f"no random split: {error}", where=dataset.name, fix=_FEW_TRACKS) from None
        return rest, part

    rest, test = cut([*dataset.tracks], sizes["test"])
    train, val = cut(rest, n_val)
    return (Fold(_ids(train), _ids(val), _ids(test)),)


def _shared(dataset: Dataset, folds: Sequence[Fold]) -> str:
    """How many tested tracks are known to the learner by their artist (or their very bytes)."""
    tracks = dataset.by_id
    tested = shared = 0
    for fold in folds:
        learned = {tracks[track_id].group for track_id in (*fold.train, *fold.val)}
        tested += len(fold.test)
        shared += sum(tracks[track_id].group in learned for track_id in fold.test)
    if any(track.artist for track in dataset.tracks):
        known = 100 * shared / tested
        return f"artists not kept apart ({known:.0f} % of the tested tracks have theirs in training)"
    return "artists unknown and not kept apart"


def _fold(tracks: Iterable[Track], test: list[Track], seed: int) -> Fold:
    rest = _without(tracks, test)
    val = _validation(rest, 8, seed)  # an eighth of four fifths is a tenth of all
    return Fold(_ids(_without(rest, val)), _ids(val), _ids(test))


def _validation(tracks: list[Track], count: int, seed: int) -> list[Track]:
    """The first of `count` parts that leaves every class to learn; empty where none does: `Split` says so."""
    for part in _parts(tracks, min(count, len({track.group for track in tracks})), seed):
        if part and {t.label for t in _without(tracks, part)} == {t.label for t in tracks}:
            return part
    return []


def _parts(tracks: Iterable[Track], count: int, seed: int) -> list[list[Track]]:
    """`count` disjoint parts, stratified by label, whole groups; fewer where no class has so many tracks."""
    from sklearn.model_selection import StratifiedGroupKFold  # a second that other commands need not pay

    tracks = list(tracks)
    labels = [track.label for track in tracks]
    count = max(2, min(count, max(Counter(labels).values(), default=0)))
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    # scikit-learn wants numbers of groups no smaller than the parts; fewer is told by Split's own checks.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "least populated class": told by Split as well
        try:
            cuts = list(folds.split(np.zeros(len(tracks)), labels, [track.group for track in tracks]))
        except ValueError:
            return [[] for _ in range(count)]
    return [[tracks[index] for index in test] for _, test in cuts]


def _refuse_small_classes(dataset: Dataset, folds: int) -> None:
    for label, count in sorted(Counter(track.label for track in dataset.tracks).items()):
        if count < folds:
            raise MgcError(
                f"the class {label!r} has {count} tracks, fewer than the {folds} parts it must be cut into",
                where=dataset.name,
                fix="add tracks or leave the class out",
            )


def _refuse_shared(sides: dict[str, tuple[str, ...]], owner: dict[str, str], kind: str, where: str) -> None:
    side_of_owner: dict[str, str] = {}
    for side, ids in sides.items():
        for track_id in ids:
            other = side_of_owner.setdefault(owner[track_id], side)
            if other != side:
                name = owner[track_id].removeprefix("artist: ")
                raise MgcError(
                    f"the {kind} {name!r} stands on two sides, {other} and {side}: what a network "
                    "remembers of it would count as knowledge",
                    where=where,
                    fix="mend the split column, or let mgc split by artist with --split cv5",
                )


def _grouping(dataset: Dataset) -> str:
    if any(track.artist for track in dataset.tracks):
        return "artists apart"
    return "artists unknown: each track on its own"


def _without(tracks: Iterable[Track], taken: list[Track]) -> list[Track]:
    ids = {track.track_id for track in taken}
    return [track for track in tracks if track.track_id not in ids]


def _ids(tracks: Iterable[Track]) -> tuple[str, ...]:
    return tuple(track.track_id for track in tracks)
