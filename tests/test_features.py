"""Features against librosa called directly, on short, long, silent and real clips."""

import pickle
import warnings
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch
from conftest import SHARED, here, needs_emotify, tone
from scipy import stats

from mgc import audio
from mgc.representations import open_representation
from mgc.representations.features import librosa_features
from mgc.representations.features.fma518 import FMA518
from mgc.representations.features.stats57 import STATS57
from mgc.representations.pooling import represent

CPU = torch.device("cpu")
RATE = 22_050
pytestmark = pytest.mark.filterwarnings("ignore:n_fft:UserWarning")  # librosa called by the tests
VECTORS = {"stats57": 22_050, "fma518": 44_100}


def arrays(name: str, paths: list[Path]) -> list[np.ndarray]:
    card = open_representation(name, workspace=here())
    found = dict(represent(card, card.load(CPU), paths, CPU, 1))
    return [found[position] for position in range(len(paths))]


def written(path: Path, samples: np.ndarray, rate: int) -> Path:
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


# --- librosa, called as anybody calls it ------------------------------------------------------------------


def stats57(y: np.ndarray) -> np.ndarray:
    harmony, perceptr = librosa.effects.hpss(y)
    pairs = [
        librosa.feature.chroma_stft(y=y),
        librosa.feature.rms(y=y),
        librosa.feature.spectral_centroid(y=y),
        librosa.feature.spectral_bandwidth(y=y),
        librosa.feature.spectral_rolloff(y=y),
        librosa.feature.zero_crossing_rate(y),
        harmony,
        perceptr,
    ]
    tempo = np.squeeze(librosa.beat.beat_track(y=y)[0])
    coefficients = librosa.feature.mfcc(y=y, n_mfcc=20)
    return np.array([v for f in pairs for v in (f.mean(), f.var())] + [tempo]
                    + [v for f in coefficients for v in (f.mean(), f.var())])  # fmt: skip


def fma518(y: np.ndarray) -> dict[str, np.ndarray]:
    """(D, T) by the names of features.csv, in the order of features.py."""
    sr = 44_100
    cqt = np.abs(librosa.cqt(y, sr=sr, hop_length=512, bins_per_octave=12, n_bins=84, tuning=None))
    stft = np.abs(librosa.stft(y, n_fft=2048, hop_length=512))
    mel = librosa.feature.melspectrogram(sr=sr, S=stft**2)
    cens = librosa.feature.chroma_cens(C=cqt, n_chroma=12, n_octaves=7)
    return {
        "zcr": librosa.feature.zero_crossing_rate(y, frame_length=2048, hop_length=512),
        "chroma_cqt": librosa.feature.chroma_cqt(C=cqt, n_chroma=12, n_octaves=7),
        "chroma_cens": cens,
        "tonnetz": librosa.feature.tonnetz(chroma=cens),
        "chroma_stft": librosa.feature.chroma_stft(S=stft**2, n_chroma=12),
        "rmse": librosa.feature.rms(S=stft),
        "spectral_centroid": librosa.feature.spectral_centroid(S=stft),
        "spectral_bandwidth": librosa.feature.spectral_bandwidth(S=stft),
        "spectral_contrast": librosa.feature.spectral_contrast(S=stft, n_bands=6),
        "spectral_rolloff": librosa.feature.spectral_rolloff(S=stft),
        "mfcc": librosa.feature.mfcc(S=librosa.power_to_db(mel), n_mfcc=20),
    }


STATISTICS = {
    "mean": np.mean, "std": np.std, "skew": stats.skew, "kurtosis": stats.kurtosis, "median": np.median,
    "min": np.min, "max": np.max,
}  # fmt: skip

FRAMES = {
    "mfcc": lambda y: librosa.feature.mfcc(y=y, sr=RATE, n_mfcc=13),
    "chroma": lambda y: librosa.feature.chroma_stft(y=y, sr=RATE),
    "cqt": lambda y: librosa.amplitude_to_db(np.abs(librosa.cqt(y, sr=RATE)), ref=np.max),
}


# --- the numbers ------------------------------------------------------------------------------------------


def music(seconds: float, rate: int) -> np.ndarray:
    """A chord under a pulse, swelling: no statistic of it is another's."""
    both = tone(0, seconds, rate, 3) + tone(1, seconds, rate, 4)
    return (both * np.linspace(0.2, 1.0, len(both)) ** 2).astype(np.float32)


