"""Constant-Q spectrogram: 84 semitones from C1, in dB below the clip's maximum."""

from dataclasses import replace

import numpy as np

from mgc.representations.card import Representation
from mgc.representations.features.librosa_features import frames_card

TOP_DB = 80.0


def cqt() -> Representation:
    """(T, 84): `amplitude_to_db(abs(cqt(y, sr=22050)), ref=max)` of librosa, transposed."""
    return replace(
        frames_card("cqt", "librosa.cqt and amplitude_to_db", 84, _decibels, revision=1),
        finish=_below_maximum,
    )


def _decibels(samples: np.ndarray) -> np.ndarray:
    import librosa

    magnitude = np.abs(librosa.cqt(samples, sr=22_050))
    decibels: np.ndarray = librosa.amplitude_to_db(magnitude, ref=1.0, top_db=None)
    return decibels.T


def _below_maximum(decibels: np.ndarray) -> np.ndarray:
    decibels -= decibels.max()
    return np.maximum(decibels, -TOP_DB, out=decibels)
