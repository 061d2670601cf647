"""FMA, the Free Music Archive dataset: four subsets with the official split, read from `tracks.csv`.

Defferrard, Benzi, Vandergheynst, Bresson: "FMA: A Dataset For Music Analysis", ISMIR 2017, arXiv 1612.01840.
Subsets, digests and licences are those in the README of github.com/mdeff/fma.
"""

from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgc.config import DataRecipe
from mgc.data.dataset import Track
from mgc.data.listing import Archive, Listing, Source
from mgc.data.sources.local import artist_group
from mgc.data.splits import side_of
from mgc.util.errors import MgcError, reason_of

if TYPE_CHECKING:
    import pandas as pd

# name: (description, tracks, genres, size, SHA-1 of the archive). Each subset contains the ones before it;
# tracks.csv names the smallest subset that contains a track.
_SUBSETS = {
    "fma_small": (
        "30 s clips, balanced, with the official artist-disjoint split",
        8_000, 8, "7.2 GiB", "ade154f733639d52e35e32f5593efe5be76c6d70",
    ),
    "fma_medium": (
        "30 s clips, unbalanced, with the official artist-disjoint split",
        25_000, 16, "22 GiB", "c67b69ea232021025fca9231fc1c7c1a063ab50b",
    ),
    "fma_large": (
        "30 s clips; those with exactly one root genre are used",
        106_574, 16, "93 GiB", "497109f4dd721066b5ce5e5f250ec604dc78939e",
    ),
    "fma_full": (
        "whole tracks; those with exactly one root genre are used",
        106_574, 16, "879 GiB", "0f0ace23fbe9ba30ecb7e95f763e435ea802b8ab",
    ),
}  # fmt: skip
SUBSETS = tuple(_SUBSETS)
SERVER = "https://os.unil.cloud.switch.ch/fma"
TRACKS_CSV = "fma_metadata/tracks.csv"
LICENCE = (
    "audio: chosen by the artist of each track (tracks.csv, track/license), mostly Creative Commons; "
    "metadata: CC BY 4.0; intended for research"
)
AUTHORITY = (
    "official split of FMA, 80/10/10 within genres and artist-disjoint (Defferrard et al., ISMIR 2017), "
    "read from set/split of tracks.csv"
)

# Seconds of audio in clips that are too short, from the wiki of github.com/mdeff/fma (issues 4, 8, 41, 44).
_SHORT_IN_SMALL = {
    "098565": 1.6, "098567": 0.5, "098569": 1.5, "099134": 0.0, "108925": 0.0, "133297": 0.0,
}  # fmt: skip
_SHORT_IN_MEDIUM = {
    **dict.fromkeys(("001486", "005574", "065753", "080391", "098558", "098559", "098560", "098571"), 0.0),
    **dict.fromkeys(("105247", "126981", "127336", "143992"), 0.0),
    **{"098566": 6.2, "098568": 6.6, "108924": 27.4},
    **_SHORT_IN_SMALL,
}

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


def known_bad(subset: str) -> dict[str, str]:
    """Clips that are known to be bad, by track id. None are known in `fma_full`, which has whole tracks.

    Of `fma_large`, only those that are also in `fma_medium` are known.
    """
    short = {"fma_small": _SHORT_IN_SMALL, "fma_full": {}}.get(subset, _SHORT_IN_MEDIUM)
    return {
        track_id: f"only {seconds} s instead of 30 s" if seconds else "without audio"
        for track_id, seconds in sorted(short.items())
    }


def listing(subset: str) -> Callable[[Path, DataRecipe], Listing]:
    """The function that lists `subset` below a data root (see `Source.listing`)."""

    def listed(root: Path, recipe: DataRecipe) -> Listing:
        table, folder = _locate(root, subset)
        tracks, notes = _tracks(table, folder, subset)
        return Listing(subset, tracks, [], notes, LICENCE, "official", AUTHORITY)

    return listed


def _tracks(table: Path, folder: Path, subset: str) -> tuple[list[Track], list[str]]:
    """The tracks of the subset that have a genre, and notes about the others."""
    rows = _read(table)
    _check(rows, "subset", "subset", ("fma_" + rows["subset"]).isin(SUBSETS), table)
    rows = rows[("fma_" + rows["subset"]).isin(SUBSETS[: SUBSETS.index(subset) + 1])]
    _check(rows, "track_id", "track id", rows["track_id"].str.fullmatch("[0-9]{1,9}"), table)
    _check(rows, "split", "split name", rows["split"].map(side_of).notna(), table)
    rows = rows.assign(track_id=rows["track_id"].astype(int).map("{:06d}".format))
    tracks = [_track(row, folder) for row in rows[rows["genre"] != ""].to_dict("records")]
    if not tracks:
        fix = f"use the unchanged tracks.csv of fma_metadata.zip: mgc data fetch {subset}"
        raise MgcError(f"tracks.csv has no track of {subset} with a genre", where=table, fix=fix)
    published = SOURCES[subset].tracks
    without_genre = len(rows) - len(tracks)
    without_artist = sum(track.group == track.track_id for track in tracks)
    unlisted = {file.stem for file in folder.glob("*/*.mp3")} - {*rows["track_id"]}
    notes = {
        f"{without_genre:,} tracks have no genre_top (several root genres, or none) and are not used: the "
        "task needs one label per track": without_genre,
        f"tracks.csv lists {len(rows):,} tracks of {subset}; {published:,} were published": (
            len(rows) != published
        ),
        f"{without_artist:,} tracks have no artist; each is a group of its own": without_artist,
        f"{len(unlisted):,} mp3 files in {folder.name} are not tracks of {subset} and not used": unlisted,
    }
    return tracks, [note for note, applies in notes.items() if applies]


