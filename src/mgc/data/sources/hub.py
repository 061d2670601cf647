"""Data sets of the Hugging Face hub, and folders in its formats: `hf:owner/name`, `hf:path/to/folder`.

The first call opens the set with the `datasets` library and writes the bytes in its rows to files, as they
are, because all of mgc works on files: `<root>/hf/<name>/<split>/<hash of the bytes>.<suffix>`. Rows that
only name a file of the set (audiofolder) keep that file. What else the rows hold goes to a table, last. Any
later call reads that table alone: no network, no import of `datasets`.

The table's name is a hash of what was asked for and, for a local folder, of the names, sizes and times of all
its files: a changed folder or another revision has another table, so nothing stale can be read. A set of the
hub stays at the commit that was found first, so that runs can be compared; the notes say which it is.
"""

import hashlib
import json
import math
import os
import re
import shutil
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mgc.audio import SUFFIXES
from mgc.config import DataRecipe
from mgc.data.dataset import Excluded, Track, as_text
from mgc.data.listing import Listing
from mgc.data.sources.hub_set import Asked, Facts, HubSet, facts_of, open_set, wav_bytes
from mgc.data.sources.local import USUAL_COLUMNS, artist_group
from mgc.data.splits import SPLIT_WORDS, side_of
from mgc.util.errors import MgcError, did_you_mean
from mgc.util.files import write
from mgc.util.progress import Progress, say

if TYPE_CHECKING:
    import datasets

FORMAT = 1  # of the table: one of another format is not read
DATA_SUFFIXES = {".parquet", ".arrow", ".zip", ".tar"}
ROWS_AT_ONCE = 64  # rows are memory-mapped: their audio is copied one by one
# Where a file's first bytes tell its kind, and the suffix by which `mgc.audio.decoding` knows how to open it.
MAGIC = (
    (0, b"fLaC", ".flac"), (0, b"ID3", ".mp3"), (0, b"OggS", ".ogg"), (0, b".snd", ".au"),
    (0, b"caff", ".caf"), (0, b"\x30\x26\xb2\x75", ".wma"), (4, b"ftyp", ".m4a"), (8, b"WAVE", ".wav"),
    (8, b"AIFF", ".aiff"), (8, b"AIFC", ".aiff"),
)  # fmt: skip


@dataclass(frozen=True)
class _Row:
    """One row, without its audio. `cells` has only those that say something.

    `file` is relative to the set's place if mgc wrote it, and then of `size` bytes. `named` is what the set
    calls the audio; `problem` says why there is none.
    """

    split: str
    number: int
    file: str
    size: int | None
    named: str
    problem: str | None
    cells: dict[str, str]


def name_of(address: str) -> str:
    """`owner__name` or the folder's own name, with `__config` where one is given; nothing is opened.

    Raises:
        MgcError: no such folder, or not an address.
    """
    asked = _take_apart(address)
    name = _folder_name(asked.folder) if asked.folder else asked.repo.replace("/", "__")
    return f"{name}__{_plain(asked.config)}" if asked.config else name


