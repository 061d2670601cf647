"""What is done to training crops so that no epoch sees the same ones twice: noise, shift, masks, mixup.

Strengths are in units of the normalised input, whose deviation is 1: a deviation of 0.005 on decibels, as
has been published, is a 3000th of it and changes nothing. Pitch and stretch change waveforms and are
representations of their own, in `mgc.representations.features.variants`.
"""

import numpy as np
import torch
import torch.nn.functional as F

from mgc.config import AugmentRecipe
from mgc.util.errors import MgcError, did_you_mean

# The strong setting as published: noise x 2, shift by up to 15 %, masks of 5 to 10 %.
STRONG_NOISE_TIMES = 2.0
STRONG_SHIFT = 0.15
STRONG_MASK = (0.05, 0.10)
NOISE = 0.2  # what the strong setting doubles where the recipe has no noise


class Augment:
    """Order and crops of training epochs, as `recipe` says. Nothing in it changes from call to call: all
    that is random is drawn from the generators it is given.

    Raises:
        MgcError: a strong class that is no class, or strong settings that would have no effect.
    """

    def __init__(self, recipe: AugmentRecipe, classes: tuple[str, ...]) -> None:
        self.recipe = recipe
        self.classes = classes
        self.strong_class = _strong_class(recipe, classes)

    @property
    def nothing(self) -> bool:
        """Whether crops stay as they are and tracks come once each, whatever variants there are of them."""
        recipe = self.recipe
        return self.strong_class is None and not (recipe.noise or recipe.shift or recipe.mask or recipe.mixup)

    def order(self, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The rows of `labels` (N,) that one epoch visits, shuffled, and which of them are strong.

        Each track comes once. Of the strong class's tracks `strong_factor - 1` times as many, drawn without
        replacement, come once more, and only these are strong. So we read a class that is "oversampled by a
        factor of 1 to 2 with the strong setting": it keeps its plain tracks, and a copy is never the same.
        """
        again = np.zeros(0, np.int64)
        if self.strong_class is not None:
            own = np.flatnonzero(labels == self.strong_class)
            again = rng.choice(own, round((self.recipe.strong_factor - 1) * len(own)), replace=False)
        rows = np.concatenate([np.arange(len(labels)), again])
        shuffled = rng.permutation(len(rows))
        return rows[shuffled], shuffled >= len(labels)

    def apply(
        self, batch: torch.Tensor, labels: torch.Tensor, strong: np.ndarray, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Crops (B, 1, T, D) as training sees them, and targets (B, C) float32 whose rows sum to 1.

        `labels` (B,) int64, `strong` (B,) bool. The batch that is given stays as it is. Strong crops get
        every effect; of the others each gets, if `choose` is "one", no effect or a single one. Masks come
        last, so that masked cells are 0, the mean of the normalised input; mixup follows on all crops.
        """
        targets = F.one_hot(labels, len(self.classes)).float()
        if self.nothing:
            return batch, targets
        shift, noise, mask = self._strengths(strong, rng)
        crops = _rolled(batch[:, 0], np.rint(shift * rng.uniform(-1, 1, len(shift)) * batch.shape[2]))
        _add_noise(crops, noise, rng)
        least = np.where(strong, STRONG_MASK[0], 0.0)
        for axis in (1, 2):
            _blank(crops, axis, rng.uniform(np.minimum(least, mask), mask), rng)
        if self.recipe.mixup:
            crops, targets = _mixed(crops, targets, self.recipe.mixup, rng)
        return crops.unsqueeze(1), targets

    def _strengths(self, strong: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(3, B): the largest shift, the noise and the largest mask of each crop; 0 where it gets none."""
        recipe = self.recipe
        plain = np.array([recipe.shift, recipe.noise, recipe.mask])
        stronger = [
            max(recipe.shift, STRONG_SHIFT),
            STRONG_NOISE_TIMES * (recipe.noise or NOISE),
            max(recipe.mask, STRONG_MASK[1]),
        ]
        strengths = np.repeat(plain[:, np.newaxis], len(strong), axis=1)
        if recipe.choose == "one":
            switched_on = np.flatnonzero(plain)
            chosen = rng.choice([-1, *switched_on], len(strong))  # -1: as it is
            strengths *= chosen == np.arange(3)[:, np.newaxis]
        return np.where(strong, np.array(stronger)[:, np.newaxis], strengths)


def _strong_class(recipe: AugmentRecipe, classes: tuple[str, ...]) -> int | None:
    name, factor = recipe.strong_class, recipe.strong_factor
    if not name and factor == 1:
        return None
    if not name:
        what = f"strong_factor = {factor:g}, but no class is named that shall be seen more often"
        fix = f"augment.strong_class is one of {', '.join(classes)}; or leave out strong_factor"
        raise MgcError(what, where="augment.strong_factor", fix=fix)
    if name not in classes:
        what = f"there is no class {name!r} in this data set"
        raise MgcError(what, where="augment.strong_class", fix=did_you_mean(name, classes))
    if factor == 1:
        what = f"strong_class = {name!r} has no effect: strong_factor = 1 shows it no more often"
        fix = "set augment.strong_factor above 1, at most 2; or leave out strong_class"
        raise MgcError(what, where="augment.strong_class", fix=fix)
    return classes.index(name)


def _rolled(crops: torch.Tensor, offsets: np.ndarray) -> torch.Tensor:
    """A copy of (B, T, D), row b rolled by offsets[b] frames; what leaves at one end enters at the other."""
    frames = crops.shape[1]
    source = (np.arange(frames) - offsets.astype(np.int64)[:, np.newaxis]) % frames  # (B, T)
    rows = torch.arange(len(crops), device=crops.device).unsqueeze(1)
    return crops[rows, torch.from_numpy(source).to(crops.device)]


def _add_noise(crops: torch.Tensor, deviations: np.ndarray, rng: np.random.Generator) -> None:
    """Gaussian noise of deviations[b] on row b of (B, T, D), in place."""
    generator = torch.Generator(crops.device).manual_seed(int(rng.integers(2**63)))
    noisy = torch.from_numpy(np.flatnonzero(deviations)).to(crops.device)
    noise = torch.empty((len(noisy), *crops.shape[1:]), device=crops.device, dtype=crops.dtype)
    noise.normal_(generator=generator)
    crops.index_add_(0, noisy, noise.mul_(_as_column(deviations, crops)[noisy]))


def _blank(crops: torch.Tensor, axis: int, shares: np.ndarray, rng: np.random.Generator) -> None:
    """One stretch of row b of (B, T, D) along `axis`, `shares[b]` of it long, becomes 0 (as in SpecAugment,
    Park et al. 2019)."""
    size = crops.shape[axis]
    widths = np.rint(shares * size)
    starts = np.floor(rng.uniform(0, size - widths + 1))
    place = np.arange(size) - starts[:, np.newaxis]
    kept = (place < 0) | (place >= widths[:, np.newaxis])  # (B, size)
    crops.mul_(torch.from_numpy(kept).to(crops.device).unsqueeze(3 - axis))


def _mixed(
    crops: torch.Tensor, targets: torch.Tensor, alpha: float, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each crop and its target mixed with another one's of the batch (Zhang et al. 2018)."""
    other = torch.from_numpy(rng.permutation(len(crops))).to(crops.device)
    weight = _as_column(1.0 - rng.beta(alpha, alpha, len(crops)), crops)  # of the other
    return crops.lerp(crops[other], weight), targets.lerp(targets[other], weight[:, 0].to(targets))


def _as_column(values: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """(B,) to (B, 1, 1), of the kind and on the device of `like`."""
    return torch.from_numpy(values.astype(np.float32)).to(like)[:, None, None]
