"""The one training loop, on accelerate: crops in, best weights out.

An epoch takes one random crop of every training track; validation and test cover whole tracks with crops
side by side and average the probabilities. Everything random is drawn from (seed, fold, epoch), so a run
that was killed goes on from its checkpoint as if nothing had happened.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn

from mgc.config import Device, TrainRecipe
from mgc.device import make_accelerator, tune_cpu

SECONDS_BETWEEN_CHECKPOINTS = 15.0


@dataclass(frozen=True)
class Spectrograms:
    """Tracks to train on or to predict: arrays (T, D) of any float type, memory-mapped, and class numbers."""

    arrays: Sequence[np.ndarray]
    labels: np.ndarray  # (N,) int64
    means: np.ndarray  # (N,) float32, over the whole track
    deviations: np.ndarray

    @staticmethod
    def of(arrays: Sequence[np.ndarray], labels: Sequence[int]) -> "Spectrograms":
        """Normalisation per track is prepared once; it happens when a crop is cut."""
        means = np.array([array.mean(dtype=np.float32) for array in arrays], np.float32)
        deviations = np.array([array.astype(np.float32).std() for array in arrays], np.float32)
        # A track without any variation becomes zeros; 1e-3 dB is nothing audible.
        return Spectrograms(arrays, np.array(labels, np.int64), means, np.maximum(deviations, 1e-3))

    def crop(self, index: int, start: int, frames: int) -> np.ndarray:
        """(frames, D) float32, normalised; a shorter track is padded with its mean, which is 0."""
        piece = self.arrays[index][start : start + frames].astype(np.float32)
        piece = (piece - self.means[index]) / self.deviations[index]
        return np.pad(piece, ((0, frames - len(piece)), (0, 0)))


@dataclass(frozen=True)
class Epoch:
    """One line of the curves. Losses are cross-entropies in nats."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float


@dataclass(frozen=True)
class Trained:
    """The network with the weights of its best epoch (smallest validation loss), and its curves."""

    network: nn.Module
    best_epoch: int
    history: list[Epoch]


def train(
    make: Callable[[], nn.Module],
    sides: tuple[Spectrograms, Spectrograms],
    recipe: TrainRecipe,
    *,
    crop_frames: int,
    seed: int,
    device: Device,
    checkpoint: Path,
    report: Callable[[Epoch], None],
) -> Trained:
    """Train the network that `make` returns on sides[0], stop early on sides[1].

    `checkpoint` is read if it is there and written while training goes on. `seed` must differ from fold
    to fold. `report` is called after every epoch, also for those of an interrupted run.
    """
    tune_cpu()
    accelerator = make_accelerator(device)
    torch.manual_seed(seed)
    network = make()
    # Twice as fast here; torch's stubs do not know the argument.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    network, optimizer = accelerator.prepare(network, optimizer)
    state = _State.resume(checkpoint, accelerator.unwrap_model(network), optimizer)
    for epoch in state.history:
        report(epoch)
    saved = time.monotonic()
    while not state.finished(recipe):
        start = time.monotonic()
        number = len(state.history)
        learned = _epoch(network, optimizer, accelerator, sides[0], recipe, (crop_frames, seed, number))
        val = predict(network, sides[1], crop_frames, accelerator)
        line = Epoch(number, *learned, *_score(val, sides[1].labels), time.monotonic() - start)
        state.add(line, accelerator.unwrap_model(network))
        report(line)
        if time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS or state.finished(recipe):
            state.save(checkpoint, accelerator.unwrap_model(network), optimizer)
            saved = time.monotonic()
    best = accelerator.unwrap_model(network)
    best.load_state_dict(state.best_weights)
    return Trained(best, state.best_epoch, state.history)


def predict(
    network: nn.Module, tracks: Spectrograms, crop_frames: int, accelerator: Accelerator, batch_size: int = 32
) -> np.ndarray:
    """Probabilities (N, C), averaged over crops that cover each track; the last is moved back to be full."""
    crops = [
        (index, start)
        for index, array in enumerate(tracks.arrays)
        for start in [*range(0, len(array) - crop_frames, crop_frames), max(0, len(array) - crop_frames)]
    ]
    network.eval()
    parts = []
    with torch.inference_mode():
        for at in range(0, len(crops), batch_size):
            batch = _batch([tracks.crop(i, start, crop_frames) for i, start in crops[at : at + batch_size]])
            parts.append(F.softmax(network(batch.to(accelerator.device)).double(), dim=1).cpu().numpy())
    each = np.concatenate(parts)  # (crops, C)
    sums = np.zeros((len(tracks.arrays), each.shape[1]))
    np.add.at(sums, [index for index, _ in crops], each)
    return sums / sums.sum(axis=1, keepdims=True)


def _epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    tracks: Spectrograms,
    recipe: TrainRecipe,
    draw: tuple[int, int, int],
) -> tuple[float, float]:
    """One pass over the training side, `draw` being crop frames, seed and epoch; mean loss and accuracy."""
    crop_frames = draw[0]
    rng = np.random.default_rng(draw)
    torch.manual_seed(int(rng.integers(2**31)))  # dropout of this epoch
    network.train()
    order = rng.permutation(len(tracks.arrays))
    starts = [int(rng.integers(max(1, len(array) - crop_frames + 1))) for array in tracks.arrays]
    loss_sum = right = 0.0
    for at in range(0, len(order), recipe.batch_size):
        chosen = order[at : at + recipe.batch_size]
        batch = _batch([tracks.crop(i, starts[i], crop_frames) for i in chosen]).to(accelerator.device)
        labels = torch.from_numpy(tracks.labels[chosen]).to(accelerator.device)
        logits = network(batch)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        loss_sum += loss.item() * len(chosen)
        right += float((logits.argmax(dim=1) == labels).sum())
    return loss_sum / len(order), right / len(order)


def _batch(crops: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(crops)).unsqueeze(1)  # (B, 1, frames, D)


def _score(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    of_truth = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(of_truth.clip(1e-12)).mean()), float((probabilities.argmax(1) == labels).mean())


def save_whole(kept: dict[str, Any], file: Path) -> None:
    """`torch.save` under another name, then rename: the file is there whole or not at all."""
    part = file.with_name(f"{file.name}.part")
    torch.save(kept, part)
    part.replace(file)


@dataclass
class _State:
    """What a killed run needs to go on."""

    history: list[Epoch]
    best_epoch: int
    best_weights: dict[str, torch.Tensor]

    @staticmethod
    def resume(checkpoint: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> "_State":
        if not checkpoint.exists():
            return _State([], -1, {})
        kept = torch.load(checkpoint, weights_only=True, map_location="cpu")
        network.load_state_dict(kept["network"])
        optimizer.load_state_dict(kept["optimizer"])
        return _State([Epoch(**line) for line in kept["history"]], kept["best_epoch"], kept["best_weights"])

    def add(self, line: Epoch, network: nn.Module) -> None:
        self.history.append(line)
        if self.best_epoch < 0 or line.val_loss < self.history[self.best_epoch].val_loss:
            self.best_epoch = line.epoch
            self.best_weights = {
                key: value.detach().cpu().clone() for key, value in network.state_dict().items()
            }

    def finished(self, recipe: TrainRecipe) -> bool:
        epochs = len(self.history)
        return epochs >= recipe.epochs or (epochs > 0 and epochs - 1 - self.best_epoch >= recipe.patience)

    def save(self, checkpoint: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        kept = {
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "history": [asdict(line) for line in self.history],
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
        }
        save_whole(kept, checkpoint)
