"""One look at every audio file, remembered; and the loader that decodes ahead of whoever uses it.

What a look found (hash of the bytes, length) lies in `clips.sqlite` under the embeddings cache. A file is
looked at again when its size, its times or its inode have changed, and whenever it could not be used: that
may have been the machine's fault (no ffmpeg), and such files are few.
"""

import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from mgc.audio import Clip, Meter, Window, Windowing, content_hash, look, open_bytes, windows
from mgc.data.dataset import as_text
from mgc.util.errors import MgcError
from mgc.util.progress import Progress
from mgc.util.workers import cores

Result = TypeVar("Result")

# Part of the table's name: what `inspect` found under other rules is not read.
RULES = 2
WRITE_EVERY_SECONDS = 5.0  # what a kill can cost
# Audio held ready, by all threads: the next eight 30-s windows, so that decoding goes on while an encoder
# computes a batch; 31 MB at 32 kHz. With many threads each needs a clip or two of its own to go on.
AHEAD_SECONDS = 240.0
LEAST_AHEAD_SECONDS = 60.0  # a thread


def inspect(path: Path, meter: Meter | None = None) -> Clip:
    """`mgc.audio.decoding.look`, also at files which ffmpeg opens and finds no channels in.

    Here and not there, since every vector in every store stands on the code of that module.
    """
    try:
        return look(path, meter)
    except ZeroDivisionError:
        with open_bytes(path) as stream:
            content = content_hash(stream)
        return Clip(content, 0.0, 0, 0, "cannot be decoded: it says that it has no channels")


def inspect_all(paths: Sequence[Path], cache: Path) -> list[Clip]:
    """What `inspect` finds for every path, from memory where the file is unchanged.

    Interrupted, it keeps what it has looked at.
    """
    with open_index(cache) as index:
        found = remembered(index, paths)
        todo = [path for path in paths if path not in found]
        if todo:
            _look(index, todo, found)
    return [found[path] for path in paths]


def file_hash(path: Path, cache: Path) -> str:
    """Hash of a file's bytes, remembered like a clip's (for weights, where hashing takes seconds)."""
    with open_index(cache) as index:
        known = remembered(index, [path])
        if path not in known:
            state = state_of(path)
            with path.open("rb") as stream:
                known[path] = Clip(content_hash(stream), 0.0, 0, 0, "not audio")
            remember(index, [(path, state, known[path])])
    return known[path].content