def listing(address: str, root: Path, recipe: DataRecipe) -> Listing:
    """The tracks of `hf:owner/name[@REVISION][:CONFIG]` or `hf:path/to/folder[:CONFIG]`.

    The folder holds parquet, arrow or audio files that `datasets.load_dataset` opens, or was written by
    `save_to_disk`. Rows without audio or without a label are excluded.

    Raises:
        MgcError: the set cannot be had (no network, gated, no such set, script or config), has no audio or no
            label column or several, or cannot be written out.
    """
    asked = _take_apart(address)
    place = root / "hf" / _plain(name_of(address))
    facts, rows = _rows(asked, place, recipe.path_column)
    rows = [replace(row, file=str(place / row.file)) for row in rows]
    columns = _columns(facts, recipe, address)
    ids, own_group, notes = _ids(rows, columns["id"], recipe.id_column is not None, address)
    labels = [_label(row, columns["label"]) for row in rows]
    usable = [row.problem is None and label is not None for row, label in zip(rows, labels, strict=True)]
    sides, authority, told = _sides(facts, rows, usable, columns["split"], recipe, address)
    tracks, excluded = [], []
    for row, track_id, own, label, side in zip(rows, ids, own_group, labels, sides, strict=True):
        path = Path(row.file)
        if row.problem is not None or label is None:
            reason = row.problem or f"no label in the column {columns['label']!r}"
            excluded.append(Excluded(track_id, path, label or "", reason))
            continue
        artist, title, album = (row.cells.get(columns[key] or "") for key in ("artist", "title", "album"))
        group = artist_group(artist) if artist else own
        tracks.append(Track(track_id, path, label, group, artist, title, side, album))
    used = {"path": facts.audio, **{key: column for key, column in columns.items() if column}}
    notes = [facts.origin, f"columns: {', '.join(f'{k} = {c}' for k, c in used.items())}", *told, *notes]
    if facts.unread:
        first = ", ".join(facts.unread[:5])
        notes.append(f"{len(facts.unread)} files of the folder are in no row of the set: {first}")
    name = name_of(address)
    return Listing(name, tracks, excluded, notes, facts.licence, split_authority=authority)


# The address


def _take_apart(address: str) -> Asked:
    text = address.removeprefix("hf:").removeprefix("//datasets/")
    before, _, config = text.rpartition(":")
    fix = "write hf:owner/name, hf:owner/name@REVISION, hf:owner/name:CONFIG or hf:path/to/folder"
    if folder := _folder(text, address):
        return Asked(address, "", folder, None)
    if folder := _folder(before, address):
        return Asked(address, "", folder, config or None)
    # A set of the hub has an owner; by a bare word, "csv" or "audiofolder", `datasets` means something else.
    parts = re.fullmatch(r"(\w[\w.-]*/\w[\w.-]*)((?:[@:][^@:]+)*)", text, re.ASCII)
    marks = re.findall(r"([@:])([^@:]+)", parts[2]) if parts else []
    if parts is None or len(dict(marks)) < len(marks):
        raise MgcError("there is no such folder, and no set of the hub is named so", where=address, fix=fix)
    return Asked(address, parts[1], None, dict(marks).get(":"), dict(marks).get("@"))


def _folder(text: str, address: str) -> Path | None:
    try:
        path = Path(text).expanduser()
        if path.is_file():
            raise MgcError("this is a file", where=address, fix="give the folder that it lies in")
        return path if text and path.is_dir() else None
    except PermissionError as error:
        raise MgcError(
            f"it cannot be read: {error.strerror}", where=address, fix="make it readable"
        ) from None
    except (OSError, RuntimeError):  # a name too long, the home of an unknown user
        return None


def _folder_name(folder: Path) -> str:
    folder = folder.resolve()
    # Where `hf download` puts a set: .../datasets--owner--name/snapshots/<commit>
    repo = re.fullmatch(r"datasets--(.+)", folder.parent.parent.name)
    return repo[1].replace("--", "__") if repo and folder.parent.name == "snapshots" else as_text(folder.name)


def _plain(text: str) -> str:
    """A name that is one folder on any file system; other characters become a dash."""
    return re.sub(r"[^\w.-]+", "-", text, flags=re.ASCII).lstrip(".") or "-"


# The table of rows, and what is written out


