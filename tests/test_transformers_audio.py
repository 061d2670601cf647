"""Transformers encoders: tiny random checkpoints of every family against transformers, and bad folders."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import SHARED, here, needs_emotify, needs_whisper, tone
from safetensors.torch import load_file, save_file

from mgc import audio
from mgc.representations import ModelSpec, Representation, open_representation
from mgc.representations.encoders.families import FAMILIES as KNOWN_FAMILIES
from mgc.representations.encoders.known import SHORT_NAMES
from mgc.representations.encoders.transformers_audio import published
from mgc.representations.overview import encoders, render
from mgc.representations.pooling import represent
from mgc.util.errors import MgcError

CPU = torch.device("cpu")
WHISPER = SHARED / "weights/whisper-tiny.en-encoder"


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment variable comes too late when something has imported the hub's package before."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


# --- tiny checkpoints -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tiny:
    """A family at its smallest, and what is true of it by its paper rather than by mgc."""

    make: Callable[[Any], tuple[Any, Any]]  # transformers -> model, feature extractor
    model: str  # the class that reads it in a direct computation
    rate: int
    window: int  # samples
    starts: Callable[[int], np.ndarray]  # of the real frames in a window of n real samples, in samples


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
STRIDES = (5, 2, 2, 2, 2, 2, 2)  # of wav2vec 2.0: a frame every 320 samples, which sees 400
KERNELS = (10, 3, 3, 3, 3, 2, 2)


def waveform(name: str, strides: tuple[int, ...] = STRIDES, thinned: int = 1, **more: Any) -> Tiny:
    def make(t: Any) -> tuple[Any, Any]:
        settings = {"conv_dim": (8,) * 7, "conv_stride": strides, "conv_kernel": KERNELS}
        settings |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2} | SMALL | more
        config = getattr(t, f"{name}Config")(**settings)
        return getattr(t, f"{name}Model")(config), t.Wav2Vec2FeatureExtractor()

    def starts(samples: int) -> np.ndarray:
        length = samples
        for kernel, stride in zip(KERNELS, strides, strict=True):
            length = (length - kernel) // stride + 1
        return np.arange(length // thinned) * int(np.prod(strides)) * thinned

    return Tiny(make, f"{name}Model", 16_000, 160_000, starts)


def tiny_ast(t: Any) -> tuple[Any, Any]:
    config = t.ASTConfig(max_length=200, frequency_stride=20, time_stride=8, **SMALL)
    return t.ASTModel(config), t.ASTFeatureExtractor(max_length=200)


def ast_starts(samples: int) -> np.ndarray:
    """Patches of 16 Kaldi frames every 8; a frame is 400 samples every 160, and must be whole."""
    return np.array([160 * frame for frame in range(0, 200 - 16 + 1, 8) if frame <= (samples - 400) // 160])


def tiny_whisper(t: Any, kind: str = "WhisperForConditionalGeneration") -> tuple[Any, Any]:
    sides = {
        f"{side}_{key}": value
        for side in ("encoder", "decoder")
        for key, value in {"layers": 2, "attention_heads": 2, "ffn_dim": 32}.items()
    }
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = t.WhisperConfig(
        d_model=16, vocab_size=20, max_target_positions=8, max_source_positions=100, **sides, **tokens
    )
    return getattr(t, kind)(config), t.WhisperFeatureExtractor(chunk_length=2)


def clap(fusion: bool) -> Callable[[Any], tuple[Any, Any]]:
    text = {"vocab_size": 20, "max_position_embeddings": 20} | SMALL
    sound = {"patch_embeds_hidden_size": 8, "hidden_size": 64, "depths": [1, 1, 1, 1]}
    sound |= {"num_attention_heads": [1, 1, 2, 2], "enable_fusion": fusion}

    def make(t: Any) -> tuple[Any, Any]:
        config = t.ClapConfig(text_config=text, audio_config=sound, projection_dim=24)
        return t.ClapModel(config), t.ClapFeatureExtractor(truncation="fusion" if fusion else "rand_trunc")

    return make


def one_frame(samples: int) -> np.ndarray:
    return np.zeros(1)


FAMILIES = {
    "ast": Tiny(tiny_ast, "ASTModel", 16_000, 199 * 160 + 400, ast_starts),
    "wav2vec2": waveform("Wav2Vec2"),
    "wav2vec2-dense": waveform("Wav2Vec2", (5, 2, 2, 2, 1, 1, 2), do_stable_layer_norm=True),
    "wav2vec2-conformer": waveform("Wav2Vec2Conformer"),
    "hubert": waveform("Hubert"),
    "wavlm": waveform("WavLM"),
    "data2vec-audio": waveform("Data2VecAudio", num_conv_pos_embeddings=2, conv_pos_kernel_size=3),
    "unispeech": waveform("UniSpeech"),
    "unispeech-sat": waveform("UniSpeechSat"),
    "sew": waveform("SEW", thinned=2, squeeze_factor=2),
    "whisper": Tiny(tiny_whisper, "WhisperModel", 16_000, 32_000, lambda n: np.arange(0, n, 320)),
    "clap": Tiny(clap(fusion=False), "ClapModel", 48_000, 480_000, one_frame),
    "clap-fused": Tiny(clap(fusion=True), "ClapModel", 48_000, 480_000, one_frame),
}


def save_tiny(name: str, folder: Path) -> Path:
    """A checkpoint of random weights with its feature extractor, as transformers saves them."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    for part in FAMILIES[name].make(transformers):
        part.save_pretrained(folder)
    return folder


