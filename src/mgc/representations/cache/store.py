"""Arrays on disk, keyed by content: the hash of a clip's bytes x the fingerprint of a representation.

A representation has a folder, `<name>-<fingerprint>`, with its card and Arrow IPC shards of some clips
each. A shard is written under another name, synced and renamed, so it is there whole or not at all: a
process killed at any moment loses at most the clips since the last shard, and the next one goes on behind
it. Processes that write at the same time, on one machine or many, write shards of their own. Shards are
never changed; a clip that two processes have computed is read once. A shard's name ends in the CRC-32 of
its bytes. Each process looks at it before it gives a shard to Arrow, and for what a shard holds (`missing`,
`seconds`) nobody opens it a second time: `index.json` remembers that by the file's size, times and inode.
So a call that finds all done reads kilobytes, not every vector. A shard that is damaged is set aside under
another name, and its clips are computed again.

A row: `clip` (hash), `track_id` (as it was called then), `seconds` (what it took), `frames` (rows of the
array), `values` (the array, row by row, in the representation's dtype). Pooled arrays are (3, width): mean,
deviation and maximum of all layers side by side; or (3 * windows, width).
"""

import json
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from mgc.data.clips import state_of
from mgc.representations import STATISTICS, Representation
from mgc.util import files
from mgc.util.errors import MgcError
from mgc.util.progress import Progress, say

SHARD_BYTES = 64 << 20  # arrays held in memory before they are written
SHARD_SECONDS = 20.0  # and for how long: what a kill can cost; but a call of many hours
SHARD_SHARE = 0.01  # writes one only every hundredth of the time it has run, or there would be too many
STALE_SECONDS = 3600.0  # a half-written file of this age has lost its writer
MANY_SHARDS = 50  # from here on reading them for the first time is told
CARD, INDEX, ASIDE = "representation.json", "index.json", ".damaged"
_NEEDED = {"name", "address", "source", "fingerprint", "layers", "pooled", "weights", "revision"}
COLUMNS = ["clip", "track_id", "seconds", "frames", "values"]


@dataclass(frozen=True)
class Shard:
    """What a whole shard holds, row by row, known without opening it. `state`: of the file, by `state_of`."""

    state: str
    clips: list[str]
    track_ids: list[str]
    seconds: list[float]


_UNKNOWN = Shard("", [], [], [])


@dataclass(frozen=True)
class Damaged:
    """A shard that is not what was written, and its tracks as far as the index remembers them."""

    path: Path
    why: str
    track_ids: list[str]

    def __str__(self) -> str:
        some = ", ".join(self.track_ids[:5]) + (" ..." if len(self.track_ids) > 5 else "")
        clips = f"{len(self.track_ids)} clips: {some}" if self.track_ids else "its clips are not known"
        return f"{self.path} is damaged: {self.why} ({clips})"

    def set_aside(self) -> Path:
        """Rename it, so that it is neither read nor lost; the new name.

        Raises:
            OSError: it cannot be renamed.
        """
        aside = self.path.with_name(self.path.name + ASIDE)
        with suppress(FileNotFoundError):  # another process was faster
            self.path.rename(aside)
        return aside


