"""EfficientAT mn04_as as a representation: its numbers, where its weights lie, how its frames are weighted.

The network is in a module beside this one, imported when it is loaded.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mgc.audio import Windowing
from mgc.data.clips import file_hash
from mgc.representations.card import Layer, Representation
from mgc.util.errors import MgcError
from mgc.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from mgc.representations.encoders.efficientat_network import EfficientAT

# What a folder of this kind holds: the release's file, or the same weights as safetensors.
WEIGHTS = ("mn04_as*.safetensors", "mn04_as*.pt")
NAME, FOLDER = "efficientat_mn04", "efficientat-mn04"
RELEASE = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/mn04_as_mAP_432.pt"

# models/preprocess.py of the repository
SAMPLE_RATE_HZ = 32_000
N_FFT = 1024
TAPER_SAMPLES = 800
HOP_SAMPLES = 320
N_MELS = 128
HIGHEST_HZ = 15_000.0  # half the rate, less half the range that training varied it by
WINDOW = 10 * SAMPLE_RATE_HZ  # AudioSet's clips


class Block(NamedTuple):
    """An inverted residual: the depthwise kernel and stride, channels within and after, what is in it."""

    kernel: int
    expanded: int
    outputs: int
    squeeze: bool
    hard_swish: bool
    stride: int


# MobileNetV3-large (arXiv 1905.02244, table 1) with 0.4 times the channels, to the nearest eight
STEM = 8
BLOCKS = (
    Block(3, 8, 8, False, False, 1),
    Block(3, 24, 16, False, False, 2),
    Block(3, 32, 16, False, False, 1),
    Block(5, 32, 16, True, False, 2),
    Block(5, 48, 16, True, False, 1),
    Block(5, 48, 16, True, False, 1),
    Block(3, 96, 32, False, True, 2),
    Block(3, 80, 32, False, True, 1),
    Block(3, 72, 32, False, True, 1),
    Block(3, 72, 32, False, True, 1),
    Block(3, 192, 48, True, True, 1),
    Block(3, 272, 48, True, True, 1),
    Block(5, 272, 64, True, True, 2),
    Block(5, 384, 64, True, True, 1),
    Block(5, 384, 64, True, True, 1),
)
EMBEDDING = 384
HIDDEN, N_TAGS = 512, 527
PARAMETERS = 983_599

# After which blocks (from 1) the width or the stride changes, and the hops between two frames there.
STAGES = {3: 4, 6: 8, 10: 16, 12: 16, 15: 32}
FRAME_HOPS = 32  # between two frames of the embedding: 320 ms


def published() -> Representation:
    """The card as it is without its weights: windows of 10 s, five stages and the 384-d embedding."""
    return Representation(
        name=NAME,
        address=NAME,
        source="mn04_as of EfficientAT (arXiv 2211.04772)",
        cut=Windowing(SAMPLE_RATE_HZ, WINDOW, ignore=SAMPLE_RATE_HZ // 4),
        layers=(
            *(Layer(f"stage{n}", BLOCKS[k - 1].outputs) for n, k in enumerate(STAGES, 1)),
            Layer("embedding", EMBEDDING),
        ),
        pooled=True,
        parameters=PARAMETERS,
        licence="MIT",
        trained_on="AudioSet tags, distilled from transformers",
        weights="",
        revision=1,
        load=_refuse,
    )


def efficientat(workspace: Workspace, folder: Path | None = None) -> Representation:
    """mn04_as with its weights, from `folder` or the first of the usual ones that holds them.

    Raises:
        MgcError: they are not there, or cannot be read.
    """
    file = _found(workspace, folder)
    try:
        weights = file_hash(file, workspace.cache)
    except OSError as error:
        raise MgcError(f"the weights of EfficientAT cannot be read: {error.strerror}", where=file) from None
    card = published()
    return replace(
        card,
        name=folder.resolve().name if folder else NAME,
        address=str(folder.absolute()) if folder else NAME,
        source=f"{card.source}, {file.resolve()}",
        weights=weights,
        load=partial(_load, file),
    )


def _found(workspace: Workspace, folder: Path | None) -> Path:
    if file := find_weights(workspace, folder):
        return file
    places = [folder] if folder else usual_folders(workspace)
    raise MgcError(
        "the weights of EfficientAT mn04 are not there",
        where=" or ".join(map(str, places)),
        fix=f"put {RELEASE} into {places[0]}; or set MGC_WEIGHTS to the folder that holds {FOLDER}/; "
        f"or --model path/to/{FOLDER}",
    )


def usual_folders(workspace: Workspace) -> list[Path]:
    """Where the short name looks: in `$MGC_WEIGHTS`, if that is set, and beside the converted weights."""
    roots = [workspace.encoders] if workspace.encoders else []
    return [root / FOLDER for root in (*roots, workspace.weights)]


def find_weights(workspace: Workspace, folder: Path | None = None) -> Path | None:
    """The file with the weights in `folder`, by default in the first of the usual ones that holds one."""
    places = [folder] if folder else usual_folders(workspace)
    found = (file for place in places for kind in WEIGHTS for file in sorted(place.glob(kind)))
    return next((file for file in found if file.is_file()), None)


def _refuse(device: "torch.device") -> "_Encoder":
    raise MgcError(f"{NAME}: a published configuration has no weights", fix="open it by its name")


def _load(file: Path, device: "torch.device") -> "_Encoder":
    from mgc.representations.encoders.efficientat_network import EfficientAT

    return _Encoder(EfficientAT.from_file(file).to(device))


class _Encoder:
    def __init__(self, model: "EfficientAT") -> None:
        self.model = model

    def __call__(
        self, waveforms: "torch.Tensor", covered: "torch.Tensor", real: "torch.Tensor"
    ) -> tuple[list["torch.Tensor"], "torch.Tensor"]:
        import torch

        from mgc.representations.encoders.efficientat_network import logmel

        # A clip shorter than the window is one shorter window, so every frame is real.
        layers = self.model(logmel(waveforms)).layers
        starts = torch.arange(layers[-1].shape[1], device=waveforms.device) * FRAME_HOPS * HOP_SAMPLES
        return layers, (starts >= covered.unsqueeze(1)).float()
