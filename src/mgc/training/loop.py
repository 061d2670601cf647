"""The training loop, on accelerate: crops of tracks in, the weights of the best epoch out.

An epoch takes random crops of every training track. Validation and test cover whole tracks with evenly spaced
crops and average the probabilities. Every random choice depends on (seed, fold, epoch) only, so a training
that was interrupted resumes from its checkpoint with the same result.
"""

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import lr_scheduler

from mgc.config import AugmentRecipe, Device, TrainRecipe
from mgc.training.augment import Augment
from mgc.util import files
from mgc.util.devices import make_accelerator, precision_of, tune_cpu
from mgc.util.errors import MgcError, reason_of
from mgc.util.progress import say

REVISION = 1  # of the loop: increased by hand when the same recipe gives other weights
SECONDS_BETWEEN_CHECKPOINTS = 15.0
MAX_UNCOVERED = 0.05  # share of a crop that may stay uncovered at test time, instead of one more crop
MIN_SCALE = 1e-3  # a track without variation becomes zeros; 1e-3 dB is inaudible


@dataclass(frozen=True)
class TrackSet:
    """Arrays and class numbers of the tracks to train on or to predict, and how they are normalised.

    With variants (other pitch or speed) there are several arrays per track: array v * N + i is variant v of
    track i, and variant 0 is the track itself. A value x enters the network as (x - offset) / scale.
    """

    arrays: Sequence[np.ndarray]  # (T, D) each, of any float type, possibly memory-mapped
    labels: np.ndarray  # (N,) int64
    offsets: Tensor  # (arrays, 1 or D) float32
    scales: Tensor

    @staticmethod
    def of(
        arrays: Sequence[np.ndarray],
        labels: Sequence[int],
        normalise: str = "track",
        train_set: "TrackSet | None" = None,
    ) -> "TrackSet":
        """Normalise as `TrainRecipe.normalise` describes. "train" uses the offsets and scales of `train_set`;
        without one, the arrays are the training set."""
        if normalise == "train":
            of_train = train_set and (train_set.offsets[0].numpy(), train_set.scales[0].numpy())
            affine = [of_train or _mean_and_std(arrays)] * len(arrays)
        else:
            affine = [_NORMALISE[normalise](array.astype(np.float32)) for array in arrays]
        offsets, scales = (
            torch.from_numpy(np.stack([np.atleast_1d(pair[k]) for pair in affine])) for k in (0, 1)
        )
        return TrackSet(arrays, np.array(labels, np.int64), offsets, scales.clamp_min(MIN_SCALE))

    @property
    def variants(self) -> int:
        """Arrays per track."""
        return len(self.arrays) // len(self.labels)

    def batch(self, rows: Sequence[int], starts: Sequence[int], frames: int, device: Any) -> Tensor:
        """Crops (B, 1, frames, D) float32, normalised on the device; shorter tracks are padded with zeros."""
        crops = [self.arrays[row][start : start + frames] for row, start in zip(rows, starts, strict=True)]
        raw = np.zeros((len(crops), frames, crops[0].shape[1]), crops[0].dtype)
        for place, crop in zip(raw, crops, strict=True):
            place[: len(crop)] = crop
        index = torch.as_tensor(rows)
        offset, scale = (of[index].unsqueeze(1).to(device) for of in (self.offsets, self.scales))  # (B, 1, D)
        # Arrays are sent to the device in float16: half the bytes, and torch converts them faster than NumPy.
        batch = torch.from_numpy(raw).to(device).float().sub_(offset).div_(scale)
        for number, crop in enumerate(crops):
            batch[number, len(crop) :] = 0.0
        return batch.unsqueeze(1)


