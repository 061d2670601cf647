"""A network trained on every fold of a split: side by side on a CPU, resumable, the test sides predicted."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from mgc.config import BaselineRecipe
from mgc.data import Dataset, Fold, Split
from mgc.representations import Representation, open_representation
from mgc.representations.cache.embed import embed_tracks
from mgc.representations.cache.store import Store
from mgc.representations.features.variants import variants
from mgc.training.augment import Augment
from mgc.training.loop import Epoch, Side, Trained, predict, save_whole, train
from mgc.training.networks import OPTIONS, count_parameters, find_network, make_network
from mgc.util.devices import make_accelerator
from mgc.util.errors import MgcError
from mgc.util.progress import Progress
from mgc.util.workers import cores, workers
from mgc.workspace import Workspace

OFFSET, SCALE = "normalise.offset", "normalise.scale"  # beside the weights; as in `Side`
WHOLE_SECONDS = 30.0  # what `crop_seconds = 0` takes: the length of the clips that the field trains on


@dataclass(frozen=True)
class FoldResult:
    """What training on one fold gave; the weights lie beside it as `fold<number>.safetensors`, with the
    numbers that normalise its input where the training side gave them."""

    probabilities: np.ndarray  # (n_test, C), in the order of the fold's test ids
    validation: np.ndarray  # (n_val, C)
    frames: int  # of a crop
    parameters: int
    best_epoch: int
    history: list[Epoch]


def prepare(recipe: BaselineRecipe, dataset: Dataset, split: Split, workspace: Workspace) -> float:
    """Compute what the network learns from where the store lacks it; the seconds that took, whenever it was.

    Variants by pitch and speed are for training tracks only.

    Raises:
        MgcError: no such representation, or one that was learned elsewhere.
    """
    first, *others = representations_of(recipe, workspace)
    learned = {track_id for fold in split.folds for track_id in fold.train}
    tracks = [track for track in dataset.tracks if track.track_id in learned]
    seconds = embed_tracks(dataset.tracks, first, workspace, recipe.device).seconds
    return seconds + sum(embed_tracks(tracks, x, workspace, recipe.device).seconds for x in others)


def representations_of(recipe: BaselineRecipe, workspace: Workspace) -> list[Representation]:
    """What the network learns from, then the variants of it that only training sees.

    Raises:
        MgcError: no such representation, or one that was learned elsewhere.
    """
    representation = open_representation(
        recipe.representation or find_network(recipe.network).representation, workspace
    )
    if representation.trained_on != "nothing":
        raise MgcError(
            f"{representation.name} was trained on {representation.trained_on}: a network on top of it does "
            "not learn from scratch",
            where="representation",
            fix=f"mgc probe --model {representation.address} --head mlp",
        )
    return [representation, *variants(representation, recipe.augment)]


def train_folds(
    recipe: BaselineRecipe,
    dataset: Dataset,
    split: Split,
    workspace: Workspace,
    folder: Path,
    overwrite: bool,
) -> list[FoldResult]:
    """Train on every fold; what an interrupted call has finished is resumed unless `overwrite`.

    On a CPU folds run side by side, a process and a thread each: small networks gain little from a second
    thread. The result of a fold does not depend on the others. The store must hold what `prepare` gives.
    """
    jobs = [_Job(recipe, workspace, folder, dataset, fold, number) for number, fold in enumerate(split.folds)]
    if overwrite:
        clear_partial(folder)
    on_cpu = make_accelerator(recipe.device).device.type == "cpu"
    processes = min(len(jobs), cores()) if on_cpu else 1
    with Progress(f"train {recipe.network}", len(jobs) * recipe.train.epochs, "epochs at most") as progress:
        return _in_turn(jobs, progress) if processes == 1 else _side_by_side(jobs, processes, progress)


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
    """Train on the fold's training side, stop on its validation side; the test side is not looked at.

    `checkpoint` and `report` are those of `mgc.training.loop.train`.
    """
    table = _Table.of(recipe, dataset, workspace)
    learned = table.side(fold.train, with_variants=True)
    return table.fit(learned, fold.val, seed=seed, checkpoint=checkpoint, report=report)


@dataclass(frozen=True)
class _Table:
    """The arrays of a data set as a network takes them."""

    recipe: BaselineRecipe
    dataset: Dataset
    stores: list[Store]  # the representation, then its variants
    crop_frames: int

    @staticmethod
    def of(recipe: BaselineRecipe, dataset: Dataset, workspace: Workspace) -> "_Table":
        stores = [Store(card, workspace.cache) for card in representations_of(recipe, workspace)]
        rate = stores[0].representation.frames_a_second
        if rate is None:  # a vector a track
            return _Table(recipe, dataset, stores, 1)
        asked = round((recipe.train.crop_seconds or WHOLE_SECONDS) * rate)
        longest = max(len(stores[0].read(track.content)) for track in dataset.tracks)
        # No longer than any track is; a network that needs more sees zeros behind.
        frames = max(min(asked, longest), find_network(recipe.network).min_frames)
        return _Table(recipe, dataset, stores, frames)

    def network(self) -> Any:
        recipe = self.recipe
        options = {key: getattr(recipe, key) for key in OPTIONS}
        width = self.stores[0].representation.width
        return make_network(recipe.network, len(self.dataset.classes), width, self.crop_frames, options)

    def fit(
        self,
        learned: Side,
        val: tuple[str, ...],
        *,
        seed: int,
        checkpoint: Path,
        report: Callable[[Epoch], None],
    ) -> Trained:
        return train(
            self.network,
            (learned, self.side(val, learned)),
            self.recipe.train,
            crop_frames=self.crop_frames,
            seed=seed,
            device=self.recipe.device,
            checkpoint=checkpoint,
            report=report,
            augment=Augment(self.recipe.augment, self.dataset.classes),
        )

    def side(self, ids: tuple[str, ...], learned: Side | None = None, with_variants: bool = False) -> Side:
        tracks = [self.dataset.by_id[track_id] for track_id in ids]
        stores = self.stores if with_variants else self.stores[:1]
        arrays = [store.read(track.content) for store in stores for track in tracks]
        if self.stores[0].representation.pooled:
            arrays = [array[:1] for array in arrays]  # the mean over windows, (1, D)
        return Side.of(arrays, self.dataset.label_numbers(tracks), normalise_of(self.recipe), learned)


def normalise_of(recipe: BaselineRecipe) -> str:
    """How the network's input is normalised: as the recipe says, else as the network was published."""
    return recipe.train.normalise or find_network(recipe.network).normalise


