"""A fitted head in one file: its arrays as tensors, the rest as JSON, and nothing that runs when it is read.

skops takes a scikit-learn object apart into a JSON schema and NumPy files, and puts it together again from
types that it knows and those trusted here. Both go into a safetensors file. A checksum over all of it tells
damage, which safetensors itself would read as other numbers.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mgc.util import files
from mgc.util.errors import MgcError
from mgc.util.progress import say

FORMAT = "mgc head 1"
SCHEMA = "schema.json"
AGAIN = "run the probe again: heads take seconds; or copy the file anew"
# Beyond those that skops knows: what the heads of mgc.probing.heads are made of.
TRUSTED = [
    "mgc.probing.heads.logistic.Logistic",
    "mgc.probing.heads.neural.Perceptron",
    "mgc.probing.heads.neural.WeightedLayers",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.tree._tree.Tree",
]


def save_head(pipeline: Any, file: Path) -> None:
    """Write a fitted head, whole or not at all."""
    import sklearn
    import skops.io

    tensors: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(pipeline))) as parts:
        schema = parts.read(SCHEMA).decode()
        for name in parts.namelist():
            if name != SCHEMA:
                tensors.update([_to_tensor(name, parts.read(name))])
    told = {"format": FORMAT, "schema": schema, "scikit-learn": sklearn.__version__}
    files.write(file, save(tensors, told | {"checksum": _checksum(told, tensors)}))


def load_head(file: Path) -> Any:
    """The pipeline that `save_head` has kept: `classes_`, and the very same `predict_proba`.

    Raises:
        MgcError: no such file, or none that `save_head` has written, or it is damaged.
    """
    import sklearn
    import skops.io
    from sklearn.pipeline import Pipeline

    told, tensors = _read(file)
    if told.get("format") != FORMAT:
        raise MgcError("this is no head that mgc has saved", where=file, fix=AGAIN)
    if told.get("checksum") != _checksum(told, tensors):
        raise MgcError("a head is damaged: its checksum is not that of its numbers", where=file, fix=AGAIN)
    if told["scikit-learn"] != sklearn.__version__:
        say(f"{file} is of scikit-learn {told['scikit-learn']}, read by {sklearn.__version__}")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as parts:
        parts.writestr(SCHEMA, told["schema"])
        for name, tensor in tensors.items():
            parts.writestr(*_from_tensor(name, tensor))
    try:
        pipeline = skops.io.loads(packed.getvalue(), trusted=TRUSTED)
    except Exception as error:  # whatever a foreign schema, or that of another version, leads to
        raise MgcError(f"a head cannot be put together: {error}", where=file, fix=AGAIN) from error
    if not isinstance(pipeline, Pipeline) or not hasattr(pipeline, "predict_proba"):
        raise MgcError("this file holds something other than a head", where=file, fix=AGAIN)
    return pipeline


def _read(file: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    try:
        with safe_open(file, "np") as opened:
            names = opened.keys()
            return opened.metadata() or {}, {name: opened.get_tensor(name) for name in names}
    except FileNotFoundError:
        raise MgcError("there is no such head", where=file, fix=AGAIN) from None
    except (OSError, SafetensorError) as error:
        raise MgcError(f"a head cannot be read: {error}", where=file, fix=AGAIN) from None


def _to_tensor(name: str, content: bytes) -> tuple[str, np.ndarray]:
    """A .npy file as a tensor: a plain one as it is, one in columns transposed, others byte by byte.

    Columns matter: sums in another order differ in their last bit.
    """
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if array.dtype.kind not in "fiub" or not array.dtype.isnative:
        return f"bytes:{name}", np.frombuffer(content, np.uint8)
    if array.flags.c_contiguous:
        return f"rows:{name}", array
    return f"columns:{name}", np.ascontiguousarray(array.T)


def _from_tensor(name: str, tensor: np.ndarray) -> tuple[str, bytes]:
    kind, _, name = name.partition(":")
    if kind == "bytes":
        return name, tensor.tobytes()
    content = io.BytesIO()
    np.save(content, tensor.T if kind == "columns" else tensor, allow_pickle=False)
    return name, content.getvalue()


def _checksum(told: Mapping[str, str], tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([told.get(key) for key in ("format", "schema", "scikit-learn")]).encode())
    for name in sorted(tensors):
        digest.update(json.dumps([name, str(tensors[name].dtype), tensors[name].shape]).encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()
