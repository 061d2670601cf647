"""Near-duplicates: the same recording in another encoding, level, sample rate or cut.

A clip's fingerprint is the one of Haitsma and Kalker ("A highly robust audio fingerprinting system", ISMIR
2002): signs of energy differences between neighbouring bands and moments. Two clips are compared by the bit
error rate of the words that lie over each other at an offset; the offsets that are tried are those at which
at least one whole word agrees.

Another tempo, key, remix or performance is another recording here.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from mgc.data.checking.measure import Examination, examine

# As in the paper, but every second window: half a hop beside the other clip's windows still costs only
# 2 % of the bits (measured; 12 % with the next longer hop).
RATE_HZ = 5_512.5
WINDOW = 2_048  # 0.37 s
HOP = 128  # 23 ms
HOP_SECONDS = HOP / RATE_HZ
BANDS = 33
BAND_EDGES = np.round(np.geomspace(300, 2_000, BANDS + 1) * WINDOW / RATE_HZ).astype(int)  # FFT bins
MAX_SECONDS = 600.0  # what is heard of a long file: 103 kB of words
WINDOWS_AT_ONCE = 32  # their arrays fit the cache of a core

# A change below these shares of the energy in the bands concerned, and of all bands, is no change: the bits
# would be those of rounding or of coding noise.
STEADY = 1e-3
STEADY_OF_ALL = 1e-5
HANN = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
SILENT_ENERGY = 1e-10 * float(HANN @ HANN) * WINDOW / 2  # -100 dBFS

# Unrelated clips, best of all offsets: 0.42 at least among 79,795 pairs of Emotify, 0.35 among 28,680 pairs
# of the demo set. The same recording of Emotify in mp3 of 32 kb/s 0.12 at most, under noise of 20 dB 0.24.
MAX_BIT_ERROR_RATE = 0.30
MIN_SECONDS = 5.0  # shorter overlaps scatter too much
MIN_TELLING_SECONDS = 2.5  # of them neither silent nor steady in both clips
ALL_PAIRS_UP_TO = 8  # clips with a word in common; of more, only neighbours are compared
GLANCE_WORDS = 32  # of the overlap are compared first
GLANCE_BIT_ERROR_RATE = 0.40  # scatter of so few: 0.03
CANDIDATES_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Pair:
    """Two clips that hold the same recording, by their positions in the list; `first` < `second`.

    The second clip starts `offset_seconds` after the first (before it where negative).
    """

    first: int
    second: int
    seconds_overlap: float
    offset_seconds: float
    bit_error_rate: float


class Fingerprinter:
    """Makes a fingerprint of samples that come block by block; only the first `MAX_SECONDS` are heard."""

    def __init__(self) -> None:
        self._resampler: soxr.ResampleStream | None = None
        self._ahead = np.zeros(0, np.float32)  # samples at RATE_HZ from the start of the next window on
        self._seconds = 0.0
        self._last: np.ndarray | None = None  # band energies of the last window, (1, BANDS)
        self._words: list[np.ndarray] = []

    def take(self, samples: np.ndarray, sample_rate_hz: int) -> None:
        """The next mono samples, (n,) float32; the rate is that of the first call."""
        if self._resampler is None:
            self._resampler = soxr.ResampleStream(sample_rate_hz, RATE_HZ, 1, dtype="float32")
        left = round((MAX_SECONDS - self._seconds) * sample_rate_hz)
        if left > 0:
            self._seconds += len(samples) / sample_rate_hz
            self._hear(self._resampler.resample_chunk(samples[:left]))

    def words(self) -> np.ndarray:
        """The fingerprint, (n,) uint32, a word every 23 ms; empty for less than 0.4 s. Ends the clip."""
        if self._resampler is not None:
            self._hear(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
            self._resampler = None
            self._seconds = MAX_SECONDS
        return np.concatenate([np.zeros(0, np.uint32), *self._words])

    def _hear(self, samples: np.ndarray) -> None:
        ahead = np.concatenate([self._ahead, samples])
        if len(ahead) >= WINDOW:
            windows = np.lib.stride_tricks.sliding_window_view(ahead, WINDOW)[::HOP]
            for start in range(0, len(windows), WINDOWS_AT_ONCE):
                self._add(_band_energies(windows[start : start + WINDOWS_AT_ONCE]))
            ahead = ahead[len(windows) * HOP :].copy()
        self._ahead = ahead

    def _add(self, energies: np.ndarray) -> None:
        if self._last is not None:
            energies = np.concatenate([self._last, energies])
        self._last = energies[-1:]
        self._words.append(_words(energies))


def fingerprint(samples: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """The fingerprint, (n,) uint32, of mono samples, (samples,) float32."""
    printer = Fingerprinter()
    printer.take(samples, sample_rate_hz)
    return printer.words()


def examine_and_print(path: Path) -> tuple[Examination, np.ndarray]:
    """`examine` and the fingerprint of what could be decoded, in one pass over the file."""
    printer = Fingerprinter()
    return examine(path, printer.take), printer.words()


def _band_energies(windows: np.ndarray) -> np.ndarray:
    """(windows, WINDOW) samples to (windows, BANDS)."""
    spectra = np.fft.rfft(windows * HANN)[:, BAND_EDGES[0] : BAND_EDGES[-1]]
    power = spectra.real**2 + spectra.imag**2
    return np.add.reduceat(power, BAND_EDGES[:-1] - BAND_EDGES[0], axis=1)


def _words(energies: np.ndarray) -> np.ndarray:
    """(n + 1, BANDS) energies to (n,) uint32; 0 where nothing is heard or nothing changes."""
    tilt = energies[:, :-1] - energies[:, 1:]
    level = energies[:, :-1] + energies[:, 1:]
    total = energies.sum(axis=1, keepdims=True)
    floor = STEADY * (level[1:] + level[:-1]) + STEADY_OF_ALL * total[1:]
    bits = (tilt[1:] - tilt[:-1] > floor) & (total[1:] > SILENT_ENERGY)
    return np.packbits(bits, axis=1, bitorder="little").view("<u4")[:, 0].astype(np.uint32)


# ---- comparing -------------------------------------------------------------------------------------------


def near_duplicates(prints: Sequence[np.ndarray]) -> list[Pair]:
    """Pairs of clips that hold the same recording for at least five seconds, by their fingerprints.

    At the offset told, at most `MAX_BIT_ERROR_RATE` of the bits over the whole overlap differ, where 0.5 is
    chance. Parts in which both clips are silent or steady say nothing. Clips that are all the same are
    connected by the pairs, but not every pair is told (of 8,000 copies there are 32 million): all of up to
    eight similar clips, and of clips with equal fingerprints those of the first.
    """
    alone, pairs = _equal_prints(prints)
    index = _Index([prints[clip] for clip in alone])
    found: dict[tuple[int, int], Pair] = {}
    groups = _Groups(len(prints))
    for one, other, offset in index.candidates():
        first, second = alone[one], alone[other]
        known = found.get((first, second))
        if not known and groups.is_told(first, second):
            continue
        pair = _verified(prints, first, second, offset)
        if pair and (not known or _evidence(pair) > _evidence(known)):
            if not known:
                groups.join(first, second)
            found[first, second] = pair
    return sorted([*pairs, *found.values()], key=lambda pair: (pair.first, pair.second))


class _Groups:
    """Which clips are connected by pairs, and by how many."""

    def __init__(self, clips: int) -> None:
        self.parents = list(range(clips))
        self.partners = [0] * clips

    def root(self, clip: int) -> int:
        """The clip that stands for the group of `clip`."""
        while self.parents[clip] != clip:
            self.parents[clip] = self.parents[self.parents[clip]]
            clip = self.parents[clip]
        return clip

    def join(self, first: int, second: int) -> None:
        """One more pair."""
        self.parents[self.root(second)] = self.root(first)
        self.partners[first] += 1
        self.partners[second] += 1

    def is_told(self, first: int, second: int) -> bool:
        """A pair of these would tell nothing new: they are connected, and both have partners enough."""
        enough = min(self.partners[first], self.partners[second]) >= ALL_PAIRS_UP_TO
        return enough and self.root(first) == self.root(second)


def _equal_prints(prints: Sequence[np.ndarray]) -> tuple[list[int], list[Pair]]:
    """The first clip of every different fingerprint, and a pair of it and each that equals it."""
    seen: dict[bytes, int] = {}
    pairs = []
    for clip, words in enumerate(prints):
        first = seen.setdefault(hashlib.blake2b(words.data, digest_size=16).digest(), clip)
        if first != clip and (pair := _verified(prints, first, clip, 0)):
            pairs.append(pair)
    return list(seen.values()), pairs


def _evidence(pair: Pair) -> float:
    """Bits that agree beyond chance: between repetitions of a loop, the offset that explains most wins."""
    return (0.5 - pair.bit_error_rate) * pair.seconds_overlap


def _verified(prints: Sequence[np.ndarray], first: int, second: int, offset: int) -> Pair | None:
    """The pair if it is one; `offset` is the word of the first clip at which the second starts."""
    one = prints[first][max(0, offset) :]
    two = prints[second][max(0, -offset) :]
    overlap = min(len(one), len(two))
    one, two = one[:overlap], two[:overlap]
    if overlap * HOP_SECONDS < MIN_SECONDS:
        return None
    different, telling = _difference(one, two)
    if telling * HOP_SECONDS < MIN_TELLING_SECONDS or different > MAX_BIT_ERROR_RATE * 32 * telling:
        return None
    rate = float(different / (32 * telling))
    return Pair(first, second, overlap * HOP_SECONDS, offset * HOP_SECONDS, rate)


def _difference(one: np.ndarray, two: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bits that differ, and the number of words that tell something, both summed over the last axis.

    A word tells as much as the bits that would differ by chance, given how many are set on each side: 16 of
    32 as a rule, few where both clips are steady, none where both are silent. Without this, two clips would
    agree because both hold long notes.
    """
    set_one, set_two = np.bitwise_count(one).astype(np.int32), np.bitwise_count(two).astype(np.int32)
    by_chance = set_one * (32 - set_two) + set_two * (32 - set_one)  # times 32
    return np.bitwise_count(one ^ two).sum(axis=-1, dtype=np.int64), by_chance.sum(axis=-1) / (32 * 16)


