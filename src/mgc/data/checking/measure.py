"""Everything that one pass over a file's samples and its header can measure."""

import base64
import hashlib
import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mgc.audio import AudioError, AudioFile, Clip, inspect, open_bytes
from mgc.data import clips
from mgc.data.checking.fingerprint import Fingerprinter

# What a suffix promises, in libsndfile's terms; ".wav" is also right for the other two.
SUFFIX_FORMATS = {
    ".mp3": "MP3", ".ogg": "OGG", ".opus": "OGG", ".flac": "FLAC", ".wav": "WAV", ".au": "AU",
    ".aif": "AIFF", ".aiff": "AIFF", ".caf": "CAF",
}  # fmt: skip
WAV_FORMATS = frozenset({"WAV", "WAVEX", "RF64"})

FRAME_SECONDS = 0.05
SILENT_POWER = 1e-6  # -60 dBFS
# Audacity's "Find Clipping" also counts from three samples in a row. If samples exceed full scale, full scale
# counts as the highest level: a decoded mp3 overshoots it where its source was clipped.
CLIPPED_RUN = 3
CLIPPED_FROM = 0.99
SAME_LEVEL = 1 - 1e-4  # a few steps of 16 bits
DUAL_MONO_POWER = 1e-6  # difference of two channels over their power: -60 dB
SPECTRUM_SAMPLES = 2048
SPECTRA_PER_SECOND = 4
HANN = np.hanning(SPECTRUM_SAMPLES + 1)[:-1].astype(np.float32)
# Rounding to 16 bits is noise of a twelfth of a squared step. The threshold is 9 dB above it, so that neither
# dither (three times that power) nor the variance of the estimate counts as signal.
NOISE_POWER = 8 * (2.0**-15) ** 2 / 12
NOISE_SHARE = 1e-10  # 100 dB below the strongest frequency: residue of filters and decoders
LENGTH_TOLERANCE_SECONDS = 0.1  # mp3 encoders disagree by some frames
UNKNOWN_BYTES = 0x7FFFF000  # ffmpeg, sox and arecord write lengths from here on if they cannot know them
LONGEST_OGG_PAGE_BYTES = 65_307  # RFC 3533


@dataclass(frozen=True)
class Measurement(Clip):
    """Measurements of one file. Levels are relative to the full scale of the format, 1.0.

    If there is a `problem`, the rest describes what could be decoded before it.
    """

    remarks: tuple[str, ...]  # what is odd about the header of a file that can be used all the same
    format: str  # in libsndfile's terms, "MP3", "WAV", "FLAC"; empty if ffmpeg decodes it
    subtype: str  # in libsndfile's terms, "MPEG_LAYER_III", "PCM_16"; empty if ffmpeg decodes it
    suffix_format: str  # what the suffix promises, in the same terms; empty if it promises nothing
    seconds_promised: float | None  # by the header; None if it does not say
    samples_hash: str  # of rate, channels and decoded samples: equal for a wav and a flac made from it
    peak: float
    rms_dbfs: float  # 0 dB is a square wave of full scale; -inf for digital silence
    clipped_share: float  # of the samples: runs of three or more at the highest level of the file
    silent_share: float  # of frames of 50 ms: those below -60 dBFS
    is_dual_mono: bool  # several channels that differ by less than a thousandth
    dc_offset: float  # mean of the mono samples
    bandwidth_hz: float  # above it there is no more than 16-bit rounding noise
    fingerprint: np.ndarray = field(compare=False, repr=False)  # (n,) uint32

    @property
    def is_misnamed(self) -> bool:
        """Whether the suffix promises another format."""
        actual = "WAV" if self.format in WAV_FORMATS else self.format
        return bool(actual and self.suffix_format and actual != self.suffix_format)

    def dumps(self) -> str:
        """As JSON."""
        encoded = base64.b64encode(self.fingerprint.astype("<u4").tobytes()).decode()
        return json.dumps(vars(self) | {"fingerprint": encoded})

    @classmethod
    def loads(cls, text: str) -> "Measurement":
        """The inverse of `dumps`."""
        values = json.loads(text)
        words = np.frombuffer(base64.b64decode(values["fingerprint"]), "<u4").astype(np.uint32)
        return cls(**values | {"remarks": tuple(values["remarks"]), "fingerprint": words})


# Raise the revision when `measure` finds other values for the same file.
MEASUREMENTS = clips.Table[Measurement]("measurements_1", Measurement.dumps, Measurement.loads)


def measure(path: Path) -> Measurement:
    """Inspect a file and measure all else in the same pass.

    Never raises for a bad file: the reason is in `problem`.
    """
    meter = _Meter()
    return meter.result(path, inspect(path, meter))


