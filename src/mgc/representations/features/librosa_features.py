"""Chroma and the constant-Q spectrogram; and what features share: their cards, and librosa on all cores.

To add a feature, write a function from samples to an array, and make a card of it with `frames_card` or
`vector_card`.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mgc.audio import Windowing
from mgc.representations.card import Encoder, Layer, Representation
from mgc.representations.spec import ModelSpec
from mgc.util.compiled import prepare_librosa
from mgc.util.workers import cores, exit_with_parent

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mgc.representations.card import Encoded

FRAMES_RATE_HZ = 22_050  # librosa's default
HOP = 512  # samples; librosa's default
WINDOW_SECONDS = 120
TOP_DB = 80.0  # of the constant-Q spectrogram, below the clip's maximum
SHORTEST_SECONDS = 0.25  # shorter clips are padded with silence, since librosa's filters need some samples

Compute = Callable[[np.ndarray], np.ndarray]


def chroma() -> Representation:
    """Strength of the 12 pitch classes, (T, 12): `librosa.feature.chroma_stft`; each frame's maximum is 1."""
    return frames_card("chroma", "librosa.feature.chroma_stft", 12, _chroma)


def _chroma(samples: np.ndarray) -> np.ndarray:
    import librosa

    return librosa.feature.chroma_stft(y=samples, sr=FRAMES_RATE_HZ).T


def cqt() -> Representation:
    """Constant-Q spectrogram of 84 semitones from C1, (T, 84), in dB relative to the clip's maximum."""
    card = frames_card("cqt", "librosa.cqt and amplitude_to_db", 84, _cqt_decibels)
    return replace(card, finish=_relative_to_maximum)


def _cqt_decibels(samples: np.ndarray) -> np.ndarray:
    import librosa

    magnitude = np.abs(librosa.cqt(samples, sr=FRAMES_RATE_HZ))
    return librosa.amplitude_to_db(magnitude, ref=1.0, top_db=None).T


def _relative_to_maximum(decibels: np.ndarray) -> np.ndarray:
    decibels -= decibels.max()
    return np.maximum(decibels, -TOP_DB, out=decibels)


def frames_card(name: str, source: str, dim: int, compute: Compute, revision: int = 1) -> Representation:
    """A feature of shape (T, dim) at 22,050 Hz; `compute` maps n samples to (1 + n // 512, dim).

    Clips of up to two minutes are computed at once. Longer ones are computed in windows with 12 s of context
    before and 1.5 s after, more than the longest filter of a constant-Q transform. Tuning is estimated per
    window.
    """
    window = WINDOW_SECONDS * FRAMES_RATE_HZ // HOP * HOP
    cut = Windowing(FRAMES_RATE_HZ, window, left=512 * HOP, right=64 * HOP, pad=True)
    kind = {"pooled": False, "frames_a_second": FRAMES_RATE_HZ / HOP, "revision": revision}
    return feature_card(name, source, dim, cut, partial(_Frames, compute, cut), **kind)


def vector_card(
    name: str, source: str, names: tuple[str, ...], sample_rate_hz: int, compute: Compute, revision: int = 1
) -> Representation:
    """A feature of one vector per clip; `compute` maps samples to (len(names),).

    Clips longer than two minutes are computed in windows of two minutes; the embedding cache keeps the mean
    and deviation over windows, weighted by length.
    """
    cut = Windowing(sample_rate_hz, WINDOW_SECONDS * sample_rate_hz, pad=True)
    kind = {"pooled": True, "dtype": "float32", "pool": "mean", "revision": revision}
    return feature_card(name, source, len(names), cut, partial(_Vectors, compute, cut), **kind)


def feature_card(
    name: str, source: str, dim: int, cut: Windowing, load: Callable[["torch.device"], Encoder], **more: Any
) -> Representation:
    """The card of a feature with one layer, which needs no weights."""
    return Representation(
        name=name, spec=ModelSpec(name), source=source, cut=cut, layers=(Layer(name, dim),), parameters=0,
        licence="none needed", trained_on="nothing", weights="", load=load, **{"revision": 1, **more},
    )  # fmt: skip


@dataclass(frozen=True)
class _Frames:
    compute: Compute
    cut: Windowing
    device: "torch.device"

    def __call__(self, waveforms: "Tensor", covered: "Tensor", real: "Tensor") -> "Encoded":
        import torch

        cut, lengths = self.cut, real.tolist()
        parts, firsts, counts = [], [], []
        for samples, length in zip(waveforms.cpu().numpy(), lengths, strict=True):
            # Zeros before the first window and after the last are not part of the clip: librosa pads itself.
            before = samples[: cut.left].any() or length < SHORTEST_SECONDS * cut.sample_rate_hz
            after = samples[cut.left + length :].any()
            end = cut.left + length + (cut.right if after else 0)
            parts.append(samples[0 if before else cut.left : end])
            firsts.append(cut.left // HOP if before else 0)
            # The frame at the end of a full window belongs to the next window.
            counts.append(length // HOP + 1 if length < cut.window else cut.window // HOP)
        arrays = side_by_side(self.compute, parts)
        frames = np.zeros((len(arrays), max(counts), arrays[0].shape[1]), np.float32)
        for row, (array, first, count) in enumerate(zip(arrays, firsts, counts, strict=True)):
            frames[row, :count] = array[first : first + count]
        weights = np.arange(max(counts)) < np.array(counts)[:, None]
        return [torch.from_numpy(frames).to(self.device)], torch.from_numpy(weights).float().to(self.device)


@dataclass(frozen=True)
class _Vectors:
    compute: Compute
    cut: Windowing
    device: "torch.device"

    def __call__(self, waveforms: "Tensor", covered: "Tensor", real: "Tensor") -> "Encoded":
        import torch

        shortest = round(SHORTEST_SECONDS * self.cut.sample_rate_hz)
        parts = [
            samples[: max(length, shortest)]
            for samples, length in zip(waveforms.cpu().numpy(), real.tolist(), strict=True)
        ]
        vectors = torch.from_numpy(np.stack(side_by_side(self.compute, parts)).astype(np.float32))
        # A window is one frame (B, 1, D), weighted by its length.
        return [vectors.unsqueeze(1).to(self.device)], (real / self.cut.window).unsqueeze(1)


def side_by_side(compute: Compute, parts: list[np.ndarray]) -> list[np.ndarray]:
    """`compute` of every part, in one single-threaded process per core, or in this process for one part.

    The processes are reused by the next call, and end with this process however it ends.
    """
    if len(parts) == 1 or cores() == 1:
        return [_quietly(compute, part) for part in parts]
    from joblib import Parallel, delayed, parallel_config

    # max_nbytes=None: arrays are not written to disk, where a killed run would leave them.
    with parallel_config("loky", n_jobs=cores(), inner_max_num_threads=1, max_nbytes=None):
        arrays: list[np.ndarray] = Parallel()(delayed(_in_process)(compute, part) for part in parts)
    return arrays


def _in_process(compute: Compute, samples: np.ndarray) -> np.ndarray:
    exit_with_parent()
    return _quietly(compute, samples)


def _quietly(compute: Compute, samples: np.ndarray) -> np.ndarray:
    prepare_librosa()
    with warnings.catch_warnings():
        # librosa and SciPy warn about clips shorter than a filter, silence and constants.
        warnings.simplefilter("ignore")
        return compute(samples)
