"""Decoding, mixing down and resampling audio files.

Everything streams in blocks, so that a two-hour file needs no more memory than a ten-second one.
Waveforms are mono float32, with a full scale of 1.0.
"""

import hashlib
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from mgc.audio.mp3 import Mp3Header, UncountedMp3, read_mp3_header
from mgc.util.errors import MgcError, reason_of

# Suffixes that are searched for in a folder. The others need ffmpeg, through audioread.
SNDFILE_FORMATS = {
    ".mp3": "MP3", ".ogg": "OGG", ".opus": "OGG", ".flac": "FLAC", ".wav": "WAV", ".au": "AU",
    ".aif": "AIFF", ".aiff": "AIFF", ".caf": "CAF",
}  # fmt: skip
FFMPEG_SUFFIXES = frozenset({".m4a", ".mp4", ".aac", ".wma"})
SUFFIXES = FFMPEG_SUFFIXES.union(SNDFILE_FORMATS)

# Beyond these the header is wrong. A file of 1 Hz would be resampled to thousands of times its samples.
MIN_SAMPLE_RATE_HZ, MAX_SAMPLE_RATE_HZ = 1_000, 1_000_000
MAX_PEAK = 1e10  # 32-bit integers written as floats reach 2e9; squares overflow beyond 1e19
MIN_SECONDS = 0.5  # shorter clips are too short for every encoder
VALUES_PER_BLOCK = 1 << 20  # samples x channels decoded at once: 4 MiB of float32


class AudioError(MgcError):
    """A file cannot be used as audio; `what` is the reason in a few words."""


@dataclass(frozen=True)
class Clip:
    """Result of `inspect`. `problem` says why the file cannot be used; None if it can."""

    content: str  # hash of the file's bytes; the embedding cache is keyed by it
    seconds: float
    sample_rate_hz: int
    channels: int
    problem: str | None


class AudioFile(NamedTuple):
    """A file that is about to be decoded."""

    sample_rate_hz: int
    channels: int
    blocks: Iterator[np.ndarray]  # (samples, channels) float32, not empty, at the file's own rate
    format: str = ""
    subtype: str = ""
    seconds_promised: float | None = None
    mp3_unread: bool = False


# Called before a file is decoded; the result is called for each block, (n, channels), and its mix-down, (n,).
Meter = Callable[[AudioFile], Callable[[np.ndarray, np.ndarray], None]]


def decode(path: Path, sample_rate_hz: int | None = None) -> Iterator[np.ndarray]:
    """Blocks of mono float32 samples at `sample_rate_hz` (the file's own rate if None).

    Channels are averaged; soxr resamples with its "HQ" setting. Raises `AudioError` if the file cannot be
    decoded, or has samples that are not finite.
    """
    with _open(path) as file:
        blocks, rate = (_mono(block, path) for block in file.blocks), file.sample_rate_hz
        if sample_rate_hz in (None, rate):
            yield from blocks
            return
        resampler = soxr.ResampleStream(rate, sample_rate_hz, 1, dtype="float32", quality="HQ")
        yield from map(resampler.resample_chunk, blocks)
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def load(path: Path, sample_rate_hz: int | None = None) -> np.ndarray:
    """The whole clip, (samples,) float32. For long files prefer `decode` or `windows`."""
    return np.concatenate([np.zeros(0, np.float32), *decode(path, sample_rate_hz)])


def content_hash(stream: BufferedReader) -> str:
    """Hash of all bytes of an open file."""
    return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def inspect(path: Path, meter: Meter | None = None) -> Clip:
    """Hash and decode the whole file once. The reason why a bad file cannot be used is in `Clip.problem`."""
    content, rate, channels, samples, peak, problem = "", 0, 0, 0, 0.0, None
    try:
        with open_bytes(path) as stream:
            content = content_hash(stream)
        with _open(path) as file:
            rate, channels = file.sample_rate_hz, file.channels
            take = meter(file) if meter else lambda block, mono: None
            for block in file.blocks:
                mono = _mono(block, path)
                samples += len(mono)
                peak = max(peak, float(np.abs(mono).max()))
                take(block, mono)
        if (seconds := samples / rate) < MIN_SECONDS:
            problem = f"too short: {samples} samples, {seconds:.3f} s (at least {MIN_SECONDS} s are needed)"
        elif peak == 0.0:
            problem = "silent: every sample is zero"
    except AudioError as error:
        problem = error.what
    return Clip(content, samples / max(1, rate), rate, channels, problem)


