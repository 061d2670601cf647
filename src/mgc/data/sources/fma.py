"""FMA, the Free Music Archive set: four subsets, the official split, and what is known to be wrong in it.

Defferrard, Benzi, Vandergheynst, Bresson: "FMA: A Dataset For Music Analysis", ISMIR 2017, arXiv 1612.01840.
Subsets, sums and licences are those of the README of github.com/mdeff/fma.
"""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow
import pyarrow.csv

from mgc.config import DataRecipe
from mgc.data.dataset import Track
from mgc.data.listing import Archive, Listing, Source
from mgc.data.sources.local import artist_group
from mgc.data.splits import side_of
from mgc.util.errors import MgcError

# Every subset holds the ones before it. tracks.csv names the smallest that a track belongs to; compared as
# text, "large" would come before "small".
SUBSETS = ("fma_small", "fma_medium", "fma_large", "fma_full")
ID_DIGITS = 9  # a track has six
TRACKS_CSV = "fma_metadata/tracks.csv"
LICENCE = (
    "audio: what the artist of each track has chosen (tracks.csv, track/license), mostly Creative Commons; "
    "metadata: CC BY 4.0; meant for research"
)
AUTHORITY = (
    "official split of FMA, 80/10/10 within genres and artist-disjoint (Defferrard et al., ISMIR 2017), "
    "read from set/split of tracks.csv"
)

# Excerpts were cut by the length that the web site stated; where it was wrong, little or nothing was left.
# From the wiki of github.com/mdeff/fma (issues 4, 8, 41 and 44): seconds of audio there are.
_SHORT_IN_SMALL = {
    "098565": 1.6,
    "098567": 0.5,
    "098569": 1.5,
    "099134": 0.0,
    "108925": 0.0,
    "133297": 0.0,
}
_SHORT_IN_MEDIUM = {
    **dict.fromkeys(("001486", "005574", "065753", "080391", "098558", "098559", "098560", "098571"), 0.0),
    **dict.fromkeys(("105247", "126981", "127336", "143992"), 0.0),
    "098566": 6.2,
    "098568": 6.6,
    "108924": 27.4,
    **_SHORT_IN_SMALL,
}

# What is read of a row, by the names in the two header rows.
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
    """Clips known to be bad, and how, by track id. `fma_full` holds whole tracks: none is known there.

    Of `fma_large` only those are known that stand in `fma_medium` too.
    """
    short = {"fma_small": _SHORT_IN_SMALL, "fma_full": {}}.get(subset, _SHORT_IN_MEDIUM)
    return {
        track_id: f"only {seconds} s instead of 30 s" if seconds else "without audio"
        for track_id, seconds in sorted(short.items())
    }


def listing(subset: str) -> Callable[[Path, DataRecipe], Listing]:
    """What lists `subset`, one of `SUBSETS`, below a data root (see `Source.listing`)."""

    def listed(root: Path, recipe: DataRecipe) -> Listing:
        table, folder = _located(root, subset)
        tracks, notes = _tracks(table, folder, subset)
        return Listing(subset, tracks, [], notes, LICENCE, "official", AUTHORITY)

    return listed


def _tracks(table: Path, folder: Path, subset: str) -> tuple[list[Track], list[str]]:
    """The tracks of the subset that have a genre, and remarks on what else there is."""
    inside = SUBSETS[: SUBSETS.index(subset) + 1]
    tracks, without_genre = list[Track](), set[str]()
    for number, row in enumerate(_rows(table), start=1):
        if f"fma_{row['subset']}" not in SUBSETS:
            raise _odd(row["subset"], "subset", number, table)
        if f"fma_{row['subset']}" not in inside:
            continue
        if not (row["track_id"].isdecimal() and len(row["track_id"]) <= ID_DIGITS):
            raise _odd(row["track_id"], "track id", number, table)
        track_id = f"{int(row['track_id']):06d}"
        side = side_of(row["split"])
        if side is None:
            raise _odd(row["split"], "side of the split", number, table)
        if not row["genre"]:
            without_genre.add(track_id)
            continue
        path = folder / track_id[:3] / f"{track_id}.mp3"
        group = artist_group(row["artist_id"]) if row["artist_id"] else track_id
        artist = _line(row["artist"]) or row["artist_id"] or None
        title = _line(row["title"]) or None
        tracks.append(Track(track_id, path, row["genre"], group, artist, title, side, _album(row)))
    if not tracks:
        fix = f"take it as it is in fma_metadata.zip: mgc data fetch {subset}"
        raise MgcError(f"no track of {subset} with a genre stands in tracks.csv", where=table, fix=fix)
    published, listed = SOURCES[subset].tracks, len(tracks) + len(without_genre)
    alone = sum(track.group == track.track_id for track in tracks)
    stray = {file.stem for file in folder.glob("*/*.mp3")} - {t.track_id for t in tracks} - without_genre
    told = {
        f"{len(without_genre):,} tracks have no genre_top (several root genres, or none), which a task of "
        "one label a track cannot use": len(without_genre),
        f"tracks.csv lists {listed:,} tracks of {subset}, where {published:,} were published": listed
        - published,
        f"{alone:,} tracks name no artist: each is kept apart on its own": alone,
        f"{len(stray):,} mp3 files in {folder.name} are no tracks of {subset} and were not looked at": len(
            stray
        ),
    }
    return tracks, [note for note, count in told.items() if count]


def _album(row: dict[str, str]) -> str | None:
    """With its id, for many albums have the same title. -1 stands for none."""
    if row["album_id"] in ("", "-1"):
        return None
    return f"{_line(row['album']) or 'untitled'} (album {row['album_id']})"


