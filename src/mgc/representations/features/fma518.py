"""The 518 features of the FMA paper (Defferrard et al. 2017): seven statistics of eleven features."""

import numpy as np

from mgc.representations.card import Representation
from mgc.representations.features.librosa_features import vector_card

_SIZES = {
    "chroma_cens": 12, "chroma_cqt": 12, "chroma_stft": 12, "mfcc": 20, "rmse": 1, "spectral_bandwidth": 1,
    "spectral_centroid": 1, "spectral_contrast": 7, "spectral_rolloff": 1, "tonnetz": 6, "zcr": 1,
}  # fmt: skip
_STATISTICS = ("kurtosis", "max", "mean", "median", "min", "skew", "std")
FMA518 = tuple(
    f"{feature}_{statistic}_{number:02d}"
    for feature, size in _SIZES.items()
    for statistic in _STATISTICS
    for number in range(1, size + 1)
)
"""Names of the columns of features.csv in order, its three header rows joined."""

SAMPLE_RATE_HZ = 44_100
OCTAVES = 7


def fma518() -> Representation:
    """The columns of features.csv as computed by features.py of github.com/mdeff/fma: (518,).

    At 44,100 Hz, which is the rate of nearly all files of FMA; the paper used the rate of each file. Where
    features.py does not pass the rate, librosa assumes 22,050 Hz, and so it does here: centroid, bandwidth
    and roll-off are half the true frequencies. A constant has skew 0 and kurtosis -3, as in SciPy then.
    """
    source = "features.py of the FMA paper, by librosa"
    return vector_card("fma518", source, FMA518, SAMPLE_RATE_HZ, _fma518)


def _fma518(samples: np.ndarray) -> np.ndarray:
    import librosa
    from librosa import feature

    magnitude = np.abs(librosa.stft(samples))
    power = magnitude**2
    tuning = librosa.estimate_tuning(S=magnitude, sr=SAMPLE_RATE_HZ)
    semitones = np.abs(librosa.cqt(samples, sr=SAMPLE_RATE_HZ, n_bins=12 * OCTAVES, tuning=tuning))
    cens = feature.chroma_cens(C=semitones, n_octaves=OCTAVES)
    mel = librosa.power_to_db(feature.melspectrogram(S=power, sr=SAMPLE_RATE_HZ))
    features = {
        "chroma_cens": cens,
        "chroma_cqt": feature.chroma_cqt(C=semitones, n_octaves=OCTAVES),
        "chroma_stft": feature.chroma_stft(S=power),
        "mfcc": feature.mfcc(S=mel, n_mfcc=20),
        "rmse": feature.rms(S=magnitude),
        "spectral_bandwidth": feature.spectral_bandwidth(S=magnitude),
        "spectral_centroid": feature.spectral_centroid(S=magnitude),
        "spectral_contrast": feature.spectral_contrast(S=magnitude),
        "spectral_rolloff": feature.spectral_rolloff(S=magnitude),
        "tonnetz": feature.tonnetz(chroma=cens),
        "zcr": feature.zero_crossing_rate(samples),
    }
    return np.concatenate([_statistics(features[name].astype(np.float64)) for name in _SIZES])


def _statistics(values: np.ndarray) -> np.ndarray:
    """(D, T) -> (7 * D,), in the order of `_STATISTICS`."""
    from scipy import stats

    kurtosis = np.nan_to_num(stats.kurtosis(values, axis=1), nan=-3.0)
    skew = np.nan_to_num(stats.skew(values, axis=1), nan=0.0)
    highest, mean, median = values.max(axis=1), values.mean(axis=1), np.median(values, axis=1)
    return np.concatenate([kurtosis, highest, mean, median, values.min(axis=1), skew, values.std(axis=1)])
