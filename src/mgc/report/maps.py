"""Maps of what the best probes see: vectors laid out in a plane, kept so that a report needs no store."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mgc.config import ProbeRecipe
from mgc.data import Dataset
from mgc.report.content import Content, Entry
from mgc.runs.record import RunRecord
from mgc.util import files
from mgc.util.errors import MgcError
from mgc.util.progress import say
from mgc.workspace import Workspace

MAPS = 3  # of different representations
MOST = 3000  # tracks on one map; of more, so many are drawn
DIMS, PERPLEXITY = 50, 30  # of the PCA before t-SNE, and of t-SNE (van der Maaten & Hinton 2008)


@dataclass(frozen=True)
class Map:
    """Where the tracks of one probe lie: (N, 2), in the order of `track_ids`."""

    entry: Entry
    track_ids: tuple[str, ...]
    points: np.ndarray


def kept_map(content: Content, entry: Entry) -> Map | None:
    """The map that an earlier report left in the run's folder; None where it is not, or of other tracks."""
    file = _file(entry.record)
    if not file.exists():
        return None
    try:
        table = pd.read_csv(file, dtype={"track_id": str}, keep_default_na=False)
        points = table[["x", "y"]].to_numpy(float)
    except (OSError, ValueError, KeyError):
        return None  # made anew
    known = tuple(table["track_id"])
    return Map(entry, known, points) if {*known} <= {*content.predictions.track_ids} else None


def make_map(content: Content, entry: Entry, dataset: Dataset) -> Map:
    """Lay out the vectors that the store holds of the tested tracks, and keep the map in the run's folder.

    Raises:
        MgcError: the store lacks the vectors, or they are by other code than those of the run.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler

    ids = content.predictions.track_ids
    if len(ids) > MOST:
        drawn = np.random.default_rng(0).choice(len(ids), MOST, replace=False)
        ids = tuple(ids[i] for i in sorted(drawn))
    vectors = _vectors(entry.record, content.workspace, [dataset.by_id[track_id].content for track_id in ids])
    say(f"map of {len(ids)} tracks as {entry.title} sees them")
    scaled = StandardScaler().fit_transform(vectors)
    reduced = PCA(min(DIMS, *scaled.shape), random_state=0).fit_transform(scaled)
    perplexity = min(PERPLEXITY, (len(ids) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(reduced)
    table = pd.DataFrame({"track_id": ids, "x": points[:, 0], "y": points[:, 1]})
    files.write(_file(entry.record), table.to_csv(index=False, float_format="%.4g"))
    return Map(entry, ids, points)


def _file(record: RunRecord) -> Path:
    return record.folder / "map.csv"


def _vectors(record: RunRecord, workspace: Workspace, clips: list[str]) -> np.ndarray:
    """(N, D): what the head saw of each clip, windows averaged; of a swept probe the first fold's layer."""
    key = record.representation_card.get("key")
    # Looked for before anything is opened: a report never fetches weights.
    if not any(workspace.cache.glob(f"*-{key}*")):
        raise MgcError("the store does not hold its vectors", fix="run mgc probe again, which computes them")
    from mgc.probing.fitting import vectors_of
    from mgc.representations import ModelSpec, open_representation
    from mgc.representations.cache.embeddings import EmbeddingCache

    representation = open_representation(ModelSpec.from_dict(record.representation_card["spec"]), workspace)
    if representation.key != key:
        raise MgcError("the encoder is not what it was", fix="run mgc probe again")
    store = EmbeddingCache(representation, workspace.cache)
    if missing := store.missing(clips):
        raise MgcError(f"the store lacks the vectors of {len(missing)} tracks", fix="mgc embed computes them")
    layer = str(record.chosen[0]["layer"]) if record.chosen else "last"
    known = {key: value for key, value in record.recipe.items() if key in ProbeRecipe.model_fields}
    recipe = ProbeRecipe.model_validate({**known, "layers": "last" if layer == "weighted" else layer})
    (vectors,) = vectors_of(store, clips, recipe).values()
    sums = np.add.reduceat(vectors.rows, vectors.ends[:-1], axis=0)
    return sums / np.diff(vectors.ends)[:, np.newaxis]