@contextmanager
def open_bytes(path: Path) -> Iterator[BufferedReader]:
    """Open a file for reading; `AudioError` if it cannot be read, is empty, or is not a regular file."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a pipe would wait for ever
            raise AudioError("not a regular file (a pipe, a socket or a device)", where=path)
        with path.open("rb") as stream:
            if not stream.peek(1):
                raise AudioError("empty file (0 bytes)", where=path)
            yield stream
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise AudioError(f"cannot be read: {reason_of(error)}", where=path) from None


@contextmanager
def _open(path: Path) -> Iterator[AudioFile]:
    with open_bytes(path) as stream:  # the system's reasons are clearer than a decoder's
        mp3 = read_mp3_header(stream)
    by_ffmpeg = path.suffix.lower() in FFMPEG_SUFFIXES
    with _open_ffmpeg(path) if by_ffmpeg else _open_sndfile(path, mp3) as file:
        if not MIN_SAMPLE_RATE_HZ <= file.sample_rate_hz <= MAX_SAMPLE_RATE_HZ:
            supported = f"{MIN_SAMPLE_RATE_HZ:,} to {MAX_SAMPLE_RATE_HZ:,} Hz"
            what = f"sample rate is {file.sample_rate_hz:,} Hz, outside the supported range of {supported}"
            raise AudioError(what, where=path)
        if file.channels < 1:
            raise AudioError("cannot be decoded: the file has no channels", where=path)
        yield file


@contextmanager
def _open_sndfile(path: Path, mp3: Mp3Header | None) -> Iterator[AudioFile]:
    # As bytes, for names that are not UTF-8; Windows needs text.
    source: object = path if sys.platform == "win32" else os.fsencode(path)
    with ExitStack() as opened:
        with _clear_errors(path):
            if mp3 and mp3.count_from is not None:
                source = opened.enter_context(UncountedMp3(path, mp3.count_from))
            file = opened.enter_context(soundfile.SoundFile(source))
        rate, channels = file.samplerate, file.channels
        promised: float | None = file.frames / max(1, rate)
        if mp3 and (mp3.promised_seconds is None or mp3.count_from is not None):
            promised = mp3.promised_seconds
        elif file.format == "OGG" or (file.format == "MP3" and not mp3) or file.frames >= 1 << 62:
            promised = None  # counted or guessed by libsndfile, not promised by a header

        def blocks() -> Iterator[np.ndarray]:
            while True:
                with _clear_errors(path):
                    block = file.read(max(1024, VALUES_PER_BLOCK // channels), "float32", always_2d=True)
                if not len(block):
                    return
                yield block

        unread = mp3 is not None and mp3.unread
        yield AudioFile(rate, channels, blocks(), file.format, file.subtype, promised, unread)


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, TypeError) as error:  # TypeError: a name that ends in .raw
        reason = str(error).rpartition(": ")[2].strip().rstrip(".")  # without the path before it
        if reason.startswith("File does not exist"):  # what its mp3 decoder says of a text file named .mp3
            reason = "Format not recognised"
        raise AudioError(f"cannot be decoded: {reason or type(error).__name__}", where=path) from None


@contextmanager
def _open_ffmpeg(path: Path) -> Iterator[AudioFile]:
    import audioread

    try:
        file = audioread.audio_open(str(path))
    except Exception as error:  # audioread also tries Python's own readers, which raise errors of any kind
        reason = str(error) or f"{path.suffix} needs ffmpeg, which is not installed or cannot read this file"
        raise AudioError(f"cannot be decoded: {reason}", where=path) from None

    def blocks() -> Iterator[np.ndarray]:
        pending = bytearray()  # ffmpeg's pieces are small and may end within a sample
        try:
            for data in file:
                pending += data
                if len(pending) >= 2 * max(VALUES_PER_BLOCK, file.channels):
                    yield _take_samples(pending, file.channels)
        except Exception as error:
            raise AudioError(f"cannot be decoded: {error}", where=path) from None
        if len(pending) >= 2 * file.channels:
            yield _take_samples(pending, file.channels)

    with file:
        yield AudioFile(file.samplerate, file.channels, blocks())


def _take_samples(pending: bytearray, channels: int) -> np.ndarray:
    """Remove the whole 16-bit samples from `pending`: (samples, channels) float32."""
    whole = len(pending) // (2 * channels) * (2 * channels)
    integers = np.frombuffer(bytes(pending[:whole]), "<i2").reshape(-1, channels)
    del pending[:whole]
    return integers.astype(np.float32) / 32768.0


def _mono(block: np.ndarray, path: Path) -> np.ndarray:
    """The mean of the channels of a block, (samples, channels): (samples,)."""
    channels = block.shape[1]
    mono: np.ndarray = block[:, 0]
    with np.errstate(all="ignore"):  # infinity minus infinity is NaN, which is refused below
        if channels == 2:  # equal to the mean bit by bit, in a twentieth of the time
            mono = (mono + block[:, 1]) / np.float32(2)
        elif channels > 2:
            mono = block.mean(axis=1)
    peak = float(np.abs(mono).max())
    if not np.isfinite(peak):
        raise AudioError("contains samples that are not finite (NaN or infinity)", where=path)
    if peak > MAX_PEAK:
        what = f"sample values reach {peak:.0e} (full scale is 1.0); the file is probably corrupt"
        raise AudioError(what, where=path)
    return np.ascontiguousarray(mono)
