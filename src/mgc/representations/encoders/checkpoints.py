"""The files of a transformers checkpoint: in a folder, in the hub's local cache or on the hub."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mgc.data.clips import file_hash
from mgc.representations.encoders.known import SHORT_NAMES
from mgc.util.errors import MgcError, explaining
from mgc.util.text import listed

# transformers 5 saves preprocessing in preprocessor_config.json, or in the other file for a whole processor.
SETTINGS = ("config.json", "preprocessor_config.json", "processor_config.json")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in the order of transformers; shards have an index
HUB_TIMEOUT_SECONDS = 3.0
LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
USE_FOLDER = (
    "use a folder with config.json, preprocessor_config.json and model.safetensors: --model path/to/folder"
)


def is_address(model: str) -> bool:
    """Whether `model` is an existing folder or has the form of a hub id."""
    return as_folder(model) is not None or (model.count("/") == 1 and not model.startswith((".", "/", "~")))


def as_folder(model: str) -> Path | None:
    """The folder at the path `model`, if it exists."""
    path = Path(model).expanduser()
    return path if model and path.is_dir() else None


@contextmanager
def checkpoint_errors(message: str, where: object) -> Iterator[None]:
    """Raise MgcError for any exception of transformers, torch or safetensors over a bad checkpoint."""
    try:
        yield
    except MgcError:
        raise
    except Exception as error:
        raise MgcError(f"{message} ({_summary(error)})", where=where, fix=USE_FOLDER) from error


def _summary(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def locate(model: str, *, weights: bool = True) -> tuple[Path, str]:
    """The folder of a short name, a folder or a hub id, and a description of where it came from.

    Without `weights`, settings alone are sufficient.

    Raises:
        MgcError: a file is missing, or the model is neither on this machine nor available from the hub.
    """
    known = SHORT_NAMES.get(model)
    path = None if known else as_folder(model)  # a short name has precedence over a folder of that name
    hub_id = known.hub_id if known else model
    folder = path or _snapshot(model, hub_id)
    if missing := _missing(folder, weights):
        what = f"the folder is not a saved encoder: {listed(missing)} not found"
        raise MgcError(what, where=folder, fix=USE_FOLDER)
    return folder, f"folder {folder.resolve()}" if path else f"hub {hub_id} at {folder.name[:12]}"


def _snapshot(model: str, hub_id: str) -> Path:
    """The files of a hub id: from the local cache if they are complete there, otherwise downloaded."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        with suppress(LocalEntryNotFoundError):
            folder = Path(snapshot_download(hub_id, allow_patterns=[*SETTINGS], local_files_only=True))
            if not _missing(folder):
                return folder
        # This request has a short timeout; the download itself would retry for minutes.
        info = HfApi().model_info(hub_id, timeout=HUB_TIMEOUT_SECONDS)
        new, old = "model*.safetensors", "pytorch_model*.bin"
        weights = new if any(fnmatch(file.rfilename, new) for file in info.siblings or []) else old
        wanted = [*SETTINGS, weights, f"{weights}.index.json", "*.py"]  # code runs only where it is trusted
        return Path(snapshot_download(hub_id, allow_patterns=wanted))
    except HFValidationError as error:
        raise MgcError(f"{hub_id!r} is neither a folder nor a hub id: {error}", fix=USE_FOLDER) from None
    except HfHubHTTPError as error:
        raise MgcError(
            f"the hub does not provide the encoder {hub_id!r}: {error.server_message or error}",
            fix=f"check the name, or {USE_FOLDER}",
        ) from None
    except Exception as error:  # no answer; its type depends on the HTTP library of the hub package
        raise MgcError(
            f"the encoder {model!r} ({hub_id}) is not on this machine, and the hub does not answer "
            f"({_summary(error)})",
            fix=f"download {hub_id} elsewhere and {USE_FOLDER}; set HF_HUB_OFFLINE=1 to use the local cache "
            f"only; encoders that work here: {', '.join(['musicnn', *filter(in_cache, SHORT_NAMES)])}",
        ) from None


def in_cache(name: str) -> bool:
    """Whether the hub's local cache has all files of a short name; sends no request."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(SHORT_NAMES[name].hub_id, SETTINGS[0])
    return isinstance(config, str) and not _missing(Path(config).parent)


def _weights(folder: Path) -> tuple[list[Path], list[str]]:
    """The files from which transformers reads the weights, and the names of those that are missing."""
    for name in WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name], []
        if index.is_file():
            shards = _read_json(index).get("weight_map")
            if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
                raise MgcError("the index of the weights does not name files", where=index, fix=USE_FOLDER)
            files = sorted(set(shards.values()))
            return [folder / file for file in files], [f for f in files if not (folder / f).is_file()]
    return [], [WEIGHTS[0]]


def _missing(folder: Path, weights: bool = True) -> list[str]:
    config, *preprocessing = ((folder / name).is_file() for name in SETTINGS)
    settings = [(SETTINGS[0], config), (SETTINGS[1], any(preprocessing))]
    return [name for name, exists in settings if not exists] + (_weights(folder)[1] if weights else [])


def _read_json(file: Path) -> dict[str, Any]:
    with explaining("the file cannot be read as JSON", file, USE_FOLDER, (OSError, ValueError)):
        content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise MgcError("the file does not hold a JSON object", where=file, fix=USE_FOLDER)
    return content


def read_settings(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration and preprocessing as saved in the folder; a processor has precedence, as in transformers.

    Raises:
        MgcError: a file cannot be read, or does not hold a JSON object.
    """
    config, preprocessor, processor = ((folder / name) for name in SETTINGS)
    inside = _read_json(processor).get("feature_extractor") if processor.is_file() else None
    return _read_json(config), inside or _read_json(preprocessor)


def hash_of(folder: Path, cache: Path | None, *, code: bool) -> str:
    """Hash of settings and weights and, with `code`, of the Python files beside them; see `file_hash`."""
    settings = [folder / name for name in SETTINGS if (folder / name).is_file()]
    files = [*settings, *_weights(folder)[0], *(sorted(folder.glob("*.py")) if code else [])]
    hashes = " ".join(file_hash(file, cache) for file in files)
    return hashlib.blake2b(hashes.encode(), digest_size=16).hexdigest()


def check_hash(where: Path, then: str, now: str) -> None:
    """Raise MgcError unless the weights are those of the cache key, which may be from a remembered hash."""
    if then != now:
        what = "the weights have changed since they were first read: the files were replaced or are damaged"
        raise MgcError(what, where=where, fix="copy or download them again, and repeat the command")
