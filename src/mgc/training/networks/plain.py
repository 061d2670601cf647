"""Networks without a recurrent layer: the plain baseline, the image network, the perceptron, the encoder."""

import torch
import torch.nn.functional as F
from torch import nn

from mgc.training.networks.layers import NormedConv, PooledConv, channels_last


class CNN(nn.Module):
    """The plain baseline: four blocks Conv -> ReLU -> MaxPool -> Dropout, then one fully connected layer.

    3x3 kernels, 16-32-64-64 channels; the first pooling is 4x4, the others 2x2, and 1 along bands where none
    are left to pool. What remains is averaged over time and frequency, so that a clip may have any length
    of at least 32 frames.
    """

    CHANNELS = (16, 32, 64, 64)
    POOLS = (4, 2, 2, 2)

    def __init__(self, classes: int, bands: int, _frames: int, dropout: float) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        before = 1
        for channels, pool in zip(self.CHANNELS, self.POOLS, strict=True):
            across = min(pool, bands)
            blocks += [PooledConv(before, channels, (pool, across)), nn.Dropout(dropout)]
            before, bands = channels, bands // across
        self.blocks = nn.Sequential(*blocks)
        self.classify = nn.Linear(before, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, frames, bands) -> (B, classes)."""
        maps = self.blocks(channels_last(x))  # (B, 64, frames / 32, bands / 32)
        return self.classify(maps.mean(dim=(2, 3)))


class CNN5(nn.Module):
    """Five blocks Conv 3x3 -> BatchNorm -> ReLU -> MaxPool 2x2 on a picture of the spectrogram.

    3-8-16-32-64-128 channels, then 128 x 7 x 7 -> 128 -> classes. The convolutions have no bias, since
    BatchNorm would take it away again. The dropout of the layer of 128 is not published: 0.5 here.
    """

    CHANNELS = (8, 16, 32, 64, 128)
    SIDE = 224  # pixels

    def __init__(self, classes: int, _bands: int, _frames: int, classifier_dropout: float) -> None:
        super().__init__()
        from matplotlib import colormaps

        # What librosa.display.specshow paints decibels with; scaled to [-1, 1].
        colours = torch.tensor(colormaps["magma"].resampled(256)(range(256)))[:, :3] * 2 - 1  # (256, 3)
        self.register_buffer("colours", colours.float(), persistent=False)
        both = zip((3, *self.CHANNELS), self.CHANNELS, strict=False)
        self.blocks = nn.Sequential(*(NormedConv(before, after, pool=(2, 2)) for before, after in both))
        self.classify = nn.Sequential(
            nn.Linear(128 * 7 * 7, 128), nn.ReLU(), nn.Dropout(classifier_dropout), nn.Linear(128, classes)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, frames, bands) in 0..1 -> (B, classes)."""
        return self.classify(self.blocks(self.picture(x)).flatten(1))

    def picture(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, frames, bands) in 0..1 -> (B, 3, 224, 224) in [-1, 1]: time rightwards, pitch upwards."""
        upright = x.transpose(2, 3).flip(2)
        # Without antialias a clip of 1292 frames would lose four of five frames, rather than average them.
        scaled = F.interpolate(upright, (self.SIDE, self.SIDE), mode="bilinear", antialias=True)
        shades = (scaled[:, 0] * 255).round().clamp(0, 255).long()  # (B, 224, 224)
        painted = F.embedding(shades, self.get_buffer("colours"))  # (B, 224, 224, 3)
        return painted.permute(0, 3, 1, 2)  # channels-last as it is


class MLP(nn.Module):
    """Statistics of a track -> 512 -> 128 -> classes: BatchNorm and ReLU, and Dropout before the last."""

    def __init__(self, classes: int, bands: int, _frames: int, classifier_dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(bands, 512), nn.BatchNorm1d(512), nn.ReLU(),
            nn.Linear(512, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(classifier_dropout),
            nn.Linear(128, classes),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, 1, features) -> (B, classes)."""
        return self.layers(x)


class UNetEncoder(nn.Module):
    """The encoder half of a U-Net: four double convolutions, MaxPool and Dropout after each; a linear layer.

    The published widths are not known. 16-32-64-128 here: with the 64-128-256-512 of the first U-Net an
    epoch costs 16 times as much. Dropout, there searched for, is 0.25 here. The convolutions have no bias,
    since BatchNorm would take it away again.
    """

    CHANNELS = (16, 32, 64, 128)

    def __init__(self, classes: int, bands: int, frames: int, dropout: float) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        before = 1
        for channels in self.CHANNELS:
            pool = (2, min(2, bands))
            blocks += [NormedConv(before, channels), NormedConv(channels, channels, pool=pool)]
            blocks += [nn.Dropout(dropout)]
            before, frames, bands = channels, frames // 2, bands // pool[1]
        self.blocks = nn.Sequential(*blocks)
        self.classify = nn.Linear(before * frames * bands, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, frames, bands) -> (B, classes)."""
        return self.classify(self.blocks(channels_last(x)).flatten(1))
