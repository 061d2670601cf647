"""`ModelSpec`: which encoder or feature is meant, and how it is computed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from mgc.audio.effects import Alteration
from mgc.config import EncoderPrecision, Keep
from mgc.util.errors import MgcError


@dataclass(frozen=True)
class ModelSpec:
    """A representation as it is asked for, before any file is opened.

    Parameters
    ----------
    name
        A name of `REPRESENTATIONS`, a local folder, or a hub id (`owner/name`).
    random_seed
        Draw the weights from this seed instead of loading them.
    keep
        `clip` keeps statistics over the whole clip, `windows` over each of its windows.
    precision
        `bfloat16` computes the encoder in bfloat16, on devices that support it.
    alteration
        An effect that clips are altered by before they are represented; only `mgc robust` computes these.
    pitch_semitones, stretch_rate
        Transpose each clip, or play it at another speed (2.0 halves its length).

    Examples
    --------
    >>> ModelSpec("ast", random_seed=0).to_dict()
    {'name': 'ast', 'random_seed': 0}
    """

    name: str
    random_seed: int | None = None
    keep: Keep = "clip"
    precision: EncoderPrecision = "float32"
    alteration: Alteration | None = None
    pitch_semitones: float = 0.0
    stretch_rate: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """The name and all settings that differ from their defaults, as plain values."""
        values = asdict(self)
        return {f.name: values[f.name] for f in fields(self) if values[f.name] != f.default}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelSpec":
        """The inverse of `to_dict`.

        Raises:
            MgcError: settings that this version of mgc does not know.
        """
        try:
            alteration = values.get("alteration")
            return cls(**{**values, "alteration": Alteration(**alteration) if alteration else None})
        except TypeError as error:
            raise MgcError(f"the model cannot be read from a record or card: {error}") from None

    def __str__(self) -> str:
        """The name with its settings, for messages."""
        settings = [
            f"{key}={value}" for key, value in self.to_dict().items() if key not in ("name", "alteration")
        ]
        settings += [self.alteration.text] if self.alteration else []
        return f"{self.name} ({', '.join(settings)})" if settings else self.name
