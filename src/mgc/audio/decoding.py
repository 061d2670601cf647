"""Decode, mix down, resample and cut: the only place that opens an audio file.

Everything streams in blocks, so that a two-hour file needs no more memory than a ten-second one.
Waveforms are mono float32 in [-1, 1].
"""

import hashlib
import os
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BufferedReader, FileIO
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import soundfile
import soxr

from mgc.util.errors import MgcError

# What a folder is searched for. The second set needs ffmpeg on the machine, through audioread.
SNDFILE_SUFFIXES = frozenset({".mp3", ".ogg", ".opus", ".flac", ".wav", ".au", ".aif", ".aiff", ".caf"})
FFMPEG_SUFFIXES = frozenset({".m4a", ".mp4", ".aac", ".wma"})
SUFFIXES = SNDFILE_SUFFIXES | FFMPEG_SUFFIXES

# A header that says less or more lies. A file of 1 Hz would be resampled to thousands of times its samples.
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 1_000, 1_000_000
LOUDEST = 1e10  # full scales; 32-bit integers written as floats have 2e9, beyond it squares overflow
MIN_SECONDS = 0.5  # shorter than any window of any encoder can use; no music is told from less
VALUES_PER_BLOCK = 1 << 20  # samples x channels decoded at once: 4 MiB of float32

