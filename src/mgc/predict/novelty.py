"""Novelty: how far a clip is from the tracks of a run, to find sounds that none of them resembles.

A classifier that has to choose one of its genres may be certain about noise. The distance does not depend on
the classifier: it is the mean distance to the 5 nearest tracks (Ramaswamy, Rastogi and Shim 2000; Sun et al.
2022) in the standardised means and standard deviations over time of the representation, its last layer for an
encoder. A clip is novel if it is further away than 95 % of the tracks are from those of other artists. The
same, without the tracks of one genre, measures how often a new genre is found.
"""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy.spatial.distance import cdist

from mgc.data import Dataset
from mgc.representations import STATISTICS, Representation
from mgc.representations.cache.embeddings import EmbeddingCache
from mgc.representations.features.logmel import statistics
from mgc.util import files
from mgc.util.errors import explaining

NOVELTY = "novelty.npz"  # in the folder of a run, and of an export
NOVEL = "novel"
NEIGHBOURS = 5
FALSE_ALARMS = 0.05  # share of the tracks of a run that are further from the others than the threshold
MOST_TRACKS = 2000  # that are compared with; more would only make the file larger and predicting slower
SMALLEST_SCALE = 1e-3  # for a feature that is the same in all tracks


@dataclass(frozen=True)
class Novelty:
    """The tracks that clips are compared with, and the distance from which on a clip is novel."""

    features: np.ndarray  # (N, D) float16, standardised
    offset: np.ndarray  # (D,) float32
    scale: np.ndarray
    threshold: np.ndarray  # ()
    genres: np.ndarray  # (C,) of str
    found: np.ndarray  # (C,) share of the tracks of a genre that are novel if no track of it is known

    @staticmethod
    def fit(cache: EmbeddingCache, dataset: Dataset) -> "Novelty":
        """From the cached arrays of the tracks of a dataset, at most `MOST_TRACKS` of them."""
        count = len(dataset.tracks)
        chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_TRACKS)).astype(int))
        tracks = [dataset.tracks[k] for k in chosen]
        rows = np.stack([features(cache.representation, cache.read(track.content)) for track in tracks])
        groups, genres = (np.array([getattr(track, of) for track in tracks]) for of in ("group", "label"))
        found = []
        for genre in dataset.classes:
            new = genres == genre
            without = Novelty._of_rows(rows[~new], groups[~new])
            found.append((without._distances(rows[new]) > 1).mean())
        every = Novelty._of_rows(rows, groups)
        return replace(every, genres=np.array(dataset.classes), found=np.array(found))

    @staticmethod
    def _of_rows(rows: np.ndarray, groups: np.ndarray) -> "Novelty":
        """From the features (N, D) of tracks and their artists (N,), without `genres` and `found`."""
        offset, scale = rows.mean(axis=0), rows.std(axis=0).clip(SMALLEST_SCALE)
        near = ((rows - offset) / scale).astype(np.float16)
        pairs = cdist(near.astype(np.float64), near.astype(np.float64))  # (N, N)
        pairs[groups[:, np.newaxis] == groups] = np.inf
        threshold = np.quantile(_to_nearest(pairs), 1 - FALSE_ALARMS, method="higher")
        return Novelty(near, offset, scale, threshold, np.array([], str), np.array([]))

    def of(self, representation: Representation, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """(N,) distances of clips, as `EmbeddingCache.read` returns them, in units of the threshold."""
        return self._distances(np.stack([features(representation, array) for array in arrays]))

    def _distances(self, rows: np.ndarray) -> np.ndarray:
        pairs = cdist((rows - self.offset) / self.scale, self.features.astype(np.float64))
        return _to_nearest(pairs) / max(self.threshold, SMALLEST_SCALE)

    def save(self, file: Path) -> None:
        """Write the file; it appears complete or not at all."""
        content = io.BytesIO()
        np.savez(content, **asdict(self))
        files.write(file, content.getvalue())

    @staticmethod
    def load(file: Path) -> "Novelty":
        """What `save` wrote; raises MgcError if it is missing, as in runs of older versions, or damaged."""
        fix = "delete the file if it exists, and run the command of the run (or its export) again"
        errors = (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile)
        with explaining("the novelty data cannot be read", file, fix, errors), np.load(file) as arrays:
            return Novelty(**arrays)

    def summary(self) -> str:
        """The rule, how often it finds a new genre, and what it cannot do."""
        if not np.isfinite(self.threshold):
            return f"{NOVEL}: not available, since the run has too few artists"
        shares = [f"{name} {share:.0%}" for name, share in zip(self.genres, self.found, strict=True)]
        listed = f" ({', '.join(shares)})" if len(shares) <= 10 else ""
        return (
            f"{NOVEL}: further from the tracks of the run than {1 - FALSE_ALARMS:.0%} of them are from those "
            f"of other artists, so about {FALSE_ALARMS:.0%} of new tracks of these genres are {NOVEL} by "
            f"mistake. With one genre excluded in turn, {self.found.mean():.0%} of its tracks were {NOVEL}"
            f"{listed}; all others got one of the remaining genres or unknown"
        ).replace("%", " %")


def features(representation: Representation, array: np.ndarray) -> np.ndarray:
    """(2 * D,) float32: mean and deviation over time of a cached array, of its last layer if it has several.

    Means of a spectrogram are relative to their mean over the bands, since a network need not hear the level.
    """
    if not representation.pooled:
        mean, deviation, _ = statistics(array)
        return np.concatenate([mean - mean.mean(), deviation])
    layer = array[:, representation.layer_slice("last")]
    windows = layer.reshape(-1, len(STATISTICS), layer.shape[1])
    return pool_windows(windows, np.ones(len(windows)))[:2].ravel()


def pool_windows(windows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(W, 3, width), the mean, deviation and maximum of W windows, to (3, width), those of all together.

    `weights` (W,) are the shares of the windows.
    """
    mean, deviation, maximum = windows.astype(np.float32).swapaxes(0, 1)  # (W, width) each
    weight = weights[:, np.newaxis] / weights.sum()
    centre = (weight * mean).sum(axis=0)
    variance = (weight * (deviation**2 + (mean - centre) ** 2)).sum(axis=0)
    return np.stack([centre, np.sqrt(variance), maximum.max(axis=0)])


def _to_nearest(distances: np.ndarray) -> np.ndarray:
    """(M, N) to (M,): the mean of the smallest distances of a row."""
    return np.asarray(np.sort(distances, axis=1)[:, :NEIGHBOURS].mean(axis=1))
