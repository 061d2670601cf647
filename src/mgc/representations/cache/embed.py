"""`embed`: compute the embeddings that are not cached yet.

torch is imported only if there is something to compute, so a call that finds everything cached ends in a
second.

Several processes, started by torchrun or `accelerate launch`, divide the work. The first process plans: it
finds the clips to compute and sends the list to all, so that they agree whatever is written meanwhile. Each
computes every n-th clip and writes shards of its own. If one is killed, only its own clips since its last
shard are lost.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mgc import data
from mgc.config import WINDOWS_AT_ONCE, Device, EmbedRecipe
from mgc.data import Dataset, Track
from mgc.data.clips import state_of
from mgc.representations import STATISTICS, Representation, open_representation, spec_of
from mgc.representations.cache.embeddings import EmbeddingCache, library_versions
from mgc.util.errors import MgcError, counted
from mgc.util.progress import Progress, say
from mgc.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from mgc.representations.card import Encoder

LATE_SECONDS = 60.0  # a network folder may show files of other machines this late
CLIPS_TO_COMPARE = 2
# Largest accepted deviation, see `deviation`. float16, in which embeddings are cached, rounds to 0.0005.
TOLERANCE = 0.005


@dataclass(frozen=True)
class Embedded:
    """The result of `embed`: the number of tracks, how many were computed, and the seconds of all of them.

    Of several processes only the `first` knows all; the figures of the others are those of their own part.
    """

    representation: Representation
    tracks: int
    computed: int
    seconds: float
    folder: Path
    first: bool = True


def embed(recipe: EmbedRecipe, workspace: Workspace) -> Embedded:
    """Compute the embeddings of every usable track that are not cached yet.

    Raises:
        MgcError: unknown data, encoder or device, or a cache that cannot be written.
    """
    spec = spec_of(recipe, recipe.model)
    representation = open_representation(spec, workspace)
    if "LOCAL_RANK" in os.environ:  # set by a launcher
        from mgc.util.devices import several

        if several():
            return _embed_together(recipe, representation, workspace)
    dataset = _load(recipe, workspace)
    return embed_tracks(dataset.tracks, representation, workspace, recipe.device, recipe.batch_size)


def _load(recipe: EmbedRecipe, workspace: Workspace) -> Dataset:
    dataset = data.load(recipe.data, workspace)
    for line in data.by_reason(dataset.excluded):
        say(f"excluded: {line}")
    return dataset


def embed_tracks(
    tracks: Sequence[Track],
    representation: Representation,
    workspace: Workspace,
    device: Device,
    batch_size: int = WINDOWS_AT_ONCE,
) -> Embedded:
    """Compute the embeddings of tracks that are not cached yet. If interrupted, finished clips are kept.

    Raises:
        MgcError: an encoder that cannot be loaded, no such device, a cache that cannot be written, or
            files that changed while they were read.
    """
    cache = EmbeddingCache(representation, workspace.cache)
    todo = _missing(cache, tracks)
    if todo:
        from mgc.util.devices import make_accelerator

        where = make_accelerator(device).device
        encoder = once(lambda: representation.encoder(where))
        cache = _comparable(cache, tracks, encoder, where)
        todo = _missing(cache, tracks)
        _compute(cache, todo, encoder(), where, batch_size, f"embed {representation.name}")
    return _summary(cache, tracks, len(todo))


def _embed_together(recipe: EmbedRecipe, representation: Representation, workspace: Workspace) -> Embedded:
    """This process's part of the work. The first returns when all have finished, and reports all errors."""
    from accelerate.utils import broadcast_object_list, gather_object

    from mgc.util.devices import join, peers, share_cores
    from mgc.util.workers import cores

    state = join(recipe.device)
    number, size, first = state.process_index, state.num_processes, state.is_main_process
    encoder = once(lambda: representation.encoder(state.device))

    def plan() -> tuple[int, tuple[Track, ...], list[Track]] | MgcError:
        try:
            wanted = _load(recipe, workspace).tracks
            cache = EmbeddingCache(representation, workspace.cache)
            if _missing(cache, wanted):
                cache = _comparable(cache, wanted, encoder, state.device)
            return cache.generation, wanted, _missing(cache, wanted)
        except MgcError as error:
            return error

    made = plan() if first else None
    with peers():
        [planned] = broadcast_object_list([made])
    if isinstance(planned, MgcError):
        if first:
            raise planned
        return Embedded(representation, 0, 0, 0.0, workspace.cache, first=False)
    generation, wanted, todo = planned
    cache = EmbeddingCache(representation, workspace.cache, generation)
    own = sorted(todo, key=lambda track: (-track.seconds, track.content))[number::size]
    error = ""
    if todo:
        share_cores(cores())
        if state.is_local_main_process:
            encoder()  # first in one process of each machine: it may download something
        with peers():
            gather_object([None])
        what = f"embed {representation.name} (process 1 of {size})" if first else None
        try:
            _compute(cache, own, encoder(), state.device, recipe.batch_size, what)
        except MgcError as problem:
            error = f"process {number + 1} of {size}: {problem}"
    with peers():
        errors = list(filter(None, gather_object([error])))
    state.destroy_process_group()
    if not first:
        return Embedded(representation, len(own), len(own), 0.0, cache.folder, first=False)
    if errors:
        fix = "embeddings computed so far are kept; fix the problem and run the same command again"
        raise MgcError("\n".join(errors), fix=fix)
    until = time.monotonic() + LATE_SECONDS
    while _missing(cache, wanted) and time.monotonic() < until:
        time.sleep(1)
    return _summary(cache, wanted, len(todo))


