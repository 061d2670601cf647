"""GTZAN: ten genres of a hundred clips, in whatever layout it came, and the fault-filtered split.

Tzanetakis and Cook, "Musical genre classification of audio signals", IEEE TSAP 2002. The files hold
repetitions, wrong labels and distortions (Sturm, "The GTZAN dataset", arXiv 1306.1461), so that random
splits leak. The fault-filtered split leaves them out and keeps artists apart (Kereliuk, Sturm, Larsen, "Deep
Learning and Music Adversaries", IEEE TMM 2015, arXiv 1507.04761): 443, 197 and 290 of the 1,000 tracks for
training, validation and test.

`gtzan_filtered.csv` holds its ids: the lists filtered_train, filtered_valid and filtered_test of torchaudio
2.6.0 (datasets/gtzan.py), which has them from github.com/jordipons/sklearn-audio-transfer-learning.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mgc.config import DataRecipe
from mgc.data.dataset import Track
from mgc.data.listing import Archive, Listing, Source
from mgc.util.errors import MgcError

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
TRACKS_A_GENRE = 100
# Below gtzan/: of the mirror and the original, of Kaggle's archive.zip with and without its first folder.
LAYOUTS = ("genres", "Data/genres_original", "genres_original", ".")
# A track that is there twice is taken as .wav: both hold the same samples, and that is what a fetch unpacks.
SUFFIXES = (".wav", ".au")
LICENCE = "not stated: excerpts of published recordings, gathered for research"
AUTHORITY = (
    "fault-filtered, artist-aware split of GTZAN (Kereliuk et al. 2015, after the faults that Sturm found, "
    "2013), published as 443 training, 197 validation and 290 test tracks"
)
BY_HAND = (
    "genres.tar.gz of https://huggingface.co/datasets/marsyas/gtzan, in its folder data. Other copies (the "
    "first genres.tar.gz, of .au files, or the archive.zip of https://www.kaggle.com/datasets/andradaolteanu/"
    "gtzan-dataset-music-genre-classification) have other bytes: unpack them into the folder gtzan below the "
    "data root"
)

_FILE = re.compile(r"(?P<genre>.+)\.(?P<number>\d{5})(?P<suffix>\.\w+)")


def filtered_split() -> dict[str, str]:
    """The side ("train", "val" or "test") of the 930 tracks of the fault-filtered split, by track id."""
    with Path(__file__).with_name("gtzan_filtered.csv").open(encoding="utf-8", newline="") as stream:
        return {row["track_id"]: row["split"] for row in csv.DictReader(stream)}


def known_bad() -> dict[str, str]:
    """Tracks known to be bad in the copies that are about, and how, by track id."""
    return {"jazz.00054": "cannot be decoded in the common copies"}


def listing(root: Path, recipe: DataRecipe) -> Listing:
    """The fault-filtered tracks for "auto" and "given", all that are there for any other split.

    Tracks of the fault-filtered split that are not there are listed all the same, for the loader to report.

    Raises:
        MgcError: there is no such folder, or no track in it.
    """
    here = _here(root)
    if recipe.split not in ("auto", "given"):
        tracks = [_track(track_id, path) for track_id, path in sorted(here.files.items())]
        notes = [
            "all tracks, the faulty ones too (repetitions, wrong labels, distortions), artists unknown: "
            "scores are flattering; --split given takes the fault-filtered split"
        ]
        if absent := len(GENRES) * TRACKS_A_GENRE - len(tracks):
            notes.append(f"{absent} of the 1,000 tracks are not here")
        return Listing("gtzan", tracks, [], [*notes, *here.notes], LICENCE)
    sides = filtered_split()
    tracks = [_track(track_id, here.path(track_id), side) for track_id, side in sorted(sides.items())]
    notes = here.notes
    if others := here.files.keys() - sides.keys():
        faults = "repetitions, wrong labels, distortions"
        notes = [f"{len(others)} tracks are left out by the fault-filtered split ({faults})", *notes]
    return Listing("gtzan", tracks, [], notes, LICENCE, "fault-filtered", AUTHORITY)


def _track(track_id: str, path: Path, side: str | None = None) -> Track:
    """Artists are not told: each track is a group of its own."""
    return Track(track_id, path, track_id.partition(".")[0], track_id, split=side)


@dataclass(frozen=True)
class _Here:
    """What lies in the folder: the file of each track by its id, and remarks."""

    folder: Path
    files: dict[str, Path]
    notes: list[str]

    def path(self, track_id: str) -> Path:
        """Where the track lies, or would lie."""
        genre = track_id.partition(".")[0]
        return self.files.get(track_id, self.folder / genre / f"{track_id}{SUFFIXES[0]}")


def _here(root: Path) -> _Here:
    layouts = _layouts(root)
    if not layouts:
        raise MgcError(
            f"gtzan is not here: there is no folder of a genre ({', '.join(GENRES)}) in gtzan or in "
            f"{', '.join(LAYOUTS[:-1])} there",
            where=(root / "gtzan").absolute(),
            fix="mgc data fetch gtzan; or name the folder that holds gtzan/ with --data-root",
        )
    folder = layouts[0]
    files, twice, other = dict[str, Path](), 0, 0
    for genre, file in _files(folder):
        track_id = _track_id(genre, file)
        if track_id is None:
            other += 1
            continue
        twice += track_id in files
        files[track_id] = min(file, files.get(track_id, file), key=_rank)
    if not files:
        what = f"no track was found (looked for blues/blues.00000{SUFFIXES[0]} and the like)"
        raise MgcError(what, where=folder.absolute(), fix="mgc data fetch gtzan")
    unread = ", ".join(str(layout.relative_to(root)) for layout in layouts[1:])
    told = {
        f"{twice} tracks lie here more than once: {SUFFIXES[0]} is taken rather than {SUFFIXES[1]}": twice,
        f"{other} files in the genre folders are none of the 1,000 tracks and were not looked at": other,
        f"taken from {folder.relative_to(root)}; not looked at: {unread}": unread,
    }
    return _Here(folder, files, [note for note, count in told.items() if count])


def _layouts(root: Path) -> list[Path]:
    """The folders that hold folders of genres."""
    places = [root / "gtzan" / layout for layout in LAYOUTS]
    return [place for place in places if place.is_dir() and any(_genres(place))]


def _genres(folder: Path) -> Iterator[tuple[str, Path]]:
    """(genre, its folder): `hip-hop` is `hiphop`."""
    for entry in _entries(folder):
        if _plain(entry.name) in GENRES and entry.is_dir():
            yield _plain(entry.name), entry


def _plain(name: str) -> str:
    return name.lower().replace("-", "")


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(genre of the folder, file)."""
    for genre, inside in _genres(folder):
        for file in _entries(inside):
            yield genre, file


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, but hidden files: the mirror's archive has one beside every file."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        fix = "make it readable"
        raise MgcError(f"the folder cannot be listed: {error.strerror}", where=folder, fix=fix) from None


