"""Novelty: how far a clip is from the training tracks, to find sounds that no training track resembles.

A classifier that has to choose one of its genres may be certain about noise. The distance does not depend on
the classifier: it is the mean distance to the nearest training tracks (Ramaswamy, Rastogi and Shim 2000; Sun
et al. 2022) in the standardised means and standard deviations over time of the representation, its last layer
for an encoder. The threshold comes from test tracks: each is compared with the training tracks of its fold,
which are by other artists. The same distances, without the training tracks of one genre, measure how often a
new genre is found.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from scipy.spatial.distance import cdist

from mgc.data import Split
from mgc.representations import STATISTICS, Representation
from mgc.representations.cache.embeddings import EmbeddingCache
from mgc.representations.features.logmel import statistics
from mgc.util import files
from mgc.util.errors import explaining

FILE, FORMAT = "novelty.safetensors", "mgc novelty 1"
NOVEL = "novel"
NEIGHBOURS = 5
GIVEN_UP = 0.05  # share of the test tracks that the threshold makes novel
MOST_TRACKS = 2000  # that are compared with; more would only make the file larger and predicting slower
SMALLEST_SCALE = 1e-3  # for a feature that is the same in all tracks


@dataclass(frozen=True)
class Novelty:
    """The tracks that clips are compared with, and the distance from which on a clip is novel."""

    features: np.ndarray  # (N, D) float16, standardised
    training: np.ndarray  # (F, N) bool, whether a track is in the training set of a fold
    offset: np.ndarray  # (D,) float32
    scale: np.ndarray
    threshold: float
    tested: int  # test tracks that the threshold comes from
    found: dict[str, float]  # by genre: share of its tracks that are novel if training tracks lack the genre

    @staticmethod
    def fit(cache: EmbeddingCache, split: Split) -> "Novelty":
        """From the cached arrays of the tracks of a split, at most `MOST_TRACKS` of them."""
        count = len(split.dataset.tracks)
        chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_TRACKS)).astype(int))
        tracks = [split.dataset.tracks[k] for k in chosen]
        rows = np.stack([features(cache.representation, cache.read(track.content)) for track in tracks])
        offset, scale = rows.mean(axis=0), rows.std(axis=0).clip(SMALLEST_SCALE)
        near = ((rows - offset) / scale).astype(np.float16)
        training, testing = (
            np.array([[track.track_id in ids for track in tracks] for ids in map(frozenset, parts)])
            for parts in ([fold.train for fold in split.folds], [fold.test for fold in split.folds])
        )
        labels = np.array(split.dataset.label_numbers(tracks))
        pairs = cdist(near.astype(np.float64), near.astype(np.float64))  # (N, N)
        tested = np.flatnonzero(testing.any(axis=0))
        own = training[testing.argmax(axis=0)[tested]]  # (tested, N): the training set of a test track's fold

        def limit_and_share(novel: np.ndarray) -> tuple[float, float]:
            """The threshold if the tracks `novel` (N,) are unknown, and the share of them that is found."""
            known, new = own & ~novel, novel[tested]
            if not known.any(axis=1).all() or new.all():
                return np.inf, np.nan
            distances = np.array([_nearest(pairs[i][mask]) for i, mask in zip(tested, known, strict=True)])
            limit = float(np.quantile(distances[~new], 1 - GIVEN_UP, method="higher"))
            return limit, float((distances[new] > limit).mean()) if new.any() else np.nan

        of_genre = {name: limit_and_share(labels == n)[1] for n, name in enumerate(split.dataset.classes)}
        found = {name: share for name, share in of_genre.items() if np.isfinite(share)}
        threshold, _ = limit_and_share(np.zeros(len(tracks), bool))
        return Novelty(near, training, offset, scale, threshold, len(tested), found)

    def of(self, representation: Representation, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """(N,) distances of clips, as `EmbeddingCache.read` returns them, in units of the threshold."""
        rows = np.stack([features(representation, array) for array in arrays])
        pairs = cdist((rows - self.offset) / self.scale, self.features.astype(np.float64))
        by_fold = [[_nearest(row[mask]) for mask in self.training] for row in pairs]
        return np.mean(by_fold, axis=1) / max(self.threshold, SMALLEST_SCALE)

    def save(self, file: Path) -> None:
        """Write the file; it appears complete or not at all."""
        arrays = {name: getattr(self, name) for name in ("features", "training", "offset", "scale")}
        about = {"threshold": self.threshold, "tested": self.tested, "found": self.found}
        text = json.dumps(about)
        files.write(file, save(arrays, {"format": FORMAT, "about": text, "hash": _hash(arrays, text)}))

    @staticmethod
    def load(file: Path) -> "Novelty | None":
        """What `save` wrote; None if there is no file, as in runs of older versions.

        Raises:
            MgcError: the file is damaged, or of another version of mgc.
        """
        fix = "delete the file and run the command of the run again, which writes it; or export it again"
        errors = (OSError, SafetensorError, ValueError, KeyError, TypeError)
        if not file.exists():
            return None
        with (
            explaining("the novelty data cannot be read", file, fix, errors),
            safe_open(file, "np") as f,
        ):
            metadata = f.metadata() or {}
            arrays = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
            if metadata.get("format") != FORMAT:
                raise ValueError(f"it is not in the format {FORMAT!r}")
            if metadata["hash"] != _hash(arrays, metadata["about"]):
                raise ValueError("its content differs from what was written")
            return Novelty(**arrays, **json.loads(metadata["about"]))

    def summary(self) -> str:
        """The threshold and what it finds, in words."""
        text = (
            f"{NOVEL}: further from the training tracks than {1 - GIVEN_UP:.0%} of the {self.tested} test "
            "tracks are from those of their fold"
        )
        if self.found:
            shares = [f"{name} {share:.0%}" for name, share in self.found.items()]
            listed = f" ({', '.join(shares)})" if len(shares) <= 10 else ""
            mean = np.mean([*self.found.values()])
            text += f". A genre that is excluded from training is found in {mean:.0%} of its tracks{listed}"
        return f"{text}. Other new music gets one of the genres".replace("%", " %")


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


def _nearest(distances: np.ndarray) -> float:
    """The mean of the smallest distances."""
    return float(np.sort(distances)[:NEIGHBOURS].mean())


def _hash(arrays: dict[str, np.ndarray], text: str) -> str:
    parts = [text.encode(), *(arrays[name].tobytes() for name in sorted(arrays))]
    return hashlib.blake2b(b"".join(parts), digest_size=8).hexdigest()
