"""Networks without recurrent layers: plain CNN, CNN on spectrogram images, MLP and U-Net encoder."""

import torch
import torch.nn.functional as F
from torch import nn

from mgc.training.networks.layers import NormedConv, PooledConv, channels_last


class CNN(nn.Module):
    """The baseline: four blocks Conv -> ReLU -> MaxPool -> Dropout, global average, one linear layer.

    3x3 kernels, 16-32-64-64 channels. The first pooling is 4x4, the others 2x2, or 1 along bands once one
    band is left. The average over time and frequency allows any length of at least 32 frames.
    """

    CHANNELS = (16, 32, 64, 64)
    POOLS = (4, 2, 2, 2)

    def __init__(self, classes: int, bands: int, _frames: int, dropout: float) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        inputs = 1
        for channels, pool in zip(self.CHANNELS, self.POOLS, strict=True):
            across = min(pool, bands)
            blocks += [PooledConv(inputs, channels, (pool, across)), nn.Dropout(dropout)]
            inputs, bands = channels, bands // across
        self.blocks = nn.Sequential(*blocks)
        self.classify = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, frames, bands) -> (B, classes)."""
        maps = self.blocks(channels_last(x))  # (B, 64, frames / 32, bands / 32)
        return self.classify(maps.mean(dim=(2, 3)))


class CNN5(nn.Module):
    """Five blocks Conv 3x3 -> BatchNorm -> ReLU -> MaxPool 2x2 on an image of the spectrogram.

    3-8-16-32-64-128 channels, then 128 x 7 x 7 -> 128 -> classes. The convolutions have no bias, since batch
    norm removes it. The dropout after the layer of 128 is not published; it is 0.5 here.
    """

    CHANNELS = (8, 16, 32, 64, 128)
    SIDE = 224  # pixels

    def __init__(self, classes: int, _bands: int, _frames: int, classifier_dropout: float) -> None:
        super().__init__()
        from matplotlib import colormaps

        # The colours in which librosa.display.specshow draws decibels, scaled to [-1, 1].
        colours = torch.tensor(colormaps["magma"].resampled(256)(range(256)))[:, :3] * 2 - 1  # (256, 3)
        self.register_buffer("colours", colours.float(), persistent=False)
        pairs = zip((3, *self.CHANNELS), self.CHANNELS, strict=False)
        self.blocks = nn.Sequential(*(NormedConv(a, b, pool=(2, 2)) for a, b in pairs))
        self.classify = nn.Sequential(
            nn.Linear(128 * 7 * 7, 128), nn.ReLU(), nn.Dropout(classifier_dropout), nn.Linear(128, classes)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, frames, bands) in 0..1 -> (B, classes)."""
        return self.classify(self.blocks(self.picture(x)).flatten(1))

    def picture(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, frames, bands) in 0..1 -> (B, 3, 224, 224) in [-1, 1]: time to the right, pitch upwards."""
        upright = x.transpose(2, 3).flip(2)
        # Without antialias, four of five frames of a clip of 1292 would be dropped instead of averaged.
        scaled = F.interpolate(upright, (self.SIDE, self.SIDE), mode="bilinear", antialias=True)
        shades = (scaled[:, 0] * 255).round().clamp(0, 255).long()  # (B, 224, 224)
        painted = F.embedding(shades, self.get_buffer("colours"))  # (B, 224, 224, 3)
        return painted.permute(0, 3, 1, 2)  # already channels-last


class MLP(nn.Module):
    """Statistics of a track -> 512 -> 128 -> classes, with BatchNorm, ReLU and a final Dropout."""

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
    """The encoder half of a U-Net: four double convolutions, each with MaxPool and Dropout; a linear layer.

    The widths are not published. They are 16-32-64-128 here; the 64-128-256-512 of the first U-Net would cost
    16 times as much. The dropout, tuned in the publication, is 0.25 here. The convolutions have no bias,
    since batch norm removes it.
    """

    CHANNELS = (16, 32, 64, 128)

    def __init__(self, classes: int, bands: int, frames: int, dropout: float) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        inputs = 1
        for channels in self.CHANNELS:
            pool = (2, min(2, bands))
            blocks += [NormedConv(inputs, channels), NormedConv(channels, channels, pool=pool)]
            blocks += [nn.Dropout(dropout)]
            inputs, frames, bands = channels, frames // 2, bands // pool[1]
        self.blocks = nn.Sequential(*blocks)
        self.classify = nn.Linear(inputs * frames * bands, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, frames, bands) -> (B, classes)."""
        return self.classify(self.blocks(channels_last(x)).flatten(1))