def measure_all(paths: Sequence[Path], cache: Path) -> list[Measurement]:
    """`measure` for every path, remembered for unchanged files. An interrupted call keeps its results."""
    return clips.compute_all(paths, cache, MEASUREMENTS, measure, "check audio files")


class _Meter:
    """Measures blocks as they pass; keeps 20 numbers per second and the fingerprint, no samples."""

    def __init__(self) -> None:
        self.file: AudioFile | None = None
        self.fingerprinter = Fingerprinter()
        self.hash = hashlib.sha1(usedforsecurity=False)
        self.samples = 0
        self.sum = 0.0
        self.peak = 0.0
        self.clipped = 0
        self.is_dual_mono = True
        self.frame_values = 1  # samples x channels of a frame
        self.rest = np.zeros(0, np.float32)  # of an incomplete frame
        self.powers: list[np.ndarray] = []
        self.spectrum = np.zeros(SPECTRUM_SAMPLES // 2 + 1)
        self.spectra = 0

    def start(self, path: Path, file: AudioFile) -> None:
        """Called before the first block."""
        self.file = file
        self.frame_values = max(1, round(FRAME_SECONDS * file.sample_rate_hz)) * file.channels
        self.hash.update(f"{file.sample_rate_hz} {file.channels}".encode())

    def take(self, block: np.ndarray, mono: np.ndarray) -> None:
        """Add one block, (samples, channels), and its mix-down."""
        if not len(block):
            return
        assert self.file is not None
        self.hash.update(block.data)
        self.samples += len(block)
        with np.errstate(all="ignore"):  # a float file may contain 1e9: its levels may then be infinite
            self.sum += float(mono.sum())
            self.is_dual_mono = self.is_dual_mono and _is_dual_mono(block)
            self._count_clipped(block)
            self._add_powers(block)
            self._add_spectra(mono)
        self.fingerprinter.take(mono, self.file.sample_rate_hz)

    def _count_clipped(self, block: np.ndarray) -> None:
        highest = max(float(block.max()), -float(block.min()))
        level = min(max(self.peak, highest), 1.0) * SAME_LEVEL
        if self.peak < level:
            self.clipped = 0  # runs at a lower level were not clipped
        self.peak = max(self.peak, highest)
        if self.peak >= CLIPPED_FROM and highest >= level:
            self.clipped += sum(_count_in_runs(np.abs(channel) >= level) for channel in block.T)

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
        step = max(1, self.file.sample_rate_hz // SPECTRA_PER_SECOND)
        pieces = np.lib.stride_tricks.sliding_window_view(mono, SPECTRUM_SAMPLES)[::step]
        spectra = np.fft.rfft(pieces * HANN)
        self.spectrum += (spectra.real**2 + spectra.imag**2).sum(axis=0, dtype=np.float64)
        self.spectra += len(pieces)

    def result(self, path: Path, clip: Clip) -> Measurement:
        """All measurements; `clip` is the result of `inspect`."""
        file = self.file
        promised, remarks = _compare_lengths(path, file, clip.seconds) if file else (None, ())
        powers = np.concatenate([np.zeros(0, np.float32), *self.powers])
        values = self.samples * clip.channels
        energy = float(powers.sum(dtype=np.float64)) * self.frame_values + float(self.rest @ self.rest)
        if len(self.rest):
            powers = np.append(powers, self.rest @ self.rest / len(self.rest))
        return Measurement(
            **vars(clip),
            remarks=remarks,
            format=file.format if file else "",
            subtype=file.subtype if file else "",
            suffix_format=SUFFIX_FORMATS.get(path.suffix.lower(), ""),
            seconds_promised=promised,
            samples_hash=self.hash.hexdigest() if self.samples else "",
            peak=self.peak,
            rms_dbfs=10 * float(np.log10(energy / values)) if energy > 0 else -np.inf,
            clipped_share=self.clipped / values if values else 0.0,
            silent_share=float(np.mean(powers < SILENT_POWER)) if len(powers) else 0.0,
            is_dual_mono=self.is_dual_mono and clip.channels > 1 and self.samples > 0,
            dc_offset=self.sum / self.samples if self.samples else 0.0,
            bandwidth_hz=self._bandwidth_hz(clip.sample_rate_hz),
            fingerprint=self.fingerprinter.words(),
        )

    def _bandwidth_hz(self, sample_rate_hz: int) -> float:
        if not self.spectra:
            return 0.0
        power = self.spectrum / (self.spectra * float(HANN @ HANN))
        present = np.flatnonzero(power > max(NOISE_POWER, NOISE_SHARE * float(power.max())))
        return float((present[-1] + 0.5) * sample_rate_hz / SPECTRUM_SAMPLES) if len(present) else 0.0


def _is_dual_mono(block: np.ndarray) -> bool:
    first = block[:, 0]
    differences = (first - channel for channel in block.T[1:])
    return not any(float(d @ d) > DUAL_MONO_POWER * float(first @ first) for d in differences)


def _count_in_runs(high: np.ndarray) -> int:
    """The number of True in `high`, (n,), that are in runs of at least three."""
    edges = np.flatnonzero(np.diff(high, prepend=False, append=False))
    lengths = edges[1::2] - edges[::2]
    return int(lengths[lengths >= CLIPPED_RUN].sum())


# ---- headers ---------------------------------------------------------------------------------------------


class _DataBytes(NamedTuple):
    """Bytes of samples in a WAV, AIFF or AU file: promised by the header, and present after it; and whether
    more samples seem to follow the promised ones."""

    promised: int
    present: int
    continues: bool


def _compare_lengths(path: Path, file: AudioFile, seconds: float) -> tuple[float | None, tuple[str, ...]]:
    """The seconds that the header promises, and remarks about it if `seconds` were decoded."""
    promised, remarks = file.seconds_promised, []
    try:
        with open_bytes(path) as stream:
            data, is_cut_ogg = _data_bytes(stream), _ogg_without_end(stream)
    except (OSError, AudioError):  # it was decoded a moment ago; `inspect` has reported what can be
        return promised, ()
    if data and promised and data.present:
        promised *= max(1.0, data.promised / data.present)
    if data and data.continues:
        unread = data.present - data.promised
        remarks.append(f"the header promises {data.promised} bytes of samples, {unread} more are not read")
    if file.mp3_unread:
        remarks.append("another mp3 with another sample rate or number of channels follows and is not read")
    if is_cut_ogg:
        remarks.append("the last page is not marked as the end: the file may be truncated")
    if promised is not None and promised > seconds + LENGTH_TOLERANCE_SECONDS:
        remarks.append(f"ends early: the header promises {promised:.1f} s, {seconds:.1f} s were decoded")
    elif promised is not None and promised < seconds - LENGTH_TOLERANCE_SECONDS:
        remarks.append(f"the header promises {promised:.1f} s, {seconds:.1f} s were decoded")
    return promised, tuple(remarks)


def _data_bytes(stream: BufferedReader) -> _DataBytes | None:
    """The lengths for WAV, AIFF and AU, of which libsndfile reports only what is present.

    None for other formats, and if the header does not say: a program that writes to a pipe cannot know the
    length and leaves 0xFFFFFFFF (ffmpeg) or about 0x7FFFFFFF (sox, arecord).
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(12).ljust(12, b"\0")
    if head[:4] in (b".snd", b"dns."):
        at, promised = struct.unpack(">II" if head[:4] == b".snd" else "<II", head[4:])
        more = _is_much_more(promised, size - at)
        return _DataBytes(promised, size - at, more) if promised < UNKNOWN_BYTES else None
    order = {b"RIFF": "<", b"RF64": "<", b"RIFX": ">", b"FORM": ">"}.get(head[:4])
    at, long = 12, 0
    while order and at + 8 <= size:
        stream.seek(at)
        name, promised = struct.unpack(order + "4sI", stream.read(8))
        at += 8
        if name == b"ds64":  # RF64: lengths of more than 32 bits
            long = struct.unpack("<8xQ", stream.read(16).ljust(16, b"\0"))[0]
        elif name in (b"data", b"SSND"):
            if name == b"SSND":  # two numbers come before the samples
                at, promised = at + 8, promised - 8
            promised = long if long and promised == 0xFFFFFFFF else promised
            if promised >= UNKNOWN_BYTES and promised != long:
                return None
            stream.seek(min(size, at + promised + promised % 2))
            after = stream.read(4)
            is_chunk = all(32 <= byte < 127 for byte in after) and after not in (b"RIFF", b"FORM")
            more = not is_chunk and _is_much_more(promised, size - at)
            return _DataBytes(promised, size - at, more)
        at += promised + promised % 2
    return None


def _is_much_more(promised: int, present: int) -> bool:
    """More than the few bytes that a program may leave after the samples."""
    return present - promised > present // 100


def _ogg_without_end(stream: BufferedReader) -> bool:
    """Whether the last page of an Ogg file lacks the flag "end of stream" (RFC 3533, section 6)."""
    stream.seek(0)
    if stream.read(4) != b"OggS":
        return False
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - LONGEST_OGG_PAGE_BYTES))
    last = stream.read().rpartition(b"OggS")[2]
    return len(last) < 2 or not last[1] & 4
