"""Miniatures of FMA and GTZAN: the folders, tables and faults of the real ones, with a few seconds a clip.

Sound is cut from the files given, which should lie genre beside genre, or else made by `conftest.tone`. FMA's
clips are cut as the real ones were, by copying MP3 frames, so that nothing is encoded but what is no MP3 yet.
Excerpts of a file overlap only where it is too short for as many as are needed.
"""

import csv
import io
import math
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
import soxr
from conftest import SHARED, tone

from mgc.data.sources.gtzan import GENRES as GTZAN_GENRES
from mgc.data.sources.gtzan import filtered_split

# The header of the real tracks.csv.
_ALBUM = (
    "comments date_created date_released engineer favorites id information listens producer tags title "
    "tracks type"
)
_ARTIST = (
    "active_year_begin active_year_end associated_labels bio comments date_created favorites id latitude "
    "location longitude members name related_projects tags website wikipedia_page"
)
_TRACK = (
    "bit_rate comments composer date_created date_recorded duration favorites genre_top genres genres_all "
    "information interest language_code license listens lyricist number publisher tags title"
)
HEADER = [
    *(("album", name) for name in _ALBUM.split()),
    *(("artist", name) for name in _ARTIST.split()),
    ("set", "split"),
    ("set", "subset"),
    *(("track", name) for name in _TRACK.split()),
]
FMA_GENRES = (
    "Electronic",
    "Experimental",
    "Folk",
    "Hip-Hop",
    "Instrumental",
    "International",
    "Pop",
    "Rock",
)
ONLY_IN_MEDIUM = "Old-Time / Historic"
SUBSETS = ("small", "medium", "large")
TONE_SECONDS = 9.0  # encoding takes as long as all the rest


# --- FMA --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FmaRow:
    """What a row of the miniature's tracks.csv says. `subset` is the smallest that the track belongs to."""

    track_id: str
    subset: str
    split: str  # training, validation, test
    genre: str  # "" where the track has none
    artist_id: int
    artist: str
    album_id: int  # -1: none
    album: str
    title: str


@dataclass(frozen=True)
class MiniatureFma:
    """A data root with fma_metadata/ and the audio folders.

    `faults` tells by track id what is wrong with the file of a track in fma_small: "short" (the three known
    ones), "no audio" (the other three known ones: tags only, no bytes, noise), "silent", "truncated" (it ends
    within a frame, after three fifths), "wav" (named .mp3) and "rate" (22,050 Hz stereo, the others are
    44,100 Hz mono). Those of `UNUSABLE` cannot be used. `copies` (the same bytes) and `reencoded` (the same
    music) give for a test track the training track that it repeats.
    """

    UNUSABLE = ("no audio", "silent")

    root: Path
    rows: list[FmaRow]
    faults: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    reencoded: dict[str, str] = field(default_factory=dict)

    def of(self, subset: str) -> list[FmaRow]:
        """Rows of "fma_small", "fma_medium" or "fma_large" that have a genre, sorted by track id."""
        inside = SUBSETS[: SUBSETS.index(subset.removeprefix("fma_")) + 1]
        return [row for row in self.rows if row.subset in inside and row.genre]

    def path(self, track_id: str, subset: str = "fma_small") -> Path:
        """Where a clip lies."""
        return self.root / subset / track_id[:3] / f"{track_id}.mp3"

    @cached_property
    def unusable(self) -> list[str]:
        """Ids of fma_small whose files cannot be used."""
        return sorted(track_id for track_id, fault in self.faults.items() if fault in self.UNUSABLE)


def make_fma(
    root: Path,
    clips: Sequence[Path] = (),
    rows: int = 160,
    seconds: float = 5.5,
    audio: Sequence[str] = ("fma_small",),
) -> MiniatureFma:
    """A miniature of FMA below `root`: at least 160 rows, seven tenths of them in the small subset.

    Eight genres stand evenly in small, a ninth in medium; half the rows of large have no genre. In small an
    artist has two tracks, on one side of the split; two artists, on two sides, share a name. One album holds
    tracks of several artists on both sides, some tracks have none. `audio` names the subsets whose clips are
    written.
    """
    table = _fma_rows(max(rows, 160))
    made = MiniatureFma(root, table)
    _write_tracks_csv(root / "fma_metadata" / "tracks.csv", table)
    for subset in audio:
        music = _cut(_sources(clips), made.of(subset), seconds)
        for row, data in music:
            path = made.path(row.track_id, subset)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        for name in ("README.txt", "checksums"):
            (root / subset / name).write_text("as in the real archive\n")
    if "fma_small" in audio:
        _spoil(made, seconds)
    return made


