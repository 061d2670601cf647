"""The table of representations: hand-made features and frozen encoders, opened by name."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from mgc.representations.altered import ALTERED_PREFIX, altered, parsed
from mgc.representations.card import STATISTICS, Layer, Representation
from mgc.representations.encoders.efficientat import efficientat, find_weights
from mgc.representations.encoders.musicnn import musicnn
from mgc.representations.encoders.precision import BFLOAT16_PREFIX, in_bfloat16
from mgc.representations.encoders.transformers_audio import SHORT_NAMES, from_name, is_address, random_twin
from mgc.representations.features.fma518 import fma518
from mgc.representations.features.frames import chroma, cqt
from mgc.representations.features.logmel import logmel, logmel44, mfcc
from mgc.representations.features.stats57 import stats57
from mgc.util.errors import MgcError, did_you_mean
from mgc.workspace import Workspace

__all__ = [
    "ALTERED_PREFIX", "RANDOM_PREFIX", "REPRESENTATIONS", "STATISTICS", "WINDOWS_PREFIX",
    "Layer", "Representation", "address_of", "open_representation",
]  # fmt: skip

RANDOM_PREFIX = "random:"
WINDOWS_PREFIX = "windows:"


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


def open_representation(model: str, workspace: Workspace, trust_remote_code: bool = False) -> Representation:
    """The card of a name in the table, a local folder, a hub id `owner/name`; `random:<seed>:` before it
    opens the twin with random weights, `bfloat16:` the same computed in bfloat16, `windows:` the same with
    its windows kept apart, `altered:noise=10:` the card of clips in noise, which only `mgc robust` fills.

    Raises:
        MgcError: nothing of that name, or nothing that works on this machine.
    """
    kind, colon, rest = model.partition(":")
    if f"{kind}{colon}" in _PREFIXES:
        return _PREFIXES[f"{kind}{colon}"](rest, workspace, trust_remote_code)
    if model in REPRESENTATIONS and model not in SHORT_NAMES:
        return REPRESENTATIONS[model](workspace)
    folder = Path(model).expanduser()
    if model not in SHORT_NAMES and is_address(model) and folder.is_dir() and find_weights(workspace, folder):
        return efficientat(workspace, folder)
    if model in SHORT_NAMES or is_address(model):
        return from_name(model, workspace, trust_remote_code)
    raise MgcError(
        f"there is no encoder {model!r} and no folder of that name",
        fix=f"{did_you_mean(model, REPRESENTATIONS)}; or a hub id owner/name, or a folder",
    )


def _altered(rest: str, workspace: Workspace, trust_remote_code: bool) -> Representation:
    alteration, _, model = rest.partition(":")
    return altered(open_representation(model, workspace, trust_remote_code), parsed(alteration))


def address_of(model: str, random_weights: bool, seed: int, keep: str = "clip") -> str:
    """What opens `model`, or the same encoder with weights drawn from `seed`, or with its windows apart."""
    address = f"{RANDOM_PREFIX}{seed}:{model}" if random_weights else model
    return f"{WINDOWS_PREFIX}{address}" if keep == "windows" else address


def _random(rest: str, workspace: Workspace, trust_remote_code: bool) -> Representation:
    seed, _, model = rest.partition(":")
    if not seed.isdecimal() or (model in REPRESENTATIONS and model not in SHORT_NAMES):
        raise MgcError(
            f"there is no {model!r} with random weights"
            if seed.isdecimal()
            else f"{RANDOM_PREFIX}{seed}:{model} names no seed",
            fix=f"write random:0:NAME; NAME is one of {', '.join(SHORT_NAMES)}, a folder or a hub id",
        )
    if model in SHORT_NAMES or is_address(model):
        return random_twin(model, int(seed))
    raise MgcError(
        f"there is no encoder {model!r} and no folder of that name", fix=did_you_mean(model, SHORT_NAMES)
    )


_PREFIXES: dict[str, Callable[[str, Workspace, bool], Representation]] = {
    WINDOWS_PREFIX: lambda model, ws, trust: open_representation(model, ws, trust).windows,
    BFLOAT16_PREFIX: lambda model, ws, trust: in_bfloat16(open_representation(model, ws, trust)),
    ALTERED_PREFIX: _altered,
    RANDOM_PREFIX: _random,
}
