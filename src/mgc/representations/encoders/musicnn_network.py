"""MSD_musicnn: a small convolutional tagger of music, rebuilt in plain torch.

Paper: Pons and Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging",
arXiv 1909.06654. Weights: trained on the Million Song Dataset, in the wheel `musicnn==0.1.0` on PyPI
(ISC licence, Copyright (c) Music Technology Group, Universitat Pompeu Fabra 2019, Jordi Pons).

Conventions. 16 kHz mono -> 96 log-mel bands, 62.5 frames a second -> windows of 187 frames (3 s).
Batch norms are frozen, so each is kept as what it computes: `scale * x + shift`. Layers are numbered as in
the checkpoint; `mgc.representations.encoders.musicnn_weights` reads that.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mgc.representations.encoders.musicnn import (
    FRONT_END,
    FRONT_FILTERS,
    HOP_SAMPLES,
    MIDDLE_FILTERS,
    MIDDLE_FRAMES,
    N_FFT,
    N_MELS,
    PENULTIMATE,
    POOLED,
    SAMPLE_RATE_HZ,
)
from mgc.util.compiled import prepare_librosa
from mgc.util.errors import MgcError

# musicnn/configuration.py, MSD_LABELS: the order of `tags`
TAGS = (
    "rock", "pop", "alternative", "indie", "electronic", "female vocalists", "dance", "00s",
    "alternative rock", "jazz", "beautiful", "metal", "chillout", "male vocalists", "classic rock", "soul",
    "indie rock", "Mellow", "electronica", "80s", "folk", "90s", "chill", "instrumental", "punk", "oldies",
    "blues", "hard rock", "ambient", "acoustic", "experimental", "female vocalist", "guitar", "Hip-Hop",
    "70s", "party", "country", "easy listening", "sexy", "catchy", "funk", "electro", "heavy metal",
    "Progressive rock", "60s", "rnb", "indie pop", "sad", "House", "happy",
)  # fmt: skip

# A filter whose output can move by less than this for a unit input is a constant. In MSD_musicnn weight decay
# has killed most filters: the dead reach at most 2e-9, the weakest living one 9e-3.
DEAD_REACH = 1e-6


class FrozenNorm(nn.Module):
    """A batch norm at rest: `scale * x + shift` over the last axis, the identity until weights are loaded."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape that ends in `channels`, or any shape when `channels` is 1."""
        return x * self.scale + self.shift


