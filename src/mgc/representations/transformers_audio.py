"""Any transformers audio encoder, by short name, hub id or local folder.

Which weights there are, the sample rate and the layers are read from the checkpoint's json files; torch
and transformers are imported when the encoder is loaded. What is known here of a model is its family: how
it wants its input, how many samples one of its frames stands for, where its encoder sits.
"""

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mgc.audio import Windowing
from mgc.config import MgcError, did_you_mean
from mgc.data.clips import file_hash
from mgc.representations.kinds import Encoder, Layer, Representation, code_hash

WAVEFORM_WINDOW_SECONDS = 10.0  # models of any input length: long context, attention still cheap
IGNORED_REST_SECONDS = 0.25
FILES = ("config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json")
OLD_FILES = (*FILES[:2], "pytorch_model*.bin*")
HUB_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class Known:
    """A checkpoint with a short name. Licence and training data are those its model card states."""

    hub_id: str
    licence: str
    trained_on: str


SHORT_NAMES: dict[str, Known] = {
    "ast": Known("MIT/ast-finetuned-audioset-10-10-0.4593", "BSD-3-Clause", "AudioSet tags"),
    "wav2vec2": Known("facebook/wav2vec2-base", "Apache-2.0", "LibriSpeech, self-supervised"),
    "hubert": Known("facebook/hubert-base-ls960", "Apache-2.0", "LibriSpeech, self-supervised"),
    "distilhubert": Known("ntu-spml/distilhubert", "Apache-2.0", "LibriSpeech, distilled from HuBERT"),
    "wavlm": Known("microsoft/wavlm-base-plus", "CC-BY-SA-3.0", "94,000 h of speech, self-supervised"),
    "data2vec": Known("facebook/data2vec-audio-base", "Apache-2.0", "LibriSpeech, self-supervised"),
    "whisper": Known("openai/whisper-base", "Apache-2.0", "680,000 h of transcribed speech"),
    "clap": Known("laion/larger_clap_music", "Apache-2.0", "music and audio with captions"),
}

# Frames (B, T, D) a layer from a loaded model and what its extractor returned.
States = Callable[[Any, Any], list[torch.Tensor]]


@dataclass(frozen=True)
class Family:
    """How models of one or more `model_type`s are fed and read."""

    # Samples a window, from (config, preprocessor); the rate is the preprocessor's.
    window: Callable[[dict[str, Any], dict[str, Any]], int]
    layers: Callable[[dict[str, Any]], tuple[Layer, ...]]
    encoder: Callable[[Any], Any]  # the part of the loaded model that is used
    states: States
    # Samples between the starts of two frames; None: a window is one frame.
    stride: Callable[[dict[str, Any], dict[str, Any]], int] | None


def from_name(model: str) -> Representation:
    """The card of the encoder called `model`: a short name, a local folder, or a hub id (`owner/name`).

    Raises:
        MgcError: not on this machine while no hub answers, no encoder at all, or of an unknown family.
    """
    known = SHORT_NAMES.get(model)
    folder, source = _locate(model, known)
    config = _read_json(folder / "config.json")
    model_type = str(config.get("model_type"))
    family = FAMILIES.get(model_type)
    if family is None:
        raise MgcError(
            f"{model}: {model_type!r} is no audio encoder that mgc can read",
            where=folder / "config.json",
            fix=did_you_mean(model_type, FAMILIES),
        )
    extractor = _read_json(folder / "preprocessor_config.json")
    if "sampling_rate" not in extractor:
        raise MgcError("no sampling_rate", where=folder / "preprocessor_config.json", fix=_FOLDER)
    rate = int(extractor["sampling_rate"])
    return Representation(
        name=model if known else Path(model).name,
        address=str(folder.absolute()) if Path(model).expanduser().is_dir() else model,
        source=source,
        cut=Windowing(rate, family.window(config, extractor), ignore=int(IGNORED_REST_SECONDS * rate)),
        layers=family.layers(config),
        pooled=True,
        parameters=None,
        licence=known.licence if known else "see the checkpoint's model card",
        trained_on=known.trained_on if known else "see the checkpoint's model card",
        weights=_hash(folder),
        code=code_hash(sys.modules[__name__]),
        load=partial(_load, folder, family, config, extractor),
    )


_FOLDER = (
    "give a folder with config.json, preprocessor_config.json and model.safetensors: --model path/to/folder"
)