def _fma_rows(count: int) -> list[FmaRow]:
    draw = random.Random(0)
    known = [98565, 98567, 98569, 99134, 108925, 133297]
    ids = draw.sample([number for number in range(2, 155_320) if number not in known], count - len(known))
    each = round(0.7 * count / len(FMA_GENRES) / 2) * 2
    rows = [("small", side, genre) for genre in FMA_GENRES for side in _sides(each)]
    rows += [("medium", side, genre) for genre in FMA_GENRES for side in ("training", "test")]
    rows += [("medium", side, ONLY_IN_MEDIUM) for side in _sides(6)]
    rows += [
        ("large", "training", FMA_GENRES[number % 8] if number % 2 else "")
        for number in range(count - len(rows))
    ]
    for genre, number in enumerate(known):  # each on a training track of another genre
        ids.insert(genre * each, number)
    made = [_fma_row(number, place, *row) for place, (number, row) in enumerate(zip(ids, rows, strict=True))]
    return sorted(made, key=lambda row: row.track_id)


def _sides(count: int) -> list[str]:
    """Two for validation, two for testing, the rest for training, an even number."""
    return ["training"] * (count - 4) + ["validation"] * 2 + ["test"] * 2


def _fma_row(number: int, place: int, subset: str, split: str, genre: str) -> FmaRow:
    # In medium and large the sides change from row to row, so there each row has an artist of its own.
    artist = 1 + place // 2 if subset == "small" else 1000 + place
    twin = artist == 3 or (subset, split, genre) == ("small", "test", FMA_GENRES[0])
    name = "The Twins" if twin else f"Artist, No. {artist}\n"
    album, called = artist, f"Songs of {artist}"
    if split != "validation" and place % 9 == 0:
        album, called = 9000, "A <i>Compilation</i>, Vol. 1"
    elif place % 11 == 0:
        album, called = -1, ""
    titles = (
        f"Song {place}",
        f"Song, {place}",
        f'"Song" {place}\n(live)',
        f"<b>Song</b> {place} &amp; more",
        "",
    )
    return FmaRow(f"{number:06d}", subset, split, genre, artist, name, album, called, titles[place % 5])


def _write_tracks_csv(file: Path, rows: Sequence[FmaRow]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["", *(group for group, _ in HEADER)])
        writer.writerow(["", *(name for _, name in HEADER)])
        writer.writerow(["track_id", *("" for _ in HEADER)])
        for row in rows:
            cells = {
                ("album", "id"): row.album_id,
                ("album", "title"): row.album,
                ("album", "information"): '<p>An album, "the best".</p>\n<p>On two lines, 7,5 stars</p>',
                ("album", "tags"): "['a', 'b']",
                ("artist", "id"): row.artist_id,
                ("artist", "name"): row.artist,
                ("artist", "bio"): f'<p class="bio">\n{row.artist} &mdash; born, lives; quotes, "more"\n</p>',
                ("set", "split"): row.split,
                ("set", "subset"): row.subset,
                ("track", "genre_top"): row.genre,
                ("track", "genres"): "[21, 45]",
                ("track", "license"): "Attribution-NonCommercial-ShareAlike 3.0 International",
                ("track", "title"): row.title,
            }
            writer.writerow([int(row.track_id), *(cells.get(column, "") for column in HEADER)])


def _cut(
    sources: Sequence[Sequence[Path | np.ndarray]], rows: Sequence[FmaRow], seconds: float
) -> Iterator[tuple[FmaRow, bytes]]:
    """An MP3 of so many seconds for every row: the sources of its genre in turn, then their next excerpts."""
    length = _frames_of(seconds)
    frames: dict[tuple[int, int], list[bytes]] = {}
    rows_of = Counter[int]()
    for row in rows:
        genre = (*FMA_GENRES, ONLY_IN_MEDIUM).index(row.genre) % len(sources)
        turn, which = divmod(rows_of[genre], len(sources[genre]))
        rows_of[genre] += 1
        if (genre, which) not in frames:
            frames[genre, which] = _mp3_frames(sources[genre][which])
        own = frames[genre, which]
        start = _start(turn, length, len(own))
        yield row, b"".join(own[start : start + length])


