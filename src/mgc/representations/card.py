"""What every representation is: a card that is cheap to make, and an encoder that is loaded when needed."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mgc.audio import Windowing
from mgc.util.compiled import prepare_librosa
from mgc.util.errors import MgcError, did_you_mean

if TYPE_CHECKING:
    import torch


STATISTICS = ("mean", "std", "max")  # over real frames; the rows of a pooled array, in this order

# Raised by hand when decoding, resampling, windows or pooling give other numbers, for all representations.
PIPELINE_REVISION = 1


class Encoder(Protocol):
    """Waveforms to frames.

    `waveforms` is (B, left + n + right) float32 at the representation's rate, all of one length;
    `covered` and `real` are (B,) samples as in `mgc.audio.Window`. Returns one (B, T, D) tensor a layer and
    the weights (B, T) of the frames: 1 for what is real and new, 0 for padding and for what the window
    before has covered.
    """

    def __call__(
        self, waveforms: "torch.Tensor", covered: "torch.Tensor", real: "torch.Tensor"
    ) -> tuple[list["torch.Tensor"], "torch.Tensor"]:
        """(B, T, D) a layer, and (B, T)."""
        ...


@dataclass(frozen=True)
class Layer:
    """One output of a representation: (frames, dim)."""

    name: str
    dim: int


@dataclass(frozen=True)
class Representation:
    """The card of a hand-made feature or a frozen encoder. Making one loads no weights.

    If `pooled`, the store keeps STATISTICS over the real frames of every layer: of the whole clip or, with
    `keep` "windows", of each window. Else it keeps all frames of the only layer, after `finish` has seen the
    whole clip: the encoder's frames may be wider than the layer, what `finish` gives is not.
    """

    name: str
    address: str  # what `--model` was given: opens it again
    source: str  # where it comes from: a hub id with revision, a folder, a paper
    cut: Windowing
    layers: tuple[Layer, ...]  # the last one is the default of a probe
    pooled: bool
    parameters: int | None  # None: known once the weights are loaded
    licence: str
    trained_on: str
    weights: str  # hash of weights and preprocessing files; "" where there are none
    revision: int  # of the code that computes it: raised by hand whenever its numbers change
    load: Callable[["torch.device"], Encoder] = field(compare=False, repr=False)
    finish: Callable[[np.ndarray], np.ndarray] | None = field(default=None, compare=False, repr=False)
    dtype: str = (
        "float16"  # what the store keeps: float32 for what float16 (11 bits, up to 65504) cannot hold
    )
    pool: str = "mean+std"  # a probe's default statistics: some of STATISTICS
    keep: str = "clip"  # "windows": a row of each statistic a window
    effect: str = ""  # what is done to clips or weights before, such as a change of pitch
    frames_a_second: float | None = None  # where all frames are kept

    @property
    def fingerprint(self) -> str:
        """Hash of what decides the numbers: weights, preprocessing, window, layers, pooling, dtype, revisions.

        The name and the place of the weights decide nothing, so a moved folder is not computed anew.
        """
        parts = [asdict(self.cut), [asdict(x) for x in self.layers], self.pooled, self.weights, self.revision]
        kept = [self.dtype, self.keep, self.effect, PIPELINE_REVISION]
        return hashlib.blake2b(json.dumps([*parts, *kept]).encode(), digest_size=8).hexdigest()

    def encoder(self, device: "torch.device") -> Encoder:
        """Its encoder on `device`.

        Raises:
            MgcError: weights that cannot be read.
        """
        if not self.weights:  # librosa computes all that was not learned
            prepare_librosa()
        return self.load(device)

    @property
    def windows(self) -> "Representation":
        """The same of each window instead of the whole clip.

        Raises:
            MgcError: it keeps all its frames already.
        """
        if not self.pooled:
            what = f"{self.name} keeps every frame of a clip: there are no windows to keep apart"
            raise MgcError(what, where="--keep windows", fix="leave it out, or name an encoder")
        return replace(self, name=f"{self.name} windows", address=f"windows:{self.address}", keep="windows")

    @property
    def width(self) -> int:
        """Dimensions of all layers together."""
        return sum(layer.dim for layer in self.layers)

    def layer_slice(self, name: str) -> slice:
        """Where the layer called `name` ("last" for the default) lies in the concatenation of all.

        Raises:
            MgcError: no such layer.
        """
        names = [layer.name for layer in self.layers]
        if name != "last" and name not in names:
            raise MgcError(f"{self.name} has no layer {name!r}", fix=did_you_mean(name, [*names, "last"]))
        index = len(names) - 1 if name == "last" else names.index(name)
        start = sum(layer.dim for layer in self.layers[:index])
        return slice(start, start + self.layers[index].dim)

    def card(self) -> dict[str, object]:
        """All that is known of it, for the store and for records."""
        return {
            "name": self.name,
            "address": self.address,
            "source": self.source,
            "fingerprint": self.fingerprint,
            "cut": asdict(self.cut),
            "layers": [asdict(layer) for layer in self.layers],
            "pooled": self.pooled,
            "dtype": self.dtype,
            "pool": self.pool,
            "keep": self.keep,
            "parameters": self.parameters,
            "licence": self.licence,
            "trained_on": self.trained_on,
            "weights": self.weights,
            "revision": self.revision,
            "effect": self.effect,
        }
