"""A depthwise-separable convolution stack, and the family of small networks built on it."""

from typing import Any

import torch
from torch import nn

from mgc.training.networks.layers import NormedConv, channels_last

WIDTH = 128  # channels that leave the stack
HIDDEN, LAYERS = 32, 2  # of recurrent layers


def separable_stack(dropout: float) -> nn.Sequential:
    """(B, 1, frames, bands), channels last, -> (B, 128, frames / 8, bands / 8).

    The first convolution has a bias, the depthwise and pointwise ones have none, as published.
    """
    return nn.Sequential(
        NormedConv(1, 32, bias=True, pool=(2, 2)),
        NormedConv(32, 32, groups=32),
        NormedConv(32, 64, kernel=1, pool=(2, 2)),
        nn.Dropout2d(dropout / 2),
        NormedConv(64, 64, groups=64),
        NormedConv(64, WIDTH, kernel=1, pool=(2, 2)),
        nn.Dropout2d(dropout),
    )


class EfficientCNN(nn.Module):
    """The stack, averaged over time and frequency, and two linear layers: 16,456 parameters for 8 classes."""

    def __init__(
        self, classes: int, _bands: int, _frames: int, dropout: float, classifier_dropout: float
    ) -> None:
        super().__init__()
        self.stack = separable_stack(dropout)
        self.classify = nn.Sequential(
            nn.Dropout(classifier_dropout), nn.Linear(WIDTH, 32), nn.ReLU(),
            nn.Dropout(classifier_dropout / 2), nn.Linear(32, classes),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, frames, bands) -> (B, classes)."""
        return self.classify(self.stack(channels_last(x)).mean(dim=(2, 3)))


class GRU(nn.Module):
    """Log-mel frames as a sequence: two GRU layers of 32, their outputs averaged over time, a linear layer.

    Published is only that it is a GRU; the sizes are those of the recurrent layers of its family. The
    average, since the last of 1292 states knows little of the beginning.
    """

    def __init__(self, classes: int, bands: int, _frames: int, classifier_dropout: float) -> None:
        super().__init__()
        self.recurrent = nn.GRU(bands, HIDDEN, LAYERS, batch_first=True)
        self.classify = nn.Sequential(nn.Dropout(classifier_dropout), nn.Linear(HIDDEN, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, frames, bands) -> (B, classes)."""
        states, _ = self.recurrent(x.squeeze(1))  # (B, frames, 32)
        return self.classify(states.mean(dim=1))


class ConvRecurrent(nn.Module):
    """The separable stack, pooled to a sequence; a recurrent layer beside a linear one; attention over it.

    `scan` says what the sequence is: "time" averages over mel bands and walks time, as the published report
    has it, "mel" averages over time and walks the bands, as the published code does. The parameters are the
    same. Recurrent and linear outputs are mixed by a gate, or added where there is none: 39,050 parameters
    (GRU), 46,346 (LSTM) or, without the gate, 38,889 for 8 classes.
    """

    def __init__(
        self,
        classes: int,
        _bands: int,
        _frames: int,
        *,
        cell: type[nn.GRU | nn.LSTM],
        gated: bool,
        dropout: float,
        classifier_dropout: float,
        scan: str,
    ) -> None:
        super().__init__()
        self.pooled = {"time": 3, "mel": 2}[scan]
        self.stack = separable_stack(dropout)
        self.recurrent = cell(WIDTH, HIDDEN, LAYERS, batch_first=True)
        self.residual = nn.Linear(WIDTH, HIDDEN)
        self.gate = nn.Linear(WIDTH + HIDDEN, 1) if gated else None
        self.attention = nn.Sequential(nn.Linear(HIDDEN, 16), nn.Tanh(), nn.Linear(16, 1))
        self.classify = nn.Sequential(nn.Dropout(classifier_dropout), nn.Linear(HIDDEN, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, frames, bands) -> (B, classes)."""
        sequence = self.stack(channels_last(x)).mean(dim=self.pooled).transpose(1, 2)  # (B, steps, 128)
        states, _ = self.recurrent(sequence)  # (B, steps, 32)
        residual = self.residual(sequence)
        mixed = states + residual
        if self.gate is not None:
            share = self.gate(torch.cat([sequence, states], dim=2)).sigmoid()  # (B, steps, 1)
            mixed = share * states + (1 - share) * residual
        weights = self.attention(mixed).softmax(dim=1)  # (B, steps, 1)
        return self.classify((weights * mixed).sum(dim=1))


def cnn_gru(classes: int, bands: int, frames: int, **options: Any) -> nn.Module:
    """GRU, with the gate."""
    return ConvRecurrent(classes, bands, frames, cell=nn.GRU, gated=True, **options)


def cnn_lstm(classes: int, bands: int, frames: int, **options: Any) -> nn.Module:
    """LSTM, with the gate."""
    return ConvRecurrent(classes, bands, frames, cell=nn.LSTM, gated=True, **options)


def cnn_gru_attention(classes: int, bands: int, frames: int, **options: Any) -> nn.Module:
    """GRU, without the gate."""
    return ConvRecurrent(classes, bands, frames, cell=nn.GRU, gated=False, **options)