class _Index:
    """All words of all clips in one array, and where each word stands."""

    def __init__(self, prints: Sequence[np.ndarray]) -> None:
        self.lengths = np.array([len(words) for words in prints], np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.words = np.concatenate([np.zeros(0, np.uint32), *prints])

    def candidates(self) -> Iterator[tuple[int, int, int]]:
        """(first clip, second clip, offset) that survive a glance."""
        keys = self._keys()
        for start in range(0, len(keys), CANDIDATES_AT_ONCE):
            first, second, offset = self._unpack(keys[start : start + CANDIDATES_AT_ONCE])
            kept = self._glance(first, second, offset)
            yield from zip(first[kept].tolist(), second[kept].tolist(), offset[kept].tolist(), strict=True)

    def _keys(self) -> np.ndarray:
        """Every (first, second, offset) at which a word agrees, once, packed into an int64 each."""
        word, clip, place = self._entries()
        found = [np.zeros(0, np.int64)]
        begins = np.flatnonzero(np.diff(word, prepend=~word[:1]))
        sizes = np.diff(begins, append=len(word))
        shared = np.repeat(sizes > 1, sizes)
        word, clip, place = word[shared], clip[shared], place[shared]
        few = np.repeat(sizes <= ALL_PAIRS_UP_TO, sizes)[shared]
        for step in range(1, ALL_PAIRS_UP_TO):
            same = word[step:] == word[:-step]
            if step > 1:
                same &= few[step:]
            later = np.flatnonzero(same) + step
            first, second = clip[later - step].astype(np.int64), clip[later].astype(np.int64)
            found.append(np.unique(self._pack(first, second, place[later - step] - place[later])))
        return np.unique(np.concatenate(found))

    def _entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Word, clip and place in the clip, sorted by word and clip; of a clip's repetitions the first."""
        order = self.words.astype(np.uint64)
        order <<= np.uint64(32)
        order |= np.arange(len(order), dtype=np.uint64)
        order.sort()
        order = order[np.searchsorted(order, np.uint64(1 << 32)) :]  # the word 0 tells nothing
        word, at = (order >> np.uint64(32)).astype(np.uint32), order.astype(np.uint32)  # the low half
        del order
        clip = np.repeat(np.arange(len(self.lengths), dtype=np.int32), self.lengths)[at]
        fresh = np.ones(len(word), bool)
        fresh[1:] = (word[1:] != word[:-1]) | (clip[1:] != clip[:-1])
        word, clip, at = word[fresh], clip[fresh], at[fresh]
        return word, clip, (at - self.starts[clip]).astype(np.int32)

    def _pack(self, first: np.ndarray, second: np.ndarray, offset: np.ndarray) -> np.ndarray:
        longest = int(self.lengths.max(initial=1))
        return (first * len(self.lengths) + second) * (2 * longest) + offset + longest

    def _unpack(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        longest = int(self.lengths.max(initial=1))
        both, offset = np.divmod(keys, 2 * longest)
        first, second = np.divmod(both, len(self.lengths))
        return first, second, offset - longest

    def _glance(self, first: np.ndarray, second: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """Which candidates overlap long enough and agree at some words spread over the overlap."""
        from_, to = np.maximum(0, offset), np.minimum(self.lengths[first], self.lengths[second] + offset)
        long_enough = (to - from_) * HOP_SECONDS >= MIN_SECONDS
        spread = (np.arange(GLANCE_WORDS) + 0.5) / GLANCE_WORDS
        places = (from_[:, None] + spread * np.maximum(0, to - from_)[:, None]).astype(np.int64)
        one = self.words[(self.starts[first][:, None] + places).clip(0, len(self.words) - 1)]
        there = self.starts[second][:, None] + places - offset[:, None]
        two = self.words[there.clip(0, len(self.words) - 1)]
        different, telling = _difference(one, two)
        unsure = telling < GLANCE_WORDS / 4
        return long_enough & (unsure | (different <= GLANCE_BIT_ERROR_RATE * 32 * telling))
