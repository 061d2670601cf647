"""Heads on the folds of a split: the vectors a recipe asks for, a head a fold, its layer by validation."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from mgc.config import MgcError, ProbeRecipe
from mgc.data import Dataset, Split
from mgc.heads import Fitted, Head, find_head, fit_head, weighted
from mgc.heads.neural import WeightedLayers
from mgc.progress import Progress
from mgc.representations import STATISTICS
from mgc.representations.logmel import statistics
from mgc.store import Store


@dataclass(frozen=True)
class Vectors:
    """What a head sees of N tracks: rows (R, D) float32, those of track i being ends[i] to ends[i + 1].

    A row a track, or one a window.
    """

    rows: np.ndarray
    ends: np.ndarray  # (N + 1,)

    def of(self, tracks: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Rows of `tracks`, one after the other, and how many each has."""
        counts = np.diff(self.ends)[tracks]
        if (counts == 1).all():
            return self.rows[self.ends[tracks]], counts
        return np.concatenate([self.rows[self.ends[i] : self.ends[i + 1]] for i in tracks]), counts


@dataclass(frozen=True)
class HeadOfFold:
    """What was fitted on one fold: the layer that validation chose, and what was tried."""

    layer: str
    fits: dict[str, Fitted]  # a layer
    test: np.ndarray  # (n_test, C), in the order of the fold's test ids
    validation: np.ndarray  # (n_val, C)

    @property
    def fitted(self) -> Fitted:
        """The head that was chosen."""
        return self.fits[self.layer]

    def told(self) -> dict[str, Any]:
        """For the record: the layer, its strength, and what each layer and strength cost on validation."""
        fit = self.fitted
        told: dict[str, Any] = {"layer": self.layer, "strength": fit.strength}
        told["val_log_loss"] = {str(strength): loss for strength, loss in fit.tried.items()}
        if len(self.fits) > 1:
            told["val_log_loss_of_layers"] = {name: other.loss for name, other in self.fits.items()}
        if isinstance(fit.classifier[-1], WeightedLayers):
            told["layer_weights"] = fit.classifier[-1].layer_weights_.tolist()
        return told


def fit_folds(
    store: Store, dataset: Dataset, split: Split, recipe: ProbeRecipe
) -> tuple[list[HeadOfFold], float]:
    """A head a fold, on the layer on which it has the smallest log loss on validation; and the seconds.

    Raises:
        MgcError: no such head or layer, or layers that this head cannot take.
    """
    start = time.monotonic()
    head = find_head(recipe.head)
    vectors = vectors_of(store, [track.content for track in dataset.tracks], recipe)
    if recipe.layers == "weighted":
        head = weighted(len(vectors))
        rows = np.concatenate([each.rows for each in vectors.values()], axis=1)
        vectors = {"weighted": Vectors(rows, next(iter(vectors.values())).ends)}
    labels = np.array(dataset.label_numbers(dataset.tracks))
    place = {track.track_id: index for index, track in enumerate(dataset.tracks)}
    fitted = []
    with Progress("fit heads", len(split.folds) * len(vectors), "layers") as progress:
        for fold in split.folds:
            sides = [[place[track_id] for track_id in side] for side in (fold.train, fold.val, fold.test)]
            fits = {}
            for name, each in vectors.items():
                fits[name] = _fit(head, each, labels, sides[0], sides[1], recipe.seed)
                progress.step()
            best = min(fits, key=lambda name: fits[name].loss)
            val, test = (
                probabilities(fits[best], *vectors[best].of(side), len(dataset.classes)) for side in sides[1:]
            )
            fitted.append(HeadOfFold(best, fits, test, val))
    return fitted, time.monotonic() - start


def _fit(
    head: Head, vectors: Vectors, labels: np.ndarray, train: list[int], val: list[int], seed: int
) -> Fitted:
    """Rows bear the label of their track."""
    (x, counts), (x_val, counts_val) = vectors.of(train), vectors.of(val)
    learned, judged = np.repeat(labels[train], counts), np.repeat(labels[val], counts_val)
    return fit_head(head, (x, learned), (x_val, judged), seed)


def probabilities(fitted: Fitted, rows: np.ndarray, counts: np.ndarray, classes: int) -> np.ndarray:
    """(R, D) rows, of which each track has some, to (N, classes): the mean over a track's rows."""
    each = fitted.probabilities(rows, classes)
    return np.add.reduceat(each, np.cumsum([0, *counts[:-1]]), axis=0) / counts[:, np.newaxis]


def vectors_of(store: Store, clips: list[str], recipe: ProbeRecipe) -> dict[str, Vectors]:
    """What the recipe asks for of each clip (a hash), a layer each.

    Raises:
        MgcError: no such layer, a clip that is not in the store, or layers that this head cannot take.
    """
    representation = store.representation
    if recipe.layers == "weighted" and (
        recipe.head != "logistic" or len({layer.dim for layer in representation.layers}) > 1
    ):
        raise MgcError(
            "a weighted sum of layers is learned by the logistic head, over layers of one size",
            where=f"head {recipe.head!r}, {representation.name}",
            fix="use --layers sweep, which takes any head and any layers",
        )
    names = [recipe.layers]
    if recipe.layers in ("sweep", "weighted"):
        names = [layer.name for layer in representation.layers]
    wanted = [STATISTICS.index(word) for word in (recipe.pool or representation.pool).split("+")]
    return {name: _rows(store, clips, name, wanted) for name in names}


def _rows(store: Store, clips: list[str], layer: str, wanted: list[int]) -> Vectors:
    """The `wanted` statistics of one layer side by side, a row a clip or window."""
    representation = store.representation
    if not representation.pooled:
        pooled = np.stack([statistics(store.read(clip)) for clip in clips])
        ends = np.arange(len(clips) + 1)
    elif representation.keep == "windows":
        piece = representation.layer_slice(layer)
        arrays = [store.read(clip)[:, piece].astype(np.float32) for clip in clips]
        pooled = np.concatenate(arrays).reshape(-1, len(STATISTICS), piece.stop - piece.start)
        ends = np.cumsum([0, *(len(array) // len(STATISTICS) for array in arrays)])
    else:
        pooled, ends = store.pooled(clips, layer), np.arange(len(clips) + 1)
    return Vectors(pooled[:, wanted].reshape(len(pooled), -1), ends)
