"""Datasets of the Hugging Face hub, and folders in its formats: `hf:owner/name`, `hf:path/to/folder`.

The first call opens the dataset with the `datasets` library and writes the audio in its rows to files,
because mgc works on files: `<root>/hf/<name>/<split>/<hash of the bytes>.<suffix>`. Everything else in the
rows goes to a table. Later calls read only that table, without a network or importing `datasets`.

The name of the table is a hash of the address and, for a local folder, of the names, sizes and times of its
files, so a changed folder or another revision has another table. A dataset of the hub stays at the commit
that was found first, so that runs remain comparable; the notes name the commit.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mgc.config import DataRecipe
from mgc.data.dataset import Excluded, Listing, Track, as_text
from mgc.data.sources import local
from mgc.data.sources.hub_export import Address, Row, Table, export, plain
from mgc.data.splits import side_of
from mgc.util.errors import MgcError, counted, explaining
from mgc.util.files import is_file, write
from mgc.util.progress import say

FORMAT = 2  # of the table; tables of other formats are not read


def name_of(address: str) -> str:
    """`owner__name` or the name of the folder, with `__config` if one is given. Nothing is opened.

    Raises:
        MgcError: no such folder, or not an address.
    """
    parsed = _parse(address)
    name = parsed.repo.replace("/", "__")
    if parsed.folder:
        folder = parsed.folder.resolve()
        name = as_text(folder.name)
        # Where `hf download` puts a dataset: .../datasets--owner--name/snapshots/<commit>
        repo = re.fullmatch(r"datasets--(.+)", folder.parent.parent.name)
        if repo and folder.parent.name == "snapshots":
            name = repo[1].replace("--", "__")
    return f"{name}__{plain(parsed.config)}" if parsed.config else name


def listing(address: str, root: Path, recipe: DataRecipe) -> Listing:
    """The tracks of `hf:owner/name[@REVISION][:CONFIG]` or `hf:path/to/folder[:CONFIG]`.

    The folder has parquet, arrow or audio files that `datasets.load_dataset` opens, or was written by
    `save_to_disk`. Rows without audio or without a label are excluded.

    Raises:
        MgcError: the dataset is not available (no network, gated, unknown, needs a script or a config), has
            no audio or label column or several, or cannot be written to disk.
    """
    place = root / "hf" / plain(name_of(address))
    table = _load_table(_parse(address), place, recipe.path_column)
    columns = _columns(table, recipe, address)
    ids, groups, id_notes = _ids(table.rows, columns["id"], recipe.id_column is not None, address)
    label = columns["label"]
    for row in table.rows:
        if row.cells.get(label) == "-1":  # a ClassLabel that lost its type
            del row.cells[label]
        if label not in row.cells:
            row.problem = row.problem or f"no label in the column {label!r}"
    splits, authority, split_notes = _splits(table, columns["split"], recipe, address)
    tracks, excluded = [], []
    for row, track_id, own_group, split in zip(table.rows, ids, groups, splits, strict=True):
        path = place / row.file
        if row.problem is not None:
            excluded.append(Excluded(track_id, path, row.cells.get(label, ""), row.problem))
            continue
        artist, title, album = (row.cells.get(columns[key]) for key in ("artist", "title", "album"))
        group = local.artist_group(artist) if artist else own_group
        tracks.append(Track(track_id, path, row.cells[label], group, artist, title, split, album))
    used = {"path": table.audio, **{key: column for key, column in columns.items() if column}}
    used_text = ", ".join(f"{key} = {column}" for key, column in used.items())
    notes = [table.origin, f"columns: {used_text}", *split_notes, *id_notes]
    if table.unread:
        first = ", ".join(table.unread[:5])
        notes.append(f"in no row of the dataset: {counted(len(table.unread), 'file')} of the folder: {first}")
    return Listing(name_of(address), tracks, excluded, notes, table.licence, split_authority=authority)


# The address


def _parse(address: str) -> Address:
    text = address.removeprefix("hf:").removeprefix("//datasets/")
    before, _, config = text.rpartition(":")
    for folder, folder_config in ((text, None), (before, config or None)):
        # Other errors, as for too long a name or the home of an unknown user: there is no such folder.
        readable = explaining("it cannot be read", address, "make it readable", (PermissionError,))
        with suppress(OSError, RuntimeError), readable:
            path = Path(folder).expanduser()
            if path.is_file():
                raise MgcError("this is a file", where=address, fix="give the folder that contains it")
            if folder and path.is_dir():
                return Address(address, "", path, folder_config)
    # A dataset of the hub has an owner; single words such as "csv" mean something else to `datasets`.
    parts = re.fullmatch(r"(\w[\w.-]*/\w[\w.-]*)((?:[@:][^@:]+)*)", text, re.ASCII)
    marks = re.findall(r"([@:])([^@:]+)", parts[2]) if parts else []
    if parts is None or len(dict(marks)) < len(marks):
        what = "there is no such folder, and this is not the name of a dataset"
        fix = "use hf:owner/name, hf:owner/name@REVISION, hf:owner/name:CONFIG or hf:path/to/folder"
        raise MgcError(what, where=address, fix=fix)
    return Address(address, parts[1], None, dict(marks).get(":"), dict(marks).get("@"))


# The table


def _load_table(address: Address, place: Path, path_column: str | None) -> Table:
    """The table, from its file or from a new export. Only one process exports to a place at a time."""
    from filelock import FileLock

    folder = address.folder and address.folder.resolve()
    if folder and place.resolve().is_relative_to(folder):
        what = "the data root is within this folder: the exported files would become part of the dataset"
        raise MgcError(what, where=folder, fix="name another with --data-root or $MGC_DATA_ROOT")
    identity = [FORMAT, address.repo, str(folder), address.config, address.revision, path_column]
    states = _file_states(folder) if folder else {}
    file = place / f"rows-{_hash(identity)}-{_hash(states)}.json"
    fix = "free space, make it writable, or name another --data-root; the same command then resumes"
    with explaining(f"{address.text} cannot be exported", place, fix):
        if table := _read_table(file):
            return table
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / ".lock"):
            table = _read_table(file)  # of another process that was first
            if table is None:
                table = export(address, states, place, path_column)
                write(file, json.dumps(asdict(table)))
                _remove_stale(place, file)
            return table


def _hash(value: object) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()


def _file_states(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Size and both times in ns of every file that is not hidden, by its path within the folder."""
    found = {}
    for path in local.files_below(folder)[0]:
        stat = path.stat() if path.exists() else path.lstat()
        found[path.relative_to(folder).as_posix()] = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return found


