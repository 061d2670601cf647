"""Decoding, cutting and measuring audio files: against librosa, brute force, and with bad files."""

import importlib
import os
import re
import shutil
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import audioread
import librosa
import numpy as np
import pytest
import soundfile
from conftest import here, nobody, tone

from mgc.audio import AudioError, Window, Windowing, decode, decoding, inspect, load, loader, windows
from mgc.data import inspect_all
from mgc.data.checking.fingerprint import Fingerprinter
from mgc.data.checking.measure import measure

RATE = 44_100


@pytest.fixture
def stereo() -> np.ndarray:
    """(samples, 2): 2.5 s, the channels different."""
    return np.stack([tone(0, 2.5, RATE, 1), tone(1, 2.5, RATE, 2)], axis=1)


# ---- decode ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "au"])
def test_decode_is_librosa_load(tmp_path: Path, stereo: np.ndarray, suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    soundfile.write(file, stereo, RATE)
    for rate in (None, 8_000, 16_000, 22_050, 48_000):
        ours = load(file, rate)
        theirs, _ = librosa.load(file, sr=rate, mono=True, res_type="soxr_hq")
        assert ours.dtype == np.float32 and ours.ndim == 1
        assert abs(len(ours) - len(theirs)) <= 1  # librosa rounds the length up
        shared = min(len(ours), len(theirs))
        np.testing.assert_allclose(ours[:shared], theirs[:shared], atol=1e-6)


@pytest.mark.parametrize("block_values", [2_048, 10_000, 1 << 20])
def test_streaming_is_resampling_at_once(
    tmp_path: Path, stereo: np.ndarray, monkeypatch: pytest.MonkeyPatch, block_values: int
) -> None:
    soundfile.write(tmp_path / "a.wav", stereo, RATE, subtype="FLOAT")
    monkeypatch.setattr(decoding, "VALUES_PER_BLOCK", block_values)
    once = librosa.resample(stereo.mean(axis=1), orig_sr=RATE, target_sr=16_000, res_type="soxr_hq")
    streamed = np.concatenate(list(decode(tmp_path / "a.wav", 16_000)))
    assert len(streamed) == len(once) == 40_000
    np.testing.assert_allclose(streamed, once, atol=1e-6)


def test_many_channels_and_a_high_rate(tmp_path: Path) -> None:
    eight = np.random.default_rng(0).uniform(-0.5, 0.5, (192_000, 8)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", eight, 192_000, subtype="FLOAT")
    clip = inspect(tmp_path / "a.wav")
    assert (clip.seconds, clip.sample_rate_hz, clip.channels, clip.problem) == (1.0, 192_000, 8, None)
    np.testing.assert_allclose(load(tmp_path / "a.wav"), eight.mean(axis=1), atol=1e-6)
    assert len(load(tmp_path / "a.wav", 16_000)) == 16_000


def test_a_name_that_is_not_utf8(tmp_path: Path, stereo: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.wav", stereo, RATE)
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    try:
        shutil.copy(tmp_path / "a.wav", file)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert inspect(file) == inspect(tmp_path / "a.wav")


def test_m4a_plays_or_asks_for_ffmpeg(tmp_path: Path, stereo: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.wav", stereo, RATE)
    file = tmp_path / "a.m4a"
    if ffmpeg := shutil.which("ffmpeg"):
        subprocess.run([ffmpeg, "-i", tmp_path / "a.wav", file], check=True, capture_output=True)
        assert inspect(file).problem is None
        assert load(file, 16_000).size == pytest.approx(40_000, rel=0.05)
    file.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(999))
    assert "needs ffmpeg" in str(inspect(file).problem)


class FakeFfmpeg:
    """Six channels in pieces that end within a sample, as ffmpeg's pipe gives them."""

    samplerate, channels = 16_000, 6

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    def __enter__(self) -> "FakeFfmpeg":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            if not piece:
                raise audioread.DecodeError("broken")
            yield piece


@pytest.mark.parametrize("block_values", [600, 1 << 20])
def test_ffmpeg_pieces_become_whole_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_values: int
) -> None:
    integers = np.random.default_rng(0).integers(-32768, 32768, (16_000, 6), dtype=np.int16)
    data = integers.astype("<i2").tobytes()
    pieces = [data[start : start + 4096] for start in range(0, len(data), 4096)]
    file = tmp_path / "a.m4a"
    file.write_bytes(b"anything")
    monkeypatch.setattr(decoding, "VALUES_PER_BLOCK", block_values)
    monkeypatch.setattr(audioread, "audio_open", lambda path: FakeFfmpeg(pieces))
    np.testing.assert_allclose(load(file), integers.mean(axis=1) / 32768, atol=1e-6)
    monkeypatch.setattr(audioread, "audio_open", lambda path: FakeFfmpeg([*pieces, b""]))
    assert inspect(file).problem == "cannot be decoded: broken"


def test_a_file_without_channels_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeFfmpeg, "channels", 0)
    monkeypatch.setattr(audioread, "audio_open", lambda path: FakeFfmpeg([b"12"]))
    file = tmp_path / "a.m4a"
    file.write_bytes(b"anything")
    assert inspect_all([file], cache=here().cache)[0].problem == "cannot be decoded: the file has no channels"
    assert measure(file).problem == inspect_all([file], cache=here().cache)[0].problem


# ---- windows ---------------------------------------------------------------------------------------------


def cut_at_once(samples: np.ndarray, cut: Windowing) -> list[tuple[list[float], int, int]]:
    """The specification of `windows`, on the whole array: (samples, covered, real)."""

    def at(start: int, count: int) -> list[float]:
        places = range(start - cut.left, start + count + cut.right)
        return [float(samples[i]) if 0 <= i < len(samples) else 0.0 for i in places]

    full, rest = divmod(len(samples), cut.window)
    cuts = [(at(k * cut.window, cut.window), 0, cut.window) for k in range(full)]
    if cut.pad:
        return [*cuts, (at(full * cut.window, cut.window), 0, rest)]
    if rest == 0 or (full and rest <= cut.ignore):
        return cuts
    if full:
        return [*cuts, (at(len(samples) - cut.window, cut.window), cut.window - rest, cut.window)]
    return [(at(0, rest), 0, rest)]


def as_tuple(window: Window) -> tuple[list[float], int, int]:
    return window.samples.tolist(), window.covered, window.real


def test_windows_are_those_cut_from_the_whole_array(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(4_000):
        window = int(rng.integers(1, 12))
        cut = Windowing(
            1, window, left=int(rng.integers(0, 15)), right=int(rng.integers(0, 15)),
            pad=bool(rng.integers(2)), ignore=int(rng.integers(0, 5)),
        )  # fmt: skip
        length = int(rng.choice([rng.integers(0, 60), window * rng.integers(0, 6)]))
        samples = np.arange(1, length + 1, dtype=np.float32)
        borders = np.sort(rng.integers(0, length + 1, rng.integers(0, 9)))
        blocks = np.split(samples, borders)
        monkeypatch.setattr(loader, "decode", lambda path, rate, blocks=blocks: iter(blocks))
        ours = [as_tuple(window) for window in windows(Path("x"), cut)]
        assert ours == cut_at_once(samples, cut), (length, cut, borders)
        rest = length % window
        seen.add(
            (length < window, rest == 0, 0 < rest <= cut.ignore, cut.pad, cut.left > 0, cut.right > window)
        )
    assert len(seen) >= 30  # every kind of ending was among them


def test_windows_of_a_file_are_at_the_rate_asked_for(tmp_path: Path, stereo: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.flac", stereo, RATE)
    cut = Windowing(16_000, 16_000, left=100, right=200)
    whole = load(tmp_path / "a.flac", 16_000)
    assert [as_tuple(window) for window in windows(tmp_path / "a.flac", cut)] == cut_at_once(whole, cut)


def test_two_hours_need_no_more_memory_than_two_minutes(tmp_path: Path) -> None:
    second = (tone(0, 1.0, 8_000, 0) * 32767).astype(np.int16)
    for name, minutes in (("short", 2), ("long", 120)):
        with soundfile.SoundFile(tmp_path / f"{name}.wav", "w", 8_000, 1, subtype="ULAW") as file:
            for _ in range(minutes):
                file.write(np.tile(second, 60))
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom mgc.audio import Windowing, windows\n"
        "from mgc.data.checking.measure import measure\n"
        "for name in ('short', 'long'):\n"
        f"    file = Path({str(tmp_path)!r}) / (name + '.wav')\n"
        "    assert measure(file).problem is None\n"
        "    cut = Windowing(16_000, 480_000, left=8_000, right=8_000)\n"
        "    count = sum(1 for _ in windows(file, cut))\n"
        "    print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (few, before), (many, after) = [map(int, line.split()) for line in done.stdout.splitlines()]
    assert (few, many) == (4, 240)
    kib = 1024 if sys.platform == "darwin" else 1
    assert (after - before) / kib < 40_000  # the whole waveform is 460 MB


# ---- bad files -------------------------------------------------------------------------------------------


def sound(seconds: float = 2.0, channels: int = 1) -> np.ndarray:
    return np.stack([tone(0, seconds, RATE, k) for k in range(channels)], axis=1)


def write(file: Path, samples: np.ndarray, subtype: str | None = None) -> Path:
    soundfile.write(file, samples, RATE, subtype=subtype)
    return file


def spoiled(samples: np.ndarray, *values: float) -> np.ndarray:
    samples[500, : len(values)] = values
    return samples


def truncated(file: Path) -> Path:
    data = write(file, sound(4.0)).read_bytes()
    file.write_bytes(data[: len(data) // 2])
    return file


def with_data_size(file: Path, size: int) -> Path:
    """A wav file whose header promises `size` bytes of samples."""
    data = bytearray(write(file, sound()).read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = struct.pack("<I", size)
    file.write_bytes(data)
    return file


def text(file: Path) -> Path:
    file.write_text("Now this is a story all about how\n" * 99)
    return file


def blank(file: Path) -> Path:
    file.touch()
    return file


NO_WORDS = r"cannot be decoded: \S.+"
BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda d: d / "no.wav", "cannot be read: No such file"),
    "missing m4a": (lambda d: d / "no.m4a", "cannot be read: No such file"),
    "zero byte in the name": (lambda d: d / "a\0b.wav", "cannot be read: .*null"),
    "directory": (lambda d: d, "cannot be read: Is a directory"),
    "text named mp3": (lambda d: text(d / "a.mp3"), "cannot be decoded: Format not recognised"),
    "text named wav": (lambda d: text(d / "a.wav"), "cannot be decoded: Format not recognised"),
    "text named raw": (lambda d: text(d / "a.raw"), NO_WORDS),
    "text named m4a": (lambda d: text(d / "a.m4a"), NO_WORDS),
    "empty": (lambda d: blank(d / "a.mp3"), r"empty file \(0 bytes\)"),
    "one sample": (lambda d: write(d / "a.wav", sound()[:1]), "too short: 1 samples, 0.000 s"),
    "no samples": (lambda d: write(d / "a.wav", sound()[:0]), "too short: 0 samples"),
    "NaN": (lambda d: write(d / "a.wav", spoiled(sound(), np.nan), "FLOAT"), "not finite"),
    "infinity": (lambda d: write(d / "a.wav", spoiled(sound(2, 2), np.inf, -np.inf), "FLOAT"), "not finite"),
    "silence": (lambda d: write(d / "a.wav", 0 * sound()), "silent: every sample is zero"),
    "truncated flac": (lambda d: truncated(d / "a.flac"), NO_WORDS),
    "header says nothing": (lambda d: with_data_size(d / "a.wav", 0), "too short: 0 samples"),
}
USABLE: dict[str, tuple[Callable[[Path], Path], float]] = {
    "eight channels": (lambda d: write(d / "a.wav", sound(2, 8)), 2.0),
    "truncated mp3": (lambda d: truncated(d / "a.mp3"), 2.0),
    "truncated ogg": (lambda d: truncated(d / "a.ogg"), 2.0),
    "truncated wav": (lambda d: truncated(d / "a.wav"), 2.0),
    "header says too much": (lambda d: with_data_size(d / "a.wav", 0x7FFFFFFF), 2.0),
    "header says unknown": (lambda d: with_data_size(d / "a.wav", 0xFFFFFFFF), 2.0),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_has_a_readable_problem(tmp_path: Path, kind: str) -> None:
    make, words = BAD[kind]
    file = make(tmp_path)
    # Its first import warns of deprecated modules of Python 3.11 and 3.12, whichever test comes first.
    importlib.import_module("audioread.rawread")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip = inspect(file)
    assert clip.problem is not None
    assert str(tmp_path) not in clip.problem and "Errno" not in clip.problem
    assert re.search(words, clip.problem)
    try:
        load(file, 16_000)
    except AudioError as error:
        assert error.what == clip.problem
        assert error.where == file
    else:
        assert clip.problem.startswith(("too short", "silent"))


@pytest.mark.parametrize("kind", USABLE)
def test_damaged_files_that_can_be_decoded_are_used(tmp_path: Path, kind: str) -> None:
    make, seconds = USABLE[kind]
    clip = inspect(make(tmp_path))
    assert clip.problem is None
    assert clip.seconds == pytest.approx(seconds, rel=0.25)


@pytest.mark.skipif(sys.platform == "win32", reason="rights are otherwise there")
def test_a_file_without_rights(tmp_path: Path) -> None:
    file = write(tmp_path / "a.wav", sound())
    file.chmod(0)
    with nobody():
        assert inspect(file).problem == "cannot be read: Permission denied"
        with pytest.raises(AudioError, match="Permission denied"):
            load(file)


@pytest.mark.parametrize("kind", [*BAD, *USABLE])
def test_measure_agrees_with_inspect(tmp_path: Path, kind: str) -> None:
    file = {**BAD, **USABLE}[kind][0](tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, clip = measure(file), inspect(file)
    assert {name: getattr(found, name) for name in vars(clip)} == vars(clip)


# ---- what is measured ------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_values", [2_048, 10_007, 1 << 20])
def test_levels_silence_and_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_values: int
) -> None:
    monkeypatch.setattr(decoding, "VALUES_PER_BLOCK", block_values)
    wave = 0.5 * np.sin(2 * np.pi * 441 * np.arange(4 * RATE) / RATE) + 0.1
    wave[: RATE // 2] = wave[3 * RATE :] = 1e-4  # -80 dBFS
    file = write(tmp_path / "a.wav", np.stack([wave, wave], axis=1), "FLOAT")
    found = measure(file)
    assert found.peak == pytest.approx(0.6, abs=1e-4)
    assert found.rms_dbfs == pytest.approx(10 * np.log10((0.125 + 0.01) * 2.5 / 4), abs=0.01)
    assert found.dc_offset == pytest.approx(0.1 * 2.5 / 4, abs=1e-3)
    assert found.silent_share == pytest.approx(1.5 / 4, abs=0.01)
    assert (found.is_dual_mono, found.clipped_share, found.problem) == (True, 0.0, None)
    whole = Fingerprinter()
    whole.take(load(file), RATE)
    np.testing.assert_array_equal(found.fingerprint, whole.words())
    other = measure(write(tmp_path / "b.wav", np.stack([wave, wave * 1.01], axis=1), "FLOAT"))
    assert not other.is_dual_mono


def test_what_counts_as_clipped(tmp_path: Path) -> None:
    wave = 0.9 * np.sin(2 * np.pi * 441 * np.arange(2 * RATE) / RATE)

    def clipped(samples: np.ndarray, subtype: str = "PCM_16") -> float:
        return measure(write(tmp_path / "a.wav", samples, subtype)).clipped_share

    assert clipped(wave) == 0
    once = wave.copy()
    once[5_000] = 1.0  # a peak is no clipping
    assert clipped(once) == 0
    assert clipped(np.clip(2 * wave, -0.5, 0.5)) == 0  # a flat top, but far from full scale
    share = float(np.mean(np.abs(2 * wave) >= 1))
    assert clipped(np.clip(2 * wave, -1, 1)) == pytest.approx(share, rel=0.02)
    assert clipped(np.clip(2 * wave, -0.995, 0.995)) == pytest.approx(share, rel=0.02)
    assert clipped(2 * wave, "FLOAT") == pytest.approx(share, rel=0.02)  # what overshoots would be cut


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100])
def test_bandwidth_reveals_upsampling(tmp_path: Path, rate: int) -> None:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 3 * rate).astype(np.float32)
    file = write(tmp_path / "a.wav", librosa.resample(noise, orig_sr=rate, target_sr=RATE), "PCM_16")
    found = measure(file)
    assert (found.sample_rate_hz, found.seconds) == (RATE, 3.0)
    assert found.bandwidth_hz == pytest.approx(rate / 2, rel=0.06)


def test_the_same_samples_have_the_same_pcm_hash(tmp_path: Path) -> None:
    integers = (sound(1.0, 2) * 32767).astype(np.int16)
    for name in ("a.wav", "a.flac", "a.aiff"):
        soundfile.write(tmp_path / name, integers, RATE, subtype="PCM_16")
    plain = measure(tmp_path / "a.wav")
    assert (plain.format, plain.subtype, plain.is_misnamed) == ("WAV", "PCM_16", False)
    assert len({measure(tmp_path / name).samples_hash for name in ("a.wav", "a.flac", "a.aiff")}) == 1
    integers[100, 1] += 1
    soundfile.write(tmp_path / "b.wav", integers, RATE)
    soundfile.write(tmp_path / "c.wav", integers, RATE + 1)
    assert len({measure(tmp_path / name).samples_hash for name in ("a.wav", "b.wav", "c.wav")}) == 3

    mp3 = write(tmp_path / "a.mp3", sound(1.0, 2)).read_bytes()
    (tmp_path / "b.mp3").write_bytes(id3(1_000) + mp3 + b"TAG" + bytes(125))
    bare, tagged = measure(tmp_path / "a.mp3"), measure(tmp_path / "b.mp3")
    assert bare.samples_hash == tagged.samples_hash and bare.content != tagged.content
    assert bare.remarks == tagged.remarks == ()
    shutil.copy(tmp_path / "a.wav", tmp_path / "wav.mp3")
    odd = measure(tmp_path / "wav.mp3")
    assert (odd.is_misnamed, odd.format, odd.suffix_format, odd.samples_hash) == (
        True,
        "WAV",
        "MP3",
        plain.samples_hash,
    )


# ---- headers with a wrong length ----------------------------------------------------------


@pytest.mark.parametrize("kind", ["wav", "aiff", "au", "flac", "mp3", "ogg", "WAVEX", "RF64"])
def test_a_truncated_file_is_reported(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"a.{kind if kind.islower() else 'wav'}"
    soundfile.write(file, sound(4.0), RATE, format=kind.upper())
    whole = measure(file)
    assert whole.remarks == () and not whole.is_misnamed
    assert whole.seconds_promised == (None if kind == "ogg" else pytest.approx(4.0))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    cut = measure(file)
    assert cut.seconds < 2.5
    if kind == "ogg":
        assert "not marked as the end" in cut.remarks[0]
    else:
        assert cut.seconds_promised == pytest.approx(4.0, abs=0.01)
        assert cut.remarks[0].startswith("ends early: the header promises 4.0 s")


def test_a_length_that_was_never_written(tmp_path: Path) -> None:
    for size in (0x7FFFFFFF, 0xFFFFFFFF):  # from a pipe
        assert measure(with_data_size(tmp_path / "a.wav", size)).remarks == ()
    found = measure(with_data_size(tmp_path / "a.wav", 0))  # from a recorder that was switched off
    assert str(found.problem).startswith("too short: 0 samples")
    assert found.remarks == ("the header promises 0 bytes of samples, 176400 more are not read",)


def id3(size: int) -> bytes:
    """An empty ID3v2 tag."""
    length = bytes(size >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x04\0\0" + length + bytes(size)


def mp3_of(file: Path, samples: np.ndarray, rate: int = RATE) -> bytes:
    soundfile.write(file, samples, rate, bitrate_mode="VARIABLE", compression_level=0.3)
    return file.read_bytes()


def without_first_frame(mp3: bytes) -> bytes:
    """Without the frame that contains the length."""
    assert b"Xing" in mp3[:64]
    return mp3[mp3.index(mp3[:2], 4) :]


def test_an_mp3_without_a_header_is_read_to_its_end(tmp_path: Path) -> None:
    """libsndfile guesses the length from the first frame, here a large one."""
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 6 * RATE).astype(np.float32)
    samples[RATE // 2 :] = 0.1 * np.sin(np.arange(len(samples) - RATE // 2) / 20)
    mp3 = mp3_of(tmp_path / "a.mp3", samples)
    for name, data in (("bare", without_first_frame(mp3)), ("tagged", id3(999) + without_first_frame(mp3))):
        file = tmp_path / f"{name}.mp3"
        file.write_bytes(data)
        assert soundfile.info(file).duration < 4  # if this fails, libsndfile has been fixed
        found = measure(file)
        assert found.seconds == pytest.approx(6.0, abs=0.1)
        assert (found.seconds_promised, found.remarks, found.problem) == (None, (), None)
        # The same samples as with the header, which also tells how many the encoder has put before them.
        assert np.abs(load(file)[1105 : 1105 + 6 * RATE] - load(tmp_path / "a.mp3")).max() < 1e-6


def test_concatenated_mp3s(tmp_path: Path) -> None:
    first, second = (mp3_of(tmp_path / f"{k}.mp3", sound(2.0 + k)) for k in (0, 1))
    both = tmp_path / "both.mp3"
    for tags in (b"", b"TAG" + bytes(125) + id3(70_000)):
        both.write_bytes(id3(50) + first + tags + second)
        assert soundfile.info(both).duration == pytest.approx(2.0)
        found = measure(both)
        assert found.seconds == inspect(both).seconds == pytest.approx(5.0, abs=0.2)
        assert found.seconds_promised == pytest.approx(2.0, abs=0.1)
        assert len(found.remarks) == 1 and "promises 2.0 s, 5." in found.remarks[0]
    other_rate = mp3_of(tmp_path / "other.mp3", sound(2.0), 32_000)
    both.write_bytes(first + other_rate)
    found = measure(both)
    assert (found.seconds, found.problem) == (pytest.approx(2.0), None)
    assert "another sample rate" in found.remarks[0]
    both.write_bytes(first + bytes(5_000) + b"\xff\xfb\x90" * 2_000)  # a cover, lyrics, junk
    assert measure(both).remarks == () and inspect(both).seconds == pytest.approx(2.0, abs=0.05)
