"""The table of networks trained from scratch: (B, 1, frames, bands), normalised, to (B, classes) logits.

A network is a class that is made of (classes, bands, frames, **options), and a line in `NETWORKS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from torch import nn

from mgc.config import BaselineRecipe
from mgc.training.networks.plain import CNN, CNN5, MLP, UNetEncoder
from mgc.training.networks.separable import GRU, EfficientCNN, cnn_gru, cnn_gru_attention, cnn_lstm
from mgc.util.errors import MgcError, did_you_mean

__all__ = [
    "NETWORKS",
    "OPTIONS",
    "Network",
    "count_parameters",
    "find_network",
    "make_network",
    "options_of",
    "resolved",
]

Option = float | str
OPTIONS = ("dropout", "classifier_dropout", "scan")  # of a recipe; each network knows some
SCANS = ("time", "mel")


@dataclass(frozen=True)
class Network:
    """What is known of a network before it is made; frames and bands are those of its input."""

    make: Callable[..., nn.Module]  # make(classes, bands, frames, **options)
    representation: str = "logmel"  # what it was published on
    normalise: str = "track"  # "track" | "train" | "range" (to 0..1) | "l2" | "none"
    options: Mapping[str, Option] = field(default_factory=dict)  # all that it knows, with published values
    min_frames: int = 1
    min_bands: int = 1
    max_frames: int | None = None
    revision: int = 1  # raised by hand when the same input and seed give other outputs


def _convolved(make: Callable[..., nn.Module], **options: Option) -> Network:
    """One whose stack halves frames and bands three times."""
    return Network(make, options=options, min_frames=8, min_bands=8)


NETWORKS: dict[str, Network] = {
    "cnn": Network(CNN, options={"dropout": 0.25}, min_frames=32),
    "cnn5": Network(CNN5, normalise="range", options={"classifier_dropout": 0.5}),
    "mlp57": Network(MLP, "stats57", "l2", {"classifier_dropout": 0.5}, max_frames=1),
    "gru": Network(GRU, options={"classifier_dropout": 0.3}),
    "efficient_cnn": _convolved(EfficientCNN, dropout=0.3, classifier_dropout=0.3),
    "cnn_gru": _convolved(cnn_gru, dropout=0.3, classifier_dropout=0.3, scan="time"),
    "cnn_lstm": _convolved(cnn_lstm, dropout=0.3, classifier_dropout=0.3, scan="time"),
    "cnn_gru_attention": _convolved(cnn_gru_attention, dropout=0.2, classifier_dropout=0.4, scan="time"),
    "unet_encoder": Network(UNetEncoder, "logmel44", "train", {"dropout": 0.25}, min_frames=16),
}


def find_network(name: str) -> Network:
    """The line of the table.

    Raises:
        MgcError: no network of that name.
    """
    if name not in NETWORKS:
        raise MgcError(f"there is no network {name!r}", fix=did_you_mean(name, NETWORKS))
    return NETWORKS[name]


def options_of(name: str, options: Mapping[str, Option | None]) -> dict[str, Option]:
    """All options of the network `name`: those given, and its own where none or None is given.

    Raises:
        MgcError: no such network, an option that it does not know, or a value that the option cannot take.
    """
    own = find_network(name).options
    given = {key: value for key, value in options.items() if value is not None}
    for key, value in given.items():
        if key not in own:
            fix = f"leave {key} out; {name} knows {', '.join(own)}"
            raise MgcError(f"the network {name} has no {key}", where=f"{key} = {value!r}", fix=fix)
        if key == "scan" and value not in SCANS:
            raise MgcError(f"scan = {value!r} is no axis", where=name, fix=did_you_mean(str(value), SCANS))
        if key != "scan" and not (isinstance(value, float | int) and 0 <= value < 1):
            raise MgcError(
                f"{key} = {value!r} is no share of 0 to below 1", where=name, fix="write, say, 0.3"
            )
    return {**own, **given}


def resolved(recipe: BaselineRecipe) -> BaselineRecipe:
    """The recipe with the network's own values where it leaves them open.

    Raises:
        MgcError: no such network or representation, or an option that the network does not know.
    """
    network = find_network(recipe.network)
    options = options_of(recipe.network, {key: getattr(recipe, key) for key in OPTIONS})
    own = {"representation": recipe.representation or network.representation, **options}
    train = recipe.train.model_copy(update={"normalise": recipe.train.normalise or network.normalise})
    augment = recipe.augment
    in_deviations = augment.noise or augment.mask or augment.strong_class
    if in_deviations and train.normalise not in ("track", "train"):
        raise MgcError(
            "noise and masks are in units of a normalised input: mean 0, deviation 1",
            where=f"augment, with train.normalise = {train.normalise!r}",
            fix="set train.normalise to track or train, or leave out noise, mask and strong_class",
        )
    return recipe.model_copy(update={**own, "train": train})


def make_network(
    name: str,
    classes: int,
    bands: int,
    frames: int,
    options: Mapping[str, Option | None] = MappingProxyType({}),
) -> nn.Module:
    """The network called `name` for inputs (B, 1, frames, bands), weights drawn from torch's current seed.

    Raises:
        MgcError: no such network, an option that it does not know, or an input that it cannot take.
    """
    network, chosen = find_network(name), options_of(name, options)
    where = f"an input of {frames} frames x {bands} bands"
    if frames < network.min_frames:
        fix = "train on longer crops (train.crop_seconds), or on a representation that has frames"
        raise MgcError(f"{name} needs {network.min_frames} frames or more", where=where, fix=fix)
    if bands < network.min_bands:
        fix = f"choose another representation, say {network.representation}"
        raise MgcError(f"{name} needs {network.min_bands} bands or more", where=where, fix=fix)
    if network.max_frames is not None and frames > network.max_frames:
        fix = f"choose a representation of one row a track, say {network.representation}"
        raise MgcError(f"{name} takes one row of numbers a track", where=where, fix=fix)
    return network.make(classes, bands, frames, **chosen)


def count_parameters(network: nn.Module) -> int:
    """Trained parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
