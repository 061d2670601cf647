"""EfficientAT mn04_as: a small convolutional tagger of sounds, rebuilt in plain torch.

Paper: Schmid, Koutini and Widmer, "Efficient large-scale audio tagging via transformer-to-CNN knowledge
distillation", ICASSP 2023, arXiv 2211.04772. It is MobileNetV3-large (arXiv 1905.02244) at width 0.4 over
log-mels, trained on AudioSet with a transformer as its teacher. Weights: github.com/fschmid56/EfficientAT
(MIT).
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from transformers.audio_utils import mel_filter_bank

from mgc.representations.encoders.efficientat import (
    BLOCKS,
    EMBEDDING,
    FRAME_HOPS,
    HIDDEN,
    HIGHEST_HZ,
    HOP_SAMPLES,
    N_FFT,
    N_MELS,
    N_TAGS,
    RELEASE,
    SAMPLE_RATE_HZ,
    STAGES,
    STEM,
    TAPER_SAMPLES,
    Block,
)
from mgc.util.errors import MgcError

PREEMPHASIS = 0.97
FLOOR = 1e-5  # under the power of a band
NORM_EPS = 1e-3


def _unit(
    inputs: int, outputs: int, kernel: int, stride: int, groups: int, act: type | None
) -> nn.Sequential:
    """Convolution, batch norm and, if it has one, activation."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    unit = nn.Sequential(conv, nn.BatchNorm2d(outputs, NORM_EPS))
    return unit.append(act(inplace=True)) if act else unit


class SqueezeExcite(nn.Module):
    """Each channel times a factor in 0..1 that the means of all channels decide."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(8, (channels // 4 + 4) // 8 * 8)  # a quarter, to the nearest eight
        self.fc1, self.fc2 = nn.Linear(channels, squeezed), nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) to the same, in place."""
        factor = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3))))))  # (B, C)
        return x.mul_(factor[:, :, None, None])


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter every channel alone, weigh the channels, narrow by 1x1; added to the input."""

    def __init__(self, inputs: int, block: Block) -> None:
        super().__init__()
        wide, act = block.expanded, nn.Hardswish if block.hard_swish else nn.ReLU
        parts: list[nn.Module] = [_unit(inputs, wide, 1, 1, 1, act)] if wide != inputs else []
        parts.append(_unit(wide, wide, block.kernel, block.stride, wide, act))
        if block.squeeze:
            parts.append(SqueezeExcite(wide))
        self.block = nn.Sequential(*parts, _unit(wide, block.outputs, 1, 1, 1, None))
        self.adds = block.stride == 1 and inputs == block.outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, F, T) to (B, outputs, F / stride, T / stride)."""
        out: Tensor = self.block(x)
        return out.add_(x) if self.adds else out


@dataclass(frozen=True)
class Heard:
    """What mn04_as makes of B windows."""

    layers: list[Tensor]  # (B, T, D) each: five stages and the embedding, averaged over bands
    tags: Tensor  # (B, 527) independent probabilities, in the order of AudioSet's class indices


