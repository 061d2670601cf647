"""Local sources: a folder root/<genre>/<file>, a zip of such a folder, or a manifest. No audio is decoded."""

import csv
import json
import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mgc.audio import SUFFIXES
from mgc.config import DataRecipe
from mgc.data.clips import file_hash
from mgc.data.dataset import Excluded, Listing, Track, as_text
from mgc.data.fetch import unpack
from mgc.data.splits import SPLIT_WORDS, side_of
from mgc.evaluate import ARTIST_PREFIX
from mgc.util import files
from mgc.util.errors import MgcError, counted, did_you_mean, explaining
from mgc.workspace import Workspace

# Common column names, compared without case; the first that exists is used.
USUAL_COLUMNS = {
    "path": ("path", "file", "filepath", "file_path", "filename", "file_name", "audio", "audio_path"),
    "label": ("label", "genre", "class", "category", "genre_top"),
    "split": ("split", "partition", "set"),
    "artist": ("artist", "artist_name", "artist_id", "performer", "group"),
    "album": ("album", "album_title", "album_name", "album_id", "release"),
    "title": ("title", "track_title", "song", "track", "name"),
    "id": ("track_id", "id"),
}
MANIFEST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
GENERIC_NAMES = {"tracks", "manifest", "metadata", "index", "data", "labels", "dataset"}
MIN_ARTIST_FOLDERS = 5  # per genre: as many as a cross-validation has folds


# Folders


def from_folder(root: Path) -> Listing:
    """`root/<genre>/.../<file>`: the name of the first folder is the label. Links are followed.

    If the files of every genre are in five subfolders or more, as in `root/<genre>/<artist>/<album>/<file>`,
    the first subfolder is taken for the artist. Otherwise artists are unknown.

    Raises:
        MgcError: no audio, a single genre, or an unreadable folder.
    """
    files, hidden, revisited = files_below(root)
    parts_of = {file: file.relative_to(root).parts for file in files}
    audio = {file: parts for file, parts in parts_of.items() if file.suffix.lower() in SUFFIXES}
    found = {file: parts for file, parts in audio.items() if len(parts) > 1}
    loose = len(audio) - len(found)
    tables = [file.name for file, parts in parts_of.items() if len(parts) == 1 and is_manifest(file)]
    others = len(parts_of) - len(audio) - len(tables)
    genres = {genre for genre, *_ in found.values()}
    empty = [entry.name for entry in visible_entries(root) if entry.is_dir() and entry.name not in genres]
    below_genre = Counter(genre for genre, _ in {parts[:2] for parts in found.values()})
    subfolders = {below for _, below, *file in found.values() if file}
    deep = found and all(len(parts) > 2 for parts in found.values())
    has_artists = deep and min(below_genre.values()) >= MIN_ARTIST_FOLDERS
    reasons = {
        "subfolders of the genres are taken for artists, and a split never separates an artist": has_artists,
        "subfolders of the genres are not taken for artists (fewer than five in a genre, or files beside)":
            subfolders and not has_artists,
        f"folders without audio, which are not genres: {', '.join(empty)}": empty,
        f"{counted(others, 'file')} skipped: their names do not end like audio": others,
        f"{hidden} hidden files or folders (.*, __MACOSX) skipped": hidden,
        f"{counted(revisited, 'folder')} skipped: links lead to them again": revisited,
        f"{counted(loose, 'audio file')} skipped beside the genre folders, without a genre": loose,
        f"tables not read: {', '.join(tables)}; to use one, give it instead of the folder": tables,
    }  # fmt: skip
    notes = [as_text(note) for note, applies in reasons.items() if applies]
    if not found:
        what = "; ".join(["no audio was found in the subfolders of this folder", *notes])
        fix = f"use the layout root/<genre>/<file> ({' '.join(sorted(SUFFIXES))}), or give a manifest"
        raise MgcError(what, where=root, fix=fix)
    if len(genres) == 1 and len(subfolders) > 1:
        (genre,) = genres
        fix = f"if the genres are the folders within it, give --data {root / genre}"
        fix += "".join(f"; or give the table: --data {root / table}" for table in tables[:1])
        raise MgcError(f"only one folder contains audio, {genre!r}", where=root, fix=fix)
    tracks = []
    for file, (genre, below, *_) in found.items():
        track_id, artist = as_text(file.relative_to(root).as_posix()), as_text(below) if has_artists else None
        group = artist_group(artist) if artist else track_id
        tracks.append(Track(track_id, file, as_text(genre), group, artist))
    return Listing(as_text(root.resolve().name), tracks, [], notes)


def is_manifest(file: Path) -> bool:
    """Whether the name of a file ends like a manifest."""
    return file.suffix.lower() in MANIFEST_SUFFIXES


