"""EfficientAT mn04: its arithmetic written out a second time, its tags, its windows, and bad files.

Most tests need no weights: they save a random network under the names of the release.
"""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from conftest import SHARED, here, needs_emotify, tone
from safetensors.torch import save_file
from torch import Tensor

from mgc import audio
from mgc.representations import open_representation
from mgc.representations.encoders.efficientat import (
    FRAME_SAMPLES,
    PARAMETERS,
    RELEASE,
    SAMPLE_RATE_HZ,
    WINDOW,
    find_weights,
    load_network,
    published,
)
from mgc.representations.encoders.efficientat_network import (
    BLOCKS,
    FRAME_HOPS,
    HOP_SAMPLES,
    STAGES,
    EfficientAT,
    logmel,
)
from mgc.representations.pooling import represent
from mgc.util.errors import MgcError

CPU = torch.device("cpu")
WEIGHTS = SHARED / "weights/efficientat-mn04"
needs_weights = pytest.mark.skipif(not WEIGHTS.exists(), reason="needs EfficientAT mn04 in ../shared")


def release() -> dict[str, Tensor]:
    """A random network, its norms far from the identity, under the release's names."""
    torch.manual_seed(0)
    tensors = {}
    for name, made in EfficientAT().state_dict().items():
        tensor = made.clone()
        if name.endswith("running_var") or (name.endswith("weight") and tensor.dim() == 1):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            tensor.normal_()
        tensors[name.replace(".fc", ".conc_se_layers.0.fc")] = tensor
    return tensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "ear"
    path.mkdir()
    save_file(release(), path / "mn04_as.safetensors")
    return path


# Kernel, squeeze-excitation, hard swish, stride: the table of the paper, apart from that of the package.
TABLE = [
    (3, 0, 0, 1), (3, 0, 0, 2), (3, 0, 0, 1), (5, 1, 0, 2), (5, 1, 0, 1), (5, 1, 0, 1), (3, 0, 1, 2),
    (3, 0, 1, 1), (3, 0, 1, 1), (3, 0, 1, 1), (3, 1, 1, 1), (3, 1, 1, 1), (5, 1, 1, 2), (5, 1, 1, 1),
    (5, 1, 1, 1),
]  # fmt: skip


