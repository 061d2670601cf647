"""MSD_musicnn against numbers of the original and the layers of the paper written out; bad files.

Most tests need neither a network nor the weights: they write a wheel with a random checkpoint.
"""

import hashlib
import json
import os
import sys
import zipfile
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from mgc.representations.encoders import musicnn_network, musicnn_weights
from mgc.representations.encoders.musicnn import load_network
from mgc.representations.encoders.musicnn_network import MusicNN, logmel
from mgc.representations.encoders.musicnn_weights import WEIGHTS_FILE, fetch_weights
from mgc.util.errors import MgcError
from mgc.workspace import Workspace

CONV_SHAPES = [(*shape[1:], 1, shape[0]) for shape in musicnn_network.FRONT_END]
CONV_SHAPES += [(7, 561, 1, 64), (7, 64, 1, 64), (7, 64, 1, 64)]
NORM_SIZES = [1, 204, 204, 51, 51, 51, 64, 64, 64, 1506, 200]


# --- a wheel with a random checkpoint ---------------------------------------------------------------------


def random_checkpoint(seed: int = 0) -> dict[str, np.ndarray]:
    """MSD_musicnn's variables with random values, negative gammas and, as in the real one, dead filters."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for number, shape in enumerate(CONV_SHAPES):
        kernel = rng.normal(size=shape) / np.sqrt(shape[0] * shape[1])
        kernel[..., ::3] *= 1e-20
        tensors[f"conv2d_{number}/kernel"] = kernel
        tensors[f"conv2d_{number}/bias"] = rng.normal(size=shape[-1])
    for number, (inputs, outputs) in enumerate(((1506, 200), (200, 50))):
        tensors[f"dense_{number}/kernel"] = rng.normal(size=(inputs, outputs)) / np.sqrt(inputs)
        tensors[f"dense_{number}/bias"] = rng.normal(size=outputs)
    for number, size in enumerate(NORM_SIZES):
        norm = f"batch_normalization_{number}"
        for part in ("beta", "gamma", "moving_mean"):
            tensors[f"{norm}/{part}"] = rng.normal(size=size)
        tensors[f"{norm}/moving_variance"] = rng.uniform(0.5, 2, size=size)
    return {name.replace("_0/", "/"): values.astype(np.float32) for name, values in tensors.items()}


def checkpoint_data(tensors: dict[str, np.ndarray]) -> bytes:
    """TensorFlow's data file: all variables sorted by name, the trained ones with two slots of Adam."""
    variables = {**tensors, "beta1_power": np.float32(0.9), "beta2_power": np.float32(0.99)}
    for name, values in tensors.items():
        if "moving" not in name:
            variables |= {f"{name}/Adam": np.full_like(values, np.nan)}
            variables |= {f"{name}/Adam_1": np.full_like(values, np.nan)}
    return b"".join(variables[name].astype("<f4").tobytes() for name in sorted(variables))