def _sources(clips: Sequence[Path]) -> list[list[Path]] | list[list[np.ndarray]]:
    if clips:
        return _shares(clips, len(FMA_GENRES))
    return [[tone(genre, TONE_SECONDS, 44_100, 0)] for genre in range(len(FMA_GENRES))]


def _frames_of(seconds: float) -> int:
    return math.ceil(seconds * 44_100 / 1152)


def _start(turn: int, length: int, whole: int) -> int:
    """Where the excerpt of this turn begins: one behind the other, and round again from another place."""
    return turn * length % (whole - length + 1)


def _spoil(made: MiniatureFma, seconds: float) -> None:
    """Put the faults in: the known ones where they are known, the others on training tracks of some genre."""
    for track_id, duration in (("098565", 1.6), ("098567", 0.53), ("098569", 1.5)):
        frames = _mp3_frames(made.path(track_id))
        made.path(track_id).write_bytes(b"".join(frames[: _frames_of(duration)]))
        made.faults[track_id] = "short"
    tags = b"ID3\x03\x00\x00\x00\x00\x01\x00" + bytes(128)
    noise = random.Random(1).randbytes(20_000).replace(b"\xff", b"\x00")
    for track_id, data in (("099134", tags), ("108925", b""), ("133297", noise)):
        made.path(track_id).write_bytes(data)
        made.faults[track_id] = "no audio"
    sound = {side: _by_genre(made, side) for side in ("training", "test")}
    silent, cut, wav, rate = (sound["training"][genre][1] for genre in FMA_GENRES[:4])
    silence = np.zeros((int(seconds * 44_100), 1), np.float32)
    soundfile.write(made.path(silent), silence, 44_100, format="MP3")
    data = made.path(cut).read_bytes()
    made.path(cut).write_bytes(data[: 3 * len(data) // 5 + 17])
    samples, _ = soundfile.read(made.path(wav), dtype="float32")
    soundfile.write(made.path(wav), samples, 44_100, format="WAV")
    samples, _ = soundfile.read(made.path(rate), dtype="float32")
    half = soxr.resample(samples, 44_100, 22_050)
    soundfile.write(made.path(rate), np.stack([half, 0.5 * half], axis=1), 22_050, format="MP3")
    made.faults.update({silent: "silent", cut: "truncated", wav: "wav", rate: "rate"})
    for genre, pairs in ((FMA_GENRES[4], made.copies), (FMA_GENRES[5], made.reencoded)):
        pairs[sound["test"][genre][0]] = sound["training"][genre][2]
    for test, training in made.copies.items():
        shutil.copyfile(made.path(training), made.path(test))
    for test, training in made.reencoded.items():
        samples, _ = soundfile.read(made.path(training), dtype="float32")
        soundfile.write(made.path(test), 0.9 * samples, 44_100, format="MP3", compression_level=0.8)


def _by_genre(made: MiniatureFma, side: str) -> dict[str, list[str]]:
    """Ids of the small subset on one side that have no fault yet."""
    ids: dict[str, list[str]] = {genre: [] for genre in FMA_GENRES}
    for row in made.of("fma_small"):
        if row.split == side and row.track_id not in made.faults:
            ids[row.genre].append(row.track_id)
    return ids


# --- GTZAN ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MiniatureGtzan:
    """A data root with gtzan/. `filtered` are the ids that are there of the fault-filtered split, by side;
    `others` those that are there besides. jazz.00054, which is on the training side, cannot be decoded."""

    root: Path
    folder: Path
    filtered: dict[str, str]
    others: list[str]
    suffix: str
    spelling: str

    def path(self, track_id: str) -> Path:
        """Where a track lies."""
        genre, number = track_id.split(".")
        name = self.spelling if genre == "hiphop" else genre
        return self.folder / name / f"{name}.{number}{self.suffix}"


def make_gtzan(
    root: Path,
    layout: str = "genres",
    suffix: str = ".wav",
    spelling: str = "hiphop",
    clips: Sequence[Path] = (),
    a_side: tuple[int, int, int, int] = (4, 2, 2, 2),
    seconds: float = 5.0,
) -> MiniatureGtzan:
    """A miniature of GTZAN in `root`/gtzan/`layout`: 22,050 Hz mono, 16 bits.

    `a_side` is how many tracks a genre has on the training, validation and test side of the fault-filtered
    split, and besides. `spelling` is that of the folder and the files of hip hop.
    """
    ids = _gtzan_ids(a_side)
    sides = filtered_split()
    made = MiniatureGtzan(
        root,
        root / "gtzan" / layout,
        {track_id: sides[track_id] for track_id in ids if track_id in sides},
        [track_id for track_id in ids if track_id not in sides],
        suffix,
        spelling,
    )
    shares = _shares(clips, len(GTZAN_GENRES))
    tracks_of = Counter[int]()
    for track_id in ids:
        genre = GTZAN_GENRES.index(track_id.split(".")[0])
        number = tracks_of[genre]
        tracks_of[genre] += 1
        path = made.path(track_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        if track_id == "jazz.00054":
            path.write_bytes(random.Random(54).randbytes(10_000))
            continue
        if shares[genre]:
            turn, which = divmod(number, len(shares[genre]))
            samples = _excerpt(shares[genre][which], turn, seconds, 22_050)
        else:
            samples = tone(genre, seconds, 22_050, number)
        soundfile.write(path, samples, 22_050, subtype="PCM_16", format=suffix[1:].upper())
    return made


def _gtzan_ids(a_side: tuple[int, int, int, int]) -> list[str]:
    sides = filtered_split()
    ids = []
    for genre in GTZAN_GENRES:
        for side, count in zip(("train", "val", "test", None), a_side, strict=True):
            own = [f"{genre}.{number:05d}" for number in range(100)]
            ids += [track_id for track_id in own if sides.get(track_id) == side][:count]
    return sorted({*ids, "jazz.00054"})


# --- sound ------------------------------------------------------------------------------------------------


def real_clips() -> list[Path]:
    """Eighty of the Emotify clips, genre beside genre; none where they are not there."""
    return sorted((SHARED / "data/emotify/clips").glob("*/*.mp3"))[::5]


def _shares(clips: Sequence[Path], genres: int) -> list[list[Path]]:
    """For every genre its share of the clips, neighbours together."""
    edges = [round(number * len(clips) / genres) for number in range(genres + 1)]
    return [list(clips[start:end]) for start, end in pairwise(edges)]


def _excerpt(file: Path, turn: int, seconds: float, rate: int) -> np.ndarray:
    """(samples,) at `rate`: another excerpt each turn."""
    with soundfile.SoundFile(file) as music:
        length = int(seconds * music.samplerate)
        music.seek(_start(turn, length, len(music)))
        samples = music.read(length, dtype="float32", always_2d=True).mean(axis=1)
        return soxr.resample(samples, music.samplerate, rate)


def _mp3_frames(source: Path | np.ndarray) -> list[bytes]:
    """Frames of an MP3, or of samples at 44,100 Hz or another file once they are encoded as one."""
    if isinstance(source, Path) and source.suffix.lower() == ".mp3":
        return _split_frames(source.read_bytes())
    samples, rate = source, 44_100
    if isinstance(source, Path):
        samples, rate = soundfile.read(source, dtype="float32")
    stream = io.BytesIO()
    soundfile.write(stream, soxr.resample(samples, rate, 44_100), 44_100, format="MP3")
    return _split_frames(stream.getvalue())


_KBITS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG 1
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2
}
_RATES = (44_100, 48_000, 32_000)


def _split_frames(data: bytes) -> list[bytes]:
    """Frames of MPEG layer III, but for the one that only tells the length; what is between is dropped."""
    frames, at = [], 0
    if data.startswith(b"ID3"):
        at = 10 + sum((byte & 127) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    while at + 4 <= len(data):
        head = int.from_bytes(data[at : at + 4], "big")
        first, kbits, rate, padding = bool(head >> 19 & 1), head >> 12 & 15, head >> 10 & 3, head >> 9 & 1
        if head >> 21 != 0x7FF or kbits in (0, 15) or rate == 3:
            at += 1
            continue
        hertz = _RATES[rate] if first else _RATES[rate] // 2
        size = (144_000 if first else 72_000) * _KBITS[first][kbits] // hertz + padding
        frame = data[at : at + size]
        if not any(mark in frame[:64] for mark in (b"Xing", b"Info")):
            frames.append(frame)
        at += size
    return frames
