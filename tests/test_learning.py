"""Networks, heads and the training loop, on arrays made here."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mgc import train as training
from mgc.config import MgcError, TrainRecipe
from mgc.device import make_accelerator
from mgc.heads import HEADS, fit_head
from mgc.models import NETWORKS, count_parameters, make_network
from mgc.train import Epoch, Spectrograms, Trained, predict, train

CROP = 48


def spectrograms(count: int, seed: int, frames: int = 60) -> Spectrograms:
    """Two classes: energy in the lower or in the upper bands."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    arrays = []
    for label in labels:
        array = rng.normal(-40, 5, (frames + int(rng.integers(0, 9)), 64)).astype(np.float16)
        array[:, 32 * label : 32 * label + 32] += 20
        arrays.append(array)
    return Spectrograms.of(arrays, labels.tolist())


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_take_any_length_and_number_of_classes(name: str) -> None:
    for classes, frames in ((2, 32), (10, 216), (7, 1292)):
        network = make_network(name, classes, 0.1)
        assert network(torch.zeros(2, 1, frames, 128)).shape == (2, classes)
    assert count_parameters(network) > 1000


def test_an_unknown_network_or_head_is_named() -> None:
    with pytest.raises(MgcError, match="no network 'cn'") as caught:
        make_network("cn", 2, 0.0)
    assert "cnn" in str(caught.value)
    vectors = np.zeros((4, 2)), np.array([0, 1, 0, 1])
    with pytest.raises(MgcError, match="no head") as caught:
        fit_head("logistics", vectors, vectors, 0)
    assert "logistic" in str(caught.value)


def run(folder: Path, stop_after: int | None = None, **recipe: int) -> Trained:
    reported: list[Epoch] = []

    def report(line: Epoch) -> None:
        reported.append(line)
        if stop_after is not None and len(reported) == stop_after:
            raise KeyboardInterrupt

    done = train(
        lambda: make_network("cnn", 2, 0.25),
        (spectrograms(24, 1), spectrograms(8, 2)),
        TrainRecipe(**{"epochs": 6, "patience": 6, "batch_size": 8} | recipe),
        crop_frames=CROP,
        seed=5,
        device="cpu",
        checkpoint=folder / "checkpoint",
        report=report,
    )
    assert reported == done.history
    return done


def curve(done: Trained) -> list[tuple[float, ...]]:
    return [(line.train_loss, line.train_accuracy, line.val_loss, line.val_accuracy) for line in done.history]


def test_training_learns_and_is_the_same_twice(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    first, second = run(tmp_path / "a", epochs=40, patience=40), run(tmp_path / "b", epochs=40, patience=40)
    assert curve(first) == curve(second)
    for one, other in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(one, other)
    test = spectrograms(20, 3)
    probabilities = predict(first.network, test, CROP, make_accelerator("cpu"))
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert (probabilities.argmax(axis=1) == test.labels).mean() > 0.9


def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    undisturbed = run(tmp_path / "a")
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", stop_after=4)
    resumed = run(tmp_path / "b")
    assert curve(resumed) == curve(undisturbed)
    for one, other in zip(resumed.network.parameters(), undisturbed.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_training_stops_early_and_keeps_the_best_weights(tmp_path: Path) -> None:
    done = run(tmp_path, epochs=100, patience=2)
    losses = [line.val_loss for line in done.history]
    assert len(done.history) < 100
    assert done.best_epoch == int(np.argmin(losses)) == len(losses) - 1 - 2
    best = predict(done.network, spectrograms(8, 2), CROP, make_accelerator("cpu"))
    truth = best[np.arange(8), np.arange(8) % 2]
    assert -np.log(truth).mean() == pytest.approx(losses[done.best_epoch], rel=1e-5)


def test_prediction_covers_the_whole_track_and_takes_short_ones() -> None:
    class Position(torch.nn.Module):
        """Logits that give away which crop was seen."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x[:, 0, :, 0].amax(dim=1), torch.zeros(len(x))], dim=1)

    quiet = np.zeros((3 * CROP + 7, 8), np.float32)
    for place in (0, CROP, 3 * CROP + 6):
        loud = quiet.copy()
        loud[place, 0] = 1.0
        tracks = Spectrograms.of([quiet + 1e-6, loud, loud[: CROP // 2]], [0, 1, 1])
        silent, seen, _ = predict(Position(), tracks, CROP, make_accelerator("cpu"))
        assert seen[0] > silent[0] + 0.1


def test_a_constant_track_becomes_zeros_not_nan() -> None:
    tracks = Spectrograms.of([np.full((50, 8), -80, np.float16)], [0])
    assert (tracks.crop(0, 0, 60) == 0).all()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_a_device_that_is_not_here_is_an_error() -> None:
    with pytest.raises(MgcError, match="no cuda device"):
        make_accelerator("cuda")


def clouds(count: int, seed: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = np.random.default_rng(0).normal(0, 1.2, (classes, 6))
    return (centres[labels] + rng.normal(0, 1, (count, 6))).astype(np.float32), labels


@pytest.mark.parametrize("name", HEADS)
def test_heads_learn_and_are_the_same_twice(name: str) -> None:
    train_side, val, test = clouds(90, 1), clouds(30, 2), clouds(60, 3)
    first, second = fit_head(name, train_side, val, 0), fit_head(name, train_side, val, 0)
    probabilities = first.probabilities(test[0], 3)
    assert np.array_equal(probabilities, second.probabilities(test[0], 3))
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert (probabilities.argmax(axis=1) == test[1]).mean() > 0.7
    assert first.strength == min(first.tried, key=lambda s: first.tried[s])


@pytest.mark.parametrize("name", HEADS)
def test_heads_standardise_by_the_training_side_only(name: str) -> None:
    train_side, val = clouds(60, 1), clouds(30, 2)
    scaler = fit_head(name, train_side, val, 0).classifier[0]
    assert np.allclose(scaler.mean_, train_side[0].mean(axis=0), atol=1e-5)


def test_a_class_missing_on_the_training_side_gets_no_probability() -> None:
    vectors, labels = clouds(60, 1)
    learned = labels != 1
    fit = fit_head("logistic", (vectors[learned], labels[learned]), (vectors[:20], labels[:20]), 0)
    assert (fit.probabilities(vectors, 3)[:, 1] == 0).all()


def test_constant_features_do_no_harm() -> None:
    vectors, labels = clouds(60, 1)
    dull = np.hstack([vectors, np.full((60, 3), 1e-9, np.float32)])
    fit = fit_head("logistic", (dull, labels), (dull, labels), 0)
    assert np.isfinite(fit.probabilities(dull, 3)).all()
