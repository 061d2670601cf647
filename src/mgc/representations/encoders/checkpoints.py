"""The files of a checkpoint: found in a folder, in the hub's local cache or on the hub, and read as JSON."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mgc.data.clips import file_hash
from mgc.representations.encoders.known import SHORT_NAMES
from mgc.util.errors import MgcError

# Preprocessing stands in one of two files; transformers 5 writes the other one for whole processors.
SETTINGS = ("config.json", "preprocessor_config.json", "processor_config.json")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # as transformers looks for them; in parts with an index
HUB_TIMEOUT_SECONDS = 3.0
LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
BY_HAND = (
    "give a folder with config.json, preprocessor_config.json and model.safetensors: --model path/to/folder"
)


def is_address(model: str) -> bool:
    """Whether `model` is a folder here or could be a hub id."""
    return as_folder(model) is not None or (model.count("/") == 1 and not model.startswith((".", "/", "~")))


def as_folder(model: str) -> Path | None:
    """The folder called so, if there is one."""
    path = Path(model).expanduser()
    return path if model and path.is_dir() else None


@contextmanager
def explained(what: str, where: object) -> Iterator[None]:
    """Whatever transformers, torch or safetensors raise over a bad checkpoint, told as an MgcError."""
    try:
        yield
    except MgcError:
        raise
    except Exception as error:
        raise MgcError(f"{what} ({_brief(error)})", where=where, fix=BY_HAND) from error


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def locate(model: str, *, weights: bool = True) -> tuple[Path, str]:
    """The folder of a short name, a folder or a hub id, and where it came from in words.

    Without `weights` a folder of settings alone will do.

    Raises:
        MgcError: a file is not there, or not on this machine while no hub answers.
    """
    known = SHORT_NAMES.get(model)
    path = None if known else as_folder(model)  # a short name stays one beside a folder called like it
    hub_id = known.hub_id if known else model
    folder = path or _snapshot(model, hub_id)
    if lacking := _lacking(folder, weights):
        raise MgcError(
            f"the folder is no saved encoder: no {', no '.join(lacking[:4])}"
            + (f" and {len(lacking) - 4} more" if len(lacking) > 4 else ""),
            where=folder,
            fix=BY_HAND,
        )
    return folder, f"folder {folder.resolve()}" if path else f"hub {hub_id} at {folder.name[:12]}"


def _snapshot(model: str, hub_id: str) -> Path:
    """The hub's files: from the local cache if they are there, else downloaded."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        with suppress(LocalEntryNotFoundError):
            folder = Path(snapshot_download(hub_id, allow_patterns=[*SETTINGS], local_files_only=True))
            if not _lacking(folder):
                return folder
        # Asked first with a short limit: the download itself would try again for minutes.
        info = HfApi().model_info(hub_id, timeout=HUB_TIMEOUT_SECONDS)
        new, old = "model*.safetensors", "pytorch_model*.bin"
        weights = new if any(fnmatch(file.rfilename, new) for file in info.siblings or []) else old
        wanted = [*SETTINGS, weights, f"{weights}.index.json", "*.py"]  # code is run only where it is trusted
        return Path(snapshot_download(hub_id, allow_patterns=wanted))
    except HFValidationError as error:
        raise MgcError(f"{hub_id!r} is neither a folder nor a hub id: {error}", fix=BY_HAND) from None
    except HfHubHTTPError as error:
        raise MgcError(
            f"the hub has no encoder {hub_id!r} for you: {error.server_message or error}",
            fix=f"check the name, or {BY_HAND}",
        ) from None
    except Exception as error:  # no answer: of a kind that depends on the http library the hub package uses
        raise MgcError(
            f"the encoder {model!r} ({hub_id}) is not on this machine, and the hub does not answer "
            f"({_brief(error)})",
            fix=f"bring {hub_id} by hand and {BY_HAND}; set HF_HUB_OFFLINE=1 to ask the local cache only; "
            f"encoders that work here: {', '.join(['musicnn', *filter(in_cache, SHORT_NAMES)])}",
        ) from None


def in_cache(name: str) -> bool:
    """Whether the files of a short name are complete in the hub's local cache; asks no hub."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(SHORT_NAMES[name].hub_id, SETTINGS[0])
    return isinstance(config, str) and not _lacking(Path(config).parent)


def _weights(folder: Path) -> tuple[list[Path], list[str]]:
    """The files that transformers will read the weights from, and the names of those that are not there."""
    for name in WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name], []
        if index.is_file():
            parts = read_json(index).get("weight_map")
            if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
                raise MgcError("the index of the weights names no files", where=index, fix=BY_HAND)
            files = sorted(set(parts.values()))
            return [folder / file for file in files], [f for f in files if not (folder / f).is_file()]
    return [], [WEIGHTS[0]]


def _lacking(folder: Path, weights: bool = True) -> list[str]:
    config, *preprocessing = ((folder / name).is_file() for name in SETTINGS)
    settings = [(SETTINGS[0], config), (SETTINGS[1], any(preprocessing))]
    return [name for name, here in settings if not here] + (_weights(folder)[1] if weights else [])


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        MgcError: it cannot be read, or is no object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MgcError(f"cannot be read as JSON: {error}", where=file, fix=BY_HAND) from None
    if not isinstance(content, dict):
        raise MgcError("is no JSON object", where=file, fix=BY_HAND)
    return content


def saved(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration and preprocessing as the files have them; a processor goes first, as in transformers."""
    config, preprocessor, processor = ((folder / name) for name in SETTINGS)
    inside = read_json(processor).get("feature_extractor") if processor.is_file() else None
    return read_json(config), inside or read_json(preprocessor)


def complete(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same with all defaults."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, **LOCAL)
    front = transformers.AutoFeatureExtractor.from_pretrained(folder, config=config, **LOCAL)
    return config.to_dict(), front.to_dict()


def hash_of(folder: Path, cache: Path, *, code: bool) -> str:
    """Hash of settings and weights, and of the code beside them where it is run."""
    settings = [folder / name for name in SETTINGS if (folder / name).is_file()]
    files = [*settings, *_weights(folder)[0], *(sorted(folder.glob("*.py")) if code else [])]
    return hashlib.blake2b(
        " ".join(file_hash(file, cache) for file in files).encode(), digest_size=16
    ).hexdigest()