def clip(path: Path, seconds: float, rate: int, seed: int = 0) -> Path:
    soundfile.write(path, tone(seed % 2, seconds, rate, seed), rate, subtype="FLOAT")
    return path


def one(representation: Representation, path: Path) -> np.ndarray:
    [(_, array)] = represent(representation, representation.load(CPU), [path], CPU, batch_size=4)
    return array


# --- against transformers itself --------------------------------------------------------------------------


def layers_of(name: str, model: Any, front: Any, samples: np.ndarray) -> list[np.ndarray]:
    """(T, D) a layer of one window, all frames."""
    inputs = front(samples, sampling_rate=front.sampling_rate, return_tensors="pt")
    if name.startswith("clap"):
        inputs["is_longer"] = torch.zeros_like(inputs["is_longer"])
        pooled = model.audio_model(**inputs).pooler_output
        return [pooled.numpy(), model.audio_projection(pooled).numpy()]
    encoder = model.encoder if name == "whisper" else model
    states = encoder(next(iter(inputs.values())), output_hidden_states=True).hidden_states
    frames = [state[0].numpy() for state in states]
    if name == "ast":
        bands = (128 - 16) // 20 + 1
        frames = [state[2:].reshape(bands, -1, state.shape[1]).mean(axis=0) for state in frames]
    return frames


def direct(name: str, folder: Path, samples: np.ndarray) -> np.ndarray:
    """(3, width): mean, deviation, maximum over the real frames of all windows, the last one moved back."""
    import transformers

    tiny = FAMILIES[name]
    model = getattr(transformers, tiny.model).from_pretrained(folder).eval()
    front = transformers.AutoFeatureExtractor.from_pretrained(folder)
    full, rest = divmod(len(samples), tiny.window)
    cuts = [(k * tiny.window, 0) for k in range(full)]
    if rest:
        cuts += [(len(samples) - tiny.window, tiny.window - rest)] if full else [(0, 0)]
    parts, weights = [], []
    for start, covered in cuts:
        piece = samples[start : start + tiny.window]
        with torch.inference_mode():
            frames = np.hstack(layers_of(name, model, front, piece))  # (T, width)
        starts = tiny.starts(len(piece))
        if tiny.starts is one_frame:
            weights += [(len(piece) - covered) / len(piece)]
            parts += [frames]
        else:
            assert len(frames) >= len(starts)
            parts += [frames[: len(starts)][starts >= covered]]
            weights += [1.0] * len(parts[-1])
    frames = np.vstack(parts).astype(np.float64)
    mean = np.average(frames, axis=0, weights=weights)
    deviation = np.sqrt(np.average((frames - mean) ** 2, axis=0, weights=weights))
    return np.stack([mean, deviation, frames.max(axis=0)])