def _mean_and_std(arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (D,) of each band over all frames of all arrays."""
    count = sum(len(array) for array in arrays)
    mean = np.sum([array.sum(axis=0, dtype=np.float64) for array in arrays], axis=0) / count
    variance = np.sum([((array - mean) ** 2).sum(axis=0) for array in arrays], axis=0) / count
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)


_NORMALISE: dict[str, Callable[[np.ndarray], tuple[Any, Any]]] = {  # array -> offset, scale
    "track": lambda array: (array.mean(), array.std()),
    "range": lambda array: (array.min(), np.ptp(array)),
    "l2": lambda array: (np.float32(0), np.linalg.norm(array)),
    "none": lambda array: (np.float32(0), np.float32(1)),
}


@dataclass(frozen=True)
class Epoch:
    """One line of the training curves. Losses are cross-entropies in nats, for training with augmentation."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float  # at the end of the epoch
    seconds: float


class DivergedError(MgcError):
    """The training loss is infinite or NaN."""


@dataclass(frozen=True)
class Trained:
    """The network with the weights of its best epoch on validation, and its training curves."""

    network: nn.Module
    best_epoch: int
    history: list[Epoch]


def train(
    make: Callable[[], nn.Module],
    train_set: TrackSet,
    val_set: TrackSet,
    recipe: TrainRecipe,
    *,
    crop_frames: int,
    seed: int,
    device: Device,
    checkpoint: Path,
    report: Callable[[Epoch], None],
    augment: Augment | None = None,
) -> Trained:
    """Train the network that `make` returns, with early stopping on the validation set.

    Parameters
    ----------
    seed
        Must differ between folds.
    checkpoint
        File that is read if it exists, and written during training. A damaged one is renamed.
    report
        Called after every epoch, also for the epochs of an interrupted training. Its exceptions end the
        training.

    Raises
    ------
    MgcError
        The device or precision is not available.
    DivergedError
        The loss is infinite or NaN.
    """
    tune_cpu()
    new = partial(Learner, make, train_set, recipe, crop_frames, seed, device, augment)
    resumed = _resumed(checkpoint, new()) if checkpoint.exists() else None
    learner, history, best_weights = resumed or (new(), [], {})
    for epoch in history:
        report(epoch)
    last_saved = time.monotonic()
    while not _finished(history, recipe):
        start, number = time.monotonic(), len(history)
        training = learner.epoch(number)
        probabilities = predict(learner.plain, val_set, crop_frames, learner.accelerator)  # (N, C)
        validation = _score(probabilities, val_set.labels)
        rate = learner.after_epoch(*validation)
        epoch = Epoch(number, *training, *validation, rate, time.monotonic() - start)
        history.append(epoch)
        if _best_epoch(history, recipe) == number:
            weights = learner.plain.state_dict()
            best_weights = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
        report(epoch)
        if time.monotonic() - last_saved > SECONDS_BETWEEN_CHECKPOINTS or _finished(history, recipe):
            state = {name: part.state_dict() for name, part in learner.parts.items()}
            epochs = [asdict(epoch) for epoch in history]
            _save(checkpoint, learner=state, history=epochs, best_weights=best_weights)
            last_saved = time.monotonic()
    learner.plain.load_state_dict(best_weights)
    return Trained(learner.plain, _best_epoch(history, recipe), history)


def _save(checkpoint: Path, **content: Any) -> None:
    """`torch.save`, followed by a checksum of 32 bytes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    files.write(checkpoint, [buffer.getvalue(), sha256(buffer.getvalue()).digest()])


def _resumed(checkpoint: Path, learner: "Learner") -> tuple["Learner", list[Epoch], dict[str, Tensor]] | None:
    """The learner, history and best weights of a checkpoint. One that cannot be used is renamed."""
    try:
        data = files.read(checkpoint)
        if sha256(data[:-32]).digest() != data[-32:]:
            raise ValueError("it is damaged, or of another version of mgc")
        saved = torch.load(io.BytesIO(data[:-32]), "cpu", weights_only=True)
        for name, part in learner.parts.items():
            part.load_state_dict(saved["learner"][name])
        return learner, [Epoch(**epoch) for epoch in saved["history"]], saved["best_weights"]
    except (MemoryError, torch.OutOfMemoryError, PermissionError):
        raise
    except Exception as error:  # torch.load and load_state_dict raise exceptions of many unrelated types
        aside = checkpoint.replace(checkpoint.with_name(f"{checkpoint.name}.damaged"))
        reason = f"{reason_of(error)}; it is kept as {aside.name}, and this training starts anew"
        say(f"warning: the checkpoint {checkpoint} cannot be used: {reason}")
        return None


def _best_epoch(history: list[Epoch], recipe: TrainRecipe) -> int:
    """The first of several. Equal accuracies are frequent with few tracks; the loss then decides."""
    if recipe.stop_on == "loss":
        return min(history, key=lambda epoch: epoch.val_loss).epoch
    return max(history, key=lambda epoch: (epoch.val_accuracy, -epoch.val_loss)).epoch


def _finished(history: list[Epoch], recipe: TrainRecipe) -> bool:
    since_best = len(history) - 1 - _best_epoch(history, recipe) if history else -1
    return len(history) >= recipe.epochs or since_best >= recipe.patience


def predict(
    network: nn.Module, tracks: TrackSet, crop_frames: int, accelerator: Accelerator, batch_size: int = 32
) -> np.ndarray:
    """Probabilities (N, C), averaged over evenly spaced crops of each track.

    The crops cover the track, except for up to a twentieth of a crop between them.
    """
    lengths = [len(tracks.arrays[row]) for row in range(len(tracks.labels))]
    crops = [(row, int(x)) for row, length in enumerate(lengths) for x in _crop_starts(length, crop_frames)]
    network.eval()
    parts = []
    with torch.inference_mode():
        for at in range(0, len(crops), batch_size):
            rows, starts = zip(*crops[at : at + batch_size], strict=True)
            logits = network(tracks.batch(rows, starts, crop_frames, accelerator.device))  # (B, C)
            parts.append(F.softmax(logits.double(), dim=1).cpu().numpy())
    by_crop = np.concatenate(parts)  # (crops, C)
    sums = np.zeros((len(tracks.labels), by_crop.shape[1]))
    np.add.at(sums, [row for row, _ in crops], by_crop)
    return sums / sums.sum(axis=1, keepdims=True)


def _crop_starts(frames: int, crop_frames: int) -> np.ndarray:
    count = max(1, int(np.ceil(frames / crop_frames - MAX_UNCOVERED)))
    return np.linspace(0, max(0, frames - crop_frames), count).round()


def _score(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Cross-entropy in nats, and accuracy."""
    of_label = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(of_label.clip(1e-12)).mean()), float((probabilities.argmax(1) == labels).mean())


