"""The weights of MSD_musicnn: fetched as a wheel from PyPI, read without TensorFlow, kept as safetensors.

Wheel: `musicnn==0.1.0` (ISC licence, Copyright (c) Music Technology Group, Universitat Pompeu Fabra 2019,
Jordi Pons). `weights_from_wheel` is the one place that knows TensorFlow's names and axis order.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from mgc.representations.encoders.musicnn import FRONT_END, PENULTIMATE, POOLED, WHEEL_SHA256
from mgc.util.errors import MgcError
from mgc.util.progress import say

WHEEL = "musicnn-0.1.0-py3-none-any.whl"
NORM_EPSILON = 1e-3  # default of tf.layers.batch_normalization
WHEEL_VARIABLE = "MGC_MUSICNN_WHEEL"
CHECKPOINT = "musicnn/MSD_musicnn/"  # folder inside the wheel; the checkpoint's own name is empty
DOWNLOAD_SECONDS = 900  # 29 MB at 32 kB/s; pip itself gives up on a silent server after 10 s


def fetch_weights(cache: Path) -> Path:
    """The weights of MSD_musicnn as a safetensors file in the folder `cache`, made there on the first call.

    They come from the wheel `musicnn==0.1.0`: the file named by $MGC_MUSICNN_WHEEL, or the wheel lying in
    `cache`, or, with neither, 29 MB fetched from PyPI by the running interpreter's pip. The file appears at
    once or not at all, so that a cut-off call leaves nothing half-written.

    Raises MgcError if there is no network, no pip, no writable cache, or if the wheel is not the known one.
    """
    weights = cache / f"musicnn-msd-{WHEEL_SHA256[:12]}.safetensors"
    if weights.is_file():
        return weights
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".musicnn-") as folder:
            wheel = _wheel_at_hand(cache) or _download_wheel(Path(folder), cache)
            _check_wheel(wheel)
            tensors, licence = weights_from_wheel(wheel)
            unfinished = Path(folder) / weights.name
            source = f"MSD_musicnn from {WHEEL}, sha256 {WHEEL_SHA256}"
            unfinished.write_bytes(save(tensors, metadata={"source": source, "licence": licence}))
            unfinished.replace(weights)
    except (OSError, SafetensorError) as error:
        raise MgcError(
            f"cannot keep the musicnn weights: {error}",
            where=cache,
            fix="make this folder writable, with 50 MB free, or choose another cache folder",
        ) from error
    return weights


def _wheel_at_hand(cache: Path) -> Path | None:
    named = os.environ.get(WHEEL_VARIABLE)
    if not named:
        return cache / WHEEL if (cache / WHEEL).is_file() else None
    wheel = Path(named).expanduser()
    if not wheel.is_file():
        raise MgcError(
            f"${WHEEL_VARIABLE} names a file that does not exist",
            where=wheel,
            fix=f"let it name {WHEEL}, or unset it to download the wheel from PyPI",
        )
    return wheel


def _download_wheel(folder: Path, cache: Path) -> Path:
    by_hand = (
        f"download {WHEEL} from https://pypi.org/project/musicnn/0.1.0/#files and put it into {cache}, "
        f"or name it in ${WHEEL_VARIABLE}"
    )
    if importlib.util.find_spec("pip") is None:
        raise MgcError(
            "the musicnn weights cannot be downloaded: this Python has no pip",
            where=sys.executable,
            fix=f"`{sys.executable} -m ensurepip`, or {by_hand}",
        )
    say("fetching musicnn 0.1.0 from PyPI: 29 MB, once")
    what = "download musicnn==0.1.0 --no-deps --only-binary=:all:"
    how = "--quiet --no-input --disable-pip-version-check --timeout 10 --retries 1"
    command = [sys.executable, "-m", "pip", *what.split(), *how.split(), "-d", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False)
        complaint = done.stderr.strip()
    except subprocess.TimeoutExpired:
        complaint = f"not finished after {DOWNLOAD_SECONDS} s"
    if not (folder / WHEEL).is_file():
        errors = [line for line in complaint.splitlines() if line.startswith("ERROR")] or [complaint]
        raise MgcError(
            "the musicnn weights cannot be downloaded from PyPI (is there a network?)",
            where=f"pip download musicnn==0.1.0: {errors[-1]}",
            fix=by_hand,
        )
    return folder / WHEEL


def _check_wheel(wheel: Path) -> None:
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != WHEEL_SHA256:
        raise MgcError(
            f"this is not the known musicnn wheel: sha256 {found}, expected {WHEEL_SHA256}",
            where=wheel,
            fix="delete it and download musicnn==0.1.0 from PyPI again: it is damaged, or another file",
        )


def weights_from_wheel(wheel: Path) -> tuple[dict[str, Tensor], str]:
    """The state dict of `MusicNN` and the text of the licence, from the checkpoint in a musicnn wheel.

    TensorFlow keeps (frames, bands, 1, filters) and (inputs, outputs), and pools into (753, 2) before
    flattening: maximum and mean alternate there, and follow one another here. The batch norm after pooling
    is folded into the dense layer; those after a relu cannot be folded into the convolution before it.

    Raises MgcError if the wheel is not a readable zip of the known layout.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            index = archive.read(f"{CHECKPOINT}.index")
            data = archive.read(f"{CHECKPOINT}.data-00000-of-00001")
            licence = archive.read("musicnn-0.1.0.dist-info/LICENSE.md").decode()
    except (zipfile.BadZipFile, KeyError) as error:
        raise MgcError(
            f"the musicnn wheel cannot be read: {error}", where=wheel, fix=f"bring an intact {WHEEL}"
        ) from error
    tensors = read_bundle(index, data, _CHECKPOINT_NAMES, where=wheel)

    weights: dict[str, NDArray[np.floating[Any]]] = {}

    def norm(ours: str, number: int) -> None:
        weights[f"{ours}.scale"], weights[f"{ours}.shift"] = _scale_and_shift(tensors, number)

    norm("input_norm", 0)
    for number, ours in enumerate(_CONVOLUTIONS):
        kernel, weights[f"{ours}.conv.bias"] = (tensors[name] for name in _layer_names("conv2d", number))
        kernel = kernel[:, :, 0].transpose(2, 0, 1)  # (frames, bands, 1, filters) -> (filters, frames, bands)
        is_front = ours.startswith("front")
        weights[f"{ours}.conv.weight"] = kernel[:, None] if is_front else kernel.transpose(0, 2, 1)
        norm(f"{ours}.norm", number + 1)
    norm("dense_norm", 10)
    for number, ours in enumerate(("dense", "tags")):
        kernel, weights[f"{ours}.bias"] = (tensors[name] for name in _layer_names("dense", number))
        weights[f"{ours}.weight"] = kernel.T  # (outputs, inputs)

    scale, shift = _scale_and_shift(tensors, 9)  # between the pools and `dense`: (1506,)
    weights["dense.bias"] = weights["dense.bias"] + weights["dense.weight"] @ shift
    pairs = (weights["dense.weight"] * scale).reshape(PENULTIMATE, POOLED, 2)
    weights["dense.weight"] = np.concatenate([pairs[..., 0], pairs[..., 1]], axis=1)  # (200, 1506)
    return {
        name: torch.from_numpy(np.array(values, np.float32, order="C")) for name, values in weights.items()
    }, licence


