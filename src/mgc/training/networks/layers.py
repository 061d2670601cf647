"""Convolutions with what follows them, in an order that moves less memory and gives the same numbers.

On a CPU these small networks wait for memory, not for arithmetic. So: channels lie innermost, where torch's
pooling and batch normalisation are five to ten times as fast; ReLU comes after the pooling, with which it
commutes, and works in place; a bias is added where there are fewest values, or not at all.
"""

import torch
import torch.nn.functional as F
from torch import nn


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """The same (B, 1, T, D), with strides that say channels-last; `Tensor.to` leaves one channel as it is."""
    B, _, T, D = x.shape
    return x.reshape(B, T, D, 1).permute(0, 3, 1, 2)


class PooledConv(nn.Conv2d):
    """3x3 convolution, ReLU, MaxPool; pooling is (frames, bands)."""

    def __init__(self, before: int, channels: int, pool: tuple[int, int]) -> None:
        super().__init__(before, channels, 3, padding=1)
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, before, T, D) -> (B, channels, T / pool, D / pool)."""
        assert self.bias is not None
        # A constant, like ReLU, commutes with the maximum; its gradient is then a sum of fewer values, too.
        maps = F.max_pool2d(F.conv2d(x, self.weight, padding=1), self.pool)
        return (maps + self.bias.view(-1, 1, 1)).relu_()


class NormedConv(nn.Module):
    """Convolution, BatchNorm, ReLU and, if asked for, MaxPool (frames, bands)."""

    def __init__(
        self,
        before: int,
        channels: int,
        kernel: int = 3,
        *,
        groups: int = 1,
        bias: bool = False,
        pool: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, channels, kernel, padding=kernel // 2, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(channels)
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, before, T, D) -> (B, channels, T / pool, D / pool)."""
        maps = self._normed(x)
        if self.pool is not None:
            maps = F.max_pool2d(maps, self.pool)
        return maps.relu_()

    def _normed(self, x: torch.Tensor) -> torch.Tensor:
        conv, norm = self.conv, self.norm
        if conv.bias is None or not self.training:
            normed: torch.Tensor = norm(conv(x))
            return normed
        # The batch's mean takes the bias away again, so that only the running mean knows of it; adding it,
        # and summing its gradient, is a fifth of the first layer's time. That gradient is zero, and is given
        # as such: processes that train side by side wait for one of every parameter.
        weight = conv.weight + 0 * conv.bias.view(-1, 1, 1, 1)
        normed = norm(F.conv2d(x, weight, padding=conv.padding, groups=conv.groups))
        # Past autograd, which keeps the running mean for the backward pass, but does not look at it there.
        norm.running_mean.data += norm.momentum * conv.bias.detach()  # type: ignore[union-attr,operator]
        return normed
