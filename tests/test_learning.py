"""Networks and the training loop, on synthetic arrays."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mgc.config import AugmentRecipe, TrainRecipe
from mgc.training import loop as training
from mgc.training.augment import Augment
from mgc.training.loop import Epoch, TrackSet, Trained, predict, train
from mgc.training.networks import make_network
from mgc.util import devices as device
from mgc.util.devices import make_accelerator, precision_of
from mgc.util.errors import MgcError

CROP = 48


def spectrograms(count: int, seed: int, frames: int = 60) -> TrackSet:
    """Two classes: energy in the lower or in the upper bands."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    arrays = []
    for label in labels:
        array = rng.normal(-40, 5, (frames + int(rng.integers(0, 9)), 64)).astype(np.float16)
        array[:, 32 * label : 32 * label + 32] += 20
        arrays.append(array)
    return TrackSet.of(arrays, labels.tolist())


def test_an_unknown_network_is_an_error() -> None:
    with pytest.raises(MgcError, match="unknown network 'cn'") as caught:
        make_network("cn", 2, 64, CROP)
    assert "cnn" in str(caught.value)


def run(
    folder: Path, stop_after: int | None = None, augment: AugmentRecipe | None = None, **recipe: object
) -> Trained:
    reported: list[Epoch] = []

    def report(line: Epoch) -> None:
        reported.append(line)
        if stop_after is not None and len(reported) == stop_after:
            raise KeyboardInterrupt

    done = train(
        lambda: make_network("cnn", 2, 64, CROP),
        spectrograms(24, 1),
        spectrograms(8, 2),
        TrainRecipe.model_validate({"epochs": 6, "patience": 6, "batch_size": 8} | recipe),
        crop_frames=CROP,
        seed=5,
        device="cpu",
        checkpoint=folder / "checkpoint",
        report=report,
        augment=Augment(augment, ("low", "high")) if augment else None,
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


RECIPES: dict[str, dict[str, object]] = {
    "plain": {},
    "onecycle": {
        **{"optimizer": "adamw", "weight_decay": 0.03, "beta2": 0.98, "scheduler": "onecycle"},
        **{"label_smoothing": 0.1, "clip_norm": 0.5, "init": "xavier", "crops": 2},
    },
    "plateau": {"scheduler": "plateau", "scheduler_patience": 0, "stop_on": "accuracy"},
    "cosine": {"scheduler": "cosine", "warmup": 0.2, "augment": AugmentRecipe(noise=0.3, mixup=0.4)},
}


@pytest.mark.parametrize("name", RECIPES)
def test_an_interrupted_training_resumes_with_the_same_result(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    undisturbed = run(tmp_path / "a", **RECIPES[name])
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", stop_after=4, **RECIPES[name])
    resumed = run(tmp_path / "b", **RECIPES[name])
    assert curve(resumed) == curve(undisturbed)
    for one, other in zip(resumed.network.parameters(), undisturbed.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_every_setting_of_a_recipe_changes_the_training(tmp_path: Path) -> None:
    changes: list[dict[str, object]] = [
        {}, {"weight_decay": 0.5}, {"optimizer": "adamw", "weight_decay": 0.5}, {"beta1": 0.5},
        {"beta2": 0.9},
        {"label_smoothing": 0.2}, {"clip_norm": 1e-3}, {"init": "xavier"}, {"crops": 2}, {"batch_size": 4},
        {"scheduler": "onecycle"}, {"scheduler": "onecycle", "warmup": 0.5}, {"scheduler": "cosine"},
        {"augment": AugmentRecipe(noise=0.5)},
        {"augment": AugmentRecipe(strong_class="low", strong_factor=2.0)},
    ]  # fmt: skip
    curves = set()
    for number, change in enumerate(changes):
        (tmp_path / str(number)).mkdir()
        curves.add(tuple(curve(run(tmp_path / str(number), epochs=2, **change))))
    assert len(curves) == len(changes)


def rates(done: Trained) -> np.ndarray:
    return np.array([line.learning_rate for line in done.history])


def test_schedules(tmp_path: Path) -> None:
    for name in ("one", "cosine", "plateau"):
        (tmp_path / name).mkdir()
    one = rates(run(tmp_path / "one", epochs=10, patience=10, scheduler="onecycle", warmup=0.3))
    assert one.argmax() == 2  # three tenths of ten epochs rise
    assert one.max() == pytest.approx(2e-3, rel=0.01)
    assert one[-1] < 1e-6
    cosine = rates(run(tmp_path / "cosine", epochs=10, patience=10, scheduler="cosine", warmup=0.2))
    assert cosine.argmax() == 1
    assert (np.diff(cosine[1:]) < 0).all()
    assert cosine[-1] == pytest.approx(0, abs=1e-9)
    done = run(
        tmp_path / "plateau", epochs=12, patience=12, stop_on="accuracy", scheduler="plateau",
        scheduler_patience=1, learning_rate=1e-4,
    )  # fmt: skip
    best, stale, expected = 0.0, 0, 1e-4
    for line in done.history:
        stale = 0 if line.val_accuracy > best else stale + 1
        best = max(best, line.val_accuracy)
        if stale > 1:
            expected, stale = max(expected / 10, 1e-8), 0  # torch goes no lower
        assert line.learning_rate == pytest.approx(expected)
    assert expected < 1e-4


def test_stopping_on_accuracy_keeps_the_most_accurate_epoch(tmp_path: Path) -> None:
    done = run(tmp_path, epochs=30, patience=4, stop_on="accuracy")
    best = max(done.history, key=lambda line: (line.val_accuracy, -line.val_loss))
    assert done.best_epoch == best.epoch


def test_a_loss_that_diverges_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MgcError, match="not finite") as caught:
        run(tmp_path, epochs=20, patience=20, learning_rate=1e30)
    assert "learning_rate" in str(caught.value)


def test_half_precision_only_where_the_device_computes_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = torch.device("cpu")
    monkeypatch.setattr(device, "_half_types", lambda _: set())
    assert precision_of("auto", here) == torch.float32
    with pytest.raises(MgcError, match="does not compute in bfloat16"):
        precision_of("bfloat16", here)
    monkeypatch.setattr(device, "_half_types", lambda _: {"bfloat16"})
    assert precision_of("auto", here) == torch.bfloat16
    (tmp_path / "half").mkdir(), (tmp_path / "whole").mkdir()
    half = run(tmp_path / "half", epochs=2, precision="auto")
    whole = run(tmp_path / "whole", epochs=2)
    assert half.history[0].train_loss != whole.history[0].train_loss
    assert half.history[0].train_loss == pytest.approx(whole.history[0].train_loss, rel=0.05)


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
        tracks = TrackSet.of([quiet + 1e-6, loud, loud[: CROP // 2]], [0, 1, 1])
        silent, seen, _ = predict(Position(), tracks, CROP, make_accelerator("cpu"))
        assert seen[0] > silent[0] + 0.1


def test_a_track_hardly_longer_than_a_crop_gets_a_single_crop() -> None:
    seen = []

    class Count(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            return torch.zeros(len(x), 2)

    predict(
        Count(), TrackSet.of([np.zeros((103, 4)), np.zeros((107, 4))], [0, 1]), 100, make_accelerator("cpu")
    )
    assert sum(seen) == 1 + 2


def test_normalisations() -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(-30, 7, (50, 4)).astype(np.float32) * np.arange(1, 5) for _ in range(3)]
    stacked = np.concatenate(arrays)

    def first(normalise: str, train_set: TrackSet | None = None) -> np.ndarray:
        side = TrackSet.of(
            arrays[:1] if train_set else arrays, [0] if train_set else [0, 1, 0], normalise, train_set
        )
        return side.batch([0], [0], 50, "cpu")[0, 0].numpy()

    own = arrays[0]
    assert np.allclose(first("none"), own)
    assert np.allclose(first("track"), (own - own.mean()) / own.std(), atol=1e-5)
    assert np.allclose(first("range"), (own - own.min()) / np.ptp(own), atol=1e-5)
    assert np.linalg.norm(first("l2")) == pytest.approx(1, rel=1e-5)
    expected = (own - stacked.mean(axis=0)) / stacked.std(axis=0)
    assert np.allclose(first("train"), expected, atol=1e-4)
    # A test set is normalised by the numbers of the training set, not its own.
    assert np.allclose(first("train", TrackSet.of(arrays, [0, 1, 0], "train")), expected, atol=1e-4)


def test_a_constant_track_becomes_zeros_not_nan_and_padding_is_zero() -> None:
    tracks = TrackSet.of([np.full((50, 8), -80, np.float16), np.full((60, 8), -80, np.float16)], [0, 0])
    assert (tracks.batch([0, 1], [0, 0], 60, "cpu") == 0).all()
    loud = TrackSet.of([np.arange(40, dtype=np.float16).reshape(10, 4)], [0], "none")
    assert (loud.batch([0], [4], 9, "cpu")[0, 0, 6:] == 0).all()


def test_crops_of_a_track_come_from_its_parts_and_variants_are_drawn(tmp_path: Path) -> None:
    """The network is shown where it is: the value of a frame is its place, the sign tells the variant."""
    shown: list[torch.Tensor] = []

    class Spy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                shown.extend(x[:, 0, 0, 0])
            return self.weight.expand(len(x), 2)

    place = np.repeat(np.arange(1, 91, dtype=np.float32)[:, None], 3, axis=1)
    side = TrackSet.of([place, place, -place, -place], [0, 1], "none")
    assert side.variants == 2
    other = TrackSet.of([place, place], [0, 1], "none")
    recipe = TrainRecipe(epochs=20, patience=20, crops=3, batch_size=2)
    train(
        Spy, side, other, recipe, crop_frames=1, seed=1, device="cpu", checkpoint=tmp_path / "c",
        report=lambda line: None,
    )  # fmt: skip
    firsts = np.array(shown).reshape(20, 6)
    parts = (np.abs(firsts) - 1) // 30
    assert all(sorted(epoch) == [0, 0, 1, 1, 2, 2] for epoch in parts.tolist())
    assert 0.3 < (firsts < 0).mean() < 0.7


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_a_device_that_is_not_here_is_an_error() -> None:
    with pytest.raises(MgcError, match="no cuda device"):
        make_accelerator("cuda")