class Store:
    """The arrays of one representation.

    Raises:
        MgcError: the folder cannot be made, read or written.
    """

    def __init__(self, representation: Representation, root: Path) -> None:
        self.representation = representation
        suffix = f"-{representation.fingerprint}"
        here = sorted(folder for folder in root.glob(f"*{suffix}") if folder.is_dir())
        self.folder = here[0] if here else root / f"{_plain(representation.name)}{suffix}"
        self._shards: dict[Path, Shard] = {}
        self._place: dict[str, tuple[Path, int]] = {}
        # Of shards whose rows were asked for: all values, where each row begins and ends, its frames.
        self._opened: dict[Path, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._left: set[Path] = set()  # damaged or gone: not looked at again

    def refresh(self) -> None:
        """Learn which shards have come and gone since the last look."""
        shards, damaged = look(self.folder, self._shards, self._left)
        for one in damaged:
            self._set_aside(one)
        if shards == self._shards:
            return
        self._shards, self._place = shards, {}
        for path, shard in shards.items():
            for row, clip in enumerate(shard.clips):
                self._place.setdefault(clip, (path, row))

    def missing(self, clips: Iterable[str]) -> set[str]:
        """Those of `clips` (hashes) that are not in the store."""
        self.refresh()
        return {clip for clip in clips if clip not in self._place}

    def read(self, clip: str) -> np.ndarray:
        """The array of one clip, of the representation's dtype: (3, width), (3 * windows, width) or (T, D);
        memory-mapped, no copy.

        Raises:
            MgcError: it is not in the store.
        """
        path, row = self._find(clip)
        if path not in self._opened and not self._open(path):
            return self.read(clip)  # from another shard, or it is missing now
        values, ends, frames = self._opened[path]
        return values[ends[row] : ends[row + 1]].reshape(frames[row], -1)

    def seconds(self, clips: Iterable[str]) -> float:
        """Wall time that computing these clips took, whenever that was; a clip named twice counts once.

        Raises:
            MgcError: one of them is not in the store.
        """
        self.refresh()
        places = [self._find(clip) for clip in set(clips)]
        return float(sum(self._shards[path].seconds[row] for path, row in places))

    def pooled(self, clips: Sequence[str], layer: str = "last") -> np.ndarray:
        """(N, 3, D) float32: mean, deviation and maximum of one layer over the real frames of each clip."""
        wanted = self.representation.layer_slice(layer)
        pooled = np.empty((len(clips), len(STATISTICS), wanted.stop - wanted.start), np.float32)
        for one, clip in zip(pooled, clips, strict=True):
            one[:] = self.read(clip)[:, wanted]
        return pooled

    def _find(self, clip: str) -> tuple[Path, int]:
        if clip not in self._place and self.missing([clip]):
            raise MgcError(f"the clip {clip} is not in the store", where=self.folder, fix="run mgc embed")
        return self._place[clip]

    def _open(self, path: Path) -> bool:
        """Whether it could be opened; if not, it is none of the store's any more."""
        try:
            table = open_shard(path)
            rows = table.column("values").chunk(0)
            frames = table.column("frames").to_numpy()
            self._opened[path] = rows.values.to_numpy(zero_copy_only=True), rows.offsets.to_numpy(), frames
            return True
        except FileNotFoundError:  # set aside or pruned by another process
            self._left.add(path)
        except pa.ArrowInvalid as error:
            self._set_aside(Damaged(path, str(error), self._shards[path].track_ids))
        self.refresh()
        return False

    def _set_aside(self, damaged: Damaged) -> None:
        self._left.add(damaged.path)
        try:
            done = f"set aside as {damaged.set_aside().name}"
        except OSError as error:
            done = f"it cannot be set aside ({error.strerror or error}) and is not read"
        say(f"{damaged}; {done}; mgc embed computes its clips again")

    def writer(self) -> "Writer":
        """A context in which arrays are added; what was added is kept also when it ends by an error."""
        return Writer(self.folder, self.representation)


class Writer:
    """Collects arrays and writes them as shards."""

    def __init__(self, folder: Path, representation: Representation) -> None:
        self.folder, self.representation = folder, representation
        self._rows: list[tuple[str, str, float, np.ndarray]] = []
        self._bytes = 0
        self._began = self._since = self._last = time.monotonic()

    def __enter__(self) -> "Writer":
        card = self.folder / CARD
        content = json.dumps(self.representation.card(), indent=2).encode()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for part in half_written(self.folder):
                part.unlink(missing_ok=True)
            # The place of the weights decides nothing, but the card says where they are now.
            if not card.exists() or card.read_bytes() != content:
                files.write(card, content)
        except OSError as error:
            raise _unwritable(self.folder, error) from None
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
                f"{self.representation.name} gave a value that is not finite (or {beyond}) for this clip",
                where=track_id,
                fix="check the clip, and the encoder's weights",
            )
        now = time.monotonic()
        self._rows.append((clip, track_id, now - self._last, kept))
        self._last = now
        self._bytes += kept.nbytes
        patience = max(SHARD_SECONDS, SHARD_SHARE * (now - self._began))
        if self._bytes >= SHARD_BYTES or now - self._since >= patience:
            self.flush()

    def flush(self) -> None:
        """Write what was added since the last shard."""
        self._since = time.monotonic()
        if not self._rows:
            return
        flat = np.concatenate([array.ravel() for *_, array in self._rows])
        ends = np.cumsum([0, *(array.size for *_, array in self._rows)], dtype=np.int32)
        values = pa.ListArray.from_arrays(pa.array(ends), pa.array(flat))  # neither is copied
        table = pa.table(
            {
                "clip": [row[0] for row in self._rows],
                "track_id": [row[1] for row in self._rows],
                "seconds": [row[2] for row in self._rows],
                "frames": pa.array([len(array) for *_, array in self._rows], pa.int32()),
                "values": values,
            }
        )
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as file:
            file.write_table(table)
        content = sink.getvalue()
        name = f"shard-{uuid.uuid4().hex[:16]}-{zlib.crc32(content):08x}.arrow"
        try:
            files.write(self.folder / name, memoryview(content))
        except OSError as error:
            raise _unwritable(self.folder, error) from None
        self._rows, self._bytes = [], 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()


