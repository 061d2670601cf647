"""Fit heads on the folds of a split: layer and strength are chosen on held-out tracks."""

import contextlib
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from mgc.config import ProbeRecipe
from mgc.data import Dataset, Split
from mgc.data.splits import Fold, grouped_parts
from mgc.probing.heads import (
    HEADS,
    Fitted,
    Head,
    converged,
    find_head,
    fit_strengths,
    probabilities_of,
    weighted,
)
from mgc.probing.heads.neural import WeightedLayers
from mgc.probing.heads.svm import calibrate
from mgc.representations import STATISTICS, Representation
from mgc.representations.cache.embeddings import EmbeddingCache
from mgc.representations.features.logmel import statistics
from mgc.util.errors import MgcError
from mgc.util.progress import Progress, say
from mgc.util.workers import cores

REVISION = 2  # of pooling and selection: raised by hand when fitted heads change
INNER_FOLDS = 5  # as scikit-learn's LogisticRegressionCV and GridSearchCV


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
    """The head of one fold, on the layer and with the strength that predict held-out tracks best."""

    layer: str
    fitted: Fitted
    losses: dict[str, float]  # of the best strength on each layer
    test: np.ndarray  # (n_test, C), in the order of the fold's test ids
    validation: np.ndarray  # (n_val, C), by heads that were not fitted on these tracks

    def to_record(self, select: str = "cv") -> dict[str, Any]:
        """For the run record: layer, strength, and the loss of every layer and strength."""
        fit, loss = self.fitted, {"cv": "cv_brier_score", "validation": "val_log_loss"}[select]
        tried = {str(strength): value for strength, value in fit.tried.items()}
        entries = {"layer": self.layer, "strength": fit.strength, loss: tried}
        if len(self.losses) > 1:
            entries[f"{loss}_of_layers"] = self.losses
        if isinstance(fit.classifier[-1], WeightedLayers):
            entries["layer_weights"] = fit.classifier[-1].layer_weights_.tolist()
        return entries


@dataclass(frozen=True)
class _HeldOut:
    """What heads predict for tracks that they were not fitted on."""

    rows: dict[float, np.ndarray]  # (R, C), by strength
    counts: np.ndarray  # (n,) rows of each track
    known: np.ndarray  # (n,) whether other tracks of the same class were fitted
    not_converged: frozenset[float]


@dataclass(frozen=True)
class _Choice:
    """The best strength on a layer."""

    layer: str
    loss: float
    fitted: Fitted  # without the classifier, which is fitted on the best layer only
    slope: float  # of the probabilities of an SVM
    tracks: np.ndarray  # (n, C), of all held-out tracks