class Learner:
    """Network, optimizer and learning-rate schedule; `epoch` is one pass over the training set."""

    def __init__(
        self,
        make: Callable[[], nn.Module],
        tracks: TrackSet,
        recipe: TrainRecipe,
        crop_frames: int,
        seed: int,
        device: Device,
        augment: Augment | None,
    ) -> None:
        self.tracks, self.recipe, self.crop_frames, self.seed = tracks, recipe, crop_frames, seed
        self.augment = augment or Augment(AugmentRecipe(), ())
        self.accelerator = make_accelerator(device)
        self.device = self.accelerator.device
        self.precision = precision_of(recipe.precision, self.device)
        torch.manual_seed(seed)
        network = make()
        if recipe.init == "xavier":
            network.apply(_init_xavier)
        # Twice as fast on CPUs. The type stubs of torch do not know the argument.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        betas = recipe.beta1, recipe.beta2
        optimizer = kind(network.parameters(), recipe.learning_rate, betas, weight_decay=recipe.weight_decay)
        self.network, self.optimizer = self.accelerator.prepare(network, optimizer)
        self.plain: nn.Module = self.accelerator.unwrap_model(self.network)
        # float16 has few exponents: gradients are scaled up while they are computed.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)
        visits = len(self.augment.order(tracks.labels, np.random.default_rng(seed))[0]) * recipe.crops
        self.steps = -(-visits // recipe.batch_size)
        self.schedule = _make_schedule(optimizer, recipe, self.steps)
        # Everything that an epoch changes; a checkpoint keeps its state.
        self.parts: dict[str, Any] = {
            "network": self.plain, "optimizer": self.optimizer, "scaler": self.scaler,
            **({"schedule": self.schedule} if self.schedule else {}),
        }  # fmt: skip

    def epoch(self, number: int) -> tuple[float, float]:
        """Train on crops of every track; returns the mean loss and accuracy."""
        rng = np.random.default_rng((self.crop_frames, self.seed, number))
        torch.manual_seed(int(rng.integers(2**31)))  # for dropout
        self.network.train()
        recipe, tracks = self.recipe, self.tracks
        # Each visit of a track gives `crops` crops, one from each of as many equal parts of the track.
        visits, strong = self.augment.order(tracks.labels, rng)
        order = rng.permutation(np.repeat(np.arange(len(visits)), recipe.crops))
        part = rng.permuted(np.tile(np.arange(recipe.crops), (len(visits), 1)), axis=1)
        taken = np.zeros(len(visits), int)
        loss_sum, correct = torch.zeros(2, device=self.device)
        for chosen in np.array_split(order, self.steps):  # equal batches: batch norm cannot train on one crop
            rows, starts = [], []
            for visit in chosen:
                rows.append(int(visits[visit] + rng.integers(tracks.variants) * len(tracks.labels)))
                free = max(0, len(tracks.arrays[rows[-1]]) - self.crop_frames) + 1
                position = (part[visit, taken[visit]] + rng.random()) / recipe.crops  # in 0..1
                starts.append(int(position * free))
                taken[visit] += 1
            batch = tracks.batch(rows, starts, self.crop_frames, self.device)  # (B, 1, T, D)
            labels = torch.from_numpy(tracks.labels[visits[chosen]]).to(self.device)  # (B,)
            loss, logits = self._step(batch, labels, strong[chosen], rng)
            loss_sum += loss * len(chosen)
            correct += (logits.argmax(dim=1) == labels).sum()
        if not torch.isfinite(loss_sum):
            raise DivergedError(
                f"the training loss is not finite in epoch {number + 1}",
                fix=f"lower train.learning_rate ({recipe.learning_rate:g}), or set train.clip_norm=1",
            )
        return float(loss_sum) / len(order), float(correct) / len(order)

    def _step(
        self, batch: Tensor, labels: Tensor, strong: np.ndarray, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """One optimizer step on crops (B, 1, T, D); returns the loss and the logits (B, C)."""
        targets = labels
        if not self.augment.nothing:
            batch, targets = self.augment.apply(batch, labels, strong, rng)
        mixed = self.precision != torch.float32
        with torch.autocast(self.device.type, self.precision, enabled=mixed):
            logits = self.network(batch)
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=self.recipe.label_smoothing)
        self.optimizer.zero_grad()
        self.accelerator.backward(self.scaler.scale(loss))
        if self.recipe.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.plain.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.schedule is not None and self.recipe.scheduler != "plateau":
            self.schedule.step()
        return loss.detach(), logits.detach()

    def after_epoch(self, val_loss: float, val_accuracy: float) -> float:
        """Update a schedule that follows validation; returns the learning rate."""
        if isinstance(self.schedule, lr_scheduler.ReduceLROnPlateau):
            self.schedule.step(val_loss if self.recipe.stop_on == "loss" else val_accuracy)
        return float(self.optimizer.param_groups[0]["lr"])


def _init_xavier(module: nn.Module) -> None:
    """Glorot and Bengio (2010) for the weights of convolutions and linear layers; biases are 0."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _make_schedule(
    optimizer: torch.optim.Optimizer, recipe: TrainRecipe, steps: int
) -> lr_scheduler.LRScheduler | None:
    """The learning-rate schedule: "plateau" is updated after epochs, "onecycle" and "cosine" after steps."""
    total = recipe.epochs * steps
    warmup = round(recipe.warmup * total)
    match recipe.scheduler:
        case "plateau":
            mode: Literal["min", "max"] = "min" if recipe.stop_on == "loss" else "max"
            return lr_scheduler.ReduceLROnPlateau(optimizer, mode, patience=recipe.scheduler_patience)
        case "onecycle":
            share = (max(warmup, 1) + 1) / (total + 1)
            return lr_scheduler.OneCycleLR(
                optimizer, recipe.learning_rate, total + 1, pct_start=share, cycle_momentum=False
            )
        case "cosine":
            cosine = lr_scheduler.CosineAnnealingLR(optimizer, max(1, total - warmup))
            if not warmup:
                return cosine
            linear = lr_scheduler.LinearLR(optimizer, 1 / (warmup + 1), total_iters=warmup)
            return lr_scheduler.SequentialLR(optimizer, [linear, cosine], [warmup])
    return None
