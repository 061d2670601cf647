"""Opening an audio data set of the hub, or a folder in its formats: the only part that imports `datasets`."""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mgc.data.dataset import as_text
from mgc.data.sources.local import USUAL_COLUMNS
from mgc.util.errors import MgcError, did_you_mean
from mgc.util.progress import say

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class Asked:
    """An address taken apart: a set of the hub has a `repo`, a local one a `folder`."""

    address: str
    repo: str
    folder: Path | None
    config: str | None
    revision: str | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of the whole set. `columns` hold text or numbers; of these, `classes` are ClassLabels."""

    origin: str
    licence: str | None
    splits: list[str]
    audio: str = ""
    columns: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)  # files of the folder that are in no row


@dataclass(frozen=True)
class HubSet:
    """An open set. Rows may name files within `roots`."""

    splits: dict[str, "datasets.Dataset"]
    origin: str
    licence: str | None
    roots: list[Path]
    read: frozenset[str] | None = None  # files that were read, where not all of a folder's need be


def open_set(asked: Asked, arrow: Path) -> HubSet:
    """`arrow` is a folder of its own for what `datasets` copies out of a local folder."""
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    with _explained(asked), _nothing_encoded():
        return _open_folder(asked, asked.folder, arrow) if asked.folder else _open_repo(asked)


def _open_folder(asked: Asked, folder: Path, arrow: Path) -> HubSet:
    import datasets

    read = None
    if any((folder / name).exists() for name in ("dataset_dict.json", "state.json")):  # by save_to_disk
        if asked.config:
            fix = f"leave :{asked.config} away"
            raise MgcError("a set written by save_to_disk has no configs", where=asked.address, fix=fix)
        found = datasets.load_from_disk(str(folder))
    else:
        builder = datasets.load_dataset_builder(str(folder.absolute()), asked.config, cache_dir=str(arrow))
        builder.download_and_prepare()
        found = builder.as_dataset()
        read = frozenset(os.path.realpath(f) for files in builder.config.data_files.values() for f in files)
    splits = {str(found.split or "train"): found} if isinstance(found, datasets.Dataset) else dict(found)
    readme = folder / "README.md"
    licence = _licence(splits, str(readme) if readme.is_file() else None)
    roots = [folder.absolute(), folder.resolve()]
    return HubSet(splits, f"from the folder {as_text(folder)}", licence, roots, read)


def _open_repo(asked: Asked) -> HubSet:
    import datasets
    from datasets.packaged_modules.cache.cache import Cache
    from huggingface_hub import constants, try_to_load_from_cache

    if not constants.HF_HUB_OFFLINE:
        say(f"asking {constants.ENDPOINT} for {asked.repo}; HF_HUB_OFFLINE=1 takes it from the cache alone")
    builder = datasets.load_dataset_builder(asked.repo, asked.config, revision=asked.revision)
    commit, unreached = builder.hash, isinstance(builder, Cache)
    if unreached:
        _refuse_another_revision(asked, commit)
    builder.download_and_prepare()
    splits = dict(builder.as_dataset())
    readme = try_to_load_from_cache(asked.repo, "README.md", revision=commit, repo_type="dataset")
    config = "" if builder.config.name == "default" else f", config {builder.config.name}"
    origin = (
        f"{asked.repo} of the hub{config}, {asked.revision or 'main'} when first used here: commit {commit}"
    )
    origin += ", from the local cache, for the hub was not reached" if unreached else ""
    caches = (constants.HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE)
    return HubSet(splits, origin, _licence(splits, readme), [Path(cache).absolute() for cache in caches])


@contextmanager
def _nothing_encoded() -> Iterator[None]:
    """For a while, `datasets` takes audio as it is: paths and bytes, unchanged.

    Else its Audio feature wants torchcodec as soon as a file is named (datasets 5.2, features/audio.py), a
    large dependency for nothing: no sample is touched.
    """
    import datasets

    def as_it_is(_: Any, value: Any) -> dict[str, Any]:
        if isinstance(value, bytes | bytearray):
            return {"bytes": bytes(value), "path": None}
        if not isinstance(value, dict):
            return {"bytes": None, "path": str(value)}
        if value.get("array") is not None:
            return {"bytes": wav_bytes(np.asarray(value["array"]), value["sampling_rate"]), "path": None}
        return {"bytes": value.get("bytes"), "path": value.get("path")}

    encode = datasets.Audio.encode_example
    datasets.Audio.encode_example = as_it_is
    try:
        yield
    finally:
        datasets.Audio.encode_example = encode


def _refuse_another_revision(asked: Asked, commit: str) -> None:
    """Without the hub, `datasets` takes whatever commit it has prepared before, whichever was asked for."""
    from huggingface_hub import try_to_load_from_cache

    if asked.revision is None or commit.startswith(asked.revision):
        return
    readme = try_to_load_from_cache(asked.repo, "README.md", revision=asked.revision, repo_type="dataset")
    if not isinstance(readme, str) or Path(readme).parent.name != commit:
        what = "the hub cannot be reached, and the cache is not known to hold this revision, but commit"
        raise MgcError(f"{what} {commit}", where=asked.address, fix=f"go online once, {_by_folder(asked)}")


def _licence(splits: Mapping[str, "datasets.Dataset"], readme: object) -> str | None:
    """As the set's information says, else its README (the "card", if it is at hand), else unknown."""
    from huggingface_hub import DatasetCard

    for dataset in splits.values():
        if dataset.info.license:
            return str(dataset.info.license)
    if not isinstance(readme, str):
        return None
    said = DatasetCard.load(readme, ignore_metadata_errors=True).data.to_dict()
    licence = said.get("license")
    if licence == "other":
        licence = said.get("license_name") or "other"
    return ", ".join(map(str, licence)) if isinstance(licence, list) else licence and str(licence)