@dataclass(frozen=True)
class _Fitting:
    """How the heads of all folds are fitted. Tracks are numbers in the order of the dataset."""

    head: Head
    recipe: ProbeRecipe
    labels: np.ndarray  # (N,)
    classes: int

    def hold_out(self, embeddings: Embeddings, tracks: list[int], held: list[int]) -> _HeldOut:
        """Fit every strength on `tracks` without `held`, and predict `held`."""
        without = {*held}
        fits = self._fit(embeddings, [track for track in tracks if track not in without], self.head.strengths)
        rows, counts = embeddings.of(held)
        by_strength = {strength: probabilities_of(fit, rows, self.classes) for strength, fit in fits.items()}
        known = np.isin(self.labels[held], next(iter(fits.values())).classes_)
        return _HeldOut(
            by_strength, counts, known, frozenset(k for k, fit in fits.items() if not converged(fit))
        )

    def choose(self, layer: str, held: list[int], parts: Sequence[_HeldOut]) -> _Choice:
        """The strength with the smallest loss on `held`, which is all parts."""
        counts, known = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("counts", "known")
        )
        labels, tried, predicted = self.labels[held], {}, {}
        for strength in parts[0].rows:
            if all(strength in part.rows for part in parts):
                rows, slope = np.concatenate([part.rows[strength] for part in parts]), 1.0
                if self.head is HEADS["svm"]:
                    slope, rows = calibrate(rows, np.repeat(labels, counts))
                tracks = _of_tracks(rows, counts)
                predicted[strength] = slope, tracks
                if self.recipe.select == "validation":
                    every = range(self.classes)
                    tried[strength] = float(log_loss(np.repeat(labels, counts), rows, labels=every))
                else:
                    tried[strength] = _brier(tracks[known], labels[known])
        best = min(tried, key=lambda strength: tried[strength])
        failed = frozenset[float]().union(*(part.not_converged for part in parts))
        return _Choice(layer, tried[best], Fitted(None, best, tried, failed), *predicted[best])

    def fit(self, embeddings: Embeddings, plan: "_Plan", choices: Sequence[_Choice]) -> HeadOfFold:
        """Fit the pool with the strength of the best choice; `embeddings` are those of its layer."""
        best, strengths = _best(choices), self.head.strengths
        strength = best.fitted.strength
        # A path is followed to the chosen strength, since each fit starts from the one before.
        path = strengths[: strengths.index(strength) + 1] if self.head.path else (strength,)
        classifier = self._fit(embeddings, plan.pool, path)[strength]
        if self.head is HEADS["svm"]:
            classifier[-1].slope = best.slope
        fitted = replace(best.fitted, classifier=classifier)
        place = {track: number for number, track in enumerate(plan.held_out)}
        if place.keys() >= {*plan.val}:
            validation = best.tracks[[place[track] for track in plan.val]]
        else:
            validation = probabilities(fitted, *embeddings.of(plan.val), self.classes)
        test = probabilities(fitted, *embeddings.of(plan.test), self.classes)
        return HeadOfFold(best.layer, fitted, {each.layer: each.loss for each in choices}, test, validation)

    def _fit(self, embeddings: Embeddings, tracks: list[int], strengths: Sequence[float]) -> dict[float, Any]:
        rows, counts = embeddings.of(tracks)
        return fit_strengths(
            self.head, rows, np.repeat(self.labels[tracks], counts), self.recipe.seed, strengths
        )


@dataclass(frozen=True)
class _Plan:
    """Tracks of a fold, and how settings are chosen."""

    pool: list[int]  # on which the head of the fold is fitted
    held: list[list[int]]  # parts; each is predicted by heads that are fitted on the rest of the pool
    val: list[int]
    test: list[int]
    note: str  # what is unusual about the parts

    @property
    def held_out(self) -> list[int]:
        """The tracks of all parts."""
        return [*chain(*self.held)]