def written_out(w: dict[str, Tensor], x: Tensor) -> tuple[list[Tensor], Tensor]:
    """The published forward pass: (B, 1, 128, T) to the maps after every block, and the tags."""

    def unit(x: Tensor, name: str, stride: int, act: int | None) -> Tensor:
        kernel = w[f"{name}.0.weight"]
        x = F.conv2d(x, kernel, None, stride, kernel.shape[2] // 2, 1, x.shape[1] // kernel.shape[1])
        norm = [w[f"{name}.1.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        x = F.batch_norm(x, *norm, eps=1e-3)
        return x if act is None else (F.hardswish(x) if act else F.relu(x))

    x = unit(x, "features.0", 2, 1)
    maps = []
    for number, (_, squeeze, act, stride) in enumerate(TABLE, 1):
        block, inputs, part = f"features.{number}.block", x, 0
        if number > 1:
            x, part = unit(x, f"{block}.0", 1, act), 1
        x, part = unit(x, f"{block}.{part}", stride, act), part + 1
        if squeeze:
            one, two = (f"{block}.{part}.conc_se_layers.0.fc{k}" for k in (1, 2))
            s = F.relu(F.linear(x.mean((2, 3)), w[f"{one}.weight"], w[f"{one}.bias"]))
            s = F.linear(s, w[f"{two}.weight"], w[f"{two}.bias"]).sigmoid()
            x, part = x * s[:, :, None, None], part + 1
        x = unit(x, f"{block}.{part}", 1, None)
        x = x + inputs if x.shape == inputs.shape else x
        maps.append(x)
    x = unit(x, "features.16", 1, 1)
    hidden = F.hardswish(F.linear(x.mean((2, 3)), w["classifier.2.weight"], w["classifier.2.bias"]))
    return [*maps, x], F.linear(hidden, w["classifier.5.weight"], w["classifier.5.bias"]).sigmoid()


@pytest.mark.parametrize("frames", [50, 171, 192])
def test_the_folded_network_is_the_published_one(frames: int, folder: Path) -> None:
    logmels = torch.randn(2, 128, frames)
    maps, tags = written_out(release(), logmels.unsqueeze(1))
    output = load_network(folder / "mn04_as.safetensors").fold_batch_norms()(logmels)
    network = EfficientAT().fold_batch_norms()
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in network.modules())
    torch.testing.assert_close(output.tags, tags, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(output.layers[-1].mean(1), maps[-1].mean((2, 3)), atol=1e-4, rtol=1e-4)
    for layer, number in zip(output.layers, STAGES, strict=False):
        assert layer.shape[1] == -(-frames // FRAME_HOPS)
        if frames % FRAME_HOPS == 0:
            torch.testing.assert_close(layer.mean(1), maps[number - 1].mean((2, 3)), atol=1e-4, rtol=1e-4)


def test_the_published_form_can_be_trained() -> None:
    network = EfficientAT().requires_grad_(True).train()
    network(torch.randn(2, 128, 64)).tags.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_card_knows_the_networks_numbers(folder: Path) -> None:
    model = EfficientAT()
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS  # published: 0.98 M
    assert [layer.dim for layer in published().layers] == [
        layer.shape[2] for layer in model(torch.zeros(1, 128, 50)).layers
    ]
    assert [block[0] for block in BLOCKS] == [row[0] for row in TABLE]
    assert FRAME_SAMPLES == FRAME_HOPS * HOP_SAMPLES


def test_logmel_is_kaldis() -> None:
    """Frame by frame in float64, the triangles drawn by Kaldi's formula."""
    wave = tone(1, 0.5, 32_000, 3)
    sharp = np.pad(np.diff(wave.astype(np.float64)) + 0.03 * wave[:-1], 512, mode="reflect")
    taper = np.pad(np.hanning(800), 112)
    starts = range(0, len(sharp) - 1023, 320)
    power = np.abs(np.fft.rfft([sharp[s : s + 1024] * taper for s in starts])) ** 2  # (T, 513)
    mel = 1127 * np.log1p(np.arange(513) * 31.25 / 700)
    edges = np.linspace(0, 1127 * np.log1p(15_000 / 700), 130)
    up = (mel[:, None] - edges[:-2]) / np.diff(edges)[:-1]  # (513, 128)
    down = (edges[2:] - mel[:, None]) / np.diff(edges)[1:]
    expected = (np.log(power @ np.maximum(0, np.minimum(up, down)) + 1e-5) + 4.5) / 5
    found = logmel(torch.from_numpy(wave)[None])[0].T.numpy()
    assert found.shape == expected.shape == (50, 128)
    assert np.abs(found - expected).max() < 1e-3


def test_every_sample_counts_once_and_nothing_is_padded(folder: Path, tmp_path: Path) -> None:
    rate = SAMPLE_RATE_HZ
    opened = open_representation(str(folder), workspace=here())
    encoder = opened.load(CPU)
    paths = [tmp_path / "long.wav", tmp_path / "short.wav"]
    for path, seconds in zip(paths, (15.0, 0.7), strict=True):
        soundfile.write(path, tone(1, seconds, rate, 1), rate, subtype="FLOAT")
    arrays = dict(represent(opened, encoder, paths, CPU, 2))

    def embedding(samples: np.ndarray) -> np.ndarray:
        """(T, 384): the last map averaged over bands, by the written-out pass."""
        maps, _ = written_out(release(), logmel(torch.from_numpy(samples)[None]).unsqueeze(1))
        return maps[-1][0].mean(1).T.numpy()

    first, last = (embedding(audio.load(paths[0])[s : s + WINDOW]) for s in (0, 5 * rate))
    # The second window begins at 5 s and is new from its own 5 s on: from the frame that starts at 5.12 s.
    frames = np.concatenate([first, last[16:]])
    expected = {0: frames, 1: embedding(audio.load(paths[1]))}
    for position, frames in expected.items():
        found = arrays[position][:, opened.layer_slice("last")]
        np.testing.assert_allclose(found, [frames.mean(0), frames.std(0), frames.max(0)], atol=2e-4)


def test_a_folder_is_known_by_its_file_and_by_nothing_else(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_representation(str(folder), workspace=here())
    assert (opened.name, opened.parameters) == ("ear", PARAMETERS)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("MGC_WEIGHTS", str(tmp_path / "shelf"))
    with pytest.raises(MgcError, match="were not found") as caught:
        open_representation("efficientat_mn04", workspace=here())
    assert str(tmp_path / "shelf/efficientat-mn04") in str(caught.value)
    assert RELEASE in str(caught.value)
    (tmp_path / "shelf").mkdir()
    folder.rename(tmp_path / "shelf/efficientat-mn04")
    named = open_representation("efficientat_mn04", workspace=here())
    assert (named.name, named.spec.name) == ("efficientat_mn04", "efficientat_mn04")
    assert named.key == opened.key
    (tmp_path / "shelf/efficientat-mn04/mn04_as.safetensors").rename(tmp_path / "other.safetensors")
    with pytest.raises(MgcError, match="not a saved encoder"):
        open_representation(str(tmp_path / "shelf/efficientat-mn04"), workspace=here())


def test_the_releases_own_format_gives_the_same(folder: Path, tmp_path: Path) -> None:
    torch.save(release(), tmp_path / "mn04_as_mAP_432.pt")
    x = (torch.randn(1, 9600), torch.tensor([0]), torch.tensor([9600]))
    safe, pickled = (
        open_representation(str(place), workspace=here()).load(CPU) for place in (folder, tmp_path)
    )
    assert all(torch.equal(*pair) for pair in zip(safe(*x)[0], pickled(*x)[0], strict=True))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda w: w.pop("features.7.block.1.1.running_var"), "missing: features.7.block.1.1.running_var"),
        (lambda w: w.update(extra=torch.zeros(1)), "unexpected: extra"),
        (lambda w: w.update({"classifier.5.bias": torch.zeros(9)}), r"5.bias is \(9,\), expected \(527,\)"),
        (lambda w: w["features.0.0.weight"].fill_(float("nan")), "features.0.0.weight is not finite"),
        (None, "cannot be read"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["mn04_as.safetensors", "mn04_as_mAP_432.pt"])
def test_weights_that_are_not_mn04s(spoil, says: str, name: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    weights = release()
    file = tmp_path / name
    if spoil:
        spoil(weights)
        save_file(weights, file) if file.suffix == ".safetensors" else torch.save(weights, file)
    else:
        file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(MgcError, match=says) as caught:
        open_representation(str(tmp_path), workspace=here()).load(CPU)
    assert caught.value.where == file
    assert RELEASE in str(caught.value)


# --- the trained network ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> EfficientAT:
    file = find_weights(here(), WEIGHTS)
    assert file
    return load_network(file)


def tags(model: EfficientAT, waveforms: np.ndarray) -> list[str]:
    """The three likeliest, averaged over (B, S)."""
    with (WEIGHTS / "class_labels_indices.csv").open(encoding="utf-8") as lines:
        names = [row["display_name"] for row in csv.DictReader(lines)]
    probable = model(logmel(torch.from_numpy(waveforms.astype(np.float32)))).tags.mean(0)
    return [names[i] for i in probable.topk(3).indices]


@needs_weights
def test_the_tags_of_synthetic_sounds(trained: EfficientAT) -> None:
    t = np.arange(WINDOW) / SAMPLE_RATE_HZ
    noise = np.random.default_rng(0).standard_normal(len(t))
    assert tags(trained, 0.3 * np.sin(2 * np.pi * 1000 * t)[None])[0] == "Sine wave"
    assert "White noise" in tags(trained, 0.1 * noise[None])
    assert tags(trained, 1e-7 * noise[None])[0] == "Silence"


@needs_weights
@needs_emotify
def test_real_music_is_tagged_as_music(trained: EfficientAT) -> None:
    clips = sorted((SHARED / "data/emotify").rglob("*.mp3"))[::67]
    cut = published().cut
    first = [np.stack([next(audio.windows(clip, cut)).samples for clip in clips])]
    assert tags(trained, first[0])[0] == "Music"


@needs_weights
def test_the_trained_network_is_the_published_one(trained: EfficientAT) -> None:
    from safetensors.torch import load_file

    logmels = logmel(torch.from_numpy(tone(1, 3.0, SAMPLE_RATE_HZ, 5))[None])
    file = find_weights(here(), WEIGHTS)
    assert file
    maps, expected = written_out(load_file(file), logmels.unsqueeze(1))
    output = trained(logmels)
    torch.testing.assert_close(output.tags, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(output.layers[-1].mean(1), maps[-1].mean((2, 3)), atol=1e-4, rtol=1e-4)