class Filters(nn.Module):
    """Convolution, relu, batch norm and the maximum over bands, in 'same' padding over time.

    `conv` is a Conv1d over (B, C, T), or a Conv2d over (B, 1, T, bands). The paper's order is convolution,
    relu, norm, maximum; as relu and norm act on one filter at a time and are monotone, the maximum may come
    first, on unnormalised responses, where it saves two passes over an array up to 96 times larger. For a
    norm with a negative scale the maximum becomes a minimum, that is, the filter's sign is turned twice.

    Only the filters in `live` are computed; the rest are constants (see `find_live`).
    """

    live: Tensor

    def __init__(self, conv: nn.Conv1d | nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.norm = FrozenNorm(conv.out_channels)
        self.register_buffer("live", torch.arange(conv.out_channels), persistent=False)

    def find_live(self) -> None:
        """Look for filters whose output cannot depend on the input, and stop computing them.

        A relu is 1-Lipschitz, so a filter's output moves by at most |scale| * sum |weights| for each unit of
        its input's maximum. Call it again after changing weights.
        """
        reach = self.norm.scale.abs() * self.conv.weight.abs().flatten(1).sum(1)  # (C,)
        self.live = torch.nonzero(reach >= DEAD_REACH).flatten()

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (B, C, T) or (B, 1, T, bands) to (B, filters, T)."""
        bias, scale, shift = (values[self.live] for values in (self._bias, self.norm.scale, self.norm.shift))
        sign = torch.copysign(torch.ones_like(scale), scale)  # (live,)
        turned = self.conv.weight[self.live] * sign.view(-1, *[1] * (self.conv.weight.dim() - 1))
        highest = self._respond(x, turned, bias * sign) * sign[:, None]  # (B, live, T)
        computed = F.relu(highest) * scale[:, None] + shift[:, None]  # (B, live, T)
        if len(self.live) == self.conv.out_channels:
            return computed
        constant = F.relu(self._bias) * self.norm.scale + self.norm.shift  # (filters,)
        out = constant[:, None].repeat(len(x), 1, x.shape[2])  # (B, filters, T)
        out[:, self.live] = computed.to(out.dtype)
        return out

    @property
    def _bias(self) -> Tensor:
        assert self.conv.bias is not None
        return self.conv.bias

    @staticmethod
    def _respond(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        frames = weight.shape[2]
        if weight.dim() == 3:
            return F.conv1d(x, weight, bias, padding=frames // 2)  # (B, live, T), frames is odd
        # TensorFlow's 'same': of an odd number of zeros, the larger half comes after
        padded = F.pad(x, (0, 0, (frames - 1) // 2, frames // 2))  # (B, 1, T + frames - 1, bands)
        return F.conv2d(padded, weight, bias).amax(dim=3)  # (B, live, T)


@dataclass(frozen=True)
class MusicNNFeatures:
    """What MSD_musicnn makes of B windows."""

    max_pool: Tensor  # (B, 753) maximum over time: 408 timbral, 153 temporal, 3 x 64 mid-end filters
    mean_pool: Tensor  # (B, 753) mean over time, in the same order
    penultimate: Tensor  # (B, 200) after relu and batch norm, as the musicnn package returns it
    tags: Tensor  # (B, 50) independent probabilities (sigmoid), in the order of TAGS


class MusicNN(nn.Module):
    """MSD_musicnn of arXiv 1909.06654: 784 k weights, (B, 187, 96) log-mels in, `MusicNNFeatures` out.

    `MusicNN()` is its randomly initialised twin (torch's default initialisation, batch norms the identity);
    `MusicNN.from_safetensors(path)` is the trained network. Both are frozen and in eval mode.

    On a CUDA device torch may run convolutions in TF32, which is coarser than the float32 of the reference:
    set `torch.backends.cudnn.allow_tf32 = False` where agreement matters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.input_norm = FrozenNorm(1)
        self.front = nn.ModuleList(
            Filters(nn.Conv2d(1, filters, (frames, bands))) for filters, frames, bands in FRONT_END
        )
        self.middle = nn.ModuleList(
            Filters(nn.Conv1d(channels, MIDDLE_FILTERS, MIDDLE_FRAMES))
            for channels in (FRONT_FILTERS, MIDDLE_FILTERS, MIDDLE_FILTERS)
        )
        self.dense = nn.Linear(2 * POOLED, PENULTIMATE)  # with the batch norm before it folded in
        self.dense_norm = FrozenNorm(PENULTIMATE)
        self.tags = nn.Linear(PENULTIMATE, len(TAGS))
        self.requires_grad_(False).eval()

    @classmethod
    def from_safetensors(cls, path: Path) -> "MusicNN":
        """The trained network from the file that `fetch_weights` made.

        Raises MgcError if the file is unreadable, or if a tensor is missing, unexpected or of another shape.
        """
        fix = "delete the file and run again: it is made anew"
        try:
            weights = load_file(path)
        except (OSError, SafetensorError) as error:
            raise MgcError(f"the musicnn weights cannot be read: {error}", where=path, fix=fix) from error
        model = cls()
        expected = model.state_dict()
        wrong = [f"missing: {name}" for name in sorted(expected.keys() - weights.keys())]
        wrong += [f"unexpected: {name}" for name in sorted(weights.keys() - expected.keys())]
        wrong += [
            f"{name} is {tuple(weights[name].shape)}, not {tuple(expected[name].shape)}"
            for name in sorted(expected.keys() & weights.keys())
            if weights[name].shape != expected[name].shape
        ]
        if wrong:
            raise MgcError(f"not the weights of MSD_musicnn ({'; '.join(wrong)})", where=path, fix=fix)
        model.load_state_dict(weights)
        model.find_live()
        return model

    def find_live(self) -> None:
        """Stop computing filters that the weights make constant: 208 of 753 are left in MSD_musicnn."""
        for filters in (*self.front, *self.middle):
            assert isinstance(filters, Filters)
            filters.find_live()

    def forward(self, logmels: Tensor) -> MusicNNFeatures:
        """Log-mels (B, T, 96) from `logmel`, to features; T was 187 in training, any T is computed.

        Raises ValueError for any other shape.
        """
        if logmels.dim() != 3 or logmels.shape[2] != N_MELS:
            raise ValueError(f"log-mels must be (B, T, {N_MELS}), not {tuple(logmels.shape)}")
        image = self.input_norm(logmels)[:, None]  # (B, 1, T, 96)
        front = torch.cat([filters(image) for filters in self.front], dim=1)  # (B, 561, T)
        first = self.middle[0](front)  # (B, 64, T)
        second = first + self.middle[1](first)
        third = second + self.middle[2](second)
        layers = torch.cat([front, first, second, third], dim=1)  # (B, 753, T)

        max_pool, mean_pool = layers.amax(dim=2), layers.mean(dim=2)  # (B, 753) each
        pooled = torch.cat([max_pool, mean_pool], dim=1)  # (B, 1506)
        penultimate = self.dense_norm(F.relu(self.dense(pooled)))  # (B, 200)
        return MusicNNFeatures(max_pool, mean_pool, penultimate, torch.sigmoid(self.tags(penultimate)))


def logmel(waveforms: Tensor, *, center: bool) -> Tensor:
    """Waveforms (B, S) at 16 kHz in [-1, 1] to log-mels (B, T, 96): log10(1 + 10000 * mel power).

    As `librosa.feature.melspectrogram` with its defaults (Hann, power 2, Slaney bands) at n_fft 512, hop
    256. With `center` frame t is centred on sample 256 t, with zeros beyond the ends: T = 1 + S // 256.
    Without, the caller has put 256 samples of context at each end: T = 1 + (S - 512) // 256.

    The musicnn package rounds mel power to float16 before the logarithm; this, like the reference, does not.
    Raises ValueError if the shape is not (B, S) or S is too short for one frame.
    """
    if waveforms.dim() != 2 or waveforms.shape[1] < (1 if center else N_FFT):
        raise ValueError(f"waveforms must be (B, S), long enough for a frame, not {tuple(waveforms.shape)}")
    if center:
        waveforms = F.pad(waveforms, (N_FFT // 2, N_FFT // 2))
    window, bank = _hann_and_mel_bank(waveforms.device)
    spectrum = torch.stft(
        waveforms, N_FFT, HOP_SAMPLES, window=window, center=False, return_complex=True
    )  # (B, 257, T)
    power = spectrum.real.square() + spectrum.imag.square()
    return torch.log10(1 + 10_000 * (power.transpose(1, 2) @ bank))  # (B, T, 96)


@functools.cache
def _hann_and_mel_bank(device: torch.device) -> tuple[Tensor, Tensor]:
    """The window (512,) and the transposed Slaney filter bank (257, 96), for inference mode and outside."""
    prepare_librosa()
    from librosa.filters import mel

    with torch.inference_mode(False):
        bank = mel(sr=SAMPLE_RATE_HZ, n_fft=N_FFT, n_mels=N_MELS)  # (96, 257)
        return torch.hann_window(N_FFT, device=device), torch.from_numpy(bank.T.copy()).to(device)
