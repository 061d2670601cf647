"""Features that are computed without pretrained weights, most of them by librosa."""

from mgc.representations.features.librosa_features import frames_card, vector_card

__all__ = ["frames_card", "vector_card"]
