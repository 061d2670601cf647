"""The batched front ends against the transformers extractors they stand for."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers as t
from conftest import SHARED, needs_emotify

from mgc import audio
from mgc.representations.encoders.frontends import front_end
from mgc.util.errors import MgcError

TOLERANCE = 1e-3  # of normalised features; for CLAP, decibels

pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")


def signals(samples: int, rate: int) -> np.ndarray:
    """(8, samples) float32: what has broken filter banks, full-scale tones and offsets above all."""
    rng = np.random.default_rng(samples)
    at = np.arange(samples) / rate
    noise = rng.standard_normal(samples)
    high = np.sin(2 * np.pi * 0.4377 * rate * at)  # pre-emphasis doubles it: all else must not drown
    low = np.sin(2 * np.pi * 97.3 * at)
    kinds = [
        0.1 * noise, 1e-4 * noise, np.clip(3 * noise, -1, 1), 0 * at, high, low + 1e-3 * high,
        0.5 + 1e-3 * noise, 0.9 * low * (at > at.mean()),
    ]  # fmt: skip
    return np.stack(kinds).astype(np.float32)


def ast(**settings: Any) -> Any:
    return t.ASTFeatureExtractor(**settings)


def whisper(**settings: Any) -> Any:
    return t.WhisperFeatureExtractor(**settings)


def clap(**settings: Any) -> Any:
    return t.ClapFeatureExtractor(**{"truncation": "rand_trunc"} | settings)


def wav2vec2(**settings: Any) -> Any:
    return t.Wav2Vec2FeatureExtractor(**settings)


AST_FULL = 1023 * 160 + 400  # 1024 whole frames of 400 samples
ODD_AST = {"num_mel_bins": 64, "max_length": 90, "mean": -3.0, "std": 2.0}
ODD_WHISPER = {"feature_size": 128, "chunk_length": 3, "n_fft": 512, "hop_length": 128}
PADDED_WHISPER = {"chunk_length": 3, "padding_side": "left", "padding_value": 0.1}
ODD_CLAP = {"max_length_s": 2, "fft_window_size": 2048, "hop_length": 320, "feature_size": 32}
ODD_CLAP |= {"frequency_min": 50, "frequency_max": 9_000, "top_db": 60}
CASES: dict[str, tuple[Callable[..., Any], dict[str, Any], int]] = {
    "ast": (ast, {}, AST_FULL),
    "ast, the most that is not cut": (ast, {"max_length": 50}, 50 * 160 + 399),
    "ast, short": (ast, {}, 50_000),
    "ast, one frame": (ast, {"max_length": 50}, 400),
    "ast, less than a frame": (ast, {"max_length": 50}, 300),
    "ast, other numbers": (ast, ODD_AST, 9_000),
    "ast, not normalised": (ast, {"do_normalize": False, "max_length": 90}, 12_000),
    "whisper": (whisper, {}, 480_000),
    "whisper, short": (whisper, {}, 117_777),
    "whisper, other numbers": (whisper, ODD_WHISPER, 40_001),
    "whisper, mask": (whisper, {"return_attention_mask": True, "chunk_length": 3}, 30_000),
    "whisper, padded in front": (whisper, PADDED_WHISPER, 30_000),
    "clap": (clap, {}, 480_000),
    "clap, repeatpad": (clap, {"max_length_s": 3}, 40_001),
    "clap, repeat": (clap, {"max_length_s": 2, "padding": "repeat"}, 40_001),
    "clap, pad": (clap, {"max_length_s": 2, "padding": "pad"}, 40_001),
    "clap, fused": (clap, {"max_length_s": 2, "truncation": "fusion"}, 96_000),
    "clap, fused, repeatpad": (clap, {"max_length_s": 2, "truncation": "fusion"}, 17_000),
    "clap, other numbers": (clap, ODD_CLAP, 70_001),
    "wav2vec2": (wav2vec2, {}, 160_000),
    "wav2vec2, as it is": (wav2vec2, {"do_normalize": False}, 16_001),
    "wav2vec2, mask": (wav2vec2, {"return_attention_mask": True}, 16_001),
}  # fmt: skip


def theirs(extractor: Any, waveforms: np.ndarray) -> dict[str, torch.Tensor]:
    return dict(extractor([*waveforms], sampling_rate=extractor.sampling_rate, return_tensors="pt"))


def agree(extractor: Any, waveforms: np.ndarray) -> None:
    front = front_end(extractor)
    assert front is not None
    given = torch.from_numpy(waveforms.copy())
    ours, reference = front(given), theirs(extractor, waveforms)
    assert torch.equal(given, torch.from_numpy(waveforms)), "the waveforms were written to"
    if "is_longer" in reference:  # drawn at random of a fused batch; no window is longer
        assert not ours.pop("is_longer").any()
        assert reference.pop("is_longer").shape == (len(waveforms), 1)
    assert ours.keys() == reference.keys()
    for name, wanted in reference.items():
        assert (ours[name].shape, ours[name].dtype) == (wanted.shape, wanted.dtype)
        worst = (ours[name] - wanted).abs().flatten(1).amax(dim=1)  # a signal
        assert worst.max() <= TOLERANCE, f"{name}: {worst.tolist()}"


@pytest.mark.parametrize("case", CASES)
def test_it_agrees_with_the_extractor(case: str) -> None:
    make, settings, samples = CASES[case]
    extractor = make(**settings)
    agree(extractor, signals(samples, extractor.sampling_rate))


@needs_emotify
@pytest.mark.parametrize(("make", "samples"), [(ast, AST_FULL), (whisper, 480_000), (clap, 480_000)])
def test_it_agrees_on_a_real_clip(make: Callable[..., Any], samples: int) -> None:
    clip = sorted((SHARED / "data/emotify").rglob("*.mp3"))[0]
    extractor = make()
    cut = audio.Windowing(extractor.sampling_rate, samples)
    agree(extractor, np.stack([w.samples for w in audio.windows(clip, cut)][:2]))


@pytest.mark.parametrize("make", [ast, whisper, clap, wav2vec2])
def test_a_batch_and_any_device_get_the_same(make: Callable[..., Any]) -> None:
    """On a GPU a batch is computed at once; a tensor left behind on the CPU shows on any other device."""
    extractor = make()
    waveforms = torch.from_numpy(signals(20_000, extractor.sampling_rate))
    front: Any = front_end(extractor)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():  # as a model may run
        one_by_one = front(waveforms)[front.name]
    assert one_by_one.dtype == torch.float32
    assert torch.allclose(front.features(waveforms), one_by_one, atol=1e-5)
    nowhere = front.features(waveforms.to("meta"))
    assert (nowhere.device.type, nowhere.shape) == ("meta", one_by_one.shape)
    assert all(mask.device.type == "meta" for mask in front.others(waveforms.to("meta")).values())


def test_ast_is_the_same_where_torchaudio_is_installed() -> None:
    """There the extractor has neither window nor bank of its own."""
    without, bare = ast(max_length=90), ast(max_length=90)
    del bare.window, bare.mel_filters
    waveforms = torch.from_numpy(signals(12_000, 16_000))
    known, made = front_end(without), front_end(bare)
    assert known is not None and made is not None
    assert torch.equal(known(waveforms)["input_values"], made(waveforms)["input_values"])


@pytest.mark.parametrize(
    ("make", "settings", "samples"),
    [
        (ast, {"max_length": 50}, 50 * 160 + 400),
        (whisper, {"chunk_length": 1}, 16_001),
        (clap, {"max_length_s": 1}, 48_001),
        (clap, {"max_length_s": 1, "truncation": "fusion"}, 48_001),
    ],
)
def test_nothing_is_dropped_silently(
    make: Callable[..., Any], settings: dict[str, Any], samples: int
) -> None:
    front = front_end(make(**settings))
    assert front is not None
    with pytest.raises(MgcError, match=f"{samples} samples.*would drop"):
        front(torch.zeros(2, samples))


def test_what_it_cannot_reproduce_is_left_to_the_extractor() -> None:
    class Own(t.ASTFeatureExtractor):  # may do anything
        pass

    assert front_end(Own()) is None
    assert front_end(t.SeamlessM4TFeatureExtractor()) is None
    assert front_end(whisper(dither=1e-4)) is None
