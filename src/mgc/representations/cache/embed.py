"""`embed`: what the store does not hold yet of a representation is computed, and only that.

torch is imported when there is something to compute, so that a call that finds all done ends in a second.

Several processes, of torchrun or `accelerate launch`, divide what is missing: the first looks at the files
and at the store and tells the others which clips there are to do, so that all divide the same list whatever
is written meanwhile; each computes every n-th of them and writes shards of its own. They meet again at the
end. One that is killed takes nothing with it but its own clips since its last shard.
"""

import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mgc import data
from mgc.config import WINDOWS_AT_ONCE, Device, EmbedRecipe
from mgc.data import Dataset, Track
from mgc.data.clips import state_of
from mgc.representations import Representation, address_of, open_representation
from mgc.representations.cache.store import Store
from mgc.util.errors import MgcError
from mgc.util.progress import Progress, say
from mgc.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from mgc.representations.card import Encoder
    from mgc.util.devices import Crew

LATE_SECONDS = 60.0  # a shared folder may show so late what another machine has written


@dataclass(frozen=True)
class Embedded:
    """What `embed` did: how many clips were there, how many it computed, and the seconds of all of them.

    Of several processes only the `first` knows of all; the others' figures are those of their own part.
    """

    representation: Representation
    tracks: int
    computed: int
    seconds: float
    folder: Path
    first: bool = True


def embed(recipe: EmbedRecipe, workspace: Workspace) -> Embedded:
    """Compute what the store does not hold yet of one representation, for every usable track.

    Raises:
        MgcError: no such data, encoder or device, or a store that cannot be written.
    """
    address = address_of(recipe.model, recipe.random_weights, recipe.seed, recipe.keep)
    representation = open_representation(address, workspace, recipe.trust_remote_code)
    if "LOCAL_RANK" in os.environ:  # a launcher's
        from mgc.util.devices import Crew, several

        if several():
            return _embed_together(recipe, representation, workspace, Crew(recipe.device))
    return embed_tracks(
        _loaded(recipe, workspace).tracks, representation, workspace, recipe.device, recipe.batch_size
    )


def _loaded(recipe: EmbedRecipe, workspace: Workspace) -> Dataset:
    """The tracks; what is left out is said."""
    dataset = data.load(recipe.data, workspace)
    for line in data.by_reason(dataset.excluded):
        say(f"left out: {line}")
    return dataset


def embed_tracks(
    wanted: Sequence[Track],
    representation: Representation,
    workspace: Workspace,
    device: Device,
    batch_size: int = WINDOWS_AT_ONCE,
) -> Embedded:
    """The same for a data set that is loaded, or some `tracks` of it. Interrupted, it keeps what is through.

    Raises:
        MgcError: an encoder that cannot be loaded, no such device, a store that cannot be written, or files
            that were changed meanwhile.
    """
    store = Store(representation, workspace.cache)
    todo = _missing(store, wanted)
    if todo:
        from mgc.util.devices import make_accelerator

        where = make_accelerator(device).device
        _compute(
            store, todo, representation.encoder(where), where, batch_size, f"embed {representation.name}"
        )
    return _summary(store, wanted, len(todo))


def _embed_together(
    recipe: EmbedRecipe, representation: Representation, workspace: Workspace, crew: "Crew"
) -> Embedded:
    """This process's part; the first returns when all are through, and tells what went wrong anywhere."""
    from mgc.util.devices import share_cores
    from mgc.util.workers import cores

    store = Store(representation, workspace.cache)

    def plan() -> tuple[tuple[Track, ...], list[Track]]:
        dataset = _loaded(recipe, workspace)
        return dataset.tracks, _missing(store, dataset.tracks)

    planned = crew.of_first(plan)
    if isinstance(planned, MgcError):
        if crew.first:
            raise planned
        return Embedded(representation, 0, 0, 0.0, store.folder, first=False)
    wanted, todo = planned
    own = sorted(todo, key=lambda track: (-track.seconds, track.content))[crew.number :: crew.size]
    trouble = ""
    if todo:
        share_cores(cores())
        encoder = crew.in_turn(lambda: representation.encoder(crew.device))
        what = f"embed {representation.name} (process 1 of {crew.size})" if crew.first else None
        try:
            _compute(store, own, encoder, crew.device, recipe.batch_size, what)
        except MgcError as error:
            trouble = str(error)
    told = [(number + 1, text) for number, text in enumerate(crew.gather(trouble)) if text]
    crew.leave()
    if not crew.first:
        return Embedded(representation, len(own), len(own), 0.0, store.folder, first=False)
    if told:
        texts = "\n".join(f"process {number} of {crew.size}: {text}" for number, text in told)
        raise MgcError(texts, fix="all that was computed is kept; mend this, and run the same command again")
    until = time.monotonic() + LATE_SECONDS
    while _missing(store, wanted) and time.monotonic() < until:
        time.sleep(1)
    return _summary(store, wanted, len(todo))


def _missing(store: Store, wanted: Sequence[Track]) -> list[Track]:
    """Those of `wanted` that the store does not hold; of files of the same bytes the first."""
    first_of = {track.content: track for track in reversed(wanted)}
    missing = store.missing(first_of)
    return [t for t in wanted if t.content in missing and first_of[t.content] is t]


def _summary(store: Store, wanted: Sequence[Track], computed: int) -> Embedded:
    seconds = store.seconds(track.content for track in wanted)
    return Embedded(store.representation, len(wanted), computed, seconds, store.folder)


def _compute(
    store: Store,
    todo: Sequence[Track],
    encoder: "Encoder",
    where: "torch.device",
    batch_size: int,
    what: str | None,
) -> None:
    """Run the encoder over `todo` and keep what it gives; with progress if it has a name.

    Raises:
        MgcError: a file that cannot be read or was changed meanwhile, or a store that cannot be written.
    """
    from mgc.representations.pooling import represent
    from mgc.util.devices import tune_cpu

    tune_cpu()
    states = [state_of(track.path) for track in todo]
    changed = []
    arrays = represent(store.representation, encoder, [track.path for track in todo], where, batch_size)
    with store.writer() as writer, Progress(what, len(todo), "clips") if what else nullcontext() as progress:
        for position, array in arrays:
            track = todo[position]
            if state_of(track.path) == states[position]:
                writer.add(track.content, track.track_id, array)
            else:  # its hash is not that of what was heard
                changed.append(track.track_id)
            if progress:
                progress.step()
    if changed:
        text = f"{len(changed)} files changed while they were read: {', '.join(changed[:5])}"
        raise MgcError(text, where=changed[0], fix="the others are kept; run the same command again")
