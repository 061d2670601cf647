"""From a source to a `Dataset`: scan it, inspect every file, exclude unusable and quarantined tracks."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mgc.config import DataRecipe
from mgc.data.catalogue import scan
from mgc.data.clips import inspect_all
from mgc.data.dataset import Dataset, Excluded, Track, by_reason
from mgc.data.quarantine import Quarantined, read_quarantine
from mgc.data.splits import make_split, unevaluated_classes
from mgc.util.errors import MgcError, counted, printable
from mgc.util.progress import clock
from mgc.workspace import Workspace


def load(recipe: DataRecipe, workspace: Workspace) -> Dataset:
    """The usable tracks of `recipe.source`. Every file is inspected once.

    Raises:
        MgcError: no such source, no usable track, or too many unusable tracks that are not quarantined.
    """
    listing = scan(recipe, workspace)
    tracks = limit_tracks(listing.tracks, recipe)
    clips = inspect_all([track.path for track in tracks], workspace.cache)
    quarantine = read_quarantine(workspace.quarantine_file(listing.name))
    usable, excluded = list[Track](), [*listing.excluded]
    for track, clip in zip(tracks, clips, strict=True):
        row = quarantine.get(track.track_id)
        reason = clip.problem
        if reason is None and row and row.applies_to(clip.content):
            reason = f"quarantined: {row.reason}"
        if reason is None:
            usable.append(replace(track, content=clip.content, seconds=clip.seconds))
        else:
            excluded.append(Excluded(track.track_id, track.path, track.label, reason))
    unexpected = [bad for bad in excluded if bad.track_id not in quarantine]
    _check_share(unexpected, len(usable) + len(excluded), recipe)
    is_given = all(track.split for track in usable) and recipe.split in ("auto", "given")
    usable, copies = _group_copies(usable, quarantine, is_given)
    checked = ["checked: tracks in the quarantine file are excluded"] if quarantine else []
    notes, given = (*listing.notes, *checked, *copies), (listing.split_name, listing.split_authority)
    return Dataset(listing.name, tuple(usable), tuple(excluded), listing.licence, notes, *given)


def describe(recipe: DataRecipe, workspace: Workspace) -> str:
    """The text of `mgc data info`: tracks, genres, artists, the split, and why tracks are excluded."""
    dataset = load(recipe, workspace)
    split = make_split(dataset, recipe.split, recipe.split_seed)
    seconds = sum(track.seconds for track in dataset.tracks)
    sizes = f"{counted(len(dataset), 'track')}, {counted(len(dataset.classes), 'genre')}"
    lines = [
        f"{dataset.name}: {sizes}, {clock(seconds)} of audio",
        f"  licence: {dataset.licence or 'not stated'}",
        *(f"  {note}" for note in dataset.notes),
    ]
    width = max(map(len, dataset.classes))
    for label in dataset.classes:
        own = [track for track in dataset.tracks if track.label == label]
        groups = len({track.group for track in own})
        artists = counted(groups, "artist") if any(track.artist for track in own) else "artists unknown"
        shortest, longest = min(t.seconds for t in own), max(t.seconds for t in own)
        tracks = counted(len(own), "track")
        lines.append(f"  {label:<{width}}  {tracks}, {artists}, {shortest:.1f} to {longest:.1f} s")
    lines.append(f"split {split.name}: {split.authority}")
    for number, fold in enumerate(split.folds):
        sizes = ", ".join(f"{len(ids)} {part}" for part, ids in fold.parts.items())
        lines.append(f"  fold {number}: {sizes}")
    lines += [*(f"  {line}" for line in unevaluated_classes(split)), f"excluded: {len(dataset.excluded)}"]
    lines += [f"  {line}" for line in by_reason(dataset.excluded)]
    return "\n".join(map(printable, lines))


def limit_tracks(tracks: list[Track], recipe: DataRecipe) -> list[Track]:
    """At most `recipe.limit` tracks, balanced over classes, in the proportions of a given split.

    The order is drawn with `recipe.split_seed`; a larger limit contains the tracks of a smaller one.
    """
    import pandas as pd

    if recipe.limit is None or recipe.limit >= len(tracks):
        return tracks
    draws = [f"{recipe.split_seed} {track.track_id}".encode() for track in tracks]
    hashes = [hashlib.blake2b(draw, digest_size=8).hexdigest() for draw in draws]
    rows = [(t, t.label, str(t.split), drawn) for t, drawn in zip(tracks, hashes, strict=True)]
    table = pd.DataFrame(rows, columns=["track", "label", "part", "drawn"]).sort_values("drawn")
    parts = table.groupby(["label", "part"])
    # The k-th of n is at (k + 1/2) / n in every part of the split: the first few include one of each.
    table["place"] = (parts.cumcount() + 0.5) / parts["drawn"].transform("size")
    table["turn"] = table.sort_values("place", kind="stable").groupby("label").cumcount()
    return [*table.sort_values(["turn", "label"])["track"][: recipe.limit]]


def _check_share(unexpected: Sequence[Excluded], total: int, recipe: DataRecipe) -> None:
    if len(unexpected) <= recipe.max_excluded * total:
        return
    lines = by_reason(unexpected)
    rows = "\n".join(f"    {printable(line)}" for line in lines[:10])
    more = f"\n    and {len(lines) - 10} more" if len(lines) > 10 else ""
    allowed = f"more than the {100 * recipe.max_excluded:g} % allowed"
    what = f"{len(unexpected)} of {total} tracks cannot be used, {allowed}:\n{rows}{more}"
    fix = "fix or remove them; or run mgc data check, which puts them into the quarantine file, and read "
    fix += "that file; or allow more with --set data.max_excluded=0.2"
    raise MgcError(what, where=recipe.source, fix=fix)


def _group_copies(
    tracks: list[Track], quarantine: Mapping[str, Quarantined], is_given: bool
) -> tuple[list[Track], list[str]]:
    """Tracks with one group for identical files and for copies that a check has found, and notes about them.

    Copies in different parts of a given split remain there.
    """
    from scipy.cluster.hierarchy import DisjointSet

    groups = DisjointSet([track.group for track in tracks])
    first_of: dict[tuple[str, str | None], Track] = {}
    identical = similar = conflicts = 0
    for track in tracks:
        first = first_of.setdefault((track.content, track.split if is_given else None), track)
        if first is not track:
            identical += 1
            conflicts += first.label != track.label
            groups.merge(first.group, track.group)
    by_id = {track.track_id: track for track in tracks}
    for track in tracks:
        row = quarantine.get(track.track_id)
        other = by_id.get(row.copy_of) if row and row.content == track.content else None
        if other and not (is_given and other.split != track.split):
            similar += other.content != track.content
            groups.merge(other.group, track.group)
    leaks = len(first_of) - len({content for content, _ in first_of})
    kept = "kept in one part of the split"
    notes = {
        f"{counted(identical, 'file')} identical to others: {kept}": identical,
        f"{counted(conflicts, 'file')} identical to one of another genre, see mgc data check": conflicts,
        f"{counted(similar, 'track')} similar to others, as mgc data check found: {kept}": similar,
        f"{counted(leaks, 'file')} identical to one in another part of the given split": leaks,
    }
    tracks = [replace(track, group=min(groups.subset(track.group))) for track in tracks]
    return tracks, [note for note, count in notes.items() if count]
