"""The table of representations: hand-made features and frozen encoders, opened by name."""

from collections.abc import Callable
from functools import partial

from mgc.config import MgcError, did_you_mean
from mgc.representations.chroma import chroma
from mgc.representations.cqt import cqt
from mgc.representations.fma518 import fma518
from mgc.representations.kinds import Layer, Representation
from mgc.representations.logmel import logmel, logmel44
from mgc.representations.mfcc import mfcc
from mgc.representations.musicnn import musicnn
from mgc.representations.stats57 import stats57
from mgc.representations.transformers_audio import SHORT_NAMES, from_name, is_address

__all__ = ["REPRESENTATIONS", "Layer", "Representation", "open_representation"]

REPRESENTATIONS: dict[str, Callable[[], Representation]] = {
    "logmel": logmel,
    "logmel44": logmel44,
    "mfcc": mfcc,
    "chroma": chroma,
    "cqt": cqt,
    "stats57": stats57,
    "fma518": fma518,
    "musicnn": musicnn,
    **{name: partial(from_name, name) for name in SHORT_NAMES},
}


def open_representation(model: str) -> Representation:
    """The card of a name in the table, a local folder, or a hub id `owner/name`.

    Raises:
        MgcError: nothing of that name, or nothing that works on this machine.
    """
    if model in REPRESENTATIONS:
        return REPRESENTATIONS[model]()
    if is_address(model):
        return from_name(model)
    raise MgcError(
        f"there is no encoder {model!r} and no folder of that name",
        fix=f"{did_you_mean(model, REPRESENTATIONS)}; or a hub id owner/name, or a folder",
    )
