"""13 mel-frequency cepstral coefficients a frame, from the log-mel of the whole clip."""

from dataclasses import replace

import numpy as np

from mgc.representations.card import Layer, Representation
from mgc.representations.features.logmel import logmel, top_db

N_MFCC = 13


def mfcc() -> Representation:
    """(T, 13): `librosa.feature.mfcc(y=y, sr=22050, n_mfcc=13)`, transposed."""
    return replace(
        logmel(),
        name="mfcc",
        address="mfcc",
        source="librosa.feature.mfcc",
        layers=(Layer("mfcc", N_MFCC),),
        revision=1,
        finish=_cepstrum,
    )


def _cepstrum(decibels: np.ndarray) -> np.ndarray:
    from scipy.fft import dct

    cepstrum: np.ndarray = dct(top_db(decibels), axis=1, norm="ortho")[:, :N_MFCC]
    return cepstrum
