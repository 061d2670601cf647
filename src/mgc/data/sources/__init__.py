"""Where datasets come from: the hub, files of the user, and those that `published.toml` describes."""

import tomllib
from collections.abc import Callable
from pathlib import Path

from mgc.config import DataRecipe
from mgc.data.dataset import Archive, Listing, Source


def published(
    name: str, present: Callable[[Path], bool], listing: Callable[[Path, DataRecipe], Listing]
) -> Source:
    """The dataset that `published.toml` describes under this name."""
    file = Path(__file__).with_name("published.toml")
    about = tomllib.loads(file.read_text(encoding="utf-8"))[name]
    archives = tuple(Archive(**archive) for archive in about.pop("archives"))
    return Source(**about, archives=archives, present=present, listing=listing)