def _missing(cache: EmbeddingCache, wanted: Sequence[Track]) -> list[Track]:
    """Those of `wanted` that are not cached; of files with the same content the first."""
    first_of = {track.content: track for track in reversed(wanted)}
    missing = cache.missing(first_of)
    return [t for t in wanted if t.content in missing and first_of[t.content] is t]


def _summary(cache: EmbeddingCache, wanted: Sequence[Track], computed: int) -> Embedded:
    seconds = cache.seconds(track.content for track in wanted)
    return Embedded(cache.representation, len(wanted), computed, seconds, cache.folder)


def _compute(
    cache: EmbeddingCache,
    todo: Sequence[Track],
    encoder: "Encoder",
    where: "torch.device",
    batch_size: int,
    what: str | None,
) -> None:
    """Add the arrays of `todo` to the cache, with progress if there is a title for it.

    Raises:
        MgcError: a file that cannot be read or changed meanwhile, or a cache that cannot be written.
    """
    from mgc.representations.pooling import represent
    from mgc.util.devices import tune_cpu

    tune_cpu()
    states = [state_of(track.path) for track in todo]
    changed = []
    arrays = represent(cache.representation, encoder, [track.path for track in todo], where, batch_size)
    with cache.writer() as writer, Progress(what, len(todo), "clips") if what else nullcontext() as progress:
        for position, array in arrays:
            track = todo[position]
            if state_of(track.path) == states[position]:
                writer.add(track.content, track.track_id, array)
            else:  # its content hash is no longer that of the array
                changed.append(track.track_id)
            if progress:
                progress.step()
    if changed:
        text = f"{counted(len(changed), 'file')} changed while being read: {', '.join(changed[:5])}"
        raise MgcError(text, fix="the other clips are kept; run the same command again")


# ---- library versions -------------------------------------------------------------------------------------


def _comparable(
    cache: EmbeddingCache,
    tracks: Sequence[Track],
    encoder: Callable[[], "Encoder"],
    where: "torch.device",
) -> EmbeddingCache:
    """The cache that newly computed arrays may be added to.

    It is `cache` if its arrays were computed with the installed library versions, or if recomputing two of
    them gives the same. Otherwise it is a new generation. If no cached clip is among `tracks`, nothing can be
    compared, and a new generation starts as well: arrays of different versions are never mixed unmeasured.
    """
    before = cache.libraries()
    if not any(cache.folder.glob("shard-*.arrow")) or library_versions() in before:
        return cache
    found = recompute(cache, tracks, encoder, where, CLIPS_TO_COMPARE)
    versions = f"{cache.representation.name}: {_changes(before)}"
    if found and max(found.values()) <= TOLERANCE:
        say(f"{versions}. {len(found)} cached clips were recomputed and agree, so new ones are added.")
        return cache
    reason = (
        f"{len(found)} cached clips were recomputed and differ by up to {100 * max(found.values()):.2g} % "
        f"({100 * TOLERANCE:g} % is accepted)"
        if found
        else "none of the cached clips is among these tracks, so the effect cannot be measured"
    )
    new = cache.next_generation()
    say(
        f"{versions}. {reason[0].upper()}{reason[1:]}. All embeddings are therefore computed again, into "
        f"{new.folder}; the cached ones stay in {cache.folder} until mgc cache prune."
    )
    return new


def recompute(
    cache: EmbeddingCache,
    tracks: Sequence[Track],
    encoder: Callable[[], "Encoder"],
    where: "torch.device",
    clips: int,
) -> dict[str, float]:
    """Compute up to `clips` cached clips of `tracks` again: the `deviation` of each by track id."""
    missing = cache.missing({track.content for track in tracks})
    cached = list({t.content: t for t in tracks if t.content not in missing and t.path.is_file()}.values())
    if not cached:
        return {}
    from mgc.representations.pooling import represent

    places = np.linspace(0, len(cached) - 1, min(clips, len(cached))).round().astype(int)
    some = [cached[place] for place in places]
    arrays = represent(
        cache.representation, encoder(), [track.path for track in some], where, WINDOWS_AT_ONCE
    )
    return {
        some[n].track_id: deviation(cache.read(some[n].content), array, cache.representation.pooled)
        for n, array in arrays
    }


def deviation(cached: np.ndarray, computed: np.ndarray, pooled: bool) -> float:
    """The largest difference between two arrays of one clip, relative to the cached value.

    The three statistics of a `pooled` column are compared with the largest of them. So that values next to
    zero do not decide, the median magnitude is added to each; 1e-4 of it for float32 arrays, whose columns
    have different units. Infinite if the shapes differ.
    """
    if cached.shape != computed.shape:
        return float("inf")
    before = cached.astype(np.float64).reshape(-1, len(STATISTICS) if pooled else 1, cached.shape[1])
    magnitude = np.abs(before).max(axis=1, keepdims=True)
    floor = np.median(magnitude) * (1e-4 if cached.dtype == np.float32 else 1.0)
    difference = np.abs(computed.reshape(before.shape) - before)
    return float((difference / np.maximum(magnitude + floor, np.finfo(np.float16).tiny)).max(initial=0.0))


def _changes(before: Sequence[dict[str, str]]) -> str:
    """The difference between the recorded and the installed library versions, in words."""
    if not before:
        return "it is unknown with which library versions its cached embeddings were computed"
    now = library_versions()
    changed = {name for name in now if now[name] != before[-1].get(name)}
    versions = (", ".join(f"{name} {of.get(name)}" for name in sorted(changed)) for of in (before[-1], now))
    return "its embeddings were computed with {}, and the installed version is {}".format(*versions)
