"""Cutting a clip into the windows that a representation computes on."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from mgc.audio.decoding import decode


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
    """One window: `samples`, (left + n + right,) float32.

    Of the n samples, the first `covered` are also in the window before, and the first `real` belong to the
    clip (the others are padding).
    """

    samples: np.ndarray
    covered: int
    real: int


def windows(path: Path, cut: Windowing) -> Iterator[Window]:
    """Decode a clip and yield its windows one at a time.

    Raises:
        AudioError: the file cannot be decoded.
    """
    context = cut.left + cut.right
    buffer = np.zeros(cut.left, np.float32)  # the left-padded stream from sample `start` on
    start, total = 0, 0  # position of buffer[0] in the left-padded stream; samples decoded
    done = 0  # samples covered by the windows so far

    def window_at(first: int, covered: int = 0) -> Window:
        samples = buffer[first - start : first - start + cut.window + context]
        return Window(samples.copy(), covered, cut.window)  # a view would keep the buffer in memory

    end = np.zeros(cut.right, np.float32)
    for block in chain(decode(path, cut.sample_rate_hz), [end]):
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
