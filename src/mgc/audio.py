"""Decode, mix down, resample and cut: the only place that opens an audio file.

Everything streams in blocks, so that a two-hour file needs no more memory than a ten-second one.
Waveforms are mono float32 in [-1, 1].
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np
import soundfile
import soxr

from mgc.config import MgcError

# What a folder is searched for. The second set needs ffmpeg on the machine, through audioread.
SNDFILE_SUFFIXES = frozenset({".mp3", ".ogg", ".opus", ".flac", ".wav", ".au", ".aif", ".aiff", ".caf"})
FFMPEG_SUFFIXES = frozenset({".m4a", ".mp4", ".aac", ".wma"})
SUFFIXES = SNDFILE_SUFFIXES | FFMPEG_SUFFIXES

MIN_SECONDS = 0.5  # shorter than any window of any encoder can use; no music is told from less
VALUES_PER_BLOCK = 1 << 20  # samples x channels decoded at once: 4 MiB of float32


class AudioError(MgcError):
    """A file that cannot be used as audio; `what` is the reason in a few words."""


@dataclass(frozen=True)
class Clip:
    """What one look at an audio file tells. `problem` says why it cannot be used; None if it can."""

    content: str  # hash of the file's bytes: what the store is keyed by
    seconds: float
    sample_rate_hz: int
    channels: int
    problem: str | None


@dataclass(frozen=True)
class Windowing:
    """How a clip is cut for a representation. Lengths in samples at `sample_rate_hz`.

    Window k holds the samples [k * window, (k + 1) * window), with `left` samples before and `right`
    samples after it as context (zeros beyond the ends of the clip). The rest at the end is padded with
    zeros if `pad` (even if there is no rest: a frame centred on the very end needs its window); else the
    last window is moved back so that it is full of real samples, and says how many of them earlier windows
    have covered. A clip shorter than a window is then one shorter window, and a rest of at most `ignore` is
    left out: a whole 30-s window for the 20 ms that an mp3 encoder appends doubles the work and adds nothing.
    """

    sample_rate_hz: int
    window: int
    left: int = 0
    right: int = 0
    pad: bool = False
    ignore: int = 0


@dataclass(frozen=True)
class Window:
    """One cut: `samples` (left + n + right,), of whose n the first `covered` are known from the window
    before and only the first `real` belong to the clip (the rest is padding)."""

    samples: np.ndarray
    covered: int
    real: int


def decode(path: Path, sample_rate_hz: int | None = None) -> Iterator[np.ndarray]:
    """Blocks of mono float32 samples at `sample_rate_hz` (the file's own rate if None).

    Channels are averaged; soxr resamples in its "HQ" setting.

    Raises:
        AudioError: not decodable, or samples that are not finite.
    """
    rate, _, blocks = _open(path)
    if sample_rate_hz is None or sample_rate_hz == rate:
        yield from blocks
        return
    resampler = soxr.ResampleStream(rate, sample_rate_hz, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def load(path: Path, sample_rate_hz: int | None = None) -> np.ndarray:
    """The whole clip, (samples,) float32. For long files prefer `decode` or `windows`."""
    return np.concatenate([np.zeros(0, np.float32), *decode(path, sample_rate_hz)])


def windows(path: Path, cut: Windowing) -> Iterator[Window]:
    """The clip cut as `cut` says, one window at a time."""
    context = cut.left + cut.right
    keep = np.zeros(cut.left, np.float32)  # the stream from the start of the last window that was cut
    start, total = 0, 0  # position of keep[0] in the left-padded stream; samples decoded
    done = 0  # samples covered by the windows cut so far
    for block in decode(path, cut.sample_rate_hz):
        keep = np.concatenate([keep, block])
        total += len(block)
        while total - done >= cut.window + cut.right:
            yield Window(keep[done - start : done - start + cut.window + context], 0, cut.window)
            done += cut.window
            # One window stays behind: the last one may have to be moved back over it.
            drop = max(0, done - cut.window - start)
            keep, start = keep[drop:], start + drop
    keep = np.concatenate([keep, np.zeros(cut.right, np.float32)])
    while total - done >= cut.window:
        yield Window(keep[done - start : done - start + cut.window + context], 0, cut.window)
        done += cut.window
    rest = total - done
    if not cut.pad and (rest == 0 or (done > 0 and rest <= cut.ignore)):
        return
    if cut.pad:
        samples = np.zeros(cut.window + context, np.float32)
        samples[: rest + context] = keep[done - start :][: rest + context]
        yield Window(samples, 0, rest)
    elif total >= cut.window:
        first = total - cut.window
        yield Window(keep[first - start :], cut.window - rest, cut.window)
    else:
        yield Window(keep, 0, total)


def content_hash(stream: BufferedReader) -> str:
    """Hash of all bytes of an open file."""
    return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def inspect(path: Path) -> Clip:
    """Hash and decode the whole file once: what it is, and whether it can be used.

    Never raises for a bad file: the reason stands in `problem`.
    """
    try:
        with _readable(path) as stream:
            content = content_hash(stream)
    except AudioError as error:
        return Clip("", 0.0, 0, 0, error.what)
    except OSError as error:  # a disk that fails while it is read
        return Clip("", 0.0, 0, 0, f"cannot be read: {error.strerror}")
    rate = channels = samples = 0
    peak = 0.0
    try:
        rate, channels, blocks = _open(path)
        for block in blocks:
            samples += len(block)
            peak = max(peak, float(np.abs(block).max(initial=0.0)))
    except AudioError as error:
        return Clip(content, samples / rate if rate else 0.0, rate, channels, error.what)
    seconds = samples / rate
    problem = None
    if seconds < MIN_SECONDS:
        problem = f"too short: {samples} samples, {seconds:.3f} s (at least {MIN_SECONDS} s are needed)"
    elif peak == 0.0:
        problem = "silent: every sample is zero"
    return Clip(content, seconds, rate, channels, problem)


def _open(path: Path) -> tuple[int, int, Iterator[np.ndarray]]:
    """Sample rate in Hz, channels, and mono blocks at that rate."""
    _readable(path).close()  # the system says better than a decoder why it cannot be
    if path.suffix.lower() in FFMPEG_SUFFIXES:
        return _open_ffmpeg(path)
    try:
        # As bytes, for names that are not UTF-8; Windows wants text.
        file = soundfile.SoundFile(path if sys.platform == "win32" else os.fsencode(path))
    except (OSError, RuntimeError, TypeError) as error:  # TypeError: a name that ends in .raw
        raise AudioError(f"cannot be decoded: {_reason(error)}", where=path) from None

    def blocks() -> Iterator[np.ndarray]:
        with file:
            size = max(1024, VALUES_PER_BLOCK // file.channels)
            while True:
                try:
                    block = file.read(size, dtype="float32", always_2d=True)  # (samples, channels)
                except (OSError, RuntimeError) as error:
                    raise AudioError(f"cannot be decoded: {_reason(error)}", where=path) from None
                if len(block) == 0:
                    return
                yield _mono(block, path)

    return file.samplerate, file.channels, blocks()


def _open_ffmpeg(path: Path) -> tuple[int, int, Iterator[np.ndarray]]:
    import audioread

    try:
        file = audioread.audio_open(str(path))
    except (audioread.DecodeError, OSError, EOFError) as error:
        reason = str(error) or f"{path.suffix} needs ffmpeg, which is not on this machine or cannot read it"
        raise AudioError(f"cannot be decoded: {reason}", where=path) from None

    def blocks() -> Iterator[np.ndarray]:
        pending = bytearray()  # what ffmpeg hands over is small and may end within a sample
        with file:
            try:
                for data in file:
                    pending += data
                    if len(pending) >= 2 * VALUES_PER_BLOCK:
                        yield _mono(_full_scale(pending, file.channels), path)
            except (audioread.DecodeError, OSError) as error:
                raise AudioError(f"cannot be decoded: {error}", where=path) from None
        yield _mono(_full_scale(pending, file.channels), path)

    return file.samplerate, file.channels, blocks()


def _full_scale(pending: bytearray, channels: int) -> np.ndarray:
    """Take the whole samples, 16-bit integers, out of `pending`: (samples, channels) float32."""
    whole = len(pending) // (2 * channels) * (2 * channels)
    integers = np.frombuffer(bytes(pending[:whole]), "<i2").reshape(-1, channels)
    del pending[:whole]
    return integers.astype(np.float32) / 32768.0


def _mono(block: np.ndarray, path: Path) -> np.ndarray:
    with np.errstate(all="ignore"):  # infinity less infinity: told below
        mono: np.ndarray = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
    if not np.isfinite(mono).all():
        raise AudioError("holds samples that are not finite (NaN or infinity)", where=path)
    return np.ascontiguousarray(mono)


def _readable(path: Path) -> BufferedReader:
    try:
        stream = path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise AudioError(f"cannot be read: {reason}", where=path) from None
    if not stream.peek(1):
        stream.close()
        raise AudioError("empty file (0 bytes)", where=path)
    return stream


def _reason(error: Exception) -> str:
    """libsndfile's own words without the path that soundfile puts before them."""
    words = str(error).rpartition(": ")[2].strip().rstrip(".") or type(error).__name__
    # What its mp3 decoder says of a text named .mp3; that the file is there is known by then.
    return "Format not recognised" if words.startswith("File does not exist") else words
