"""MSD_musicnn: a small convolutional music tagger, rebuilt in PyTorch.

Paper: Pons and Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging",
arXiv 1909.06654. Weights: trained on the Million Song Dataset, from the wheel `musicnn==0.1.0` on PyPI
(ISC licence, Copyright (c) Music Technology Group, Universitat Pompeu Fabra 2019, Jordi Pons).

Input: 16 kHz mono audio as 96 log-mel bands at 62.5 frames per second, in windows of 187 frames (3 s).
"""

import copy
import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgc.representations.encoders.musicnn import HOP_SAMPLES, SAMPLE_RATE_HZ
from mgc.util.compiled import prepare_librosa

N_FFT, N_MELS = 512, 96  # musicnn/configuration.py in the wheel

# musicnn/models.py: filters, frames and bands of the five front-end filter banks. Tall filters see 0.4 and
# 0.7 of the bands (timbre), wide ones 2, 1 and 0.5 s of one band (rhythm). 204 = int(1.6 * 128),
# 51 = int(1.6 * 32).
FRONT_END = ((204, 7, 38), (204, 7, 67), (51, 128, 1), (51, 64, 1), (51, 32, 1))
FRONT_FILTERS = sum(filters for filters, _, _ in FRONT_END)  # 561
MIDDLE_FILTERS, MIDDLE_FRAMES = 64, 7
POOLED = FRONT_FILTERS + 3 * MIDDLE_FILTERS  # 753
PENULTIMATE = 200
NORM_EPSILON = 1e-3  # default of tf.layers.batch_normalization

# musicnn/configuration.py, MSD_LABELS: the order of `tags`
TAGS = (
    "rock", "pop", "alternative", "indie", "electronic", "female vocalists", "dance", "00s",
    "alternative rock", "jazz", "beautiful", "metal", "chillout", "male vocalists", "classic rock", "soul",
    "indie rock", "Mellow", "electronica", "80s", "folk", "90s", "chill", "instrumental", "punk", "oldies",
    "blues", "hard rock", "ambient", "acoustic", "experimental", "female vocalist", "guitar", "Hip-Hop",
    "70s", "party", "country", "easy listening", "sexy", "catchy", "funk", "electro", "heavy metal",
    "Progressive rock", "60s", "rnb", "indie pop", "sad", "House", "happy",
)  # fmt: skip

# A filter is dead if its output changes by less than this for a unit change of its input. Weight decay has
# switched off most filters of MSD_musicnn: the dead ones reach at most 2e-9, the weakest live one 9e-3.
DEAD_REACH = 1e-6