def _scale_and_shift(
    tensors: dict[str, NDArray[np.float32]], number: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the batch norm of this number computes at rest: scale * x + shift."""
    beta, gamma, mean, variance = (tensors[name].astype(np.float64) for name in _norm_names(number))
    scale = gamma / np.sqrt(variance + NORM_EPSILON)
    return scale, beta - mean * scale


def _layer_names(kind: str, number: int) -> tuple[str, str]:
    layer = f"{kind}_{number}" if number else kind  # TensorFlow leaves out the number of the first
    return f"{layer}/kernel", f"{layer}/bias"


def _norm_names(number: int) -> tuple[str, ...]:
    layer = f"batch_normalization_{number}" if number else "batch_normalization"
    return tuple(f"{layer}/{part}" for part in ("beta", "gamma", "moving_mean", "moving_variance"))


_CONVOLUTIONS = tuple(f"front.{i}" for i in range(len(FRONT_END))) + tuple(f"middle.{i}" for i in range(3))
_CHECKPOINT_NAMES = (
    *(name for number in range(len(_CONVOLUTIONS)) for name in _layer_names("conv2d", number)),
    *(name for number in range(2) for name in _layer_names("dense", number)),
    *(name for number in range(len(_CONVOLUTIONS) + 3) for name in _norm_names(number)),
)


# --- TensorFlow's tensor bundle ---------------------------------------------------------------------------
# tensorflow/core/protobuf/tensor_bundle.proto and leveldb/doc/table_format.md

TABLE_MAGIC = 0xDB4775248B80FB57
TABLE_FOOTER_BYTES = 48
DT_FLOAT = 1  # tensorflow/core/framework/types.proto


def read_bundle(
    index: bytes, data: bytes, names: Iterable[str], *, where: object = None
) -> dict[str, NDArray[np.float32]]:
    """The named float32 tensors of a TensorFlow checkpoint of one shard, without TensorFlow.

    `index` is the `.index` file, an uncompressed LevelDB table of BundleEntryProto; `data` is the
    `.data-00000-of-00001` file of raw tensors. Every entry's type, place and size is held against its shape
    and the data; the format's CRC-32C sums are not computed, as the zip's CRC-32 and the wheel's sha256
    cover the same bytes.

    Raises MgcError, with `where` in it, for a file cut short or of another kind, a missing tensor, or an
    entry that contradicts itself.
    """

    def refuse(what: str) -> MgcError:
        return MgcError(f"the TensorFlow checkpoint {what}", where=where, fix="bring an intact copy of it")

    if len(index) < TABLE_FOOTER_BYTES or int.from_bytes(index[-8:], "little") != TABLE_MAGIC:
        raise refuse("index is not a LevelDB table, or is cut short")
    try:
        entries = dict(_table_entries(index))
        header = _protobuf(entries.pop(b""))
        described = {key.decode(): _Entry.parse(value) for key, value in entries.items()}
    except (IndexError, KeyError, ValueError, TypeError) as error:
        raise refuse(f"index is damaged: {error!r}") from error
    if header.get(1, [0]) != [1] or header.get(2, [0]) != [0]:  # num_shards, endianness
        raise refuse("is in several shards or big-endian, which this reader does not know")

    names = list(names)
    if missing := [name for name in names if name not in described]:
        raise refuse(f"lacks {', '.join(missing)}")
    tensors = {}
    for name in names:
        entry = described[name]
        count = int(np.prod(entry.shape, dtype=np.int64))
        if entry.dtype != DT_FLOAT or entry.size_bytes != 4 * count:
            raise refuse(f"contradicts itself: {name} is {entry}")
        if entry.offset + entry.size_bytes > len(data):
            raise refuse(f"data is cut short: {name} ends beyond its {len(data)} bytes")
        tensors[name] = np.frombuffer(data, "<f4", count, entry.offset).reshape(entry.shape)
    return tensors


@dataclass(frozen=True)
class _Entry:
    """What a BundleEntryProto says of one tensor."""

    dtype: int
    shape: tuple[int, ...]
    offset: int
    size_bytes: int

    @classmethod
    def parse(cls, raw: bytes) -> "_Entry":
        fields = _protobuf(raw)
        dimensions = _protobuf(fields.get(2, [b""])[-1]).get(2, [])  # TensorShapeProto.dim
        shape = tuple(_number(_protobuf(dimension), 1) for dimension in dimensions)  # Dim.size
        return cls(_number(fields, 1), shape, _number(fields, 4), _number(fields, 5))


def _table_entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a LevelDB table: its footer names the index block, whose values name data blocks."""
    footer = table[-TABLE_FOOTER_BYTES:]
    _, at = _block_handle(footer, 0)  # of the metaindex, which is empty
    handle, _ = _block_handle(footer, at)
    for _, value in _block_entries(_block(table, *handle)):
        handle, _ = _block_handle(value, 0)
        yield from _block_entries(_block(table, *handle))


def _block(table: bytes, offset: int, size: int) -> bytes:
    contents, compression = _take(table, offset, size), _take(table, offset + size, 1)
    if compression != b"\0":
        raise ValueError("a block is compressed, which TensorFlow never does")
    return contents


def _block_handle(raw: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = _varint(raw, at)
    size, at = _varint(raw, at)
    return (offset, size), at


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Entries of one block; a key begins with as many bytes of the one before as its first number says."""
    restarts = int.from_bytes(_take(block, len(block) - 4, 4), "little")
    entries = _take(block, 0, len(block) - 4 - 4 * restarts)
    at, key = 0, b""
    while at < len(entries):
        shared, at = _varint(entries, at)
        own, at = _varint(entries, at)
        size, at = _varint(entries, at)
        key = _take(key, 0, shared) + _take(entries, at, own)
        yield key, _take(entries, at + own, size)
        at += own + size


def _protobuf(raw: int | bytes) -> dict[int, list[int | bytes]]:
    """Fields of a protobuf message by number: varints and fixed-width fields as int, the others as bytes."""
    if isinstance(raw, int):
        raise TypeError("a number where a message belongs")
    fields: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        value: int | bytes
        match tag & 7:
            case 0:
                value, at = _varint(raw, at)
            case 2:
                size, at = _varint(raw, at)
                value, at = _take(raw, at, size), at + size
            case 1 | 5 as wire:
                size = 8 if wire == 1 else 4
                value, at = int.from_bytes(_take(raw, at, size), "little"), at + size
            case wire:
                raise ValueError(f"wire type {wire}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _number(fields: dict[int, list[int | bytes]], field: int) -> int:
    value = fields.get(field, [0])[-1]  # protobuf leaves out zeros
    if isinstance(value, bytes):
        raise TypeError(f"field {field} is not a number")
    return value


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """A little-endian number of seven bits a byte at `at`, and the place after it."""
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _take(raw: bytes, at: int, count: int) -> bytes:
    if at < 0 or count < 0 or at + count > len(raw):
        raise IndexError(f"{count} bytes at {at} of {len(raw)}")
    return raw[at : at + count]
