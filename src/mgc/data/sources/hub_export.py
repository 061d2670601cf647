"""Open an audio dataset with the `datasets` library and write its audio to files. Nothing is decoded."""

import functools
import hashlib
import os
import re
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from mgc.audio import SUFFIXES
from mgc.data.dataset import as_text
from mgc.data.sources.local import USUAL_COLUMNS, cell_text
from mgc.util.errors import MgcError, did_you_mean
from mgc.util.files import is_file, write
from mgc.util.progress import Progress, say

if TYPE_CHECKING:
    import datasets

DATA_SUFFIXES = {".parquet", ".arrow", ".zip", ".tar"}
TOKEN = "HF_TOKEN (or hf auth login)"
# First bytes of a file, by the suffix by which `mgc.audio` recognises the format; the first match counts.
MAGIC = {
    ".flac": b"fLaC", ".opus": b"OggS.{0,52}OpusHead", ".ogg": b"OggS", ".au": rb"\.snd", ".caf": b"caff",
    ".wma": b"\x30\x26\xb2\x75", ".m4a": b".{4}ftyp", ".wav": b".{8}WAVE", ".aiff": b".{8}AIF[FC]",
    # The frame sync of MPEG is eleven ones; layer 0, in the last two bits before the lowest one, is AAC.
    ".mp3": rb"ID3|\xff[\xe2-\xe7\xea-\xef\xf2-\xf7\xfa-\xff]", ".aac": rb"\xff[\xe0-\xff]",
}  # fmt: skip


@dataclass(frozen=True)
class Address:
    """`text`, taken apart: a dataset of the hub has a `repo`, a local one a `folder`."""

    text: str
    repo: str
    folder: Path | None
    config: str | None
    revision: str | None = None


@dataclass
class Row:
    """One row without its audio. `cells` are its non-empty columns of text or numbers.

    `file` is relative to the folder of the export if it was written there, and then has `size` bytes. `named`
    is what the dataset calls the audio. `problem` says why there is no audio.
    """

    split: str
    number: int
    named: str
    cells: dict[str, str]
    file: str = ""
    size: int | None = None
    problem: str | None = None


@dataclass
class Table:
    """A dataset whose audio is in files. `columns` have text or numbers; `classes` are its ClassLabels."""

    origin: str
    licence: str | None
    splits: list[str]  # those with rows
    audio: str  # the column
    columns: list[str]
    classes: list[str]
    unread: list[str]  # files of the folder that belong to no row
    rows: list[Row]


@dataclass(frozen=True)
class _Opened:
    """An open dataset."""

    splits: dict[str, "datasets.Dataset"]
    origin: str
    licence: str | None
    roots: list[Path]  # rows may name files below these folders
    read: frozenset[str] | None = None  # the files that were opened, if others could have been ignored


def export(address: Address, files: Iterable[str], place: Path, path_column: str | None) -> Table:
    """Write the audio of every row below `place` as it is: `<split>/<hash of the bytes>.<suffix>`.

    Existing files are kept, so an interrupted export resumes. Rows that only name a file of the dataset refer
    to that file. `files` are those of a local folder.

    Raises:
        MgcError: the dataset is not available, or has no audio column or several.
    """
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    scratch = place / ".arrow"  # copies that `datasets` makes of local files, as large as these
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        with _errors_explained(address), _audio_not_encoded():
            opened = _open_folder(address, address.folder, scratch) if address.folder else _open_repo(address)
        table = _describe(opened, path_column, address.text)
        total = sum(map(len, opened.splits.values()))
        with Progress(f"export {as_text(place.name)}", total, "clips") as progress:
            for row in _rows(opened, table, place):
                table.rows.append(row)
                progress.step()
        opened.splits.clear()  # closes memory-mapped files
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if address.folder and opened.read is not None:
        table.unread = _unread(address.folder, opened.read, files, table.rows)
    return table


# Opening


def _open_folder(address: Address, folder: Path, scratch: Path) -> _Opened:
    import datasets

    read = None
    if any((folder / name).exists() for name in ("dataset_dict.json", "state.json")):  # of save_to_disk
        if address.config:
            what = "a dataset written by save_to_disk has no configs"
            raise MgcError(what, where=address.text, fix=f"remove :{address.config}")
        found = datasets.load_from_disk(str(folder))
    else:
        path = str(folder.absolute())
        builder = datasets.load_dataset_builder(path, address.config, cache_dir=str(scratch))
        builder.download_and_prepare()
        found = builder.as_dataset()
        read = frozenset(os.path.realpath(f) for files in builder.config.data_files.values() for f in files)
    splits = {str(found.split or "train"): found} if isinstance(found, datasets.Dataset) else dict(found)
    readme = folder / "README.md"
    licence = _licence(splits, str(readme) if readme.is_file() else None)
    roots = [folder.absolute(), folder.resolve()]
    return _Opened(splits, f"from the folder {as_text(folder)}", licence, roots, read)


