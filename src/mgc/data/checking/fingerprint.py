"""Near-duplicates: the same recording in another encoding, level, sample rate or cut.

The fingerprint of a clip is that of Haitsma and Kalker ("A highly robust audio fingerprinting system", ISMIR
2002): the signs of energy differences between neighbouring bands and moments. Two clips are compared by the
bit error rate of the words that overlap at an offset; the offsets tried are those at which at least one whole
word is equal.

Another tempo, key, remix or performance counts as another recording.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import soxr

# As in the paper, except for every second window: windows half a hop away from those of the other clip cost
# only 2 % of the bits (measured; 12 % with twice the hop).
SAMPLE_RATE_HZ = 5_512.5
WINDOW = 2_048  # 0.37 s
HOP = 128  # 23 ms
HOP_SECONDS = HOP / SAMPLE_RATE_HZ
BANDS = 33
BAND_EDGES = np.round(np.geomspace(300, 2_000, BANDS + 1) * WINDOW / SAMPLE_RATE_HZ).astype(int)  # FFT bins
MAX_SECONDS = 600.0  # only the start of a long file is used: 103 kB of words
WINDOWS_AT_ONCE = 32  # their arrays fit into the cache of a core

# A change below these shares of the energy in the bands concerned, and in all bands, counts as no change: its
# sign would be rounding or coding noise.
MIN_CHANGE = 1e-3
MIN_CHANGE_OF_TOTAL = 1e-5
HANN = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
SILENT_ENERGY = 1e-10 * float(HANN @ HANN) * WINDOW / 2  # -100 dBFS

# Lowest rate at any offset for unrelated clips: 0.42 among 79,795 pairs of Emotify, 0.35 among 28,680 pairs
# of the demo set. Highest rate for the same recording of Emotify: 0.12 as mp3 of 32 kb/s, 0.24 with noise at
# 20 dB.
MAX_BIT_ERROR_RATE = 0.30
MIN_OVERLAP_SECONDS = 5.0  # the rate of shorter overlaps varies too much
MIN_INFORMATIVE_SECONDS = 2.5  # of the overlap, neither silent nor steady in both clips
ALL_PAIRS_UP_TO = 8  # clips that share a word; of more, only neighbours are compared
PROBE_WORDS = 32  # words of the overlap that are compared first
PROBE_BIT_ERROR_RATE = 0.40  # the standard deviation of so few words is 0.03
CANDIDATES_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Pair:
    """Two clips that contain the same recording, by their positions in the list; `first` < `second`."""

    first: int
    second: int
    seconds_overlap: float
    offset_seconds: float  # at which the second clip starts in the first
    bit_error_rate: float


class Fingerprinter:
    """Computes the fingerprint of samples that come in blocks; only the first `MAX_SECONDS` count."""

    def __init__(self) -> None:
        self._resampler: soxr.ResampleStream | None = None
        self._samples = [np.zeros(0, np.float32)]  # at SAMPLE_RATE_HZ
        self._seconds = 0.0

    def take(self, samples: np.ndarray, sample_rate_hz: int) -> None:
        """Add mono samples, (n,) float32; the rate is that of the first call."""
        if self._resampler is None:
            self._resampler = soxr.ResampleStream(sample_rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
        left = round((MAX_SECONDS - self._seconds) * sample_rate_hz)
        if left > 0:
            self._seconds += len(samples) / sample_rate_hz
            self._samples.append(self._resampler.resample_chunk(samples[:left]))

    def words(self) -> np.ndarray:
        """The fingerprint, (n,) uint32, one word per 23 ms; empty below 0.4 s. Ends the clip."""
        if self._resampler is not None:
            self._samples.append(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
            self._resampler, self._seconds = None, MAX_SECONDS
        samples = np.concatenate(self._samples)
        if len(samples) < WINDOW:
            return np.zeros(0, np.uint32)
        windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
        starts = range(0, len(windows), WINDOWS_AT_ONCE)
        return _words(np.concatenate([_band_energies(windows[i : i + WINDOWS_AT_ONCE]) for i in starts]))


def _band_energies(windows: np.ndarray) -> np.ndarray:
    """(windows, WINDOW) samples to (windows, BANDS)."""
    spectra = np.fft.rfft(windows * HANN)[:, BAND_EDGES[0] : BAND_EDGES[-1]]
    power = spectra.real**2 + spectra.imag**2
    return np.add.reduceat(power, BAND_EDGES[:-1] - BAND_EDGES[0], axis=1)


def _words(energies: np.ndarray) -> np.ndarray:
    """(n + 1, BANDS) energies to (n,) uint32; 0 where the clip is silent or nothing changes."""
    tilt = energies[:, :-1] - energies[:, 1:]
    level = energies[:, :-1] + energies[:, 1:]
    total = energies.sum(axis=1, keepdims=True)
    floor = MIN_CHANGE * (level[1:] + level[:-1]) + MIN_CHANGE_OF_TOTAL * total[1:]
    bits = (tilt[1:] - tilt[:-1] > floor) & (total[1:] > SILENT_ENERGY)
    return np.packbits(bits, axis=1, bitorder="little").view("<u4")[:, 0].astype(np.uint32)


def near_duplicates(prints: Sequence[np.ndarray]) -> list[Pair]:
    """Pairs of clips that contain the same recording for at least five seconds, by their fingerprints.

    At the offset of a pair, at most `MAX_BIT_ERROR_RATE` of the bits in the whole overlap differ (0.5 is
    chance). Parts in which both clips are silent or steady do not count. All clips of the same recording are
    connected by pairs, but not every pair is returned: 8,000 copies have 32 million.
    """
    found: dict[tuple[int, int], Pair] = {}
    for first, second, offset in WordIndex(prints).candidates():
        one, two = prints[first][max(0, offset) :], prints[second][max(0, -offset) :]
        overlap = min(len(one), len(two))
        different, informative = _difference(one[:overlap], two[:overlap])
        too_few = informative * HOP_SECONDS < MIN_INFORMATIVE_SECONDS
        if too_few or different > MAX_BIT_ERROR_RATE * 32 * informative:
            continue
        rate = float(different / (32 * informative))
        pair = Pair(first, second, overlap * HOP_SECONDS, offset * HOP_SECONDS, rate)
        # Among repetitions of a loop, the offset that explains most wins: equal bits beyond chance.
        best = found.get((first, second), pair)
        found[first, second] = max(best, pair, key=lambda p: (0.5 - p.bit_error_rate) * p.seconds_overlap)
    return sorted(found.values(), key=lambda pair: (pair.first, pair.second))


def _difference(one: np.ndarray, two: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of bits that differ, and number of informative words, both summed over the last axis.

    A word counts by the bits that would differ by chance, given how many are set in each clip: 16 of 32 as a
    rule, few if both clips are steady, none if both are silent. Otherwise clips of long notes would agree.
    """
    set_one, set_two = np.bitwise_count(one).astype(np.int32), np.bitwise_count(two).astype(np.int32)
    by_chance = set_one * (32 - set_two) + set_two * (32 - set_one)  # times 32
    return np.bitwise_count(one ^ two).sum(axis=-1, dtype=np.int64), by_chance.sum(axis=-1) / (32 * 16)