def _track(row: dict[Hashable, str], folder: Path) -> Track:
    track_id = row["track_id"]
    # With its id, because many albums have the same title. -1 means no album.
    album = f"{_line(row['album']) or 'untitled'} (album {row['album_id']})"
    return Track(
        track_id,
        folder / track_id[:3] / f"{track_id}.mp3",
        row["genre"],
        artist_group(row["artist_id"]) if row["artist_id"] else track_id,
        artist=_line(row["artist"]) or row["artist_id"] or None,
        title=_line(row["title"]) or None,
        split=side_of(row["split"]),
        album=None if row["album_id"] in ("", "-1") else album,
    )


def _line(text: str) -> str:
    """On one line: some names and titles contain line ends."""
    return " ".join(text.split())


def _check(rows: "pd.DataFrame", column: str, kind: str, valid: "pd.Series[bool]", table: Path) -> None:
    """Raise `MgcError` for the first row whose cell is not `valid`."""
    if not valid.all():
        first = int(valid.to_numpy().argmin())
        raise MgcError(
            f"row {rows.index[first] + 1} after the header: {rows[column].iloc[first]!r} is not a {kind}",
            where=table,
            fix="use the unchanged tracks.csv of fma_metadata.zip: mgc data fetch fma_small",
        )


def _read(table: Path) -> "pd.DataFrame":
    """The columns `track_id` and those of `_COLUMNS`, all as text; an empty cell is "".

    Raises:
        MgcError: the table cannot be read, or lacks a column.
    """
    import pandas as pd

    read: Any = partial(
        pd.read_csv, table, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig"
    )
    try:
        head = read(nrows=3)
        names = list(zip(head.iloc[0], head.iloc[1], strict=True)) if len(head) > 1 else []
        missing = ["/".join(pair) for pair in _COLUMNS.values() if pair not in names]
        if len(head) < 3 or head.iloc[2, 0] != "track_id":
            missing.append("the row track_id below the two rows of names")
        if not missing:
            places = {0: "track_id"} | {names.index(pair): key for key, pair in _COLUMNS.items()}
            rows: pd.DataFrame = read(skiprows=3, usecols=[*places])
            return rows.rename(columns=places).fillna("")
    except pd.errors.EmptyDataError:
        missing = ["all columns"]
    except (OSError, ValueError, MemoryError) as error:
        fix = "it may be truncated; take it from fma_metadata.zip again: mgc data fetch fma_small"
        raise MgcError(f"tracks.csv cannot be read: {reason_of(error)}", where=table, fix=fix) from None
    raise MgcError(
        f"this is not the tracks.csv of FMA: it lacks {', '.join(missing)}",
        where=table,
        fix="use the unchanged one of fma_metadata.zip (not raw_tracks.csv): mgc data fetch fma_small",
    )


def _find(root: Path, place: str) -> Path | None:
    """In the data root, or in a folder `fma` below it, which is a common layout."""
    return next((path for path in (root / place, root / "fma" / place) if path.exists()), None)


def _locate(root: Path, subset: str) -> tuple[Path, Path]:
    """tracks.csv and the folder of the audio; `MgcError` if one of them is missing."""
    table, folder = _find(root, TRACKS_CSV), _find(root, subset)
    if table is not None and folder is not None:
        return table, folder
    missing = [name for name, place in ((TRACKS_CSV, table), (f"{subset}/", folder)) if place is None]
    raise MgcError(
        f"{subset} is not here: there is no {' and no '.join(missing)}",
        where=root.absolute(),
        fix=f"mgc data fetch {subset}; or name the folder that contains both with --data-root",
    )


def _archive(name: str, sha1: str) -> Archive:
    return Archive(f"{name}.zip", name, f"{SERVER}/{name}.zip", f"sha1:{sha1}")


def _source(subset: str) -> Source:
    about, tracks, genres, size, sha1 = _SUBSETS[subset]
    metadata = _archive("fma_metadata", "f0df49ffe5f2a6008d7dc83c6915b31835dfe733")
    return Source(
        about=about,
        licence=LICENCE,
        tracks=tracks,
        genres=genres,
        size=f"{size} of audio, 342 MiB of metadata",
        place=f"{subset}/000/000002.mp3 ... and {TRACKS_CSV}",
        present=lambda root: _find(root, TRACKS_CSV) is not None and _find(root, subset) is not None,
        listing=listing(subset),
        archives=(metadata, _archive(subset, sha1)),
        about_archives=f"{metadata.file} and {subset}.zip are at {SERVER}/",
        known_bad=known_bad(subset),
    )


SOURCES: dict[str, Source] = {subset: _source(subset) for subset in SUBSETS}