@pytest.mark.parametrize("name", FAMILIES)
def test_families_agree_with_transformers(name: str, tmp_path: Path) -> None:
    tiny = FAMILIES[name]
    folder = save_tiny(name, tmp_path / "encoder")
    representation = open_representation(str(folder), workspace=here())
    assert (representation.cut.sample_rate_hz, representation.cut.window) == (tiny.rate, tiny.window)
    # 9,700 samples: the last hop holds real samples, but no whole Kaldi frame
    for number, samples in enumerate(
        (9_700 * tiny.rate // 16_000, int((2.3 if tiny.window < 50_000 else 1.3) * tiny.window))
    ):
        path = clip(tmp_path / f"{number}.wav", samples / tiny.rate, tiny.rate)
        expected = direct(name, folder, audio.load(path))
        assert np.abs(one(representation, path) - expected).max() < 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_defaults_left_out_of_the_files_are_the_classes_own(name: str, tmp_path: Path) -> None:
    import transformers

    folder = save_tiny(name, tmp_path)
    whole = open_representation(str(folder), workspace=here())
    saved = json.loads((folder / "config.json").read_text())
    defaults = transformers.AutoConfig.for_model(saved["model_type"]).to_dict()
    spare = {key: value for key, value in saved.items() if key == "model_type" or defaults.get(key) != value}
    (folder / "config.json").write_text(json.dumps(spare))
    front = json.loads((folder / "preprocessor_config.json").read_text())
    spare = {
        key: front[key]
        for key in ("feature_extractor_type", "max_length", "chunk_length", "truncation")
        if key in front
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(spare))
    again = open_representation(str(folder), workspace=here())
    assert (again.cut, again.layers) == (whole.cut, whole.layers)


def test_preprocessing_inside_a_processor_is_found(tmp_path: Path) -> None:
    folder = save_tiny("whisper", tmp_path)
    whole = open_representation(str(folder), workspace=here())
    file = folder / "preprocessor_config.json"
    # as transformers 5 saves a WhisperProcessor
    inside = {"feature_extractor": json.loads(file.read_text()), "processor_class": "WhisperProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(inside))
    file.unlink()
    assert open_representation(str(folder), workspace=here()).cut == whole.cut


def test_whisper_comes_whole_as_a_classifier_or_not_at_all(tmp_path: Path) -> None:
    import transformers

    whole = save_tiny("whisper", tmp_path / "whole")
    torch.manual_seed(0)
    model, front = tiny_whisper(transformers, "WhisperForAudioClassification")
    model.encoder.load_state_dict(
        transformers.WhisperModel.from_pretrained(whole, dtype=torch.float32).encoder.state_dict()
    )
    for part in (model, front):
        part.save_pretrained(tmp_path / "classifier")
    path = clip(tmp_path / "a.wav", 1.0, 16_000)
    arrays = [
        one(open_representation(str(tmp_path / kind), workspace=here()), path)
        for kind in ("whole", "classifier")
    ]
    assert np.array_equal(*arrays)
    # saved from the encoder's class alone, no name fits
    weights = load_file(whole / "model.safetensors")
    bare = {key.partition("encoder.")[2]: value for key, value in weights.items() if ".encoder." in key}
    save_file(bare, whole / "model.safetensors", {"format": "pt"})
    with pytest.raises(MgcError, match="would be random: encoder"):
        open_representation(str(whole), workspace=here()).load(CPU)


def whisper_by_hand(samples: np.ndarray) -> np.ndarray:
    """(384,): mean of the last layer over ceil(samples / 320) frames, by nothing but transformers."""
    from transformers import AutoModel, WhisperFeatureExtractor

    model = AutoModel.from_pretrained(WHISPER, dtype=torch.float32).eval().encoder
    mels = WhisperFeatureExtractor.from_pretrained(WHISPER)(
        samples, sampling_rate=16_000, return_tensors="pt"
    )
    with torch.inference_mode():
        return model(mels.input_features).last_hidden_state[0, : -(-len(samples) // 320)].mean(0).numpy()


@needs_whisper
def test_the_real_whisper_encoder(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.wav", 0.613, 16_000)
    representation = open_representation(str(WHISPER), workspace=here())
    expected = whisper_by_hand(audio.load(path))
    mean = one(representation, path)[0, representation.layer_slice("last")]
    assert np.abs(mean - expected).max() < 1e-3 * np.abs(expected).max()


@needs_whisper
@needs_emotify
def test_the_real_whisper_encoder_on_a_real_clip() -> None:
    path = sorted((SHARED / "data/emotify").rglob("*.mp3"))[0]
    representation = open_representation(str(WHISPER), workspace=here())
    samples = audio.load(path, 16_000)
    # what an mp3 encoder appends is left out
    full = samples[: 30 * 16_000] if 0 <= len(samples) - 30 * 16_000 <= representation.cut.ignore else samples
    if len(full) > 30 * 16_000:
        pytest.skip("the clip takes more than one window")
    expected = whisper_by_hand(full)
    mean = one(representation, path)[0, representation.layer_slice("last")]
    assert np.abs(mean - expected).max() < 1e-3 * np.abs(expected).max()


# --- files ------------------------------------------------------------------------------------------------


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return save_tiny("wav2vec2", tmp_path / "encoder")


def rewrite(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_an_old_pytorch_checkpoint_loads_alike(encoder: Path, tmp_path: Path) -> None:
    path = clip(tmp_path / "a.wav", 1.0, 16_000)
    new = one(open_representation(str(encoder), workspace=here()), path)
    weights = load_file(encoder / "model.safetensors")
    (encoder / "model.safetensors").unlink()
    torch.save(weights, encoder / "pytorch_model.bin")
    assert np.array_equal(one(open_representation(str(encoder), workspace=here()), path), new)
    # and one from before torch had parametrizations, with a head around it
    split = "parametrizations.weight.original"
    names = {key: key.replace(f"{split}0", "weight_g").replace(f"{split}1", "weight_v") for key in weights}
    old = {f"wav2vec2.{names[key]}": value for key, value in weights.items()}
    torch.save(old | {"lm_head.weight": torch.zeros(2, 16)}, encoder / "pytorch_model.bin")
    assert np.array_equal(one(open_representation(str(encoder), workspace=here()), path), new)


def test_weights_that_would_be_random_are_refused_by_name(encoder: Path) -> None:
    name = "encoder.layers.1.attention.k_proj.weight"
    rewrite(encoder, lambda weights: weights.update({name: torch.zeros(3, 5)}))
    with pytest.raises(MgcError, match=f"1 weights .* another shape.*{name}"):
        open_representation(str(encoder), workspace=here()).load(CPU)
    rewrite(encoder, lambda weights: weights.pop(name))
    with pytest.raises(MgcError, match=f"1 weights .* random: {name}"):
        open_representation(str(encoder), workspace=here()).load(CPU)


def test_a_moved_folder_keeps_the_fingerprint_and_a_changed_byte_does_not(
    encoder: Path, tmp_path: Path
) -> None:
    before = open_representation(str(encoder), workspace=here())
    moved = Path(shutil.move(encoder, tmp_path / "elsewhere"))
    after = open_representation(str(moved), workspace=here())
    assert after.key == before.key
    assert (after.name, after.spec.name) == ("elsewhere", str(moved))
    content = bytearray((moved / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (moved / "model.safetensors").write_bytes(content)
    assert open_representation(str(moved), workspace=here()).key != before.key


def test_a_folder_is_called_by_its_name_however_it_is_given(
    encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(encoder)
    assert open_representation(".", workspace=here()).name == "encoder"
    # and does not take the place of a short name
    save_tiny("wav2vec2", encoder / "ast")
    assert open_representation("./ast", workspace=here()).name == "ast"
    with pytest.raises(MgcError, match=r"MIT/ast.* is not on this machine"):
        open_representation("ast", workspace=here())


def config(**changed: object) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changed))

    return edit


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json not found"),
    "no preprocessor": (
        lambda f: (f / "preprocessor_config.json").unlink(),
        "preprocessor_config.json not found",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors not found"),
    "text model": (config(model_type="bert"), "'bert' is not a supported audio encoder"),
    "no model type": (config(model_type=None), "'None' is not a supported audio encoder"),
    "not json": (lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON"),
    "not utf-8": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), "cannot be read as JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "not hold a JSON object"),
    "wrong type": (config(hidden_size="wide"), "cannot be used .*wide"),
    "wrong lengths": (config(conv_stride=[2, 2]), "conv_stride"),
    "preprocessor not json": (
        lambda f: (f / "preprocessor_config.json").write_text("{"),
        r"preprocessor_config\.json",
    ),
    "wrong rate": (
        lambda f: (f / "preprocessor_config.json").write_text('{"sampling_rate": "high"}'),
        "cannot be used .*high",
    ),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "weights cannot be loaded"),
    "cut weights": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]),
        "weights cannot be loaded",
    ),
    "no pickle": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        "weights cannot be loaded",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_folder_is_refused_with_a_message(what: str, encoder: Path) -> None:
    spoil, message = BAD[what]
    spoil(encoder)
    with pytest.raises(MgcError, match=message) as caught:
        open_representation(str(encoder), workspace=here()).load(CPU)
    assert str(encoder) in str(caught.value)
    assert caught.value.fix


def test_a_checkpoint_may_not_run_code(encoder: Path) -> None:
    config(auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})(encoder)
    (encoder / "evil.py").write_text("raise SystemExit('ran')")
    open_representation(str(encoder), workspace=here()).load(CPU)

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (exec, ("raise SystemExit('ran')",))

    (encoder / "model.safetensors").unlink()
    torch.save({"weight": Evil()}, encoder / "pytorch_model.bin")
    with pytest.raises(MgcError, match="weights cannot be loaded"):
        open_representation(str(encoder), workspace=here()).load(CPU)


def test_weights_in_parts_open_whole_or_not_at_all(encoder: Path, tmp_path: Path) -> None:
    import transformers

    path = clip(tmp_path / "a.wav", 1.0, 16_000)
    whole = one(open_representation(str(encoder), workspace=here()), path)
    transformers.Wav2Vec2Model.from_pretrained(encoder).save_pretrained(encoder, max_shard_size="10KB")
    (encoder / "model.safetensors").unlink(missing_ok=True)
    parts = sorted(encoder.glob("model-*-of-*.safetensors"))
    assert len(parts) > 2
    before = open_representation(str(encoder), workspace=here())
    assert np.array_equal(one(before, path), whole)
    parts[1].rename(encoder / "away")
    with pytest.raises(MgcError, match=f"{parts[1].name} not found"):
        open_representation(str(encoder), workspace=here())
    (encoder / "away").rename(parts[1])
    content = bytearray(parts[1].read_bytes())
    content[-1] ^= 1
    parts[1].write_bytes(content)
    assert open_representation(str(encoder), workspace=here()).key != before.key


def test_a_preprocessor_of_another_clap_is_refused_at_opening(tmp_path: Path) -> None:
    folder = save_tiny("clap", tmp_path / "clap")
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"truncation": "fusion"}))
    with pytest.raises(MgcError, match=r"four spectrograms .* takes one"):
        open_representation(str(folder), workspace=here())


