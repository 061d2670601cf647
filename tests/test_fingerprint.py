"""Near-duplicates: found under every change that leaves the recording the same, and nowhere else."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from conftest import SHARED, needs_emotify

from mgc.audio import load
from mgc.data.checking import fingerprint as module
from mgc.data.checking.fingerprint import HOP_SECONDS, Fingerprinter, near_duplicates
from mgc.data.checking.measure import measure

RATE = 22_050
Samples = np.ndarray
ARTISTS = ("William Brooks", "Musica Franca")


def fingerprint(samples: Samples, rate: int) -> np.ndarray:
    """(n,) uint32, of mono samples that come in one block."""
    fingerprinter = Fingerprinter()
    fingerprinter.take(samples, rate)
    return fingerprinter.words()


def tune(seed: int, seconds: float = 20.0, rate: int = RATE) -> Samples:
    """(samples,) float32: two voices and a drum that do not repeat."""
    rng = np.random.default_rng(seed)
    wave = np.zeros(int(seconds * rate), np.float32)
    for start in np.arange(0, seconds, 0.23):
        note = np.arange(int(0.3 * rate)) / rate
        decay = np.exp(-note * rng.uniform(3, 15))
        for pitch in 220 * 2 ** (rng.integers(0, 30, 2) / 12):
            partials = sum(np.sin(2 * np.pi * pitch * k * note + rng.uniform(0, 6)) / k for k in (1, 2, 3))
            place = wave[int(start * rate) :][: len(note)]
            place += (0.1 * decay * partials)[: len(place)]
        place = wave[int(start * rate) :][: len(note)]
        place += (0.1 * np.exp(-note * 60) * rng.standard_normal(len(note)))[: len(place)]
    return wave


def encoded(samples: Samples, rate: int, folder: Path, name: str, level: float) -> tuple[Samples, int]:
    soundfile.write(folder / name, samples, rate, compression_level=level)
    return soundfile.read(folder / name, dtype="float32")


def resampled(samples: Samples, rate: int) -> Samples:
    return soxr.resample(samples, RATE, rate)


def noisy(samples: Samples, decibels: float) -> Samples:
    noise = np.random.default_rng(0).standard_normal(len(samples)) * samples.std()
    return (samples + noise * 10 ** (-decibels / 20)).astype(np.float32)


def low_passed(samples: Samples, hz: float) -> Samples:
    spectrum = np.fft.rfft(samples)
    spectrum[int(hz * len(samples) / RATE) :] = 0
    return np.fft.irfft(spectrum, len(samples)).astype(np.float32)


# (changed clip, its start in seconds)
CHANGES: dict[str, Callable[[Samples, Path], tuple[tuple[Samples, int], float]]] = {
    "the same": lambda x, d: ((x, RATE), 0.0),
    "gain": lambda x, d: ((x * np.float32(0.1), RATE), 0.0),
    "clipped": lambda x, d: ((np.clip(x * 3, -0.5, 0.5), RATE), 0.0),
    "16 kHz": lambda x, d: ((resampled(x, 16_000), 16_000), 0.0),
    "44.1 kHz": lambda x, d: ((resampled(x, 44_100), 44_100), 0.0),
    "mp3 of 64 kb/s": lambda x, d: (encoded(x, RATE, d, "a.mp3", 0.6), 0.0),
    "mp3 of 32 kb/s": lambda x, d: (encoded(x, RATE, d, "a.mp3", 0.8), 0.0),
    "vorbis": lambda x, d: (encoded(x, RATE, d, "a.ogg", 0.9), 0.0),
    "noise": lambda x, d: ((noisy(x, 20), RATE), 0.0),
    "low-pass": lambda x, d: ((low_passed(x, 1_500), RATE), 0.0),
    "cut, half a hop beside": lambda x, d: ((x[int((7 + HOP_SECONDS / 2) * RATE) :], RATE), 7.0),
    "cut on both sides": lambda x, d: ((x[int(5.123 * RATE) : int(12.4 * RATE)], RATE), 5.123),
    "all of it": lambda x, d: (encoded(noisy(x[int(3.33 * RATE) :], 20), RATE, d, "a.mp3", 0.7), 3.33),
}


@pytest.fixture(scope="module")
def tunes() -> list[np.ndarray]:
    return [fingerprint(tune(seed), RATE) for seed in range(8)]


@pytest.mark.parametrize("change", CHANGES)
def test_the_same_recording_is_found(tmp_path: Path, tunes: list[np.ndarray], change: str) -> None:
    (samples, rate), start = CHANGES[change](tune(3), tmp_path)
    (pair,) = near_duplicates([*tunes, fingerprint(np.ascontiguousarray(samples), rate)])
    assert (pair.first, pair.second) == (3, 8)
    assert pair.offset_seconds == pytest.approx(start, abs=0.08)  # an mp3 may begin 50 ms late
    assert pair.seconds_overlap == pytest.approx(len(samples) / rate - 0.37, abs=0.15)
    assert pair.bit_error_rate <= 0.25


def test_another_recording_is_not_found(tunes: list[np.ndarray]) -> None:
    assert near_duplicates(tunes) == []
    assert near_duplicates([]) == []
    faster = soxr.resample(tune(3), RATE, RATE * 0.94)  # half a tone up
    backwards = np.ascontiguousarray(tune(3)[::-1])
    short = tune(3, 4.9)
    others = [fingerprint(samples, RATE) for samples in (faster, backwards, short)]
    assert near_duplicates([*tunes, *others]) == []


def test_a_negative_offset_and_two_clips_that_only_overlap() -> None:
    samples = tune(5, 30.0)
    late, early = samples[12 * RATE :], samples[: 20 * RATE]
    (pair,) = near_duplicates([fingerprint(late, RATE), fingerprint(early, RATE)])
    assert pair.offset_seconds == pytest.approx(-12, abs=0.02)
    assert pair.seconds_overlap == pytest.approx(8, abs=0.4)
    six = fingerprint(samples[: 17 * RATE], RATE)
    assert near_duplicates([fingerprint(late, RATE), six]) == []  # 4.6 s of whole windows


def test_silence_and_steady_sounds_match_nothing() -> None:
    t = np.arange(20 * RATE) / RATE
    silence = np.zeros(20 * RATE, np.float32)
    tones = [(0.3 * np.sin(2 * np.pi * hz * t)).astype(np.float32) for hz in (440, 440, 441, 1_000)]
    chord = (0.1 * sum(np.sin(2 * np.pi * hz * t) for hz in (400, 500, 600))).astype(np.float32)
    hiss = [(1e-4 * np.random.default_rng(k).standard_normal(len(t))).astype(np.float32) for k in (0, 1)]
    faint = hiss[0] * np.float32(1e-2)  # what a decoder leaves of silence
    half = np.concatenate([tune(1)[: 2 * RATE], silence])  # two seconds are not enough
    clips = [silence, faint, *tones, tones[0] * np.float32(0.5), chord, *hiss, half, half[RATE:]]
    clips += [silence, faint * np.float32(2)]
    prints = [fingerprint(clip, RATE) for clip in clips]
    assert not prints[0].any() and not prints[1].any()
    assert all((words == 0).mean() > 0.95 for words in prints[2:8])
    assert near_duplicates(prints) == []


def test_loops_are_matched_at_the_right_place(tunes: list[np.ndarray]) -> None:
    """Two tracks made of one loop each, one of them again 5 s later and quieter."""
    loops = [np.tile(tune(seed, 2.0), 12) for seed in (20, 21)]
    again = loops[0][int(5.0 * RATE) :] * np.float32(0.5)
    pairs = near_duplicates([*tunes, *(fingerprint(clip, RATE) for clip in (*loops, again))])
    (pair,) = pairs
    assert (pair.first, pair.second) == (8, 10)
    assert pair.offset_seconds % 2.0 == pytest.approx(1.0, abs=0.02)  # any of them is true
    assert pair.seconds_overlap > 18


def test_streaming_equals_the_whole_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = tune(0, 12.0, 44_100)
    once = fingerprint(samples, 44_100)
    assert (len(once), once.dtype) == (500, np.uint32)
    rng = np.random.default_rng(0)
    streamed = Fingerprinter()
    for block in np.split(samples, np.sort(rng.integers(0, len(samples), 40))):
        streamed.take(block, 44_100)
    assert np.bitwise_count(streamed.words() ^ once).sum() <= 16  # of 16,000: the resampler rounds
    np.testing.assert_array_equal(streamed.words(), streamed.words())
    monkeypatch.setattr(module, "MAX_SECONDS", 6.0)
    capped = Fingerprinter()
    for block in np.split(samples, 7):
        capped.take(block, 44_100)
    assert len(capped.words()) == pytest.approx(6.0 / HOP_SECONDS, abs=20)
    np.testing.assert_array_equal(capped.words()[:200], once[:200])
    assert [len(fingerprint(samples[:n], 44_100)) for n in (0, 100, 16_000)] == [0, 0, 0]


def test_measure_computes_the_fingerprint_of_a_file(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.stack([tune(0), tune(1)], axis=1), RATE)
    found = measure(tmp_path / "a.flac")
    assert (found.problem, found.channels) == (None, 2)
    np.testing.assert_array_equal(found.fingerprint, fingerprint(load(tmp_path / "a.flac"), RATE))
    (tmp_path / "b.flac").write_text("no music")
    assert measure(tmp_path / "b.flac").fingerprint.size == 0


# ---- many clips ------------------------------------------------------------------------------------------


def random_words(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(1, 1 << 32, count).astype(np.uint32)


def spoiled(rng: np.random.Generator, words: np.ndarray, share: float) -> np.ndarray:
    """With `share` of all bits turned over."""
    turned = np.packbits(rng.random((len(words), 32)) < share, axis=1, bitorder="little").view("<u4")[:, 0]
    return words ^ turned


def test_every_pair_among_many_clips_is_found() -> None:
    rng = np.random.default_rng(0)
    prints = [random_words(rng, 1_275) for _ in range(1_000)]
    for clip in range(0, 1_000, 10):
        prints[clip + 1] = spoiled(rng, prints[clip], 0.08)[100:]
    pairs = near_duplicates(prints)
    assert [(pair.first, pair.second) for pair in pairs] == [(k, k + 1) for k in range(0, 1_000, 10)]
    assert all(pair.offset_seconds == pytest.approx(100 * HOP_SECONDS) for pair in pairs)
    assert all(pair.bit_error_rate == pytest.approx(0.08, abs=0.01) for pair in pairs)


def test_some_words_in_common_are_not_enough() -> None:
    rng = np.random.default_rng(0)
    first = random_words(rng, 1_275)
    for share, count in ((0.1, 0), (0.3, 0), (0.5, 1)):
        second = np.where(rng.random(1_275) < share, first, random_words(rng, 1_275))
        assert len(near_duplicates([first, second])) == count


def test_clips_of_long_notes_do_not_agree_by_what_does_not_change() -> None:
    """Few bits are set, so few differ, whatever the music is."""
    rng = np.random.default_rng(0)
    bits = rng.random((20, 1_275, 32)) < 0.06
    prints = list(np.packbits(bits, axis=2, bitorder="little").view("<u4")[:, :, 0])
    assert np.bitwise_count(prints[0] ^ prints[1]).mean() < 0.15 * 32
    assert near_duplicates(prints) == []
    (pair,) = near_duplicates([*prints, prints[4] & spoiled(rng, ~np.zeros(1_275, np.uint32), 0.2)])
    assert (pair.first, pair.second) == (4, 20)


def groups(pairs: list[module.Pair], clips: int) -> int:
    names = list(range(clips))
    for pair in pairs:
        names = [names[pair.first] if name == names[pair.second] else name for name in names]
    return len(set(names))


@pytest.mark.parametrize("kind", ["identical", "nearly", "silent", "common words"])
def test_many_copies_do_not_need_quadratic_work(kind: str) -> None:
    rng = np.random.default_rng(0)
    one, common = random_words(rng, 1_275), random_words(rng, 30)
    make: dict[str, Callable[[], np.ndarray]] = {
        "identical": one.copy,
        "nearly": lambda: np.where(rng.random(1_275) < 0.2, random_words(rng, 1_275), one),
        "silent": lambda: np.zeros(1_275, np.uint32),
        "common words": lambda: np.where(
            rng.random(1_275) < 0.5, rng.choice(common, 1_275), random_words(rng, 1_275)
        ),
    }
    prints = [make[kind]() for _ in range(400)]
    assert len(module.WordIndex(prints).keys()) <= 30 * 400  # 80,000 pairs
    pairs = near_duplicates(prints)
    if kind in ("identical", "nearly"):
        assert groups(pairs, 400) == 1
        assert len(pairs) <= 9 * 400
    else:
        assert pairs == []


@needs_emotify
def test_pairs_of_emotify_are_of_one_artist_and_title() -> None:
    """Pieces that stand on two albums, or on one in two editions."""
    root = SHARED / "data/emotify"
    with (root / "tracks.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["artist"] in ARTISTS]
    pairs = near_duplicates([measure(root / row["path"]).fingerprint for row in rows])
    assert len(rows) > 20 and len(pairs) == 3
    for pair in pairs:
        first, second = rows[pair.first], rows[pair.second]
        assert first["artist"] == second["artist"]
        assert first["title"].rstrip(":") == second["title"].rstrip(":")
        assert pair.bit_error_rate < 0.15 and pair.seconds_overlap > 25
