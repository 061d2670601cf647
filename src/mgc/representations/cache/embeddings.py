"""`EmbeddingCache`: the arrays of one representation on disk, by content hash of the clip.

A representation has a folder `<name>-<key>` that holds its card and Arrow IPC shards of some clips each. A
shard is written under a temporary name, synced and renamed, so it is complete or absent: a process killed at
any moment loses at most the clips since its last shard. Shards are never changed. Several processes, on one
machine or many, may write at the same time; a clip that two of them computed is read once. A shard's name
ends in the CRC-32 of its bytes, which is checked before Arrow reads it. `index.json` remembers which clips a
checked shard holds by the size, times and inode of the file, so a call that finds everything cached reads
kilobytes. Damaged shards are set aside under another name, and their clips are computed again.

The card lists the library versions that the arrays were computed with. Arrays that other versions compute are
only added if they agree (see `mgc.representations.cache.embed`); otherwise they form another generation, a
folder `<name>-<key>-g2`.

Columns of a shard: `clip` (content hash), `track_id`, `seconds` (of computing), `frames` (rows of the array)
and `values` (the array, row by row, in the representation's dtype). Pooled arrays are (3, width): mean,
standard deviation and maximum of all layers side by side; or (3 * windows, width).
"""

import json
import re
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from mgc.data.clips import state_of
from mgc.representations import STATISTICS, Representation
from mgc.util import files
from mgc.util.errors import MgcError, counted, explaining, reason_of
from mgc.util.progress import Progress, say

SHARD_BYTES = 64 << 20  # arrays held in memory before they are written
SHARD_SECONDS = 20.0  # and for how long: what a kill can cost; but
SHARD_SHARE = (
    0.01  # a call of many hours writes only every hundredth of its time, or shards would be too many
)
MANY_SHARDS = 50  # from here on reading them for the first time shows progress
CARD, INDEX, ASIDE = "representation.json", "index.json", ".damaged"
COLUMNS = ["clip", "track_id", "seconds", "frames", "values"]
LIBRARIES = ("torch", "transformers", "librosa", "soxr", "numpy")
_CARD_KEYS = {
    "name",
    "spec",
    "source",
    "key",
    "layers",
    "pooled",
    "dtype",
    "weights",
    "revision",
    "libraries",
}


@cache
def library_versions() -> dict[str, str]:
    """Versions of the libraries that decode audio and compute embeddings."""
    import soundfile

    return {name: version(name) for name in LIBRARIES} | {"libsndfile": soundfile.__libsndfile_version__}


@dataclass(frozen=True)
class Shard:
    """The contents of a shard, row by row, without its arrays. `state`: of the file, as by `state_of`."""

    state: str
    clips: list[str]
    track_ids: list[str]
    seconds: list[float]


@dataclass(frozen=True)
class Damaged:
    """A shard that differs from what was written, and its tracks if the index remembers them."""

    path: Path
    why: str
    track_ids: list[str]

    def __str__(self) -> str:
        some = ", ".join(self.track_ids[:5]) + (" ..." if len(self.track_ids) > 5 else "")
        number = counted(len(self.track_ids), "clip")
        clips = f"{number}: {some}" if self.track_ids else "its clips are unknown"
        return f"{self.path} is damaged: {self.why} ({clips})"

    def set_aside(self) -> str:
        """Rename the shard, so that it is neither read nor lost; the new name.

        Raises:
            OSError: it cannot be renamed.
        """
        aside = self.path.with_name(self.path.name + ASIDE)
        with suppress(FileNotFoundError):  # another process was faster
            self.path.rename(aside)
        return aside.name


