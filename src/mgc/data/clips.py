"""One look at every audio file, remembered; and the loader that decodes ahead of whoever uses it.

What a look found (hash of the bytes, length, why it cannot be used) lies in `clips.sqlite` under the
embeddings cache. A file is looked at again when its size, its times or its inode have changed.
"""

import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path

from mgc.audio import Clip, Window, Windowing, inspect, windows
from mgc.config import MgcError, cache_dir
from mgc.progress import Progress

# Part of the table's name: what `inspect` found under other rules is not read.
RULES = 1
COMMIT_EVERY = 64  # files: what a kill can cost
DECODED_AHEAD_SECONDS = 60.0  # audio held ready a worker


def cores() -> int:
    """Processor cores this process may use. One decoding thread runs on each."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def inspect_all(paths: Sequence[Path]) -> list[Clip]:
    """What `mgc.audio.inspect` finds for every path, from memory where the file is unchanged.

    Interrupted, it keeps what it has looked at.
    """
    with closing(_index()) as index:
        found = _remembered(index, paths)
        todo = [path for path in paths if path not in found]
        if todo:
            _look(index, todo, found)
    return [found[path] for path in paths]


def file_hash(path: Path) -> str:
    """Hash of a file's bytes, remembered like a clip's (for weights, where hashing takes seconds)."""
    import hashlib

    with closing(_index()) as index:
        known = _remembered(index, [path])
        if path not in known:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
            known[path] = Clip(digest, 0.0, 0, 0, "not audio")
            with index:
                _remember(index, path, known[path])
    return known[path].content


def load_windows(paths: Sequence[Path], cut: Windowing) -> Iterator[tuple[int, Window]]:
    """(position in `paths`, window) in order, decoded ahead by a thread a core.

    At most a minute of audio a thread waits to be used, however many or long the files are.

    Raises:
        AudioError: of the first file that cannot be decoded.
    """
    ahead = max(2, int(DECODED_AHEAD_SECONDS * cut.sample_rate_hz / cut.window))
    stopped = threading.Event()

    def decode(path: Path, out: "queue.Queue[Window | None]") -> None:
        try:
            for window in windows(path, cut):
                if not _offer(out, window, stopped):
                    return
        finally:
            _offer(out, None, stopped)

    pool = ThreadPoolExecutor(cores(), thread_name_prefix="decode")
    running: list[tuple[Future[None], queue.Queue[Window | None]]] = []
    try:
        for position in range(len(paths)):
            while len(running) < cores() + 1 and position + len(running) < len(paths):
                out: queue.Queue[Window | None] = queue.Queue(ahead)
                running.append((pool.submit(decode, paths[position + len(running)], out), out))
            future, out = running.pop(0)
            while (window := out.get()) is not None:
                yield position, window
            future.result()
    finally:
        stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _offer(out: "queue.Queue[Window | None]", item: Window | None, stopped: threading.Event) -> bool:
    """Put `item` when there is room; False when nobody wants it any more."""
    while not stopped.is_set():
        try:
            out.put(item, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False


def _index() -> sqlite3.Connection:
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        index = sqlite3.connect(folder / "clips.sqlite", timeout=60)
        index.execute(
            f"CREATE TABLE IF NOT EXISTS clips_{RULES} (path TEXT PRIMARY KEY, state TEXT, content TEXT, "
            "seconds REAL, sample_rate_hz INTEGER, channels INTEGER, problem TEXT)"
        )
    except (OSError, sqlite3.Error) as error:
        raise MgcError(
            f"the cache cannot be used: {error}",
            where=folder,
            fix="make it writable, or name another folder with $MGC_EMBEDDINGS_CACHE",
        ) from None
    return index


def _state(path: Path) -> str:
    """Changes whenever the file may have: size, both times in ns (ctime cannot be set back), inode."""
    try:
        stat = path.stat()
    except OSError:
        return "missing"
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


def _remembered(index: sqlite3.Connection, paths: Sequence[Path]) -> dict[Path, Clip]:
    rows = {row[0]: row[1:] for row in index.execute(f"SELECT * FROM clips_{RULES}")}
    found = {}
    for path in paths:
        state, *clip = rows.get(str(path.absolute()), ("",))
        if state and state == _state(path) != "missing":
            found[path] = Clip(*clip)
    return found


def _remember(index: sqlite3.Connection, path: Path, clip: Clip) -> None:
    row = (str(path.absolute()), _state(path), *vars(clip).values())
    index.execute(f"INSERT OR REPLACE INTO clips_{RULES} VALUES (?, ?, ?, ?, ?, ?, ?)", row)


def _look(index: sqlite3.Connection, todo: Sequence[Path], found: dict[Path, Clip]) -> None:
    def look(path: Path) -> tuple[Path, Clip]:
        return path, inspect(path)

    try:
        with Progress("look at audio files", len(todo), "files") as progress:
            for count, (path, clip) in enumerate(_unordered(look, todo)):
                found[path] = clip
                _remember(index, path, clip)
                if count % COMMIT_EVERY == COMMIT_EVERY - 1:
                    index.commit()
                progress.step()
    finally:
        index.commit()


def _unordered(
    work: Callable[[Path], tuple[Path, Clip]], items: Sequence[Path]
) -> Iterator[tuple[Path, Clip]]:
    """Results in the order they come, a few items in flight, nothing left running after an interrupt."""
    pool = ThreadPoolExecutor(cores(), thread_name_prefix="look")
    waiting = iter(items)
    flying: set[Future[tuple[Path, Clip]]] = set()
    try:
        while True:
            for item in waiting:
                flying.add(pool.submit(work, item))
                if len(flying) > 2 * cores():
                    break
            if not flying:
                return
            done, flying = wait(flying, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
