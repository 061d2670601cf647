"""Fit heads on the folds of a split: one head per fold and layer, the layer chosen on the validation set."""

import contextlib
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from mgc.config import ProbeRecipe
from mgc.data import Dataset, Split
from mgc.probing.heads import Fitted, find_head, fit_head, weighted
from mgc.probing.heads.neural import WeightedLayers
from mgc.representations import STATISTICS, Representation
from mgc.representations.cache.embeddings import EmbeddingCache
from mgc.representations.features.logmel import statistics
from mgc.util.errors import MgcError
from mgc.util.progress import Progress, say
from mgc.util.workers import cores

REVISION = 1  # of pooling and selection on validation: raised by hand when fitted heads change


@dataclass(frozen=True)
class Embeddings:
    """The input of a head: rows (R, D) float32; rows ends[i] to ends[i + 1] are those of track i.

    There is one row per track, or one per window.
    """

    rows: np.ndarray
    ends: np.ndarray  # (N + 1,)

    def of(self, tracks: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """The rows of `tracks`, concatenated, and the number of rows of each."""
        counts = np.diff(self.ends)[tracks]
        if (counts == 1).all():
            return self.rows[self.ends[tracks]], counts
        return np.concatenate([self.rows[self.ends[i] : self.ends[i + 1]] for i in tracks]), counts


@dataclass(frozen=True)
class HeadOfFold:
    """The head of one fold, on the layer with the smallest log loss on validation."""

    layer: str
    fits: dict[str, Fitted]  # by layer
    test: np.ndarray  # (n_test, C), in the order of the fold's test ids
    validation: np.ndarray  # (n_val, C)

    @property
    def fitted(self) -> Fitted:
        """The fit on the chosen layer."""
        return self.fits[self.layer]

    def to_record(self) -> dict[str, Any]:
        """For the run record: layer, strength, and the validation log loss of every layer and strength."""
        fit = self.fitted
        losses = {str(strength): loss for strength, loss in fit.tried.items()}
        entries = {"layer": self.layer, "strength": fit.strength, "val_log_loss": losses}
        if len(self.fits) > 1:
            entries["val_log_loss_of_layers"] = {name: other.loss for name, other in self.fits.items()}
        if isinstance(fit.classifier[-1], WeightedLayers):
            entries["layer_weights"] = fit.classifier[-1].layer_weights_.tolist()
        return entries


def fit_folds(
    store: EmbeddingCache, dataset: Dataset, split: Split, recipe: ProbeRecipe
) -> tuple[list[HeadOfFold], float]:
    """A head for each fold, and the seconds that fitting took.

    Folds and layers are fitted in parallel, each in one thread, so that results do not depend on the number
    of cores.

    Raises:
        MgcError: there is no such head or layer, or the head cannot take these layers.
    """
    start = time.monotonic()
    head = find_head(recipe.head)
    layers = _layers(store.representation, recipe)
    if recipe.layers == "weighted":
        head, layers = weighted(len(layers)), ["weighted"]
    classes, clips = len(dataset.classes), [track.content for track in dataset.tracks]
    labels = np.array(dataset.label_numbers(dataset.tracks))
    row = {track.track_id: index for index, track in enumerate(dataset.tracks)}
    folds = [[[row[name] for name in ids] for ids in (f.train, f.val, f.test)] for f in split.folds]

    def fit_layer(layer: str, embeddings: Embeddings, parts: list[list[int]]) -> HeadOfFold:
        """`parts` are the tracks of the training, validation and test set; a row has its track's label."""
        rows, counts = zip(*map(embeddings.of, parts), strict=True)
        train, val = ((rows[k], np.repeat(labels[parts[k]], counts[k])) for k in (0, 1))
        fitted = fit_head(head, train, val, recipe.seed)
        validation, test = (probabilities(fitted, rows[k], counts[k], classes) for k in (1, 2))
        return HeadOfFold(layer, {layer: fitted}, test, validation)

    def jobs() -> Iterator[Any]:
        for layer in layers:  # a layer is read when its first fit starts
            embeddings = _embeddings(store, clips, layer, recipe)
            for parts in folds:
                yield delayed(fit_layer)(layer, embeddings, parts)

    count = len(folds) * len(layers)
    fits: list[HeadOfFold] = []  # layer by layer
    with _single_threaded(), Progress("fit heads", count, "layers") as progress:
        for fit in Parallel(min(cores(), count), backend="threading", return_as="generator")(jobs()):
            fits.append(fit)
            progress.step()
    if failed := Counter(strength for fit in fits for strength in fit.fitted.not_converged):
        which = ", ".join(f"{value:g} in {n} of {len(fits)} fits" for value, n in sorted(failed.items()))
        say(f"head {recipe.head} did not converge at strength {which}; they are scored like the others")
    heads = []
    for number in range(len(folds)):
        of_fold = fits[number :: len(folds)]
        best = min(of_fold, key=lambda fit: fit.fitted.loss)
        heads.append(replace(best, fits={fit.layer: fit.fitted for fit in of_fold}))
    return heads, time.monotonic() - start


@contextlib.contextmanager
def _single_threaded() -> Iterator[None]:
    """Sums within a fit keep their order, and parallel fits do not compete for cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # Convergence is reported at the end. Warning filters belong to the process, not to a thread.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            yield
    finally:
        torch.set_num_threads(threads)


def probabilities(fitted: Fitted, rows: np.ndarray, counts: np.ndarray, classes: int) -> np.ndarray:
    """Rows (R, D), `counts` (N,) of which belong to each track, to (N, classes): the mean over its rows."""
    by_row = fitted.probabilities(rows, classes)
    return np.add.reduceat(by_row, np.cumsum([0, *counts[:-1]]), axis=0) / counts[:, np.newaxis]


def embeddings_of(store: EmbeddingCache, clips: list[str], recipe: ProbeRecipe) -> dict[str, Embeddings]:
    """The embeddings of clips (content hashes) that the recipe selects, by layer.

    Raises:
        MgcError: there is no such layer, a clip is not cached, or the head cannot take these layers.
    """
    names = _layers(store.representation, recipe)
    return {name: _embeddings(store, clips, name, recipe) for name in names}


def _layers(representation: Representation, recipe: ProbeRecipe) -> list[str]:
    """Names of the layers that the recipe selects."""
    if recipe.layers == "weighted" and (
        recipe.head != "logistic" or len({layer.dim for layer in representation.layers}) > 1
    ):
        raise MgcError(
            "a weighted sum of layers needs the logistic head and layers of equal size",
            where=f"head {recipe.head!r}, {representation.name}",
            fix="use --layers sweep, which works with any head and any layers",
        )
    if recipe.layers in ("sweep", "weighted"):
        return [layer.name for layer in representation.layers]
    return [recipe.layers]


def _embeddings(store: EmbeddingCache, clips: list[str], layer: str, recipe: ProbeRecipe) -> Embeddings:
    """The statistics that the recipe selects, of one layer or, for "weighted", of all layers concatenated.

    One row per clip or window, with the statistics of a layer side by side.
    """
    if layer == "weighted":
        layers = list(embeddings_of(store, clips, recipe).values())
        return Embeddings(np.concatenate([each.rows for each in layers], axis=1), layers[0].ends)
    representation = store.representation
    wanted = [STATISTICS.index(name) for name in (recipe.pool or representation.pool).split("+")]
    ends = np.arange(len(clips) + 1)
    if not representation.pooled:
        pooled = np.stack([statistics(store.read(clip)) for clip in clips])
    elif representation.spec.keep == "windows":
        part = representation.layer_slice(layer)
        arrays = [store.read(clip)[:, part].astype(np.float32) for clip in clips]
        pooled = np.concatenate(arrays).reshape(-1, len(STATISTICS), part.stop - part.start)
        ends = np.cumsum([0, *(len(array) // len(STATISTICS) for array in arrays)])
    else:
        pooled = store.pooled(clips, layer)  # (N, statistics, D)
    return Embeddings(pooled[:, wanted].reshape(len(pooled), -1), ends)