# A model as those whose code lies beside their weights and was written for transformers 4: it knows no
# hidden states.
OWN_CODE = """
from transformers import HubertConfig, HubertModel
from transformers.modeling_outputs import BaseModelOutput

class MERTConfig(HubertConfig):
    model_type = "mert_model"

class MERTModel(HubertModel):
    config_class = MERTConfig

    def forward(self, input_values, **options):
        states = super().forward(input_values).last_hidden_state
        return BaseModelOutput(last_hidden_state=states, hidden_states=None)
"""


def test_code_beside_the_weights_runs_only_when_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    path = clip(tmp_path / "a.wav", 1.0, 24_000)
    plain = save_tiny("hubert", tmp_path / "plain")
    front = plain / "preprocessor_config.json"
    front.write_text(json.dumps(json.loads(front.read_text()) | {"sampling_rate": 24_000}))
    folder = Path(shutil.copytree(plain, tmp_path / "mert"))
    (folder / "own.py").write_text(OWN_CODE)
    config(model_type="mert_model", auto_map={"AutoConfig": "own.MERTConfig", "AutoModel": "own.MERTModel"})(
        folder
    )
    card = open_representation(str(folder), workspace=here())
    assert card.cut.sample_rate_hz == 24_000
    with pytest.raises(MgcError, match="Python code in its folder") as caught:
        card.load(CPU)
    assert "--trust-remote-code" in str(caught.value.fix)
    trusted = open_representation(str(folder), replace(here(), trust_remote_code=True))
    assert trusted.key == card.key
    expected = one(open_representation(str(plain), workspace=here()), path)
    assert np.abs(one(trusted, path) - expected).max() < 1e-5
    # its twin is transformers' own HuBERT, which needs no other code
    assert (
        one(open_representation(ModelSpec(str(folder), random_seed=0), workspace=here()), path).shape
        == expected.shape
    )
    (folder / "own.py").write_text(OWN_CODE + "\n")
    assert open_representation(str(folder), workspace=here()).key != card.key