def _open_repo(address: Address) -> _Opened:
    import datasets
    from datasets.packaged_modules.cache.cache import Cache
    from huggingface_hub import constants, try_to_load_from_cache

    def cached_readme(revision: str) -> str | None:
        found = try_to_load_from_cache(address.repo, "README.md", revision=revision, repo_type="dataset")
        return found if isinstance(found, str) else None

    if not constants.HF_HUB_OFFLINE:
        say(f"connecting to {constants.ENDPOINT} for {address.repo}; HF_HUB_OFFLINE=1 uses only the cache")
    builder = datasets.load_dataset_builder(address.repo, address.config, revision=address.revision)
    commit, offline = builder.hash, isinstance(builder, Cache)
    # Without the hub, `datasets` uses any commit in its cache, regardless of the revision.
    if offline and address.revision and not commit.startswith(address.revision):
        readme = cached_readme(address.revision)
        if readme is None or Path(readme).parent.name != commit:
            what = f"the hub cannot be reached, and the cache has commit {commit}, maybe not this revision"
            fix = f"connect to the network once, {_by_folder(address)}"
            raise MgcError(what, where=address.text, fix=fix)
    builder.download_and_prepare()
    splits = dict(builder.as_dataset())
    config = "" if builder.config.name == "default" else f", config {builder.config.name}"
    origin = (
        f"{address.repo} of the hub{config}, {address.revision or 'main'} when first used: commit {commit}"
    )
    origin += ", from the local cache because the hub was not reached" if offline else ""
    roots = [Path(constants.HF_HUB_CACHE).absolute(), Path(datasets.config.HF_DATASETS_CACHE).absolute()]
    return _Opened(splits, origin, _licence(splits, cached_readme(commit)), roots)


@contextmanager
def _audio_not_encoded() -> Iterator[None]:
    """Let `datasets` keep paths and bytes of audio as they are.

    While it builds an audiofolder or a WebDataset, `Audio.encode_example` imports torchcodec, even for a path
    (datasets 5.2, features/audio.py); casting to `Audio(decode=False)` is possible only afterwards.
    """
    import datasets

    def keep(_: object, value: Any) -> dict[str, Any]:
        value = value if isinstance(value, dict) else {"path": str(value)}
        return {"bytes": value.get("bytes"), "path": value.get("path")}

    with patch.object(datasets.Audio, "encode_example", keep):
        yield


def _licence(splits: dict[str, "datasets.Dataset"], readme: str | None) -> str | None:
    """From the dataset's information, or else from the metadata of its README."""
    from huggingface_hub import DatasetCard

    card = DatasetCard.load(readme, ignore_metadata_errors=True).data.to_dict() if readme else {}
    named = card.get("license_name") if card.get("license") == "other" else None
    licences = (*(dataset.info.license for dataset in splits.values()), named, card.get("license"))
    licence = next(filter(None, licences), None)
    return ", ".join(map(str, licence)) if isinstance(licence, list) else licence and str(licence)


@contextmanager
def _errors_explained(address: Address) -> Iterator[None]:
    """Turn any error of `datasets` and the hub's client into an `MgcError` that keeps their message.

    Which errors they raise is not documented and depends on the kind of dataset.
    """
    try:
        yield
    except MgcError:
        raise
    except Exception as error:
        cause = error.__cause__ if "An error occurred" in str(error) and error.__cause__ else error
        words = as_text(" ".join(str(cause).split()) or type(cause).__name__)[:600]
        what, fix = _explanation(address, error, words)
        raise MgcError(what, where=address.text, fix=fix) from error