def load_windows(paths: Sequence[Path], cut: Windowing) -> Iterator[tuple[int, Window]]:
    """(position in `paths`, window) in order, decoded ahead by a thread a core.

    At most `AHEAD_SECONDS` of audio wait to be used (a minute a thread, if that is more), however many or
    long the files are. Decoding, mixing and resampling are C code that lets other threads run: threads do
    as well as processes here, and nothing has to be copied between them.

    Raises:
        AudioError: of the first file that cannot be decoded, after the windows of all files before it.
    """
    workers = min(cores(), len(paths))
    room = int(cut.sample_rate_hz * max(AHEAD_SECONDS / max(1, workers), LEAST_AHEAD_SECONDS))
    todo = iter(paths)
    turns: queue.SimpleQueue[_Line] = queue.SimpleQueue()  # whose line holds the next clip
    taking_turns = threading.Lock()

    def work(line: _Line) -> None:
        while line.wanted:
            with taking_turns:
                path = next(todo, None)
                if path is None:
                    return
                turns.put(line)
            _decode(path, cut, line)

    lines: list[_Line] = []
    threads: list[threading.Thread] = []
    try:
        for number in range(workers):
            lines.append(_Line(room))
            # Not a ThreadPoolExecutor: at exit Python waits for its threads before any of them can learn
            # that the consumer is gone, and a loader that somebody left open would hang the process.
            threads.append(threading.Thread(target=work, args=(lines[-1],), name=f"decode_{number}"))
            threads[-1].start()
        for position in range(len(paths)):
            line = turns.get()
            while (item := line.take()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield position, item
    finally:
        for line in lines:
            line.close()
        for thread in threads:
            if thread.ident is not None:  # an interrupt may come before a thread has started
                thread.join()


class _Line:
    """What one worker has decoded and nobody has used yet: windows, and after each clip's last how it ended
    (None, or the error).

    Its clips stand in the order of their turns, so the line that holds the clip whose turn it is never
    waits for another line. It is full when its windows hold `room` samples.
    """

    def __init__(self, room: int) -> None:
        self._closed = False
        self._room, self._held = room, 0
        self._items: deque[Window | Exception | None] = deque()
        self._changed = threading.Condition()
        self._consumer = threading.current_thread()

    @property
    def wanted(self) -> bool:
        """Somebody may come for what is put here. A thread that ended and left the loader open will not; nor
        will the main thread, once Python is about to exit."""
        return not self._closed and (self._consumer.is_alive() or threading.main_thread().is_alive())

    def put(self, item: Window | Exception | None) -> bool:
        """Append `item` as soon as there is room; False when nobody will come for it."""
        with self._changed:
            while self._held >= self._room and self.wanted:
                self._changed.wait(timeout=0.5)  # nobody notifies of a thread's end
            if self.wanted:
                self._held += _size(item)
                self._items.append(item)
                self._changed.notify()
            return self.wanted

    def take(self) -> Window | Exception | None:
        """The next item, as soon as it is there."""
        with self._changed:
            while not self._items:
                self._changed.wait()
            item = self._items.popleft()
            self._held -= _size(item)
            self._changed.notify()
            return item

    def close(self) -> None:
        """Nobody will take anything any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()


def _size(item: Window | Exception | None) -> int:
    return len(item.samples) if isinstance(item, Window) else 0


def _decode(path: Path, cut: Windowing, line: _Line) -> None:
    end: Exception | None = None
    try:
        for window in windows(path, cut):
            if not line.put(window):
                return
    except Exception as error:  # whatever it is, it belongs to whoever asked for this clip
        error.add_note(f"while decoding {path}")
        end = error
    line.put(end)


@contextmanager
def open_index(cache: Path) -> Iterator[sqlite3.Connection]:
    """The memory of what was looked at, `clips.sqlite`, open for one piece of work.

    Raises:
        MgcError: it cannot be made, read or written.
    """
    folder = cache
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


def state_of(path: Path) -> str:
    """Changes whenever the file may have: size, both times in ns (ctime cannot be set back), inode."""
    try:
        stat = path.stat()
    except (OSError, ValueError):  # ValueError: a name with a zero byte
        return "missing"
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


def _key(path: Path) -> str:
    return as_text(path.absolute())


def remembered(index: sqlite3.Connection, paths: Sequence[Path]) -> dict[Path, Clip]:
    """What is known of those files that are as they were when they were looked at."""
    select = (
        f"SELECT state, content, seconds, sample_rate_hz, channels, problem FROM clips_{RULES} WHERE path = ?"
    )
    found = {}
    for path in paths:
        state, *clip = index.execute(select, (_key(path),)).fetchone() or ("",)
        if state and state == state_of(path) != "missing":
            found[path] = Clip(*clip)
    return found


def remember(index: sqlite3.Connection, looks: Sequence[tuple[Path, str, Clip]]) -> None:
    """One short transaction: nobody else who looks at files waits for a long one."""
    rows = [(_key(path), state, *vars(clip).values()) for path, state, clip in looks]
    with index:
        index.executemany(f"INSERT OR REPLACE INTO clips_{RULES} VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def _look(index: sqlite3.Connection, todo: Sequence[Path], found: dict[Path, Clip]) -> None:
    fresh: list[tuple[Path, str, Clip]] = []
    written = time.monotonic()
    try:
        with Progress("look at audio files", len(todo), "files") as progress:
            for path, state, clip in unordered(_look_at, todo):
                found[path] = clip
                if clip.problem is None:
                    fresh.append((path, state, clip))
                if time.monotonic() - written >= WRITE_EVERY_SECONDS:
                    remember(index, fresh)
                    fresh, written = [], time.monotonic()
                progress.step()
    finally:
        remember(index, fresh)


def _look_at(path: Path) -> tuple[Path, str, Clip]:
    """The state goes with what is read after it: a file that changes meanwhile is looked at again."""
    return path, state_of(path), inspect(path)


def unordered(work: Callable[[Path], Result], items: Sequence[Path]) -> Iterator[Result]:
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
