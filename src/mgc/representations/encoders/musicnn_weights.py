"""The weights of MSD_musicnn: fetched as a wheel from PyPI, converted without TensorFlow, then cached.

Wheel: `musicnn==0.1.0` (ISC licence, Copyright (c) Music Technology Group, Universitat Pompeu Fabra 2019,
Jordi Pons).
"""

import hashlib
import importlib.util
import math
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save

from mgc.util.errors import MgcError
from mgc.util.progress import say
from mgc.workspace import Workspace

WHEEL = "musicnn-0.1.0-py3-none-any.whl"
WHEEL_SHA256 = "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa"
WEIGHTS_FILE = f"musicnn-{WHEEL_SHA256[:12]}.safetensors"  # in `Workspace.weights`, once converted
CHECKPOINT = "musicnn/MSD_musicnn/.data-00000-of-00001"  # inside the wheel
DOWNLOAD_SECONDS = 900  # 29 MB at 32 kB/s; pip itself gives up on a silent server after 10 s


def fetch_weights(workspace: Workspace) -> Path:
    """The weights of MSD_musicnn as a safetensors file in `workspace.weights`; the first call creates it.

    They come from the wheel `musicnn==0.1.0`: a copy in `workspace.encoders` or `workspace.weights`, or else
    29 MB downloaded from PyPI with pip. An interrupted call leaves no partial file.

    Raises:
        MgcError: no network, no pip, a folder that cannot be written, or a wheel with another checksum.
    """
    folder = workspace.weights
    weights = folder / WEIGHTS_FILE
    if weights.is_file():
        return weights
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".musicnn-") as temporary:
            wheel = _find_wheel(workspace) or _download_wheel(Path(temporary), folder)
            tensors, licence = convert_wheel(wheel)
            partial = Path(temporary) / weights.name
            source = f"MSD_musicnn from {WHEEL}, sha256 {WHEEL_SHA256}"
            partial.write_bytes(save(tensors, metadata={"source": source, "licence": licence}))
            partial.replace(weights)
    except (OSError, SafetensorError) as error:
        raise MgcError(
            f"the musicnn weights cannot be saved: {error}",
            where=folder,
            fix="make this folder writable, with 50 MB free, or choose another one with $XDG_CACHE_HOME",
        ) from error
    return weights


def _find_wheel(workspace: Workspace) -> Path | None:
    folders = [folder for folder in (workspace.encoders, workspace.weights) if folder]
    return next((folder / WHEEL for folder in folders if (folder / WHEEL).is_file()), None)


def _download_wheel(temporary: Path, folder: Path) -> Path:
    by_hand = f"download {WHEEL} from https://pypi.org/project/musicnn/0.1.0/#files and put it into {folder}"
    if importlib.util.find_spec("pip") is None:
        raise MgcError(
            "the musicnn weights cannot be downloaded: this Python has no pip",
            where=sys.executable,
            fix=f"`{sys.executable} -m ensurepip`, or {by_hand}",
        )
    say("downloading musicnn 0.1.0 from PyPI: 29 MB, once")
    arguments = "download musicnn==0.1.0 --no-deps --only-binary=:all: --quiet --no-input"
    arguments += " --disable-pip-version-check --timeout 10 --retries 1"
    command = [sys.executable, "-m", "pip", *arguments.split(), "-d", str(temporary)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False)
        output = done.stderr.strip()
    except subprocess.TimeoutExpired:
        output = f"not finished after {DOWNLOAD_SECONDS} s"
    if not (temporary / WHEEL).is_file():
        errors = [line for line in output.splitlines() if line.startswith("ERROR")] or [output]
        raise MgcError(
            "the musicnn weights cannot be downloaded from PyPI",
            where=f"pip download musicnn==0.1.0: {errors[-1]}",
            fix=f"check the network connection, or {by_hand}",
        )
    return temporary / WHEEL