def _explanation(address: Address, error: Exception, words: str) -> tuple[str, str]:
    """What is wrong, in the `words` of the error, and what to do."""
    from datasets.exceptions import DatasetNotFoundError

    if re.search(r"Config name is missing|BuilderConfig|onfigurations in the cache|find cache for", words):
        words = words.partition(" Example of usage")[0]
        first = re.search(r"\[.*?'([^']+)'", words)
        bare = address.text.removesuffix(f":{address.config}")
        fix = f"choose a config, for example {bare}:{first[1] if first else 'CONFIG'}"
        return f"the dataset has several configs, or not the one given: {words}", fix
    needs_script = "scripts are no longer supported" in words
    if address.folder and needs_script:
        return words, "move the script out of the folder: only its data files are read"
    if address.folder:
        fix = "give a folder of parquet, arrow or audio files, not zipped, or one written by save_to_disk"
        return f"the datasets library cannot open this folder: {words}", fix
    no_connection = isinstance(error, ConnectionError | TimeoutError)
    what = words
    if needs_script:
        what = "the dataset needs a Python script, which the datasets library no longer runs"
        fix = f"use the hub's own conversion, if there is one: hf:{address.repo}@refs/convert/parquet;"
    elif "gated dataset" in words:
        fix = f"accept its terms at https://huggingface.co/datasets/{address.repo} and set {TOKEN},"
    elif isinstance(error, DatasetNotFoundError):
        fix = f"check the name and the revision; a private dataset needs {TOKEN};"
    elif no_connection or type(error).__module__.startswith(("httpx", "requests")):
        what = f"the hub cannot be reached, and the dataset is not in the local cache: {words}"
        fix = "check the network, and that HF_HUB_OFFLINE is not set,"
    else:
        what = f"the datasets library cannot open this dataset: {words}"
        fix = "check whether the hub's own viewer can,"
    return what, f"{fix} {_by_folder(address)}"


def _by_folder(address: Address) -> str:
    revision = f" --revision {address.revision}" if address.revision else ""
    command = f"hf download {address.repo} --repo-type dataset{revision} --local-dir FOLDER"
    return f"or on a machine with a network run {command}, copy the folder here and give --data hf:FOLDER"


# Columns


def _describe(opened: _Opened, path_column: str | None, where: str) -> Table:
    """The table without rows; `MgcError` if there is no audio column, or several of which none is named."""
    from datasets import ClassLabel, Value

    features = {name: f for dataset in opened.splits.values() for name, f in dataset.features.items()}
    text = [
        name
        for name, feature in features.items()
        if isinstance(feature, ClassLabel | Value) and "binary" not in feature.dtype
    ]
    audio = _audio_columns(features, text)
    every = f"columns: {', '.join(features)}"
    if path_column is not None and path_column not in features:
        fix = did_you_mean(path_column, features)
        raise MgcError(f"the dataset has no column {path_column!r}", where=where, fix=fix)
    if path_column is None and len(audio) != 1:
        found = f"{len(audio)} audio columns: {', '.join(audio)}" if audio else "no audio column"
        fix = f"name it with --column path=NAME; {every}"
        raise MgcError(f"the dataset has {found}", where=where, fix=fix)
    chosen = path_column or audio[0]
    if chosen not in text and not _is_audio(features[chosen]):
        raise MgcError(f"the column {chosen!r} has neither audio nor paths", where=where, fix=every)
    for split, dataset in opened.splits.items():
        if chosen not in dataset.features:
            raise MgcError(f"the split {split!r} has no column {chosen!r}", where=where, fix=every)
    splits = [split for split, dataset in opened.splits.items() if len(dataset)]
    columns = [name for name in text if name != chosen]
    classes = [name for name in columns if isinstance(features[name], ClassLabel)]
    return Table(opened.origin, opened.licence, splits, chosen, columns, classes, [], [])


def _audio_columns(features: dict[str, Any], text: Sequence[str]) -> list[str]:
    """Columns of the type Audio, or else one that looks like audio or, at last, like paths."""
    from datasets import Audio

    typed = [name for name, feature in features.items() if isinstance(feature, Audio)]
    similar = [name for name, feature in features.items() if _is_audio(feature)]
    usual = [name for name in similar if name.lower() in USUAL_COLUMNS["path"]]
    paths = [name for usual in USUAL_COLUMNS["path"] for name in text if name.lower() == usual]
    return typed or usual[:1] or similar or paths[:1]


def _is_audio(feature: Any) -> bool:
    """An Audio column, bytes (with a path), or samples with their sampling rate."""
    if isinstance(feature, dict):
        return {"bytes", "path"} <= {*feature} or {"array", "sampling_rate"} <= {*feature}
    return type(feature).__name__ == "Audio" or "binary" in str(getattr(feature, "dtype", ""))


# Rows


def _rows(opened: _Opened, table: Table, place: Path) -> Iterator[Row]:
    """All rows in order, with their audio in files."""
    open_zip = functools.cache(zipfile.ZipFile)
    for split, dataset in opened.splits.items():
        columns = [column for column in table.columns if column in dataset.features]
        names = {column: getattr(dataset.features[column], "names", None) for column in columns}
        batches = dataset.select_columns([*columns, table.audio]).with_format("arrow").iter(batch_size=1)
        for number, batch in enumerate(batches):
            (held,) = batch.to_pylist()
            texts = {column: _text(held[column], names[column]) for column in columns}
            audio = held[table.audio]
            if not isinstance(audio, dict):
                audio = {"bytes": audio} if isinstance(audio, bytes) else {"path": audio}
            cells = {column: text for column, text in texts.items() if text}
            row = Row(split, number, as_text(audio.get("path") or ""), cells)
            try:
                if data := _audio_bytes(row, audio, opened.roots, open_zip):
                    _save(row, data, place)
            except _NoAudioError as error:
                row.problem = str(error)
            yield row


