"""Encoders with a short name: where they are published, their licences, and the settings that shape them.

`config` and `front` are the settings in `config.json` and `preprocessor_config.json` of the published page
(`Known.page`) that shape the model and its input. Everything else has the default of its transformers class,
which is that of the first checkpoint of each kind. With them a model can be built without its weights.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Known:
    """A checkpoint with a short name. Licence and training data are those that its model card states."""

    hub_id: str
    licence: str
    trained_on: str
    millions: float  # parameters of the part that is used, in millions
    config: dict[str, Any]
    front: dict[str, Any]

    @property
    def page(self) -> str:
        """Where configuration and licence are published."""
        return f"https://huggingface.co/{self.hub_id}"


_TRANSFORMER: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
# The convolutions of wav2vec 2.0 (arXiv 2006.11477): one frame per 320 samples, with a field of 400.
_WAVEFORM: dict[str, Any] = {
    **_TRANSFORMER,
    "conv_dim": [512] * 7,
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "feat_extract_norm": "group",
    "do_stable_layer_norm": False,
}


def _raw(rate: int = 16_000, normalised: bool = True) -> dict[str, Any]:
    kind = "Wav2Vec2FeatureExtractor"
    return {"feature_extractor_type": kind, "sampling_rate": rate, "do_normalize": normalised}


# fmt: off
SHORT_NAMES: dict[str, Known] = {
    "ast": Known(
        "MIT/ast-finetuned-audioset-10-10-0.4593", "BSD-3-Clause", "AudioSet tags", 86.2,
        {
            "model_type": "audio-spectrogram-transformer", **_TRANSFORMER, "patch_size": 16,
            "frequency_stride": 10, "time_stride": 10, "max_length": 1024, "num_mel_bins": 128,
        },
        {
            "feature_extractor_type": "ASTFeatureExtractor", "sampling_rate": 16_000, "num_mel_bins": 128,
            "max_length": 1024, "do_normalize": True, "mean": -4.2677393, "std": 4.5689974,
        },
    ),
    "wav2vec2": Known(
        "facebook/wav2vec2-base", "Apache-2.0", "LibriSpeech, self-supervised", 94.4,
        {"model_type": "wav2vec2", **_WAVEFORM},
        _raw(),
    ),
    "hubert": Known(
        "facebook/hubert-base-ls960", "Apache-2.0", "LibriSpeech, self-supervised", 94.4,
        {"model_type": "hubert", **_WAVEFORM},
        _raw(),
    ),
    "distilhubert": Known(
        "ntu-spml/distilhubert", "Apache-2.0", "LibriSpeech, distilled from HuBERT", 23.5,
        {"model_type": "hubert", **_WAVEFORM, "num_hidden_layers": 2, "feat_proj_layer_norm": False},
        _raw(normalised=False),
    ),
    "wavlm": Known(
        "microsoft/wavlm-base-plus", "CC-BY-SA-3.0", "94,000 h of speech, self-supervised", 94.4,
        {"model_type": "wavlm", **_WAVEFORM},
        _raw(normalised=False),
    ),
    "data2vec": Known(
        "facebook/data2vec-audio-base", "Apache-2.0", "LibriSpeech, self-supervised", 93.2,
        {
            "model_type": "data2vec-audio", **_WAVEFORM, "feat_extract_norm": "layer",
            "num_conv_pos_embeddings": 5, "conv_pos_kernel_size": 19,
        },
        _raw(),
    ),
    "whisper": Known(
        "openai/whisper-base", "Apache-2.0", "680,000 h of transcribed speech", 20.6,
        {
            "model_type": "whisper", "d_model": 512, "num_mel_bins": 80, "max_source_positions": 1500,
            "encoder_layers": 6, "encoder_attention_heads": 8, "encoder_ffn_dim": 2048,
            "decoder_layers": 6, "decoder_attention_heads": 8, "decoder_ffn_dim": 2048,
        },
        {
            "feature_extractor_type": "WhisperFeatureExtractor", "sampling_rate": 16_000, "feature_size": 80,
            "n_fft": 400, "hop_length": 160, "chunk_length": 30,
        },
    ),
    "clap": Known(
        "laion/larger_clap_music", "Apache-2.0", "music and audio with captions", 68.6,
        {
            "model_type": "clap", "projection_dim": 512,
            "audio_config": {  # HTSAT-base (arXiv 2202.00874)
                "patch_embeds_hidden_size": 128, "hidden_size": 1024, "depths": [2, 2, 12, 2],
                "num_attention_heads": [4, 8, 16, 32], "enable_fusion": False,
            },
        },
        {
            "feature_extractor_type": "ClapFeatureExtractor", "sampling_rate": 48_000, "feature_size": 64,
            "fft_window_size": 1024, "hop_length": 480, "max_length_s": 10, "frequency_min": 50,
            "frequency_max": 14_000, "truncation": "rand_trunc", "padding": "repeatpad",
        },
    ),
    # With these three options off, its own code computes what HuBERT computes (its modeling_MERT.py).
    "mert": Known(
        "m-a-p/MERT-v1-95M", "CC-BY-NC-4.0", "160,000 h of music, self-supervised", 94.4,
        {
            "model_type": "mert_model", **_WAVEFORM, "feature_extractor_cqt": False, "deepnorm": False,
            "attention_relax": -1.0,
        },
        _raw(24_000),
    ),
}
# fmt: on
