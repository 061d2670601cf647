"""Results of inspecting and checking audio files, remembered in `clips.sqlite` in the cache folder.

A file is inspected again when its size, times or inode have changed, and whenever it was unusable: such files
are few, and the reason may have been the machine (no ffmpeg).
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from mgc.audio import Clip, inspect
from mgc.audio.decoding import content_hash
from mgc.data.dataset import as_text
from mgc.util.errors import explaining
from mgc.util.progress import Progress
from mgc.util.workers import cores

Result = TypeVar("Result")
AnyClip = TypeVar("AnyClip", bound=Clip)

WRITE_EVERY_SECONDS = 5.0  # the most work that is lost when the process is killed


@dataclass(frozen=True)
class Table(Generic[Result]):
    """A table of the index: one result per file, as JSON."""

    name: str  # ends with a revision, raised by hand when the work finds other results for the same file
    dumps: Callable[[Result], str]
    loads: Callable[[str], Result]


CLIPS = Table[Clip](
    "clips_3",
    lambda clip: json.dumps([getattr(clip, field.name) for field in fields(Clip)]),
    lambda text: Clip(*json.loads(text)),
)
HASHES = Table[str]("hashes_1", str, str)


def inspect_all(paths: Sequence[Path], cache: Path) -> list[Clip]:
    """`inspect` for every path, remembered for unchanged files; `MgcError` if the index cannot be used."""
    return compute_all(paths, cache, CLIPS, inspect, "inspect audio files")


def compute_all(
    paths: Sequence[Path], cache: Path, table: Table[AnyClip], work: Callable[[Path], AnyClip], title: str
) -> list[AnyClip]:
    """`work(path)` for every path, on all cores; for unchanged files, the result is read from `table`.

    Results with a `problem` are not remembered; the others are remembered for `inspect_all` as well. A call
    that is interrupted keeps its results.
    """

    def dated_work(path: Path) -> tuple[Path, str, AnyClip]:
        # The state is read first: a file that changes during the work is inspected again next time.
        return path, state_of(path), work(path)

    def write() -> None:
        _write(index, table, fresh)
        if table.name != CLIPS.name:
            _write(index, CLIPS, fresh)
        fresh.clear()

    with _open_index(cache, table, CLIPS) as index:
        found = _read(index, table, paths)
        todo = [path for path in dict.fromkeys(paths) if path not in found]
        fresh: list[tuple[Path, str, AnyClip]] = []
        written = time.monotonic()
        pool = ThreadPoolExecutor(cores(), thread_name_prefix="inspect")
        try:
            with Progress(title, len(todo), "files") as progress:
                for future in as_completed([pool.submit(dated_work, path) for path in todo]):
                    path, _, found[path] = row = future.result()
                    if found[path].problem is None:
                        fresh.append(row)
                    if time.monotonic() - written >= WRITE_EVERY_SECONDS:
                        write()
                        written = time.monotonic()
                    progress.step()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            write()
    return [found[path] for path in paths]


def file_hash(path: Path, cache: Path | None = None) -> str:
    """Hash of a file's bytes; with a cache it is remembered like results of `inspect_all`."""
    if cache is None:
        with path.open("rb") as stream:
            return content_hash(stream)
    with _open_index(cache, HASHES) as index:
        known = _read(index, HASHES, [path])
        if path not in known:
            state = state_of(path)
            known[path] = file_hash(path)
            _write(index, HASHES, [(path, state, known[path])])
    return known[path]


def state_of(path: Path) -> str:
    """Changes whenever the file may have: size, both times in ns (ctime cannot be set back), inode."""
    try:
        stat = path.stat()
    except (OSError, ValueError):  # ValueError: a name with a zero byte
        return "missing"
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


@contextmanager
def _open_index(cache: Path, *tables: Table[Any]) -> Iterator[sqlite3.Connection]:
    fix = "make it writable, or name another folder with $MGC_EMBEDDINGS_CACHE; "
    fix += "a damaged clips.sqlite can be deleted: it is created again"
    with explaining("the cache cannot be used", cache, fix):
        cache.mkdir(parents=True, exist_ok=True)
    file = cache / "clips.sqlite"
    failed = explaining("the cache cannot be used", file, fix, (sqlite3.Error,))
    with failed, closing(sqlite3.connect(file, timeout=60)) as index:
        for table in tables:
            columns = "path TEXT PRIMARY KEY, state TEXT, result TEXT"
            index.execute(f"CREATE TABLE IF NOT EXISTS {table.name} ({columns})")
        yield index


def _read(index: sqlite3.Connection, table: Table[Result], paths: Sequence[Path]) -> dict[Path, Result]:
    """The remembered results of those files that have not changed."""
    found = {}
    for path in paths:
        select = f"SELECT state, result FROM {table.name} WHERE path = ?"
        state, result = index.execute(select, (as_text(path.absolute()),)).fetchone() or ("", "")
        if state and state == state_of(path) != "missing":
            found[path] = table.loads(result)
    return found


def _write(index: sqlite3.Connection, table: Table[Any], rows: Sequence[tuple[Path, str, Any]]) -> None:
    """One short transaction, so that other processes do not wait for long."""
    values = [(as_text(path.absolute()), state, table.dumps(result)) for path, state, result in rows]
    with index:
        index.executemany(f"INSERT OR REPLACE INTO {table.name} VALUES (?, ?, ?)", values)
