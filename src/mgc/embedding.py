"""`embed`: what the store does not hold yet of a representation is computed, and only that.

torch is imported when there is something to compute, so that a call that finds all done ends in a second.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mgc import data
from mgc.config import WINDOWS_AT_ONCE, Device, EmbedRecipe, MgcError
from mgc.data import Dataset, Track
from mgc.data.clips import state_of
from mgc.progress import Progress
from mgc.representations import Representation, address_of, open_representation
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
    address = address_of(recipe.model, recipe.random_weights, recipe.seed, recipe.keep)
    representation = open_representation(address, recipe.trust_remote_code)
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
        MgcError: an encoder that cannot be loaded, no such device, a store that cannot be written, or files
            that were changed meanwhile.
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
        states = [state_of(track.path) for track in todo]
        changed = []
        arrays = represent(representation, encoder, [track.path for track in todo], where, batch_size)
        with (
            store.writer() as writer,
            Progress(f"embed {representation.name}", len(todo), "clips") as progress,
        ):
            for position, array in arrays:
                track = todo[position]
                if state_of(track.path) == states[position]:
                    writer.add(track.content, track.track_id, array)
                else:  # its hash is not that of what was heard
                    changed.append(track.track_id)
                progress.step()
        if changed:
            what = f"{len(changed)} files changed while they were read: {', '.join(changed[:5])}"
            raise MgcError(what, fix="the others are kept; run the same command again")
    return Embedded(representation, len(wanted), len(todo), store.seconds(first_of), store.folder)
