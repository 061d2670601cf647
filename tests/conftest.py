"""Shared fixtures: small real-sounding audio made on the spot, and the folders of a test of its own."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mgc.util.compiled import prepare_librosa
from mgc.workspace import Workspace

# Many small computations: a second thread would mostly wait for a core that other work holds.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that runs the tests in the background has SIGINT ignored, and so would have every child of theirs.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests call librosa themselves.
prepare_librosa()

SHARED = Path(os.environ.get("MGC_SHARED") or Path(__file__).parents[2] / "shared")
needs_emotify = pytest.mark.skipif(
    not (SHARED / "data/emotify/tracks.csv").exists(), reason="needs the Emotify clips in ../shared"
)
needs_whisper = pytest.mark.skipif(
    not (SHARED / "weights/whisper-tiny.en-encoder").exists(), reason="needs the Whisper encoder in ../shared"
)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing a test does lands in the checkout, and no hub is asked."""
    for name in ("MGC_EMBEDDINGS_CACHE", "MGC_RESULTS", "MGC_DATA_ROOT", "MGC_QUARANTINE"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.delenv("MGC_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def here() -> Workspace:
    """The folders of the test that runs."""
    return Workspace.from_environment()


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Root may read and write anything; so for a moment not root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def tone(genre: int, seconds: float, rate: int, seed: int) -> np.ndarray:
    """(samples,) float32: a chord with vibrato or a pulse, told apart by genre, different by seed."""
    rng = np.random.default_rng([genre, seed])
    t = np.arange(int(seconds * rate)) / rate
    base = 220 * 2 ** (rng.integers(0, 12) / 12)
    if genre == 0:
        wave = sum(np.sin(2 * np.pi * base * k * t) / k for k in (1, 2, 3))
    else:
        wave = rng.standard_normal(len(t)) * (np.floor(t * (3 + genre)) % 2)
    return (0.2 * wave + 0.01 * rng.standard_normal(len(t))).astype(np.float32)


def write_music(root: Path, seconds: float) -> Path:
    """Write root/<genre>/<file>: two genres, "calm" and "pulse", with 10 wav files each; returns `root`."""
    for genre, name in enumerate(("calm", "pulse")):
        (root / name).mkdir(parents=True)
        for number in range(10):
            soundfile.write(root / name / f"{number}.wav", tone(genre, seconds, 16_000, number), 16_000)
    return root


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """A folder root/<genre>/<file> of two genres with 10 wav files of 3 s each."""
    return write_music(tmp_path / "music", 3.0)


@pytest.fixture
def tiny_encoder(tmp_path: Path) -> Path:
    """A random wav2vec2 of a few thousand weights, saved as transformers saves it."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=(8, 8),
        conv_kernel=(10, 8), conv_stride=(5, 64), num_feat_extract_layers=2, num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    folder = tmp_path / "tiny-wav2vec2"
    Wav2Vec2Model(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=16_000).save_pretrained(folder)
    return folder