def write_wheel(path: Path, tensors: dict[str, np.ndarray]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("musicnn/MSD_musicnn/.data-00000-of-00001", checkpoint_data(tensors))
        archive.writestr("musicnn-0.1.0.dist-info/LICENSE.md", "permission to use, copy, modify")


def written_out(tensors: dict[str, np.ndarray], x: torch.Tensor) -> dict[str, torch.Tensor]:
    """musicnn/models.py layer by layer, in its own order, axes and float64: (B, T, 96) to features."""
    t = {name: torch.from_numpy(values).double() for name, values in tensors.items()}
    for layer in ("conv2d", "dense", "batch_normalization"):  # give the first of each its number
        t |= {name.replace("/", "_0/"): t[name] for name in tensors if name.startswith(f"{layer}/")}

    def norm(number: int, x: torch.Tensor) -> torch.Tensor:  # channels last
        beta, gamma, mean, var = (
            t[f"batch_normalization_{number}/{part}"]
            for part in ("beta", "gamma", "moving_mean", "moving_variance")
        )
        return (x - mean) / torch.sqrt(var + 1e-3) * gamma + beta

    def conv(number: int, x: torch.Tensor) -> torch.Tensor:  # (B, T, bands) -> (B, T, positions, filters)
        kernel = t[f"conv2d_{number}/kernel"].permute(3, 2, 0, 1)
        frames = kernel.shape[2]
        before = (frames - 1) // 2
        x = F.pad(x, (0, 0, before, frames - 1 - before))[:, None]
        y = F.relu(F.conv2d(x, kernel, t[f"conv2d_{number}/bias"])).permute(0, 2, 3, 1)
        return norm(number + 1, y)

    x = norm(0, x.double()[..., None])[..., 0]
    front = torch.cat([conv(number, x).amax(2) for number in range(5)], 2)  # (B, T, 561)
    first = conv(5, front)[:, :, 0]
    second = conv(6, first)[:, :, 0] + first
    third = conv(7, second)[:, :, 0] + second
    layers = torch.cat([front, first, second, third], 2)  # (B, T, 753)
    max_pool, mean_pool = layers.amax(1), layers.mean(1)
    flat = norm(9, torch.stack([max_pool, mean_pool], 2).flatten(1))
    penultimate = norm(10, F.relu(flat @ t["dense_0/kernel"] + t["dense_0/bias"]))
    tags = torch.sigmoid(penultimate @ t["dense_1/kernel"] + t["dense_1/bias"])
    return {"max_pool": max_pool, "mean_pool": mean_pool, "penultimate": penultimate, "tags": tags}


def assert_same_features(found: musicnn_network.MusicNNOutput, expected: dict[str, torch.Tensor]) -> None:
    for name, values in expected.items():
        torch.testing.assert_close(getattr(found, name).double(), values, rtol=1e-5, atol=2e-5, msg=name)


@pytest.fixture
def with_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, np.ndarray]]:
    """A weights folder that holds a wheel, and the tensors in it."""
    tensors = random_checkpoint()
    wheel = tmp_path / musicnn_weights.WHEEL
    write_wheel(wheel, tensors)
    monkeypatch.setattr(musicnn_weights, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    converted = musicnn_weights._checksum(musicnn_weights.convert_wheel(wheel)[0])
    monkeypatch.setattr(musicnn_weights, "TENSORS_SHA256", converted)
    return tmp_path, tensors


# --- fetching ---------------------------------------------------------------------------------------------


def test_a_wheel_becomes_the_network_of_the_paper(with_wheel: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, tensors = with_wheel
    weights = fetch_weights(Workspace(weights=folder))
    assert weights == folder / WEIGHTS_FILE
    assert sorted(path.name for path in folder.iterdir()) == sorted([musicnn_weights.WHEEL, weights.name])

    x = torch.rand(2, 40, 96, generator=torch.Generator().manual_seed(1)) * 4
    expected = written_out(tensors, x)
    assert_same_features(load_network(weights)(x), expected)
    pruned = load_network(weights).without_dead_filters()
    live = sum(len(bank.live) for bank in (*pruned.front, *pruned.middle))
    assert live == sum(size - len(range(0, size, 3)) for size in (204, 204, 51, 51, 51, 64, 64, 64))
    assert_same_features(pruned(x), expected)


def test_the_second_call_needs_neither_wheel_nor_pip(
    with_wheel: tuple[Path, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = with_wheel
    weights = fetch_weights(Workspace(weights=folder))
    (folder / musicnn_weights.WHEEL).unlink()
    monkeypatch.setattr(musicnn_weights.subprocess, "run", lambda *_, **__: pytest.fail("downloaded again"))
    assert fetch_weights(Workspace(weights=folder)) == weights


def test_damaged_converted_weights_are_converted_again(
    with_wheel: tuple[Path, dict[str, np.ndarray]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = with_wheel
    weights = fetch_weights(Workspace(weights=folder))
    whole, tensors = weights.read_bytes(), musicnn_weights.load(weights.read_bytes())
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for damaged in (flipped, whole[:middle], b"", whole.replace(b'"F32"', b'"F64"', 1)):
        weights.write_bytes(damaged)
        assert fetch_weights(Workspace(weights=folder)) == weights
        assert "is damaged: it is converted again" in capsys.readouterr().err
        again = musicnn_weights.load(weights.read_bytes())
        assert all(np.array_equal(again[name], tensor) for name, tensor in tensors.items())


def test_a_wheel_in_the_folder_of_encoders(
    with_wheel: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    folder, _ = with_wheel
    assert fetch_weights(Workspace(weights=tmp_path / "not" / "there yet", encoders=folder)).is_file()


def test_a_damaged_wheel_is_refused_and_leaves_nothing(
    with_wheel: tuple[Path, dict[str, np.ndarray]],
) -> None:
    folder, _ = with_wheel
    wheel = folder / musicnn_weights.WHEEL
    raw = bytearray(wheel.read_bytes())
    raw[len(raw) // 2] ^= 1
    wheel.write_bytes(raw)
    with pytest.raises(MgcError, match="damaged or a different file") as caught:
        fetch_weights(Workspace(weights=folder))
    assert caught.value.where == wheel
    assert list(folder.iterdir()) == [wheel]


def test_no_pip_says_what_to_bring_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(MgcError, match="no pip") as caught:
        fetch_weights(Workspace(weights=tmp_path))
    assert musicnn_weights.WHEEL in str(caught.value) and str(tmp_path) in str(caught.value)


def test_no_network_says_what_to_bring_and_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # the discard port: nobody answers
    with pytest.raises(MgcError, match="cannot be downloaded from PyPI") as caught:
        fetch_weights(Workspace(weights=tmp_path))
    assert musicnn_weights.WHEEL in str(caught.value) and str(tmp_path) in str(caught.value)
    assert "No matching distribution" in str(caught.value)
    assert capsys.readouterr().err.count("downloading musicnn") == 1
    assert not list(tmp_path.iterdir())


def test_a_weights_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MgcError, match="musicnn weights cannot be saved"):
        fetch_weights(Workspace(weights=tmp_path / "file" / "folder"))


# --- log-mels and the network -----------------------------------------------------------------------------


@pytest.mark.parametrize("center", [True, False])
def test_logmel_is_librosas(center: bool) -> None:
    waveforms = 0.2 * np.random.default_rng(0).normal(size=(3, 5000)).astype(np.float32)
    options = {"sr": 16_000, "n_fft": 512, "hop_length": 256, "n_mels": 96, "center": center}
    expected = np.stack([librosa.feature.melspectrogram(y=y, **options) for y in waveforms])
    found = logmel(torch.from_numpy(waveforms), center=center)
    assert found.shape == (3, 1 + 5000 // 256 if center else 1 + (5000 - 512) // 256, 96)
    np.testing.assert_allclose(found, np.log10(1 + 10_000 * expected).transpose(0, 2, 1), atol=1e-5)


def test_context_from_the_caller_gives_the_frames_of_the_whole() -> None:
    whole = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    part = logmel(whole[:, 2560 - 256 : 5120 + 256], center=False)
    torch.testing.assert_close(part, logmel(whole, center=True)[:, 10:21])


@pytest.mark.parametrize("shape", [(511,), (2, 511), (1, 1, 600)])
def test_logmel_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="waveforms must be"):
        logmel(torch.zeros(shape), center=False)


def test_mel_bank_first_made_in_inference_mode_still_works_with_gradients() -> None:
    musicnn_network._hann_and_mel_bank.cache_clear()
    with torch.inference_mode():
        logmel(torch.zeros(1, 512), center=False)
    waveforms = torch.rand(1, 1024, requires_grad=True)
    logmel(waveforms, center=False).sum().backward()
    assert waveforms.grad is not None and waveforms.grad.abs().sum() > 0


def test_random_initialisation_is_frozen_and_depends_on_its_input() -> None:
    torch.manual_seed(0)
    twin = MusicNN()
    assert not twin.training and not any(p.requires_grad for p in twin.parameters())
    features = twin(torch.rand(2, 187, 96) * 3)
    assert [values.shape[1] for values in vars(features).values()] == [753, 753, 200, 50]
    assert features.penultimate.std() > 0 and not torch.equal(features.tags[0], features.tags[1])
    assert ((features.tags > 0) & (features.tags < 1)).all()
    with pytest.raises(ValueError, match="log-mels must be"):
        twin(torch.zeros(2, 96, 187))


def test_the_published_form_can_be_trained() -> None:
    network = MusicNN().requires_grad_(True).train()
    network(torch.rand(2, 40, 96)).tags.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_tags_are_fifty_different_ones() -> None:
    assert len(set(musicnn_network.TAGS)) == 50


def test_strict_loading_names_every_difference(tmp_path: Path) -> None:
    weights = MusicNN().state_dict()
    weights["tags.extra"] = weights.pop("dense.bias")
    weights["tags.weight"] = weights["tags.weight"][:49].clone()
    save_file(weights, tmp_path / "wrong.safetensors")
    with pytest.raises(MgcError) as caught:
        load_network(tmp_path / "wrong.safetensors")
    for part in (
        "missing: dense.bias",
        "unexpected: tags.extra",
        "tags.weight is (49, 200), expected (50, 200)",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"not safetensors"])
def test_unreadable_weights_are_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(MgcError, match="cannot be read"):
        load_network(tmp_path / "w.safetensors")


# --- with the real weights --------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def trained_weights() -> Path:
    try:
        return fetch_weights(Workspace())
    except MgcError as error:
        if "cannot be downloaded" not in error.what:
            raise
        pytest.skip(f"the musicnn wheel is neither cached nor within reach: {error.where}")


def reference_waveforms() -> dict[str, np.ndarray]:
    t = np.arange(48_000) / 16_000
    tones = [(0.3, 220.0), (0.2, 277.18), (0.2, 329.63)]
    beat = np.floor(4 * t) % 2
    return {
        "chord": sum(amplitude * np.sin(2 * np.pi * hz * t) for amplitude, hz in tones),
        "chirp_with_beat": 0.4 * np.sin(2 * np.pi * (100 * t + 600 * t**2)) * beat,
    }


@pytest.mark.parametrize("case", ["chord", "chirp_with_beat"])
def test_agrees_with_the_original(trained_weights: Path, case: str) -> None:
    shared = Path(os.environ.get("MGC_SHARED") or Path(__file__).parents[2] / "shared")
    reference = shared / "reference" / "musicnn_reference.json"
    if not reference.is_file():
        pytest.skip(f"no {reference}: set MGC_SHARED to the folder that holds reference/")
    expected = json.loads(reference.read_text())["cases"][case]

    waveform = torch.from_numpy(reference_waveforms()[case]).float()
    logmels = logmel(waveform[None], center=True)[:, :187]
    features = load_network(trained_weights)(logmels)
    best = features.tags[0].topk(5)
    expected_tags = [tag for tag, _ in expected["top5_tags"]]
    assert [musicnn_network.TAGS[place] for place in best.indices] == expected_tags
    for found, value in (
        (logmels.mean(), expected["logmel_mean"]),
        (logmels.std(), expected["logmel_std"]),
        (features.max_pool[0, :8], expected["max_pool_first8"]),
        (features.mean_pool[0, :8], expected["mean_pool_first8"]),
        (features.penultimate[0], expected["penultimate"]),
        (best.values, [probability for _, probability in expected["top5_tags"]]),
    ):
        np.testing.assert_allclose(found, value, rtol=0, atol=1e-4)


def test_dead_filters_of_the_trained_network_change_nothing(trained_weights: Path) -> None:
    pruned = load_network(trained_weights).without_dead_filters()
    assert sum(len(bank.live) for bank in (*pruned.front, *pruned.middle)) == 208
    noise = 0.3 * torch.randn(2, 48_000, generator=torch.Generator().manual_seed(0))
    logmels = logmel(noise * torch.tensor([[1.0], [0.01]]), center=True)[:, :187]
    found, expected = pruned(logmels), load_network(trained_weights)(logmels)
    assert_same_features(found, {name: values.double() for name, values in vars(expected).items()})
