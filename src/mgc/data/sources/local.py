"""Where tracks come from: a folder root/<genre>/<file>, a zip of one, a manifest. Nothing is decoded."""

import csv
import json
import math
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from mgc.audio import SUFFIXES
from mgc.config import DataRecipe
from mgc.data.clips import file_hash
from mgc.data.dataset import Excluded, Track, as_text
from mgc.data.fetch import unpack
from mgc.data.listing import Listing
from mgc.data.splits import SPLIT_WORDS, side_of
from mgc.util import files
from mgc.util.errors import MgcError, counted, did_you_mean
from mgc.workspace import Workspace

# The usual names of columns, compared without case; the first that is there is taken.
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
MOST_ROWS, MOST_BYTES = 2_000_000, 1 << 30  # of a Parquet manifest: a gigabyte of memory, or two


def from_folder(root: Path) -> Listing:
    """`root/<genre>/.../<file>`: the first folder's name is the label; links are followed.

    Where the files of every genre lie in five sub-folders or more, the first of these is taken for the
    artist: `root/<genre>/<artist>/<album>/<file>` is how collections lie. Else artists are unknown.

    Raises:
        MgcError: no audio, a single genre, or a folder that cannot be listed.
    """
    name = as_text(root.resolve().name)
    found = _Found(root)
    inside = found.entries(root)
    genres = [entry for entry in inside if entry.is_dir()]
    files = {genre: list(found.files(genre)) for genre in genres}
    beside = [entry for entry in inside if entry not in files]
    manifests = [as_text(entry.name) for entry in beside if entry.suffix.lower() in MANIFEST_SUFFIXES]
    loose = sum(_named_like_audio(entry) for entry in beside)
    other = found.other + len(beside) - len(manifests) - loose
    bare = [as_text(genre.name) for genre in genres if not files[genre]]
    as_artists = _artist_folders(files)
    tracks = []
    for genre, file in ((folder, file) for folder in genres for file in files[folder]):
        track_id = as_text(file.relative_to(root).as_posix())
        artist = as_text(file.relative_to(genre).parts[0]) if as_artists else None
        group = artist_group(artist) if artist else track_id
        tracks.append(Track(track_id, file, as_text(genre.name), group, artist))
    nested = any(len(file.relative_to(genre).parts) > 1 for genre in genres for file in files[genre])
    told = {
        "the folders within the genres are taken for artists: each stays on one side": as_artists,
        "the folders within the genres are not taken for artists (fewer than five in a genre, or files "
        "beside them)": nested and not as_artists,
        "no audio in these folders, which are no genres then: " + ", ".join(bare): bool(bare),
        f"{counted(other, 'file')} not looked at, whose names do not end like audio": other,
        f"{found.hidden} of hidden names (.*, __MACOSX) not looked at": found.hidden,
        f"{counted(found.again, 'folder')} reached by a link, and looked into already": found.again,
        f"{counted(loose, 'audio file')} not looked at beside the genre folders, without a genre": loose,
        f"not read: {', '.join(manifests)}; to go by such a table, give it instead of the folder": manifests,
    }
    notes = [note for note, count in told.items() if count]
    if not tracks:
        raise MgcError(
            "; ".join(["no audio was found in the folders of this folder", *notes]),
            where=root,
            fix=f"lay it out as root/<genre>/<file> ({' '.join(sorted(SUFFIXES))}) or give a manifest",
        )
    only = next(genre for genre in genres if files[genre])
    within = {file.relative_to(only).parts[0] for file in files[only] if file.parent != only}
    if len(genres) - len(bare) == 1 and len(within) > 1:
        fix = f"if the genres are the folders within it, give --data {root / only.name}"
        fix += "".join(f"; or go by the table: --data {root / manifest}" for manifest in manifests[:1])
        raise MgcError(f"only one folder with audio, {only.name!r}, so only one genre", where=root, fix=fix)
    return Listing(name, tracks, [], notes)


class _Found:
    """Looks through folders, into each real one once, and counts what it passed over."""

    def __init__(self, root: Path) -> None:
        self.other = 0
        self.hidden = 0
        self.again = 0
        self._seen = {self._identity(root)}

    @staticmethod
    def _identity(folder: Path) -> tuple[int, int]:
        stat = folder.stat()
        return stat.st_dev, stat.st_ino

    def entries(self, folder: Path) -> list[Path]:
        """What lies in a folder and is not hidden, sorted."""
        try:
            inside = [*folder.iterdir()]
        except OSError as error:
            fix = "make it readable, or take it out"
            raise MgcError(f"the folder cannot be listed: {error.strerror}", where=folder, fix=fix) from None
        shown = sorted(e for e in inside if not e.name.startswith(".") and e.name != "__MACOSX")
        self.hidden += len(inside) - len(shown)
        return shown

    def files(self, folder: Path) -> Iterator[Path]:
        """Files named like audio, at any depth."""
        todo = [folder]
        while todo:
            entry = todo.pop()
            if not entry.is_dir():
                if _named_like_audio(entry):
                    yield entry
                else:
                    self.other += 1
            elif self._identity(entry) in self._seen:  # a link to a folder above it would never end
                self.again += 1
            else:
                self._seen.add(self._identity(entry))
                todo += reversed(self.entries(entry))


def _artist_folders(files: Mapping[Path, Sequence[Path]]) -> bool:
    """Whether every file lies in a folder within its genre, and every genre has as many as folds."""
    for genre, inside in files.items():
        below = [file.relative_to(genre).parts for file in inside]
        if below and (min(map(len, below)) < 2 or len({parts[0] for parts in below}) < 5):
            return False
    return any(files.values())


def _named_like_audio(entry: Path) -> bool:
    return entry.suffix.lower() in SUFFIXES and not entry.is_dir()


