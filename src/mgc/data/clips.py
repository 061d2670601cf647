"""One look at every audio file, remembered; and the loader that decodes ahead of whoever uses it.

What a look found (hash of the bytes, length) lies in `clips.sqlite` under the embeddings cache. A file is
looked at again when its size, its times or its inode have changed, and whenever it could not be used: that
may have been the machine's fault (no ffmpeg), and such files are few.
"""

import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from mgc.audio import Clip, Window, Windowing, content_hash, inspect, windows
from mgc.config import MgcError, cache_dir
from mgc.data.dataset import as_text
from mgc.progress import Progress

Result = TypeVar("Result")

# Part of the table's name: what `inspect` found under other rules is not read.
RULES = 1
WRITE_EVERY_SECONDS = 5.0  # what a kill can cost
DECODED_AHEAD_SECONDS = 60.0  # audio held ready a worker


def cores() -> int:
    """Processor cores this process may use. One decoding thread runs on each."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def inspect_all(paths: Sequence[Path]) -> list[Clip]:
    """What `mgc.audio.inspect` finds for every path, from memory where the file is unchanged.

    Interrupted, it keeps what it has looked at.
    """
    with _index() as index:
        found = _remembered(index, paths)
        todo = [path for path in paths if path not in found]
        if todo:
            _look(index, todo, found)
    return [found[path] for path in paths]


def file_hash(path: Path) -> str:
    """Hash of a file's bytes, remembered like a clip's (for weights, where hashing takes seconds)."""
    with _index() as index:
        known = _remembered(index, [path])
        if path not in known:
            state = _state(path)
            with path.open("rb") as stream:
                known[path] = Clip(content_hash(stream), 0.0, 0, 0, "not audio")
            _remember(index, [(path, state, known[path])])
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


@contextmanager
def _index() -> Iterator[sqlite3.Connection]:
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from None
    try:
        with closing(sqlite3.connect(folder / "clips.sqlite", timeout=60)) as index:
            index.execute(
                f"CREATE TABLE IF NOT EXISTS clips_{RULES} (path TEXT PRIMARY KEY, state TEXT, content TEXT, "
                "seconds REAL, sample_rate_hz INTEGER, channels INTEGER, problem TEXT)"
            )
            yield index
    except sqlite3.Error as error:
        raise _unusable(folder / "clips.sqlite", error) from None


def _unusable(where: Path, error: Exception) -> MgcError:
    return MgcError(
        f"the cache cannot be used: {error}",
        where=where,
        fix="make it writable, or name another folder with $MGC_EMBEDDINGS_CACHE; a damaged clips.sqlite "
        "may be deleted, it is made anew",
    )


def _state(path: Path) -> str:
    """Changes whenever the file may have: size, both times in ns (ctime cannot be set back), inode."""
    try:
        stat = path.stat()
    except (OSError, ValueError):  # ValueError: a name with a zero byte
        return "missing"
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


def _key(path: Path) -> str:
    return as_text(path.absolute())


def _remembered(index: sqlite3.Connection, paths: Sequence[Path]) -> dict[Path, Clip]:
    select = (
        f"SELECT state, content, seconds, sample_rate_hz, channels, problem FROM clips_{RULES} WHERE path = ?"
    )
    found = {}
    for path in paths:
        state, *clip = index.execute(select, (_key(path),)).fetchone() or ("",)
        if state and state == _state(path) != "missing":
            found[path] = Clip(*clip)
    return found


def _remember(index: sqlite3.Connection, looks: Sequence[tuple[Path, str, Clip]]) -> None:
    """One short transaction: nobody else who looks at files waits for a long one."""
    rows = [(_key(path), state, *vars(clip).values()) for path, state, clip in looks]
    with index:
        index.executemany(f"INSERT OR REPLACE INTO clips_{RULES} VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def _look(index: sqlite3.Connection, todo: Sequence[Path], found: dict[Path, Clip]) -> None:
    fresh: list[tuple[Path, str, Clip]] = []
    written = time.monotonic()
    try:
        with Progress("look at audio files", len(todo), "files") as progress:
            for path, state, clip in _unordered(_look_at, todo):
                found[path] = clip
                if clip.problem is None:
                    fresh.append((path, state, clip))
                if time.monotonic() - written >= WRITE_EVERY_SECONDS:
                    _remember(index, fresh)
                    fresh, written = [], time.monotonic()
                progress.step()
    finally:
        _remember(index, fresh)


def _look_at(path: Path) -> tuple[Path, str, Clip]:
    """The state goes with what is read after it: a file that changes meanwhile is looked at again."""
    return path, _state(path), inspect(path)


def _unordered(work: Callable[[Path], Result], items: Sequence[Path]) -> Iterator[Result]:
    """Results in the order they come, a few items in flight, nothing left running after an interrupt."""
    pool = ThreadPoolExecutor(cores(), thread_name_prefix="look")
    waiting = iter(items)
    flying: set[Future[Result]] = set()
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
