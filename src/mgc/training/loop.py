"""The one training loop, on accelerate: crops in, best weights out.

An epoch takes random crops of every training track; validation and test cover whole tracks with crops side
by side and average the probabilities. Everything random is drawn from (seed, fold, epoch), so a run that was
killed goes on from its checkpoint as if nothing had happened.
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
from torch.optim import lr_scheduler

from mgc.config import AugmentRecipe, Device, TrainRecipe
from mgc.training.augment import Augment
from mgc.util.devices import make_accelerator, precision_of, tune_cpu
from mgc.util.errors import MgcError

# Of training, augmentation, folds and prediction: raised by hand when the same recipe learns other weights.
REVISION = 1
SECONDS_BETWEEN_CHECKPOINTS = 15.0
UNCOVERED = 0.05  # share of a crop that the tests may leave out, rather than judge one crop more
SMALLEST_SCALE = 1e-3  # a track without any variation becomes zeros; 1e-3 dB is nothing audible


@dataclass(frozen=True)
class Side:
    """Tracks to train on or to predict: arrays (T, D) of any float type, memory-mapped, and class numbers.

    With variants (other pitch, other speed) there are several arrays a track: array v * N + i is variant v
    of track i, and variant 0 is the track itself. A value x enters the network as (x - offset) / scale.
    """

    arrays: Sequence[np.ndarray]
    labels: np.ndarray  # (N,) int64
    offsets: torch.Tensor  # (arrays, 1 or D) float32
    scales: torch.Tensor

    @staticmethod
    def of(
        arrays: Sequence[np.ndarray],
        labels: Sequence[int],
        normalise: str = "track",
        learned: "Side | None" = None,
    ) -> "Side":
        """Normalised as `TrainRecipe.normalise` says; "train" takes the numbers of `learned`, or its own."""
        if learned is not None and normalise == "train":
            affine = [(learned.offsets[0].numpy(), learned.scales[0].numpy())] * len(arrays)
        elif normalise == "train":
            affine = [_bands(arrays)] * len(arrays)
        else:
            affine = [_AFFINE[normalise](array.astype(np.float32)) for array in arrays]
        offsets, scales = (np.stack([np.atleast_1d(pair[k]) for pair in affine]) for k in (0, 1))
        scales = np.maximum(scales, SMALLEST_SCALE)
        return Side(arrays, np.array(labels, np.int64), torch.from_numpy(offsets), torch.from_numpy(scales))

    @property
    def variants(self) -> int:
        """Arrays a track."""
        return len(self.arrays) // len(self.labels)

    def batch(self, rows: Sequence[int], starts: Sequence[int], frames: int, device: Any) -> torch.Tensor:
        """(B, 1, frames, D) float32, normalised on the device; a shorter track is padded with zeros."""
        crops = [self.arrays[row][start : start + frames] for row, start in zip(rows, starts, strict=True)]
        raw = np.zeros((len(crops), frames, crops[0].shape[1]), crops[0].dtype)
        for place, crop in zip(raw, crops, strict=True):
            place[: len(crop)] = crop
        index = torch.as_tensor(rows)
        offset, scale = (of[index].unsqueeze(1).to(device) for of in (self.offsets, self.scales))  # (B, 1, D)
        # Sent as it is kept: half the bytes, and converting float16 is torch's to do, on many cores or a GPU.
        batch = torch.from_numpy(raw).to(device).float().sub_(offset).div_(scale)
        for number, crop in enumerate(crops):
            batch[number, len(crop) :] = 0.0
        return batch.unsqueeze(1)


def _bands(arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (D,) of each band over all frames of all arrays."""
    count = sum(len(array) for array in arrays)
    mean = np.sum([array.sum(axis=0, dtype=np.float64) for array in arrays], axis=0) / count
    spread = np.sum([((array - mean) ** 2).sum(axis=0) for array in arrays], axis=0) / count
    return mean.astype(np.float32), np.sqrt(spread).astype(np.float32)


_AFFINE: dict[str, Callable[[np.ndarray], tuple[Any, Any]]] = {
    "track": lambda array: (array.mean(), array.std()),
    "range": lambda array: (array.min(), np.ptp(array)),
    "l2": lambda array: (np.float32(0), np.linalg.norm(array)),
    "none": lambda array: (np.float32(0), np.float32(1)),
}


