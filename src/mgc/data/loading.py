"""From a listing to a `Dataset`: every file looked at once, unusable and quarantined tracks set aside."""

import hashlib
from collections import Counter, defaultdict
from dataclasses import replace

from mgc.audio import Clip
from mgc.config import DataRecipe
from mgc.data.catalogue import find
from mgc.data.clips import inspect_all
from mgc.data.dataset import Dataset, Excluded, Track, by_reason, joined
from mgc.data.quarantine import Quarantined, is_left_out, read_quarantine
from mgc.util.errors import MgcError, counted, printable
from mgc.workspace import Workspace


def load(recipe: DataRecipe, workspace: Workspace) -> Dataset:
    """The tracks of `recipe.source`, every file looked at once, unusable and quarantined ones set aside.

    Raises:
        MgcError: nothing there, nothing usable, or more than `recipe.max_excluded` unusable that
            `mgc data check` has not put into quarantine.
    """
    listing = find(recipe, workspace)
    tracks = limited(listing.tracks, recipe)
    clips = inspect_all([track.path for track in tracks], workspace.cache)
    quarantine = read_quarantine(listing.name, workspace)
    usable, excluded, unforeseen = list[Track](), [*listing.excluded], [*listing.excluded]
    for track, clip in zip(tracks, clips, strict=True):
        row = quarantine.get(track.track_id)
        reason = _reason(clip, row)
        if reason is None:
            usable.append(replace(track, content=clip.content, seconds=clip.seconds))
            continue
        bad = Excluded(track.track_id, track.path, track.label, reason)
        excluded.append(bad)
        if row is None:
            unforeseen.append(bad)
    _refuse_too_many(unforeseen, len(usable) + len(excluded), recipe)
    notes = [*listing.notes]
    if quarantine:
        notes.append("checked: what quarantine.csv beside the results says is left out")
    given = all(track.split for track in usable) and recipe.split in ("auto", "given")
    usable, copies = _copies_one_group(usable, quarantine, given)
    return Dataset(
        listing.name,
        tuple(usable),
        tuple(excluded),
        listing.licence,
        (*notes, *copies),
        listing.split_name,
        listing.split_authority,
    )


def limited(tracks: list[Track], recipe: DataRecipe) -> list[Track]:
    """At most `limit` tracks: the classes in turn, in each the sides of a given split in proportion.

    The order is drawn from the split's seed.
    """
    if recipe.limit is None or recipe.limit >= len(tracks):
        return tracks
    sizes = Counter((track.label, track.split) for track in tracks)
    place = Counter[tuple[str, str | None]]()
    by_label = defaultdict(list)
    for track in sorted(tracks, key=lambda t: _draw(f"{recipe.split_seed} {t.track_id}")):
        side = track.label, track.split
        # The k-th of n stands at (k + 1/2) / n, whichever side: the first few hold one of each already.
        by_label[track.label].append(((place[side] + 0.5) / sizes[side], track))
        place[side] += 1
    turns = [
        (turn, label, track)
        for label, own in by_label.items()
        for turn, (_, track) in enumerate(sorted(own, key=lambda entry: entry[0]))
    ]
    turns.sort(key=lambda entry: entry[:2])
    return [track for _, _, track in turns[: recipe.limit]]


def _draw(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _reason(clip: Clip, row: Quarantined | None) -> str | None:
    """Why a track is left out; None where it is not."""
    if clip.problem is not None:
        return clip.problem
    if row is not None and is_left_out(row, clip.content):
        return f"quarantined: {row.reason}"
    return None


def _refuse_too_many(unforeseen: list[Excluded], total: int, recipe: DataRecipe) -> None:
    if len(unforeseen) <= recipe.max_excluded * total:
        return
    lines = by_reason(unforeseen)
    rows = "\n".join(f"    {printable(line)}" for line in lines[:10])
    more = f"\n    and {len(lines) - 10} more" if len(lines) > 10 else ""
    raise MgcError(
        f"{len(unforeseen)} of {total} tracks cannot be used, more than the "
        f"{100 * recipe.max_excluded:g} % allowed:\n{rows}{more}",
        where=recipe.source,
        fix="mend them or take them out; or let mgc data check put them into quarantine, and look at it; or "
        "allow more with --set data.max_excluded=0.2",
    )


def _copies_one_group(
    tracks: list[Track], quarantine: dict[str, Quarantined], given: bool
) -> tuple[list[Track], list[str]]:
    """Files of the same bytes, and what a check has found to be copies, must not stand on two sides: their
    groups become one.

    Across the sides of a given split they stay where the source has put them, and that is said.
    """
    links: list[tuple[str, str]] = []
    first_of: dict[tuple[str, str | None], Track] = {}
    copies = near = conflicts = 0
    for track in tracks:
        first = first_of.setdefault((track.content, track.split if given else None), track)
        if first is not track:
            copies += 1
            conflicts += first.label != track.label
            links.append((first.group, track.group))
    by_id = {track.track_id: track for track in tracks}
    for track in tracks:
        row = quarantine.get(track.track_id)
        other = by_id.get(row.copy_of) if row and row.content == track.content else None
        if other and not (given and other.split != track.split):
            near += other.content != track.content
            links.append((other.group, track.group))
    leaks = len(first_of) - len({content for content, _ in first_of})
    notes = {
        f"{counted(copies, 'file')} byte for byte like others: kept on one side": copies,
        f"{counted(conflicts, 'file')} byte for byte like one of another genre, and nobody knows which is "
        "right: mgc data check leaves such out": conflicts,
        f"{counted(near, 'track')} like others by what mgc data check has heard: kept on one side": near,
        f"{counted(leaks, 'file')} byte for byte on another side of the given split as well": leaks,
    }
    group_of = joined(links)
    groups = [replace(track, group=group_of(track.group)) for track in tracks]
    return groups, [note for note, count in notes.items() if count]