class _NoAudioError(Exception):
    """A row has no audio; the message is the reason."""


def _text(value: Any, class_names: Sequence[str] | None) -> str:
    if class_names is None or value is None:
        return cell_text(value)
    return cell_text(class_names[value]) if 0 <= value < len(class_names) else ""  # -1 means "unknown"


def _audio_bytes(
    row: Row, audio: dict[str, Any], roots: Sequence[Path], open_zip: Callable[[Path], zipfile.ZipFile]
) -> bytes | None:
    """The bytes of an audio cell; None if a file of the dataset has them, which `row.file` then names."""
    if held := audio.get("bytes"):
        return bytes(held)
    if audio.get("array") is not None:
        rate = audio.get("sampling_rate")
        if not isinstance(rate, int | float) or rate < 1:
            raise _NoAudioError(f"the row has samples without a sampling rate ({rate!r})")
        try:
            return _wav_bytes(np.asarray(audio["array"]), int(rate))
        except ValueError as error:
            raise _NoAudioError(f"the row's samples cannot be saved as audio: {error}") from None
    if not row.named:
        raise _NoAudioError("the row has no audio")
    # A file of the dataset; `datasets` names one in an archive "zip://<file>::<archive>".
    member, is_zipped, file = row.named.removeprefix("zip://").rpartition("::")
    for root in roots:
        path = Path(os.path.normpath(root / file))
        if not path.is_relative_to(root):
            continue
        # In the hub's cache: datasets--owner--name/snapshots/<commit>/<path in the dataset>
        row.named = re.sub(r"^datasets--[^/]+/snapshots/[^/]+/", "", path.relative_to(root).as_posix())
        if is_file(path) and not is_zipped:
            row.file = str(path)
            return None
        if is_file(path):
            row.named = member
            try:
                data = open_zip(path).read(member)
            except (KeyError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
                raise _NoAudioError(f"cannot be read from {path.name}: {error}") from None
            if not data:
                raise _NoAudioError("the row names an empty file")
            return data
    raise _NoAudioError(f"the row has only a path, and the dataset has no such file: {row.named}")


def _save(row: Row, data: bytes, place: Path) -> None:
    magic = (suffix for suffix, start in MAGIC.items() if re.match(start, data[:64], re.DOTALL))
    named = PurePosixPath(row.named).suffix.lower()
    suffix = next(magic, named if named in SUFFIXES else ".bin")
    file = place / plain(row.split) / f"{hashlib.blake2b(data, digest_size=16).hexdigest()}{suffix}"
    if not is_file(file, len(data)):
        write(file, data)
    row.file, row.size = file.relative_to(place).as_posix(), len(data)


def _wav_bytes(samples: np.ndarray, rate_hz: int) -> bytes:
    """A WAV file of samples (n,), (channels, n) or (n, channels), without loss and always the same bytes.

    (soundfile would add the time of day to a WAV file of floats.) Raises ValueError if there are no numbers.
    """
    from scipy.io import wavfile

    if samples.ndim not in (1, 2) or samples.size == 0 or samples.dtype.kind not in "fiu":
        raise ValueError(f"an array of shape {samples.shape} and type {samples.dtype}")
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:
        samples = samples.T  # (n, channels)
    is_short = samples.dtype.kind != "f" and np.abs(samples.astype(np.int64)).max() < 1 << 15
    samples = samples.astype(np.int16 if is_short else np.float32 if samples.dtype.kind == "f" else np.int32)
    stream = BytesIO()
    wavfile.write(stream, rate_hz, np.ascontiguousarray(samples))
    return stream.getvalue()


def _unread(folder: Path, read: frozenset[str], files: Iterable[str], rows: Iterable[Row]) -> list[str]:
    """Files that look as if they belonged to the dataset but are in no row.

    If some files are called "train" or "test", `datasets` ignores all others without a warning.
    """
    named = {os.path.realpath(row.file) for row in rows if Path(row.file).is_absolute()}
    unread = []
    for file in sorted(files):
        suffix, path = PurePosixPath(file).suffix.lower(), os.path.realpath(folder / file)
        expected = named if named and suffix in SUFFIXES else read
        if suffix in SUFFIXES | DATA_SUFFIXES and path not in expected:
            unread.append(file)
    return unread


def plain(text: str) -> str:
    """A valid folder name on any file system; other characters become a dash."""
    return re.sub(r"[^\w.-]+", "-", text, flags=re.ASCII).lstrip(".") or "-"
