"""Measure how long mgc probe takes to fit heads: `python scripts/bench_probe.py --out probe.json`.

The embeddings are synthetic and written to a temporary cache: 8,000 tracks of 8 classes, 13 layers of 768
dimensions, whose standard deviations along the principal axes decrease over four orders of magnitude. The
classes differ so little along each axis that the best heads classify about 60 % correctly. The split is a
holdout.

    last     a head with all regularisation strengths on the last layer
    sweep    the same on every layer
    windows  80 tracks with ten windows each, mean and standard deviation, five folds

The printed times exclude imports and include reading the cache: wall-clock time, and CPU time of all cores.
With `--accuracy`, the probabilities of the logistic head are compared with those of scikit-learn, fitted to
convergence, which takes minutes.
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
APART, FALL = 0.1, 1.25  # class distance in standard deviations; exponent of their decrease along the axes


def tracks(count: int) -> Dataset:
    """A dataset of `count` tracks by different artists; only the labels are used."""
    every = (
        Track(f"{i:05}", Path("none"), str(i % CLASSES), f"artist {i}", content=f"{i:032x}")
        for i in range(count)
    )
    return Dataset("synthetic", tuple(every))


def filled(dataset: Dataset, layers: int, windows: int) -> EmbeddingCache:
    """An embedding cache of these tracks. Windows add as much variance as their track has."""
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
    cache = EmbeddingCache(card, root=Workspace.from_environment().cache)
    with cache.writer() as writer:
        for track, array in zip(dataset.tracks, pooled, strict=True):
            writer.add(track.content, track.track_id, array.reshape(windows * 3, -1))
    cache.refresh()
    return cache


def timed(name: str, cache: EmbeddingCache, split: Split, recipe: ProbeRecipe) -> dict[str, object]:
    """Fit the heads once; print and return times and accuracy."""
    start, before = time.perf_counter(), time.process_time()
    heads, _ = fit_folds(cache, split.dataset, split, recipe)
    wall, cpu = time.perf_counter() - start, time.process_time() - before
    figures = {"seconds": wall, "cpu_seconds": cpu, "accuracy": accuracy(heads, split)}
    figures["strengths"] = [head.choice.strength for head in heads]
    print(
        f"{recipe.head} {name}: {wall:.1f} s ({cpu:.1f} s CPU), accuracy {figures['accuracy']:.3f}",
        flush=True,
    )
    return figures


def accuracy(heads: list[HeadOfFold], split: Split) -> float:
    """Share of test tracks that are classified correctly."""
    known = split.dataset.by_id
    labels = [split.dataset.label_numbers([known[i] for i in fold.test]) for fold in split.folds]
    correct = [head.test.argmax(axis=1) == of for head, of in zip(heads, labels, strict=True)]
    return float(np.concatenate(correct).mean())


def compare(cache: EmbeddingCache, split: Split, recipe: ProbeRecipe) -> dict[str, float]:
    """The largest difference of a test probability from scikit-learn's, for each strength."""
    dataset, fold = split.dataset, split.folds[0]
    (embeddings,) = embeddings_of(cache, [track.content for track in dataset.tracks], recipe).values()
    place = {track.track_id: index for index, track in enumerate(dataset.tracks)}
    train, test = ([place[track_id] for track_id in part] for part in (fold.train, fold.test))
    scaler = StandardScaler().fit(embeddings.rows[train])
    x, x_test = (scaler.transform(embeddings.rows[part]).astype(np.float64) for part in (train, test))
    y = np.array(dataset.label_numbers(dataset.tracks))[train]
    strengths = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    differences = {}
    with Progress("scikit-learn", len(strengths), "strengths") as progress:
        for ours in logistic_path(x, y, strengths):
            usual = LogisticRegression(C=ours.C, tol=1e-8, max_iter=50_000).fit(x, y)
            difference = np.abs(ours.predict_proba(x_test) - usual.predict_proba(x_test)).max()
            differences[f"{ours.C:g}"] = float(difference)
            progress.step(note=f"C={ours.C:g}: differs by {difference:.1e}")
    return differences


def main(
    count: Annotated[int, typer.Option("--tracks", min=100)] = 8000,
    heads: Annotated[list[str], typer.Option("--head", help="Head. Can be repeated.")] = ["logistic"],  # noqa: B006
    sweep: Annotated[bool, typer.Option(help="Also fit heads on every layer.")] = True,
    accurate: Annotated[bool, typer.Option("--accuracy", help="Compare with scikit-learn.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file for the results. Default: none.")] = None,
) -> None:
    """Time heads on synthetic embeddings."""
    figures: dict[str, object] = {"command": shlex.join(["python", *sys.argv]), "cores": cores()}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        os.environ["MGC_EMBEDDINGS_CACHE"] = folder
        split = make_split(tracks(count), "holdout")
        cache = filled(split.dataset, LAYERS if sweep else 1, 1)
        few = make_split(tracks(80), "cv5")
        windows = filled(few.dataset, 1, 10)
        for head in heads:
            recipe = ProbeRecipe(head=head)
            figures[f"{head} last"] = timed("last", cache, split, recipe)
            if sweep:
                all_layers = recipe.model_copy(update={"layers": "sweep"})
                figures[f"{head} sweep"] = timed("sweep", cache, split, all_layers)
            figures[f"{head} windows"] = timed("windows", windows, few, recipe)
        if accurate:
            figures["differences"] = compare(cache, split, ProbeRecipe())
    if out is not None:
        out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        typer.run(main)
    except MgcError as error:
        sys.exit(f"bench_probe: {error}")
