"""Features with one row per frame, computed by librosa: chroma and the constant-Q spectrogram."""

from dataclasses import replace

import numpy as np

from mgc.representations.card import Representation
from mgc.representations.features.librosa_features import FRAMES_RATE_HZ, frames_card

TOP_DB = 80.0


def chroma() -> Representation:
    """Strength of the 12 pitch classes, (T, 12): `librosa.feature.chroma_stft`; each frame's maximum is 1."""
    return frames_card("chroma", "librosa.feature.chroma_stft", 12, _chroma)


def _chroma(samples: np.ndarray) -> np.ndarray:
    import librosa

    classes: np.ndarray = librosa.feature.chroma_stft(y=samples, sr=FRAMES_RATE_HZ)
    return classes.T


def cqt() -> Representation:
    """Constant-Q spectrogram of 84 semitones from C1, (T, 84), in dB relative to the clip's maximum."""
    card = frames_card("cqt", "librosa.cqt and amplitude_to_db", 84, _cqt_decibels)
    return replace(card, finish=_relative_to_maximum)


def _cqt_decibels(samples: np.ndarray) -> np.ndarray:
    import librosa

    magnitude = np.abs(librosa.cqt(samples, sr=FRAMES_RATE_HZ))
    decibels: np.ndarray = librosa.amplitude_to_db(magnitude, ref=1.0, top_db=None)
    return decibels.T


def _relative_to_maximum(decibels: np.ndarray) -> np.ndarray:
    decibels -= decibels.max()
    return np.maximum(decibels, -TOP_DB, out=decibels)
