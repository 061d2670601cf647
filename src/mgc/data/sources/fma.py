"""FMA, the Free Music Archive dataset: four subsets with the official split, read from `tracks.csv`.

Defferrard, Benzi, Vandergheynst, Bresson: "FMA: A Dataset For Music Analysis", ISMIR 2017, arXiv 1612.01840.
"""

from collections.abc import Hashable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgc.config import DataRecipe
from mgc.data.dataset import Listing, Source, Track
from mgc.data.sources import published
from mgc.data.sources.local import artist_group
from mgc.data.splits import side_of
from mgc.util.errors import MgcError, counted, explaining

if TYPE_CHECKING:
    import pandas as pd

# Each contains the ones before it. tracks.csv names the smallest subset that contains a track.
SUBSETS = ("fma_small", "fma_medium", "fma_large", "fma_full")
TRACKS_CSV = "fma_metadata/tracks.csv"
AUTHORITY = (
    "official split of FMA, 80/10/10 within genres and artist-disjoint (Defferrard et al., ISMIR 2017), "
    "read from set/split of tracks.csv"
)
# The columns that are read, by their names in the two header rows.
_COLUMNS = {
    "subset": ("set", "subset"),
    "split": ("set", "split"),
    "genre": ("track", "genre_top"),
    "title": ("track", "title"),
    "artist_id": ("artist", "id"),
    "artist": ("artist", "name"),
    "album_id": ("album", "id"),
    "album": ("album", "title"),
}


def _listing(subset: str, root: Path, recipe: DataRecipe) -> Listing:
    """The tracks of the subset that have a genre, and notes about the others."""
    places = _places(subset, root)
    table, folder = places.values()
    if table is None or folder is None:
        missing = " and no ".join(name for name, place in places.items() if place is None)
        fix = f"mgc data fetch {subset}; or name the folder that contains both with --data-root"
        raise MgcError(f"{subset} is not here: there is no {missing}", where=root.absolute(), fix=fix)
    rows = _read(table)
    rows = rows[("fma_" + rows["subset"]).isin(SUBSETS[: SUBSETS.index(subset) + 1])]
    rows = rows.assign(track_id=rows["track_id"].astype(int).map("{:06d}".format))
    tracks = [_track(row, folder) for row in rows[rows["genre"] != ""].to_dict("records")]
    if not tracks:
        fix = f"use the unchanged tracks.csv of fma_metadata.zip: mgc data fetch {subset}"
        raise MgcError(f"tracks.csv has no track of {subset} with a genre", where=table, fix=fix)
    count = SOURCES[subset].tracks
    without_genre = len(rows) - len(tracks)
    without_artist = sum(track.group == track.track_id for track in tracks)
    unlisted = {file.stem for file in folder.glob("*/*.mp3")} - {*rows["track_id"]}
    notes = {
        f"{without_genre:,} tracks have no genre_top (several root genres, or none) and are not used: the "
        "task needs one label per track": without_genre,
        f"tracks.csv lists {len(rows):,} tracks of {subset}; {count:,} were published": len(rows) != count,
        f"{counted(without_artist, 'track')} without an artist, each a group of its own": without_artist,
        f"{len(unlisted):,} mp3 files in {folder.name} are not tracks of {subset} and not used": unlisted,
    }
    applying = [note for note, applies in notes.items() if applies]
    return Listing(subset, tracks, [], applying, SOURCES[subset].licence, "official", AUTHORITY)


def _places(subset: str, root: Path) -> dict[str, Path | None]:
    """tracks.csv and the folder of the audio, in the data root or in a folder `fma` below it."""
    folders = (root, root / "fma")
    names = (TRACKS_CSV, f"{subset}/")
    return {name: next((f / name for f in folders if (f / name).exists()), None) for name in names}


def _track(row: dict[Hashable, str], folder: Path) -> Track:
    track_id = row["track_id"]
    artist, title, album = (
        " ".join(row[key].split()) for key in ("artist", "title", "album")
    )  # have line ends
    return Track(
        track_id,
        folder / track_id[:3] / f"{track_id}.mp3",
        row["genre"],
        artist_group(row["artist_id"]) if row["artist_id"] else track_id,
        artist=artist or row["artist_id"] or None,
        title=title or None,
        split=side_of(row["split"]),
        # With its id, because many albums have the same title. -1 means no album.
        album=None if row["album_id"] in ("", "-1") else f"{album or 'untitled'} (album {row['album_id']})",
    )


def _read(table: Path) -> "pd.DataFrame":
    """The columns `track_id` and those of `_COLUMNS`, all as text; an empty cell is ""."""
    import pandas as pd

    options: Any = {"header": None, "dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
    fix = "it may be truncated; take it from fma_metadata.zip again: mgc data fetch fma_small"
    with explaining("tracks.csv cannot be read", table, fix, (OSError, ValueError, MemoryError)):
        head = pd.read_csv(table, nrows=3, **options).to_numpy() if table.stat().st_size else [[]]
        names = [*zip(*head[:2], strict=True)]
        missing = ["/".join(pair) for pair in _COLUMNS.values() if pair not in names]
        if len(head) < 3 or head[2][0] != "track_id":
            missing.append("the row track_id below the two rows of names")
        if missing:
            lacking = ", ".join(missing) if names else "all columns"
            what = f"this is not the tracks.csv of FMA: it lacks {lacking}"
            fix = "use the unchanged one of fma_metadata.zip (not raw_tracks.csv): mgc data fetch fma_small"
            raise MgcError(what, where=table, fix=fix)
        places = {0: "track_id"} | {names.index(pair): key for key, pair in _COLUMNS.items()}
        rows = pd.read_csv(table, skiprows=3, usecols=[*places], **options).rename(columns=places).fillna("")
    checks = {
        "subset": ("subset", ("fma_" + rows["subset"]).isin(SUBSETS)),
        "track_id": ("track id", rows["track_id"].str.fullmatch("[0-9]{1,9}")),
        "split": ("split name", rows["split"].map(side_of).notna()),
    }
    for column, (kind, valid) in checks.items():
        if not valid.all():
            row = int(valid.to_numpy().argmin())
            what = f"row {row + 1} after the header: {rows[column].iloc[row]!r} is not a {kind}"
            fix = "use the unchanged tracks.csv of fma_metadata.zip: mgc data fetch fma_small"
            raise MgcError(what, where=table, fix=fix)
    return rows


def _source(subset: str) -> Source:
    return published(subset, lambda root: all(_places(subset, root).values()), partial(_listing, subset))


SOURCES = {subset: _source(subset) for subset in SUBSETS}