class FilterBank(nn.Module):
    """Convolution, ReLU, batch norm, then the maximum over bands; the number of frames stays the same.

    `conv` is a Conv2d over (B, 1, T, bands), or a Conv1d over (B, C, T), which leaves no bands to reduce.
    """

    def __init__(self, conv: nn.Conv1d | nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        norm = nn.BatchNorm2d if isinstance(conv, nn.Conv2d) else nn.BatchNorm1d
        self.norm = norm(conv.out_channels, NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, T, bands) or (B, C, T) to (B, filters, T)."""
        frames = self.conv.weight.shape[2]
        around = (frames - 1) // 2, frames // 2  # TensorFlow's "same" puts the larger half behind
        padding = (0, 0, *around) if x.dim() == 4 else around
        maps = self.norm(self.conv(F.pad(x, padding)).relu_())  # (B, filters, T, ...)
        return maps.amax(dim=3) if maps.dim() == 4 else maps

    def find_live(self) -> Tensor:
        """Indices of the filters whose output can depend on the input.

        ReLU is 1-Lipschitz, so the output changes by at most |scale| * sum |weights| per unit of the input's
        maximum.
        """
        variance = self.norm.get_buffer("running_var")
        scale = self.norm.weight / torch.sqrt(variance + NORM_EPSILON)  # (filters,)
        reach = scale.abs() * self.conv.weight.abs().flatten(1).sum(1)  # (filters,)
        return torch.nonzero(reach >= DEAD_REACH).flatten()


class LiveFilters(nn.Module):
    """A filter bank in eval mode that computes its live filters only; the other outputs are constant."""

    live: Tensor
    constant: Tensor

    def __init__(self, bank: FilterBank) -> None:
        super().__init__()
        live = bank.find_live()
        self.bank = copy.deepcopy(bank)
        for module in (self.bank.conv, self.bank.norm):
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.dim() > 0:  # all but the norm's count of batches
                    tensor.data = tensor.data[live]
        bias = bank.conv.get_parameter("bias").relu()
        like_output = bias.view(1, -1, *[1] * (bank.conv.weight.dim() - 2))  # (1, filters, 1, ...)
        self.register_buffer("live", live)
        self.register_buffer("constant", bank.norm(like_output).flatten())  # (filters,)

    def forward(self, x: Tensor) -> Tensor:
        """As `FilterBank.forward`."""
        computed = self.bank(x)  # (B, live, T)
        out = self.constant[:, None].repeat(len(x), 1, computed.shape[2])  # (B, filters, T)
        out[:, self.live] = computed
        return out


@dataclass(frozen=True)
class MusicNNOutput:
    """The features that MSD_musicnn computes for B windows."""

    max_pool: Tensor  # (B, 753) maximum over time: 408 timbral, 153 temporal, 3 x 64 mid-end filters
    mean_pool: Tensor  # (B, 753) mean over time, in the same order
    penultimate: Tensor  # (B, 200) after ReLU and batch norm, as the musicnn package returns it
    tags: Tensor  # (B, 50) independent probabilities (sigmoid), in the order of TAGS


class MusicNN(nn.Module):
    """MSD_musicnn of arXiv 1909.06654 with 787 k weights, randomly initialised; frozen and in eval mode.

    On a CUDA device torch may run convolutions in TF32, which is coarser than the float32 of the reference:
    set `torch.backends.cudnn.allow_tf32 = False` where agreement matters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.input_norm = nn.BatchNorm2d(1, NORM_EPSILON)
        self.front = nn.ModuleList(
            FilterBank(nn.Conv2d(1, filters, (frames, bands))) for filters, frames, bands in FRONT_END
        )
        self.middle = nn.ModuleList(
            FilterBank(nn.Conv1d(channels, MIDDLE_FILTERS, MIDDLE_FRAMES))
            for channels in (FRONT_FILTERS, MIDDLE_FILTERS, MIDDLE_FILTERS)
        )
        self.pooled_norm = nn.BatchNorm1d(2 * POOLED, NORM_EPSILON)
        self.dense = nn.Linear(2 * POOLED, PENULTIMATE)
        self.dense_norm = nn.BatchNorm1d(PENULTIMATE, NORM_EPSILON)
        self.tags = nn.Linear(PENULTIMATE, len(TAGS))
        self.requires_grad_(False).eval()

    def without_dead_filters(self) -> "MusicNN":
        """Compute only live filters from now on: 208 of 753 in MSD_musicnn. For inference only."""
        for banks in (self.front, self.middle):
            for number, bank in enumerate(banks):
                assert isinstance(bank, FilterBank)
                banks[number] = LiveFilters(bank).eval()
        return self

    def forward(self, logmels: Tensor) -> MusicNNOutput:
        """Log-mels (B, T, 96) from `logmel` to features; T was 187 in training, any T is accepted.

        Raises ValueError for any other shape.
        """
        if logmels.dim() != 3 or logmels.shape[2] != N_MELS:
            raise ValueError(f"log-mels must be (B, T, {N_MELS}), got {tuple(logmels.shape)}")
        image = self.input_norm(logmels[:, None])  # (B, 1, T, 96)
        front = torch.cat([bank(image) for bank in self.front], dim=1)  # (B, 561, T)
        first = self.middle[0](front)  # (B, 64, T)
        second = first + self.middle[1](first)
        third = second + self.middle[2](second)
        layers = torch.cat([front, first, second, third], dim=1)  # (B, 753, T)

        max_pool, mean_pool = layers.amax(dim=2), layers.mean(dim=2)  # (B, 753) each
        pooled = self.pooled_norm(torch.cat([max_pool, mean_pool], dim=1))  # (B, 1506)
        penultimate = self.dense_norm(F.relu(self.dense(pooled)))  # (B, 200)
        return MusicNNOutput(max_pool, mean_pool, penultimate, torch.sigmoid(self.tags(penultimate)))


def logmel(waveforms: Tensor, *, center: bool) -> Tensor:
    """Waveforms (B, S) at 16 kHz in [-1, 1] to log-mels (B, T, 96): log10(1 + 10000 * mel power).

    Equal to `librosa.feature.melspectrogram` with its defaults (Hann, power 2, Slaney bands) at n_fft 512 and
    hop 256. With `center`, frame t is centred on sample 256 t, with zeros beyond the ends: T = 1 + S // 256.
    Without, the caller provides 256 samples of context at each end: T = 1 + (S - 512) // 256.

    The musicnn package rounds mel power to float16 before the logarithm; this function does not.
    Raises ValueError if the shape is not (B, S) or S is too short for one frame.
    """
    if waveforms.dim() != 2 or waveforms.shape[1] < (1 if center else N_FFT):
        raise ValueError(
            f"waveforms must be (B, S) with enough samples for one frame, got {tuple(waveforms.shape)}"
        )
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
    """The window (512,) and the transposed Slaney filter bank (257, 96).

    They are cached, so they are created outside inference mode: inference tensors cannot be used in training.
    """
    prepare_librosa()
    from librosa.filters import mel

    with torch.inference_mode(False):
        bank = mel(sr=SAMPLE_RATE_HZ, n_fft=N_FFT, n_mels=N_MELS)  # (96, 257)
        return torch.hann_window(N_FFT, device=device), torch.from_numpy(bank.T.copy()).to(device)
