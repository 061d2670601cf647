"""GTZAN: ten genres of 100 clips, in any of the common layouts, with the fault-filtered split.

Tzanetakis and Cook, "Musical genre classification of audio signals", IEEE TSAP 2002. The files contain
repetitions, wrong labels and distortions (Sturm, "The GTZAN dataset", arXiv 1306.1461), so random splits
leak. The fault-filtered split excludes them and separates artists (Kereliuk, Sturm, Larsen, "Deep Learning
and Music Adversaries", IEEE TMM 2015, arXiv 1507.04761): 443, 197 and 290 of the 1,000 tracks for training,
validation and test.

`gtzan_filtered.csv` has its ids: the lists filtered_train, filtered_valid and filtered_test of torchaudio
2.6.0 (datasets/gtzan.py), which come from github.com/jordipons/sklearn-audio-transfer-learning.
"""

import csv
import re
from pathlib import Path
from typing import Any

from mgc.config import DataRecipe
from mgc.data.dataset import Listing, Track
from mgc.data.sources import published
from mgc.data.sources.local import visible_entries
from mgc.util.errors import MgcError

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
# Below gtzan/: of the mirror and the original, and of Kaggle's archive.zip with and without its first folder.
LAYOUTS = ("genres", "Data/genres_original", "genres_original", ".")
# In order of preference. Both hold the same samples, and the archive that `fetch` downloads has .wav.
SUFFIXES = (".wav", ".au")
AUTHORITY = (
    "fault-filtered, artist-aware split of GTZAN (Kereliuk et al. 2015, based on the faults found by Sturm, "
    "2013), published as 443 training, 197 validation and 290 test tracks"
)


def filtered_split() -> dict[str, str]:
    """ "train", "val" or "test" for each of the 930 tracks of the fault-filtered split, by track id."""
    with Path(__file__).with_name("gtzan_filtered.csv").open(encoding="utf-8", newline="") as stream:
        return {row["track_id"]: row["split"] for row in csv.DictReader(stream)}


def listing(root: Path, recipe: DataRecipe) -> Listing:
    """The fault-filtered tracks for the splits "auto" and "given", all existing tracks for any other split.

    Missing tracks of the fault-filtered split are listed too, so that the loader reports them.

    Raises:
        MgcError: the folder is missing, or contains no track.
    """
    folder, files, notes = _scan(root)
    filtered = recipe.split in ("auto", "given")
    splits: dict[str, Any] = filtered_split() if filtered else dict.fromkeys(files)
    tracks = []
    for track_id, split in sorted(splits.items()):
        genre = track_id.partition(".")[0]
        path = files.get(track_id, folder / genre / f"{track_id}{SUFFIXES[0]}")
        tracks.append(Track(track_id, path, genre, group=track_id, split=split))  # artists are unknown
    faults = "repetitions, wrong labels, distortions"
    if filtered:
        if others := len(files.keys() - splits.keys()):
            notes.insert(0, f"{others} tracks are excluded by the fault-filtered split ({faults})")
        return Listing("gtzan", tracks, [], notes, SOURCE.licence, "fault-filtered", AUTHORITY)
    warning = f"all tracks are used, including faulty ones ({faults}), and artists are unknown: scores are "
    warning += "too high; --split given selects the fault-filtered split"
    absent = SOURCE.tracks - len(tracks)
    missing = [f"{absent} of the 1,000 tracks are missing"] if absent else []
    return Listing("gtzan", tracks, [], [warning, *missing, *notes], SOURCE.licence)


def _scan(root: Path) -> tuple[Path, dict[str, Path], list[str]]:
    """The folder of the genres, the file of each track by its id, and notes."""
    layouts = _layouts(root)
    if not layouts:
        raise MgcError(
            f"gtzan is not here: there is no genre folder ({', '.join(GENRES)}) in gtzan or its subfolders "
            f"{', '.join(LAYOUTS[:-1])}",
            where=(root / "gtzan").absolute(),
            fix="mgc data fetch gtzan; or name the folder that contains gtzan/ with --data-root",
        )
    (folder, genres), *rest = layouts.items()
    found = [(_track_id(genre, file), file) for genre, inside in genres for file in visible_entries(inside)]
    found.sort(key=lambda pair: pair[1].suffix.lower() == SUFFIXES[0])  # the last of a track's files is used
    files = {track_id: file for track_id, file in found if track_id}
    if not files:
        what = f"no track was found (expected blues/blues.00000{SUFFIXES[0]} and so on)"
        raise MgcError(what, where=folder.absolute(), fix="mgc data fetch gtzan")
    others = sum(track_id is None for track_id, _ in found)
    duplicates = len(found) - others - len(files)
    unread = ", ".join(str(other.relative_to(root)) for other, _ in rest)
    notes = {
        f"{duplicates} tracks exist more than once: {SUFFIXES[0]} is preferred to {SUFFIXES[1]}": duplicates,
        f"{others} files in the genre folders are not among the 1,000 tracks and are not used": others,
        f"read from {folder.relative_to(root)}; not used: {unread}": unread,
    }
    return folder, files, [note for note, applies in notes.items() if applies]


def _layouts(root: Path) -> dict[Path, list[tuple[str, Path]]]:
    """(genre, its folder) in each folder that contains genre folders; `hip-hop` is `hiphop`."""
    genres = {}
    for folder in (root / "gtzan" / layout for layout in LAYOUTS):
        entries = visible_entries(folder) if folder.is_dir() else []
        named = [(_plain(entry.name), entry) for entry in entries if entry.is_dir()]
        genres[folder] = [(genre, entry) for genre, entry in named if genre in GENRES]
    return {folder: found for folder, found in genres.items() if found}


def _plain(name: str) -> str:
    return name.lower().replace("-", "")


def _track_id(genre: str, file: Path) -> str | None:
    """`hiphop.00012` for `hip-hop.00012.wav` in the folder of its genre; None for any other file."""
    match = re.fullmatch(rf"({genre}\.000\d\d)\.(wav|au)", _plain(file.name), re.ASCII)
    return match[1] if match else None


SOURCE = published("gtzan", lambda root: bool(_layouts(root)), listing)
