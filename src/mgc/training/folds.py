"""Train a network on every fold of a split, in parallel on a CPU, and predict the test sets; resumable."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from mgc.config import BaselineRecipe
from mgc.data import Dataset, Fold, Split
from mgc.representations import Representation, open_representation
from mgc.representations.cache.embed import embed_tracks
from mgc.representations.cache.embeddings import EmbeddingCache
from mgc.representations.derived import variants
from mgc.training.augment import Augment
from mgc.training.loop import Epoch, TrackSet, Trained, predict, train
from mgc.training.networks import OPTIONS, count_parameters, find_network, make_network
from mgc.util import files
from mgc.util.devices import make_accelerator
from mgc.util.errors import MgcError
from mgc.util.progress import Progress
from mgc.util.workers import cores, workers
from mgc.workspace import Workspace

OFFSET, SCALE = "normalise.offset", "normalise.scale"  # saved beside the weights; see `TrackSet`
WHOLE_SECONDS = 30.0  # the crop for `crop_seconds = 0`: the usual length of clips in published work


@dataclass(frozen=True)
class FoldResult:
    """The result of training on one fold. The weights are in `fold<number>.safetensors`, with the offsets and
    scales of the input if they come from the training set."""

    probabilities: np.ndarray  # (n_test, C), in the order of the fold's test ids
    validation: np.ndarray  # (n_val, C)
    frames: int  # of a crop
    parameters: int
    best_epoch: int
    history: list[Epoch]


def prepare(recipe: BaselineRecipe, dataset: Dataset, split: Split, workspace: Workspace) -> float:
    """Compute the network's input where it is not cached; returns the seconds that all of it took.

    Variants by pitch and speed are computed for training tracks only.

    Raises:
        MgcError: the representation does not exist, or is pretrained.
    """
    original, *others = representations_of(recipe, workspace)
    train_ids = {track_id for fold in split.folds for track_id in fold.train}
    tracks = [track for track in dataset.tracks if track.track_id in train_ids]
    seconds = embed_tracks(dataset.tracks, original, workspace, recipe.device).seconds
    return seconds + sum(embed_tracks(tracks, x, workspace, recipe.device).seconds for x in others)


def representations_of(recipe: BaselineRecipe, workspace: Workspace) -> list[Representation]:
    """The representation that the network takes, then its variants for training.

    Raises:
        MgcError: the representation does not exist, or is pretrained.
    """
    name = recipe.representation or find_network(recipe.network).representation
    representation = open_representation(name, workspace)
    if representation.trained_on != "nothing":
        raise MgcError(
            f"{representation.name} was trained on {representation.trained_on}: a network on it is not "
            "trained from scratch",
            where="representation",
            fix=f"mgc probe --model {representation.spec.name} --head mlp",
        )
    return [representation, *variants(representation, recipe.augment)]


def train_folds(
    runs: Sequence[tuple[BaselineRecipe, Split, Path]], workspace: Workspace, overwrite: bool
) -> Iterator[list[FoldResult] | MgcError]:
    """Train on every fold of each run, given by its recipe, split and folder, under their locks.

    Yields the results in this order. Unless `overwrite`, an interrupted call is resumed. An error of one run
    is yielded in its place, and the others are trained. On a CPU the folds of all runs are trained in
    parallel, each in one single-threaded process, since small networks gain little from a second thread. The
    result of a fold does not depend on the others. The embedding cache must hold what `prepare` computes.
    """
    jobs = [
        [_Job(recipe, workspace, folder, split.dataset, fold, n) for n, fold in enumerate(split.folds)]
        for recipe, split, folder in runs
    ]
    for _, _, folder in runs if overwrite else ():
        clear_partial(folder)
    every = [job for own in jobs for job in own]
    on_cpu = all(make_accelerator(recipe.device).device.type == "cpu" for recipe, _, _ in runs)
    # A single fold has all threads. Runs must not depend on which others are trained by the same call.
    processes = min(len(every), cores()) if on_cpu and len(every) > len(jobs) else 1
    most = sum(job.recipe.train.epochs for job in every)
    with Progress(f"train {every[0].recipe.network}", most, "epochs at most") as progress:
        yield from _train_in_pool(jobs, processes, progress) if processes > 1 else _in_turn(jobs, progress)


def fit_fold(
    recipe: BaselineRecipe,
    dataset: Dataset,
    fold: Fold,
    workspace: Workspace,
    *,
    seed: int,
    checkpoint: Path,
    report: Callable[[Epoch], None],
) -> Trained:
    """Train on the training set of the fold, with early stopping on its validation set; no test set is used.

    `checkpoint` and `report` are those of `mgc.training.loop.train`.
    """
    return _FoldData.of(recipe, dataset, fold, workspace).fit(seed, checkpoint, report)


@dataclass
class _FoldData:
    """The cached arrays of the tracks of one fold, as a network takes them."""

    recipe: BaselineRecipe
    dataset: Dataset
    fold: Fold
    stores: list[EmbeddingCache]  # of the representation, then of its variants
    crop_frames: int

    @staticmethod
    def of(recipe: BaselineRecipe, dataset: Dataset, fold: Fold, workspace: Workspace) -> "_FoldData":
        stores = [EmbeddingCache(card, workspace.cache) for card in representations_of(recipe, workspace)]
        rate = stores[0].representation.frames_a_second
        if rate is None:  # one vector per track
            return _FoldData(recipe, dataset, fold, stores, 1)
        wanted = round((recipe.train.crop_seconds or WHOLE_SECONDS) * rate)
        longest = max(len(stores[0].read(track.content)) for track in dataset.tracks)
        # Not longer than the longest track; networks that need more frames get zero padding.
        frames = max(min(wanted, longest), find_network(recipe.network).min_frames)
        return _FoldData(recipe, dataset, fold, stores, frames)

    @cached_property
    def train_set(self) -> TrackSet:
        return self._tracks(self.fold.train, self.stores)

    def test_set(self, ids: tuple[str, ...]) -> TrackSet:
        """Tracks without variants, normalised as the training set is."""
        return self._tracks(ids, self.stores[:1], self.train_set)

    def _tracks(
        self, ids: tuple[str, ...], stores: list[EmbeddingCache], train_set: TrackSet | None = None
    ) -> TrackSet:
        tracks = [self.dataset.by_id[track_id] for track_id in ids]
        arrays = [store.read(track.content) for store in stores for track in tracks]
        if self.stores[0].representation.pooled:
            arrays = [array[:1] for array in arrays]  # the mean over windows, (1, D)
        return TrackSet.of(arrays, self.dataset.label_numbers(tracks), normalise_of(self.recipe), train_set)

    def network(self) -> torch.nn.Module:
        options = {key: getattr(self.recipe, key) for key in OPTIONS}
        width = self.stores[0].representation.width
        return make_network(self.recipe.network, len(self.dataset.classes), width, self.crop_frames, options)

    def fit(self, seed: int, checkpoint: Path, report: Callable[[Epoch], None]) -> Trained:
        return train(
            self.network, self.train_set, self.test_set(self.fold.val), self.recipe.train,
            crop_frames=self.crop_frames, seed=seed, device=self.recipe.device, checkpoint=checkpoint,
            report=report, augment=Augment(self.recipe.augment, self.dataset.classes),
        )  # fmt: skip


def normalise_of(recipe: BaselineRecipe) -> str:
    """How the network's input is normalised: by the recipe's setting, or as published for the network."""
    return recipe.train.normalise or find_network(recipe.network).normalise


def clear_partial(folder: Path) -> None:
    """Remove the files that are only needed to resume an interrupted run."""
    for file in [*folder.glob("fold*.checkpoint"), *folder.glob(".*.part")]:  # .part: of a killed process
        file.unlink()


@dataclass(frozen=True)
class _Job:
    """Everything another process needs to train one fold."""

    recipe: BaselineRecipe
    workspace: Workspace
    folder: Path
    dataset: Dataset
    fold: Fold
    number: int

    def note(self, epoch: Epoch) -> str:
        """One line about an epoch."""
        losses = f"loss {epoch.train_loss:.3f}, validation {epoch.val_loss:.3f}"
        where = f"seed {self.recipe.seed} fold {self.number} epoch {epoch.epoch + 1}"
        return f"{where}: {losses}, accuracy {epoch.val_accuracy:.3f}"

    def run(self, report: Callable[[Epoch], None]) -> FoldResult:
        """Train, predict the test set and save the best weights. A finished training is not repeated."""
        data = _FoldData.of(self.recipe, self.dataset, self.fold, self.workspace)
        checkpoint = self.folder / f"fold{self.number}.checkpoint"
        trained = data.fit(self.recipe.seed * 1000 + self.number, checkpoint, report)
        network, accelerator = trained.network, make_accelerator(self.recipe.device)
        test, validation = (
            predict(network, data.test_set(ids), data.crop_frames, accelerator)
            for ids in (self.fold.test, self.fold.val)
        )
        weights = {key: value.contiguous().cpu() for key, value in network.state_dict().items()}
        if normalise_of(self.recipe) == "train":
            weights |= {OFFSET: data.train_set.offsets[0].clone(), SCALE: data.train_set.scales[0].clone()}
        files.write(self.folder / f"fold{self.number}.safetensors", save(weights))
        return FoldResult(
            test, validation, data.crop_frames, count_parameters(network), trained.best_epoch,
            trained.history,
        )  # fmt: skip


def _in_turn(runs: list[list[_Job]], progress: Progress) -> Iterator[list[FoldResult] | MgcError]:
    for jobs in runs:
        try:
            yield [_train(job, partial(_show, progress)) for job in jobs]
        except MgcError as error:
            yield error


def _train_in_pool(
    runs: list[list[_Job]], processes: int, progress: Progress
) -> Iterator[list[FoldResult] | MgcError]:
    with multiprocessing.get_context("spawn").Manager() as manager, workers(processes, True) as pool:
        messages = manager.Queue()
        for futures in [[pool.submit(_train, job, messages.put) for job in jobs] for jobs in runs]:
            try:
                for message in _messages(messages, futures):
                    _show(progress, message)
                yield [future.result() for future in futures]
            except MgcError as error:
                for future in futures:
                    future.cancel()
                yield error


def _train(job: _Job, tell: Callable[[str | int], None]) -> FoldResult:
    """Run the job; `tell` gets a note on every epoch, and the number of epochs that were not needed."""
    result = job.run(lambda epoch: tell(job.note(epoch)))
    tell(job.recipe.train.epochs - len(result.history))
    return result


def _show(progress: Progress, message: str | int) -> None:
    progress.step(note=message) if isinstance(message, str) else progress.expect_less(message)


def _messages(messages: Any, futures: list["Future[FoldResult]"]) -> Iterator[str | int]:
    """What `_train` tells, also of other runs, until all `futures` are done or one of them fails."""
    while True:
        running = [future for future in futures if not future.done()]
        wait(running, timeout=0.3, return_when=FIRST_COMPLETED)
        while not messages.empty():
            yield messages.get()
        for future in futures:
            if future.done():
                future.result()
        if not running:
            return
