"""EfficientAT mn04_as: a small convolutional tagger of sounds, rebuilt in PyTorch.

Paper: Schmid, Koutini and Widmer, "Efficient large-scale audio tagging via transformer-to-CNN knowledge
distillation", ICASSP 2023, arXiv 2211.04772. It is MobileNetV3-large (arXiv 1905.02244) at width 0.4 over
log-mels, trained on AudioSet with a transformer as its teacher. Weights: github.com/fschmid56/EfficientAT
(MIT).
"""

import functools
import itertools
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from transformers.audio_utils import mel_filter_bank

from mgc.representations.encoders.efficientat import SAMPLE_RATE_HZ

# models/preprocess.py of the repository
N_FFT = 1024
WINDOW_SAMPLES = 800  # of the Hann window
HOP_SAMPLES = 320
N_MELS = 128
HIGHEST_HZ = 15_000.0  # half the rate, less half of the range by which training varied it
PREEMPHASIS = 0.97
POWER_FLOOR = 1e-5


class Block(NamedTuple):
    """An inverted residual block of MobileNetV3."""

    kernel: int
    expanded: int  # channels inside the block
    outputs: int
    squeeze: bool  # has squeeze-and-excitation
    hard_swish: bool  # instead of ReLU
    stride: int


# MobileNetV3-large (arXiv 1905.02244, table 1) with 0.4 times the channels, to the nearest eight
STEM = 8
BLOCKS = [*itertools.starmap(Block, (
    (3, 8, 8, 0, 0, 1), (3, 24, 16, 0, 0, 2), (3, 32, 16, 0, 0, 1),
    (5, 32, 16, 1, 0, 2), (5, 48, 16, 1, 0, 1), (5, 48, 16, 1, 0, 1),
    (3, 96, 32, 0, 1, 2), (3, 80, 32, 0, 1, 1), (3, 72, 32, 0, 1, 1), (3, 72, 32, 0, 1, 1),
    (3, 192, 48, 1, 1, 1), (3, 272, 48, 1, 1, 1),
    (5, 272, 64, 1, 1, 2), (5, 384, 64, 1, 1, 1), (5, 384, 64, 1, 1, 1),
))]  # fmt: skip
EMBEDDING, HIDDEN, N_TAGS = 384, 512, 527
NORM_EPSILON = 1e-3

# Blocks (counted from 1) after which the width or the stride changes, and the hops between two frames there.
STAGES = {3: 4, 6: 8, 10: 16, 12: 16, 15: 32}
FRAME_HOPS = 32  # between two frames of the embedding: 320 ms


def _conv_norm(
    inputs: int, outputs: int, activation: type | None, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution, batch norm and, unless it is None, an activation."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    unit = nn.Sequential(conv, nn.BatchNorm2d(outputs, NORM_EPSILON))
    return unit.append(activation(inplace=True)) if activation else unit


class SqueezeExcite(nn.Module):
    """Scale each channel by a factor in 0..1, computed from the means of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(8, (channels // 4 + 4) // 8 * 8)  # a quarter, rounded to a multiple of eight
        self.fc1, self.fc2 = nn.Linear(channels, squeezed), nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) to (B, C, F, T)."""
        factor = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3))))))  # (B, C)
        return x * factor[:, :, None, None]


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, squeeze-and-excitation, 1x1 projection, skip connection."""

    def __init__(self, inputs: int, block: Block) -> None:
        super().__init__()
        wide, activation = block.expanded, nn.Hardswish if block.hard_swish else nn.ReLU
        parts: list[nn.Module] = [_conv_norm(inputs, wide, activation)] if wide != inputs else []
        parts.append(_conv_norm(wide, wide, activation, block.kernel, block.stride, wide))
        if block.squeeze:
            parts.append(SqueezeExcite(wide))
        self.block = nn.Sequential(*parts, _conv_norm(wide, block.outputs, None))
        self.has_skip = block.stride == 1 and inputs == block.outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, F, T) to (B, outputs, F / stride, T / stride)."""
        out: Tensor = self.block(x)
        return out + x if self.has_skip else out


