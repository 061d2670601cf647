"""Arrays on disk, keyed by content: the hash of a clip's bytes x the fingerprint of a representation.

A representation has a folder, `<name>-<fingerprint>`, with its card and Arrow IPC shards of some clips
each. A shard is written under another name, synced and renamed, so it is there whole or not at all: a
process killed at any moment loses at most the clips since the last shard, and the next one goes on behind
it. Shards are never changed; a clip that two processes have computed is read once. A shard's name ends in
the CRC-32 of its bytes, which is looked at before they are used.

A row: `clip` (hash), `track_id` (as it was called then), `seconds` (what it took), `frames` (rows of the
array), `values` (the array, row by row, in the representation's dtype). Pooled arrays are (2, width): mean
and deviation of all layers side by side.
"""

import json
import os
import time
import uuid
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa

from mgc.config import MgcError, cache_dir
from mgc.representations import Representation

SHARD_BYTES = 64 << 20  # arrays held in memory before they are written
SHARD_SECONDS = 20.0  # and for how long: what a kill can cost
STALE_SECONDS = 3600.0  # a half-written file of this age has lost its writer


class Store:
    """The arrays of one representation.

    Raises:
        MgcError: the folder cannot be made, read or written, or a shard is damaged.
    """

    def __init__(self, representation: Representation) -> None:
        self.representation = representation
        root = cache_dir()
        suffix = f"-{representation.fingerprint}"
        here = [folder for folder in root.glob(f"*{suffix}") if folder.is_dir()]
        self.folder = here[0] if here else root / f"{_plain(representation.name)}{suffix}"
        self._tables: dict[Path, pa.Table] = {}
        self._place: dict[str, tuple[Path, int]] = {}

    def refresh(self) -> None:
        """Read the index of shards that have come since the last look."""
        for shard in sorted(self.folder.glob("shard-*.arrow")):
            if shard in self._tables:
                continue
            self._tables[shard] = table = _open(shard)
            for row, clip in enumerate(table.column("clip").to_pylist()):
                self._place.setdefault(clip, (shard, row))

    def missing(self, clips: Iterable[str]) -> set[str]:
        """Those of `clips` (hashes) that are not in the store."""
        self.refresh()
        return {clip for clip in clips if clip not in self._place}

    def read(self, clip: str) -> np.ndarray:
        """The array of one clip, of the representation's dtype, (2, width) or (T, D); memory-mapped, no copy.

        Raises:
            MgcError: it is not in the store.
        """
        shard, row = self._find(clip)
        table = self._tables[shard]
        values = table.column("values")[row].values.to_numpy(zero_copy_only=True)
        return values.reshape(table.column("frames")[row].as_py(), -1)

    def seconds(self, clips: Iterable[str]) -> float:
        """Wall time that computing these clips took, whenever that was; a clip named twice counts once.

        Raises:
            MgcError: one of them is not in the store.
        """
        self.refresh()
        columns = {shard: table.column("seconds").to_numpy() for shard, table in self._tables.items()}
        places = [self._find(clip) for clip in set(clips)]
        return float(sum(columns[shard][row] for shard, row in places))

    def pooled(self, clips: Sequence[str], layer: str = "last") -> np.ndarray:
        """(N, 2, D) float32: mean and deviation of one layer over the real frames of each clip."""
        wanted = self.representation.layer_slice(layer)
        return np.stack([self.read(clip)[:, wanted] for clip in clips]).astype(np.float32)

    def _find(self, clip: str) -> tuple[Path, int]:
        if clip not in self._place and self.missing([clip]):
            raise MgcError(f"the clip {clip} is not in the store", where=self.folder, fix="run mgc embed")
        return self._place[clip]

    def writer(self) -> "Writer":
        """A context in which arrays are added; what was added is kept also when it ends by an error."""
        return Writer(self.folder, self.representation)


class Writer:
    """Collects arrays and writes them as shards."""

    def __init__(self, folder: Path, representation: Representation) -> None:
        self.folder, self.representation = folder, representation
        self._rows: list[tuple[str, str, float, np.ndarray]] = []
        self._bytes = 0
        self._since = self._last = time.monotonic()

    def __enter__(self) -> "Writer":
        card = self.folder / "representation.json"
        content = json.dumps(self.representation.card(), indent=2).encode()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for part in self.folder.glob(".*.part"):
                if time.time() - part.stat().st_mtime > STALE_SECONDS:
                    part.unlink(missing_ok=True)
            # The place of the weights decides nothing, but the card says where they are now.
            if not card.exists() or card.read_bytes() != content:
                _replace(card, content)
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
        if self._bytes >= SHARD_BYTES or time.monotonic() - self._since >= SHARD_SECONDS:
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
            _replace(self.folder / name, content)
        except OSError as error:
            raise _unwritable(self.folder, error) from None
        self._rows, self._bytes = [], 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()


def kept() -> list[dict[str, object]]:
    """The cards of all representations in the store that hold at least one shard."""
    cards = sorted(cache_dir().glob("*/representation.json"))
    return [_read_card(card) for card in cards if any(card.parent.glob("*.arrow"))]


def _read_card(card: Path) -> dict[str, object]:
    try:
        return json.loads(card.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fix = "delete this file; the next mgc embed that computes anything writes it again"
        raise MgcError(f"a card of the store is damaged: {error}", where=card, fix=fix) from None


def _open(shard: Path) -> pa.Table:
    """The memory-mapped table. No file stays open, so a store may have thousands of shards."""
    try:
        content = pa.memory_map(str(shard)).read_buffer()
        # Arrow trusts what it reads: a wrong length inside would end the process.
        if not shard.stem.endswith(f"-{zlib.crc32(content):08x}"):
            raise pa.ArrowInvalid("its bytes are not those that were written")
        return pa.ipc.open_file(content).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise MgcError(
            f"a shard of the store is damaged: {error}",
            where=shard,
            fix="delete this file; the next mgc embed computes its clips again",
        ) from None


def _replace(file: Path, content: bytes | pa.Buffer) -> None:
    """Write under another name, sync, rename: the file is there whole or not at all."""
    part = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _unwritable(folder: Path, error: OSError) -> MgcError:
    return MgcError(
        f"the store cannot be written: {error.strerror or error}",
        where=folder,
        fix="make room or make it writable, or name another folder with $MGC_EMBEDDINGS_CACHE; "
        "what was computed before is kept",
    )


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._" else "_" for c in name)
