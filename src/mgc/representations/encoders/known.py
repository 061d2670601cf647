"""Encoders with a short name: where they are published, their licences, and the settings that shape them."""

import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class Known:
    """A checkpoint with a short name, as described in `known.toml`."""

    hub_id: str
    licence: str
    trained_on: str
    millions: float  # parameters of the part that is used, in millions
    config: dict[str, Any]
    front: dict[str, Any]

    @property
    def page(self) -> str:
        """Where configuration and licence are published."""
        return f"https://huggingface.co/{self.hub_id}"


_TOML = resources.files("mgc.representations.encoders").joinpath("known.toml").read_text(encoding="utf-8")
SHORT_NAMES = {name: Known(**entry) for name, entry in tomllib.loads(_TOML).items()}
