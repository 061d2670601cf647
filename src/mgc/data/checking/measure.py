"""A thorough look at one file: all that one pass over its samples, and its header, can tell."""

import hashlib
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mgc.audio import AudioError, AudioFile, Clip, open_bytes
from mgc.data.clips import inspect

# What a suffix promises, in libsndfile's words; ".wav" is also right for the other two.
SUFFIX_FORMATS = {
    ".mp3": "MP3", ".ogg": "OGG", ".opus": "OGG", ".flac": "FLAC", ".wav": "WAV", ".au": "AU",
    ".aif": "AIFF", ".aiff": "AIFF", ".caf": "CAF",
}  # fmt: skip
KINDS_OF_WAV = frozenset({"WAV", "WAVEX", "RF64"})

# How `examine` measures.
FRAME_SECONDS = 0.05
SILENT_POWER = 1e-6  # -60 dBFS
# Audacity's "Find Clipping" also counts from three samples in a row. Full scale counts as the highest level
# where there is more: a decoded mp3 overshoots it where its source was clipped.
CLIPPED_RUN = 3
CLIPPED_FROM = 0.99
SAME_LEVEL = 1 - 1e-4  # a few steps of 16 bits
ALIKE_POWER = 1e-6  # difference of two channels over their power: -60 dB
SPECTRUM_SAMPLES = 2048
SPECTRA_A_SECOND = 4
HANN = np.hanning(SPECTRUM_SAMPLES + 1)[:-1].astype(np.float32)
# Rounding to 16 bits is noise of a twelfth of a squared step. 9 dB more, so that neither dither (three times
# that power) nor the scatter of the estimate counts.
NOTHING_POWER = 8 * (2.0**-15) ** 2 / 12
NOTHING_SHARE = 1e-10  # 100 dB below the strongest frequency: what filters and decoders leave
PROMISE_SECONDS = 0.1  # headers are wrong by so much without harm: mp3 encoders disagree by some frames
UNKNOWN_BYTES = 0x7FFFF000  # from here on: what ffmpeg, sox and arecord write when they cannot know
LONGEST_OGG_PAGE = 65_307  # RFC 3533


@dataclass(frozen=True)
class Examination:
    """What `examine` measures of one file. Levels are in full scales of the format: 1.0 is the loudest.

    `content`, `seconds`, `sample_rate_hz`, `channels` and `problem` are those of `Clip`; where there is a
    problem, the rest tells of what could be decoded before it.
    """

    content: str
    seconds: float
    sample_rate_hz: int
    channels: int
    problem: str | None
    remarks: tuple[str, ...]  # what is odd about a file that can be used all the same
    format: str  # libsndfile's words, "MP3", "WAV", "FLAC"; empty for what ffmpeg decodes
    subtype: str  # libsndfile's words, "MPEG_LAYER_III", "PCM_16"; empty for what ffmpeg decodes
    suffix_format: str  # what the name promises in the same words; empty where it promises nothing
    seconds_promised: float | None  # by the header; None where it does not tell
    pcm: str  # hash of rate, channels and decoded samples: the same for a wav and a flac made of it
    peak: float
    rms_dbfs: float  # 0 dB is a square wave of full scale; -inf for digital silence
    clipped: float  # share of the samples: runs of three or more at the highest level of the file
    silent: float  # share of frames of 50 ms below -60 dBFS
    leading_silence_seconds: float
    trailing_silence_seconds: float
    channels_alike: bool  # several channels, and they differ by less than a thousandth: it is mono
    dc_offset: float  # mean of the mono samples
    bandwidth_hz: float  # above it there is no more than what rounding to 16 bits leaves

    @property
    def misnamed(self) -> bool:
        """The suffix promises another format."""
        told = "WAV" if self.format in KINDS_OF_WAV else self.format
        return bool(told and self.suffix_format and told != self.suffix_format)


def examine(path: Path, hear: Callable[[np.ndarray, int], None] | None = None) -> Examination:
    """`inspect`, and everything else that one pass over the decoded samples can tell.

    `hear` is given every block of mono samples, (n,) float32, and their rate in Hz as they are decoded.
    Never raises for a bad file: the reason stands in `problem`.
    """
    meter = _Meter(hear)
    clip = inspect(path, meter)
    return meter.result(path, clip)


# ---- what is measured on the way ------------------------------------------------------------------------


