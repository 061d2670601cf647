"""What a source of music tells before anyone looks at a file: `Listing`; and what is known of one by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mgc.config import DataRecipe
from mgc.data.dataset import Excluded, Track


@dataclass(frozen=True)
class Listing:
    """What a source lists: tracks not yet looked at, those that cannot even be named, and remarks.

    `split_name` and `split_authority` say what the tracks' own `split` stands for, and by whom.
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

    `place` is the folder below the data root that it unpacks to; everything in the archive lies in a folder
    called like the last part of it. `url` is None where no link is known to work, `digest` ("sha1:...",
    "md5:...", "sha256:...") where nobody has published one. Of archives of one place the first is fetched,
    the others are as good when they are brought by hand.
    """

    file: str
    place: str
    url: str | None
    digest: str | None


@dataclass(frozen=True)
class Source:
    """A data set known by name. `place`, its folder, and its archives lie below the data root.

    `listing` raises `MgcError` where the set is not there or is not what it should be. `archives` is empty
    for a set that is made on the spot. `about_archives` says what a person without network has to do.
    """

    about: str
    licence: str
    tracks: int
    genres: int
    size: str  # of what is downloaded, as a person reads it
    place: str  # as a person reads it: "fma_small/000/000002.mp3 ... and fma_metadata/tracks.csv"
    present: Callable[[Path], bool]
    listing: Callable[[Path, DataRecipe], Listing]
    archives: tuple[Archive, ...] = ()
    about_archives: str = ""
    known_bad: Mapping[str, str] = field(default_factory=dict)  # track id: what others found
