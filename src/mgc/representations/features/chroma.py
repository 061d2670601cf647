"""The strength of the 12 pitch classes a frame."""

import numpy as np

from mgc.representations.card import Representation
from mgc.representations.features.librosa_features import frames_card


def chroma() -> Representation:
    """(T, 12): `librosa.feature.chroma_stft(y=y, sr=22050)`, transposed; the loudest of a frame is 1."""
    return frames_card("chroma", "librosa.feature.chroma_stft", 12, _chroma, revision=1)


def _chroma(samples: np.ndarray) -> np.ndarray:
    import librosa

    classes: np.ndarray = librosa.feature.chroma_stft(y=samples, sr=22_050)
    return classes.T