class _Meter:
    """Measures blocks as they pass; keeps 20 numbers a second, no samples."""

    def __init__(self, hear: Callable[[np.ndarray, int], None] | None) -> None:
        self.hear = hear
        self.file: AudioFile | None = None
        self.header = _Header(None, False)
        self.hash = hashlib.sha1(usedforsecurity=False)
        self.samples = 0
        self.sum = 0.0
        self.peak = 0.0
        self.clipped = 0
        self.alike = True
        self.frame_values = 1  # samples x channels of a frame
        self.rest = np.zeros(0, np.float32)  # of a frame that has begun
        self.powers: list[np.ndarray] = []
        self.spectrum = np.zeros(SPECTRUM_SAMPLES // 2 + 1)
        self.spectra = 0

    def start(self, path: Path, file: "AudioFile") -> None:
        """The file that the blocks come from."""
        self.file, self.header = file, _header(path)
        self.frame_values = max(1, round(FRAME_SECONDS * file.sample_rate_hz)) * file.channels
        self.hash.update(f"{file.sample_rate_hz} {file.channels}".encode())

    def take(self, block: np.ndarray, mono: np.ndarray) -> None:
        """One block, (samples, channels), and its mix-down."""
        if not len(block):
            return
        assert self.file is not None
        self.hash.update(block.data)
        self.samples += len(block)
        with np.errstate(all="ignore"):  # a float file may hold 1e30: its levels are then infinite
            self.sum += float(mono.sum())
            self.alike = self.alike and _alike(block)
            self._count_clipped(block)
            self._add_powers(block)
            self._add_spectra(mono)
        if self.hear:
            self.hear(mono, self.file.sample_rate_hz)

    def _count_clipped(self, block: np.ndarray) -> None:
        highest = max(float(block.max()), -float(block.min()))
        level = min(max(self.peak, highest), 1.0) * SAME_LEVEL
        if self.peak < level:
            self.clipped = 0  # what lay lower was not cut off there
        self.peak = max(self.peak, highest)
        if self.peak >= CLIPPED_FROM and highest >= level:
            self.clipped += sum(_in_runs(np.abs(channel) >= level) for channel in block.T)

    def _add_powers(self, block: np.ndarray) -> None:
        values = np.concatenate([self.rest, block.reshape(-1)])
        whole = len(values) // self.frame_values * self.frame_values
        frames = values[:whole].reshape(-1, self.frame_values)
        self.powers.append(np.vecdot(frames, frames) / self.frame_values)
        self.rest = values[whole:].copy()

    def _add_spectra(self, mono: np.ndarray) -> None:
        assert self.file is not None
        if len(mono) < SPECTRUM_SAMPLES:
            return
        step = max(1, self.file.sample_rate_hz // SPECTRA_A_SECOND)
        pieces = np.lib.stride_tricks.sliding_window_view(mono, SPECTRUM_SAMPLES)[::step]
        spectra = np.fft.rfft(pieces * HANN)
        self.spectrum += (spectra.real**2 + spectra.imag**2).sum(axis=0, dtype=np.float64)
        self.spectra += len(pieces)

    def result(self, path: Path, clip: Clip) -> Examination:
        """All that was measured; `clip` is what `look` found."""
        file = self.file
        promised, remarks = _promise(file, self.header, clip.seconds) if file else (None, ())
        powers = np.concatenate([np.zeros(0, np.float32), *self.powers])
        values = self.samples * clip.channels
        energy = float(powers.sum(dtype=np.float64)) * self.frame_values + float(self.rest @ self.rest)
        if len(self.rest):
            powers = np.append(powers, self.rest @ self.rest / len(self.rest))
        loud = np.flatnonzero(powers >= SILENT_POWER)
        quiet_ends = (loud[0], len(powers) - 1 - loud[-1]) if len(loud) else (np.inf, np.inf)
        leading, trailing = (min(float(count) * FRAME_SECONDS, clip.seconds) for count in quiet_ends)
        return Examination(
            clip.content,
            clip.seconds,
            clip.sample_rate_hz,
            clip.channels,
            clip.problem,
            remarks,
            format=file.format if file else "",
            subtype=file.subtype if file else "",
            suffix_format=SUFFIX_FORMATS.get(path.suffix.lower(), ""),
            seconds_promised=promised,
            pcm=self.hash.hexdigest() if self.samples else "",
            peak=self.peak,
            rms_dbfs=10 * float(np.log10(energy / values)) if energy > 0 else -np.inf,
            clipped=self.clipped / values if values else 0.0,
            silent=1 - len(loud) / len(powers) if len(powers) else 0.0,
            leading_silence_seconds=leading,
            trailing_silence_seconds=trailing,
            channels_alike=self.alike and clip.channels > 1 and self.samples > 0,
            dc_offset=self.sum / self.samples if self.samples else 0.0,
            bandwidth_hz=self._bandwidth_hz(clip.sample_rate_hz),
        )

    def _bandwidth_hz(self, rate: int) -> float:
        if not self.spectra:
            return 0.0
        power = self.spectrum / (self.spectra * float(HANN @ HANN))
        there = np.flatnonzero(power > max(NOTHING_POWER, NOTHING_SHARE * float(power.max())))
        return float((there[-1] + 0.5) * rate / SPECTRUM_SAMPLES) if len(there) else 0.0


def _alike(block: np.ndarray) -> bool:
    """Whether all channels are the first one."""
    first = block[:, 0]
    for channel in block.T[1:]:
        apart = first - channel
        if float(apart @ apart) > ALIKE_POWER * float(first @ first):
            return False
    return True


def _in_runs(high: np.ndarray) -> int:
    """How many of the True in `high`, (n,), stand in runs of at least three."""
    edges = np.flatnonzero(np.diff(high, prepend=False, append=False))
    lengths = edges[1::2] - edges[::2]
    return int(lengths[lengths >= CLIPPED_RUN].sum())


class _Header(NamedTuple):
    """What a header says that libsndfile does not pass on."""

    samples: tuple[int, int, bool] | None
    ogg_without_end: bool


def _header(path: Path) -> _Header:
    try:
        with open_bytes(path) as stream:
            return _Header(_samples_in_header(stream), _ogg_without_end(stream))
    except OSError as error:
        raise AudioError(f"cannot be read: {error.strerror}", where=path) from None


def _promise(file: "AudioFile", header: _Header, seconds: float) -> tuple[float | None, tuple[str, ...]]:
    """The seconds that the header promises, and what is odd about it where `seconds` were decoded."""
    promised, remarks = file.seconds_promised, []
    if header.samples:
        told, there, goes_on = header.samples
        if promised and there:
            promised *= max(1.0, told / there)
        if goes_on:
            remarks.append(f"the header promises {told} bytes of samples, {there - told} more are not read")
    if file.mp3_unread:
        remarks.append("another mp3 of another sample rate or number of channels follows: it is not read")
    if header.ogg_without_end:
        remarks.append("the last page is not marked as the end: the file may be cut off")
    if promised is not None and promised > seconds + PROMISE_SECONDS:
        remarks.append(f"ends early: the header promises {promised:.1f} s, {seconds:.1f} s were decoded")
    elif promised is not None and promised < seconds - PROMISE_SECONDS:
        remarks.append(f"the header promises {promised:.1f} s, the file holds {seconds:.1f} s")
    return promised, tuple(remarks)


def _samples_in_header(stream: BufferedReader) -> tuple[int, int, bool] | None:
    """For WAV, AIFF and AU: bytes of samples that the header promises, bytes behind it, and whether more
    samples seem to follow the promised ones. libsndfile silently takes what is there.

    None for other formats, and where the header does not tell: a program that writes to a pipe cannot know
    the length and leaves 0xFFFFFFFF (ffmpeg) or about 0x7FFFFFFF (sox, arecord).
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(12).ljust(12, b"\0")
    if head[:4] in (b".snd", b"dns."):
        at, told = struct.unpack(">II" if head[:4] == b".snd" else "<II", head[4:])
        return (told, size - at, _much_more(told, size - at)) if told < UNKNOWN_BYTES else None
    order = {b"RIFF": "<", b"RF64": "<", b"RIFX": ">", b"FORM": ">"}.get(head[:4])
    at, long = 12, 0
    while order and at + 8 <= size:
        stream.seek(at)
        name, told = struct.unpack(order + "4sI", stream.read(8))
        at += 8
        if name == b"ds64":  # RF64: lengths of more than 32 bits
            long = struct.unpack("<8xQ", stream.read(16).ljust(16, b"\0"))[0]
        elif name in (b"data", b"SSND"):
            if name == b"SSND":  # the samples come after two numbers
                at, told = at + 8, told - 8
            told = long if long and told == 0xFFFFFFFF else told
            if told >= UNKNOWN_BYTES and told != long:
                return None
            stream.seek(min(size, at + told + told % 2))
            after = stream.read(4)
            chunk = all(32 <= byte < 127 for byte in after) and after not in (b"RIFF", b"FORM")
            return told, size - at, not chunk and _much_more(told, size - at)
        at += told + told % 2
    return None


def _much_more(told: int, there: int) -> bool:
    """More than the few bytes that a program may leave behind the samples."""
    return there - told > there // 100


def _ogg_without_end(stream: BufferedReader) -> bool:
    """An Ogg whose last page lacks the flag "end of stream" (RFC 3533, section 6)."""
    stream.seek(0)
    if stream.read(4) != b"OggS":
        return False
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - LONGEST_OGG_PAGE))
    last = stream.read().rpartition(b"OggS")[2]
    return len(last) < 2 or not last[1] & 4
