"""Log-mel spectrograms in decibels and MFCC, equal to librosa's, in batched torch."""

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mgc.audio import Windowing
from mgc.representations.card import Layer, Representation
from mgc.representations.features.librosa_features import feature_card
from mgc.representations.spec import ModelSpec
from mgc.util.compiled import prepare_librosa

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mgc.representations.card import Encoded

HOP = 512  # samples
N_MELS = 128
N_MFCC = 13
AMIN = 1e-10  # power floor of librosa.power_to_db
TOP_DB = 80.0  # its range below the clip's maximum


@dataclass(frozen=True)
class MelSettings:
    """What distinguishes one log-mel from another; `window_frames` are computed at once."""

    sample_rate_hz: int
    n_fft: int
    window_frames: int  # 30 s

    @property
    def cut(self) -> Windowing:
        """Half an STFT frame of context on both sides; the last window is padded as in librosa."""
        half = self.n_fft // 2
        return Windowing(self.sample_rate_hz, self.window_frames * HOP, left=half, right=half, pad=True)


LOGMEL = MelSettings(22_050, 2048, 1292)
LOGMEL44 = MelSettings(44_100, 1024, 2584)


def logmel(name: str = "logmel", settings: MelSettings = LOGMEL) -> Representation:
    """128 mel bands in dB, (T, 128): `power_to_db(melspectrogram(y=y, sr=22050))` of librosa, transposed.

    Not normalised: networks normalise their input per track.
    """
    return feature_card(
        name, "librosa.feature.melspectrogram and power_to_db", N_MELS, settings.cut,
        partial(_LogMel, settings), pooled=False, finish=top_db,
        frames_a_second=settings.sample_rate_hz / HOP,
    )  # fmt: skip


def logmel44() -> Representation:
    """The same at 44,100 Hz with frames of 1,024 samples every 512: the input of the U-Net study."""
    return logmel("logmel44", LOGMEL44)


def mfcc() -> Representation:
    """13 mel-frequency cepstral coefficients, (T, 13): `librosa.feature.mfcc(y=y, sr=22050, n_mfcc=13).T`."""
    return replace(
        logmel(), name="mfcc", spec=ModelSpec("mfcc"), source="librosa.feature.mfcc",
        layers=(Layer("mfcc", N_MFCC),), finish=_cepstrum,
    )  # fmt: skip


def top_db(decibels: np.ndarray) -> np.ndarray:
    """Clip values to at most 80 dB below the maximum of the clip, in place."""
    return np.maximum(decibels, decibels.max() - TOP_DB, out=decibels)


def _cepstrum(decibels: np.ndarray) -> np.ndarray:
    from scipy.fft import dct

    return dct(top_db(decibels), axis=1, norm="ortho")[:, :N_MFCC]


def statistics(decibels: np.ndarray) -> np.ndarray:
    """(T, D) to (3, D): mean, standard deviation and maximum of each band over time."""
    values = decibels.astype(np.float32)
    return np.stack([values.mean(axis=0), values.std(axis=0), values.max(axis=0)])


class _LogMel:
    def __init__(self, settings: MelSettings, device: "torch.device") -> None:
        import torch

        prepare_librosa()
        from librosa.filters import mel

        self.settings = settings
        bank = mel(sr=settings.sample_rate_hz, n_fft=settings.n_fft, n_mels=N_MELS)
        self.bank = torch.from_numpy(bank).to(device)  # (128, n_fft / 2 + 1)
        self.window = torch.hann_window(settings.n_fft, device=device)

    def __call__(self, waveforms: "Tensor", covered: "Tensor", real: "Tensor") -> "Encoded":
        import torch

        n_fft, window_frames = self.settings.n_fft, self.settings.window_frames
        spectrum = torch.stft(waveforms, n_fft, HOP, window=self.window, center=False, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()  # (B, n_fft / 2 + 1, T)
        decibels = 10.0 * torch.log10((self.bank @ power).clamp_min(AMIN))  # (B, 128, T)
        frames = torch.arange(decibels.shape[2], device=waveforms.device)
        # Frame t is centred on sample t * HOP. The one at the end of a full window belongs to the next.
        last = torch.where(real < window_frames * HOP, real // HOP, window_frames - 1)
        return [decibels.transpose(1, 2)], (frames <= last.unsqueeze(1)).float()
