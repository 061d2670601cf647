"""MSD_musicnn as a representation: its numbers, and how its windows are cut and pooled.

The network and the way to its weights are in modules beside this one, imported when it is loaded.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mgc.audio import Windowing
from mgc.representations.card import Layer, Representation
from mgc.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from mgc.representations.encoders.musicnn_network import MusicNN

WHEEL_SHA256 = "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa"

# musicnn/configuration.py and extractor.py in the wheel
SAMPLE_RATE_HZ = 16_000
N_FFT = 512
HOP_SAMPLES = 256
N_MELS = 96
WINDOW_FRAMES = 187  # 3 s

# musicnn/models.py: filters, frames, bands of the five front-end layers. Vertical ones see 0.4 and 0.7 of
# the bands (timbre), horizontal ones 2, 1 and 0.5 s of one band (rhythm); 204 = int(1.6 * 128) and
# 51 = int(1.6 * 32). Both kinds end in the maximum over bands.
FRONT_END = ((204, 7, 38), (204, 7, 67), (51, 128, 1), (51, 64, 1), (51, 32, 1))
FRONT_FILTERS = sum(filters for filters, _, _ in FRONT_END)  # 561
MIDDLE_FILTERS, MIDDLE_FRAMES = 64, 7
POOLED = FRONT_FILTERS + 3 * MIDDLE_FILTERS  # 753
PENULTIMATE = 200

WINDOW = WINDOW_FRAMES * HOP_SAMPLES
CONTEXT = HOP_SAMPLES  # half an STFT frame on both sides: frames at the joints are whole


def musicnn(workspace: Workspace) -> Representation:
    """MSD_musicnn over windows of 3 s: max pool and mean pool (753 each), penultimate (200)."""
    return Representation(
        name="musicnn",
        address="musicnn",
        source="MSD_musicnn of the wheel musicnn 0.1.0 (arXiv 1909.06654)",
        cut=Windowing(SAMPLE_RATE_HZ, WINDOW, left=CONTEXT, right=CONTEXT, ignore=SAMPLE_RATE_HZ // 4),
        layers=(
            Layer("max_pool", POOLED),
            Layer("mean_pool", POOLED),
            Layer("penultimate", PENULTIMATE),
        ),
        pooled=True,
        parameters=None,
        licence="ISC",
        trained_on="Million Song Dataset, 50 tags",
        weights=WHEEL_SHA256,
        revision=1,
        load=partial(_load, workspace.weights),
    )


def _load(weights: Path, device: "torch.device") -> "_Encoder":
    from mgc.representations.encoders.musicnn_network import MusicNN
    from mgc.representations.encoders.musicnn_weights import fetch_weights

    return _Encoder(MusicNN.from_safetensors(fetch_weights(weights)).to(device))


class _Encoder:
    def __init__(self, model: "MusicNN") -> None:
        self.model = model

    def __call__(
        self, waveforms: "torch.Tensor", covered: "torch.Tensor", real: "torch.Tensor"
    ) -> tuple[list["torch.Tensor"], "torch.Tensor"]:
        from mgc.representations.encoders.musicnn_network import logmel

        inner = waveforms.shape[1] - 2 * CONTEXT
        if inner < WINDOW:
            # A clip shorter than the window is repeated to fill it: silence would be pooled as music.
            waveforms = _repeated(waveforms[:, CONTEXT : CONTEXT + inner])
        logmels = logmel(waveforms, center=False)[:, :WINDOW_FRAMES]  # (B, 187, 96)
        out = self.model(logmels)
        layers = [x.unsqueeze(1) for x in (out.max_pool, out.mean_pool, out.penultimate)]  # (B, 1, D)
        # One frame a window, which counts as much as it is new.
        return layers, ((real - covered) / inner).unsqueeze(1)


def _repeated(waveforms: "torch.Tensor") -> "torch.Tensor":
    """(B, n) -> (B, context + window + context): the clip again and again, zeros as context."""
    import torch

    times = -(-WINDOW // waveforms.shape[1])
    filled = waveforms.repeat(1, times)[:, :WINDOW]
    return torch.nn.functional.pad(filled, (CONTEXT, CONTEXT))