def kept(root: Path) -> list[dict[str, object]]:
    """The cards of all representations in the store that hold at least one shard."""
    cards = sorted(root.glob(f"*/{CARD}"))
    return [read_card(card) for card in cards if any(card.parent.glob("*.arrow"))]


def read_card(card: Path) -> dict[str, Any]:
    """The card of a representation as it was when something was last computed.

    Raises:
        MgcError: it cannot be read.
    """
    try:
        known = json.loads(card.read_text(encoding="utf-8"))
        if not isinstance(known, dict) or not known.keys() >= _NEEDED:
            raise ValueError(f"it must tell {', '.join(sorted(_NEEDED))}")
        return known
    except (OSError, ValueError) as error:
        fix = "delete this file; the next mgc embed that computes anything writes it again"
        raise MgcError(f"a card of the store is damaged: {error}", where=card, fix=fix) from None


def look(
    folder: Path, known: Mapping[Path, Shard] | None = None, skip: Iterable[Path] = ()
) -> tuple[dict[Path, Shard], list[Damaged]]:
    """The whole shards of a folder in the order of their names, and the damaged ones. Changes no shard.

    Those that neither `known` nor the index knows are read in full, and the index is written anew.

    Raises:
        MgcError: a shard cannot be read.
    """
    skipped, known = set(skip), known or {}
    paths = [path for path in sorted(folder.glob("shard-*.arrow")) if path not in skipped]
    states = {path: state_of(path) for path in paths if path not in known}  # before they are read
    index = _read_index(folder) if states else {}
    shards = {path: known[path] for path in paths if path in known}
    remembered = {path: index.get(path.name, _UNKNOWN) for path in states}
    shards |= {path: shard for path, shard in remembered.items() if shard.state == states[path]}
    unread = [path for path in paths if path not in shards]
    damaged = {}
    try:
        for path in _in_turn(unread):
            try:
                table = open_shard(path)
                shards[path] = Shard(states[path], *(table.column(name).to_pylist() for name in COLUMNS[:3]))
            except pa.ArrowInvalid as error:
                damaged[path] = Damaged(path, str(error), remembered[path].track_ids)
            except FileNotFoundError:  # set aside or pruned by another process
                continue
    finally:
        if unread:
            # Nothing but a memory: where it cannot be written, shards are read again next time.
            with suppress(OSError):
                _write_index(folder, {path: remembered[path] for path in damaged} | shards)
    return {path: shards[path] for path in paths if path in shards}, list(damaged.values())