# --- random weights -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ast", "wav2vec2", "wavlm", "whisper", "clap"])
def test_random_weights_are_drawn_whole_and_alike_by_seed(name: str, tmp_path: Path) -> None:
    folder = save_tiny(name, tmp_path / "encoder")
    path = clip(tmp_path / "a.wav", 0.7, FAMILIES[name].rate)
    learned = open_representation(str(folder), workspace=here())
    before = one(learned, path)
    (folder / "model.safetensors").unlink()  # settings alone will do
    drawn = open_representation(ModelSpec(str(folder), random_seed=3), workspace=here())
    assert drawn.name == "encoder (random weights)"
    assert (drawn.cut, drawn.layers) == (learned.cut, learned.layers)
    torch.manual_seed(11)
    state = torch.get_rng_state()
    array = one(drawn, path)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.isfinite(array).all()
    torch.manual_seed(12)  # what else was drawn changes nothing
    again = open_representation(drawn.spec, here())
    assert (again.key, again.source) == (drawn.key, drawn.source)
    assert np.array_equal(one(again, path), array)
    other = open_representation(ModelSpec(str(folder), random_seed=4), workspace=here())
    assert other.key != drawn.key
    assert not np.allclose(one(other, path)[0], array[0], atol=1e-3)
    assert not np.allclose(before[0], array[0], atol=1e-3)