def _locate(model: str, known: Known | None) -> tuple[Path, str]:
    """The checkpoint's folder, and where it came from in words."""
    path = Path(model).expanduser()
    if path.is_dir():
        _check_folder(path)
        return path, f"folder {path.resolve()}"
    hub_id = known.hub_id if known else model
    if not known and (model.count("/") != 1 or model.startswith((".", "/", "~"))):
        raise MgcError(
            f"there is no encoder {model!r} and no folder of that name",
            fix=f"{did_you_mean(model, ['musicnn', *SHORT_NAMES])}; or a hub id owner/name, or a folder",
        )
    folder = _snapshot(model, hub_id)
    _check_folder(folder)
    return folder, f"hub {hub_id} at {folder.name[:12]}"


def _snapshot(model: str, hub_id: str) -> Path:
    """The hub's files: from the local cache if they are there, else downloaded."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    for files in (FILES, OLD_FILES):
        try:
            folder = Path(snapshot_download(hub_id, allow_patterns=list(files), local_files_only=True))
        except LocalEntryNotFoundError:
            continue
        if _weight_files(folder):
            return folder
    try:
        # Asked first with a short limit: the download itself would try again for minutes.
        names = [
            file.rfilename for file in HfApi().model_info(hub_id, timeout=HUB_TIMEOUT_SECONDS).siblings or []
        ]
        files = FILES if any(name.endswith(".safetensors") for name in names) else OLD_FILES
        return Path(snapshot_download(hub_id, allow_patterns=list(files)))
    except HfHubHTTPError as error:
        raise MgcError(
            f"the hub has no encoder {hub_id!r} for you: {error.server_message or error}",
            fix=f"check the name, or {_FOLDER}",
        ) from None
    except (OSError, ValueError, RuntimeError) as error:
        raise MgcError(
            f"the encoder {model!r} ({hub_id}) is not on this machine, and the hub does not answer "
            f"({type(error).__name__})",
            fix=f"bring {hub_id} by hand and {_FOLDER}; set HF_HUB_OFFLINE=1 to ask the local cache only; "
            f"encoders that work here: {', '.join(_present())}",
        ) from None


def _present() -> list[str]:
    """Short names whose files are in the hub's local cache, and what needs no hub."""
    from huggingface_hub import try_to_load_from_cache

    here = [
        n
        for n, known in SHORT_NAMES.items()
        if isinstance(try_to_load_from_cache(known.hub_id, "config.json"), str)
    ]
    return ["musicnn", *here]


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def _check_folder(folder: Path) -> None:
    missing = [name for name in ("config.json", "preprocessor_config.json") if not (folder / name).is_file()]
    if not _weight_files(folder):
        missing.append("model.safetensors")
    if missing:
        raise MgcError(
            f"the folder is no saved encoder: no {', no '.join(missing)}", where=folder, fix=_FOLDER
        )


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MgcError(f"cannot be read as JSON: {error}", where=file) from None
    if not isinstance(content, dict):
        raise MgcError("is no JSON object", where=file)
    return content


def _hash(folder: Path) -> str:
    files = [folder / "config.json", folder / "preprocessor_config.json", *_weight_files(folder)]
    return hashlib.blake2b(" ".join(map(file_hash, files)).encode(), digest_size=16).hexdigest()


def _load(
    folder: Path, family: Family, config: dict[str, Any], extractor: dict[str, Any], device: torch.device
) -> Encoder:
    """Weights in float32, in eval mode, every one of them from the checkpoint.

    Raises:
        MgcError: the checkpoint cannot be read, or lacks weights that the model would make up.
    """
    import transformers

    # What it would report of the weights is asked below.
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        model, report = transformers.AutoModel.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, local_files_only=True
        )
        front = transformers.AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        first = str(error).strip().splitlines()[0]
        raise MgcError(f"the encoder cannot be loaded: {first}", where=folder, fix=_FOLDER) from None
    # The vector that stands for masked frames is used in training only.
    missing = [key for key in report["missing_keys"] if not key.endswith("masked_spec_embed")]
    missing += [str(key[0]) for key in report["mismatched_keys"]]
    if missing:
        raise MgcError(
            f"{len(missing)} weights of the model are not in the checkpoint and would be random: "
            f"{', '.join(sorted(missing)[:3])}{' ...' if len(missing) > 3 else ''}",
            where=folder,
            fix="use the complete checkpoint, or the class of model it was saved from",
        )
    encoder = family.encoder(model).eval().requires_grad_(False).to(device)
    stride = family.stride(config, extractor) if family.stride else None
    return _Encoder(encoder, front, family.states, stride)