def _in_turn(paths: list[Path]) -> Iterator[Path]:
    """The same, with progress where they are many."""
    if len(paths) < MANY_SHARDS:
        yield from paths
        return
    with Progress("read the store", len(paths), "shards") as progress:
        for path in paths:
            yield path
            progress.step()


def open_shard(path: Path) -> pa.Table:
    """The memory-mapped table of a shard that is whole. No file stays open, so there may be thousands.

    Raises:
        pa.ArrowInvalid: it is damaged.
        FileNotFoundError: it is not there any more.
        MgcError: it cannot be read.
    """
    try:
        found = 0
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                found = zlib.crc32(block, found)
        # Arrow trusts what it reads: a wrong length inside would end the process.
        if not path.stem.endswith(f"-{found:08x}"):
            raise pa.ArrowInvalid("its bytes are not those that were written")
        table = pa.ipc.open_file(pa.memory_map(str(path)).read_buffer()).read_all()
    except FileNotFoundError:
        raise
    except OSError as error:
        fix = "make it readable; or move it away, and the next mgc embed computes its clips again"
        what = f"a shard of the store cannot be read: {error.strerror or error}"
        raise MgcError(what, where=path, fix=fix) from None
    if table.schema.names != COLUMNS:
        raise pa.ArrowInvalid("its columns are not those of a shard")
    return table


def examine(path: Path, card: Mapping[str, Any] | None) -> Damaged | None:
    """What is wrong with a shard once all of it was read: its bytes, Arrow's structure, each value, and,
    where there is a card, the kind and shape of each row.

    Raises:
        MgcError: the shard cannot be read.
    """
    track_ids = _read_index(path.parent).get(path.name, _UNKNOWN).track_ids
    try:
        table = open_shard(path)
        table.validate(full=True)
    except FileNotFoundError:  # set aside or pruned by another process
        return None
    except pa.ArrowInvalid as error:
        return Damaged(path, str(error), track_ids)
    frames = table.column("frames").to_numpy()
    rows = table.column("values").chunk(0)
    flat = rows.values.to_numpy()
    if not np.isfinite(flat).all():
        return Damaged(path, "it holds a value that is not finite", track_ids)
    if card:
        width = sum(layer["dim"] for layer in card["layers"])
        shaped = np.array_equal(np.diff(rows.offsets.to_numpy()), frames * width)
        if card["pooled"]:
            rows_each = len(STATISTICS) if "keep" in card else 2  # the first cards kept no maximum
            shaped &= bool((frames % rows_each == 0).all() and (frames > 0).all())
            shaped &= card.get("keep") == "windows" or bool((frames == rows_each).all())
        # The first cards did not tell the dtype.
        if not shaped or flat.dtype != card.get("dtype", "float16"):
            return Damaged(path, "its rows are not of the shape and kind that its card tells", track_ids)
    return None


def half_written(folder: Path) -> Iterator[Path]:
    """Files that were begun under another name and whose writers are gone."""
    for part in folder.glob(".*.part"):
        with suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > STALE_SECONDS:
                yield part


def _read_index(folder: Path) -> dict[str, Shard]:
    """What was in the shards when they were last read, by name; nothing if that is not known for sure."""
    try:
        found, _, body = (folder / INDEX).read_bytes().partition(b"\n")
        if found == b"%08x" % zlib.crc32(body):
            return {name: Shard(*columns) for name, columns in json.loads(body).items()}
    except (OSError, ValueError, TypeError):
        return {}  # not there, or written by another version
    return {}


def _write_index(folder: Path, shards: Mapping[Path, Shard]) -> None:
    body = json.dumps({path.name: astuple(shard) for path, shard in shards.items()}).encode()
    files.write(folder / INDEX, b"%08x\n%s" % (zlib.crc32(body), body))


def _unwritable(folder: Path, error: OSError) -> MgcError:
    return MgcError(
        f"the store cannot be written: {error.strerror or error}",
        where=folder,
        fix="make room or make it writable, or name another folder with $MGC_EMBEDDINGS_CACHE; "
        "what was computed before is kept",
    )


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._" else "_" for c in name)
