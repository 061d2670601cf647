"""What is known about the music, independent of a split: tracks, datasets, and where they come from."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mgc.config import DataRecipe
from mgc.util.errors import MgcError

MAX_NAMED = 10  # largest number of tracks named for one reason; of more, the first few and the number


def as_text(value: object) -> str:
    """`str(value)` that can be encoded: bytes of a file name that are not UTF-8 become `\\udcNN`."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True)
class Track:
    """One row of a dataset."""

    track_id: str
    path: Path
    label: str
    group: str  # never separated by a split: the artist, else the track itself
    artist: str | None = None
    title: str | None = None
    split: str | None = None  # "train", "val" or "test" as given by the source
    album: str | None = None
    content: str = ""  # hash of the file's bytes, known like `seconds` once the file has been inspected
    seconds: float = 0.0


@dataclass(frozen=True)
class Excluded:
    """A track that no system uses, and why."""

    track_id: str
    path: Path
    label: str
    reason: str


def by_reason(excluded: Iterable[Excluded]) -> list[str]:
    """One line per track, or per reason that more than `MAX_NAMED` tracks share."""
    ids_of = defaultdict(list)
    for bad in excluded:
        ids_of[bad.reason].append(bad.track_id)
    lines = []
    for reason, ids in ids_of.items():
        named = ids if len(ids) <= MAX_NAMED else [f"{len(ids)} tracks ({', '.join(ids[:3])} ...)"]
        lines += [f"{name}: {reason}" for name in named]
    return lines


def check_unique_ids(tracks: Iterable[Track], where: object = None) -> None:
    """Raises `MgcError` if two tracks have the same id."""
    counts = Counter(track.track_id for track in tracks)
    if duplicates := [track_id for track_id, count in counts.items() if count > 1]:
        message = f"{len(duplicates)} track ids occur more than once, first {duplicates[0]!r}"
        raise MgcError(message, where=where, fix="give every track a unique id")


@dataclass(frozen=True)
class Dataset:
    """Tracks of one source with unique ids, sorted by id.

    Raises:
        MgcError: two tracks have the same id, or there are fewer than two classes.
    """

    name: str  # also of the folder of results
    tracks: tuple[Track, ...]
    excluded: tuple[Excluded, ...] = ()
    licence: str | None = None
    notes: tuple[str, ...] = ()  # what readers of the results should know, such as how columns were read
    split_name: str = "given"  # of `Track.split`: "official", "fault-filtered" or "given"
    split_authority: str = "given by the source"  # who made that split, in a sentence
    classes: tuple[str, ...] = field(init=False)  # labels, sorted

    def __post_init__(self) -> None:
        check_unique_ids(self.tracks, self.name)
        classes = tuple(sorted({track.label for track in self.tracks}))
        if len(classes) < 2:
            found = f"only the class {classes[0]!r}" if classes else "no usable track"
            what = f"{found} was found: classification needs at least two classes"
            fix = "give a folder root/<genre>/<file> or a manifest with several labels"
            raise MgcError(what, where=self.name, fix=fix)
        object.__setattr__(self, "tracks", tuple(sorted(self.tracks, key=lambda track: track.track_id)))
        object.__setattr__(self, "classes", classes)

    def __len__(self) -> int:
        return len(self.tracks)

    @property
    def hash(self) -> str:
        """Hash of the tracks' ids, contents, labels and groups, wherever the files are."""
        rows = [(t.track_id, t.content, t.label, t.group) for t in self.tracks]
        return hashlib.blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest()

    @cached_property
    def by_id(self) -> dict[str, Track]:
        """Tracks by their id."""
        return {track.track_id: track for track in self.tracks}

    def label_numbers(self, tracks: Sequence[Track]) -> list[int]:
        """Positions in `classes` of the labels of `tracks`."""
        number = {label: index for index, label in enumerate(self.classes)}
        return [number[track.label] for track in tracks]


@dataclass(frozen=True)
class Listing:
    """The tracks of a source before any file is inspected. Other fields are those of `Dataset`."""

    name: str
    tracks: list[Track]
    excluded: list[Excluded] = field(default_factory=list)  # rows that cannot become tracks
    notes: list[str] = field(default_factory=list)
    licence: str | None = None
    split_name: str = "given"
    split_authority: str = "given by the source"


@dataclass(frozen=True)
class Archive:
    """A file to download and unpack. Everything in it is in a folder named like the last part of `place`.

    Of several archives with the same place, the first is downloaded; the others are accepted with `--from`.
    """

    file: str
    place: str  # the folder below the data root that it unpacks to
    url: str | None = None  # None if no working link is known
    digest: str | None = None  # "sha1:...", "md5:..." or "sha256:..."; None if none is published


@dataclass(frozen=True)
class Source:
    """A dataset known by name, below the data root."""

    about: str
    licence: str
    tracks: int
    genres: int
    size: str  # of the download, for people
    place: str  # for people: "fma_small/000/000002.mp3 ... and fma_metadata/tracks.csv"
    present: Callable[[Path], bool]
    listing: Callable[[Path, DataRecipe], Listing]  # raises `MgcError` if the dataset is not complete
    archives: tuple[Archive, ...] = ()  # none for a generated dataset
    about_archives: str = ""  # what to do without a network
    known_bad: Mapping[str, str] = field(
        default_factory=dict
    )  # faults that others have published, by track id
