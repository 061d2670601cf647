"""A fitted head in one safetensors file. Reading it runs no code, unlike unpickling.

skops serialises the scikit-learn pipeline to a zip archive of JSON and NumPy arrays, and loads only known and
trusted types. The archive is kept as one tensor of bytes; its checksums detect damage.
"""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from mgc.util import files
from mgc.util.errors import explaining
from mgc.util.progress import say

FORMAT = "mgc head 2"
ARCHIVE = "skops"
FIX = "rerun the probe, which takes seconds, or copy the file again"
# Types in the heads of `mgc.probing.heads` that skops does not trust by itself.
TRUSTED = [
    "mgc.probing.heads.logistic.Logistic",
    "mgc.probing.heads.neural.Perceptron",
    "mgc.probing.heads.neural.WeightedLayers",
    "mgc.probing.heads.svm.Machine",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.tree._tree.Tree",
]


def save_head(pipeline: Any, file: Path) -> None:
    """Save a fitted head; the file appears complete or not at all."""
    import sklearn
    import skops.io

    archive = np.frombuffer(skops.io.dumps(pipeline), np.uint8)
    metadata = {"format": FORMAT, "scikit-learn": sklearn.__version__}
    files.write(file, save({ARCHIVE: archive}, metadata))


def load_head(file: Path) -> Any:
    """The pipeline that `save_head` saved, with the same `classes_` and `predict_proba`.

    Raises:
        MgcError: there is no such file, it was not written by `save_head`, or it is damaged.
    """
    import sklearn
    import skops.io
    from sklearn.pipeline import Pipeline

    # safetensors and skops raise exceptions of many types for foreign content and other versions.
    with explaining("the file cannot be read as a head", file, FIX, (Exception,)):
        with safe_open(file, "np") as f:
            metadata = f.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError("not saved by this version of mgc")
            archive = f.get_tensor(ARCHIVE).tobytes()
        pipeline = skops.io.loads(archive, trusted=TRUSTED)
        if not isinstance(pipeline, Pipeline) or not hasattr(pipeline, "predict_proba"):
            raise ValueError("it does not hold a head")
    if metadata.get("scikit-learn") != sklearn.__version__:
        say(f"{file} was saved by scikit-learn {metadata.get('scikit-learn')}, this is {sklearn.__version__}")
    return pipeline
