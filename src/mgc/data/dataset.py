"""`Track` and `Dataset`: what is known about the music, independent of a split."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mgc.util.errors import MgcError

if TYPE_CHECKING:
    import datasets


MAX_NAMED = 10  # largest number of tracks named for one reason; of more, the first few and the number


def as_text(value: object) -> str:
    """`str(value)` that can be encoded: bytes of a file name that are not UTF-8 become `\\udcNN`."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True)
class Track:
    """One row of a dataset. A split never separates tracks of a `group`: the artist, else the track itself.

    `split` is "train", "val" or "test" as given by the source, None if it gives no split. `content` (hash of
    the file's bytes) and `seconds` are known once the file has been inspected.
    """

    track_id: str
    path: Path
    label: str
    group: str
    artist: str | None = None
    title: str | None = None
    split: str | None = None
    album: str | None = None
    content: str = ""
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
        if len(ids) <= MAX_NAMED:
            lines += [f"{track_id}: {reason}" for track_id in ids]
        else:
            lines.append(f"{len(ids)} tracks ({', '.join(ids[:3])} ...): {reason}")
    return lines


def check_unique_ids(tracks: Iterable[Track], where: object = None) -> None:
    """Raises `MgcError` if two tracks have the same id."""
    counts = Counter(track.track_id for track in tracks)
    duplicates = [track_id for track_id, count in counts.items() if count > 1]
    if duplicates:
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
            raise MgcError(
                f"{found} was found: classification needs at least two classes",
                where=self.name,
                fix="give a folder root/<genre>/<file> or a manifest with several labels",
            )
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

    @cached_property
    def table(self) -> "datasets.Dataset":
        """The tracks as a `datasets.Dataset`: `label` is a ClassLabel, `audio` the path of the file."""
        import datasets

        columns = {
            f.name: [getattr(t, f.name) for t in self.tracks] for f in fields(Track) if f.name != "path"
        }
        columns["audio"] = [as_text(track.path) for track in self.tracks]
        columns["label"] = self.label_numbers(self.tracks)
        types = {name: datasets.Value("string") for name in columns} | {
            "seconds": datasets.Value("float64"),
            "label": datasets.ClassLabel(names=[*self.classes]),
        }
        return datasets.Dataset.from_dict(columns, features=datasets.Features(types))