class _Encoder:
    def __init__(self, model: Any, front: Any, states: States, stride: int | None) -> None:
        self.model, self.front, self.states, self.stride = model, front, states, stride

    def __call__(
        self, waveforms: torch.Tensor, covered: torch.Tensor, real: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        rate = self.front.sampling_rate
        inputs = self.front([*waveforms.cpu().numpy()], sampling_rate=rate, return_tensors="pt")
        layers = self.states(self.model, inputs.to(waveforms.device))
        if self.stride is None:  # one frame a window: it counts as much as it is new
            return layers, ((real - covered) / waveforms.shape[1]).unsqueeze(1)
        starts = torch.arange(layers[-1].shape[1], device=waveforms.device) * self.stride  # (T,) samples
        return layers, ((starts >= covered.unsqueeze(1)) & (starts < real.unsqueeze(1))).float()


def _hidden(config: dict[str, Any]) -> tuple[Layer, ...]:
    count, dim = int(config["num_hidden_layers"]), int(config["hidden_size"])
    return tuple(Layer(f"layer{index}", dim) for index in range(count + 1))


def _whisper_layers(config: dict[str, Any]) -> tuple[Layer, ...]:
    return tuple(
        Layer(f"layer{index}", int(config["d_model"])) for index in range(config["encoder_layers"] + 1)
    )


def _clap_layers(config: dict[str, Any]) -> tuple[Layer, ...]:
    audio = config.get("audio_config") or {}
    return (
        Layer("pooled", int(audio.get("hidden_size", 768))),
        Layer("projection", int(config.get("projection_dim", 512))),
    )


def _waveform_states(model: Any, inputs: Any) -> list[torch.Tensor]:
    return list(model(inputs["input_values"], output_hidden_states=True).hidden_states)  # (B, T, D) each


def _whisper_states(model: Any, inputs: Any) -> list[torch.Tensor]:
    return list(model(inputs["input_features"], output_hidden_states=True).hidden_states)  # (B, 1500, D) each


def _ast_states(model: Any, inputs: Any) -> list[torch.Tensor]:
    """Patch tokens averaged over frequency; the two class tokens in front belong to no time."""
    config = model.config
    bands = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
    states = model(inputs["input_values"], output_hidden_states=True).hidden_states
    return [
        s[:, 2:].unflatten(1, (bands, -1)).mean(dim=1) for s in states
    ]  # (B, 2 + bands T, D) -> (B, T, D)


def _clap_states(model: Any, inputs: Any) -> list[torch.Tensor]:
    longer = inputs.get("is_longer")
    pooled = model.audio_model(input_features=inputs["input_features"], is_longer=longer).pooler_output
    return [pooled.unsqueeze(1), model.audio_projection(pooled).unsqueeze(1)]  # (B, 1, D)


def _conv_stride(config: dict[str, Any], extractor: dict[str, Any]) -> int:
    stride = 1
    for step in config["conv_stride"]:
        stride *= int(step)
    return stride


_WAVEFORM = Family(
    window=lambda config, extractor: int(WAVEFORM_WINDOW_SECONDS * extractor["sampling_rate"]),
    layers=_hidden,
    encoder=lambda model: model,
    states=_waveform_states,
    stride=_conv_stride,
)

FAMILIES: dict[str, Family] = {
    # A frame is 25 ms every 10 ms (Kaldi): max_length of them, none padded, make the window.
    "audio-spectrogram-transformer": Family(
        window=lambda config, extractor: (
            (config["max_length"] - 1) * extractor["sampling_rate"] // 100
            + extractor["sampling_rate"] * 25 // 1000
        ),
        layers=_hidden,
        encoder=lambda model: model,
        states=_ast_states,
        stride=lambda config, extractor: config["time_stride"] * extractor["sampling_rate"] // 100,
    ),
    # Two mel hops a frame; the extractor pads with zeros to its chunk of 30 s.
    "whisper": Family(
        window=lambda config, extractor: extractor["chunk_length"] * extractor["sampling_rate"],
        layers=_whisper_layers,
        encoder=lambda model: model.encoder,
        states=_whisper_states,
        stride=lambda config, extractor: 2 * extractor["hop_length"],
    ),
    "clap": Family(
        window=lambda config, extractor: extractor["max_length_s"] * extractor["sampling_rate"],
        layers=_clap_layers,
        encoder=lambda model: model,
        states=_clap_states,
        stride=None,
    ),
    "wav2vec2": _WAVEFORM,
    "wav2vec2-conformer": _WAVEFORM,
    "hubert": _WAVEFORM,
    "wavlm": _WAVEFORM,
    "data2vec-audio": _WAVEFORM,
    "unispeech": _WAVEFORM,
    "unispeech-sat": _WAVEFORM,
    "sew": _WAVEFORM,
}