@pytest.fixture(params=["short", "made", pytest.param("real", marks=needs_emotify)])
def clip(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "real":
        source = sorted((SHARED / "data/emotify").rglob("*.mp3"))[7]
        return written(tmp_path / "real.wav", audio.load(source, 44_100)[: 4 * 44_100], 44_100)
    return written(tmp_path / "a.wav", music(0.5 if request.param == "short" else 2.3, 44_100), 44_100)


def test_stats57_is_librosas(clip: Path) -> None:
    [found] = arrays("stats57", [clip])
    assert found.shape == (3, 57)
    expected = stats57(audio.load(clip, RATE))
    for name, value, wanted in zip(STATS57, found[0], expected, strict=True):
        assert value == pytest.approx(wanted, rel=1e-3, abs=1e-7), name
    assert found[1] == pytest.approx(0, abs=1e-6 * np.abs(found[0]).max())  # one window


def test_fma518_is_librosas(clip: Path) -> None:
    [found] = arrays("fma518", [clip])
    assert found.shape == (3, 518)
    features_ = fma518(audio.load(clip, 44_100))
    for name, value in zip(FMA518, found[0], strict=True):
        feature, statistic, number = name.rsplit("_", 2)
        row = features_[feature][int(number) - 1].astype(np.float64)
        if np.ptp(row) == 0 and statistic in ("skew", "kurtosis"):
            assert value == {"skew": 0, "kurtosis": -3}[statistic], name
        else:
            assert value == pytest.approx(STATISTICS[statistic](row), rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize("name", FRAMES)
def test_frames_are_librosas(name: str, clip: Path) -> None:
    samples = audio.load(clip, RATE)
    [found] = arrays(name, [clip])
    assert found.shape == (1 + len(samples) // 512, open_representation(name, workspace=here()).width)
    assert np.abs(found - FRAMES[name](samples).T).max() < 2e-3


def test_names_and_order_are_those_of_the_tables() -> None:
    assert (len(set(STATS57)), len(set(FMA518))) == (57, 518)
    assert STATS57[:3] == ("chroma_stft_mean", "chroma_stft_var", "rms_mean")
    assert STATS57[13:18] == ("harmony_var", "perceptr_mean", "perceptr_var", "tempo", "mfcc1_mean")
    assert STATS57[-2:] == ("mfcc20_mean", "mfcc20_var")
    headers = [tuple(name.rsplit("_", 2)) for name in FMA518]
    assert headers == sorted(headers)  # as pandas sorts the three header rows of features.csv


# --- clips out of the ordinary ----------------------------------------------------------------------------


def test_frames_of_a_long_clip_are_those_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(librosa_features, "WINDOW_SECONDS", 13)  # a tenth: nothing else depends on it
    samples = np.tile(music(5.0, RATE), 6)[: 27 * RATE]
    path = written(tmp_path / "long.wav", samples, RATE)
    for name in ("chroma", "cqt"):
        [found] = arrays(name, [path])
        expected = FRAMES[name](samples).T
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < (0.05 if name == "cqt" else 2e-3)


def test_a_long_clip_is_the_mean_of_its_windows_by_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(librosa_features, "WINDOW_SECONDS", 4)
    loud, soft = tone(1, 4, RATE, 0), 0.2 * tone(0, 1, RATE, 1)
    paths = [
        written(tmp_path / f"{n}.wav", y, RATE)
        for n, y in enumerate((loud, soft, np.concatenate([loud, soft])))
    ]
    one, other, both = arrays("stats57", paths)
    assert both[0] == pytest.approx(0.8 * one[0] + 0.2 * other[0], rel=1e-4, abs=1e-6)
    assert both[1] == pytest.approx(0.4 * np.abs(one[0] - other[0]), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", ["chroma", "cqt", "stats57", "fma518", "mfcc"])
def test_silence_a_constant_and_a_short_clip_are_finite_and_quiet(name: str, tmp_path: Path) -> None:
    rate = VECTORS.get(name, RATE)
    short = [tone(0, seconds, rate, 0) for seconds in (0.5, 0.02)]
    odd = [np.zeros(rate), np.full(rate, 0.25), *short, np.eye(1, rate)[0]]
    paths = [written(tmp_path / f"{number}.wav", samples, rate) for number, samples in enumerate(odd)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = arrays(name, paths)
    assert all(np.isfinite(array).all() and np.abs(array).max() < 1e30 for array in found)


# --- side by side -----------------------------------------------------------------------------------------


def test_processes_give_the_same_in_order_and_their_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(librosa_features, "cores", lambda: 2)
    parts = [np.random.default_rng(n).normal(size=50 + n) for n in range(5)]
    for part, found in zip(parts, librosa_features.side_by_side(np.diff, parts), strict=True):
        assert np.array_equal(found, np.diff(part))
    with pytest.raises(np.linalg.LinAlgError, match="1-dimensional"):
        librosa_features.side_by_side(np.linalg.det, parts)


def test_cards_travel_to_other_processes() -> None:
    for name in ("logmel44", "mfcc", "chroma", "cqt", "stats57", "fma518"):
        card = open_representation(name, workspace=here())
        assert pickle.loads(pickle.dumps(card)).key == card.key