def from_zip(file: Path, workspace: Workspace) -> Listing:
    """A folder in a zip, unpacked once to `<data>/zip/<name>-<hash of the zip>` and listed like any folder.

    Folders around the genres that hold nothing else are stepped through. What the zip holds but must or can
    not be unpacked is left out, with the reason.

    Raises:
        MgcError: no zip, no room for it, or what `from_folder` refuses.
    """
    folder = workspace.data / "zip" / f"{name_of_file(file)}-{file_hash(file, workspace.cache)[:12]}"
    record = folder / "members.json"
    if not record.exists():
        unpacked = unpack(file, folder / "files")
        refused = [[as_text(member.name), member.reason] for member in unpacked.refused]
        files.write(record, json.dumps({"refused": refused, "litter": unpacked.litter}))
    top = folder / "files"
    while len(inside := _Found(top).entries(top)) == 1 and inside[0].is_dir():
        top = inside[0]
    listing = from_folder(top)
    members = json.loads(record.read_text(encoding="utf-8"))
    refused, litter = members["refused"], members["litter"]
    excluded = [
        Excluded(name, file, "", f"not unpacked: {reason}")
        for name, reason in refused
        if Path(name).suffix.lower() in SUFFIXES
    ]
    notes = [as_text(f"unpacked from {file.name} to {top}"), *listing.notes]
    notes += [
        f"not unpacked: {n}: {reason}" for n, reason in refused if Path(n).suffix.lower() not in SUFFIXES
    ]
    notes += [f"{litter} files that macOS puts beside the others were not unpacked"] if litter else []
    return replace(listing, name=name_of_file(file), excluded=excluded, notes=notes)


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
        for key in ("path", "label", "split", "artist", "album", "title", "id")
    }
    for key in ("path", "label"):
        if columns[key] is None:
            if len(names) == 1 and (apart := {";", "\t", "|"} & {*names[0]}):
                what = f"the manifest has a single column, {names[0]!r}: its cells are not parted by commas"
                fix = f"write commas in place of {min(apart)!r}; tabs are read in a file called .tsv"
                raise MgcError(what, where=file, fix=fix)
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
        path = file.parent / cell["path"]
        # Relative where it can be: an id is shown, compared and handed on, and a person's folders are not.
        whole, home = path.absolute(), file.parent.absolute()
        within = whole.relative_to(home).as_posix() if whole.is_relative_to(home) else cell["path"]
        track_id = cell["id"] or within
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
        given = recipe.split in ("auto", "given", "random") and columns["split"]
        side = _side(cell["split"], given, number, file) if given else None
        artist = cell["artist"] or None
        group = artist_group(artist) if artist else track_id
        tracks.append(
            Track(
                track_id,
                path,
                cell["label"],
                group,
                artist,
                cell["title"] or None,
                side,
                cell["album"] or None,
            )
        )
    notes = [f"columns: {', '.join(f'{key} = {column}' for key, column in columns.items() if column)}"]
    return Listing(name_of_manifest(file), tracks, excluded, notes)


def name_of_manifest(file: Path) -> str:
    """Its own name, or its folder's where the name tells nothing."""
    generic = {"tracks", "manifest", "metadata", "index", "data", "labels", "dataset"}
    return as_text(file.resolve().parent.name) if file.stem.lower() in generic else name_of_file(file)


def name_of_file(file: Path) -> str:
    """Without the suffix; but results/.. is no place for what was found in "...csv"."""
    return as_text(file.stem if file.stem.strip(".") else file.name)


# What reading bytes that are no table raises; the last two come of brackets within brackets within brackets,
# and of dates that no calendar has.
_NO_TABLE = (OSError, ValueError, csv.Error, pyarrow.ArrowException, RecursionError, OverflowError)


def _refuse_bomb(file: Path) -> None:
    """200 kB of Parquet can hold forty million rows."""
    about = pyarrow.parquet.read_metadata(file)
    size = sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))
    if about.num_rows > MOST_ROWS or size > MOST_BYTES:
        what = f"the manifest unpacks to {about.num_rows:,} rows of {size:,} bytes in all"
        fix = f"give one of at most {MOST_ROWS:,} rows and {MOST_BYTES:,} bytes, with paths instead of audio"
        raise MgcError(what, where=file, fix=fix)


def _refuse_twins(names: Sequence[str], file: Path) -> None:
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        fix = "give each column a name of its own"
        raise MgcError(f"two columns are called {twice[0]!r}: nobody knows which counts", where=file, fix=fix)


def _read_table(file: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows. No type is guessed: a genre called "None" or an id like 007 stays what it is."""
    suffix = file.suffix.lower()
    try:
        if suffix == ".parquet":
            _refuse_bomb(file)
            _refuse_twins(pyarrow.parquet.read_schema(file).names, file)
            rows = pyarrow.parquet.read_table(file).to_pylist()
        elif suffix == ".jsonl":
            lines = file.read_text(encoding="utf-8-sig").split("\n")
            rows = [json.loads(line) for line in lines if line.strip()]
        else:
            with file.open(encoding="utf-8-sig", newline="") as stream:
                reader = csv.DictReader(stream, delimiter="\t" if suffix == ".tsv" else ",", strict=True)
                _refuse_twins(reader.fieldnames or (), file)
                rows = list(reader)
    except _NO_TABLE as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        fix = "save it as UTF-8" if isinstance(error, UnicodeDecodeError) else None
        raise MgcError(f"the manifest cannot be read as {suffix[1:]}: {first}", where=file, fix=fix) from None
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


def artist_group(artist: str) -> str:
    """The group of an artist: case, spaces and the encoding of accents make no other artist."""
    return f"artist: {' '.join(unicodedata.normalize('NFKC', artist).casefold().split())}"
