"""The music: known sources by name, folders and manifests, all through `load`."""

import hashlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mgc.audio import Clip
from mgc.config import DataRecipe, MgcError, data_root, did_you_mean
from mgc.data import demo
from mgc.data.clips import cores, inspect_all, load_windows
from mgc.data.dataset import Dataset, Excluded, Track
from mgc.data.sources import MANIFEST_SUFFIXES, Listing, from_folder, from_manifest
from mgc.data.splits import Fold, Split, make_split
from mgc.progress import clock

__all__ = [
    "SOURCES",
    "Dataset",
    "Excluded",
    "Fold",
    "Source",
    "Split",
    "Track",
    "cores",
    "describe",
    "load",
    "load_windows",
    "make_split",
    "name_of",
]


@dataclass(frozen=True)
class Source:
    """A data set known by name. `manifest` makes sure that it is there and returns its manifest."""

    about: str
    licence: str
    manifest: Callable[[Path], Path]


SOURCES: dict[str, Source] = {
    "demo": Source(
        "real scores of six styles, rendered with random General MIDI instruments",
        "scores: public domain, encodings as the music21 corpus states them",
        demo.render,
    ),
}


def load(recipe: DataRecipe) -> Dataset:
    """The tracks of `recipe.source`, every file looked at once, unusable ones set aside.

    Raises:
        MgcError: nothing there, nothing usable, or more than `recipe.max_excluded` unusable.
    """
    listing, licence = _list(recipe)
    tracks = _limited(listing.tracks, recipe)
    clips = inspect_all([track.path for track in tracks])
    usable = [
        replace(track, content=clip.content, seconds=clip.seconds)
        for track, clip in zip(tracks, clips, strict=True)
        if clip.problem is None
    ]
    excluded = [*listing.excluded, *_excluded(tracks, clips)]
    _refuse_too_many(excluded, len(usable), recipe)
    given = all(track.split for track in usable) and recipe.split in ("auto", "given")
    usable, notes = _same_content_one_group(usable, given)
    return Dataset(listing.name, tuple(usable), tuple(excluded), licence, (*listing.notes, *notes))


def name_of(recipe: DataRecipe) -> str:
    """The name that `load` would give the data set; the folder of its results. Opens no audio."""
    return recipe.source if recipe.source in SOURCES else _list(recipe)[0].name


def describe(recipe: DataRecipe) -> str:
    """What `mgc data info` prints: tracks, genres, artists, the split, what is left out and why."""
    dataset = load(recipe)
    seconds = sum(track.seconds for track in dataset.tracks)
    lines = [
        f"{dataset.name}: {len(dataset)} tracks, {len(dataset.classes)} genres, {clock(seconds)} of audio"
    ]
    lines.append(f"  licence: {dataset.licence or 'not stated'}")
    lines += [f"  {note}" for note in dataset.notes]
    width = max(map(len, dataset.classes))
    for label in dataset.classes:
        own = [track for track in dataset.tracks if track.label == label]
        artists = len({track.group for track in own})
        counted = f"{artists} artists" if any(track.artist for track in own) else "artists unknown"
        shortest, longest = min(t.seconds for t in own), max(t.seconds for t in own)
        lines.append(f"  {label:<{width}}  {len(own)} tracks, {counted}, {shortest:.1f} to {longest:.1f} s")
    split = make_split(dataset, recipe.split, recipe.split_seed)
    lines.append(f"split {split.name}: {split.authority}")
    for number, fold in enumerate(split.folds):
        lines.append(f"  fold {number}: {len(fold.train)} train, {len(fold.val)} val, {len(fold.test)} test")
    lines.append(f"left out: {len(dataset.excluded)}")
    lines += [f"  {bad.track_id}  {bad.reason}" for bad in dataset.excluded]
    return "\n".join(lines)


def _list(recipe: DataRecipe) -> tuple[Listing, str | None]:
    if recipe.source in SOURCES:
        known = SOURCES[recipe.source]
        listing = from_manifest(known.manifest(data_root() / recipe.source), recipe)
        return replace(listing, name=recipe.source), known.licence
    path = Path(recipe.source).expanduser()
    if path.is_dir():
        return from_folder(path), None
    if path.is_file() and path.suffix.lower() in MANIFEST_SUFFIXES:
        return from_manifest(path, recipe), None
    if path.is_file():
        raise MgcError(
            f"a manifest ends in one of {', '.join(MANIFEST_SUFFIXES)}",
            where=path,
            fix="give such a table, or a folder root/<genre>/<file>",
        )
    raise MgcError(
        f"there is no folder, manifest or data set {recipe.source!r}",
        where=path.absolute(),
        fix=did_you_mean(recipe.source, SOURCES),
    )


def _limited(tracks: list[Track], recipe: DataRecipe) -> list[Track]:
    """At most `limit` tracks, the classes in turn, in an order drawn from the split's seed."""
    if recipe.limit is None or recipe.limit >= len(tracks):
        return tracks
    by_label = defaultdict(list)
    for track in sorted(tracks, key=lambda t: _draw(f"{recipe.split_seed} {t.track_id}")):
        by_label[track.label].append(track)
    turns = sorted(
        (turn, label, track) for label, of_label in by_label.items() for turn, track in enumerate(of_label)
    )
    return [track for _, _, track in turns[: recipe.limit]]


def _draw(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _excluded(tracks: list[Track], clips: list[Clip]) -> list[Excluded]:
    return [
        Excluded(track.track_id, track.path, track.label, clip.problem)
        for track, clip in zip(tracks, clips, strict=True)
        if clip.problem is not None
    ]


def _refuse_too_many(excluded: list[Excluded], usable: int, recipe: DataRecipe) -> None:
    if len(excluded) <= recipe.max_excluded * (usable + len(excluded)):
        return
    rows = "\n".join(f"    {bad.track_id}: {bad.reason}" for bad in excluded[:10])
    more = f"\n    and {len(excluded) - 10} more" if len(excluded) > 10 else ""
    raise MgcError(
        f"{len(excluded)} of {usable + len(excluded)} tracks cannot be used, more than the "
        f"{recipe.max_excluded:.0%} allowed:\n{rows}{more}",
        where=recipe.source,
        fix="mend them or take them out; or allow more with --set data.max_excluded=0.2",
    )


def _same_content_one_group(tracks: list[Track], given: bool) -> tuple[list[Track], list[str]]:
    """Files of the same bytes must not stand on two sides: their groups become one.

    Across the sides of a given split they stay where the source has put them, and that is said.
    """
    leader: dict[str, str] = {}

    def find(group: str) -> str:
        while leader.get(group, group) != group:
            group = leader[group]
        return group

    first_of: dict[tuple[str, str | None], Track] = {}
    copies = 0
    for track in tracks:
        first = first_of.setdefault((track.content, track.split if given else None), track)
        if first is not track:
            copies += 1
            leader[find(track.group)] = find(first.group)
    leaks = len(first_of) - len({content for content, _ in first_of})
    notes = []
    if copies:
        notes.append(f"{copies} files are copies of others, byte for byte: kept on one side")
    if leaks:
        notes.append(f"{leaks} files stand, byte for byte, on another side of the given split as well")
    return [replace(track, group=find(track.group)) for track in tracks], notes
