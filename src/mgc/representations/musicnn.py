"""MSD_musicnn as a representation."""

import sys
from functools import partial
from pathlib import Path

import torch

from mgc.audio import Windowing
from mgc.config import weights_dir
from mgc.representations import musicnn_network as network
from mgc.representations import musicnn_weights
from mgc.representations.kinds import Layer, Representation, code_hash

WINDOW = network.WINDOW_FRAMES * network.HOP_SAMPLES
CONTEXT = network.HOP_SAMPLES  # half an STFT frame on both sides: frames at the joints are whole


def musicnn() -> Representation:
    """MSD_musicnn over windows of 3 s: max pool and mean pool (753 each), penultimate (200)."""
    file = musicnn_weights.fetch_weights(weights_dir())
    rate = network.SAMPLE_RATE_HZ
    return Representation(
        name="musicnn",
        address="musicnn",
        source="MSD_musicnn of the wheel musicnn 0.1.0 (arXiv 1909.06654)",
        cut=Windowing(rate, WINDOW, left=CONTEXT, right=CONTEXT, ignore=rate // 4),
        layers=(
            Layer("max_pool", network.POOLED),
            Layer("mean_pool", network.POOLED),
            Layer("penultimate", network.PENULTIMATE),
        ),
        pooled=True,
        parameters=None,
        licence="ISC",
        trained_on="Million Song Dataset, 50 tags",
        weights=musicnn_weights.WHEEL_SHA256,
        code=code_hash(sys.modules[__name__], network, musicnn_weights),
        load=partial(_load, file),
    )


def _load(file: Path, device: torch.device) -> "_Encoder":
    return _Encoder(network.MusicNN.from_safetensors(file).to(device))


class _Encoder:
    def __init__(self, model: network.MusicNN) -> None:
        self.model = model

    def __call__(
        self, waveforms: torch.Tensor, covered: torch.Tensor, real: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        inner = waveforms.shape[1] - 2 * CONTEXT
        if inner < WINDOW:
            # A clip shorter than the window is repeated to fill it: silence would be pooled as music.
            waveforms = _repeated(waveforms[:, CONTEXT : CONTEXT + inner])
        logmels = network.logmel(waveforms, center=False)[:, : network.WINDOW_FRAMES]  # (B, 187, 96)
        out = self.model(logmels)
        layers = [x.unsqueeze(1) for x in (out.max_pool, out.mean_pool, out.penultimate)]  # (B, 1, D)
        # One frame a window, which counts as much as it is new.
        return layers, ((real - covered) / inner).unsqueeze(1)


def _repeated(waveforms: torch.Tensor) -> torch.Tensor:
    """(B, n) -> (B, context + window + context): the clip again and again, zeros as context."""
    times = -(-WINDOW // waveforms.shape[1])
    filled = waveforms.repeat(1, times)[:, :WINDOW]
    return torch.nn.functional.pad(filled, (CONTEXT, CONTEXT))