@dataclass(frozen=True)
class EfficientATOutput:
    """The features that mn04_as computes for B windows."""

    layers: list[Tensor]  # (B, T, D) each: five stages and the embedding, averaged over bands
    tags: Tensor  # (B, 527) independent probabilities, in the order of AudioSet's class indices


class EfficientAT(nn.Module):
    """mn04_as over log-mels (B, 128, T) from `logmel`, randomly initialised; frozen and in eval mode.

    T was 1000 in training, any T is accepted. Modules are named as in the release.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = [STEM, *(block.outputs for block in BLOCKS)]
        self.features = nn.Sequential(
            _conv_norm(1, STEM, nn.Hardswish, kernel=3, stride=2),
            *(InvertedResidual(inputs, block) for inputs, block in zip(widths, BLOCKS, strict=False)),
            _conv_norm(widths[-1], EMBEDDING, nn.Hardswish),
        )
        # The release's modules 0 and 1 average and flatten, 4 is the dropout.
        hidden, tags = nn.Linear(EMBEDDING, HIDDEN), nn.Linear(HIDDEN, N_TAGS)
        self.classifier = nn.ModuleDict({"2": hidden, "5": tags})
        self.requires_grad_(False).eval()

    def fold_batch_norms(self) -> "EfficientAT":
        """Fold batch norms into the convolutions before them: faster, for inference only."""
        for unit in [module for module in self.modules() if isinstance(module, nn.Sequential)]:
            match list(unit):
                case [nn.Conv2d() as conv, nn.BatchNorm2d() as norm, *_]:
                    unit[0] = fuse_conv_bn_eval(conv, norm)
                    del unit[1]
        return self

    def forward(self, logmels: Tensor) -> EfficientATOutput:
        """Log-mels (B, 128, T) to features."""
        x = logmels.unsqueeze(1)  # (B, 1, 128, T)
        layers = []
        for number, part in enumerate(self.features):
            x = part(x)
            if number in STAGES:
                # Average down to the frames of the last stage: strides round up, and so does this.
                step = FRAME_HOPS // STAGES[number]
                layers.append(F.avg_pool1d(x.mean(2), step, ceil_mode=True).transpose(1, 2))
        layers.append(x.mean(2).transpose(1, 2))  # (B, T / 32, 384)
        hidden = F.hardswish(self.classifier["2"](layers[-1].mean(1)))
        return EfficientATOutput(layers, torch.sigmoid(self.classifier["5"](hidden)))


def logmel(waveforms: Tensor) -> Tensor:
    """Waveforms (B, S) at 32 kHz in [-1, 1] to normalised log-mels (B, 128, T), T = 1 + (S - 1) // 320.

    The ends are padded by reflection, as in training; S must be above 513.
    """
    window, bank = _window_and_bank(waveforms.device)
    emphasised = waveforms[:, 1:] - PREEMPHASIS * waveforms[:, :-1]
    spectrum = torch.stft(emphasised, N_FFT, HOP_SAMPLES, WINDOW_SAMPLES, window, return_complex=True)
    power = spectrum.real.square() + spectrum.imag.square()  # (B, 513, T)
    return ((bank @ power + POWER_FLOOR).log() + 4.5) / 5


@functools.cache
def _window_and_bank(device: torch.device) -> tuple[Tensor, Tensor]:
    """The symmetric Hann window (800,) and Kaldi's triangular filters (128, 513).

    They are cached, so they are created outside inference mode: inference tensors cannot be used in training.
    """
    with torch.inference_mode(False):
        bank = mel_filter_bank(
            N_FFT // 2 + 1, N_MELS, 0.0, HIGHEST_HZ, SAMPLE_RATE_HZ,
            mel_scale="kaldi", triangularize_in_mel_space=True,
        )  # fmt: skip
        window = torch.hann_window(WINDOW_SAMPLES, periodic=False, device=device)
        return window, torch.from_numpy(bank.T.copy()).float().to(device)