class WordIndex:
    """All words of all clips in one array, and where each word occurs."""

    def __init__(self, prints: Sequence[np.ndarray]) -> None:
        self.lengths = np.array([len(words) for words in prints], np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.words = np.concatenate([np.zeros(0, np.uint32), *prints])
        self.longest = int(self.lengths.max(initial=1))
        self.shape = (max(1, len(prints)), max(1, len(prints)), 2 * self.longest)  # first, second, offset

    def candidates(self) -> Iterator[tuple[int, int, int]]:
        """(first clip, second clip, offset) for which some words of a long enough overlap agree well enough.

        The second clip starts at word `offset` of the first.
        """
        keys = self.keys()
        spread = (np.arange(PROBE_WORDS) + 0.5) / PROBE_WORDS
        for begin in range(0, len(keys), CANDIDATES_AT_ONCE):
            found = np.stack(np.unravel_index(keys[begin : begin + CANDIDATES_AT_ONCE], self.shape))
            found[2] -= self.longest
            first, second, offset = found
            start, end = np.maximum(0, offset), np.minimum(self.lengths[first], self.lengths[second] + offset)
            long_enough = (end - start) * HOP_SECONDS >= MIN_OVERLAP_SECONDS
            first, second, offset = found = found[:, long_enough]
            start, length = start[long_enough, None], (end - start)[long_enough, None]
            places = (start + spread * length).astype(np.int64)  # (candidates, PROBE_WORDS)
            one = self.words[self.starts[first, None] + places]
            two = self.words[self.starts[second, None] + places - offset[:, None]]
            different, informative = _difference(one, two)
            unsure = informative < PROBE_WORDS / 4
            kept = unsure | (different <= PROBE_BIT_ERROR_RATE * 32 * informative)
            yield from map(tuple, found[:, kept].T.tolist())

    def keys(self) -> np.ndarray:
        """Every (first, second, offset) at which a word is equal, once, as flat positions in `shape`.

        Their number is linear in the number of clips: of many clips that share a word, only neighbours count.
        """
        # The first place of each word in each clip, sorted by word and clip.
        clips = np.repeat(np.arange(len(self.lengths), dtype=np.uint64), self.lengths)
        key, place = np.unique(self.words.astype(np.uint64) << np.uint64(32) | clips, return_index=True)
        start = np.searchsorted(key, np.uint64(1 << 32))  # the word 0 is not informative
        word, clip = (key[start:] >> np.uint64(32)).astype(np.uint32), key[start:].astype(np.uint32)
        place = place[start:] - self.starts[clip]
        _, group, sizes = np.unique(word, return_inverse=True, return_counts=True)
        size = sizes[group]  # clips that contain the word
        found = [np.zeros(0, np.int64)]
        for step in range(1, ALL_PAIRS_UP_TO):
            same = word[step:] == word[:-step]
            if step > 1:
                same &= size[step:] <= ALL_PAIRS_UP_TO
            later = np.flatnonzero(same) + step
            offset = place[later - step] - place[later] + self.longest
            found.append(np.ravel_multi_index((clip[later - step], clip[later], offset), self.shape))
        return np.unique(np.concatenate(found))
