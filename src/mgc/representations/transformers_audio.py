"""Any transformers audio encoder, by short name, hub id or local folder.

Which weights there are, the sample rate and the layers are read from the checkpoint's json files; torch and
transformers are imported when the encoder is loaded, or when the files are silent and the defaults of their
classes must be asked for. What is known here of a model is its family: how it wants its input, how many
samples one of its frames stands for, where its encoder sits.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgc.audio import Windowing
from mgc.config import MgcError, did_you_mean
from mgc.data.clips import file_hash
from mgc.representations.kinds import Encoder, Layer, Representation, code_hash

if TYPE_CHECKING:
    import torch

WAVEFORM_WINDOW_SECONDS = 10.0  # models of any input length: long context, attention still cheap
IGNORED_REST_SECONDS = 0.25
# Preprocessing stands in one of two files; transformers 5 writes the other one for whole processors.
SETTINGS = ("config.json", "preprocessor_config.json", "processor_config.json")
WEIGHTS, OLD_WEIGHTS = "model*.safetensors", "pytorch_model*.bin"
HUB_TIMEOUT_SECONDS = 3.0


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
States = Callable[[Any, Any], list["torch.Tensor"]]


@dataclass(frozen=True)
class Family:
    """How models of one or more `model_type`s are fed and read."""

    # Samples a window, from (config, preprocessor); the rate is the preprocessor's.
    window: Callable[[dict[str, Any], dict[str, Any]], int]
    layers: Callable[[dict[str, Any]], tuple[Layer, ...]]
    states: States
    # Samples between the starts of two frames, and how many of a frame's own must be real for it to be more
    # than padding; None: a window is one frame.
    frame: Callable[[dict[str, Any], dict[str, Any]], tuple[int, int]] | None
    part: str = ""  # the submodule that is used; "" for all of the model


def from_name(model: str) -> Representation:
    """The card of the encoder called `model`: a short name, a local folder, or a hub id (`owner/name`).

    Raises:
        MgcError: not on this machine while no hub answers, no encoder at all, or of an unknown family.
    """
    known = SHORT_NAMES.get(model)
    folder, source = _locate(model, known)
    model_type = str(_read_json(folder / "config.json").get("model_type"))
    family = FAMILIES.get(model_type)
    if family is None:
        raise MgcError(
            f"{model}: {model_type!r} is no audio encoder that mgc can read",
            where=folder / "config.json",
            fix=did_you_mean(model_type, FAMILIES),
        )
    with _explained("the checkpoint cannot be used", folder):
        try:
            cut, layers, frame = _shape(family, *_saved(folder))
        except KeyError:  # left out: it is as the classes have it
            cut, layers, frame = _shape(family, *_complete(folder))
        return Representation(
            name=model if known else Path(model).resolve().name,
            address=str(folder.absolute()) if source.startswith("folder") else model,
            source=source,
            cut=cut,
            layers=layers,
            pooled=True,
            parameters=None,
            licence=known.licence if known else "see the checkpoint's model card",
            trained_on=known.trained_on if known else "see the checkpoint's model card",
            weights=_hash(folder),
            code=code_hash("representations/transformers_audio.py"),
            load=partial(_load, folder, family, frame),
        )


_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
_FOLDER = (
    "give a folder with config.json, preprocessor_config.json and model.safetensors: --model path/to/folder"
)


def is_address(model: str) -> bool:
    """Whether `model` is a folder here or could be a hub id."""
    return _as_folder(model) is not None or (model.count("/") == 1 and not model.startswith((".", "/", "~")))


def _as_folder(model: str) -> Path | None:
    path = Path(model).expanduser()
    return path if model and path.is_dir() else None


@contextmanager
def _explained(what: str, where: Path) -> Iterator[None]:
    """Whatever transformers, torch or safetensors raise over a bad checkpoint, told as an MgcError."""
    try:
        yield
    except MgcError:
        raise
    except Exception as error:
        raise MgcError(f"{what} ({_brief(error)})", where=where, fix=_FOLDER) from error


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _locate(model: str, known: Known | None) -> tuple[Path, str]:
    """The checkpoint's folder, and where it came from in words."""
    path = None if known else _as_folder(model)  # a short name stays one beside a folder called like it
    hub_id = known.hub_id if known else model
    folder = path or _snapshot(model, hub_id)
    if lacking := _lacking(folder):
        raise MgcError(
            f"the folder is no saved encoder: no {', no '.join(lacking)}", where=folder, fix=_FOLDER
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
        new = any(fnmatch(file.rfilename, WEIGHTS) for file in info.siblings or [])
        weights = WEIGHTS if new else OLD_WEIGHTS
        return Path(snapshot_download(hub_id, allow_patterns=[*SETTINGS, weights, f"{weights}.index.json"]))
    except HFValidationError as error:
        raise MgcError(f"{hub_id!r} is neither a folder nor a hub id: {error}", fix=_FOLDER) from None
    except HfHubHTTPError as error:
        raise MgcError(
            f"the hub has no encoder {hub_id!r} for you: {error.server_message or error}",
            fix=f"check the name, or {_FOLDER}",
        ) from None
    except Exception as error:  # no answer: of a kind that depends on the http library the hub package uses
        raise MgcError(
            f"the encoder {model!r} ({hub_id}) is not on this machine, and the hub does not answer "
            f"({_brief(error)})",
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
    return sorted(folder.glob(WEIGHTS)) or sorted(folder.glob(OLD_WEIGHTS))


def _lacking(folder: Path) -> list[str]:
    config, *preprocessing = ((folder / name).is_file() for name in SETTINGS)
    here = {SETTINGS[0]: config, SETTINGS[1]: any(preprocessing), "model.safetensors": _weight_files(folder)}
    return [name for name, found in here.items() if not found]


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MgcError(f"cannot be read as JSON: {error}", where=file, fix=_FOLDER) from None
    if not isinstance(content, dict):
        raise MgcError("is no JSON object", where=file, fix=_FOLDER)
    return content


def _saved(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration and preprocessing as the files have them; a processor goes first, as in transformers."""
    config, preprocessor, processor = ((folder / name) for name in SETTINGS)
    inside = _read_json(processor).get("feature_extractor") if processor.is_file() else None
    return _read_json(config), inside or _read_json(preprocessor)


def _complete(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same with all defaults."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, **_LOCAL)
    front = transformers.AutoFeatureExtractor.from_pretrained(folder, config=config, **_LOCAL)
    return config.to_dict(), front.to_dict()


def _shape(
    family: Family, config: dict[str, Any], extractor: dict[str, Any]
) -> tuple[Windowing, tuple[Layer, ...], tuple[int, int] | None]:
    """How clips are cut, which layers come out, and what `Family.frame` says."""
    rate = int(extractor["sampling_rate"])
    cut = Windowing(rate, int(family.window(config, extractor)), ignore=int(IGNORED_REST_SECONDS * rate))
    return cut, family.layers(config), family.frame and family.frame(config, extractor)


def _hash(folder: Path) -> str:
    settings = [folder / name for name in SETTINGS if (folder / name).is_file()]
    files = [*settings, *_weight_files(folder)]
    return hashlib.blake2b(" ".join(map(file_hash, files)).encode(), digest_size=16).hexdigest()


def _load(folder: Path, family: Family, frame: tuple[int, int] | None, device: "torch.device") -> Encoder:
    """Weights in float32, in eval mode, every one of them from the checkpoint.

    Raises:
        MgcError: the checkpoint cannot be read, or lacks weights that the model would make up.
    """
    import torch
    import transformers

    # What it would report of the weights is asked below.
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with _explained("the weights cannot be loaded", folder):
        model, report = transformers.AutoModel.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True, **_LOCAL
        )
        front = transformers.AutoFeatureExtractor.from_pretrained(folder, config=model.config, **_LOCAL)
    missing = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    # The vector that stands for masked frames is used in training only.
    made_up = sorted(
        key for key in missing if key.startswith(family.part) and not key.endswith("masked_spec_embed")
    )
    if made_up:
        raise MgcError(
            f"{len(made_up)} weights of the model are not in the checkpoint, or of another shape, and would "
            f"be random: {', '.join(made_up[:3])}{' ...' if len(made_up) > 3 else ''}",
            where=folder,
            fix="use the complete checkpoint, or the class of model it was saved from",
        )
    encoder = model.get_submodule(family.part).eval().requires_grad_(False).to(device)
    return _Encoder(encoder, front, family.states, frame)


class _Encoder:
    def __init__(self, model: Any, front: Any, states: States, frame: tuple[int, int] | None) -> None:
        self.model, self.front, self.states, self.frame = model, front, states, frame

    def __call__(
        self, waveforms: "torch.Tensor", covered: "torch.Tensor", real: "torch.Tensor"
    ) -> tuple[list["torch.Tensor"], "torch.Tensor"]:
        rate = self.front.sampling_rate
        inputs = self.front([*waveforms.cpu().numpy()], sampling_rate=rate, return_tensors="pt")
        layers = self.states(self.model, inputs.to(waveforms.device))
        if self.frame is None:  # one frame a window: it counts as much as it is new
            return layers, ((real - covered) / waveforms.shape[1]).unsqueeze(1)
        stride, needed = self.frame
        import torch

        starts = torch.arange(layers[-1].shape[1], device=waveforms.device) * stride  # (T,) samples
        new = starts >= covered.unsqueeze(1)  # (B, T)
        return layers, (new & (starts + needed <= real.unsqueeze(1))).float()


def _hidden(config: dict[str, Any]) -> tuple[Layer, ...]:
    count, dim = int(config["num_hidden_layers"]), int(config["hidden_size"])
    return tuple(Layer(f"layer{index}", dim) for index in range(count + 1))


def _whisper_layers(config: dict[str, Any]) -> tuple[Layer, ...]:
    return tuple(
        Layer(f"layer{index}", int(config["d_model"])) for index in range(config["encoder_layers"] + 1)
    )


def _clap_layers(config: dict[str, Any]) -> tuple[Layer, ...]:
    pooled = Layer("pooled", config["audio_config"]["hidden_size"])
    return pooled, Layer("projection", config["projection_dim"])


def _waveform_states(model: Any, inputs: Any) -> list["torch.Tensor"]:
    return list(model(inputs["input_values"], output_hidden_states=True).hidden_states)  # (B, T, D) each


def _whisper_states(model: Any, inputs: Any) -> list["torch.Tensor"]:
    return list(model(inputs["input_features"], output_hidden_states=True).hidden_states)  # (B, 1500, D) each


def _ast_states(model: Any, inputs: Any) -> list["torch.Tensor"]:
    """Patch tokens averaged over frequency; the two class tokens in front belong to no time."""
    config = model.config
    bands = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
    states = model(inputs["input_values"], output_hidden_states=True).hidden_states
    # (B, 2 + bands T, D) -> (B, T, D)
    return [s[:, 2:].unflatten(1, (bands, -1)).mean(dim=1) for s in states]


def _clap_states(model: Any, inputs: Any) -> list["torch.Tensor"]:
    # Of a batch without a longer clip the extractor calls one longer, at random; no window is.
    longer = inputs["is_longer"] & False
    pooled = model.audio_model(input_features=inputs["input_features"], is_longer=longer).pooler_output
    return [pooled.unsqueeze(1), model.audio_projection(pooled).unsqueeze(1)]  # (B, 1, D)


def _conv_frame(config: dict[str, Any], extractor: dict[str, Any]) -> tuple[int, int]:
    return math.prod(config["conv_stride"]), 1  # nothing is padded, so any sample is enough


def _sew_frame(config: dict[str, Any], extractor: dict[str, Any]) -> tuple[int, int]:
    return math.prod(config["conv_stride"]) * config["squeeze_factor"], 1  # thinned out once more


_WAVEFORM = Family(
    window=lambda config, extractor: int(WAVEFORM_WINDOW_SECONDS * extractor["sampling_rate"]),
    layers=_hidden,
    states=_waveform_states,
    frame=_conv_frame,
)

FAMILIES: dict[str, Family] = {
    # A frame is 25 ms every 10 ms (Kaldi): max_length of them, none padded, make the window; one that is
    # not padding makes a patch real.
    "audio-spectrogram-transformer": Family(
        window=lambda config, extractor: (
            (config["max_length"] - 1) * extractor["sampling_rate"] // 100
            + extractor["sampling_rate"] * 25 // 1000
        ),
        layers=_hidden,
        states=_ast_states,
        frame=lambda config, extractor: (
            config["time_stride"] * extractor["sampling_rate"] // 100,
            extractor["sampling_rate"] * 25 // 1000,
        ),
    ),
    # Two mel hops a frame; the extractor pads with zeros to its chunk of 30 s.
    "whisper": Family(
        window=lambda config, extractor: extractor["chunk_length"] * extractor["sampling_rate"],
        layers=_whisper_layers,
        states=_whisper_states,
        frame=lambda config, extractor: (2 * extractor["hop_length"], 1),
        part="encoder",
    ),
    "clap": Family(
        window=lambda config, extractor: extractor["max_length_s"] * extractor["sampling_rate"],
        layers=_clap_layers,
        states=_clap_states,
        frame=None,
    ),
    "wav2vec2": _WAVEFORM,
    "wav2vec2-conformer": _WAVEFORM,
    "hubert": _WAVEFORM,
    "wavlm": _WAVEFORM,
    "data2vec-audio": _WAVEFORM,
    "unispeech": _WAVEFORM,
    "unispeech-sat": _WAVEFORM,
    "sew": replace(_WAVEFORM, frame=_sew_frame),
}