# MPEG layer III, by whether the version is 1 (else 2 or 2.5): kbit/s by the index in the frame's header.
KBITS = {
    True: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
FRAMES_IN_A_ROW = 4  # so many are no accident
SEARCHED_BYTES = 1 << 16  # for the first frame behind a tag
LONGEST_FRAME = 1_441
PROBES = 16
MOST_TAGS = 100  # in front of the first frame; a file of nothing but tags shall not take long


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
    file = _open(path)
    rate = file.sample_rate_hz
    blocks = (_mono(block, path) for block in file.blocks)
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
    return look(path, None)


class Meter(Protocol):
    """Whoever reads along while a file is looked at."""

    def start(self, path: Path, file: "AudioFile") -> None:
        """The file that the blocks will come from."""

    def take(self, block: np.ndarray, mono: np.ndarray) -> None:
        """The next samples, (n, channels), and their mix-down, (n,)."""


def look(path: Path, meter: Meter | None) -> Clip:
    """`inspect`, with a `meter` that reads along."""
    try:
        with open_bytes(path) as stream:
            content = content_hash(stream)
    except AudioError as error:
        return Clip("", 0.0, 0, 0, error.what)
    except OSError as error:  # a disk that fails while it is read
        return Clip("", 0.0, 0, 0, f"cannot be read: {error.strerror}")
    rate = channels = samples = 0
    peak = 0.0
    try:
        file = _open(path)
        rate, channels = file.sample_rate_hz, file.channels
        if meter:
            meter.start(path, file)
        for block in file.blocks:
            mono = _mono(block, path)
            samples += len(mono)
            peak = max(peak, float(np.abs(mono).max(initial=0.0)))
            if meter:
                meter.take(block, mono)
    except AudioError as error:
        return Clip(content, samples / rate if rate else 0.0, rate, channels, error.what)
    seconds = samples / rate
    problem = None
    if seconds < MIN_SECONDS:
        problem = f"too short: {samples} samples, {seconds:.3f} s (at least {MIN_SECONDS} s are needed)"
    elif peak == 0.0:
        problem = "silent: every sample is zero"
    return Clip(content, seconds, rate, channels, problem)


# ---- opening ---------------------------------------------------------------------------------------------


class AudioFile(NamedTuple):
    """A file about to be decoded; `blocks` are (samples, channels) float32 at its own rate."""

    sample_rate_hz: int
    channels: int
    blocks: Iterator[np.ndarray]
    format: str = ""
    subtype: str = ""
    seconds_promised: float | None = None
    mp3_unread: bool = False


def _open(path: Path) -> AudioFile:
    try:
        with open_bytes(path) as stream:  # the system says better than a decoder why it cannot be
            mp3 = _mp3_header(stream)
    except OSError as error:
        raise AudioError(f"cannot be read: {error.strerror}", where=path) from None
    if path.suffix.lower() in FFMPEG_SUFFIXES:
        return _open_ffmpeg(path)
    with ExitStack() as opened:
        # As bytes, for names that are not UTF-8; Windows wants text.
        source: object = path if sys.platform == "win32" else os.fsencode(path)
        if mp3 and mp3.count_from is not None:
            source = opened.enter_context(_Uncounted(path, mp3.count_from))
        try:
            file = opened.enter_context(soundfile.SoundFile(source))
        except (OSError, RuntimeError, TypeError) as error:  # TypeError: a name that ends in .raw
            raise AudioError(f"cannot be decoded: {_reason(error)}", where=path) from None
        _refuse_odd_rate(file.samplerate, path)
        closing = opened.pop_all()
    promised: float | None = file.frames / file.samplerate
    if mp3 and (mp3.promised_seconds is None or mp3.count_from is not None):
        promised = mp3.promised_seconds
    elif file.format == "OGG" or (file.format == "MP3" and not mp3) or file.frames >= 1 << 62:
        promised = None  # what libsndfile found out or guessed, no header

    def blocks() -> Iterator[np.ndarray]:
        with closing:
            size = max(1024, VALUES_PER_BLOCK // file.channels)
            while True:
                try:
                    block = file.read(size, dtype="float32", always_2d=True)
                except (OSError, RuntimeError) as error:
                    raise AudioError(f"cannot be decoded: {_reason(error)}", where=path) from None
                if len(block) == 0:
                    return
                yield block

    unread = mp3 is not None and mp3.unread
    return AudioFile(file.samplerate, file.channels, blocks(), file.format, file.subtype, promised, unread)


class _Uncounted(FileIO):
    """An mp3 that hides its size and all before byte `start`. libsndfile then counts the frames; else it
    believes a header, or guesses from size and bitrate of the first frame, and stops reading there."""

    def __init__(self, path: Path, start: int) -> None:
        super().__init__(path)
        self.start = start
        self.seek(0)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As in any file, but the end is where it starts."""
        if whence == os.SEEK_CUR:
            return super().seek(offset, whence) - self.start
        return super().seek(self.start + (offset if whence == os.SEEK_SET else 0)) - self.start

    def tell(self) -> int:
        """Bytes since `start`."""
        return super().tell() - self.start


class _Mp3(NamedTuple):
    """`count_from` is the byte from where libsndfile must count frames; None if it reads all by itself.
    `unread` if another mp3 follows that cannot be read on with the first."""

    promised_seconds: float | None
    count_from: int | None
    unread: bool = False


class _Frame(NamedTuple):
    """A frame of MPEG layer III, of which all but the length are the same in all of a stream."""

    length: int  # bytes
    samples: int
    sample_rate_hz: int
    mono: bool


def _mp3_header(stream: BufferedReader) -> _Mp3 | None:
    """What the first frame of an mp3 tells of its length (Xing, Info or VBRI header); None if it is no mp3.

    Without a header libsndfile (1.2) guesses: of a file with variable bitrate it may read a quarter. With
    one, it reads no further, even where a second mp3 was put behind the first.
    """
    if (found := _first_frame(stream, 0)) is None:
        return None
    start, frame = found
    stream.seek(start)
    head = stream.read(frame.length)
    count = size = 0
    if (at := max(head.find(b"Xing", 4, 44), head.find(b"Info", 4, 44))) > 0:
        flags, *numbers = struct.unpack(">3I", head[at + 4 : at + 16].ljust(12, b"\0"))
        count = numbers.pop(0) if flags & 1 else 0
        size = numbers.pop(0) if flags & 2 else 0
    elif head[36:40] == b"VBRI":
        size, count = struct.unpack(">2I", head[46:54].ljust(8, b"\0"))
    if not count:
        return _Mp3(None, None if _constant_bitrate(stream, start, frame) else start)
    seconds = count * frame.samples / frame.sample_rate_hz
    more = _first_frame(stream, start + size) if size else None
    if more and more[1][1:] == frame[1:]:
        return _Mp3(seconds, start + frame.length)
    return _Mp3(seconds, None, unread=more is not None)


def _constant_bitrate(stream: BufferedReader, start: int, frame: _Frame) -> bool:
    """Whether frames all over the file are as long as the first: then libsndfile's guess is right. Counting
    is slow, as every read goes through Python."""
    size = stream.seek(0, os.SEEK_END) - start
    probes = (_first_frame(stream, start + size * part // PROBES) for part in range(1, PROBES))
    return all(abs(found[1].length - frame.length) <= 1 for found in probes if found)  # one byte: padding


def _first_frame(stream: BufferedReader, at: int) -> tuple[int, _Frame] | None:
    """Position and header of the first MPEG layer III frame behind `at` and the tags there, if others
    follow it."""
    for _ in range(MOST_TAGS):
        stream.seek(at)
        head = stream.read(32)
        if head[:3] == b"ID3" and len(head) == 32:
            size = sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
            at += 10 + size + (10 if head[5] & 16 else 0)
        elif head[:3] == b"TAG":
            at += 128
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            size = int.from_bytes(head[12:16], "little")
            at += max(size, 32) + (32 if head[23] & 32 else 0)
        else:
            break
    if at == 0 and head[:1] != b"\xff":
        return None
    stream.seek(at)
    data = stream.read(SEARCHED_BYTES + FRAMES_IN_A_ROW * LONGEST_FRAME)
    place = data.find(b"\xff")
    while 0 <= place < SEARCHED_BYTES:
        first = following = _frame(data, place)
        behind, count = place, 0
        while following and first and following[1:] == first[1:] and count < FRAMES_IN_A_ROW:
            behind, count = behind + following.length, count + 1
            following = _frame(data, behind)
        if first and count == FRAMES_IN_A_ROW:
            return at + place, first
        place = data.find(b"\xff", place + 1)
    return None


def _frame(data: bytes, at: int) -> _Frame | None:
    """The header of a frame of MPEG layer III (ISO 11172-3, 2.4.1.3; ISO 13818-3; version 2.5)."""
    if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] & 0xE6 != 0xE2:
        return None
    version, kbits, rate = data[at + 1] >> 3 & 3, data[at + 2] >> 4, data[at + 2] >> 2 & 3
    if version == 1 or kbits in (0, 15) or rate == 3:
        return None
    hz = (44_100, 48_000, 32_000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    samples = 1_152 if version == 3 else 576
    length = samples // 8 * KBITS[version == 3][kbits - 1] * 1_000 // hz + (data[at + 2] >> 1 & 1)
    return _Frame(length, samples, hz, data[at + 3] >> 6 == 3)


def _open_ffmpeg(path: Path) -> AudioFile:
    import audioread

    try:
        file = audioread.audio_open(str(path))
    except Exception as error:  # it also tries Python's own readers, which raise whatever a header makes them
        reason = str(error) or f"{path.suffix} needs ffmpeg, which is not on this machine or cannot read it"
        raise AudioError(f"cannot be decoded: {reason}", where=path) from None
    with ExitStack() as opened:
        opened.enter_context(file)
        _refuse_odd_rate(file.samplerate, path)
        closing = opened.pop_all()

    def blocks() -> Iterator[np.ndarray]:
        pending = bytearray()  # what ffmpeg hands over is small and may end within a sample
        with closing:
            try:
                for data in file:
                    pending += data
                    if len(pending) >= 2 * VALUES_PER_BLOCK:
                        yield _full_scale(pending, file.channels)
            except Exception as error:
                raise AudioError(f"cannot be decoded: {error}", where=path) from None
        yield _full_scale(pending, file.channels)

    return AudioFile(file.samplerate, file.channels, blocks())


def _full_scale(pending: bytearray, channels: int) -> np.ndarray:
    """Take the whole samples, 16-bit integers, out of `pending`: (samples, channels) float32."""
    whole = len(pending) // (2 * channels) * (2 * channels)
    integers = np.frombuffer(bytes(pending[:whole]), "<i2").reshape(-1, channels)
    del pending[:whole]
    return integers.astype(np.float32) / 32768.0


def _mono(block: np.ndarray, path: Path) -> np.ndarray:
    """The mean of the channels of a block, (samples, channels): (samples,)."""
    channels = block.shape[1]
    mono: np.ndarray = block[:, 0]
    with np.errstate(all="ignore"):  # infinity less infinity: told below
        if channels == 2:  # the same to the bit, in a twentieth of the time
            mono = (mono + block[:, 1]) / np.float32(2)
        elif channels > 2:
            mono = block.mean(axis=1)
    peak = float(np.abs(mono).max(initial=0.0))
    if not np.isfinite(peak):
        raise AudioError("holds samples that are not finite (NaN or infinity)", where=path)
    if peak > LOUDEST:
        raise AudioError(f"holds samples of {peak:.0e} full scales, which are no sound", where=path)
    return np.ascontiguousarray(mono)


def _refuse_odd_rate(rate: int, path: Path) -> None:
    if not LOWEST_RATE_HZ <= rate <= HIGHEST_RATE_HZ:
        raise AudioError(f"the header says {rate} Hz, which is no rate of music", where=path)


def open_bytes(path: Path) -> BufferedReader:
    """The bytes of a file that is one and holds some.

    Raises:
        AudioError: why they cannot be read.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # to open a pipe waits for ever
            raise AudioError("is a pipe, a socket or a device, no file", where=path)
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