def test_a_short_name_with_random_weights_needs_no_file() -> None:
    card = open_representation(ModelSpec("distilhubert", random_seed=0), here())
    assert card.trained_on == "nothing: random weights, seed 0"
    models = [open_representation(card.spec, here()).load(CPU).model for _ in range(2)]  # type: ignore[attr-defined]
    pairs = [*zip(models[0].state_dict().values(), models[1].state_dict().values(), strict=True)]
    assert all(torch.equal(*pair) for pair in pairs)
    assert sum(weight.numel() for weight in models[0].parameters()) == 23_491_968


@pytest.mark.parametrize("wrong", ["musicnn", "logmel", "nowhere", ""])
def test_random_weights_of_nothing_are_refused(wrong: str) -> None:
    with pytest.raises(MgcError):
        open_representation(ModelSpec(wrong, random_seed=0), here())


@pytest.mark.parametrize("name", SHORT_NAMES)
def test_published_configurations_make_the_models(name: str) -> None:
    """Against transformers' classes: the shape read without them, and the number of parameters."""
    import transformers

    known, card = SHORT_NAMES[name], published(name)
    family = KNOWN_FAMILIES[known.config["model_type"]]
    kind = getattr(transformers, family.kind)
    settings = kind.config_class.from_dict(known.config)
    front = getattr(transformers, known.front["feature_extractor_type"]).from_dict(known.front)
    assert card.cut.sample_rate_hz == front.sampling_rate
    assert card.cut.window == family.window(settings.to_dict(), front.to_dict())
    assert card.layers == family.layers(settings.to_dict())
    with torch.device("meta"):
        model = kind(settings)
    parts = (
        [model.audio_model, model.audio_projection] if name == "clap" else [model.get_submodule(family.part)]
    )
    count = sum(weight.numel() for part in parts for weight in part.parameters())
    assert round(count / 1e6, 1) == known.millions