@contextmanager
def _explained(asked: Asked) -> Iterator[None]:
    """Whatever `datasets` and the hub's client raise, told with a way out.

    What they raise is not documented and differs by builder; their own words are always kept.
    """
    try:
        yield
    except MgcError:
        raise
    except Exception as error:
        what, fix = _explanation(asked, error)
        raise MgcError(what, where=asked.address, fix=fix) from error


def _explanation(asked: Asked, error: Exception) -> tuple[str, str]:
    """What is wrong and what to do, by the kind of the error or, where that is no help, by its words."""
    from datasets.exceptions import DatasetNotFoundError

    cause = error.__cause__ if error.__cause__ is not None and "An error occurred" in str(error) else error
    words = as_text(" ".join(str(cause).split()) or type(cause).__name__)[:600]
    if re.search(r"Config name is missing|BuilderConfig|onfigurations in the cache|find cache for", words):
        words, _, known = words.partition(" Example of usage")[0].partition("[")
        some = re.search(r"'([^']+)'", known)
        what = f"the set has several configs, or not this one: {words}{'[' if known else ''}{known}"
        bare = asked.address.removesuffix(f":{asked.config}")
        return what, f"choose one, say, {bare}:{some[1] if some else 'CONFIG'}"
    if not asked.repo:
        if "scripts are no longer supported" in words:
            return words, "move the script out of the folder: only the data files in it are read"
        fix = "give a folder of parquet, arrow or audio files, not zipped, or one written by save_to_disk"
        return f"the datasets library cannot open this folder: {words}", fix
    token = "HF_TOKEN (or hf auth login)"
    offline = isinstance(error, ConnectionError | TimeoutError)
    if "scripts are no longer supported" in words:
        what = "the set is made by a Python script, which the datasets library no longer runs"
        fix = f"take the hub's own conversion, if there is one: hf:{asked.repo}@refs/convert/parquet;"
    elif "gated dataset" in words:
        what, fix = (
            words,
            f"accept its terms at https://huggingface.co/datasets/{asked.repo} and set {token},",
        )
    elif isinstance(error, DatasetNotFoundError):
        what, fix = words, f"check the name and the revision; a private set needs {token};"
    elif offline or type(error).__module__.partition(".")[0] in ("httpx", "requests"):
        what = f"the hub cannot be reached, and the set is not in the local cache: {words}"
        fix = "check the network, and that HF_HUB_OFFLINE is not set,"
    else:
        what = f"the datasets library cannot open this set: {words}"
        fix = "see whether the hub's own viewer can,"
    return what, f"{fix} {_by_folder(asked)}"


