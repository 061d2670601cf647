"""Heads on the folds of a split: the vectors a recipe asks for, a head a fold, its layer by validation."""

import contextlib
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from mgc.config import ProbeRecipe
from mgc.data import Dataset, Split
from mgc.probing.heads import Fitted, Head, find_head, fit_head, weighted
from mgc.probing.heads.neural import WeightedLayers
from mgc.representations import STATISTICS, Representation
from mgc.representations.cache.store import Store
from mgc.representations.features.logmel import statistics
from mgc.util.errors import MgcError
from mgc.util.progress import Progress, say
from mgc.util.workers import cores

REVISION = 1  # of pooling and choosing by validation: raised by hand when the same heads come out otherwise


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


@dataclass(frozen=True)
class _Fit:
    """A head of one fold on one layer, and what it says of the other sides."""

    fold: int
    layer: str
    fitted: Fitted
    validation: np.ndarray  # (n_val, C)
    test: np.ndarray  # (n_test, C)


def fit_folds(
    store: Store, dataset: Dataset, split: Split, recipe: ProbeRecipe
) -> tuple[list[HeadOfFold], float]:
    """A head a fold, on the layer on which it has the smallest log loss on validation; and the seconds.

    Folds and layers are fitted side by side, each on one thread, so that the number of cores changes no
    result; layers are read as they are needed.

    Raises:
        MgcError: no such head or layer, or layers that this head cannot take.
    """
    start = time.monotonic()
    head = find_head(recipe.head)
    names = _layers(store.representation, recipe)
    if recipe.layers == "weighted":
        head, names = weighted(len(names)), ["weighted"]
    classes, clips = len(dataset.classes), [track.content for track in dataset.tracks]
    labels = np.array(dataset.label_numbers(dataset.tracks))
    place = {track.track_id: index for index, track in enumerate(dataset.tracks)}
    folds = [
        [[place[track_id] for track_id in side] for side in (fold.train, fold.val, fold.test)]
        for fold in split.folds
    ]

    def jobs() -> Iterator[Any]:
        for name in names:
            vectors = _vectors(store, clips, name, recipe)
            for number, sides in enumerate(folds):
                yield delayed(_fit)(head, vectors, labels, sides, classes, recipe.seed, number, name)

    count = len(folds) * len(names)
    fits: dict[tuple[int, str], _Fit] = {}
    with _one_thread_each(), Progress("fit heads", count, "layers") as progress:
        side_by_side = Parallel(min(cores(), count), backend="threading", return_as="generator_unordered")
        for fit in side_by_side(jobs()):
            fits[fit.fold, fit.layer] = fit
            progress.step()
    _tell_unfinished(recipe.head, [fit.fitted for fit in fits.values()])
    return [
        _choose([fits[fold, name] for name in names]) for fold in range(len(folds))
    ], time.monotonic() - start


def _choose(fits: Sequence[_Fit]) -> HeadOfFold:
    """The layer with the smallest loss on validation, of one fold."""
    best = min(fits, key=lambda fit: fit.fitted.loss)
    return HeadOfFold(best.layer, {fit.layer: fit.fitted for fit in fits}, best.test, best.validation)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Sums within a fit keep their order; and fits side by side do not wait for one another's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # What did not converge is told at the end. Filters belong to the process, not to a thread.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            yield
    finally:
        torch.set_num_threads(threads)


def _tell_unfinished(head: str, fits: Sequence[Fitted]) -> None:
    counts = Counter(strength for fit in fits for strength in fit.unfinished)
    if counts:
        told = ", ".join(f"{strength:g} in {n} of {len(fits)} fits" for strength, n in sorted(counts.items()))
        say(f"head {head}: did not converge at strength {told}; judged on validation like any other")


def _fit(
    head: Head,
    vectors: Vectors,
    labels: np.ndarray,
    sides: list[list[int]],
    classes: int,
    seed: int,
    fold: int,
    layer: str,
) -> _Fit:
    """Rows bear the label of their track; `sides` are the tracks of training, validation and test."""
    rows, counts = zip(*map(vectors.of, sides), strict=True)
    learned, judged = ((rows[side], np.repeat(labels[sides[side]], counts[side])) for side in (0, 1))
    fitted = fit_head(head, learned, judged, seed)
    val, test = (probabilities(fitted, rows[side], counts[side], classes) for side in (1, 2))
    return _Fit(fold, layer, fitted, val, test)


def probabilities(fitted: Fitted, rows: np.ndarray, counts: np.ndarray, classes: int) -> np.ndarray:
    """(R, D) rows, of which each track has some, to (N, classes): the mean over a track's rows."""
    each = fitted.probabilities(rows, classes)
    return np.add.reduceat(each, np.cumsum([0, *counts[:-1]]), axis=0) / counts[:, np.newaxis]


def vectors_of(store: Store, clips: list[str], recipe: ProbeRecipe) -> dict[str, Vectors]:
    """What the recipe asks for of each clip (a hash), a layer each.

    Raises:
        MgcError: no such layer, a clip that is not in the store, or layers that this head cannot take.
    """
    names = _layers(store.representation, recipe)
    return {name: _vectors(store, clips, name, recipe) for name in names}


def _layers(representation: Representation, recipe: ProbeRecipe) -> list[str]:
    """Names of the layers that the recipe asks for."""
    if recipe.layers == "weighted" and (
        recipe.head != "logistic" or len({layer.dim for layer in representation.layers}) > 1
    ):
        raise MgcError(
            "a weighted sum of layers is learned by the logistic head, over layers of one size",
            where=f"head {recipe.head!r}, {representation.name}",
            fix="use --layers sweep, which takes any head and any layers",
        )
    if recipe.layers in ("sweep", "weighted"):
        return [layer.name for layer in representation.layers]
    return [recipe.layers]


def _vectors(store: Store, clips: list[str], name: str, recipe: ProbeRecipe) -> Vectors:
    """The statistics that the recipe asks for, of one layer, or of all layers side by side ("weighted")."""
    if name == "weighted":
        layers = list(vectors_of(store, clips, recipe).values())
        return Vectors(np.concatenate([each.rows for each in layers], axis=1), layers[0].ends)
    words = (recipe.pool or store.representation.pool).split("+")
    return _rows(store, clips, name, [STATISTICS.index(word) for word in words])


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
