"""Windows that a representation computes on: how a clip is cut, and many clips decoded ahead by threads."""

import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from mgc.audio.decoding import decode
from mgc.util.workers import cores

# Audio decoded ahead, by all threads: the next eight 30-s windows, so that decoding continues while an
# encoder computes a batch; 31 MB at 32 kHz. With many threads, each needs a clip or two of its own.
AHEAD_SECONDS = 240.0
MIN_AHEAD_SECONDS = 60.0  # per thread


@dataclass(frozen=True)
class Windowing:
    """How a clip is cut for a representation. Lengths are samples at `sample_rate_hz`.

    Window k holds the samples `[k * window, (k + 1) * window)`, with `left` samples before it and `right`
    samples after it as context (zeros beyond the ends of the clip).

    With `pad`, the remainder at the end is padded with zeros to a full window, even if it is empty: a frame
    centred on the last sample needs its window. Otherwise the last window is moved back so that it is full of
    real samples; a clip shorter than a window is one shorter window; and a remainder of at most `ignore`
    samples is dropped, since a 30-s window for the 20 ms that an mp3 encoder appends would be wasted work.
    """

    sample_rate_hz: int
    window: int
    left: int = 0
    right: int = 0
    pad: bool = False
    ignore: int = 0


@dataclass(frozen=True)
class Window:
    """One window of n samples."""

    samples: np.ndarray  # (left + n + right,) float32
    covered: int  # the first samples that are also in the window before
    real: int  # the first samples that belong to the clip; the others are padding


def windows(path: Path, cut: Windowing) -> Iterator[Window]:
    """Decode a clip and yield its windows one at a time; `AudioError` if it cannot be decoded."""
    context = cut.left + cut.right
    buffer, start = np.zeros(cut.left, np.float32), 0  # the left-padded stream from sample `start` on
    total = done = 0  # samples decoded, and covered by the windows so far

    def window_at(first: int, covered: int = 0) -> Window:
        samples = buffer[first - start : first - start + cut.window + context]
        return Window(samples.copy(), covered, cut.window)  # a view would keep the buffer in memory

    for block in chain(decode(path, cut.sample_rate_hz), [np.zeros(cut.right, np.float32)]):
        buffer = np.concatenate([buffer, block])
        total += len(block)
        while total - done >= cut.window + cut.right:
            yield window_at(done)
            done += cut.window
        # The last window is kept: it may have to be moved back.
        drop = max(0, done - cut.window - start)
        buffer, start = buffer[drop:].copy(), start + drop
    total -= cut.right
    rest = total - done
    if cut.pad:
        samples = np.zeros(cut.window + context, np.float32)
        samples[: rest + context] = buffer[done - start :]
        yield Window(samples, 0, rest)
    elif total < cut.window and rest:
        yield Window(buffer, 0, total)
    elif rest > cut.ignore:
        yield window_at(total - cut.window, cut.window - rest)


def load_windows(paths: Sequence[Path], cut: Windowing) -> Iterator[tuple[int, Window]]:
    """(position in `paths`, window) in order, decoded ahead by one thread per core.

    At most `AHEAD_SECONDS` of audio wait to be used (`MIN_AHEAD_SECONDS` per thread, if that is more),
    regardless of the number and length of the files. Decoding, mixing and resampling are C code that
    releases the interpreter lock: threads are as fast as processes here, and nothing has to be copied.
    The `AudioError` of a file that cannot be decoded is raised after the windows of all files before it.
    """
    count = min(cores(), len(paths))
    ahead = _DecodeAhead(paths, cut, int(cut.sample_rate_hz * max(AHEAD_SECONDS, count * MIN_AHEAD_SECONDS)))
    # Not a ThreadPoolExecutor: at exit, Python waits for its threads before they can notice that the
    # consumer is gone, and a loader that was left open would hang the process.
    threads = [threading.Thread(target=ahead.work, name=f"decode_{number}") for number in range(count)]
    try:
        for thread in threads:
            thread.start()
        for position in range(len(paths)):
            while (item := ahead.take(position)) is not None:
                if isinstance(item, Exception):
                    raise item
                yield position, item
    finally:
        ahead.close()
        for thread in threads:
            if thread.ident is not None:  # an interrupt may come before a thread has started
                thread.join()


class _DecodeAhead:
    """Windows that have been decoded and not yet taken, about `capacity` samples of them.

    Each clip has a queue of windows, followed by its end: None, or the error that ended it. Clips are decoded
    in order, and the queue of the clip that is taken from may always receive one window: the consumer never
    waits for a worker that waits for the consumer.
    """

    def __init__(self, paths: Sequence[Path], cut: Windowing, capacity: int) -> None:
        self._cut, self._capacity = cut, capacity
        self._todo = iter(enumerate(paths))  # shared by all workers: its `next` is atomic
        self._queues: defaultdict[int, deque[Window | Exception | None]] = defaultdict(deque)
        self._current = 0  # position of the clip that is taken from
        self._samples = 0  # in all queues
        self._closed = False
        self._changed = threading.Condition()
        self._consumer = threading.current_thread()

    def work(self) -> None:
        """Decode clips until there are no more; run by each worker thread."""
        for position, path in self._todo:
            end = None
            try:
                for window in windows(path, self._cut):
                    if not self._put(position, window):
                        return
            except Exception as error:  # whatever it is, the consumer of this clip receives it
                error.add_note(f"while decoding {path}")
                end = error
            if not self._put(position, end):
                return

    def take(self, position: int) -> Window | Exception | None:
        """The next item of the clip at `position`; waits until there is one."""
        with self._changed:
            self._current = position
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._queues[position])
            item = self._queues[position].popleft()
            if isinstance(item, Window):
                self._samples -= len(item.samples)
            else:
                del self._queues[position]
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Make all workers stop."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _put(self, position: int, item: Window | Exception | None) -> bool:
        """Append `item` as soon as there is room.

        False once the consumer has closed the loader, its thread has ended, or Python is about to exit.
        """
        with self._changed:
            while not self._closed and (self._consumer.is_alive() or threading.main_thread().is_alive()):
                queue = self._queues[position]
                if self._samples < self._capacity or (position == self._current and not queue):
                    queue.append(item)
                    self._samples += len(item.samples) if isinstance(item, Window) else 0
                    self._changed.notify_all()
                    return True
                self._changed.wait(timeout=0.5)  # nobody notifies when a thread ends
            return False
