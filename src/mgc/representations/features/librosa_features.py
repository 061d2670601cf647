"""What hand-made features share: cards, and librosa over the windows of a batch, side by side on the cores.

A feature is a module of its own with a function from samples to an array, so that another one, added or
changed, leaves its vectors in the store valid.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mgc.audio import Windowing
from mgc.representations.card import Encoder, Layer, Representation
from mgc.util.compiled import prepare_librosa
from mgc.util.workers import cores, exit_with_parent

if TYPE_CHECKING:
    import torch

HOP = 512  # samples: librosa's default
WINDOW_SECONDS = 120
SHORTEST_SECONDS = 0.25  # less is filled up with silence: librosa's filters need some samples

Compute = Callable[[np.ndarray], np.ndarray]


def frames_card(name: str, source: str, dim: int, compute: Compute, revision: int) -> Representation:
    """All frames of a clip at 22,050 Hz, (T, dim): what `compute` gives of n samples is (1 + n // 512, dim).

    A clip of up to two minutes is computed whole. Of longer ones every window sees 12 s before it and 1.5 s
    behind it, more than the longest filter of a constant-Q transform; a tuning is estimated for each anew.
    """
    rate = 22_050
    seconds = WINDOW_SECONDS * rate // HOP * HOP
    cut = Windowing(rate, seconds, left=512 * HOP, right=64 * HOP, pad=True)
    encoder = partial(_Frames, compute, cut)
    return _card(name, source, dim, cut, encoder, revision=revision, pooled=False, frames_a_second=rate / HOP)


def vector_card(
    name: str, source: str, names: tuple[str, ...], sample_rate_hz: int, compute: Compute, revision: int
) -> Representation:
    """One vector a clip, (len(names),): what `compute` gives for the whole, up to two minutes.

    Of a longer clip the store keeps mean and deviation over windows of two minutes, weighted by length.
    """
    cut = Windowing(sample_rate_hz, WINDOW_SECONDS * sample_rate_hz, pad=True)
    encoder = partial(_Vectors, compute, cut)
    return _card(
        name, source, len(names), cut, encoder, revision=revision, pooled=True, dtype="float32", pool="mean"
    )


def _card(
    name: str, source: str, dim: int, cut: Windowing, load: Callable[["torch.device"], Encoder], **more: Any
) -> Representation:
    return Representation(
        name=name,
        address=name,
        source=source,
        cut=cut,
        layers=(Layer(name, dim),),
        parameters=0,
        licence="none needed",
        trained_on="nothing",
        weights="",
        load=load,
        **more,
    )


@dataclass(frozen=True)
class _Frames:
    compute: Compute
    cut: Windowing
    device: "torch.device"

    def __call__(
        self, waveforms: "torch.Tensor", covered: "torch.Tensor", real: "torch.Tensor"
    ) -> tuple[list["torch.Tensor"], "torch.Tensor"]:
        import torch

        cut, lengths = self.cut, real.tolist()
        parts, firsts, counts = [], [], []
        for samples, length in zip(waveforms.cpu().numpy(), lengths, strict=True):
            # Zeros before the first window and behind the last are none of the clip: librosa pads by itself.
            before = samples[: cut.left].any() or length < SHORTEST_SECONDS * cut.sample_rate_hz
            behind = samples[cut.left + length :].any()
            end = cut.left + length + (cut.right if behind else 0)
            parts.append(samples[0 if before else cut.left : end])
            firsts.append(cut.left // HOP if before else 0)
            # The frame centred on a full window's end is the next window's first.
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

    def __call__(
        self, waveforms: "torch.Tensor", covered: "torch.Tensor", real: "torch.Tensor"
    ) -> tuple[list["torch.Tensor"], "torch.Tensor"]:
        import torch

        shortest = round(SHORTEST_SECONDS * self.cut.sample_rate_hz)
        parts = [
            samples[: max(length, shortest)]
            for samples, length in zip(waveforms.cpu().numpy(), real.tolist(), strict=True)
        ]
        vectors = torch.from_numpy(np.stack(side_by_side(self.compute, parts)).astype(np.float32))
        # One frame a window, which counts as much as it is long.
        return [vectors.unsqueeze(1).to(self.device)], (real / self.cut.window).unsqueeze(1)


def side_by_side(compute: Compute, parts: list[np.ndarray]) -> list[np.ndarray]:
    """`compute` of every part, in a process a core with one thread each; of a single part right here.

    The processes wait for the next call and end with this process, however it ends.
    """
    if len(parts) == 1 or cores() == 1:
        return [_quietly(compute, part) for part in parts]
    from joblib import Parallel, delayed, parallel_config

    # No arrays on disk: a killed run would leave them there.
    with parallel_config("loky", n_jobs=cores(), inner_max_num_threads=1, max_nbytes=None):
        arrays: list[np.ndarray] = Parallel()(delayed(_in_process)(compute, part) for part in parts)
    return arrays


def _in_process(compute: Compute, samples: np.ndarray) -> np.ndarray:
    exit_with_parent()
    return _quietly(compute, samples)


def _quietly(compute: Compute, samples: np.ndarray) -> np.ndarray:
    prepare_librosa()
    with warnings.catch_warnings():
        # Of clips shorter than a filter, of silence without a tuning, of constants without a skew.
        warnings.simplefilter("ignore")
        return compute(samples)
