"""`Representation`: all that is known of a feature or an encoder before it is loaded."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mgc.audio import Windowing
from mgc.representations.spec import ModelSpec
from mgc.util.compiled import prepare_librosa
from mgc.util.errors import MgcError, did_you_mean

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Encoded = tuple[list[Tensor], Tensor]  # what an `Encoder` returns

STATISTICS = ("mean", "std", "max")  # over real frames; the rows of a pooled array, in this order
# Raised by hand when decoding, resampling, cutting into windows or pooling change the numbers of every entry.
PIPELINE_REVISION = 1


class Encoder(Protocol):
    """Maps waveforms to frames.

    `waveforms` is (B, left + n + right) float32 at the representation's sample rate, all of one length;
    `covered` and `real` are (B,) samples as in `mgc.audio.Window`. Returns one (B, T, D) tensor for each
    layer and the weights (B, T) of the frames: 1 for real and new ones, 0 for padding and for what the
    previous window has covered.
    """

    def __call__(self, waveforms: "Tensor", covered: "Tensor", real: "Tensor") -> "Encoded":
        """(B, T, D) for each layer, and (B, T)."""
        ...


@dataclass(frozen=True)
class Layer:
    """One output of a representation: (frames, dim)."""

    name: str
    dim: int


@dataclass(frozen=True)
class Representation:
    """The card of a feature or a frozen encoder. Making one loads no weights.

    A `pooled` representation is cached as STATISTICS over the real frames of every layer: of the whole clip,
    or of each window if its spec says so. Any other is cached as all frames of its only layer, after `finish`
    has processed the whole clip: the encoder's frames may be wider than the layer, those of `finish` are not.
    """

    name: str
    spec: ModelSpec  # opens it again
    source: str  # a hub id with revision, a folder, a paper
    cut: Windowing
    layers: tuple[Layer, ...]  # the last one is the default of a probe
    pooled: bool
    parameters: int | None  # None: known once the weights are loaded
    licence: str
    trained_on: str
    weights: str  # hash of weights and preprocessing files; "" if there are none
    revision: int  # of the code that computes it; raised by hand whenever its numbers change
    load: Callable[["torch.device"], Encoder] = field(compare=False, repr=False)
    finish: Callable[[np.ndarray], np.ndarray] | None = field(default=None, compare=False, repr=False)
    dtype: str = "float16"  # of cached arrays; float32 for values beyond float16 (11 bits, up to 65504)
    pool: str = "mean+std"  # a probe's default: some of STATISTICS
    frames_a_second: float | None = None  # None for pooled representations
    steps: tuple[tuple[str, int], ...] = ()  # name and revision of what is computed around the encoder

    @property
    def key(self) -> str:
        """The cache key: a hash of what decides the numbers.

        These are weights, window, layers, pooling, dtype, the settings of the spec and the revisions. The
        name, the location of the weights and library versions are not part of it.
        """
        settings = self.spec.to_dict()
        settings.pop("name")
        settings.pop("random_seed", None)  # `weights` depends on it
        parts = {
            "cut": asdict(self.cut),
            "layers": [asdict(layer) for layer in self.layers],
            "pooled": self.pooled,
            "dtype": self.dtype,
            "weights": self.weights,
            "settings": settings,
            "revisions": [PIPELINE_REVISION, self.revision, *self.steps],
        }
        text = json.dumps(parts, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def encoder(self, device: "torch.device") -> Encoder:
        """Load the encoder on `device`.

        Raises:
            MgcError: the weights cannot be read.
        """
        if not self.weights:  # features without weights are computed by librosa
            prepare_librosa()
        return self.load(device)

    @property
    def width(self) -> int:
        """Dimensions of all layers together."""
        return sum(layer.dim for layer in self.layers)

    def layer_slice(self, name: str) -> slice:
        """The columns of the layer called `name` ("last" for the default) in the concatenation of all layers.

        Raises:
            MgcError: no layer of that name.
        """
        names = [layer.name for layer in self.layers]
        if name != "last" and name not in names:
            raise MgcError(f"{self.name} has no layer {name!r}", fix=did_you_mean(name, [*names, "last"]))
        index = len(names) - 1 if name == "last" else names.index(name)
        start = sum(layer.dim for layer in self.layers[:index])
        return slice(start, start + self.layers[index].dim)

    def card(self) -> dict[str, object]:
        """Everything above as plain values, for the embedding cache and for run records."""
        return {
            "name": self.name,
            "spec": self.spec.to_dict(),
            "source": self.source,
            "key": self.key,
            "cut": asdict(self.cut),
            "layers": [asdict(layer) for layer in self.layers],
            "pooled": self.pooled,
            "dtype": self.dtype,
            "pool": self.pool,
            "parameters": self.parameters,
            "licence": self.licence,
            "trained_on": self.trained_on,
            "weights": self.weights,
            "revision": self.revision,
        }
