"""A network trained on every fold of a split: side by side on a CPU, resumable, the test sides predicted."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from mgc.config import BaselineRecipe
from mgc.data import Dataset, Fold, Split, cores
from mgc.device import make_accelerator
from mgc.models import make_network
from mgc.progress import Progress
from mgc.representations import Representation
from mgc.representations.logmel import FRAMES_A_SECOND
from mgc.store import Store
from mgc.train import Epoch, Spectrograms, predict, save_whole, train


@dataclass(frozen=True)
class FoldResult:
    """What training on one fold gave; the weights lie beside it as `fold<number>.safetensors`."""

    probabilities: np.ndarray  # (n_test, C), in the order of the fold's test ids
    best_epoch: int
    history: list[Epoch]


def train_folds(
    recipe: BaselineRecipe,
    representation: Representation,
    dataset: Dataset,
    split: Split,
    folder: Path,
    again: bool,
) -> list[FoldResult]:
    """Train on every fold; what an interrupted call has finished is taken up unless `again`.

    On a CPU folds run side by side, a process and a thread each: small networks gain little from a second
    thread. The result of a fold does not depend on the others.
    """
    jobs = [_Job(recipe, representation, folder, dataset, f, n) for n, f in enumerate(split.folds)]
    if again:
        clear_partial(folder)
    on_cpu = make_accelerator(recipe.device).device.type == "cpu"
    processes = min(len(jobs), cores()) if on_cpu else 1
    with Progress(f"train {recipe.network}", len(jobs) * recipe.train.epochs, "epochs at most") as progress:
        return _in_turn(jobs, progress) if processes == 1 else _side_by_side(jobs, processes, progress)


def clear_partial(folder: Path) -> None:
    """Remove what is only needed to take up an interrupted run."""
    for file in [*folder.glob("fold*.result"), *folder.glob("fold*.checkpoint")]:
        file.unlink()


@dataclass(frozen=True)
class _Job:
    """One fold to train, complete enough to be sent to another process."""

    recipe: BaselineRecipe
    representation: Representation
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
            return FoldResult(kept["probabilities"].numpy(), kept["best_epoch"], history)
        recipe, classes = self.recipe, len(self.dataset.classes)
        frames = round(recipe.train.crop_seconds * FRAMES_A_SECOND)
        store = Store(self.representation)
        trained = train(
            lambda: make_network(recipe.network, classes, recipe.dropout),
            (self._side(store, self.fold.train), self._side(store, self.fold.val)),
            recipe.train,
            crop_frames=frames,
            seed=recipe.seed * 1000 + self.number,
            device=recipe.device,
            checkpoint=self.folder / f"fold{self.number}.checkpoint",
            report=report,
        )
        test = self._side(store, self.fold.test)
        probabilities = predict(trained.network, test, frames, make_accelerator(recipe.device))
        weights = {key: value.contiguous().cpu() for key, value in trained.network.state_dict().items()}
        save_file(weights, self.folder / f"fold{self.number}.safetensors")
        kept = {
            "probabilities": torch.from_numpy(probabilities),
            "history": [asdict(line) for line in trained.history],
            "best_epoch": trained.best_epoch,
        }
        save_whole(kept, file)
        return FoldResult(probabilities, trained.best_epoch, trained.history)

    def _side(self, store: Store, ids: tuple[str, ...]) -> Spectrograms:
        tracks = [self.dataset.by_id[track_id] for track_id in ids]
        arrays = [store.read(track.content) for track in tracks]
        return Spectrograms.of(arrays, self.dataset.label_numbers(tracks))


def _in_turn(jobs: list[_Job], progress: Progress) -> list[FoldResult]:
    results = []
    for job in jobs:

        def report(line: Epoch, number: int = job.number) -> None:
            progress.step(note=_note(number, line))

        results.append(job.run(report))
        progress.expect_less(job.recipe.train.epochs - len(results[-1].history))
    return results


def _side_by_side(jobs: list[_Job], processes: int, progress: Progress) -> list[FoldResult]:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        lines = manager.Queue()
        pool = ProcessPoolExecutor(processes, mp_context=context)
        try:
            futures = [pool.submit(_run_in_process, job, lines) for job in jobs]
            for number, line in _reports(lines, futures):
                if isinstance(line, Epoch):
                    progress.step(note=_note(number, line))
                else:
                    progress.expect_less(line)
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _run_in_process(job: _Job, lines: Any) -> FoldResult:
    torch.set_num_threads(1)
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
