"""Where tracks come from: a folder `root/<genre>/<file>` or a manifest. Nothing is decoded here."""

import csv
import json
import math
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from mgc.audio import SUFFIXES
from mgc.config import DataRecipe, MgcError, did_you_mean
from mgc.data.dataset import Excluded, Track, as_text
from mgc.data.splits import SPLIT_WORDS, side_of

# The usual names of columns, compared without case; the first that is there is taken.
USUAL_COLUMNS = {
    "path": ("path", "file", "filepath", "file_path", "filename", "file_name", "audio", "audio_path"),
    "label": ("label", "genre", "class", "category", "genre_top"),
    "split": ("split", "partition", "set"),
    "artist": ("artist", "artist_name", "artist_id", "performer", "group"),
    "title": ("title", "track_title", "song", "track", "name"),
    "id": ("track_id", "id"),
}
MANIFEST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Listing:
    """What a source lists: tracks not yet looked at, those that cannot even be named, and remarks."""

    name: str
    tracks: list[Track]
    excluded: list[Excluded]
    notes: list[str]


def from_folder(root: Path) -> Listing:
    """`root/<genre>/<file>`: the folder's name is the label, artists are unknown."""
    entries = _visible(root)
    tracks, bare, other, deeper = list[Track](), list[str](), 0, 0
    loose = sum(_named_like_audio(entry) for entry in entries)
    for genre in filter(Path.is_dir, entries):
        inside = _visible(genre)
        audio = [file for file in inside if _named_like_audio(file)]
        folders = sum(entry.is_dir() for entry in inside)
        deeper += folders
        other += len(inside) - len(audio) - folders
        if not audio:
            bare.append(as_text(genre.name))
        for file in audio:
            track_id = as_text(file.relative_to(root).as_posix())
            tracks.append(Track(track_id, file, as_text(genre.name), group=track_id))
    told = {
        "no audio in these folders, which are no genres then: " + ", ".join(bare): bool(bare),
        f"{other} files whose names do not end like audio were not looked at": other,
        f"{deeper} folders within the genre folders were not looked into": deeper,
        f"{loose} audio files beside the genre folders have no genre and were not looked at": loose,
    }
    notes = [note for note, count in told.items() if count]
    if not tracks:
        raise MgcError(
            "; ".join(["no audio was found in the folders of this folder", *notes]),
            where=root,
            fix=f"lay it out as root/<genre>/<file> ({' '.join(sorted(SUFFIXES))}) or give a manifest",
        )
    return Listing(as_text(root.resolve().name), tracks, [], notes)


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _named_like_audio(entry: Path) -> bool:
    return entry.suffix.lower() in SUFFIXES and not entry.is_dir()


def from_manifest(file: Path, recipe: DataRecipe) -> Listing:
    """A CSV, TSV, JSONL or Parquet table with a path and a label column.

    Relative paths count from the manifest. An empty cell is an unknown value.

    Raises:
        MgcError: an unreadable table, a column that is not there, a row without a path, a split that is
            not one of the usual words, two rows of one id.
    """
    names, table = _read_table(file)
    columns = {
        key: _column(names, key, getattr(recipe, f"{key}_column"), file)
        for key in ("path", "label", "split", "artist", "title", "id")
    }
    for key in ("path", "label"):
        if columns[key] is None:
            raise MgcError(
                f"the manifest has no {key} column (looked for {', '.join(USUAL_COLUMNS[key])})",
                where=file,
                fix=f"name it with --column {key}=NAME; columns: {', '.join(names)}",
            )
    tracks, excluded, rows_of = [], [], dict[str, int]()
    for number, row in enumerate(table, start=1):
        cell = {
            key: _cell(row.get(column), column, number, file) if column else ""
            for key, column in columns.items()
        }
        if not cell["path"]:
            raise MgcError(f"row {number} has no path", where=file, fix="fill it in or take the row out")
        track_id = cell["id"] or cell["path"]
        path = file.parent / cell["path"]
        if track_id in rows_of:
            raise MgcError(
                f"rows {rows_of[track_id]} and {number} are both the track {track_id!r}",
                where=file,
                fix="take one of them out, or name a column of unique ids with --column id=NAME",
            )
        rows_of[track_id] = number
        if not cell["label"]:
            excluded.append(Excluded(track_id, path, "", "no label in the manifest"))
            continue
        given = recipe.split in ("auto", "given") and columns["split"]
        side = _side(cell["split"], given, number, file) if given else None
        artist = cell["artist"] or None
        group = _artist_group(artist) if artist else track_id
        tracks.append(Track(track_id, path, cell["label"], group, artist, cell["title"] or None, side))
    generic = {"tracks", "manifest", "metadata", "index", "data", "labels", "dataset"}
    name = file.resolve().parent.name if file.stem.lower() in generic else file.stem
    notes = [f"columns: {', '.join(f'{key} = {column}' for key, column in columns.items() if column)}"]
    return Listing(name, tracks, excluded, notes)


def _read_table(file: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows. No type is guessed: a genre called "None" or an id like 007 stays what it is."""
    suffix = file.suffix.lower()
    try:
        if suffix == ".parquet":
            rows = pyarrow.parquet.read_table(file).to_pylist()
        elif suffix == ".jsonl":
            lines = file.read_text(encoding="utf-8-sig").split("\n")
            rows = [json.loads(line) for line in lines if line.strip()]
        else:
            with file.open(encoding="utf-8-sig", newline="") as stream:
                rows = list(csv.DictReader(stream, delimiter="\t" if suffix == ".tsv" else ",", strict=True))
    except (OSError, ValueError, csv.Error, pyarrow.ArrowException) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MgcError(f"the manifest cannot be read as {suffix[1:]}: {first}", where=file) from None
    if not rows:
        raise MgcError("the manifest has no rows", where=file)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise MgcError(f"row {number} is no object of columns and values", where=file)
        if any(row.pop(None, [])):  # where csv puts what is beyond the header
            fix = 'put text that holds a comma or a tab in quotes: "one, two"'
            raise MgcError(f"row {number} has more cells than the header", where=file, fix=fix)
    return [str(name) for name in dict.fromkeys(name for row in rows for name in row)], rows


def _cell(value: Any, column: str, number: int, file: Path) -> str:
    # NaN is how a table of numbers says "unknown".
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, dict | list | bytes):
        kind = type(value).__name__
        fix = "name a column of text or numbers with --column, or write the audio out as files"
        raise MgcError(f"row {number} holds a {kind} in the column {column!r}", where=file, fix=fix)
    return as_text(value).strip()


def _column(names: list[str], key: str, named: str | None, file: Path) -> str | None:
    if named is not None:
        if named not in names:
            raise MgcError(
                f"the manifest has no column {named!r}", where=file, fix=did_you_mean(named, names)
            )
        return named
    by_lower = {name.strip().lower(): name for name in names}
    return next((by_lower[usual] for usual in USUAL_COLUMNS[key] if usual in by_lower), None)


def _side(word: str, column: str, number: int, file: Path) -> str:
    side = side_of(word)
    if side is None:
        raise MgcError(
            f"row {number}: {word!r} in the column {column!r} is no side of a split",
            where=file,
            fix=f"use {', '.join(words[0] for words in SPLIT_WORDS.values())}; or leave the column unread "
            "with --set data.split=cv5",
        )
    return side


def _artist_group(artist: str) -> str:
    """However the name is typed: case, spaces and the encoding of accents make no other artist."""
    return f"artist: {' '.join(unicodedata.normalize('NFKC', artist).casefold().split())}"