def files_below(folder: Path) -> tuple[list[Path], int, int]:
    """Files at any depth, and how many hidden entries and repeated folders (reached by links) are skipped."""
    found: list[Path] = []
    hidden = revisited = 0
    seen: set[tuple[int, int]] = set()
    todo = [folder]
    while todo:
        entry = todo.pop()
        if not entry.is_dir():
            found.append(entry)
            continue
        state = entry.stat()
        if (state.st_dev, state.st_ino) in seen:  # a link to a parent folder would never end
            revisited += 1
            continue
        seen.add((state.st_dev, state.st_ino))
        shown = visible_entries(entry)
        hidden += sum(1 for _ in entry.iterdir()) - len(shown)
        todo += reversed(shown)
    return found, hidden, revisited


def visible_entries(folder: Path) -> list[Path]:
    """The entries of a folder that are not hidden, sorted; `MgcError` if it cannot be listed."""
    with explaining("the folder cannot be listed", folder, "make it readable, or remove it"):
        return sorted(e for e in folder.iterdir() if not e.name.startswith(".") and e.name != "__MACOSX")


# Zips


def from_zip(file: Path, workspace: Workspace) -> Listing:
    """A zip of such a folder, unpacked once to `<data>/zip/<name>-<hash of the zip>`.

    Outer folders that contain nothing but one folder are skipped. Audio files that are not unpacked are
    excluded with the reason.

    Raises:
        MgcError: a damaged zip, too little disk space, or an error of `from_folder`.
    """
    folder = workspace.data / "zip" / f"{name_of_file(file)}-{file_hash(file, workspace.cache)[:12]}"
    record = folder / "members.json"
    if not record.exists():
        unpacked = unpack(file, folder / "files")
        files.write(record, json.dumps({"refused": unpacked.refused, "litter": unpacked.litter}))
    top = folder / "files"
    while len(inside := visible_entries(top)) == 1 and inside[0].is_dir():
        top = inside[0]
    listing = from_folder(top)
    members = json.loads(record.read_text(encoding="utf-8"))
    notes = [as_text(f"unpacked from {file.name} to {top}"), *listing.notes]
    excluded = []
    for name, reason in members["refused"]:
        if Path(name).suffix.lower() in SUFFIXES:
            excluded.append(Excluded(name, file, "", f"not unpacked: {reason}"))
        else:
            notes.append(f"not unpacked: {name}: {reason}")
    if members["litter"]:
        notes.append(f"{members['litter']} files that macOS adds were not unpacked")
    return replace(listing, name=name_of_file(file), excluded=excluded, notes=notes)


# Manifests


def from_manifest(file: Path, recipe: DataRecipe) -> Listing:
    """A CSV, TSV, JSONL or Parquet table with a path column and a label column.

    Paths are relative to the manifest. An empty cell is an unknown value.

    Raises:
        MgcError: an unreadable table, a missing column, a row without a path, an unknown split name, or a
            duplicate id.
    """
    names, table = _read_table(file)
    columns = find_columns(names, USUAL_COLUMNS, recipe, file, "the manifest")
    if not columns["path"] or not columns["label"]:
        raise _missing_column("label" if columns["path"] else "path", names, file)
    if recipe.split not in ("auto", "given", "random"):
        columns["split"] = ""
    used = ", ".join(f"{key} = {column}" for key, column in columns.items() if column)
    listing = Listing(name_of_manifest(file), [], [], [f"columns: {used}"])
    row_of: dict[str, int] = {}
    for number, row in enumerate(table, start=1):
        cell = dict.fromkeys(columns, "")
        for key, column in columns.items():
            value = row.get(column) if column else None
            if isinstance(value, dict | list | bytes):
                what = f"row {number} has a {type(value).__name__} in the column {column!r}"
                fix = "name a column of text or numbers with --column, or save the audio as files"
                raise MgcError(what, where=file, fix=fix)
            cell[key] = cell_text(value)
        if not cell["path"]:
            raise MgcError(f"row {number} has no path", where=file, fix="fill it in, or remove the row")
        path = file.parent / cell["path"]
        # An id that is relative to the manifest does not reveal a person's folders.
        whole, home = path.absolute(), file.parent.absolute()
        name = whole.relative_to(home).as_posix() if whole.is_relative_to(home) else cell["path"]
        track_id = cell["id"] or name
        if track_id in row_of:
            what = f"rows {row_of[track_id]} and {number} have the same track id {track_id!r}"
            fix = "remove one of them, or name a column of unique ids with --column id=NAME"
            raise MgcError(what, where=file, fix=fix)
        row_of[track_id] = number
        if not cell["label"]:
            listing.excluded.append(Excluded(track_id, path, "", "no label in the manifest"))
            continue
        where = f"{file}, row {number}, column {columns['split']!r}"
        split = parse_split(cell["split"], where) if columns["split"] else None
        artist, title, album = (cell[key] or None for key in ("artist", "title", "album"))
        group = artist_group(artist) if artist else track_id
        listing.tracks.append(Track(track_id, path, cell["label"], group, artist, title, split, album))
    return listing


