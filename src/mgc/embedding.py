"""`embed`: what the store does not hold yet of a representation is computed, and only that.

torch is imported when there is something to compute, so that a call that finds all done ends in a second.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mgc import data
from mgc.config import WINDOWS_AT_ONCE, Device, EmbedRecipe
from mgc.data import Dataset, Track
from mgc.progress import Progress
from mgc.representations import Representation, open_representation
from mgc.store import Store


@dataclass(frozen=True)
class Embedded:
    """What `embed` did: how many clips were there, how many it computed, and the seconds of all of them."""

    representation: Representation
    tracks: int
    computed: int
    seconds: float
    folder: Path


def embed(recipe: EmbedRecipe) -> Embedded:
    """Compute what the store does not hold yet of one representation, for every usable track.

    Raises:
        MgcError: no such data, encoder or device, or a store that cannot be written.
    """
    representation = open_representation(recipe.model)
    return embed_tracks(data.load(recipe.data), representation, recipe.device, recipe.batch_size)


def embed_tracks(
    dataset: Dataset,
    representation: Representation,
    device: Device,
    batch_size: int = WINDOWS_AT_ONCE,
    tracks: Sequence[Track] | None = None,
) -> Embedded:
    """The same for a data set that is loaded, or some `tracks` of it. Interrupted, it keeps what is through.

    Raises:
        MgcError: an encoder that cannot be loaded, no such device, or a store that cannot be written.
    """
    store = Store(representation)
    wanted = dataset.tracks if tracks is None else tracks
    first_of = {track.content: track for track in reversed(wanted)}
    missing = store.missing(first_of)
    todo = [t for t in wanted if t.content in missing and first_of[t.content] is t]
    if todo:
        from mgc.device import make_accelerator, tune_cpu
        from mgc.representations.pooling import represent

        where = make_accelerator(device).device
        tune_cpu()
        encoder = representation.load(where)
        arrays = represent(representation, encoder, [track.path for track in todo], where, batch_size)
        with (
            store.writer() as writer,
            Progress(f"embed {representation.name}", len(todo), "clips") as progress,
        ):
            for position, array in arrays:
                writer.add(todo[position].content, todo[position].track_id, array)
                progress.step()
    return Embedded(representation, len(wanted), len(todo), store.seconds(first_of), store.folder)
