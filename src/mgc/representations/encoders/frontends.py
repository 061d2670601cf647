"""The transformers feature extractors as batched torch functions, on the device of the waveforms.

The extractors take one clip at a time, most of them frame by frame in NumPy: 40 ms for ten seconds of the
Audio Spectrogram Transformer, more than decoding takes. All numbers are read from the extractor, so that
checkpoints with other settings work. Written after transformers 5.23; tests require agreement within 1e-3.

AST and CLAP compute the Fourier transform in float64, as transformers does. In float32 every bin has an error
of about 1e-7 of the loudest partial, which exceeds the power floors of AST (1.2e-7) and CLAP (1e-10) under a
full-scale tone and changes the logarithm: by 2e-3 after normalisation, and by 0.2 dB. Whisper clips at 80 dB
below its maximum and uses float32.

This module imports torch: import it where an encoder is loaded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mgc.util.errors import MgcError

Inputs = dict[str, Tensor]


def front_end(extractor: Any) -> Callable[[Tensor], Inputs] | None:
    """A loaded feature extractor as a function of waveforms (B, S) float32 without padding.

    It returns what the extractor does, on the waveforms' device, except that `is_longer` is always False, and
    raises MgcError for waveforms longer than the extractor takes, which would drop the rest. None for an
    unknown class, or one that adds noise: use the extractor itself.
    """
    make = _KNOWN.get(type(extractor).__name__)
    return make(extractor) if make else None


@dataclass(frozen=True)
class _FrontEnd:
    name: str  # of the main input of the model
    features: Callable[[Tensor], Tensor]  # (B, S) float32 -> that input (B, ...)
    others: Callable[[Tensor], Inputs]  # (B, S) -> the other inputs

    def __call__(self, waveforms: Tensor) -> Inputs:
        device = waveforms.device
        # Apple's GPUs have no float64. On a CPU, one clip at a time is as fast and needs less memory.
        one_by_one = device.type in ("cpu", "mps")
        where = torch.device("cpu") if one_by_one else device
        moved = waveforms.to(where, torch.float32)
        parts = moved.unsqueeze(1) if one_by_one else [moved]
        # Mel bands and their logarithms are float32, whatever the precision of the model.
        with torch.autocast(where.type, enabled=False):
            features = torch.cat([self.features(part) for part in parts])
        return {self.name: features.to(device), **self.others(waveforms)}


class _MelPower:
    """Power in mel bands of framed signals: (B, T, n_fft) -> (B, T, M) float32.

    `window` is (n,) with n <= n_fft, `bank` (n_fft // 2 + 1, M); the transform is computed in `dtype`.
    """

    def __init__(self, window: Any, bank: np.ndarray, dtype: torch.dtype) -> None:
        window = torch.as_tensor(window, dtype=dtype)
        self.window = F.pad(window, (0, 2 * (len(bank) - 1) - len(window)))  # (n_fft,)
        self.bank = torch.as_tensor(bank, dtype=torch.float32)

    def __call__(self, frames: Tensor) -> Tensor:
        self.window, self.bank = self.window.to(frames.device), self.bank.to(frames.device)
        spectrum = torch.fft.rfft(frames * self.window).to(torch.complex64)  # (B, T, n_fft // 2 + 1)
        return (spectrum.real.square() + spectrum.imag.square()) @ self.bank


def _centred(waveforms: Tensor, n_fft: int, hop: int) -> Tensor:
    """Frames (B, 1 + S // hop, n_fft), the first one centred on the first sample, with reflected ends."""
    return F.pad(waveforms, (n_fft // 2, n_fft // 2), mode="reflect").unfold(1, n_fft, hop)


def _check_length(extractor: Any, samples: int, most: int) -> None:
    if samples > most:
        raise MgcError(
            f"windows have {samples} samples, but the checkpoint's {type(extractor).__name__} takes {most} "
            "and would drop the rest",
            fix="correct max_length, chunk_length or max_length_s in its preprocessor_config.json to match "
            "its config.json",
        )


def _all_real(extractor: Any, waveforms: Tensor) -> Inputs:
    """The attention mask (B, S) of waveforms without padding, if the extractor returns one."""
    wanted = extractor.return_attention_mask
    return {"attention_mask": torch.ones_like(waveforms, dtype=torch.int32)} if wanted else {}


# --- Audio Spectrogram Transformer: Kaldi's filter bank ----------------------------------------------------

KALDI_HOP = 160  # samples, at whatever rate
KALDI_PREEMPHASIS = 0.97
KALDI_FLOOR = 1.192092955078125e-07  # power: float32's epsilon


def _ast(extractor: Any) -> _FrontEnd:
    window, bank = _kaldi_window_and_bank(extractor)
    power = _MelPower(window, bank, torch.float64)
    n, longest = len(window), int(extractor.max_length)

    def features(waveforms: Tensor) -> Tensor:
        count = max(0, 1 + (waveforms.shape[1] - n) // KALDI_HOP)  # whole frames only
        _check_length(extractor, waveforms.shape[1], n + longest * KALDI_HOP - 1)
        signal = F.pad(waveforms.double(), (0, max(0, n - waveforms.shape[1]) + len(power.window) - n))
        # Kaldi subtracts the mean of each frame, then computes x[i] - 0.97 x[i - 1]. Applied to the whole
        # signal, this difference leaves 0.03 of each frame's mean to subtract. Only the first sample of a
        # frame would differ, where the window is zero, as it is from sample `n` on.
        emphasised = signal.clone()
        emphasised[:, 1:].sub_(signal[:, :-1], alpha=KALDI_PREEMPHASIS)
        frames = emphasised.unfold(1, len(power.window), KALDI_HOP)  # (B, T, n_fft)
        mean = signal.unfold(1, n, KALDI_HOP)[:, : frames.shape[1]].mean(dim=2, keepdim=True)  # (B, T, 1)
        bands = power(frames - (1 - KALDI_PREEMPHASIS) * mean)
        logs = bands[:, :count].clamp_min_(KALDI_FLOOR).log_()
        logs = F.pad(logs, (0, 0, 0, longest - count))  # (B, max_length, M); padding is normalised, too
        return (logs - extractor.mean) / (2 * extractor.std) if extractor.do_normalize else logs

    return _FrontEnd("input_values", features, lambda waveforms: {})


def _kaldi_window_and_bank(extractor: Any) -> tuple[np.ndarray, np.ndarray]:
    """(400,) and (257, M). An extractor that uses torchaudio does not have them."""
    if hasattr(extractor, "mel_filters"):
        return extractor.window, extractor.mel_filters
    from transformers.audio_utils import mel_filter_bank, window_function

    rate = extractor.sampling_rate
    bank = mel_filter_bank(  # from 20 Hz
        257, extractor.num_mel_bins, 20, rate // 2, rate, mel_scale="kaldi", triangularize_in_mel_space=True
    )
    return window_function(400, "hann", periodic=False), bank


# --- Whisper -----------------------------------------------------------------------------------------------

WHISPER_FLOOR = 1e-10  # power
WHISPER_RANGE = 8.0  # powers of ten below the maximum of the clip


def _whisper(extractor: Any) -> _FrontEnd | None:
    if extractor.dither:
        return None
    power = _MelPower(torch.hann_window(extractor.n_fft), extractor.mel_filters, torch.float32)

    def padded(waveforms: Tensor, value: float) -> Tensor:
        gap = extractor.n_samples - waveforms.shape[1]
        return F.pad(waveforms, (gap, 0) if extractor.padding_side == "left" else (0, gap), value=value)

    def features(waveforms: Tensor) -> Tensor:
        _check_length(extractor, waveforms.shape[1], extractor.n_samples)
        signal = padded(waveforms, extractor.padding_value)
        frames = _centred(signal, extractor.n_fft, extractor.hop_length)[:, :-1]
        logs = power(frames).clamp_min_(WHISPER_FLOOR).log10_()
        logs = torch.maximum(logs, logs.amax(dim=(1, 2), keepdim=True) - WHISPER_RANGE)
        return ((logs + 4.0) / 4.0).transpose(1, 2).contiguous()  # (B, M, T)

    def others(waveforms: Tensor) -> Inputs:
        return {name: padded(mask, 0) for name, mask in _all_real(extractor, waveforms).items()}

    return _FrontEnd("input_features", features, others)


# --- CLAP --------------------------------------------------------------------------------------------------

CLAP_FLOOR = 1e-10  # power; the extractor does not use its `top_db`


def _clap(extractor: Any) -> _FrontEnd:
    fused = extractor.truncation == "fusion"
    bank = extractor.mel_filters if fused else extractor.mel_filters_slaney
    n, longest = extractor.fft_window_size, extractor.nb_max_samples
    power = _MelPower(torch.hann_window(n, dtype=torch.float64), bank, torch.float64)

    def features(waveforms: Tensor) -> Tensor:
        _check_length(extractor, waveforms.shape[1], longest)
        signal = _repeated(waveforms.double(), longest, extractor.padding)
        bands = power(_centred(signal, n, extractor.hop_length))
        decibels = 10.0 * bands.clamp_min_(CLAP_FLOOR).log10_()
        # (B, 1, T, M), or four equal views per clip (B, 4, T, M) in a fused model
        return decibels.unsqueeze(1).expand(-1, 4 if fused else 1, -1, -1)

    def others(waveforms: Tensor) -> Inputs:
        # In a fused batch without longer clips the extractor marks a random one as longer; none is.
        return {"is_longer": torch.zeros(len(waveforms), 1, dtype=torch.bool, device=waveforms.device)}

    return _FrontEnd("input_features", features, others)


def _repeated(waveforms: Tensor, longest: int, padding: str) -> Tensor:
    """Fill to (B, longest): "repeat" to the end; "repeatpad" whole repetitions, then zeros; else zeros."""
    times = longest // waveforms.shape[1]
    if padding == "repeat":
        return waveforms.repeat(1, times + 1)[:, :longest]
    if padding == "repeatpad":
        waveforms = waveforms.repeat(1, times)
    return F.pad(waveforms, (0, longest - waveforms.shape[1]))


# --- wav2vec 2.0 and similar -------------------------------------------------------------------------------


def _wav2vec2(extractor: Any) -> _FrontEnd:
    def features(waveforms: Tensor) -> Tensor:
        if not extractor.do_normalize:
            return waveforms
        centred = waveforms - waveforms.mean(dim=1, keepdim=True)
        return centred / (centred.square().mean(dim=1, keepdim=True) + 1e-7).sqrt()

    return _FrontEnd("input_values", features, lambda waveforms: _all_real(extractor, waveforms))


_KNOWN: dict[str, Callable[[Any], _FrontEnd | None]] = {
    "ASTFeatureExtractor": _ast,
    "WhisperFeatureExtractor": _whisper,
    "ClapFeatureExtractor": _clap,
    "Wav2Vec2FeatureExtractor": _wav2vec2,
}