# --- the hub ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typo", "meant"), [("wav2vce2", "wav2vec2"), ("logmle", "logmel"), ("musicn", "musicnn")]
)
def test_a_typo_gets_a_suggestion(typo: str, meant: str) -> None:
    with pytest.raises(MgcError, match=f"no encoder '{typo}'") as caught:
        open_representation(typo, workspace=here())
    assert f"did you mean {meant!r}" in str(caught.value)


@pytest.mark.parametrize("name", ["", "a/b/c", "/nowhere/at/all", "./nowhere", "owner/na me", "nowhere"])
def test_a_name_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(MgcError) as caught:
        open_representation(name, workspace=here())
    assert "folder" in str(caught.value.fix)


def opened(model: str) -> str:
    """Where it came from, or why it did not open, within ten seconds."""
    start = time.monotonic()
    try:
        return open_representation(model, workspace=here()).source
    except MgcError as error:
        return str(error)
    finally:
        assert time.monotonic() - start < 10


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two encoders, laid out as huggingface_hub does."""
    for number, hub_id in enumerate(("models--owner--encoder", "models--ntu-spml--distilhubert")):
        folder, revision = tmp_path / "hub" / hub_id, f"{number}123456789abcdef"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text(revision)
        save_tiny("hubert", folder / "snapshots" / revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize("hub", ["offline", "closed", "deaf"])
def test_without_a_hub_the_cache_is_used_and_the_message_names_a_way(
    hub: str, hub_cache: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes connections and never answers
        port = deaf.getsockname()[1] if hub == "deaf" else 9
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", hub == "offline")
        assert opened("owner/encoder") == "hub owner/encoder at 0123456789ab"
        assert opened("distilhubert") == "hub ntu-spml/distilhubert at 1123456789ab"
        message = opened("ast")
    assert "'ast' (MIT/ast-finetuned-audioset-10-10-0.4593) is not on this machine" in message
    assert "--model path/to/folder" in message
    assert "encoders that work here: musicnn, distilhubert" in message


def test_a_card_is_cheap(encoder: Path) -> None:
    code = (
        "import sys\n"
        "from mgc.representations import open_representation\n"
        "from mgc.workspace import Workspace\n"
        "open_representation(sys.argv[1], Workspace())\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(encoder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_list_of_encoders_names_what_is_available_and_needs_code(hub_cache: None) -> None:
    rows = {row.name: row for row in encoders(workspace=here())}
    assert set(rows) >= {*SHORT_NAMES, "musicnn", "efficientat_mn04"}
    assert [row.name for row in rows.values() if row.here and row.name in SHORT_NAMES] == ["distilhubert"]
    assert [row.name for row in rows.values() if row.own_code] == ["mert"]
    assert (rows["clap"].sample_rate_hz, rows["clap"].window_seconds, rows["clap"].dimension) == (
        48_000,
        10,
        512,
    )
    assert (rows["whisper"].window_seconds, rows["whisper"].layers) == (30, 7)
    assert json.loads(render([*rows.values()], "json"))[0]["name"] == "musicnn"
    with pytest.raises(MgcError, match="unknown format"):
        render([], "jsn")