def _missing_column(key: str, names: Sequence[str], file: Path) -> MgcError:
    if len(names) == 1 and (separators := {";", "\t", "|"} & {*names[0]}):
        what = f"the manifest has a single column, {names[0]!r}: its cells are not separated by commas"
        fix = f"replace {min(separators)!r} by commas; a file with tabs needs the suffix .tsv"
    else:
        what = f"the manifest has no {key} column (expected one of {', '.join(USUAL_COLUMNS[key])})"
        fix = f"name it with --column {key}=NAME; columns: {', '.join(names)}"
    return MgcError(what, where=file, fix=fix)


def name_of_manifest(file: Path) -> str:
    """The name of the file, or of its folder if the file has a generic name."""
    generic = file.stem.lower() in GENERIC_NAMES
    return as_text(file.resolve().parent.name) if generic else name_of_file(file)


def name_of_file(file: Path) -> str:
    """The name without the suffix, unless that leaves only dots, which cannot name a folder of results."""
    return as_text(file.stem if file.stem.strip(".") else file.name)


def _read_table(file: Path) -> tuple[list[str], list[dict[Any, Any]]]:
    """Columns and rows. Types are not inferred: a genre "None" or an id "007" is kept as it is."""
    kind = file.suffix.lower()[1:]
    fix = None if kind == "parquet" else "save it as UTF-8, with every quote and bracket closed"
    # RecursionError: deeply nested JSON. OverflowError: dates outside the calendar.
    errors = (OSError, ValueError, csv.Error, RecursionError, OverflowError)
    names: Sequence[str] | None
    rows: list[dict[Any, Any]]
    with explaining(f"the manifest cannot be read as {kind}", file, fix, errors):
        if kind == "parquet":
            table = files.read_parquet(file.read_bytes())
            names, rows = table.column_names, table.to_pylist()
        elif kind == "jsonl":
            lines = file.read_text(encoding="utf-8-sig").split("\n")
            names, rows = None, [json.loads(line) for line in lines if line.strip()]
        else:
            with file.open(encoding="utf-8-sig", newline="") as stream:
                reader = csv.DictReader(stream, delimiter="\t" if kind == "tsv" else ",", strict=True)
                names, rows = reader.fieldnames, list(reader)
    if not rows:
        raise MgcError("the manifest has no rows", where=file)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise MgcError(f"row {number} is not a JSON object", where=file)
        if any(row.get(None) or ()):  # where csv.DictReader puts cells beyond the header
            fix = 'put text that contains a comma or a tab in quotes: "one, two"'
            raise MgcError(f"row {number} has more cells than the header", where=file, fix=fix)
    names = names or [*dict.fromkeys(name for row in rows for name in row)]
    for name, count in Counter(names).items():
        if name and count > 1:
            fix = "give each column a unique name"
            raise MgcError(f"two columns are named {name!r}", where=file, fix=fix)
    return [*names], rows


# Shared with other sources


def cell_text(value: Any) -> str:
    """A cell as text; "" for None and NaN, which mean "unknown"."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return as_text(value).strip()


def find_columns(
    names: Sequence[str], keys: Iterable[str], recipe: DataRecipe, where: object, table: str
) -> dict[str, str]:
    """For each key, the column that the user named, else the first one with a usual name, else ""."""
    found = {}
    for key in keys:
        named = getattr(recipe, f"{key}_column")
        if named is not None and named not in names:
            raise MgcError(f"{table} has no column {named!r}", where=where, fix=did_you_mean(named, names))
        found[key] = named or usual_column(names, key)
    return found


def usual_column(names: Sequence[str], key: str) -> str:
    """The first column with a usual name, compared without case, else ""."""
    by_lower = {name.strip().lower(): name for name in reversed(names)}
    return next((by_lower[usual] for usual in USUAL_COLUMNS[key] if usual in by_lower), "")


def parse_split(word: str, where: object) -> str:
    """ "train", "val" or "test"; `MgcError` for any other word."""
    split = side_of(word)
    if split is None:
        expected = ", ".join(words[0] for words in SPLIT_WORDS.values())
        fix = f"use {expected}; or ignore the column with --set data.split=cv5"
        raise MgcError(f"{word!r} is not a split name", where=where, fix=fix)
    return split


def artist_group(artist: str) -> str:
    """The group of an artist, independent of case, spaces and the encoding of accents."""
    return f"{ARTIST_PREFIX}{' '.join(unicodedata.normalize('NFKC', artist).casefold().split())}"
