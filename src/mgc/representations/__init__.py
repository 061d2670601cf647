"""The table of representations: features and frozen encoders, opened by name."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from mgc.config import EmbedRecipe, ProbeRecipe
from mgc.representations.card import STATISTICS, Layer, Representation
from mgc.representations.derived import altered, in_bfloat16, per_window, variant
from mgc.representations.encoders.checkpoints import is_address
from mgc.representations.encoders.efficientat import efficientat, find_weights
from mgc.representations.encoders.known import SHORT_NAMES
from mgc.representations.encoders.musicnn import musicnn
from mgc.representations.encoders.transformers_audio import from_name, random_twin
from mgc.representations.features.fma518 import fma518
from mgc.representations.features.librosa_features import chroma, cqt
from mgc.representations.features.logmel import logmel, logmel44, mfcc
from mgc.representations.features.stats57 import stats57
from mgc.representations.spec import ModelSpec
from mgc.util.errors import MgcError, did_you_mean
from mgc.workspace import Workspace

__all__ = [
    "REPRESENTATIONS",
    "STATISTICS",
    "Layer",
    "ModelSpec",
    "Representation",
    "open_representation",
    "spec_of",
]


def _feature(card: Callable[[], Representation]) -> Callable[[Workspace], Representation]:
    """A feature computed by this package: it needs no weights, and so no workspace."""
    return lambda workspace: card()


REPRESENTATIONS: dict[str, Callable[[Workspace], Representation]] = {
    "logmel": _feature(logmel),
    "logmel44": _feature(logmel44),
    "mfcc": _feature(mfcc),
    "chroma": _feature(chroma),
    "cqt": _feature(cqt),
    "stats57": _feature(stats57),
    "fma518": _feature(fma518),
    "musicnn": musicnn,
    "efficientat_mn04": efficientat,
    **{name: partial(from_name, name) for name in SHORT_NAMES},
}


def spec_of(recipe: EmbedRecipe | ProbeRecipe, model: str) -> ModelSpec:
    """What a recipe asks for, of the encoder or feature called `model`."""
    seed = recipe.seed if recipe.random_seed is None else recipe.random_seed
    return ModelSpec(
        model,
        random_seed=seed if recipe.random_weights else None,
        keep=recipe.keep,
        precision=recipe.precision,
    )


def open_representation(model: ModelSpec | str, workspace: Workspace) -> Representation:
    """The card of a name in the table, a local folder or a hub id, with the settings of a `ModelSpec`.

    Raises:
        MgcError: unknown name, files that are missing on this machine, or settings that it does not support.
    """
    spec = ModelSpec(model) if isinstance(model, str) else model
    if spec.random_seed is None:
        card = _by_name(spec.name, workspace)
    else:
        card = _random(spec.name, spec.random_seed)
    if spec.precision == "bfloat16":
        card = in_bfloat16(card)
    if (spec.pitch_semitones, spec.stretch_rate) != (0, 1):
        card = variant(card, spec.pitch_semitones, spec.stretch_rate)
    if spec.keep == "windows":
        card = per_window(card)
    return altered(card, spec.alteration) if spec.alteration else card


def _by_name(name: str, workspace: Workspace) -> Representation:
    if name in REPRESENTATIONS and name not in SHORT_NAMES:
        return REPRESENTATIONS[name](workspace)
    folder = Path(name).expanduser()
    if name not in SHORT_NAMES and is_address(name) and folder.is_dir() and find_weights(workspace, folder):
        return efficientat(workspace, folder)
    if name in SHORT_NAMES or is_address(name):
        return from_name(name, workspace)
    raise _unknown(name, f"{did_you_mean(name, REPRESENTATIONS)}; or a hub id owner/name, or a folder")


def _random(name: str, seed: int) -> Representation:
    if name in SHORT_NAMES or is_address(name):
        return random_twin(name, seed)
    if name in REPRESENTATIONS:
        fix = f"random weights exist for {', '.join(SHORT_NAMES)}, a folder or a hub id"
        raise MgcError(f"{name} cannot have random weights", fix=fix)
    raise _unknown(name, did_you_mean(name, SHORT_NAMES))


def _unknown(name: str, fix: str) -> MgcError:
    return MgcError(f"there is no encoder {name!r} and no folder of that name", fix=fix)