def _read_table(file: Path) -> Table | None:
    """The table, unless it or any of its audio files is missing or incomplete."""
    if not file.exists():
        return None
    try:
        table = TypeAdapter(Table).validate_json(file.read_bytes())
    except ValidationError:
        say(f"{file} is damaged, so the dataset is exported again")
        return None
    complete = all(row.problem is not None or is_file(file.parent / row.file, row.size) for row in table.rows)
    return table if complete else None


def _remove_stale(place: Path, file: Path) -> None:
    """Delete earlier tables of the same address, and exported files that no table refers to."""
    for old in {*place.glob(f"{file.stem.rpartition('-')[0]}-*.json")} - {file}:
        old.unlink()
    tables = [_read_table(other) for other in place.glob("rows-*.json")]
    if None in tables:
        return  # the files it needs are unknown
    used = {place / row.file for table in tables if table for row in table.rows}
    for path in {*place.glob("*/*")} - used:
        if re.fullmatch(r"[0-9a-f]{32}\.\w+|\.[0-9a-f]{32}\.part", path.name):
            path.unlink()


# From rows to tracks


def _columns(table: Table, recipe: DataRecipe, address: str) -> dict[str, str]:
    """The column of each kind, "" if there is none. For the label, a ClassLabel is preferred."""
    keys = ("label", "split", "artist", "album", "title", "id")
    found = local.find_columns(table.columns, keys, recipe, address, "the dataset")
    if recipe.label_column is None:
        found["label"] = local.usual_column(table.classes, "label") or found["label"]
    if not found["label"]:
        classes = [column for column in table.classes if column not in found.values()]
        if len(classes) != 1:
            names = ", ".join(local.USUAL_COLUMNS["label"])
            what = f"the label column is unknown: none is called {names}, and {len(classes)} are ClassLabels"
            fix = f"name it with --column label=NAME; columns: {', '.join(table.columns) or 'none'}"
            raise MgcError(what, where=address, fix=fix)
        found["label"] = classes[0]
    return found


def _ids(
    rows: Sequence[Row], column: str, is_named: bool, address: str
) -> tuple[list[str], list[str], list[str]]:
    """Unique ids, the group of each row whose artist is unknown, and notes.

    The id is the cell in `column`, else the name of the audio, else split and number. If ids repeat across
    splits, the split is put before them. If a cell repeats within a split, the rows are pieces of one track
    and share a group. In a column that the user named, no id may repeat.
    """
    numbers = [f"{row.split}/{row.number:06d}" for row in rows]
    texts = [row.cells.get(column, "") if column else row.named for row in rows]
    ids = [text or number for text, number in zip(texts, numbers, strict=True)]
    (most, count), *_ = [*Counter(ids).most_common(1), ("", 0)]
    if is_named and count > 1:
        fix = "name a column of unique ids with --column id=NAME"
        where = f"{address}, column {column!r}"
        raise MgcError(f"{count} rows have the track id {most!r}", where=where, fix=fix)
    longer = [f"{row.split}/{text}" if text else n for row, text, n in zip(rows, texts, numbers, strict=True)]
    for unique in (ids, longer, [] if column else numbers):
        if len({*unique}) == len(rows):
            return unique, unique, []
    groups = [f"track: {text}" if text else number for text, number in zip(texts, numbers, strict=True)]
    return numbers, groups, [f"several rows have the same {column}: they are taken for pieces of one track"]


def _splits(
    table: Table, column: str, recipe: DataRecipe, address: str
) -> tuple[list[str | None], str, list[str]]:
    """The split of every row, on whose authority, and notes; None for all rows if no complete split is given.

    A column that the user named comes first, then the splits of the dataset, then a column with a usual name.
    """
    choices, notes = {}, []
    if len(table.splits) > 1 and not recipe.split_column:
        choices[f"the splits {', '.join(table.splits)} of the dataset"] = [row.split for row in table.rows]
    if column:
        choices[f"the column {column!r} of the dataset"] = [row.cells.get(column, "") for row in table.rows]
    if recipe.split not in ("auto", "given", "random"):
        choices = {}
    for source, words in choices.items():
        used = {word for word, row in zip(words, table.rows, strict=True) if row.problem is None}
        unknown = sorted(word for word in used if side_of(word) is None)
        if unknown and recipe.split_column:
            local.parse_split(unknown[0], f"{address}, {source}")  # raises
        elif unknown:
            notes.append(f"{source}: not used as a split, because {unknown[0]!r} is not a split name")
        elif not {"train", "test"} <= {side_of(word) for word in used}:
            notes.append(f"{source}: not used as a split, because a training or test set is missing")
        else:
            return [side_of(word) for word in words], f"given by {source}", notes
    return [None] * len(table.rows), "given by the dataset", notes
