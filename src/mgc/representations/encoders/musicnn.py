"""MSD_musicnn as a representation: how clips are cut into windows, and which layers come out.

This module does not import torch, so that making the card is cheap. The network is in `musicnn_network`, the
download of its weights in `musicnn_weights`.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mgc.audio import Windowing
from mgc.representations.card import Layer, Representation
from mgc.representations.encoders.musicnn_weights import WHEEL_SHA256, fetch_weights
from mgc.representations.spec import ModelSpec
from mgc.workspace import Workspace

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mgc.representations.card import Encoded
    from mgc.representations.encoders.musicnn_network import MusicNN

SAMPLE_RATE_HZ = 16_000
WINDOW_FRAMES = 187
HOP_SAMPLES = 256
WINDOW = WINDOW_FRAMES * HOP_SAMPLES  # samples, 3 s
CONTEXT = HOP_SAMPLES  # half an STFT frame on both sides, so that frames at window borders are complete


def musicnn(workspace: Workspace) -> Representation:
    """MSD_musicnn over windows of 3 s: max pool and mean pool (753 dimensions each), penultimate (200)."""
    return Representation(
        name="musicnn",
        spec=ModelSpec("musicnn"),
        source="MSD_musicnn of the wheel musicnn 0.1.0 (arXiv 1909.06654)",
        cut=Windowing(SAMPLE_RATE_HZ, WINDOW, left=CONTEXT, right=CONTEXT, ignore=SAMPLE_RATE_HZ // 4),
        layers=(Layer("max_pool", 753), Layer("mean_pool", 753), Layer("penultimate", 200)),
        pooled=True,
        parameters=None,
        licence="ISC",
        trained_on="Million Song Dataset, 50 tags",
        weights=WHEEL_SHA256,
        revision=1,
        load=partial(_load, workspace),
    )


def load_network(file: Path) -> "MusicNN":
    """The network with the weights in `file`, every layer as published.

    Raises:
        MgcError: the file cannot be read or does not hold these weights.
    """
    from mgc.representations.encoders.musicnn_network import MusicNN
    from mgc.representations.encoders.state_dict import load_weights

    network = MusicNN()
    load_weights(network, file, "MSD_musicnn", fix="delete the file and rerun: it is converted again")
    return network


def _load(workspace: Workspace, device: "torch.device") -> "_Encoder":
    return _Encoder(load_network(fetch_weights(workspace)).without_dead_filters().to(device))


@dataclass(frozen=True)
class _Encoder:
    model: "MusicNN"

    def __call__(self, waveforms: "Tensor", covered: "Tensor", real: "Tensor") -> "Encoded":
        from torch.nn.functional import pad

        from mgc.representations.encoders.musicnn_network import logmel

        length = waveforms.shape[1] - 2 * CONTEXT
        if length < WINDOW:
            # A clip shorter than a window is repeated, since padding with silence would change the pooling.
            repeated = waveforms[:, CONTEXT : CONTEXT + length].repeat(1, -(-WINDOW // length))
            waveforms = pad(repeated[:, :WINDOW], (CONTEXT, CONTEXT))
        output = self.model(logmel(waveforms, center=False)[:, :WINDOW_FRAMES])  # log-mels (B, 187, 96)
        layers = [x.unsqueeze(1) for x in (output.max_pool, output.mean_pool, output.penultimate)]
        # A window is one frame (B, 1, D). Its weight is the share of the window that no earlier one covered.
        return layers, ((real - covered) / length).unsqueeze(1)
