"""Effects of a poor transmission on a whole clip: noise, gain, mp3, filters, a ten-second crop.

A clip is altered as a whole, at one sample rate, and written to a file that is then represented like any
other. So every system receives the same altered clip, however long its windows are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import soundfile

from mgc.audio.decoding import decode
from mgc.audio.mp3 import KBITS
from mgc.util.errors import MgcError, did_you_mean

REVISION = 1  # of all effects; raised by hand when one of them gives other samples
RATE_HZ = 44_100  # clips are altered at this rate, so white noise reaches 22 kHz whatever the file's own rate
LOW_RATE_HZ = 22_050  # of an mp3 below 32 kb/s, which MPEG 1 does not support
CROP_SECONDS = 10.0
POSITIONS = {"first": 0.0, "middle": 0.5, "last": 1.0}
FILTER_ORDER = 8  # Butterworth: 48 dB per octave
# The bitrate of libsndfile (1.2, LAME) is HIGH - level x (HIGH - LOW) kb/s; it refuses a level of 1.
LEVEL_KBITS = {RATE_HZ: (32, 320), LOW_RATE_HZ: (8, 160)}
MAX_LEVEL = 0.999
# LAME's encoder delays by 576 samples, a decoder by 529. Measured: at 48 kb/s and below a frame has no room
# for the header that states the delay, so the decoded clip is 1,105 samples late and longer than the input.
MP3_DELAY = 576 + 529


@dataclass(frozen=True)
class Effect:
    """A kind of alteration. Valid values are `low` to `high` in `unit`; `stronger` is 1 if larger values
    alter more, else -1."""

    title: str
    unit: str
    low: float
    high: float
    stronger: int
    alter: Callable[[Path, float, str, Path], Iterator[np.ndarray]]  # file, value, content hash, scratch file


@dataclass(frozen=True)
class Alteration:
    """An effect and its strength, such as 10 dB of noise."""

    effect: str
    value: float

    @classmethod
    def parse(cls, text: str) -> "Alteration":
        """Read `noise=10`.

        Raises:
            MgcError: unknown effect, or a value outside its range.
        """
        name, _, word = text.partition("=")
        if name not in EFFECTS:
            raise MgcError(f"unknown alteration {text!r}", fix=did_you_mean(name, EFFECTS))
        effect = EFFECTS[name]
        try:
            value = POSITIONS[word] if name == "crop" else float(word)
        except (KeyError, ValueError):
            value = np.nan
        possible = name != "mp3" or value in KBITS[value >= KBITS[True][0]]
        if not effect.low <= value <= effect.high or not possible:
            fix = {
                "crop": f"one of {', '.join(POSITIONS)}",
                "mp3": "16, 32, 64 or another bitrate of mp3",
            }.get(name, f"{name} takes {effect.low:g} to {effect.high:g} {effect.unit}")
            raise MgcError(f"invalid value in the alteration {text!r}", where="alterations", fix=fix)
        return cls(name, value)

    @property
    def text(self) -> str:
        """The form that `parse` reads."""
        return f"{self.effect}={self.strength}"

    @property
    def strength(self) -> str:
        """The value as text."""
        words = {share: word for word, share in POSITIONS.items()} if self.effect == "crop" else {}
        return words.get(self.value, f"{self.value:g}")

    @property
    def label(self) -> str:
        """The name in tables."""
        return f"{EFFECTS[self.effect].title} {self.strength} {EFFECTS[self.effect].unit}"

    def write(self, source: Path, content: str, target: Path) -> None:
        """Write the altered clip as mono float at RATE_HZ, block by block; noise is seeded by the content
        hash.

        Raises:
            AudioError: the clip cannot be decoded.
        """
        scratch = target.with_suffix(".mp3")
        with soundfile.SoundFile(target, "w", RATE_HZ, 1, format="CAF", subtype="FLOAT") as out:
            for block in EFFECTS[self.effect].alter(source, self.value, content, scratch):
                out.write(block)
        scratch.unlink(missing_ok=True)


# ---- effects: blocks of mono samples at RATE_HZ


def _noise(source: Path, snr_db: float, content: str, scratch: Path) -> Iterator[np.ndarray]:
    """White noise, `snr_db` below the level of the whole clip. All levels scale the same noise."""
    count, energy = 0, 0.0
    for block in decode(source, RATE_HZ):
        count, energy = count + len(block), energy + float(np.square(block, dtype=np.float64).sum())
    deviation = np.float32(np.sqrt(energy / max(1, count)) * 10 ** (-snr_db / 20))
    rng = np.random.default_rng(int(content, 16))
    for block in decode(source, RATE_HZ):
        yield block + deviation * rng.standard_normal(len(block), dtype=np.float32)


def _gain(source: Path, gain_db: float, content: str, scratch: Path) -> Iterator[np.ndarray]:
    """Clipped at full scale, as in an integer file."""
    for block in decode(source, RATE_HZ):
        yield np.clip(block * np.float32(10 ** (gain_db / 20)), -1.0, 1.0)


def _filtered(kind: str, source: Path, cutoff_hz: float, content: str, scratch: Path) -> Iterator[np.ndarray]:
    from scipy.signal import butter, sosfilt

    sections = butter(FILTER_ORDER, cutoff_hz, kind, fs=RATE_HZ, output="sos")
    state = np.zeros((len(sections), 2))
    for block in decode(source, RATE_HZ):
        passed, state = sosfilt(sections, block, zi=state)
        yield passed.astype(np.float32)


def _crop(source: Path, position: float, content: str, scratch: Path) -> Iterator[np.ndarray]:
    """A clip of ten seconds or less stays whole."""
    count = sum(map(len, decode(source, RATE_HZ)))
    length = min(count, round(CROP_SECONDS * RATE_HZ))
    yield from _part(decode(source, RATE_HZ), round(position * (count - length)), length)


def _mp3(source: Path, kbits: float, content: str, scratch: Path) -> Iterator[np.ndarray]:
    """Encoded by libsndfile's LAME at a constant bitrate and decoded, without the delay."""
    rate = RATE_HZ if kbits >= KBITS[True][0] else LOW_RATE_HZ
    low, high = LEVEL_KBITS[rate]
    level = min((high - kbits) / (high - low), MAX_LEVEL)
    with soundfile.SoundFile(
        scratch, "w", rate, 1, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode="CONSTANT",
        compression_level=level,
    ) as out:  # fmt: skip
        for block in decode(source, rate):
            out.write(block)
        count = out.frames
    late = sum(map(len, decode(scratch))) - count
    begin = MP3_DELAY if late >= MP3_DELAY else 0
    scale = RATE_HZ // rate
    yield from _part(decode(scratch, RATE_HZ), begin * scale, count * scale)


def _part(blocks: Iterator[np.ndarray], begin: int, length: int) -> Iterator[np.ndarray]:
    """Samples `begin` to `begin + length` of a stream, padded with zeros if it ends earlier."""
    place, end = 0, begin + length
    for block in chain(blocks, [np.zeros(length, np.float32)]):
        yield block[max(0, begin - place) : max(0, end - place)]
        place += len(block)


EFFECTS = {
    "noise": Effect("noise", "dB SNR", -20, 80, -1, _noise),
    "gain": Effect("gain", "dB", -60, 40, 1, _gain),
    "mp3": Effect("mp3", "kb/s", 8, 320, -1, _mp3),
    "lowpass": Effect("low-pass", "Hz", 50, 20_000, -1, partial(_filtered, "lowpass")),
    "highpass": Effect("high-pass", "Hz", 20, 15_000, 1, partial(_filtered, "highpass")),
    "crop": Effect("only the", f"{CROP_SECONDS:g} s", 0, 1, 1, _crop),
}