@dataclass(frozen=True)
class Epoch:
    """One line of the curves. Losses are cross-entropies in nats, the training one as it was optimised."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float  # at the end of the epoch
    seconds: float


class DivergedError(MgcError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Trained:
    """The network with the weights of its best epoch on validation, and its curves."""

    network: nn.Module
    best_epoch: int
    history: list[Epoch]


def train(
    make: Callable[[], nn.Module],
    sides: tuple[Side, Side],
    recipe: TrainRecipe,
    *,
    crop_frames: int,
    seed: int,
    device: Device,
    checkpoint: Path,
    report: Callable[[Epoch], None],
    augment: Augment | None = None,
) -> Trained:
    """Train the network that `make` returns on sides[0], stop early on sides[1].

    `checkpoint` is read if it is there and written while training goes on. `seed` must differ from fold
    to fold. `report` is called after every epoch, also for those of an interrupted run; what it raises ends
    the training.

    Raises:
        MgcError: a device or precision that is not there.
        DivergedError: a loss that is no longer finite.
    """
    tune_cpu()
    learner = Learner(make, sides[0], recipe, crop_frames, seed, device, augment)
    state = _State.resume(checkpoint, learner)
    for epoch in state.history:
        report(epoch)
    saved = time.monotonic()
    while not state.finished(recipe):
        start = time.monotonic()
        number = len(state.history)
        learned = learner.epoch(number)
        val = _score(predict(learner.plain, sides[1], crop_frames, learner.accelerator), sides[1].labels)
        rate = learner.after_epoch(*val)
        line = Epoch(number, *learned, *val, rate, time.monotonic() - start)
        state.add(line, learner.plain, recipe.stop_on)
        report(line)
        if time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS or state.finished(recipe):
            state.save(checkpoint, learner)
            saved = time.monotonic()
    learner.plain.load_state_dict(state.best_weights)
    return Trained(learner.plain, state.best_epoch, state.history)


def predict(
    network: nn.Module, tracks: Side, crop_frames: int, accelerator: Accelerator, batch_size: int = 32
) -> np.ndarray:
    """Probabilities (N, C), averaged over crops spread evenly over each track.

    There are as many as cover it; up to a twentieth of a crop may stay unseen between them.
    """
    crops = [
        (row, int(start))
        for row in range(len(tracks.labels))
        for start in _starts(len(tracks.arrays[row]), crop_frames)
    ]
    network.eval()
    parts = []
    with torch.inference_mode():
        for at in range(0, len(crops), batch_size):
            rows, starts = zip(*crops[at : at + batch_size], strict=True)
            logits = network(tracks.batch(rows, starts, crop_frames, accelerator.device))
            parts.append(F.softmax(logits.double(), dim=1).cpu().numpy())
    each = np.concatenate(parts)  # (crops, C)
    sums = np.zeros((len(tracks.labels), each.shape[1]))
    np.add.at(sums, [row for row, _ in crops], each)
    return sums / sums.sum(axis=1, keepdims=True)


def _starts(frames: int, crop_frames: int) -> np.ndarray:
    count = max(1, int(np.ceil(frames / crop_frames - UNCOVERED)))
    return np.linspace(0, max(0, frames - crop_frames), count).round()


class Learner:
    """Network, optimiser and schedule, and one pass over the training side: what an epoch of `train` is.

    Raises:
        MgcError: a device or precision that is not there.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        tracks: Side,
        recipe: TrainRecipe,
        crop_frames: int,
        seed: int,
        device: Device,
        augment: Augment | None,
    ) -> None:
        self.tracks, self.recipe, self.crop_frames, self.seed = tracks, recipe, crop_frames, seed
        self.augment = augment or Augment(AugmentRecipe(), ())
        self.accelerator = make_accelerator(device)
        self.precision = precision_of(recipe.precision, self.accelerator.device)
        torch.manual_seed(seed)
        network = make()
        if recipe.init == "xavier":
            network.apply(_xavier)
        # Twice as fast here; torch's stubs do not know the argument.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        optimizer = kind(
            network.parameters(),
            lr=recipe.learning_rate,
            betas=(recipe.beta1, recipe.beta2),
            weight_decay=recipe.weight_decay,
        )
        self.network, self.optimizer = self.accelerator.prepare(network, optimizer)
        self.plain: nn.Module = self.accelerator.unwrap_model(self.network)
        # float16 has few exponents: gradients are scaled up while they are computed.
        self.scaler = torch.amp.GradScaler(
            self.accelerator.device.type, enabled=self.precision == torch.float16
        )
        visits = len(self.augment.order(tracks.labels, np.random.default_rng(seed))[0]) * recipe.crops
        self.steps = -(-visits // recipe.batch_size)
        self.schedule = _schedule(optimizer, recipe, self.steps)

    def epoch(self, number: int) -> tuple[float, float]:
        """One pass over the training side; mean loss and accuracy."""
        rng = np.random.default_rng((self.crop_frames, self.seed, number))
        torch.manual_seed(int(rng.integers(2**31)))  # dropout of this epoch
        self.network.train()
        visits, strong = self.augment.order(self.tracks.labels, rng)
        order = rng.permutation(np.repeat(np.arange(len(visits)), self.recipe.crops))
        part = rng.permuted(np.tile(np.arange(self.recipe.crops), (len(visits), 1)), axis=1)
        taken = np.zeros(len(visits), int)
        loss_sum = torch.zeros((), device=self.accelerator.device)
        right = torch.zeros((), device=self.accelerator.device)
        for chosen in np.array_split(order, self.steps):  # equal ones: none is left with a single crop
            rows, starts = [], []
            for visit in chosen:
                row = int(visits[visit] + rng.integers(self.tracks.variants) * len(self.tracks.labels))
                free = max(0, len(self.tracks.arrays[row]) - self.crop_frames) + 1
                spot = (part[visit, taken[visit]] + rng.random()) / self.recipe.crops
                rows.append(row)
                starts.append(int(spot * free))
                taken[visit] += 1
            batch = self.tracks.batch(rows, starts, self.crop_frames, self.accelerator.device)
            labels = torch.from_numpy(self.tracks.labels[visits[chosen]]).to(batch.device)
            loss, logits = self._step(batch, labels, strong[chosen], rng)
            loss_sum += loss * len(chosen)
            right += (logits.argmax(dim=1) == labels).sum()
        if not torch.isfinite(loss_sum):
            raise DivergedError(
                f"the training loss is not finite in epoch {number + 1}",
                fix=f"lower train.learning_rate ({self.recipe.learning_rate:g}), or set train.clip_norm=1",
            )
        return float(loss_sum) / len(order), float(right) / len(order)

    def _step(
        self, batch: torch.Tensor, labels: torch.Tensor, strong: np.ndarray, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        targets = labels
        if not self.augment.nothing:
            batch, targets = self.augment.apply(batch, labels, strong, rng)
        mixed = self.precision != torch.float32
        with torch.autocast(batch.device.type, self.precision, enabled=mixed):
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
        """Tell the schedule how validation went; the learning rate from here on."""
        if isinstance(self.schedule, lr_scheduler.ReduceLROnPlateau):
            self.schedule.step(val_loss if self.recipe.stop_on == "loss" else val_accuracy)
        return float(self.optimizer.param_groups[0]["lr"])

    def state(self) -> dict[str, Any]:
        """All that an epoch changes."""
        return {
            "network": self.plain.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule else {},
            "scaler": self.scaler.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.plain.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])


def _xavier(module: nn.Module) -> None:
    """Glorot and Bengio (2010) for the weights of convolutions and linear layers; biases are 0."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _schedule(
    optimizer: torch.optim.Optimizer, recipe: TrainRecipe, steps: int
) -> lr_scheduler.LRScheduler | None:
    """Of the learning rate: "plateau" moves after epochs, "onecycle" and "cosine" after each step."""
    total = recipe.epochs * steps
    rising = round(recipe.warmup * total)
    if recipe.scheduler == "plateau":
        mode = "min" if recipe.stop_on == "loss" else "max"
        return lr_scheduler.ReduceLROnPlateau(optimizer, mode, patience=recipe.scheduler_patience)  # type: ignore[arg-type]
    if recipe.scheduler == "onecycle":
        # The momentum stays as the recipe has it.
        share = (max(rising, 1) + 1) / (total + 1)
        return lr_scheduler.OneCycleLR(
            optimizer, recipe.learning_rate, total + 1, pct_start=share, cycle_momentum=False
        )
    if recipe.scheduler == "cosine":
        falling = lr_scheduler.CosineAnnealingLR(optimizer, max(1, total - rising))
        if not rising:
            return falling
        warm = lr_scheduler.LinearLR(optimizer, 1 / (rising + 1), total_iters=rising)
        return lr_scheduler.SequentialLR(optimizer, [warm, falling], [rising])
    return None


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
    """What a killed run needs to go on, beside what the learner holds."""

    history: list[Epoch]
    best_epoch: int
    best_weights: dict[str, torch.Tensor]

    @staticmethod
    def resume(checkpoint: Path, learner: Learner) -> "_State":
        if not checkpoint.exists():
            return _State([], -1, {})
        kept = torch.load(checkpoint, weights_only=True, map_location="cpu")
        learner.load(kept["learner"])
        return _State([Epoch(**line) for line in kept["history"]], kept["best_epoch"], kept["best_weights"])

    def add(self, line: Epoch, network: nn.Module, stop_on: str) -> None:
        self.history.append(line)
        if self.best_epoch < 0 or _goodness(line, stop_on) > _goodness(
            self.history[self.best_epoch], stop_on
        ):
            self.best_epoch = line.epoch
            self.best_weights = {
                key: value.detach().cpu().clone() for key, value in network.state_dict().items()
            }

    def finished(self, recipe: TrainRecipe) -> bool:
        epochs = len(self.history)
        return epochs >= recipe.epochs or (epochs > 0 and epochs - 1 - self.best_epoch >= recipe.patience)

    def save(self, checkpoint: Path, learner: Learner) -> None:
        kept = {
            "learner": learner.state(),
            "history": [asdict(line) for line in self.history],
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
        }
        save_whole(kept, checkpoint)


def _goodness(line: Epoch, stop_on: str) -> tuple[float, ...]:
    """Accuracies of few tracks are often equal: the loss then decides."""
    return (-line.val_loss,) if stop_on == "loss" else (line.val_accuracy, -line.val_loss)
