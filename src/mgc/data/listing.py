"""`Listing`: the result of scanning a source. `Source`: what is known about a dataset by its name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mgc.config import DataRecipe
from mgc.data.dataset import Excluded, Track


@dataclass(frozen=True)
class Listing:
    """The tracks of a source before any file is inspected.

    `excluded` are rows that cannot become tracks. `split_name` and `split_authority` are those of `Dataset`.
    """

    name: str
    tracks: list[Track]
    excluded: list[Excluded] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    licence: str | None = None
    split_name: str = "given"
    split_authority: str = "given by the source"


@dataclass(frozen=True)
class Archive:
    """A file to download and unpack.

    `place` is the folder below the data root that it unpacks to; everything in the archive is in a folder
    named like the last part of `place`. `url` is None if no working link is known, `digest` ("sha1:...",
    "md5:...", "sha256:...") if none is published. Of several archives with the same place, the first is
    downloaded; the others are accepted with `--from`.
    """

    file: str
    place: str
    url: str | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Source:
    """A dataset known by name, below the data root.

    `listing` raises `MgcError` if the dataset is missing or incomplete. `archives` is empty for a generated
    dataset. `about_archives` says what to do without a network. `known_bad` maps track ids to faults that
    others have published.
    """

    about: str
    licence: str
    tracks: int
    genres: int
    size: str  # of the download, for people
    place: str  # for people: "fma_small/000/000002.mp3 ... and fma_metadata/tracks.csv"
    present: Callable[[Path], bool]
    listing: Callable[[Path, DataRecipe], Listing]
    archives: tuple[Archive, ...] = ()
    about_archives: str = ""
    known_bad: Mapping[str, str] = field(default_factory=dict)
