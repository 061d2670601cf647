"""What `mgc data info` prints."""

from mgc.config import DataRecipe
from mgc.data.dataset import Dataset, by_reason
from mgc.data.loading import load
from mgc.data.splits import Split, make_split
from mgc.util.errors import printable
from mgc.util.progress import clock
from mgc.workspace import Workspace


def describe(recipe: DataRecipe, workspace: Workspace) -> str:
    """Tracks, genres, artists, the split, what is left out and why."""
    dataset = load(recipe, workspace)
    seconds = sum(track.seconds for track in dataset.tracks)
    lines = [
        f"{dataset.name}: {len(dataset)} tracks, {len(dataset.classes)} genres, {clock(seconds)} of audio",
        f"  licence: {dataset.licence or 'not stated'}",
        *(f"  {note}" for note in dataset.notes),
        *_classes(dataset),
    ]
    split = make_split(dataset, recipe.split, recipe.split_seed)
    lines.append(f"split {split.name}: {split.authority}")
    for number, fold in enumerate(split.folds):
        lines.append(f"  fold {number}: {len(fold.train)} train, {len(fold.val)} val, {len(fold.test)} test")
    lines += [f"  {line}" for line in gaps(split)]
    lines.append(f"left out: {len(dataset.excluded)}")
    lines += [f"  {line}" for line in by_reason(dataset.excluded)]
    return "\n".join(map(printable, lines))


def gaps(split: Split) -> list[str]:
    """What a split cannot tell: genres of which no fold has a track to test, or to validate on."""
    tracks = split.dataset.by_id
    sides = {
        "is tested: nothing is found out about them": {i for fold in split.folds for i in fold.test},
        "stands on a validation side: no choice minds them": {i for fold in split.folds for i in fold.val},
    }
    lines = []
    for what, ids in sides.items():
        there = {tracks[track_id].label for track_id in ids}
        lacking = [label for label in split.dataset.classes if label not in there]
        lines += [f"of these genres no track {what}: {', '.join(lacking)}"] if lacking else []
    return lines


def _classes(dataset: Dataset) -> list[str]:
    width = max(map(len, dataset.classes))
    lines = []
    for label in dataset.classes:
        own = [track for track in dataset.tracks if track.label == label]
        artists = len({track.group for track in own})
        counted = f"{artists} artists" if any(track.artist for track in own) else "artists unknown"
        shortest, longest = min(t.seconds for t in own), max(t.seconds for t in own)
        lines.append(f"  {label:<{width}}  {len(own)} tracks, {counted}, {shortest:.1f} to {longest:.1f} s")
    return lines