def clear_partial(folder: Path) -> None:
    """Remove what is only needed to take up an interrupted run."""
    for file in [*folder.glob("fold*.result"), *folder.glob("fold*.checkpoint")]:
        file.unlink()


@dataclass(frozen=True)
class _Job:
    """One fold to train, complete enough to be sent to another process."""

    recipe: BaselineRecipe
    workspace: Workspace
    folder: Path
    dataset: Dataset
    fold: Fold
    number: int

    def run(self, report: Callable[[Epoch], None]) -> FoldResult:
        """Train, predict the test side, keep the best weights; or read what an earlier call finished."""
        file = self.folder / f"fold{self.number}.result"
        if file.exists():
            kept = torch.load(file, weights_only=True)
            history = [Epoch(**line) for line in kept["history"]]
            for line in history:
                report(line)
            arrays = {name: kept.pop(name).numpy() for name in ("probabilities", "validation")}
            return FoldResult(**{**kept, **arrays, "history": history})
        table = _Table.of(self.recipe, self.dataset, self.workspace)
        learned = table.side(self.fold.train, with_variants=True)
        trained = table.fit(
            learned,
            self.fold.val,
            seed=self.recipe.seed * 1000 + self.number,
            checkpoint=self.folder / f"fold{self.number}.checkpoint",
            report=report,
        )
        accelerator = make_accelerator(self.recipe.device)
        test, validation = (
            predict(trained.network, table.side(ids, learned), table.crop_frames, accelerator)
            for ids in (self.fold.test, self.fold.val)
        )
        weights = {key: value.contiguous().cpu() for key, value in trained.network.state_dict().items()}
        if normalise_of(self.recipe) == "train":
            weights |= {OFFSET: learned.offsets[0].clone(), SCALE: learned.scales[0].clone()}
        save_file(weights, self.folder / f"fold{self.number}.safetensors")
        result = FoldResult(
            test, validation, table.crop_frames, count_parameters(trained.network), trained.best_epoch,
            trained.history,
        )  # fmt: skip
        arrays = {"probabilities": torch.from_numpy(test), "validation": torch.from_numpy(validation)}
        save_whole({**asdict(result), **arrays}, file)
        return result


def _in_turn(jobs: list[_Job], progress: Progress) -> list[FoldResult]:
    results = []
    for job in jobs:

        def report(line: Epoch, number: int = job.number) -> None:
            progress.step(note=_note(number, line))

        results.append(job.run(report))
        progress.expect_less(job.recipe.train.epochs - len(results[-1].history))
    return results


def _side_by_side(jobs: list[_Job], processes: int, progress: Progress) -> list[FoldResult]:
    with multiprocessing.get_context("spawn").Manager() as manager, workers(processes, True) as pool:
        lines = manager.Queue()
        futures = [pool.submit(_run_in_process, job, lines) for job in jobs]
        for number, line in _reports(lines, futures):
            if isinstance(line, Epoch):
                progress.step(note=_note(number, line))
            else:
                progress.expect_less(line)
        return [future.result() for future in futures]


def _run_in_process(job: _Job, lines: Any) -> FoldResult:
    result = job.run(lambda line: lines.put((job.number, line)))
    lines.put((job.number, job.recipe.train.epochs - len(result.history)))
    return result


def _reports(lines: Any, futures: list["Future[FoldResult]"]) -> Iterator[tuple[int, Epoch | int]]:
    """Every epoch of every fold, and at the end of a fold how many epochs it did not need."""
    while True:
        running = [future for future in futures if not future.done()]
        wait(running, timeout=0.3, return_when=FIRST_COMPLETED)
        while not lines.empty():
            yield lines.get()
        if not running or any(f.done() and f.exception() for f in futures):
            return


def _note(number: int, line: Epoch) -> str:
    return (
        f"fold {number} epoch {line.epoch + 1}: loss {line.train_loss:.3f}, "
        f"validation {line.val_loss:.3f}, accuracy {line.val_accuracy:.3f}"
    )
