"""EfficientAT mn04_as as a representation: how clips are cut, which layers come out, where its weights are.

This module does not import torch, so that making the card is cheap. The network is in `efficientat_network`.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mgc.audio import Windowing
from mgc.data.clips import file_hash
from mgc.representations.card import Layer, Representation
from mgc.representations.encoders.checkpoints import check_hash
from mgc.representations.spec import ModelSpec
from mgc.util.errors import MgcError, explaining
from mgc.workspace import Workspace

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mgc.representations.card import Encoded
    from mgc.representations.encoders.efficientat_network import EfficientAT

# The files that a folder may hold: that of the release, or the same weights as safetensors.
WEIGHTS = ("mn04_as*.safetensors", "mn04_as*.pt")
NAME, FOLDER = "efficientat_mn04", "efficientat-mn04"
RELEASE = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/mn04_as_mAP_432.pt"

SAMPLE_RATE_HZ = 32_000
WINDOW = 10 * SAMPLE_RATE_HZ  # samples; the length of AudioSet's clips
FRAME_SAMPLES = 32 * 320  # 32 hops of 10 ms between two frames of the embedding
# Channels after each stage of the network (`efficientat_network.STAGES`).
STAGE_DIMS = (16, 16, 32, 48, 64)
PARAMETERS = 983_599


def published() -> Representation:
    """The card without weights: windows of 10 s, five stages and the embedding. It cannot be loaded."""
    return Representation(
        name=NAME,
        spec=ModelSpec(NAME),
        source="mn04_as of EfficientAT (arXiv 2211.04772)",
        cut=Windowing(SAMPLE_RATE_HZ, WINDOW, ignore=SAMPLE_RATE_HZ // 4),
        layers=(*(Layer(f"stage{k}", dim) for k, dim in enumerate(STAGE_DIMS, 1)), Layer("embedding", 384)),
        pooled=True,
        parameters=PARAMETERS,
        licence="MIT",
        trained_on="AudioSet tags, distilled from transformers",
        weights="",
        revision=1,
        load=_refuse,
    )


def efficientat(workspace: Workspace, folder: Path | None = None) -> Representation:
    """mn04_as with its weights, from `folder` or the first default folder that has them.

    Raises:
        MgcError: the weights are missing or cannot be read.
    """
    file = find_weights(workspace, folder)
    if file is None:
        places = [folder] if folder else default_folders(workspace)
        raise MgcError(
            "the weights of EfficientAT mn04 were not found",
            where=" or ".join(map(str, places)),
            fix=f"put {RELEASE} into {places[0]}; or set MGC_WEIGHTS to the folder that holds {FOLDER}/; "
            f"or use --model path/to/{FOLDER}",
        )
    with explaining("the weights of EfficientAT cannot be read", file):
        weights = file_hash(file, workspace.cache)
    card = published()
    return replace(
        card,
        name=folder.resolve().name if folder else NAME,
        spec=ModelSpec(str(folder.absolute()) if folder else NAME),
        source=f"{card.source}, {file.resolve()}",
        weights=weights,
        load=partial(_load, file, weights),
    )


def default_folders(workspace: Workspace) -> list[Path]:
    """The folders that are searched for weights: in `workspace.encoders`, then in `workspace.weights`."""
    roots = [workspace.encoders] if workspace.encoders else []
    return [root / FOLDER for root in (*roots, workspace.weights)]


def find_weights(workspace: Workspace, folder: Path | None = None) -> Path | None:
    """The weights file in `folder`, by default in the first default folder that has one."""
    places = [folder] if folder else default_folders(workspace)
    files = (file for place in places for pattern in WEIGHTS for file in sorted(place.glob(pattern)))
    return next((file for file in files if file.is_file()), None)


def _refuse(device: "torch.device") -> "_Encoder":
    raise MgcError(f"{NAME}: this card has no weights and cannot be loaded", fix=f"use --model {NAME}")


def load_network(file: Path) -> "EfficientAT":
    """The network with the weights in `file`, every layer as published.

    Raises:
        MgcError: the file cannot be read or does not hold these weights.
    """
    from mgc.representations.encoders.efficientat_network import EfficientAT
    from mgc.representations.encoders.state_dict import load_weights

    network = EfficientAT()
    load_weights(
        network, file, "EfficientAT mn04_as", fix=f"replace it by {RELEASE}",
        rename=lambda name: name.replace("conc_se_layers.0.", ""),  # they act on channels only, in mn04_as
    )  # fmt: skip
    return network


def _load(file: Path, weights: str, device: "torch.device") -> "_Encoder":
    check_hash(file, weights, file_hash(file))
    return _Encoder(load_network(file).fold_batch_norms().to(device))


@dataclass(frozen=True)
class _Encoder:
    model: "EfficientAT"

    def __call__(self, waveforms: "Tensor", covered: "Tensor", real: "Tensor") -> "Encoded":
        import torch

        from mgc.representations.encoders.efficientat_network import logmel

        layers = self.model(logmel(waveforms)).layers  # (B, T, D) each
        # Clips shorter than a window are not padded, so every frame is real; frames that an earlier window
        # has covered get weight 0.
        starts = torch.arange(layers[-1].shape[1], device=waveforms.device) * FRAME_SAMPLES  # (T,) samples
        return layers, (starts >= covered.unsqueeze(1)).float()
