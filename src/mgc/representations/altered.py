"""Clips as a bad line gives them: in noise, louder, as a small mp3, with fewer frequencies, ten seconds only.

A clip is altered as a whole, at one rate, and written out; then it is represented like any other file. So
every system hears the very same altered clip, however long its windows are: behind an encoder's windows a
level would be that of 3 s for one and of 30 s for another, and an mp3 would begin anew at every joint.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from mgc.audio import KBITS, decode
from mgc.representations.card import Encoder, Representation
from mgc.util.errors import MgcError, did_you_mean

if TYPE_CHECKING:
    import torch

ALTERED_PREFIX = "altered:"
REVISION = 1  # of all effects: raised by hand when one of them alters clips otherwise
RATE_HZ = 44_100  # at which clips are altered: white noise reaches up to 22 kHz, whatever the file's own rate
LOW_RATE_HZ = 22_050  # of an mp3 of less than 32 kb/s, which MPEG 1 does not know
CROP_SECONDS = 10.0
POSITIONS = {"first": 0.0, "middle": 0.5, "last": 1.0}
ORDER = 8  # of the Butterworth filters: 48 dB an octave
# libsndfile (1.2, LAME) asks for HIGH - level x (HIGH - LOW) kb/s; level 1 itself is refused.
LEVEL_KBITS = {RATE_HZ: (32, 320), LOW_RATE_HZ: (8, 160)}
MOST_LEVEL = 0.999
# LAME's encoder is 576 samples late, a decoder 529. Measured: at 48 kb/s and less a frame has no room for the
# header that tells a decoder so, and what it gives is 1,105 samples late and longer than what was put in.
MP3_DELAY = 576 + 529


@dataclass(frozen=True)
class Effect:
    """One kind of alteration; `low` to `high` are the values that make sense, in `unit`. `rising` is 1 where
    larger values alter more, else -1."""

    title: str
    unit: str
    low: float
    high: float
    rising: int
    alter: Callable[[Path, float, str, Path], Iterator[np.ndarray]]  # file, value, content hash, scratch file


@dataclass(frozen=True)
class Alteration:
    """An effect and its strength, written `noise=10`."""

    effect: str
    value: float

    @property
    def text(self) -> str:
        """What `parsed` reads."""
        return f"{self.effect}={self.strength}"

    @property
    def strength(self) -> str:
        """The value in a word."""
        words = {share: word for word, share in POSITIONS.items()} if self.effect == "crop" else {}
        return words.get(self.value, f"{self.value:g}")

    @property
    def label(self) -> str:
        """How tables call it."""
        return f"{EFFECTS[self.effect].title} {self.strength} {EFFECTS[self.effect].unit}"

    def write(self, source: Path, content: str, target: Path) -> None:
        """The altered clip as mono float at RATE_HZ, in blocks; noise is drawn from `content`, its hash.

        Raises:
            AudioError: the clip cannot be decoded.
        """
        scratch = target.with_suffix(".mp3")
        with soundfile.SoundFile(target, "w", RATE_HZ, 1, format="CAF", subtype="FLOAT") as out:
            for block in EFFECTS[self.effect].alter(source, self.value, content, scratch):
                out.write(block)
        scratch.unlink(missing_ok=True)


def parsed(text: str) -> Alteration:
    """`noise=10` as an alteration.

    Raises:
        MgcError: no such effect, or a value that makes no sense for it.
    """
    name, _, word = text.partition("=")
    if name not in EFFECTS:
        raise MgcError(f"there is no alteration {text!r}", fix=did_you_mean(name, EFFECTS))
    effect = EFFECTS[name]
    try:
        value = POSITIONS[word] if name == "crop" else float(word)
    except (KeyError, ValueError):
        value = np.nan
    known = name != "mp3" or value in KBITS[value >= KBITS[True][0]]
    if not effect.low <= value <= effect.high or not known:
        fix = f"{name} takes {effect.low:g} to {effect.high:g} {effect.unit}"
        fix = {"crop": f"one of {', '.join(POSITIONS)}", "mp3": "16, 32, 64 or another bitrate of mp3"}.get(
            name, fix
        )
        raise MgcError(f"{text!r} alters nothing that is known", where="alterations", fix=fix)
    return Alteration(name, value)


def altered(representation: Representation, alteration: Alteration) -> Representation:
    """The card of `representation` of altered clips, with a fingerprint of its own. It cannot be loaded: its
    encoder is that of `representation`, and whoever gives it files (`mgc.experiments.robust`) alters them."""
    encoder = soundfile.__libsndfile_version__ if alteration.effect == "mp3" else ""
    parts = (alteration.text, f"effects revision {REVISION}", encoder)
    return replace(
        representation,
        name=f"{representation.name} {alteration.label}",
        address=f"{ALTERED_PREFIX}{alteration.text}:{representation.address}",
        effect=" ".join(filter(None, (representation.effect, *parts))),
        load=partial(_refuse, alteration),
    )


def _refuse(alteration: Alteration, device: "torch.device") -> Encoder:
    what = f"{alteration.label}: altered clips are heard by models that learned from the clips as they are"
    raise MgcError(what, fix=f"mgc robust --only {alteration.text}")


# ---- what is done: blocks of mono samples at RATE_HZ


def _noise(source: Path, snr_db: float, content: str, scratch: Path) -> Iterator[np.ndarray]:
    """White noise, `snr_db` below the level of the whole clip. Weak noise is the strong one, turned down."""
    count, energy = 0, 0.0
    for block in decode(source, RATE_HZ):
        count, energy = count + len(block), energy + float(np.square(block, dtype=np.float64).sum())
    deviation = np.float32(np.sqrt(energy / max(1, count)) * 10 ** (-snr_db / 20))
    rng = np.random.default_rng(int(content, 16))
    for block in decode(source, RATE_HZ):
        yield block + deviation * rng.standard_normal(len(block), dtype=np.float32)


def _gain(source: Path, gain_db: float, content: str, scratch: Path) -> Iterator[np.ndarray]:
    """Beyond full scale it is cut off, as in a file of whole numbers."""
    for block in decode(source, RATE_HZ):
        yield np.clip(block * np.float32(10 ** (gain_db / 20)), -1.0, 1.0)


def _filtered(kind: str, source: Path, cutoff_hz: float, content: str, scratch: Path) -> Iterator[np.ndarray]:
    from scipy.signal import butter, sosfilt

    sections = butter(ORDER, cutoff_hz, kind, fs=RATE_HZ, output="sos")
    state = np.zeros((len(sections), 2))
    for block in decode(source, RATE_HZ):
        passed, state = sosfilt(sections, block, zi=state)
        yield passed.astype(np.float32)


def _crop(source: Path, position: float, content: str, scratch: Path) -> Iterator[np.ndarray]:
    """A clip that is no longer stays whole."""
    count = sum(map(len, decode(source, RATE_HZ)))
    length = min(count, round(CROP_SECONDS * RATE_HZ))
    yield from _part(decode(source, RATE_HZ), round(position * (count - length)), length)


def _mp3(source: Path, kbits: float, content: str, scratch: Path) -> Iterator[np.ndarray]:
    """There and back by libsndfile's LAME at a constant bitrate, the delay taken off."""
    rate = RATE_HZ if kbits >= KBITS[True][0] else LOW_RATE_HZ
    low, high = LEVEL_KBITS[rate]
    level = min((high - kbits) / (high - low), MOST_LEVEL)
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
    """Samples `begin` to `begin + length` of a stream; zeros where it ends before."""
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