def _track_id(genre: str, file: Path) -> str | None:
    """`hiphop.00012` for hip-hop.00012.wav in the folder of its genre; None for a file that is no track."""
    match = _FILE.fullmatch(file.name)
    if match is None or _plain(match["genre"]) != genre or match["suffix"].lower() not in SUFFIXES:
        return None
    return f"{genre}.{match['number']}" if int(match["number"]) < TRACKS_A_GENRE else None


def _rank(file: Path) -> int:
    return SUFFIXES.index(file.suffix.lower())


SOURCE = Source(
    about="clips of 30 s, with the fault-filtered split (930 tracks); any other split leaks",
    licence=LICENCE,
    tracks=len(GENRES) * TRACKS_A_GENRE,
    genres=len(GENRES),
    size="1.2 GB",
    place="gtzan/genres/blues/blues.00000.wav ...",
    present=lambda root: bool(_layouts(root)),
    listing=listing,
    # A mirror, at the revision whose sum is published; it holds .wav. The archive of .au files to which the
    # dead links led has the same name, and may be brought by hand.
    archives=(
        Archive(
            "genres.tar.gz",
            "gtzan/genres",
            "https://huggingface.co/datasets/marsyas/gtzan/resolve/d2146561ecc7df707d9e6b8318885fe6a39668a2/"
            "data/genres.tar.gz",
            "sha256:b28cc067ff6199bd826f5d1a6931458586d64acae7f44b2e882b7a97af057531",
        ),
        Archive("genres.tar.gz", "gtzan/genres", None, "md5:5b3d6dddb579ab49814ab86dba69e7c7"),
    ),
    about_archives=BY_HAND,
    known_bad=known_bad(),
)
