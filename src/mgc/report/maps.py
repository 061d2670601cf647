"""Maps of embeddings: tracks laid out in a plane by t-SNE, and kept for later reports."""

import numpy as np
import pandas as pd

from mgc.config import ProbeRecipe
from mgc.data import Dataset
from mgc.report.content import Content
from mgc.runs.record import RunRecord, load_record
from mgc.runs.tables import Row
from mgc.util import files
from mgc.util.errors import MgcError, counted
from mgc.util.progress import say
from mgc.workspace import Workspace

MAPS = 3  # of different representations
MOST = 3000  # tracks on one map; of more, a random sample is shown
DIMS, PERPLEXITY = 50, 30  # of the PCA before t-SNE, and of t-SNE (van der Maaten & Hinton 2008)


def kept_map(content: Content, row: Row) -> pd.DataFrame | None:
    """The map that an earlier report left in the run's folder, if it is one of these tracks: the columns
    track_id, x and y."""
    try:
        table = pd.read_csv(row.record.folder / "map.csv", dtype={"track_id": str}, keep_default_na=False)
        table = table[["track_id", "x", "y"]].astype({"x": float, "y": float})
    except (OSError, ValueError, KeyError):
        return None  # a new map replaces it
    return table if {*table["track_id"]} <= {*content.predictions.track_ids} else None


def make_map(content: Content, row: Row, dataset: Dataset) -> pd.DataFrame:
    """Lay out the cached embeddings of the test tracks, and keep the map in the run's folder.

    Raises:
        MgcError: embeddings are not cached, or were computed by other code than those of the run.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler

    ids = content.predictions.track_ids
    if len(ids) > MOST:
        sample = np.random.default_rng(0).choice(len(ids), MOST, replace=False)
        ids = tuple(ids[i] for i in sorted(sample))
    clips = [dataset.by_id[track_id].content for track_id in ids]
    embeddings = _embeddings(load_record(row.record.folder / "record.json"), content.workspace, clips)
    say(f"map of {counted(len(ids), 'track')} by {row.title}")
    scaled = StandardScaler().fit_transform(embeddings)
    reduced = PCA(min(DIMS, *scaled.shape), random_state=0).fit_transform(scaled)
    perplexity = min(PERPLEXITY, (len(ids) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(reduced)
    table = pd.DataFrame({"track_id": ids, "x": points[:, 0], "y": points[:, 1]})
    files.write(row.record.folder / "map.csv", table.to_csv(index=False, float_format="%.4g"))
    return table


def _embeddings(record: RunRecord, workspace: Workspace, clips: list[str]) -> np.ndarray:
    """(N, D) inputs of the head, averaged over windows; of a swept probe, the layer of the first fold."""
    key = record.representation_card.get("key")
    # This comes before anything is opened: a report never downloads weights.
    if not any(workspace.cache.glob(f"*-{key}*")):
        raise MgcError("its embeddings are not cached", fix="run mgc probe again, which computes them")
    from mgc.probing.fitting import embeddings_of
    from mgc.representations import ModelSpec, open_representation
    from mgc.representations.cache.embeddings import EmbeddingCache

    representation = open_representation(ModelSpec.from_dict(record.representation_card["spec"]), workspace)
    if representation.key != key:
        raise MgcError("the encoder has changed since the run", fix="run mgc probe again")
    store = EmbeddingCache(representation, workspace.cache)
    if missing := store.missing(clips):
        what = f"no cached embeddings of {counted(len(missing), 'track')}"
        raise MgcError(what, fix="mgc embed computes them")
    layer = str(record.chosen[0]["layer"]) if record.chosen else "last"
    known = {key: value for key, value in record.recipe.items() if key in ProbeRecipe.model_fields}
    recipe = ProbeRecipe.model_validate({**known, "layers": "last" if layer == "weighted" else layer})
    (embeddings,) = embeddings_of(store, clips, recipe).values()
    sums = np.add.reduceat(embeddings.rows, embeddings.ends[:-1], axis=0)
    return sums / np.diff(embeddings.ends)[:, np.newaxis]
