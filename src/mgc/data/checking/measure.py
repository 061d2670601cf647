"""Everything that one pass over a file's samples and its header can measure."""

import base64
import hashlib
import json
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path

import numpy as np

from mgc.audio import AudioError, Clip, inspect
from mgc.audio.decoding import SNDFILE_FORMATS, AudioFile, open_bytes
from mgc.data import clips
from mgc.data.checking.fingerprint import Fingerprinter

WAV_FORMATS = frozenset({"WAV", "WAVEX", "RF64"})  # of files named .wav, in libsndfile's terms
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
    """Measurements of one file up to its `problem`, if any. Levels are relative to full scale, 1.0."""

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
        """The inverse of `loads`."""
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
    """Inspect a file and measure all else in the same pass. The reason why a file is bad is in `problem`."""
    meter = _Meter()
    return meter.result(path, inspect(path, meter.start))


def measure_all(paths: Sequence[Path], cache: Path) -> list[Measurement]:
    """`measure` for every path, remembered for unchanged files. An interrupted call keeps its results."""
    return clips.compute_all(paths, cache, MEASUREMENTS, measure, "check audio files")


class _Meter:
    """Measures blocks as they pass; keeps 20 numbers per second and the fingerprint, no samples."""

    def __init__(self) -> None:
        self.file: AudioFile | None = None
        self.fingerprinter = Fingerprinter()
        self.hash = hashlib.sha1(usedforsecurity=False)
        self.samples = self.clipped = self.spectra = 0
        self.sum = self.peak = 0.0
        self.is_dual_mono = True
        self.rate = self.frame_values = 1  # Hz; samples x channels of a frame
        self.rest = np.zeros(0, np.float32)  # of an incomplete frame
        self.powers = [np.zeros(0, np.float32)]  # of frames
        self.spectrum = np.zeros(SPECTRUM_SAMPLES // 2 + 1)

    def start(self, file: AudioFile) -> Callable[[np.ndarray, np.ndarray], None]:
        """Called by `inspect` before the first block."""
        self.file, self.rate = file, file.sample_rate_hz
        self.frame_values = round(FRAME_SECONDS * self.rate) * file.channels
        self.hash.update(f"{self.rate} {file.channels}".encode())
        return self.take

    def take(self, block: np.ndarray, mono: np.ndarray) -> None:
        """Add one block, (samples, channels), and its mix-down."""
        self.hash.update(block.data)
        self.samples += len(block)
        with np.errstate(all="ignore"):  # a float file may contain 1e9: its levels may then be infinite
            self.sum += float(mono.sum())
            apart = np.square(block - block[:, :1]).sum(axis=0)
            if (apart > DUAL_MONO_POWER * np.square(block[:, 0]).sum()).any():
                self.is_dual_mono = False
            self._count_clipped(block)
            values = np.concatenate([self.rest, block.reshape(-1)])
            whole = len(values) // self.frame_values * self.frame_values
            frames, self.rest = values[:whole].reshape(-1, self.frame_values), values[whole:].copy()
            self.powers.append(np.vecdot(frames, frames) / self.frame_values)
            if len(mono) >= SPECTRUM_SAMPLES:
                pieces = np.lib.stride_tricks.sliding_window_view(mono, SPECTRUM_SAMPLES)
                spectra = np.fft.rfft(pieces[:: self.rate // SPECTRA_PER_SECOND] * HANN)
                self.spectrum += (spectra.real**2 + spectra.imag**2).sum(axis=0, dtype=np.float64)
                self.spectra += len(spectra)
        self.fingerprinter.take(mono, self.rate)

    def _count_clipped(self, block: np.ndarray) -> None:
        highest = max(float(block.max()), -float(block.min()))
        level = min(max(self.peak, highest), 1.0) * SAME_LEVEL
        if self.peak < level:
            self.clipped = 0  # runs at a lower level were not clipped
        self.peak = max(self.peak, highest)
        if self.peak >= CLIPPED_FROM and highest >= level:
            for channel in block.T:
                edges = np.flatnonzero(np.diff(np.abs(channel) >= level, prepend=False, append=False))
                lengths = edges[1::2] - edges[::2]
                self.clipped += int(lengths[lengths >= CLIPPED_RUN].sum())

    def result(self, path: Path, clip: Clip) -> Measurement:
        """All measurements; `clip` is the result of `inspect`."""
        file = self.file
        promised, remarks = _compare_lengths(path, file, clip.seconds) if file else (None, ())
        powers = np.concatenate(self.powers)
        values = max(1, self.samples * clip.channels)
        energy = float(powers.sum(dtype=np.float64)) * self.frame_values + float(self.rest @ self.rest)
        if len(self.rest):
            powers = np.append(powers, self.rest @ self.rest / len(self.rest))
        spectrum = self.spectrum / (max(1, self.spectra) * float(HANN @ HANN))
        present = np.flatnonzero(spectrum > max(NOISE_POWER, NOISE_SHARE * float(spectrum.max())))
        return Measurement(
            **vars(clip),
            remarks=remarks,
            format=file.format if file else "",
            subtype=file.subtype if file else "",
            suffix_format=SNDFILE_FORMATS.get(path.suffix.lower(), ""),
            seconds_promised=promised,
            samples_hash=self.hash.hexdigest() if self.samples else "",
            peak=self.peak,
            rms_dbfs=10 * float(np.log10(energy / values)) if energy > 0 else -np.inf,
            clipped_share=self.clipped / values,
            silent_share=float((powers < SILENT_POWER).sum()) / max(1, len(powers)),
            is_dual_mono=self.is_dual_mono and clip.channels > 1 and self.samples > 0,
            dc_offset=self.sum / max(1, self.samples),
            bandwidth_hz=(max([-0.5, *present[-1:].tolist()]) + 0.5) * clip.sample_rate_hz / SPECTRUM_SAMPLES,
            fingerprint=self.fingerprinter.words(),
        )


def _compare_lengths(path: Path, file: AudioFile, seconds: float) -> tuple[float | None, tuple[str, ...]]:
    """The seconds that the header promises, and remarks about it if `seconds` were decoded."""
    promised, remarks = file.seconds_promised, []
    try:
        with open_bytes(path) as stream:
            (expected, present, unread), is_cut_ogg = _data_bytes(stream), _ogg_without_end(stream)
    except AudioError:  # it was decoded a moment ago; `inspect` has reported what can be
        return promised, ()
    if promised and present:
        promised *= max(1.0, expected / present)
    if unread:
        remarks.append(f"the header promises {expected} bytes of samples, {unread} more are not read")
    if file.mp3_unread:
        remarks.append("another mp3 with another sample rate or number of channels follows and is not read")
    if is_cut_ogg:
        remarks.append("the last page is not marked as the end: the file may be truncated")
    if promised is not None and abs(promised - seconds) > LENGTH_TOLERANCE_SECONDS:
        early = "ends early: " if promised > seconds else ""
        remarks.append(f"{early}the header promises {promised:.1f} s, {seconds:.1f} s were decoded")
    return promised, tuple(remarks)


def _data_bytes(stream: BufferedReader) -> tuple[int, int, int]:
    """Bytes of samples in a WAV, AIFF or AU file: promised by the header, present (libsndfile reports only
    these), and present beyond the promised ones, unless they are few or another chunk.

    Zeros for other formats, and if the header does not say: a program that writes to a pipe cannot know the
    length and leaves 0xFFFFFFFF (ffmpeg) or about 0x7FFFFFFF (sox, arecord).
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(12).ljust(12, b"\0")
    order = {b"RIFF": "<", b"RF64": "<", b"RIFX": ">", b"FORM": ">"}.get(head[:4])
    at, promised, long, name = 12, 0, 0, b""
    if head[:4] in (b".snd", b"dns."):
        at, promised = struct.unpack(">II" if head[:4] == b".snd" else "<II", head[4:])
    elif order is None:
        return 0, 0, 0
    while order and name not in (b"data", b"SSND"):
        at += promised + promised % 2
        if at + 8 > size:
            return 0, 0, 0
        stream.seek(at)
        name, promised = struct.unpack(order + "4sI", stream.read(8))
        at += 8
        if name == b"ds64":  # RF64: lengths of more than 32 bits
            long = struct.unpack("<8xQ", stream.read(16).ljust(16, b"\0"))[0]
    if name == b"SSND":  # two numbers come before the samples
        at, promised = at + 8, promised - 8
    promised = long if long and promised == 0xFFFFFFFF else promised
    if promised >= UNKNOWN_BYTES and promised != long:
        return 0, 0, 0
    stream.seek(min(size, at + promised + promised % 2))
    after = stream.read(4)
    is_chunk = order and all(32 <= byte < 127 for byte in after) and after not in (b"RIFF", b"FORM")
    unread = size - at - promised
    return promised, size - at, 0 if is_chunk or unread <= (size - at) // 100 else unread


def _ogg_without_end(stream: BufferedReader) -> bool:
    """Whether the last page of an Ogg file lacks the flag "end of stream" (RFC 3533, section 6)."""
    stream.seek(0)
    if stream.read(4) != b"OggS":
        return False
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - LONGEST_OGG_PAGE_BYTES))
    last = stream.read().rpartition(b"OggS")[2]
    return len(last) < 2 or not last[1] & 4
