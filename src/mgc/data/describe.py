"""The text of `mgc data info`."""

from mgc.config import DataRecipe
from mgc.data.dataset import Dataset, by_reason
from mgc.data.loading import load
from mgc.data.splits import make_split, unevaluated_classes
from mgc.util.errors import printable
from mgc.util.progress import clock
from mgc.workspace import Workspace


def describe(recipe: DataRecipe, workspace: Workspace) -> str:
    """Tracks, genres, artists, the split, and which tracks are excluded for which reason."""
    dataset = load(recipe, workspace)
    split = make_split(dataset, recipe.split, recipe.split_seed)
    seconds = sum(track.seconds for track in dataset.tracks)
    lines = [
        f"{dataset.name}: {len(dataset)} tracks, {len(dataset.classes)} genres, {clock(seconds)} of audio",
        f"  licence: {dataset.licence or 'not stated'}",
        *(f"  {note}" for note in dataset.notes),
        *_classes(dataset),
        f"split {split.name}: {split.authority}",
        *(
            f"  fold {number}: {len(fold.train)} train, {len(fold.val)} val, {len(fold.test)} test"
            for number, fold in enumerate(split.folds)
        ),
        *(f"  {line}" for line in unevaluated_classes(split)),
        f"excluded: {len(dataset.excluded)}",
        *(f"  {line}" for line in by_reason(dataset.excluded)),
    ]
    return "\n".join(map(printable, lines))


def _classes(dataset: Dataset) -> list[str]:
    width = max(map(len, dataset.classes))
    lines = []
    for label in dataset.classes:
        own = [track for track in dataset.tracks if track.label == label]
        groups = len({track.group for track in own})
        artists = f"{groups} artists" if any(track.artist for track in own) else "artists unknown"
        shortest, longest = min(t.seconds for t in own), max(t.seconds for t in own)
        lines.append(f"  {label:<{width}}  {len(own)} tracks, {artists}, {shortest:.1f} to {longest:.1f} s")
    return lines