def convert_wheel(wheel: Path) -> tuple[dict[str, np.ndarray], str]:
    """The state dict of `MusicNN` and the text of the licence, from the checkpoint in the wheel.

    TensorFlow stores kernels as (frames, bands, 1, filters) and (inputs, outputs), and alternates maximum and
    mean when it flattens the pools; `MusicNN` concatenates them.

    Raises:
        MgcError: the file is not the wheel with the expected checksum.
    """
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != WHEEL_SHA256:
        raise MgcError(
            f"the musicnn wheel is damaged or a different file: sha256 {found}, expected {WHEEL_SHA256}",
            where=wheel,
            fix="delete it and download musicnn==0.1.0 from PyPI again",
        )
    with zipfile.ZipFile(wheel) as archive:
        licence = archive.read("musicnn-0.1.0.dist-info/LICENSE.md").decode()
        tensors = read_checkpoint(archive.read(CHECKPOINT))

    weights: dict[str, np.ndarray] = {}

    def put_layer(ours: str, theirs: str, kernel: np.ndarray) -> None:
        weights[f"{ours}.weight"], weights[f"{ours}.bias"] = kernel, tensors[f"{theirs}/bias"]

    def put_norm(ours: str, number: int) -> None:
        for name, part in _NORM_PARTS.items():
            weights[f"{ours}.{name}"] = tensors[f"{_numbered('batch_normalization', number)}/{part}"]
        weights[f"{ours}.num_batches_tracked"] = np.array(0)

    put_norm("input_norm", 0)
    for number in range(len(_CONVOLUTIONS)):
        theirs = _numbered("conv2d", number)
        kernel = tensors[f"{theirs}/kernel"][:, :, 0]  # (frames, bands, filters)
        if number < 5:
            bank = f"front.{number}"
            kernel = kernel.transpose(2, 0, 1)[:, None]  # (filters, 1, frames, bands)
        else:
            bank = f"middle.{number - 5}"
            kernel = kernel.transpose(2, 1, 0)  # (filters, channels, frames)
        put_layer(f"{bank}.conv", theirs, kernel)
        put_norm(f"{bank}.norm", number + 1)
    put_norm("pooled_norm", 9)
    put_layer("dense", "dense", tensors["dense/kernel"].T)
    put_norm("dense_norm", 10)
    put_layer("tags", "dense_1", tensors["dense_1/kernel"].T)
    for name in ("dense.weight", *(f"pooled_norm.{name}" for name in _NORM_PARTS)):  # (..., 1506)
        weights[name] = np.concatenate([weights[name][..., 0::2], weights[name][..., 1::2]], axis=-1)
    return {name: array.copy() for name, array in weights.items()}, licence


def read_checkpoint(data: bytes) -> dict[str, np.ndarray]:
    """The tensors of the data file of MSD_musicnn's TensorFlow checkpoint, under TensorFlow's names.

    The file holds all variables one after the other as little-endian float32, sorted by name; a trained
    variable is followed by its two slots of the Adam optimizer. The separate index file, which lists names,
    shapes and offsets, need not be read: the wheel's checksum guarantees what it says.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for kind, kernels in (("conv2d", _CONVOLUTIONS), ("dense", _DENSE)):
        for number, shape in enumerate(kernels):
            layer = _numbered(kind, number)
            shapes |= {f"{layer}/kernel": shape, f"{layer}/bias": shape[-1:]}
    for number, size in enumerate(_NORMS):
        layer = _numbered("batch_normalization", number)
        shapes |= {f"{layer}/{part}": (size,) for part in _NORM_PARTS.values()}
    slots: dict[str, tuple[int, ...]] = {"beta1_power": (), "beta2_power": ()}
    for name, shape in shapes.items():
        if "moving" not in name:
            slots |= {f"{name}/Adam": shape, f"{name}/Adam_1": shape}

    tensors, offset = {}, 0
    for name, shape in sorted((shapes | slots).items()):
        count = math.prod(shape)
        if name in shapes:
            tensors[name] = np.frombuffer(data, "<f4", count, offset).reshape(shape)
        offset += 4 * count
    return tensors


def _numbered(kind: str, number: int) -> str:
    return f"{kind}_{number}" if number else kind  # TensorFlow does not number the first layer of a kind


# The variables of musicnn/models.py: kernels as (frames, bands, 1, filters) or (inputs, outputs).
_CONVOLUTIONS = (
    (7, 38, 1, 204), (7, 67, 1, 204), (128, 1, 1, 51), (64, 1, 1, 51), (32, 1, 1, 51),  # front end
    (7, 561, 1, 64), (7, 64, 1, 64), (7, 64, 1, 64),  # mid end
)  # fmt: skip
_DENSE = ((1506, 200), (200, 50))
_NORMS = (1, 204, 204, 51, 51, 51, 64, 64, 64, 1506, 200)
_NORM_PARTS = {  # names in torch and in TensorFlow
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
