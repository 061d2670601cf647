"""How long `mgc probe` fits heads: `python scripts/bench_probe.py --out probe.json`.

Makes vectors as an encoder gives them, in a store of its own: 8,000 tracks of 8 classes, 13 layers of 768
numbers whose deviations along their principal axes fall over four powers of ten; the classes differ by so
little along each that the best heads are right about six times in ten. The split is a holdout.

    last     a head with all its strengths on the last layer
    sweep    the same on each layer
    windows  80 tracks of ten windows each, mean and deviation, five folds

Seconds are those after imports, on the clock and of all cores together; the store is read within them.
With `--accuracy` the logistic head's probabilities are compared with scikit-learn's, fitted to the end
(minutes).
"""

import json
import os
import shlex
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mgc.config import ProbeRecipe
from mgc.data import Dataset, Split, Track, make_split
from mgc.probing.fitting import HeadOfFold, embeddings_of, fit_folds
from mgc.probing.heads.logistic import logistic_path
from mgc.representations import Representation, open_representation
from mgc.representations.cache.embeddings import EmbeddingCache
from mgc.representations.card import Layer
from mgc.representations.derived import per_window
from mgc.util.errors import MgcError
from mgc.util.progress import Progress
from mgc.util.workers import cores
from mgc.workspace import Workspace

LAYERS, DIM, CLASSES = 13, 768, 8
APART, FALL = 0.1, 1.25  # distance of classes in deviations; exponent by which those fall along the axes


def tracks(count: int) -> Dataset:
    """`count` of as many artists; nothing of them but the label is used."""
    every = (
        Track(f"{i:05}", Path("none"), str(i % CLASSES), f"artist {i}", content=f"{i:032x}")
        for i in range(count)
    )
    return Dataset("synthetic", tuple(every))


def filled(dataset: Dataset, layers: int, windows: int) -> EmbeddingCache:
    """A store of these tracks: a window is what its track is, and as much again of its own."""
    card: Representation = open_representation("musicnn", workspace=Workspace.from_environment())
    shape = tuple(Layer(f"layer {i}", DIM) for i in range(layers))
    card = replace(card, name="synthetic", layers=shape, weights=f"synthetic {len(dataset)}", pool="mean")
    if windows > 1:
        card = replace(per_window(card), pool="mean+std")
    rng = np.random.default_rng(0)
    labels = np.array(dataset.label_numbers(dataset.tracks))
    falling = np.arange(1, DIM + 1, dtype=np.float32) ** -FALL
    pooled = np.zeros((len(dataset), windows, 3, layers, DIM), np.float16)
    for layer in range(layers):
        mix = (np.linalg.qr(rng.standard_normal((DIM, DIM), np.float32))[0] * falling).T
        centres = APART * rng.standard_normal((CLASSES, DIM), np.float32)
        shared = rng.standard_normal((len(dataset), 1, DIM), np.float32) + centres[labels][:, np.newaxis]
        for statistic in range(3 if windows > 1 else 1):
            own = rng.standard_normal((len(dataset), windows, DIM), np.float32) if windows > 1 else 0
            flat = (shared + own).reshape(-1, DIM) @ mix
            pooled[:, :, statistic, layer] = flat.reshape(len(dataset), windows, DIM)
    store = EmbeddingCache(card, root=Workspace.from_environment().cache)
    with store.writer() as writer:
        for track, array in zip(dataset.tracks, pooled, strict=True):
            writer.add(track.content, track.track_id, array.reshape(windows * 3, -1))
    store.refresh()
    return store


def timed(name: str, store: EmbeddingCache, split: Split, recipe: ProbeRecipe) -> dict[str, object]:
    """Figures of one way, which are printed too."""
    start, before = time.perf_counter(), time.process_time()
    heads, _ = fit_folds(store, split.dataset, split, recipe)
    wall, cpu = time.perf_counter() - start, time.process_time() - before
    figures = {"seconds": wall, "cpu_seconds": cpu, "accuracy": accuracy(heads, split)}
    figures["strengths"] = [head.fitted.strength for head in heads]
    print(
        f"{recipe.head} {name}: {wall:.1f} s ({cpu:.1f} s of cores), right {figures['accuracy']:.3f}",
        flush=True,
    )
    return figures


def accuracy(heads: list[HeadOfFold], split: Split) -> float:
    """Share of test tracks that are told right."""
    known = split.dataset.by_id
    sides = [split.dataset.label_numbers([known[i] for i in fold.test]) for fold in split.folds]
    right = [head.test.argmax(axis=1) == side for head, side in zip(heads, sides, strict=True)]
    return float(np.concatenate(right).mean())


def compare(store: EmbeddingCache, split: Split, recipe: ProbeRecipe) -> dict[str, float]:
    """The largest difference of a probability from scikit-learn's on the test side, a strength."""
    dataset, fold = split.dataset, split.folds[0]
    (vectors,) = embeddings_of(store, [track.content for track in dataset.tracks], recipe).values()
    place = {track.track_id: index for index, track in enumerate(dataset.tracks)}
    learned, test = ([place[track_id] for track_id in side] for side in (fold.train, fold.test))
    scaler = StandardScaler().fit(vectors.rows[learned])
    x, x_test = (scaler.transform(vectors.rows[side]).astype(np.float64) for side in (learned, test))
    y = np.array(dataset.label_numbers(dataset.tracks))[learned]
    strengths = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    differences = {}
    with Progress("scikit-learn", len(strengths), "strengths") as progress:
        for ours in logistic_path(x, y, strengths):
            usual = LogisticRegression(C=ours.C, tol=1e-8, max_iter=50_000).fit(x, y)
            apart = np.abs(ours.predict_proba(x_test) - usual.predict_proba(x_test)).max()
            differences[f"{ours.C:g}"] = float(apart)
            progress.step(note=f"C={ours.C:g}: {apart:.1e} apart")
    return differences


def main(
    count: Annotated[int, typer.Option("--tracks", min=100)] = 8000,
    heads: Annotated[list[str], typer.Option("--head", help="may be given again")] = ["logistic"],  # noqa: B006
    sweep: Annotated[bool, typer.Option(help="all layers too")] = True,
    accurate: Annotated[bool, typer.Option("--accuracy", help="compare with scikit-learn's fits")] = False,
    out: Annotated[Path | None, typer.Option(help="keep the figures in this JSON file")] = None,
) -> None:
    """Time heads on vectors made here."""
    figures: dict[str, object] = {"command": shlex.join(["python", *sys.argv]), "cores": cores()}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        os.environ["MGC_EMBEDDINGS_CACHE"] = folder
        split = make_split(tracks(count), "holdout")
        store = filled(split.dataset, LAYERS if sweep else 1, 1)
        few = make_split(tracks(80), "cv5")
        windows = filled(few.dataset, 1, 10)
        for head in heads:
            recipe = ProbeRecipe(head=head)
            figures[f"{head} last"] = timed("last", store, split, recipe)
            if sweep:
                all_layers = recipe.model_copy(update={"layers": "sweep"})
                figures[f"{head} sweep"] = timed("sweep", store, split, all_layers)
            figures[f"{head} windows"] = timed("windows", windows, few, recipe)
        if accurate:
            figures["apart"] = compare(store, split, ProbeRecipe())
    if out is not None:
        out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        typer.run(main)
    except MgcError as error:
        sys.exit(f"bench_probe: {error}")