def _by_folder(asked: Asked) -> str:
    revision = f" --revision {asked.revision}" if asked.revision else ""
    command = f"hf download {asked.repo} --repo-type dataset{revision} --local-dir FOLDER"
    return f"or where there is a network run {command}, bring the folder here and give --data hf:FOLDER"


def facts_of(opened: HubSet, path_column: str | None, address: str) -> Facts:
    """Which column holds the audio: the one that is named, else the one of the type Audio, else one alike.

    Raises:
        MgcError: no audio column, or several and none named.
    """
    from datasets import Audio, ClassLabel, Value

    features: dict[str, Any] = {}
    for dataset in opened.splits.values():
        features |= dataset.features
    text = [
        name
        for name, feature in features.items()
        if isinstance(feature, ClassLabel) or (isinstance(feature, Value) and "binary" not in feature.dtype)
    ]
    audio = [name for name, feature in features.items() if isinstance(feature, Audio)]
    if not audio:  # a set that was not written by `datasets` may hold the same without saying so
        alike = [name for name, feature in features.items() if _like_audio(feature)]
        usual = [name for name in alike if name.lower() in USUAL_COLUMNS["path"]]
        paths = [name for usual in USUAL_COLUMNS["path"] for name in text if name.lower() == usual]
        audio = usual[:1] or alike or paths[:1]
    all_of_them = f"columns: {', '.join(features)}"
    if path_column is not None and path_column not in features:
        fix = did_you_mean(path_column, features)
        raise MgcError(f"the set has no column {path_column!r}", where=address, fix=fix)
    if path_column is None and len(audio) != 1:
        what = f"the set has {len(audio) or 'no'} audio column{'s: ' if audio else ''}{', '.join(audio)}"
        raise MgcError(what, where=address, fix=f"name it with --column path=NAME; {all_of_them}")
    chosen = path_column or audio[0]
    if chosen not in text and chosen not in audio and not _like_audio(features[chosen]):
        raise MgcError(f"the column {chosen!r} holds no audio and no paths", where=address, fix=all_of_them)
    lacking = [split for split, dataset in opened.splits.items() if chosen not in dataset.features]
    if lacking:
        raise MgcError(f"the split {lacking[0]!r} has no column {chosen!r}", where=address, fix=all_of_them)
    return Facts(
        opened.origin,
        opened.licence,
        splits=[split for split, dataset in opened.splits.items() if len(dataset)],
        audio=chosen,
        columns=[name for name in text if name != chosen],
        classes=[name for name in text if name != chosen and isinstance(features[name], ClassLabel)],
    )


def _like_audio(feature: Any) -> bool:
    """An Audio column in all but name: bytes with a path, or samples with their rate."""
    from datasets import Audio, Value

    if isinstance(feature, dict):
        return {"bytes", "path"} <= {*feature} or {"array", "sampling_rate"} <= {*feature}
    return isinstance(feature, Audio) or (isinstance(feature, Value) and "binary" in feature.dtype)


def wav_bytes(samples: np.ndarray, rate: int) -> bytes:
    """A WAV file of samples (n,), (channels, n) or (n, channels), without loss; the same bytes every time.

    soundfile would write the time of day into a WAV file of floats.

    Raises:
        ValueError: no samples, or no numbers.
    """
    from scipy.io import wavfile

    if samples.ndim not in (1, 2) or samples.size == 0 or samples.dtype.kind not in "fiu":
        raise ValueError(f"an array of shape {samples.shape} and type {samples.dtype}")
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:
        samples = samples.T
    if samples.dtype.kind == "f":
        samples = samples.astype(np.float32)
    else:
        samples = samples.astype(np.int16 if np.abs(samples.astype(np.int64)).max() < 1 << 15 else np.int32)
    stream = BytesIO()
    wavfile.write(stream, rate, np.ascontiguousarray(samples))
    return stream.getvalue()
