"""Log-mel spectrogram in decibels, as librosa computes it, in batched torch."""

from typing import TYPE_CHECKING

import librosa
import numpy as np

from mgc.audio import Windowing
from mgc.representations.kinds import Layer, Representation, code_hash

if TYPE_CHECKING:
    import torch

SAMPLE_RATE_HZ = 22_050
N_FFT = 2048
HOP = 512
N_MELS = 128
AMIN = 1e-10  # librosa.power_to_db's floor under the power
TOP_DB = 80.0  # and its range below the clip's maximum
FRAMES_A_SECOND = SAMPLE_RATE_HZ / HOP
WINDOW_FRAMES = 1292  # 30 s at a time


def logmel() -> Representation:
    """128 mel bands in dB, (T, 128): `power_to_db(melspectrogram(y=y, sr=22050))` of librosa, transposed.

    Kept as it is; whoever trains on it normalises it per track.
    """
    return Representation(
        name="logmel",
        address="logmel",
        source="librosa.feature.melspectrogram and power_to_db",
        cut=Windowing(SAMPLE_RATE_HZ, WINDOW_FRAMES * HOP, left=N_FFT // 2, right=N_FFT // 2, pad=True),
        layers=(Layer("logmel", N_MELS),),
        pooled=False,
        parameters=0,
        licence="none needed",
        trained_on="nothing",
        weights="",
        code=code_hash("representations/logmel.py"),
        load=_LogMel,
        finish=top_db,
    )


def top_db(decibels: np.ndarray) -> np.ndarray:
    """Raise what lies more than 80 dB below the clip's maximum to that line, in place."""
    return np.maximum(decibels, decibels.max() - TOP_DB, out=decibels)


def statistics(decibels: np.ndarray) -> np.ndarray:
    """(T, D) to (2, D): mean and deviation of each band over time, in dB; the floor's features."""
    values = decibels.astype(np.float32)
    return np.stack([values.mean(axis=0), values.std(axis=0)])


class _LogMel:
    def __init__(self, device: "torch.device") -> None:
        import torch

        bank = librosa.filters.mel(sr=SAMPLE_RATE_HZ, n_fft=N_FFT, n_mels=N_MELS)
        self.bank = torch.from_numpy(bank).to(device)  # (128, 1025)
        self.taper = torch.hann_window(N_FFT, device=device)

    def __call__(
        self, waveforms: "torch.Tensor", covered: "torch.Tensor", real: "torch.Tensor"
    ) -> tuple[list["torch.Tensor"], "torch.Tensor"]:
        import torch

        spectrum = torch.stft(waveforms, N_FFT, HOP, window=self.taper, center=False, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()  # (B, 1025, T)
        decibels = 10.0 * torch.log10((self.bank @ power).clamp_min(AMIN))  # (B, 128, T)
        frames = torch.arange(decibels.shape[2], device=waveforms.device)
        # Frame t is centred on sample t * HOP. The one on a full window's end is the next window's first.
        window = WINDOW_FRAMES * HOP
        last = torch.where(real < window, real // HOP, WINDOW_FRAMES - 1)
        return [decibels.transpose(1, 2)], (frames <= last.unsqueeze(1)).float()
