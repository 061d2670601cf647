"""The table of networks trained from scratch: normalised (B, 1, frames, bands) to (B, classes) logits.

To add a network, write a class that is called with (classes, bands, frames, **options), and add it to
`NETWORKS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType

from torch import nn

from mgc.config import BaselineRecipe
from mgc.training.networks.plain import CNN, CNN5, MLP, UNetEncoder
from mgc.training.networks.separable import GRU, EfficientCNN, cnn_gru, cnn_gru_attention, cnn_lstm
from mgc.util.errors import MgcError, did_you_mean

Option = float | str
OPTIONS = ("dropout", "classifier_dropout", "scan")  # in a recipe; each network has some of them
SCANS = ("time", "mel")


@dataclass(frozen=True)
class Network:
    """A network in the table, and the inputs that it takes."""

    make: Callable[..., nn.Module]  # make(classes, bands, frames, **options)
    representation: str = "logmel"  # as published
    normalise: str = "track"  # "track" | "train" | "range" (to 0..1) | "l2" | "none"
    options: Mapping[str, Option] = field(default_factory=dict)  # with their published values
    min_frames: int = 1
    min_bands: int = 1
    max_frames: int | None = None
    revision: int = 1  # raised by hand when the same input and seed give other outputs


_convolved = partial(Network, min_frames=8, min_bands=8)  # its stack halves frames and bands three times

NETWORKS: dict[str, Network] = {
    "cnn": Network(CNN, options={"dropout": 0.25}, min_frames=32),
    "cnn5": Network(CNN5, normalise="range", options={"classifier_dropout": 0.5}),
    "mlp57": Network(MLP, "stats57", "l2", {"classifier_dropout": 0.5}, max_frames=1),
    "gru": Network(GRU, options={"classifier_dropout": 0.3}),
    "efficient_cnn": _convolved(EfficientCNN, options={"dropout": 0.3, "classifier_dropout": 0.3}),
    "cnn_gru": _convolved(cnn_gru, options={"dropout": 0.3, "classifier_dropout": 0.3, "scan": "time"}),
    "cnn_lstm": _convolved(cnn_lstm, options={"dropout": 0.3, "classifier_dropout": 0.3, "scan": "time"}),
    "cnn_gru_attention": _convolved(
        cnn_gru_attention, options={"dropout": 0.2, "classifier_dropout": 0.4, "scan": "time"}
    ),
    "unet_encoder": Network(UNetEncoder, "logmel44", "train", {"dropout": 0.25}, min_frames=16),
}


def find_network(name: str) -> Network:
    """The entry of the table. Raises MgcError if there is none."""
    if name not in NETWORKS:
        raise MgcError(f"unknown network {name!r}", fix=did_you_mean(name, NETWORKS))
    return NETWORKS[name]


def options_of(name: str, options: Mapping[str, Option | None]) -> dict[str, Option]:
    """All options of the network `name`: the given ones, and its defaults for those that are absent or None.

    Raises:
        MgcError: there is no such network or option, or the value of an option is not valid.
    """
    defaults = find_network(name).options
    given = {key: value for key, value in options.items() if value is not None}
    for key, value in given.items():
        if key not in defaults:
            fix = f"omit {key}; the options of {name} are {', '.join(defaults)}"
            raise MgcError(f"the network {name} has no option {key}", where=f"{key} = {value!r}", fix=fix)
        if key == "scan":
            wrong, what, fix = value not in SCANS, "is not an axis", did_you_mean(str(value), SCANS)
        else:
            wrong = not (isinstance(value, float | int) and 0 <= value < 1)
            what, fix = "is outside the range from 0 to below 1", "use a value such as 0.3"
        if wrong:
            raise MgcError(f"{key} = {value!r} {what}", where=name, fix=fix)
    return {**defaults, **given}


def resolved(recipe: BaselineRecipe) -> BaselineRecipe:
    """The recipe with the network's own values for settings that are not given.

    Raises:
        MgcError: there is no such network or option, or augmentation does not fit the normalisation.
    """
    network = find_network(recipe.network)
    options = options_of(recipe.network, {key: getattr(recipe, key) for key in OPTIONS})
    own = {"representation": recipe.representation or network.representation, **options}
    train = recipe.train.model_copy(update={"normalise": recipe.train.normalise or network.normalise})
    augment = recipe.augment
    if (augment.noise or augment.mask or augment.strong_class) and train.normalise not in ("track", "train"):
        raise MgcError(
            "noise and masks need an input that is normalised to mean 0 and deviation 1",
            where=f"augment, with train.normalise = {train.normalise!r}",
            fix="set train.normalise to track or train, or omit noise, mask and strong_class",
        )
    return recipe.model_copy(update={**own, "train": train})


def make_network(
    name: str,
    classes: int,
    bands: int,
    frames: int,
    options: Mapping[str, Option | None] = MappingProxyType({}),
) -> nn.Module:
    """The network `name` for inputs (B, 1, frames, bands), initialised with torch's current random state.

    Raises:
        MgcError: there is no such network or option, or the network cannot take inputs of this size.
    """
    network, chosen = find_network(name), options_of(name, options)
    another = f"choose another representation, such as {network.representation}"
    longer = "train on longer crops (train.crop_seconds), or on a representation that has frames"
    for wrong, what, fix in (
        (frames < network.min_frames, f"needs at least {network.min_frames} frames", longer),
        (bands < network.min_bands, f"needs at least {network.min_bands} bands", another),
        (frames > (network.max_frames or frames), "takes one vector per track", another),
    ):
        if wrong:
            raise MgcError(f"{name} {what}", where=f"an input of {frames} frames x {bands} bands", fix=fix)
    return network.make(classes, bands, frames, **chosen)


def count_parameters(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
