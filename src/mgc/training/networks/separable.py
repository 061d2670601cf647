"""A stack of depthwise-separable convolutions, and small networks built on it."""

from functools import partial

import torch
from torch import nn

from mgc.training.networks.layers import NormedConv, channels_last

WIDTH = 128  # output channels of the stack
HIDDEN, LAYERS = 32, 2  # of recurrent layers


def separable_stack(dropout: float) -> nn.Sequential:
    """(B, 1, frames, bands), channels last, -> (B, 128, frames / 8, bands / 8).

    As published, only the first convolution has a bias.
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
    """The stack, a global average and two linear layers: 16,456 parameters for 8 classes."""

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
    """Two GRU layers of 32 over log-mel frames, their outputs averaged over time, a linear layer.

    Only the use of a GRU is published; the sizes are those of the other recurrent networks here. Outputs are
    averaged because the last of 1292 states depends little on the beginning.
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
    """The separable stack as a sequence, a recurrent layer in parallel with a linear one, attention pooling.

    `scan` selects the sequence: "time" averages over mel bands, as in the published report; "mel" averages
    over time, as in the published code. The parameters are the same. The outputs of the two layers are mixed
    by a gate, or added without one: 39,050 parameters (GRU), 46,346 (LSTM) or, without the gate, 38,889 for 8
    classes.
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
            gate = self.gate(torch.cat([sequence, states], dim=2)).sigmoid()  # (B, steps, 1)
            mixed = gate * states + (1 - gate) * residual
        weights = self.attention(mixed).softmax(dim=1)  # (B, steps, 1)
        return self.classify((weights * mixed).sum(dim=1))


cnn_gru = partial(ConvRecurrent, cell=nn.GRU, gated=True)
cnn_lstm = partial(ConvRecurrent, cell=nn.LSTM, gated=True)
cnn_gru_attention = partial(ConvRecurrent, cell=nn.GRU, gated=False)
