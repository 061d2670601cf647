"""Augmentation of training crops: noise, shift, masks and mixup.

Strengths are in units of the normalised input, whose standard deviation is 1. (A deviation of 0.005 on
decibels, as published, is one 3000th of that and has no effect.) Pitch and stretch change waveforms, and are
representations of their own: see `mgc.representations.derived`.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mgc.config import AugmentRecipe
from mgc.util.errors import MgcError, did_you_mean

# The strong setting as published: noise x 2, shift by up to 15 %, masks of 5 to 10 %.
STRONG_NOISE_FACTOR = 2.0
STRONG_SHIFT = 0.15
STRONG_MASK = (0.05, 0.10)
NOISE = 0.2  # the value that the strong setting doubles if the recipe has no noise


class Augment:
    """The order of the tracks in an epoch, and the changes to their crops. It has no state: everything random
    comes from the generators that are passed in.

    Raises:
        MgcError: the strong class is not a class of the dataset, or the strong setting would have no effect.
    """

    def __init__(self, recipe: AugmentRecipe, classes: tuple[str, ...]) -> None:
        self.recipe = recipe
        self.classes = classes
        self.strong_class = _strong_class(recipe, classes)

    @property
    def nothing(self) -> bool:
        """Whether crops stay unchanged and every track comes once."""
        recipe = self.recipe
        return self.strong_class is None and not (recipe.noise or recipe.shift or recipe.mask or recipe.mixup)

    def order(self, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The rows of `labels` (N,) in the order of one epoch, and which of them are strong.

        Each track comes once. A share `strong_factor - 1` of the tracks of the strong class, drawn without
        replacement, comes a second time, and only these crops are strong. This is our reading of a class that
        is "oversampled by a factor of 1 to 2 with the strong setting".
        """
        repeated = np.zeros(0, np.int64)
        if self.strong_class is not None:
            own = np.flatnonzero(labels == self.strong_class)
            repeated = rng.choice(own, round((self.recipe.strong_factor - 1) * len(own)), replace=False)
        rows = np.concatenate([np.arange(len(labels)), repeated])
        shuffled = rng.permutation(len(rows))
        return rows[shuffled], shuffled >= len(labels)

    def apply(
        self, batch: Tensor, labels: Tensor, strong: np.ndarray, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Augmented crops (B, 1, T, D) and targets (B, C) float32 whose rows sum to 1.

        `labels` is (B,) int64, `strong` (B,) bool; the input batch is not modified. Strong crops get every
        effect. If `choose` is "one", each of the others gets no effect or a single one. Masks are applied
        last, so that masked cells are 0, the mean of the normalised input; then mixup on all crops.
        """
        targets = F.one_hot(labels, len(self.classes)).float()
        if self.nothing:
            return batch, targets
        shift, noise, mask = self._strengths(strong, rng)
        crops = _roll(batch[:, 0], np.rint(shift * rng.uniform(-1, 1, len(shift)) * batch.shape[2]))
        _add_noise(crops, noise, rng)
        smallest = np.where(strong, STRONG_MASK[0], 0.0)
        for axis in (1, 2):
            _mask(crops, axis, rng.uniform(np.minimum(smallest, mask), mask), rng)
        if self.recipe.mixup:
            crops, targets = _mix_up(crops, targets, self.recipe.mixup, rng)
        return crops.unsqueeze(1), targets

    def _strengths(self, strong: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(3, B): the largest shift, the noise and the largest mask of each crop; 0 without the effect."""
        recipe = self.recipe
        plain = np.array([recipe.shift, recipe.noise, recipe.mask])
        noise = STRONG_NOISE_FACTOR * (recipe.noise or NOISE)
        stronger = np.array([max(recipe.shift, STRONG_SHIFT), noise, max(recipe.mask, STRONG_MASK[1])])
        strengths = np.repeat(plain[:, np.newaxis], len(strong), axis=1)
        if recipe.choose == "one":
            chosen = rng.choice([-1, *np.flatnonzero(plain)], len(strong))  # -1: no effect
            strengths *= chosen == np.arange(3)[:, np.newaxis]
        return np.where(strong, stronger[:, np.newaxis], strengths)


def _strong_class(recipe: AugmentRecipe, classes: tuple[str, ...]) -> int | None:
    name, factor = recipe.strong_class, recipe.strong_factor
    if not name and factor == 1:
        return None
    if not name:
        what = f"strong_factor = {factor:g} has no effect without strong_class"
        fix = f"set augment.strong_class to one of {', '.join(classes)}; or omit strong_factor"
        raise MgcError(what, where="augment.strong_factor", fix=fix)
    if name in classes and factor > 1:
        return classes.index(name)
    what = f"strong_class = {name!r} has no effect with strong_factor = 1"
    fix = "set augment.strong_factor above 1, at most 2; or omit strong_class"
    if name not in classes:
        what, fix = f"the dataset has no class {name!r}", did_you_mean(name, classes)
    raise MgcError(what, where="augment.strong_class", fix=fix)


def _roll(crops: Tensor, offsets: np.ndarray) -> Tensor:
    """A copy of (B, T, D) with row b rolled by offsets[b] frames, circularly."""
    frames = crops.shape[1]
    source = (np.arange(frames) - offsets.astype(np.int64)[:, np.newaxis]) % frames  # (B, T)
    rows = torch.arange(len(crops), device=crops.device).unsqueeze(1)
    return crops[rows, torch.from_numpy(source).to(crops.device)]


def _add_noise(crops: Tensor, deviations: np.ndarray, rng: np.random.Generator) -> None:
    """Add Gaussian noise of standard deviation deviations[b] to row b of (B, T, D), in place."""
    generator = torch.Generator(crops.device).manual_seed(int(rng.integers(2**63)))
    noisy = torch.from_numpy(np.flatnonzero(deviations)).to(crops.device)
    noise = torch.empty((len(noisy), *crops.shape[1:]), device=crops.device, dtype=crops.dtype)
    noise.normal_(generator=generator)
    crops.index_add_(0, noisy, noise.mul_(_as_column(deviations, crops)[noisy]))


def _mask(crops: Tensor, axis: int, shares: np.ndarray, rng: np.random.Generator) -> None:
    """Set one span of row b of (B, T, D) to 0, which covers `shares[b]` of `axis` (SpecAugment, Park et al.
    2019), in place."""
    size = crops.shape[axis]
    widths = np.rint(shares * size)
    starts = np.floor(rng.uniform(0, size - widths + 1))
    place = np.arange(size) - starts[:, np.newaxis]
    kept = (place < 0) | (place >= widths[:, np.newaxis])  # (B, size)
    crops.mul_(torch.from_numpy(kept).to(crops.device).unsqueeze(3 - axis))


def _mix_up(crops: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Mix each crop and its target with those of another crop of the batch (mixup, Zhang et al. 2018)."""
    other = torch.from_numpy(rng.permutation(len(crops))).to(crops.device)
    weight = _as_column(1.0 - rng.beta(alpha, alpha, len(crops)), crops)  # of the other crop, (B, 1, 1)
    return crops.lerp(crops[other], weight), targets.lerp(targets[other], weight[:, 0].to(targets))


def _as_column(values: np.ndarray, like: Tensor) -> Tensor:
    """(B,) to (B, 1, 1), with the type and device of `like`."""
    return torch.from_numpy(values.astype(np.float32)).to(like)[:, None, None]
