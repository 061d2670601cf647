"""Log-mel spectrogram in decibels, as librosa computes it, in batched torch."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mgc.audio import Windowing
from mgc.representations.card import Layer, Representation
from mgc.util.compiled import prepare_librosa

if TYPE_CHECKING:
    import torch

HOP = 512  # samples
N_MELS = 128
AMIN = 1e-10  # librosa.power_to_db's floor under the power
TOP_DB = 80.0  # and its range below the clip's maximum


@dataclass(frozen=True)
class Numbers:
    """What one log-mel differs in from another: Hz, samples, and the frames that are computed at a time."""

    sample_rate_hz: int
    n_fft: int
    window_frames: int  # 30 s

    @property
    def cut(self) -> Windowing:
        """Half a frame of context on both sides, and the last window padded as librosa pads it."""
        half = self.n_fft // 2
        return Windowing(self.sample_rate_hz, self.window_frames * HOP, left=half, right=half, pad=True)


LOGMEL = Numbers(22_050, 2048, 1292)
LOGMEL44 = Numbers(44_100, 1024, 2584)


def logmel() -> Representation:
    """128 mel bands in dB, (T, 128): `power_to_db(melspectrogram(y=y, sr=22050))` of librosa, transposed.

    Kept as it is; whoever trains on it normalises it per track.
    """
    return _card("logmel", LOGMEL)


def logmel44() -> Representation:
    """The same at 44,100 Hz with frames of 1,024 samples every 512: the input of the U-Net study."""
    return _card("logmel44", LOGMEL44)


def _card(name: str, numbers: Numbers) -> Representation:
    return Representation(
        name=name,
        address=name,
        source="librosa.feature.melspectrogram and power_to_db",
        cut=numbers.cut,
        layers=(Layer(name, N_MELS),),
        pooled=False,
        parameters=0,
        licence="none needed",
        trained_on="nothing",
        weights="",
        revision=1,
        load=partial(_LogMel, numbers),
        finish=top_db,
        frames_a_second=numbers.sample_rate_hz / HOP,
    )


def top_db(decibels: np.ndarray) -> np.ndarray:
    """Raise what lies more than 80 dB below the clip's maximum to that line, in place."""
    return np.maximum(decibels, decibels.max() - TOP_DB, out=decibels)


def statistics(decibels: np.ndarray) -> np.ndarray:
    """(T, D) to (3, D): mean, deviation and maximum of each band over time; the floor's features."""
    values = decibels.astype(np.float32)
    return np.stack([values.mean(axis=0), values.std(axis=0), values.max(axis=0)])


class _LogMel:
    def __init__(self, numbers: Numbers, device: "torch.device") -> None:
        import torch

        prepare_librosa()
        from librosa.filters import mel

        self.numbers = numbers
        bank = mel(sr=numbers.sample_rate_hz, n_fft=numbers.n_fft, n_mels=N_MELS)
        self.bank = torch.from_numpy(bank).to(device)  # (128, n_fft / 2 + 1)
        self.taper = torch.hann_window(numbers.n_fft, device=device)

    def __call__(
        self, waveforms: "torch.Tensor", covered: "torch.Tensor", real: "torch.Tensor"
    ) -> tuple[list["torch.Tensor"], "torch.Tensor"]:
        import torch

        n_fft, window_frames = self.numbers.n_fft, self.numbers.window_frames
        spectrum = torch.stft(waveforms, n_fft, HOP, window=self.taper, center=False, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()  # (B, n_fft / 2 + 1, T)
        decibels = 10.0 * torch.log10((self.bank @ power).clamp_min(AMIN))  # (B, 128, T)
        frames = torch.arange(decibels.shape[2], device=waveforms.device)
        # Frame t is centred on sample t * HOP. The one on a full window's end is the next window's first.
        last = torch.where(real < window_frames * HOP, real // HOP, window_frames - 1)
        return [decibels.transpose(1, 2)], (frames <= last.unsqueeze(1)).float()
