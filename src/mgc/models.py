"""Networks trained from scratch on log-mel spectrograms: (B, 1, frames, bands) -> (B, classes) logits."""

from collections.abc import Callable

import torch
from torch import nn

from mgc.config import MgcError, did_you_mean


class CNN(nn.Module):
    """The plain baseline: four blocks Conv -> ReLU -> MaxPool -> Dropout, then one fully connected layer.

    3x3 kernels, 16-32-64-64 channels; the first pooling is 4x4, the others 2x2. What is left is averaged
    over time and frequency, so that a clip may have any length of at least 32 frames.
    """

    CHANNELS = (16, 32, 64, 64)
    POOLS = (4, 2, 2, 2)

    def __init__(self, classes: int, dropout: float) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        before = 1
        for channels, pool in zip(self.CHANNELS, self.POOLS, strict=True):
            # Maximum and ReLU commute; in this order ReLU has pool^2 times fewer values to go through.
            blocks += [nn.Conv2d(before, channels, 3, padding=1), nn.MaxPool2d(pool), nn.ReLU()]
            blocks += [nn.Dropout(dropout)]
            before = channels
        self.blocks = nn.Sequential(*blocks)
        self.classify = nn.Linear(before, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, frames, bands) -> (B, classes)."""
        maps = self.blocks(x)  # (B, 64, frames / 32, bands / 32)
        return self.classify(maps.mean(dim=(2, 3)))


NETWORKS: dict[str, Callable[[int, float], nn.Module]] = {"cnn": CNN}


def make_network(name: str, classes: int, dropout: float) -> nn.Module:
    """The network called `name`, its weights drawn from torch's current seed.

    Raises:
        MgcError: no network of that name.
    """
    if name not in NETWORKS:
        raise MgcError(f"there is no network {name!r}", fix=did_you_mean(name, NETWORKS))
    return NETWORKS[name](classes, dropout)


def count_parameters(network: nn.Module) -> int:
    """Trained parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
