"""Families of transformers audio encoders: which input they take, and how their hidden states are read.

A family is found by the `model_type` of a checkpoint. This module does not import torch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mgc.representations.card import Layer

if TYPE_CHECKING:
    import torch

WAVEFORM_WINDOW_SECONDS = 10.0  # for models of any input length: long context, but cheap attention

# (loaded model, output of its feature extractor) -> frames (B, T, D) of each layer
States = Callable[[Any, Any], list["torch.Tensor"]]
Settings = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """How models of one `model_type` are fed and read."""

    kind: str  # the class in transformers
    # (config, preprocessor) -> samples per window, at the preprocessor's rate
    window: Callable[[Settings, Settings], int]
    layers: Callable[[Settings], tuple[Layer, ...]]
    states: States
    # (config, preprocessor) -> samples between the starts of two frames, and the number of samples after its
    # start that a frame needs in order not to be padding. None: a window is one frame.
    frame: Callable[[Settings, Settings], tuple[int, int]] | None
    part: str = ""  # the submodule that is used; "" for the whole model
    # (config, preprocessor) -> why they do not fit together, or ""
    clash: Callable[[Settings, Settings], str] = lambda config, extractor: ""
    revision: int = 1  # increased by hand when the embeddings of the family change
    remote: bool = False  # its published checkpoints need the Python code beside their weights
    # config -> whether `kind` computes the same as the published code
    same_as_kind: Callable[[Settings], bool] = lambda config: True


def _hidden_layers(count: str, dim: str) -> Callable[[Settings], tuple[Layer, ...]]:
    """The input of the first layer and the output of each; arguments are names of settings."""
    return lambda config: tuple(Layer(f"layer{i}", int(config[dim])) for i in range(int(config[count]) + 1))


def _clap_layers(config: Settings) -> tuple[Layer, ...]:
    pooled = Layer("pooled", config["audio_config"]["hidden_size"])
    return pooled, Layer("projection", config["projection_dim"])


def _hidden_states(model: Any, inputs: Any) -> list["torch.Tensor"]:
    values = inputs["input_features"] if "input_features" in inputs else inputs["input_values"]
    return list(model(values, output_hidden_states=True).hidden_states)  # (B, T, D) each


def _mert_states(model: Any, inputs: Any) -> list["torch.Tensor"]:
    # The published code, written for transformers 4, returns no hidden states under transformers 5.
    states: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, arguments: states.append(arguments[0]))
        for layer in model.encoder.layers
    ]
    try:
        last = model(inputs["input_values"])[0]
    finally:
        for hook in hooks:
            hook.remove()
    return [*states, last]  # (B, T, D) each


def _ast_states(model: Any, inputs: Any) -> list["torch.Tensor"]:
    # Patch tokens are averaged over frequency; the first two tokens are class tokens without a position.
    config = model.config
    bands = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
    states: list[Any] = _hidden_states(model, inputs)  # (B, 2 + bands T, D) each
    return [s[:, 2:].unflatten(1, (bands, -1)).mean(dim=1) for s in states]  # (B, T, D) each


def _clap_states(model: Any, inputs: Any) -> list["torch.Tensor"]:
    # The extractor marks one random clip of a batch as longer than its window; none is.
    longer = inputs["is_longer"] & False
    pooled = model.audio_model(input_features=inputs["input_features"], is_longer=longer).pooler_output
    return [pooled.unsqueeze(1), model.audio_projection(pooled).unsqueeze(1)]  # (B, 1, D)


def _clap_clash(config: Settings, extractor: Settings) -> str:
    if extractor["truncation"] != "fusion" or config["audio_config"]["enable_fusion"]:
        return ""
    return (
        'the preprocessor makes four spectrograms per clip (truncation = "fusion"), but the model takes '
        "one (audio_config.enable_fusion = false)"
    )


_WAVEFORM = Family(
    kind="Wav2Vec2Model",
    window=lambda config, extractor: int(WAVEFORM_WINDOW_SECONDS * extractor["sampling_rate"]),
    layers=_hidden_layers("num_hidden_layers", "hidden_size"),
    states=_hidden_states,
    # Windows are not padded, so one sample is sufficient.
    frame=lambda config, extractor: (math.prod(config["conv_stride"]), 1),
)


FAMILIES: dict[str, Family] = {
    # A frame is 25 ms every 10 ms (Kaldi). A window is max_length frames without padding; a patch is real if
    # its first frame is.
    "audio-spectrogram-transformer": replace(
        _WAVEFORM,
        kind="ASTModel",
        window=lambda config, extractor: (
            (config["max_length"] - 1) * extractor["sampling_rate"] // 100
            + extractor["sampling_rate"] * 25 // 1000
        ),
        states=_ast_states,
        frame=lambda config, extractor: (
            config["time_stride"] * extractor["sampling_rate"] // 100,
            extractor["sampling_rate"] * 25 // 1000,
        ),
    ),
    # One frame per two mel hops; the extractor pads with zeros to its chunk of 30 s.
    "whisper": Family(
        kind="WhisperModel",
        window=lambda config, extractor: extractor["chunk_length"] * extractor["sampling_rate"],
        layers=_hidden_layers("encoder_layers", "d_model"),
        states=_hidden_states,
        frame=lambda config, extractor: (2 * extractor["hop_length"], 1),
        part="encoder",
    ),
    "clap": Family(
        kind="ClapModel",
        window=lambda config, extractor: extractor["max_length_s"] * extractor["sampling_rate"],
        layers=_clap_layers,
        states=_clap_states,
        frame=None,
        clash=_clap_clash,
    ),
    "wav2vec2": _WAVEFORM,
    "wav2vec2-conformer": replace(_WAVEFORM, kind="Wav2Vec2ConformerModel"),
    "hubert": replace(_WAVEFORM, kind="HubertModel"),
    "wavlm": replace(_WAVEFORM, kind="WavLMModel"),
    "data2vec-audio": replace(_WAVEFORM, kind="Data2VecAudioModel"),
    "unispeech": replace(_WAVEFORM, kind="UniSpeechModel"),
    "unispeech-sat": replace(_WAVEFORM, kind="UniSpeechSatModel"),
    "sew": replace(  # downsampled once more
        _WAVEFORM,
        kind="SEWModel",
        frame=lambda config, extractor: (math.prod(config["conv_stride"]) * config["squeeze_factor"], 1),
    ),
    "mert_model": replace(
        _WAVEFORM,
        kind="HubertModel",
        states=_mert_states,
        remote=True,
        same_as_kind=lambda config: (
            not (config.get("feature_extractor_cqt") or config.get("deepnorm"))
            and config.get("attention_relax", -1) <= 0
        ),
    ),
}
