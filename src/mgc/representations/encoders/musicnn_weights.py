"""The weights of MSD_musicnn: fetched as a wheel from PyPI, converted without TensorFlow, then cached.

Wheel: `musicnn==0.1.0` (ISC licence, Copyright (c) Music Technology Group, Universitat Pompeu Fabra 2019,
Jordi Pons).
"""

import csv
import hashlib
import importlib.util
import math
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from importlib import resources
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mgc.util import files
from mgc.util.errors import MgcError, explaining
from mgc.util.progress import say
from mgc.workspace import Workspace

WHEEL = "musicnn-0.1.0-py3-none-any.whl"
WHEEL_SHA256 = "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa"
WEIGHTS_FILE = f"musicnn-{WHEEL_SHA256[:12]}.safetensors"  # in `Workspace.weights`, once converted
TENSORS_SHA256 = "0e34e2645e2d04df2ef3181b4bf533ccfc2530e53b1e565d47e12817f9c631ce"  # see `_checksum`
CHECKPOINT = "musicnn/MSD_musicnn/.data-00000-of-00001"  # inside the wheel
DOWNLOAD_SECONDS = 900  # 29 MB at 32 kB/s; pip itself gives up on a silent server after 10 s


def fetch_weights(workspace: Workspace) -> Path:
    """The weights of MSD_musicnn as a safetensors file in `workspace.weights`; the first call creates it.

    They come from the wheel `musicnn==0.1.0`: a copy in `workspace.encoders` or `workspace.weights`, or else
    29 MB downloaded from PyPI with pip. No call leaves a partial file; a damaged file is converted again.

    Raises:
        MgcError: no network, no pip, a folder that cannot be written, or a wheel with another checksum.
    """
    folder = workspace.weights
    weights = folder / WEIGHTS_FILE
    if weights.is_file():
        with suppress(Exception):  # of safetensors, for any damaged header
            if _checksum(load(weights.read_bytes())) == TENSORS_SHA256:
                return weights
        say(f"warning: {weights} is damaged: it is converted again")
    places = [place / WHEEL for place in (workspace.encoders, folder) if place]
    fix = "make this folder writable, with 50 MB free, or choose another one with $XDG_CACHE_HOME"
    with explaining("the musicnn weights cannot be saved", folder, fix, (OSError, SafetensorError)):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".musicnn-") as temporary:
            wheel = next((place for place in places if place.is_file()), None)
            tensors, licence = convert_wheel(wheel or _download_wheel(Path(temporary), folder))
        metadata = {"source": f"MSD_musicnn from {WHEEL}, sha256 {WHEEL_SHA256}", "licence": licence}
        return files.write(weights, save(tensors, metadata))


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


def _checksum(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, types, shapes and values; the order of metadata in the file may vary."""
    parts = [f"{name} {x.dtype} {x.shape}".encode() + x.tobytes() for name, x in sorted(tensors.items())]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def convert_wheel(wheel: Path) -> tuple[dict[str, np.ndarray], str]:
    """The state dict of `MusicNN` and the text of the licence, from the checkpoint in the wheel.

    The checkpoint's data file holds all variables one after the other as little-endian float32, sorted by
    name; a trained variable is followed by its two slots of the Adam optimizer. The wheel's checksum fixes
    the offsets, so musicnn_weights.csv lists them: where each array begins, its shape, and the axes and shape
    it has in `MusicNN`. TensorFlow stores kernels as (frames, bands, 1, filters) and (inputs, outputs), and
    alternates maximum and mean when it flattens the pools; `MusicNN` concatenates them.

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
        data = archive.read(CHECKPOINT)
    table = resources.files("mgc.representations.encoders").joinpath("musicnn_weights.csv").read_text()
    weights: dict[str, np.ndarray] = {}
    for row in csv.DictReader(table.splitlines()):
        stored, axes, shape = ([*map(int, row[key].split())] for key in ("stored", "axes", "shape"))
        values = np.frombuffer(data, "<f4", math.prod(stored), int(row["offset"]))
        weights[row["name"]] = values.reshape(stored).transpose(axes).reshape(shape).copy()
        if row["name"].endswith("running_var"):
            weights[row["name"].replace("running_var", "num_batches_tracked")] = np.array(0)
    return weights, licence