class EfficientAT(nn.Module):
    """mn04_as: log-mels (B, 128, T) of `logmel` in, `Heard` out; any T, 1000 in training.

    `EfficientAT()` is its randomly initialised twin, `EfficientAT.from_file(path)` the trained network. Both
    are frozen and in eval mode. Modules are named as in the release.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = [STEM, *(block.outputs for block in BLOCKS)]
        self.features = nn.Sequential(
            _unit(1, STEM, 3, 2, 1, nn.Hardswish),
            *(InvertedResidual(inputs, block) for inputs, block in zip(widths, BLOCKS, strict=False)),
            _unit(widths[-1], EMBEDDING, 1, 1, 1, nn.Hardswish),
        )
        # The release's modules 0 and 1 average and flatten, 4 is the dropout.
        hidden, tags = nn.Linear(EMBEDDING, HIDDEN), nn.Linear(HIDDEN, N_TAGS)
        self.classifier = nn.ModuleDict({"2": hidden, "5": tags})
        self.requires_grad_(False).eval()

    @classmethod
    def from_file(cls, path: Path) -> "EfficientAT":
        """The trained network, batch norms folded into convolutions.

        Raises:
            MgcError: the file is unreadable, or a tensor is missing, unexpected or of another shape.
        """
        fix = f"put {RELEASE} in its place"
        try:
            safe = path.suffix == ".safetensors"
            weights = load_file(path) if safe else torch.load(path, "cpu", weights_only=True)
            # Squeezing could also go over bands or frames; in mn04_as it goes over channels alone.
            given = {n.replace("conc_se_layers.0.", ""): torch.as_tensor(x) for n, x in weights.items()}
        except Exception as error:  # torch.load raises many kinds
            what = f"the weights of EfficientAT cannot be read: {type(error).__name__}: {str(error)[:200]}"
            raise MgcError(what, where=path, fix=fix) from error
        model = cls()
        expected = model.state_dict()
        wrong = [f"missing: {name}" for name in sorted(expected.keys() - given.keys())]
        wrong += [f"unexpected: {name}" for name in sorted(given.keys() - expected.keys())]
        wrong += [
            f"{name} is {tuple(given[name].shape)}, not {tuple(expected[name].shape)}"
            for name in sorted(expected.keys() & given.keys())
            if given[name].shape != expected[name].shape
        ]
        wrong += [f"{name} is not finite" for name, values in given.items() if not values.isfinite().all()]
        if wrong:
            some = "; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")
            raise MgcError(f"not the weights of EfficientAT mn04_as ({some})", where=path, fix=fix)
        model.load_state_dict(given)
        return model.fold()

    def fold(self) -> "EfficientAT":
        """Batch norms at rest become part of the convolutions before them: the same numbers in less time."""
        for unit in [module for module in self.modules() if isinstance(module, nn.Sequential)]:
            match list(unit):
                case [nn.Conv2d() as conv, nn.BatchNorm2d() as norm, *_]:
                    unit[0] = fuse_conv_bn_eval(conv, norm)
                    del unit[1]
        return self

    def forward(self, logmels: Tensor) -> Heard:
        """Log-mels (B, 128, T) to what is heard in them."""
        x = logmels.unsqueeze(1)  # (B, 1, 128, T)
        layers = []
        for number, part in enumerate(self.features):
            x = part(x)
            if number in STAGES:
                # As many frames as the last stage has: strides round up, and so does this.
                step = FRAME_HOPS // STAGES[number]
                layers.append(F.avg_pool1d(x.mean(2), step, ceil_mode=True).transpose(1, 2))
        layers.append(x.mean(2).transpose(1, 2))  # (B, T / 32, 384)
        hidden = F.hardswish(self.classifier["2"](layers[-1].mean(1)))
        return Heard(layers, torch.sigmoid(self.classifier["5"](hidden)))


def logmel(waveforms: Tensor) -> Tensor:
    """Waveforms (B, S) at 32 kHz in [-1, 1] to normalised log-mels (B, 128, T), T = 1 + (S - 1) // 320.

    Reflected at both ends, as in training; S must be above 513.
    """
    taper, bank = _taper_and_bank(waveforms.device)
    sharp = waveforms[:, 1:] - PREEMPHASIS * waveforms[:, :-1]
    spectrum = torch.stft(sharp, N_FFT, HOP_SAMPLES, TAPER_SAMPLES, taper, return_complex=True)
    power = spectrum.real.square() + spectrum.imag.square()  # (B, 513, T)
    return ((bank @ power + FLOOR).log() + 4.5) / 5


@functools.cache
def _taper_and_bank(device: torch.device) -> tuple[Tensor, Tensor]:
    """The symmetric Hann window (800,) and Kaldi's triangles (128, 513), for inference mode and outside."""
    with torch.inference_mode(False):
        bank = mel_filter_bank(
            N_FFT // 2 + 1,
            N_MELS,
            0.0,
            HIGHEST_HZ,
            SAMPLE_RATE_HZ,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )  # (513, 128)
        taper = torch.hann_window(TAPER_SAMPLES, periodic=False, device=device)
        return taper, torch.from_numpy(bank.T.copy()).float().to(device)