def _line(text: str) -> str:
    """On one line: some names and titles hold line ends."""
    return " ".join(text.split())


def _odd(cell: str, kind: str, number: int, table: Path) -> MgcError:
    fix = "take tracks.csv as it is in fma_metadata.zip: mgc data fetch fma_small"
    return MgcError(f"row {number} after the header: {cell!r} is no {kind}", where=table, fix=fix)


def _rows(table: Path) -> Iterator[dict[str, str]]:
    """Rows with `track_id` and the keys of `_COLUMNS`; an empty cell is "".

    By pyarrow, as csv needs six times as long for the 260 MB, most of them in columns that are not read here;
    on one thread, as quoted line ends make it slower on several.
    """
    names, lines = _header(table)
    wanted = {"track_id": 0, **{key: names.index(pair) for key, pair in _COLUMNS.items()}}
    columns = [f"{index}" for index in range(len(names))]
    read = [f"{index}" for index in wanted.values()]
    try:
        cells = pyarrow.csv.read_csv(
            table,
            # A block must hold the longest row, and texts on artists are long.
            read_options=pyarrow.csv.ReadOptions(
                skip_rows=lines, column_names=columns, block_size=1 << 24, use_threads=False
            ),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=read, column_types=dict.fromkeys(read, pyarrow.string())
            ),
        )
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable(table, error) from None
    for values in zip(*(cells[name].to_pylist() for name in read), strict=True):
        yield dict(zip(wanted, values, strict=True))


def _header(table: Path) -> tuple[list[tuple[str, str]], int]:
    """Names of the columns, from two rows, and how many lines come before the first track.

    Raises:
        MgcError: a column is missing, or the third row is not the one that names the index.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            first, second, third = (next(reader, []) for _ in range(3))
            lines = reader.line_num
    except (OSError, ValueError, csv.Error) as error:
        raise _unreadable(table, error) from None
    names = list(zip(first, second, strict=False))
    missing = ["/".join(pair) for pair in _COLUMNS.values() if pair not in names]
    if third[:1] != ["track_id"]:
        missing.append("the row track_id below the two rows of names")
    if missing:
        raise MgcError(
            f"this is not the tracks.csv of FMA: it lacks {', '.join(missing)}",
            where=table,
            fix="take it as it is in fma_metadata.zip (not raw_tracks.csv): mgc data fetch fma_small",
        )
    return names, lines


def _unreadable(table: Path, error: Exception) -> MgcError:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    fix = "it may be cut short; take it from fma_metadata.zip again: mgc data fetch fma_small"
    return MgcError(f"tracks.csv cannot be read: {first}", where=table, fix=fix)


def _find(root: Path, below: str) -> Path | None:
    """In the data root, or in a folder `fma` there, as many have it."""
    return next((place for place in (root / below, root / "fma" / below) if place.exists()), None)


def _located(root: Path, subset: str) -> tuple[Path, Path]:
    """tracks.csv and the folder of the audio.

    Raises:
        MgcError: one of them, or both, are not there.
    """
    table, folder = _find(root, TRACKS_CSV), _find(root, subset)
    if table is not None and folder is not None:
        return table, folder
    missing = [name for name, place in ((TRACKS_CSV, table), (f"{subset}/", folder)) if place is None]
    raise MgcError(
        f"{subset} is not here: there is no {' and no '.join(missing)}",
        where=root.absolute(),
        fix=f"mgc data fetch {subset}; or name the folder that holds both with --data-root",
    )


def _present(subset: str) -> Callable[[Path], bool]:
    return lambda root: _find(root, TRACKS_CSV) is not None and _find(root, subset) is not None


SERVER = "https://os.unil.cloud.switch.ch/fma"


def _archive(name: str, sha1: str) -> Archive:
    return Archive(f"{name}.zip", name, f"{SERVER}/{name}.zip", f"sha1:{sha1}")


_METADATA = _archive("fma_metadata", "f0df49ffe5f2a6008d7dc83c6915b31835dfe733")


def _source(subset: str, about: str, tracks: int, genres: int, size: str, archive: Archive) -> Source:
    return Source(
        about=about,
        licence=LICENCE,
        tracks=tracks,
        genres=genres,
        size=f"{size} of audio, 342 MiB of metadata",
        place=f"{subset}/000/000002.mp3 ... and {TRACKS_CSV}",
        present=_present(subset),
        listing=listing(subset),
        archives=(_METADATA, archive),
        about_archives=f"{_METADATA.file} and {archive.file}, both of {SERVER}/",
        known_bad=known_bad(subset),
    )


SOURCES: dict[str, Source] = {
    "fma_small": _source(
        "fma_small",
        "clips of 30 s, balanced, with the official artist-disjoint split",
        8_000,
        8,
        "7.2 GiB",
        _archive("fma_small", "ade154f733639d52e35e32f5593efe5be76c6d70"),
    ),
    "fma_medium": _source(
        "fma_medium",
        "clips of 30 s, unbalanced, with the official artist-disjoint split",
        25_000,
        16,
        "22 GiB",
        _archive("fma_medium", "c67b69ea232021025fca9231fc1c7c1a063ab50b"),
    ),
    "fma_large": _source(
        "fma_large",
        "clips of 30 s, of which those with one root genre are used",
        106_574,
        16,
        "93 GiB",
        _archive("fma_large", "497109f4dd721066b5ce5e5f250ec604dc78939e"),
    ),
    "fma_full": _source(
        "fma_full",
        "whole tracks, of which those with one root genre are used",
        106_574,
        16,
        "879 GiB",
        _archive("fma_full", "0f0ace23fbe9ba30ecb7e95f763e435ea802b8ab"),
    ),
}