def fit_folds(
    store: EmbeddingCache, dataset: Dataset, split: Split, recipe: ProbeRecipe
) -> tuple[list[HeadOfFold], float]:
    """A head for each fold, and the seconds that fitting took.

    With `recipe.select` "cv", layer and strength are chosen by inner folds of the training and validation
    tracks, which keep artists apart, and the head is fitted on both. With "validation" they are chosen on the
    validation set, and the head is fitted on the training set. If the number of training tracks is limited
    (`data.per_class`), both are done on the training set.

    Fits run in parallel, each in one thread, so that results do not depend on the number of cores.

    Raises:
        MgcError: there is no such head or layer, or the head cannot take these layers.
    """
    start = time.monotonic()
    head = find_head(recipe.head)
    layers = _layers(store.representation, recipe)
    if recipe.layers == "weighted":
        head, layers = weighted(len(layers)), ["weighted"]
    clips = [track.content for track in dataset.tracks]
    labels = np.array(dataset.label_numbers(dataset.tracks))
    fitting = _Fitting(head, recipe, labels, len(dataset.classes))
    plans = [_plan(dataset, fold, recipe, split.leaky) for fold in split.folds]
    for note, count in Counter(plan.note for plan in plans if plan.note).items():
        say(f"head {recipe.head}, {count} of {len(plans)} folds: {note}")
    # A layer is read when its first fit starts.
    embeddings = lru_cache(1)(lambda layer: _embeddings(store, clips, layer, recipe))
    jobs = [(layer, plan, held) for layer in layers for plan in plans for held in plan.held]
    with _single_threaded(), Progress("fit heads", len(jobs) + len(plans), "fits") as progress:

        def parallel(calls: Iterator[Any]) -> Iterator[Any]:
            pool = Parallel(min(cores(), len(jobs)), backend="threading", return_as="generator")
            for result in pool(calls):
                progress.step()
                yield result

        held_out = parallel(
            delayed(fitting.hold_out)(embeddings(layer), plan.pool, held) for layer, plan, held in jobs
        )
        choices = [
            [fitting.choose(layer, plan.held_out, [*islice(held_out, len(plan.held))]) for plan in plans]
            for layer in layers
        ]
        of_folds = [*zip(*choices, strict=True)]
        heads = [
            *parallel(
                delayed(fitting.fit)(embeddings(_best(of_fold).layer), plan, of_fold)
                for plan, of_fold in zip(plans, of_folds, strict=True)
            )
        ]
    fits = [choice.fitted for choice in chain(*choices)]
    if failed := Counter(strength for fit in fits for strength in fit.not_converged):
        which = ", ".join(f"{value:g} in {n} of {len(fits)} fits" for value, n in sorted(failed.items()))
        say(f"head {recipe.head} did not converge at strength {which}; they are scored like the others")
    return heads, time.monotonic() - start


def _best(choices: Sequence[_Choice]) -> _Choice:
    """That of the layer with the smallest loss."""
    return min(choices, key=lambda choice: choice.loss)


def _plan(dataset: Dataset, fold: Fold, recipe: ProbeRecipe, leaky: bool) -> _Plan:
    """Inner folds depend on the split alone. A note says where there are too few artists for them."""
    number = {track.track_id: index for index, track in enumerate(dataset.tracks)}
    train, val, test = ([number[i] for i in ids] for ids in (fold.train, fold.val, fold.test))
    if recipe.select == "validation":
        return _Plan(train, [val], val, test, "")
    pool = train if recipe.data.per_class else [*train, *val]
    tracks = [dataset.tracks[index] for index in pool]
    alone = [replace(track, group=track.track_id) for track in tracks]
    shared = "its settings are chosen on inner folds that share artists, since there are too few artists"
    for grouped, note in ((alone if leaky else tracks, ""), (alone, shared)):
        held = [[number[t.track_id] for t in part] for part in grouped_parts(grouped, INNER_FOLDS, 0) if part]
        unknown = [_only_in(part, pool, dataset) for part in held]
        trained = [len({t.label for t in tracks}) - len(labels) for labels in unknown]
        ignored = {*chain(*unknown)}
        if held and min(trained) > 1 and len(ignored) < len({t.label for t in tracks}):
            few = f"too few artists for choosing its settings on {', '.join(sorted(ignored))}"
            return _Plan(pool, held, val, test, note or (few if ignored else ""))
    return _Plan(pool, [val], val, test, "its settings are chosen on the validation set: too few tracks")


def _only_in(part: list[int], pool: list[int], dataset: Dataset) -> set[str]:
    """Labels of `part` that the rest of the pool does not have."""
    without = {*part}
    rest = {dataset.tracks[index].label for index in pool if index not in without}
    return {dataset.tracks[index].label for index in part} - rest


def _of_tracks(rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Rows (R, C), `counts` (N,) of which belong to each track, to (N, C): the mean over its rows."""
    return np.add.reduceat(rows, np.cumsum([0, *counts[:-1]]), axis=0) / counts[:, np.newaxis]


def _brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The Brier score (1950) of (N, C) probabilities: mean squared distance from the labels, 0 to 2."""
    return float(np.square(probabilities - np.eye(probabilities.shape[1])[labels]).sum(axis=1).mean())


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
    return _of_tracks(fitted.probabilities(rows, classes), counts)


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
