"""`Track` and `Dataset`: what is known of the music, before anyone looks at a split."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mgc.util.errors import MgcError

if TYPE_CHECKING:
    import datasets


NAMED = 10  # tracks of one reason that are named each; of more, the first and how many


def as_text(value: object) -> str:
    """`str(value)` that can be written: bytes of a file's name that are no UTF-8 become `\\udcNN`."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True)
class Track:
    """One piece of music. `group` is what must not be split: the artist, else the track itself.

    `split` is the side given by the source ("train", "val", "test"), None where it gives none.
    `content` and `seconds` come from one look at the file (`mgc.audio.decoding.inspect`).
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
    """A track that is left out of every path alike, and why."""

    track_id: str
    path: Path
    label: str
    reason: str


def by_reason(excluded: Iterable[Excluded]) -> list[str]:
    """A line a track; but a reason that many share has one line, with their number and the first few."""
    sharing = defaultdict(list)
    for bad in excluded:
        sharing[bad.reason].append(bad.track_id)
    lines = []
    for reason, ids in sharing.items():
        if len(ids) <= NAMED:
            lines += [f"{track_id}: {reason}" for track_id in ids]
        else:
            lines.append(f"{len(ids)} tracks ({', '.join(ids[:3])} ...): {reason}")
    return lines


def joined(links: Iterable[tuple[str, str]]) -> Callable[[str], str]:
    """Of names that `links` join, in pairs (first, other), the one that stands for all of them."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.get(name, name) != name:
            name = leader[name]
        return name

    for first, other in links:
        leader[find(other)] = find(first)
    return find


@dataclass(frozen=True)
class Dataset:
    """Tracks of one source under one name; ids are unique and labels are in a fixed order.

    `folder` is the name of the folder under `results/`. `tracks` are sorted by id. `notes` are things
    that a reader of the results should know (a group given by the files' content, say). `split_name` and
    `split_authority` say what the tracks' own `split` is: "official", "fault-filtered" or just "given".
    """

    name: str
    tracks: tuple[Track, ...]
    excluded: tuple[Excluded, ...] = ()
    licence: str | None = None
    notes: tuple[str, ...] = ()
    split_name: str = "given"
    split_authority: str = "given by the source"
    classes: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        counts = Counter(track.track_id for track in self.tracks)
        twice = [track_id for track_id, count in counts.items() if count > 1]
        if twice:
            message = f"{len(twice)} track ids stand more than once, first {twice[0]!r}"
            raise MgcError(message, where=self.name, fix="give every track an id of its own")
        classes = tuple(sorted({track.label for track in self.tracks}))
        if len(classes) < 2:
            found = f"only the class {classes[0]!r}" if classes else "no usable track"
            raise MgcError(
                f"{found} was found: telling genres apart needs at least two",
                where=self.name,
                fix="give a folder root/<genre>/<file> or a manifest with several labels",
            )
        object.__setattr__(self, "tracks", tuple(sorted(self.tracks, key=lambda track: track.track_id)))
        object.__setattr__(self, "classes", classes)

    def __len__(self) -> int:
        return len(self.tracks)

    @property
    def hash(self) -> str:
        """Hash of what the tracks are: ids, content, labels and groups; not of where they lie."""
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
        """The tracks as a `datasets.Dataset`: a row a track, `label` a ClassLabel, `audio` the path."""
        import datasets

        rows = [asdict(track) for track in self.tracks]
        columns = {name: [row[name] for row in rows] for name in rows[0] if name != "path"}
        columns["audio"] = [as_text(track.path) for track in self.tracks]
        columns["label"] = self.label_numbers(self.tracks)
        features = {name: datasets.Value("string") for name in columns}
        features |= {
            "seconds": datasets.Value("float64"),
            "label": datasets.ClassLabel(names=[*self.classes]),
        }
        return datasets.Dataset.from_dict(columns, features=datasets.Features(features))
