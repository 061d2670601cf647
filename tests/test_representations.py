"""Log-mel against librosa, and what every representation that opens here must keep of its promises."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch
from conftest import SHARED, here, needs_emotify, needs_whisper, tone
from test_transformers_audio import save_tiny

from mgc import audio
from mgc.representations import REPRESENTATIONS, ModelSpec, Representation, open_representation
from mgc.representations import card as kinds
from mgc.representations.features.logmel import HOP, LOGMEL, LOGMEL44, MelSettings, logmel, logmel44
from mgc.representations.pooling import represent
from mgc.util.errors import MgcError

CPU = torch.device("cpu")
BOTH = pytest.mark.parametrize(("make", "numbers"), [(logmel, LOGMEL), (logmel44, LOGMEL44)])


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment variable comes too late when something has imported the hub's package before."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


# --- log-mel ----------------------------------------------------------------------------------------------


Make = Callable[[], Representation]


def librosa_logmel(samples: np.ndarray, numbers: MelSettings) -> np.ndarray:
    mel = librosa.feature.melspectrogram(y=samples, sr=numbers.sample_rate_hz, n_fft=numbers.n_fft)
    return librosa.power_to_db(mel).T


@BOTH
def test_logmel_is_librosas_at_every_length(make: Make, numbers: MelSettings, tmp_path: Path) -> None:
    window, rate = numbers.window_frames * HOP, numbers.sample_rate_hz
    lengths = [HOP * 22 + extra for extra in (-1, 0, 1, HOP // 2)]
    lengths += [window + extra for extra in (-HOP, -1, 0, 1, HOP - 1, HOP, 1024)]
    lengths += [2 * window + extra for extra in (-1, 0, 1)]
    lengths += [rate // 2, 70 * rate]
    music = [tone(genre, 70, rate, genre) for genre in range(3)]
    paths = []
    for number, length in enumerate(lengths):
        samples = music[number % 3][:length].copy()
        samples[length // 2 : length // 2 + 3 * HOP] = 0.0  # silence lies on the floor
        paths.append(tmp_path / f"{length}.wav")
        soundfile.write(paths[-1], samples, rate, subtype="FLOAT")
    card = make()
    assert card.frames_a_second == rate / HOP
    seen = set()
    for position, array in represent(card, card.load(CPU), paths, CPU, batch_size=4):
        expected = librosa_logmel(audio.load(paths[position]), numbers)
        assert array.shape == expected.shape == (1 + lengths[position] // HOP, 128)
        assert np.abs(array - expected).max() < 2e-3
        seen.add(position)
    assert len(seen) == len(paths)


@needs_emotify
@BOTH
def test_logmel_is_librosas_on_a_real_clip(make: Make, numbers: MelSettings) -> None:
    path = sorted((SHARED / "data/emotify").rglob("*.mp3"))[7]
    card = make()
    [(_, array)] = represent(card, card.load(CPU), [path], CPU, batch_size=4)
    expected = librosa_logmel(audio.load(path, numbers.sample_rate_hz), numbers)
    assert array.shape == expected.shape
    assert np.abs(array - expected).max() < 1e-3


# --- the contract -----------------------------------------------------------------------------------------


needs_efficientat = pytest.mark.skipif(
    not (SHARED / "weights/efficientat-mn04").exists(), reason="needs EfficientAT mn04 in ../shared"
)
NAMES = [*REPRESENTATIONS, pytest.param("whisper-tiny.en-encoder", marks=needs_whisper)]
NAMES += [pytest.param("efficientat-mn04", marks=needs_efficientat)]
# The other families go the same ways; each agrees with transformers in a test of its own.
NAMES += [f"tiny {name}" for name in ("ast", "wav2vec2", "sew", "whisper", "clap-fused")]


@pytest.fixture(params=NAMES)
def representation(request: pytest.FixtureRequest, tmp_path: Path) -> Representation:
    """Everything in the table, the shared encoder, and tiny ones."""
    name = str(request.param)
    if name.startswith("tiny "):
        name = str(save_tiny(name.removeprefix("tiny "), tmp_path / "encoder"))
    elif name not in REPRESENTATIONS:
        name = str(SHARED / "weights" / name)
    try:
        return open_representation(name, workspace=here())
    except MgcError as error:
        pytest.skip(f"not on this machine: {error.what}")


def test_the_contract(representation: Representation, tmp_path: Path) -> None:
    card = representation.card()
    assert json.loads(json.dumps(card)) == card
    unknown = {key for key, value in card.items() if value in (None, "", [])}
    assert unknown <= {"parameters", "weights"}
    assert open_representation(representation.spec, here()).key == representation.key

    # Some rates so that there is something to resample, some lengths so that windows differ.
    paths = []
    for number, seconds in enumerate((2.9, 0.6, 5.3)):
        paths.append(tmp_path / f"{number}.wav")
        soundfile.write(paths[-1], tone(number, seconds, 16_000 + 50 * number, number), 16_000 + 50 * number)

    encoder = representation.load(CPU)
    [*_, window] = audio.windows(paths[0], representation.cut)
    batch = (
        torch.from_numpy(window.samples)[None],
        torch.tensor([window.covered]),
        torch.tensor([window.real]),
    )
    layers, weights = encoder(*batch)
    if representation.finish is None:
        sizes = [(*weights.shape, layer.dim) for layer in representation.layers]
        assert [tuple(layer.shape) for layer in layers] == sizes
    assert representation.pooled == (representation.frames_a_second is None)
    assert all(layer.isfinite().all() for layer in layers)
    assert weights.min() >= 0
    assert weights.max() <= 1
    assert weights.sum() > 0
    assert all(torch.equal(*pair) for pair in zip(layers, encoder(*batch)[0], strict=True))

    def arrays(order: list[int], batch_size: int) -> dict[int, np.ndarray]:
        some = [paths[position] for position in order]
        done = represent(representation, encoder, some, CPU, batch_size)
        return {order[position]: array for position, array in done}

    together, alone = arrays([0, 1, 2], 3), arrays([2, 1, 0], 1)
    for position, array in together.items():
        assert np.isfinite(array).all()
        assert array.shape[1] == representation.width
        assert len(array) == 3 or not representation.pooled
        if rate := representation.frames_a_second:
            assert abs(len(array) - audio.inspect(paths[position]).seconds * rate) <= 1
        assert np.abs(array - alone[position]).max() < 1e-3 * max(1.0, float(np.abs(array).max()))

    if representation.pooled:
        apart = open_representation(replace(representation.spec, keep="windows"), here())
        assert apart.key != representation.key
        assert open_representation(apart.spec, here()).key == apart.key
        for position, array in represent(apart, encoder, paths, CPU, 2):
            each = array.reshape(-1, 3, representation.width)  # (windows, 3, width)
            whole = together[position]
            near = 1e-3 * max(1.0, float(np.abs(whole).max()))
            assert np.abs(each[:, 2].max(axis=0) - whole[2]).max() < near
            assert (each[:, 0].min(axis=0) - near <= whole[0]).all()
            assert (each[:, 0].max(axis=0) + near >= whole[0]).all()
            if len(each) == 1:
                assert np.abs(each[0] - whole).max() < near
    else:
        with pytest.raises(MgcError, match="keeps every frame"):
            open_representation(replace(representation.spec, keep="windows"), here())


def test_windows_are_kept_in_their_order(tmp_path: Path) -> None:
    """Loudness rises from window to window; batches of two cut across both clips."""
    card = open_representation(
        ModelSpec(str(save_tiny("wav2vec2", tmp_path / "encoder")), keep="windows"), here()
    )
    window = card.cut.window
    samples = np.concatenate([k * np.ones(window) for k in (0.1, 0.2, 0.3, 0.4)])
    rate = card.cut.sample_rate_hz
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, samples, rate, subtype="FLOAT")

    def loudness(waveforms: torch.Tensor, *_: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        frames = waveforms[:, :: window // 10, None].expand(-1, -1, card.width)
        return [frames], torch.ones(frames.shape[:2])

    done = dict(represent(card, loudness, [tmp_path / "a.wav", tmp_path / "b.wav"], CPU, 3))
    for array in done.values():
        assert array[0::3, 0] == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=1e-4)
        assert array[2::3, 0] == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=1e-4)


def test_layers_are_found_by_name() -> None:
    layers = (kinds.Layer("low", 3), kinds.Layer("high", 5))
    card = replace(logmel(), layers=layers)
    assert (card.width, card.layer_slice("low"), card.layer_slice("high")) == (8, slice(0, 3), slice(3, 8))
    assert card.layer_slice("last") == slice(3, 8)
    with pytest.raises(MgcError, match="no layer 'hihg'") as caught:
        card.layer_slice("hihg")
    assert "did you mean 'high'" in str(caught.value)


def test_what_decides_the_numbers_decides_the_key() -> None:
    card = logmel()
    same = replace(
        card,
        name="x",
        spec=ModelSpec("y", random_seed=3),
        source="z",
        licence="-",
        trained_on="-",
        parameters=1,
        pool="mean",
    )
    assert same.key == card.key
    others = [
        replace(card, weights="other"),
        replace(card, revision=2),
        replace(card, layers=(kinds.Layer("logmel", 64),)),
        replace(card, pooled=True),
        replace(card, dtype="float32"),
        replace(card, spec=ModelSpec("logmel", keep="windows")),
        replace(card, steps=(("stretch", 1),)),
        replace(card, cut=replace(card.cut, window=card.cut.window + 1)),
        replace(card, cut=replace(card.cut, ignore=1)),
    ]
    assert len({card.key, *(other.key for other in others)}) == 1 + len(others)