class EmbeddingCache:
    """The cached arrays of one representation.

    Parameters
    ----------
    representation
        What the arrays are computed by.
    root
        `Workspace.cache`.
    generation
        1 for the first folder of this representation. Default: the newest one that was computed with the
        installed library versions, else the newest.
    """

    def __init__(self, representation: Representation, root: Path, generation: int | None = None) -> None:
        self.representation, self.root = representation, root
        folders = _generations(root, representation.key)
        self.generation = generation or _current(folders)
        suffix = representation.key + (f"-g{self.generation}" if self.generation > 1 else "")
        name = re.sub(r"[^\w.]", "_", representation.name)
        self.folder = folders.get(self.generation, root / f"{name}-{suffix}")
        self._shards: dict[Path, Shard] = {}
        self._rows: dict[str, tuple[Path, int]] = {}  # clip -> shard and row
        # Shards whose arrays were read: all values, where each row begins and ends, its frames.
        self._opened: dict[Path, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._ignored: set[Path] = set()  # damaged or gone

    def next_generation(self) -> "EmbeddingCache":
        """An empty cache beside all present generations."""
        newest = max(_generations(self.root, self.representation.key), default=0)
        return EmbeddingCache(self.representation, self.root, newest + 1)

    def libraries(self) -> list[dict[str, str]]:
        """The sets of library versions that the cached arrays were computed with."""
        return _libraries(self.folder)

    def refresh(self) -> None:
        """Find shards that were added or removed since the last call."""
        shards, damaged = scan(self.folder, self._shards, self._ignored)
        for one in damaged:
            self._set_aside(one)
        if shards != self._shards:
            self._shards, self._rows = shards, {}
            for path, shard in shards.items():
                for row, clip in enumerate(shard.clips):
                    self._rows.setdefault(clip, (path, row))

    def missing(self, clips: Iterable[str]) -> set[str]:
        """Those of `clips` (content hashes) that are not cached."""
        self.refresh()
        return {clip for clip in clips if clip not in self._rows}

    def read(self, clip: str) -> np.ndarray:
        """The array of one clip in the representation's dtype, memory-mapped: (3, width), (3 * windows,
        width) or (T, D).

        Raises:
            MgcError: the clip is not cached.
        """
        path, row = self._find(clip)
        if path not in self._opened and not self._open(path):
            return self.read(clip)  # from another shard, or it is missing now
        values, ends, frames = self._opened[path]
        return values[ends[row] : ends[row + 1]].reshape(frames[row], -1)

    def seconds(self, clips: Iterable[str]) -> float:
        """Wall time that computing these clips took, whenever that was; a clip named twice counts once.

        Raises:
            MgcError: one of them is not cached.
        """
        self.refresh()
        rows = [self._find(clip) for clip in set(clips)]
        return float(sum(self._shards[path].seconds[row] for path, row in rows))

    def pooled(self, clips: Sequence[str], layer: str = "last") -> np.ndarray:
        """(N, 3, D) float32: mean, standard deviation and maximum of one layer for each clip."""
        columns = self.representation.layer_slice(layer)
        pooled = np.empty((len(clips), len(STATISTICS), columns.stop - columns.start), np.float32)
        for one, clip in zip(pooled, clips, strict=True):
            one[:] = self.read(clip)[:, columns]
        return pooled

    def writer(self) -> "Writer":
        """A context in which arrays are added. What was added is kept even if it ends with an error."""
        return Writer(self.folder, self.representation)

    def _find(self, clip: str) -> tuple[Path, int]:
        if clip not in self._rows and self.missing([clip]):
            raise MgcError(f"the clip {clip} is not cached", where=self.folder, fix="run mgc embed")
        return self._rows[clip]

    def _open(self, path: Path) -> bool:
        """Whether the shard could be opened. If not, it is no longer part of the cache."""
        try:
            table = open_shard(path)
        except FileNotFoundError:  # set aside or pruned by another process
            self._ignored.add(path)
        except pa.ArrowInvalid as error:
            self._set_aside(Damaged(path, str(error), self._shards[path].track_ids))
        else:
            rows, frames = table.column("values").chunk(0), table.column("frames").to_numpy()
            self._opened[path] = rows.values.to_numpy(zero_copy_only=True), rows.offsets.to_numpy(), frames
            return True
        self.refresh()
        return False

    def _set_aside(self, damaged: Damaged) -> None:
        self._ignored.add(damaged.path)
        try:
            done = f"set aside as {damaged.set_aside()}"
        except OSError as error:
            done = f"it cannot be set aside ({reason_of(error)}) and is ignored"
        say(f"{damaged}; {done}; mgc embed computes its clips again")


class Writer:
    """Collects arrays and writes them as shards."""

    def __init__(self, folder: Path, representation: Representation) -> None:
        self.folder, self.representation = folder, representation
        self._rows: list[tuple[str, str, float, np.ndarray]] = []
        self._bytes = 0
        self._began = self._flushed = self._last = time.monotonic()

    def __enter__(self) -> "Writer":
        libraries = _libraries(self.folder)
        if library_versions() not in libraries:
            libraries.append(library_versions())
        card = json.dumps(self.representation.card() | {"libraries": libraries}, indent=2)
        file = self.folder / CARD
        # Rewritten if anything changed: the location of the weights, for example.
        if not file.exists() or file.read_bytes() != card.encode():
            self._write(CARD, card)
        return self

    def add(self, clip: str, track_id: str, array: np.ndarray) -> None:
        """Keep `array` (rows, columns) in the representation's dtype.

        Raises:
            MgcError: a value that this dtype cannot hold, or the shard cannot be written.
        """
        dtype = np.dtype(self.representation.dtype)
        with np.errstate(over="ignore"):
            kept = np.ascontiguousarray(array, dtype)
        if not np.isfinite(kept).all():
            beyond = f"beyond {float(np.finfo(dtype).max):.5g}, the limit of {dtype}"
            raise MgcError(
                f"{self.representation.name} computed a value that is not finite (or {beyond}) for this clip",
                where=track_id,
                fix="check the clip, and the encoder's weights",
            )
        now = time.monotonic()
        self._rows.append((clip, track_id, now - self._last, kept))
        self._bytes += kept.nbytes
        self._last = now
        patience = max(SHARD_SECONDS, SHARD_SHARE * (now - self._began))
        if self._bytes >= SHARD_BYTES or now - self._flushed >= patience:
            self.flush()

    def flush(self) -> None:
        """Write what was added since the last shard."""
        self._flushed = time.monotonic()
        if not self._rows:
            return
        clips, track_ids, seconds, arrays = zip(*self._rows, strict=True)
        ends = np.cumsum([0, *(array.size for array in arrays)], dtype=np.int32)
        values = pa.ListArray.from_arrays(ends, np.concatenate([array.ravel() for array in arrays]))
        frames = pa.array([len(array) for array in arrays], pa.int32())
        table = pa.table([list(clips), list(track_ids), list(seconds), frames, values], names=COLUMNS)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as file:
            file.write_table(table)
        content = sink.getvalue()
        self._write(f"shard-{uuid.uuid4().hex[:16]}-{zlib.crc32(content):08x}.arrow", memoryview(content))
        self._rows, self._bytes = [], 0

    def _write(self, name: str, content: str | memoryview) -> None:
        fix = (
            "free some space, make the folder writable, or choose another one with $MGC_EMBEDDINGS_CACHE; "
            "embeddings computed so far are kept"
        )
        with explaining("the embedding cache cannot be written", self.folder, fix):
            files.write(self.folder / name, content)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()


# ---- cards and generations --------------------------------------------------------------------------------


def cards(root: Path) -> list[dict[str, Any]]:
    """The cards of all folders in the cache that hold at least one shard."""
    return [read_card(card) for card in sorted(root.glob(f"*/{CARD}")) if any(card.parent.glob("*.arrow"))]


def read_card(card: Path) -> dict[str, Any]:
    """The card of a representation as of the last computation.

    Raises:
        MgcError: it cannot be read.
    """
    fix = "delete this file; the next mgc embed that computes anything writes it again"
    with explaining("a card in the embedding cache is damaged", card, fix, (OSError, ValueError)):
        known: dict[str, Any] = json.loads(card.read_text(encoding="utf-8"))
        if not isinstance(known, dict) or not known.keys() >= _CARD_KEYS:
            raise ValueError(f"it must hold {', '.join(sorted(_CARD_KEYS))}")
    return known


def generation_of(folder: Path) -> int:
    """1 for the first folder of a representation, 2 for `...-g2`."""
    numbered = re.search(r"-g(\d+)$", folder.name)
    return int(numbered[1]) if numbered else 1


def _generations(root: Path, key: str) -> dict[int, Path]:
    found = [path for path in root.glob(f"*-{key}*") if re.search(rf"-{key}(-g\d+)?$", path.name)]
    return {generation_of(path): path for path in sorted(found, reverse=True) if path.is_dir()}


def _current(generations: Mapping[int, Path]) -> int:
    if len(generations) < 2:
        return max(generations, default=1)
    own = [number for number, path in generations.items() if library_versions() in _libraries(path)]
    return max(own or generations)


def _libraries(folder: Path) -> list[dict[str, str]]:
    """Nothing if the card is missing or damaged."""
    try:
        return list(read_card(folder / CARD)["libraries"])
    except MgcError:
        return []


# ---- shards -----------------------------------------------------------------------------------------------


def scan(
    folder: Path, known: Mapping[Path, Shard] | None = None, ignored: Iterable[Path] = ()
) -> tuple[dict[Path, Shard], list[Damaged]]:
    """The intact shards of a folder in the order of their names, and the damaged ones. Changes no shard.

    Shards that neither `known` nor the index remembers are read in full, and the index is written again.

    Raises:
        MgcError: a shard cannot be read.
    """
    known, skipped = known or {}, set(ignored)
    paths = [path for path in sorted(folder.glob("shard-*.arrow")) if path not in skipped]
    states = {path: state_of(path) for path in paths if path not in known}  # before they are read
    index = _read_index(folder) if states else {}
    shards = {path: known[path] for path in paths if path in known}
    remembered = {path: index[path.name] for path in states if path.name in index}
    shards |= {path: shard for path, shard in remembered.items() if shard.state == states[path]}
    unread = [path for path in paths if path not in shards]
    damaged: dict[Path, Damaged] = {}
    try:
        for path in _with_progress(unread):
            try:
                table = open_shard(path)
                shards[path] = Shard(states[path], *(table.column(name).to_pylist() for name in COLUMNS[:3]))
            except pa.ArrowInvalid as error:
                before = remembered.get(path)
                damaged[path] = Damaged(path, str(error), before.track_ids if before else [])
            except FileNotFoundError:  # set aside or pruned by another process
                continue
    finally:
        if unread:
            # The index only saves time: where it cannot be written, shards are read again next time.
            with suppress(OSError):
                kept = {path: remembered[path] for path in damaged if path in remembered}
                _write_index(folder, kept | shards)
    return {path: shards[path] for path in paths if path in shards}, list(damaged.values())


def _with_progress(paths: list[Path]) -> Iterator[Path]:
    if len(paths) < MANY_SHARDS:
        yield from paths
        return
    with Progress("read the embedding cache", len(paths), "shards") as progress:
        for path in paths:
            yield path
            progress.step()


def open_shard(path: Path) -> pa.Table:
    """The memory-mapped table of an intact shard. No file stays open, so there may be thousands.

    Raises:
        pa.ArrowInvalid: it is damaged.
        FileNotFoundError: it does not exist any more.
        MgcError: it cannot be read.
    """
    try:
        # Arrow trusts what it reads: a wrong length inside would end the process.
        if not path.stem.endswith(f"-{zlib.crc32(path.read_bytes()):08x}"):
            raise pa.ArrowInvalid("its bytes are not those that were written")
        table = pa.ipc.open_file(pa.memory_map(str(path)).read_buffer()).read_all()
    except FileNotFoundError:
        raise
    except OSError as error:
        fix = "make it readable; or move it away, and the next mgc embed computes its clips again"
        what = f"a shard of the embedding cache cannot be read: {reason_of(error)}"
        raise MgcError(what, where=path, fix=fix) from None
    if table.schema.names != COLUMNS:
        raise pa.ArrowInvalid("its columns are not those of a shard")
    return table


def damage(path: Path, card: Mapping[str, Any] | None) -> Damaged | None:
    """What is wrong with a shard after reading all of it: its bytes, Arrow's structure, each value, and, if
    there is a card, dtype and shape of each row.

    Raises:
        MgcError: the shard cannot be read.
    """
    try:
        table = open_shard(path)
        table.validate(full=True)
        why = _wrong_rows(table, card)
    except FileNotFoundError:  # set aside or pruned by another process
        return None
    except pa.ArrowInvalid as error:
        why = str(error)
    before = _read_index(path.parent).get(path.name)
    return Damaged(path, why, before.track_ids if before else []) if why else None


def _wrong_rows(table: pa.Table, card: Mapping[str, Any] | None) -> str:
    frames = table.column("frames").to_numpy()
    rows = table.column("values").chunk(0)
    flat = rows.values.to_numpy()
    if not np.isfinite(flat).all():
        return "it holds a value that is not finite"
    if card:
        width = sum(layer["dim"] for layer in card["layers"])
        valid = flat.dtype == card["dtype"] and np.array_equal(
            np.diff(rows.offsets.to_numpy()), frames * width
        )
        if card["pooled"]:
            windows = card["spec"].get("keep") == "windows"
            statistics = len(STATISTICS)
            valid &= bool(
                ((frames % statistics == 0) & (frames > 0)).all() if windows else (frames == statistics).all()
            )
        if not valid:
            return "its rows do not have the shape and dtype of its card"
    return ""


def _read_index(folder: Path) -> dict[str, Shard]:
    """The contents of the shards when they were last read, by name; nothing if that is not known for sure."""
    with suppress(OSError, ValueError, TypeError):
        crc, _, body = (folder / INDEX).read_bytes().partition(b"\n")
        if crc == b"%08x" % zlib.crc32(body):
            return {name: Shard(*columns) for name, columns in json.loads(body).items()}
    return {}


def _write_index(folder: Path, shards: Mapping[Path, Shard]) -> None:
    body = json.dumps({path.name: astuple(shard) for path, shard in shards.items()}).encode()
    files.write(folder / INDEX, b"%08x\n%s" % (zlib.crc32(body), body))
