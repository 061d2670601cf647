"""Fit heads on the folds of a split: layer and strength are chosen on held-out tracks."""

import contextlib
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from mgc.config import ProbeRecipe
from mgc.data import Dataset, Split
from mgc.data.splits import Fold, grouped_parts
from mgc.probing.heads import (
    HEADS,
    Head,
    converged,
    find_head,
    fit_strengths,
    probabilities_of,
    weighted,
)
from mgc.probing.heads.neural import Perceptron, WeightedLayers
from mgc.probing.heads.svm import calibrate
from mgc.representations import STATISTICS, Representation
from mgc.representations.cache.embeddings import EmbeddingCache
from mgc.representations.features.logmel import statistics
from mgc.util.errors import MgcError
from mgc.util.progress import Progress, say
from mgc.util.workers import cores

REVISION = 3  # of pooling and selection: raised by hand when fitted heads change
INNER_FOLDS = 5  # as scikit-learn's LogisticRegressionCV and GridSearchCV
# Fitted by log loss, so that too weak a penalty shows in their probabilities; those of others are calibrated.
LIKELIHOOD = (LogisticRegression, WeightedLayers, MLPClassifier, Perceptron)
FLOOR = 0.01  # of probabilities before they are calibrated: trees and neighbours give 0


@dataclass(frozen=True)
class Embeddings:
    """The input of a head: rows (R, D) float32; rows ends[i] to ends[i + 1] are those of track i.

    There is one row per track, or one per window.
    """

    rows: np.ndarray
    ends: np.ndarray  # (N + 1,)

    def of(self, tracks: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows of `tracks`, concatenated, and the number of rows of each."""
        chosen = [np.arange(self.ends[i], self.ends[i + 1]) for i in tracks]
        return self.rows[np.concatenate(chosen)], np.array([*map(len, chosen)])


@dataclass(frozen=True)
class Choice:
    """A strength on a layer, and how well it predicts held-out tracks."""

    layer: str
    strength: float
    loss: float
    slope: float  # of the probabilities of an SVM
    tracks: np.ndarray  # (N, C), NaN for tracks that were not held out
    tried: dict[float, float] = field(default_factory=dict)  # loss of every strength on this layer
    not_converged: set[float] = field(default_factory=set)


@dataclass(frozen=True)
class HeadOfFold:
    """The head of one fold, on the layer and with the strength that predict held-out tracks best."""

    choice: Choice
    losses: dict[str, float]  # of the best strength on each layer
    classifier: Any  # a pipeline of scaler and model
    test: np.ndarray  # (n_test, C), in the order of the fold's test ids
    validation: np.ndarray  # (n_val, C), by heads that were not fitted on these tracks

    def to_record(self, select: str = "cv") -> dict[str, Any]:
        """For the run record: layer, strength, and the loss of every layer and strength."""
        best, loss = self.choice, {"cv": "cv_brier_score", "validation": "val_log_loss"}[select]
        tried = {str(strength): value for strength, value in best.tried.items()}
        entries = {"layer": best.layer, "strength": best.strength, loss: tried}
        if len(self.losses) > 1:
            entries[f"{loss}_of_layers"] = self.losses
        if isinstance(self.classifier[-1], WeightedLayers):
            entries["layer_weights"] = self.classifier[-1].layer_weights_.tolist()
        return entries


@dataclass(frozen=True)
class _Plan:
    """How the head of a fold is fitted. Tracks are numbers in the order of the dataset."""

    pool: np.ndarray  # on which the head is fitted
    held: list[np.ndarray]  # parts; each is predicted by heads that are fitted on the rest of the pool
    val: np.ndarray
    test: np.ndarray
    note: str = ""  # what is unusual about the parts

    def rest(self, part: np.ndarray) -> np.ndarray:
        """The pool without a part."""
        return self.pool[~np.isin(self.pool, part)]


@dataclass(frozen=True)
class _HeldOut:
    """Predictions of a part, by heads of every strength that were fitted on the rest of the pool."""

    rows: dict[float, np.ndarray]  # (R, C), by strength
    counts: np.ndarray  # (n,) rows of each track
    not_converged: set[float]


@dataclass(frozen=True)
class _Fitting:
    """What the fits of all folds share."""

    head: Head
    recipe: ProbeRecipe
    labels: np.ndarray  # (N,)
    classes: int

    def hold_out(self, embeddings: Embeddings, plan: _Plan, part: np.ndarray) -> _HeldOut:
        """Fit every strength on the pool without a part, and predict the part."""
        fits = self._fit(embeddings, plan.rest(part), self.head.strengths)
        rows, counts = embeddings.of(part)
        predicted = {strength: probabilities_of(fit, rows, self.classes) for strength, fit in fits.items()}
        return _HeldOut(predicted, counts, {strength for strength, fit in fits.items() if not converged(fit)})

    def choose(self, layer: str, plan: _Plan, parts: list[_HeldOut]) -> Choice:
        """The strength with the smallest loss on all parts, of those with which every part was fitted."""
        held, counts = np.concatenate(plan.held), np.concatenate([part.counts for part in parts])
        labels = np.repeat(self.labels[held], counts)
        # A track whose label the rest of the pool does not have says nothing about a strength.
        known = np.concatenate([np.isin(self.labels[p], self.labels[plan.rest(p)]) for p in plan.held])
        known |= ~known.any()
        is_svm, choices = self.head is HEADS["svm"], []
        for strength in [s for s in self.head.strengths if all(s in part.rows for part in parts)]:
            rows = np.concatenate([part.rows[strength] for part in parts])
            slope, calibrated = 1.0, rows
            if not isinstance(self.head.make(strength, 0), LIKELIHOOD):
                slope, calibrated = calibrate(rows, labels, 1e-300 if is_svm else FLOOR)
            rows = calibrated if is_svm else rows
            if self.recipe.select == "cv":
                errors = _of_tracks(calibrated, counts) - np.eye(self.classes)[self.labels[held]]
                loss = float(np.square(errors[known]).sum(axis=1).mean())  # Brier score (1950)
            else:
                loss = log_loss(labels, rows, labels=range(self.classes))
            tracks = np.full((len(self.labels), self.classes), np.nan)
            tracks[held] = _of_tracks(rows, counts)
            choices.append(Choice(layer, strength, loss, slope, tracks))
        best = min(choices, key=lambda choice: choice.loss)
        tried = {choice.strength: choice.loss for choice in choices}
        return replace(best, tried=tried, not_converged=set.union(*(p.not_converged for p in parts)))

    def refit(
        self, embeddings: Embeddings, plan: _Plan, best: Choice, losses: dict[str, float]
    ) -> HeadOfFold:
        """Fit the pool with the best strength on the best layer."""
        strengths = self.head.strengths
        # A path is followed to the chosen strength, since each fit starts from the one before.
        path = strengths[: strengths.index(best.strength) + 1] if self.head.path else (best.strength,)
        classifier = self._fit(embeddings, plan.pool, path)[best.strength]
        if self.head is HEADS["svm"]:
            classifier[-1].slope = best.slope
        test, validation = (
            probabilities(classifier, *embeddings.of(part), self.classes) for part in (plan.test, plan.val)
        )
        held_out = ~np.isnan(best.tracks[plan.val])  # not so if `data.per_class` limits the pool
        validation = np.where(held_out, best.tracks[plan.val], validation)
        return HeadOfFold(best, losses, classifier, test, validation)

    def _fit(
        self, embeddings: Embeddings, tracks: np.ndarray, strengths: Sequence[float]
    ) -> dict[float, Any]:
        rows, counts = embeddings.of(tracks)
        labels = np.repeat(self.labels[tracks], counts)
        return fit_strengths(self.head, rows, labels, self.recipe.seed, strengths)


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
    fitting = _Fitting(head, recipe, np.array(dataset.label_numbers(dataset.tracks)), len(dataset.classes))
    plans = [_plan(dataset, fitting.labels, fold, recipe, split.leaky) for fold in split.folds]
    for note, count in Counter(plan.note for plan in plans if plan.note).items():
        say(f"head {recipe.head}, {count} of {len(plans)} folds: {note}")
    # A layer is read when its first fit starts.
    embeddings = lru_cache(1)(lambda layer: _embeddings(store, clips, layer, recipe))
    jobs = [(layer, plan, part) for layer in layers for plan in plans for part in plan.held]
    with _single_threaded(), Progress("fit heads", len(jobs) + len(plans), "fits") as progress:

        def parallel(fit: Any, calls: list[Any]) -> Iterator[Any]:
            pool = Parallel(min(cores(), len(jobs)), backend="threading", return_as="generator")
            for result in pool(delayed(fit)(embeddings(layer), *others) for layer, *others in calls):
                progress.step()
                yield result

        held = parallel(fitting.hold_out, jobs)
        choices = [
            [fitting.choose(layer, plan, [*islice(held, len(plan.held))]) for plan in plans]
            for layer in layers
        ]
        refits = []
        for plan, of_fold in zip(plans, zip(*choices, strict=True), strict=True):
            best = min(of_fold, key=lambda choice: choice.loss)
            refits.append((best.layer, plan, best, {choice.layer: choice.loss for choice in of_fold}))
        heads = [*parallel(fitting.refit, refits)]
    fits = [*chain(*choices)]
    if failed := Counter(strength for choice in fits for strength in choice.not_converged):
        which = ", ".join(f"{value:g} in {n} of {len(fits)} fits" for value, n in sorted(failed.items()))
        say(f"head {recipe.head} did not converge at strength {which}; they are scored like the others")
    return heads, time.monotonic() - start


def _plan(dataset: Dataset, labels: np.ndarray, fold: Fold, recipe: ProbeRecipe, leaky: bool) -> _Plan:
    """Inner folds depend on the split alone. With too few artists for them, the validation set is used."""
    number = {track.track_id: index for index, track in enumerate(dataset.tracks)}
    train, val, test = (np.array([number[i] for i in ids]) for ids in (fold.train, fold.val, fold.test))
    if recipe.select == "validation":
        return _Plan(train, [val], val, test)
    pool = train if recipe.data.per_class else np.concatenate([train, val])
    tracks = [dataset.tracks[index] for index in pool]
    if leaky:  # inner folds separate what the split separates
        tracks = [replace(track, group=track.track_id) for track in tracks]
    parts = [part for part in grouped_parts(tracks, INNER_FOLDS, 0) if part]
    plan = _Plan(pool, [np.array([number[track.track_id] for track in part]) for part in parts], val, test)
    rests = [{*labels[plan.rest(part)]} for part in plan.held]
    unknown = {*chain(*({*labels[part]} - rest for part, rest in zip(plan.held, rests, strict=True)))}
    if not rests or min(map(len, rests)) < 2 or unknown == {*labels[pool]}:
        note = "its settings are chosen on the validation set: too few artists for inner folds"
        return replace(plan, held=[val], note=note)
    few = ", ".join(dataset.classes[label] for label in sorted(unknown))
    return replace(plan, note=few and f"too few artists for choosing its settings on {few}")


def _of_tracks(rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Rows (R, C), `counts` (N,) of which belong to each track, to (N, C): the mean over its rows."""
    return np.add.reduceat(rows, np.cumsum([0, *counts[:-1]]), axis=0) / counts[:, np.newaxis]


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


def probabilities(classifier: Any, rows: np.ndarray, counts: np.ndarray, classes: int) -> np.ndarray:
    """Rows (R, D), `counts` (N,) of which belong to each track, to (N, classes): the mean over its rows."""
    return _of_tracks(probabilities_of(classifier, rows, classes), counts)


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