def _rows(asked: Asked, place: Path, path_column: str | None) -> tuple[Facts, list[_Row]]:
    if asked.folder and place.resolve().is_relative_to(asked.folder.resolve()):
        what = "the data root lies within this folder: what is written out would become part of the set"
        raise MgcError(what, where=asked.folder, fix="name another with --data-root or $MGC_DATA_ROOT")
    folder = asked.folder and str(asked.folder.resolve())
    who = _hash([FORMAT, asked.repo, folder, asked.config, asked.revision, path_column])
    files = _files(asked.folder) if asked.folder else {}
    table = place / f"rows-{who}-{_hash(files)}.json"
    known = _read(table, place)
    if known is not None:
        return known
    try:
        place.mkdir(parents=True, exist_ok=True)
        with _alone(place):
            return _read(table, place) or _write_out(asked, place, table, path_column, files)
    except OSError as error:
        fix = "make room or make it writable, or name another --data-root; the same command then goes on"
        what = f"{asked.address} cannot be written out: {error.strerror or error}"
        raise MgcError(what, where=place, fix=fix) from None


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """One process writes at a place; the others wait, and find it done."""
    from filelock import FileLock, Timeout

    lock = FileLock(place / ".lock")
    try:
        lock.acquire(timeout=1)
    except Timeout:
        say(f"another process is writing to {place}: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _hash(value: object) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()


def _files(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Size and both times in ns of every file by its name within the folder, hidden ones left out."""

    def refuse(error: OSError) -> None:
        what = f"the folder cannot be listed: {error.strerror}"
        raise MgcError(what, where=error.filename, fix="make it readable, or take it out")

    found, seen = {}, set()
    for here, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        identity = (Path(here).stat().st_dev, Path(here).stat().st_ino)
        if identity in seen:  # a link to a folder above it would never end
            folders.clear()
            continue
        seen.add(identity)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(here, name)
            if not name.startswith("."):
                stat = path.stat() if path.exists() else path.lstat()
                inside = path.relative_to(folder).as_posix()
                found[inside] = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return found


def _read(table: Path, place: Path) -> tuple[Facts, list[_Row]] | None:
    """The table, unless it or any file in it is not there or not whole."""
    if not table.exists():
        return None
    try:
        found = json.loads(table.read_text(encoding="ascii"))
        facts, rows = Facts(**found["facts"]), [_Row(**row) for row in found["rows"]]
    except (ValueError, TypeError, KeyError):
        say(f"{table} is damaged: made anew")
        return None
    whole = all(row.problem is not None or _is_there(place / row.file, row.size) for row in rows)
    return (facts, rows) if whole else None


def _is_there(path: Path, size: int | None = None) -> bool:
    try:
        found = path.stat()
    except (OSError, ValueError):  # ValueError: a name with a zero byte
        return False
    return S_ISREG(found.st_mode) and size in (None, found.st_size)


def _write_out(
    asked: Asked, place: Path, table: Path, path_column: str | None, files: Mapping[str, object]
) -> tuple[Facts, list[_Row]]:
    """Every row's audio to a file, unless it is there from an interrupted call; then the table."""
    # What `datasets` copies out of a folder's files is of no use afterwards, and as large as they are.
    arrow = place / f".arrow-{_hash(files)}"
    for old in place.glob(".arrow-*"):
        if old != arrow:
            shutil.rmtree(old)
    opened = open_set(asked, arrow)
    splits = opened.splits
    facts = facts_of(opened, path_column, asked.address)
    rows: list[_Row] = []
    with Progress(f"write out {name_of(asked.address)}", sum(map(len, splits.values())), "clips") as progress:
        for split, dataset in splits.items():
            folder = place / _plain(split)
            for number, sound, cells in _walk(dataset, facts, opened.roots):
                row = _Row(split, number, "", None, sound.named, None, cells)
                rows.append(_kept(sound, place, folder, row))
                progress.step()
    facts = replace(facts, unread=_unread(asked, opened, files, {row.file for row in rows}))
    write(table, json.dumps({"facts": vars(facts), "rows": [vars(row) for row in rows]}))
    splits.clear()  # closes what is memory-mapped
    shutil.rmtree(arrow, ignore_errors=True)
    _forget(place, table)
    return facts, rows


def _unread(asked: Asked, opened: "HubSet", files: Iterable[str], named: Collection[str]) -> list[str]:
    """Files of the folder that look as if they belonged to the set, but neither were read nor are named.

    Where some files are called "train" or "test", `datasets` passes the others over without a word.
    """
    if asked.folder is None or opened.read is None:
        return []
    known = {os.path.realpath(file) for file in named if Path(file).is_absolute()}
    unread = []
    for file in sorted(files):
        suffix, path = PurePosixPath(file).suffix.lower(), os.path.realpath(asked.folder / file)
        needed = known if known and suffix in SUFFIXES else opened.read
        if suffix in SUFFIXES | DATA_SUFFIXES and path not in needed:
            unread.append(file)
    return unread


def _kept(sound: "_Sound", place: Path, folder: Path, row: _Row) -> _Row:
    """`row` with its file, written whole under another name first, or with its problem."""
    if sound.data is None:
        return replace(row, file=sound.file, problem=sound.problem)
    name = hashlib.blake2b(sound.data, digest_size=16).hexdigest() + _suffix(sound.data, sound.named)
    if not _is_there(folder / name, len(sound.data)):
        write(folder / name, sound.data)
    return replace(row, file=(folder / name).relative_to(place).as_posix(), size=len(sound.data))


def _suffix(data: bytes, named: str) -> str:
    if data[:4] == b"OggS" and b"OpusHead" in data[:64]:
        return ".opus"
    for start, magic, suffix in MAGIC:
        if data.startswith(magic, start):
            return suffix
    if data[0] == 0xFF and len(data) > 1 and data[1] & 0xE0 == 0xE0:  # MPEG's frame sync; layer 0 is AAC's
        return ".mp3" if data[1] & 0x06 else ".aac"
    suffix = PurePosixPath(named).suffix.lower()
    return suffix if suffix in SUFFIXES else ".bin"


def _forget(place: Path, table: Path) -> None:
    """Take away the table of the set as it was before, and files of ours that are in no table any more."""
    who = table.stem.rpartition("-")[0]
    for old in place.glob(f"{who}-*.json"):
        if old != table:
            old.unlink()
    used = set()
    for other in place.glob("rows-*.json"):
        known = _read(other, place)
        if known is None:
            return  # what it needs is not known
        used |= {row.file for row in known[1]}
    for file in place.glob("*/*"):
        ours = re.fullmatch(r"[0-9a-f]{32}\.\w+|\.[0-9a-f]{32}\.part", file.name)
        if ours and file.relative_to(place).as_posix() not in used:
            file.unlink()


# Rows as the set holds them


@dataclass(frozen=True)
class _Sound:
    """A row's audio: its bytes, else a file of the set, else the problem. `named`: what the set calls it."""

    named: str
    data: bytes | None = None
    file: str = ""
    problem: str | None = None


def _walk(
    dataset: "datasets.Dataset", facts: Facts, roots: Sequence[Path]
) -> Iterator[tuple[int, _Sound, dict[str, str]]]:
    """Number, audio and cells of every row, in order. Nothing is decoded: rows are read as Arrow."""
    texts: dict[str, Callable[[Any], str]] = {}
    for column in facts.columns:
        if column in dataset.features:
            names = getattr(dataset.features[column], "names", None)
            texts[column] = _cell if names is None else partial(_class_name, names)
    zips: dict[Path, zipfile.ZipFile] = {}
    number = 0
    for batch in dataset.with_format("arrow").iter(ROWS_AT_ONCE):
        held = batch.column(facts.audio)
        cells = {column: batch.column(column).to_pylist() for column in texts}
        for index in range(len(batch)):
            row = {column: texts[column](values[index]) for column, values in cells.items()}
            yield number, _sound(held[index], roots, zips), {c: text for c, text in row.items() if text}
            number += 1
    for archive in zips.values():
        archive.close()


def _cell(value: Any) -> str:
    # NaN is how a table of numbers says "unknown".
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return as_text(value).strip()


def _class_name(names: Sequence[str], value: int | None) -> str:
    # -1 is how a ClassLabel says "unknown"; in Python it would be the last name.
    return as_text(names[value]).strip() if value is not None and 0 <= value < len(names) else ""


def _sound(held: pa.Scalar, roots: Sequence[Path], zips: dict[Path, zipfile.ZipFile]) -> _Sound:
    """What an audio cell holds: bytes with or without a path, a path alone, or samples."""
    if isinstance(held, pa.StructScalar) and held.is_valid:
        keys = set(held.keys())
        named = as_text(held["path"].as_py() or "") if "path" in keys else ""
        data = held["bytes"].as_py() if "bytes" in keys else None
        if not data and "array" in keys:
            return _samples(held, named)
    else:
        value = held.as_py()
        data, named = (value, "") if isinstance(value, bytes) else (None, as_text(value or ""))
    if data:
        return _Sound(named, data)
    if not named:
        return _Sound(named, problem="the row holds no audio")
    return _pointed_to(named, roots, zips)


def _samples(held: pa.StructScalar, named: str) -> _Sound:
    rate = held["sampling_rate"].as_py() if "sampling_rate" in set(held.keys()) else None
    if not held["array"].is_valid:
        return _Sound(named, problem="the row holds no audio")
    if not isinstance(rate, int | float) or rate < 1:
        return _Sound(named, problem=f"the row holds samples without a sampling rate ({rate!r})")
    try:
        return _Sound(named, wav_bytes(_numbers(held["array"]), int(rate)))
    except ValueError as error:
        return _Sound(named, problem=f"the row's samples cannot be written as audio: {error}")


def _numbers(held: pa.Scalar) -> np.ndarray:
    """Samples of a list, or of a list of lists, without a Python number for each."""
    if not isinstance(held, pa.ListScalar):
        return np.asarray(held.as_py())
    if isinstance(held.type.value_type, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        return np.stack([one.values.to_numpy(zero_copy_only=False) for one in held.values])
    return held.values.to_numpy(zero_copy_only=False)


def _pointed_to(named: str, roots: Sequence[Path], zips: dict[Path, zipfile.ZipFile]) -> _Sound:
    """The file of the set that a row names. A path that leads out of `roots` is not followed.

    In an archive of the set, `datasets` names it "zip://<file>::<archive>".
    """
    member, zipped, file = named.removeprefix("zip://").rpartition("::")
    for root in roots:
        path = Path(os.path.normpath(root / file))
        if not path.is_relative_to(root):
            continue
        # In the hub's cache: datasets--owner--name/snapshots/<commit>/<what the set calls it>
        inside = re.sub(r"^datasets--[^/]+/snapshots/[^/]+/", "", path.relative_to(root).as_posix())
        if not _is_there(path):
            named = inside
            continue
        if not zipped:
            return _Sound(inside, file=str(path))
        try:
            if path not in zips:
                zips[path] = zipfile.ZipFile(path)
            return _Sound(member, zips[path].read(member) or None, problem="the row names an empty file")
        except (KeyError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
            return _Sound(member, problem=f"cannot be read out of {path.name}: {error}")
    return _Sound(named, problem=f"the row holds only a path, and the set has no such file: {named}")


# From rows to tracks


def _columns(facts: Facts, recipe: DataRecipe, address: str) -> dict[str, str | None]:
    """The column of each kind: the one that is named, else the first with a usual name, else none.

    Of the usual names for a label, a ClassLabel is preferred; without any, the only ClassLabel is taken.

    Raises:
        MgcError: a named column is not there, or no label column is found.
    """
    keys = ("label", "split", "artist", "album", "title", "id")
    by_lower = {column.lower(): column for column in reversed(facts.columns)}
    found: dict[str, str | None] = {}
    for key in keys:
        named = getattr(recipe, f"{key}_column")
        if named is not None and named not in facts.columns:
            what = f"the set has no column of text or numbers called {named!r}"
            raise MgcError(what, where=address, fix=did_you_mean(named, facts.columns))
        usual = [by_lower[name] for name in USUAL_COLUMNS[key] if name in by_lower]
        if key == "label":
            usual = [*(column for column in usual if column in facts.classes), *usual]
        found[key] = named or (usual[0] if usual else None)
    if found["label"] is None:
        classes = [column for column in facts.classes if column not in found.values()]
        if len(classes) != 1:
            names = ", ".join(USUAL_COLUMNS["label"])
            raise MgcError(
                f"which column is the label? None is called {names}, and {len(classes)} are ClassLabels",
                where=address,
                fix=f"name it with --column label=NAME; there are {', '.join(facts.columns) or 'no others'}",
            )
        found["label"] = classes[0]
    return found


def _label(row: _Row, column: str | None) -> str | None:
    text = row.cells.get(column or "")
    return None if text == "-1" else text  # as a ClassLabel says it, whose type was lost on the way


def _ids(
    rows: Sequence[_Row], column: str | None, named: bool, address: str
) -> tuple[list[str], list[str], list[str]]:
    """Unique ids, the group that each row belongs to where no artist is known, and notes.

    The id is the cell in `column`, else what the set calls the audio, else split and row; where it stands in
    two splits, the split goes before it. A cell that repeats within a split is a track cut into pieces: they
    share a group.

    Raises:
        MgcError: the id column that was `named` repeats.
    """
    by_row = [f"{row.split}/{row.number:06d}" for row in rows]
    texts = [row.cells.get(column) if column else row.named for row in rows]
    ids = [text or own for text, own in zip(texts, by_row, strict=True)]
    if len({*ids}) == len(ids):
        return ids, ids, []
    if named:
        (text, count), *_ = Counter(ids).most_common(1)
        fix = "name a column of unique ids with --column id=NAME"
        raise MgcError(f"{count} rows are the track {text!r}", where=f"{address}, column {column!r}", fix=fix)
    within = [
        f"{row.split}/{text}" if text else own for row, text, own in zip(rows, texts, by_row, strict=True)
    ]
    if len({*within}) == len(within):
        return within, within, []
    if column is None:
        return by_row, by_row, []
    groups = [f"track: {text}" if text else own for text, own in zip(texts, by_row, strict=True)]
    return by_row, groups, [f"several rows have the same {column}: they are taken for pieces of one track"]


def _sides(
    facts: Facts,
    rows: Sequence[_Row],
    usable: Sequence[bool],
    column: str | None,
    recipe: DataRecipe,
    address: str,
) -> tuple[list[str | None], str, list[str]]:
    """The side of every row, on whose authority, and notes; None for all where no whole split is given.

    The column that is named counts first, then the splits of the set, then a column with a usual name.

    Raises:
        MgcError: a word in the named column that is no side.
    """
    nowhere: list[str | None] = [None] * len(rows)
    authority = "given by the set"
    if recipe.split not in ("auto", "given", "random"):
        return nowhere, authority, []
    choices = {}
    if len(facts.splits) > 1 and not recipe.split_column:
        choices[f"the splits {', '.join(facts.splits)} of the set"] = [row.split for row in rows]
    if column:
        choices[f"the column {column!r} of the set"] = [row.cells.get(column, "") for row in rows]
    notes = []
    for source, cells in choices.items():
        words = [word for word, used in zip(cells, usable, strict=True) if used]
        strange = sorted({word for word in words if side_of(word) is None})
        if strange and recipe.split_column:
            sides = ", ".join(known[0] for known in SPLIT_WORDS.values())
            fix = f"use {sides}; or leave the column unread with --set data.split=cv5"
            raise MgcError(f"{strange[0]!r} is no side of a split", where=f"{address}, {source}", fix=fix)
        if strange:
            notes.append(f"{source}: not used as a split, for {strange[0]!r} is no side of one")
        elif not {"train", "test"} <= {side_of(word) for word in words}:
            notes.append(f"{source}: not used as a split, for a side to train on or to test on is missing")
        else:
            return [side_of(word) for word in cells], f"given by {source}", notes
    return nowhere, authority, notes
