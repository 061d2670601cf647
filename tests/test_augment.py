"""Augmentation: each effect changes its input by its strength, and in no other way."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import tone

from mgc.config import AugmentRecipe
from mgc.representations import Representation
from mgc.representations.derived import variant, variants
from mgc.representations.features.logmel import HOP, logmel
from mgc.representations.pooling import represent
from mgc.training.augment import NOISE, Augment
from mgc.util.errors import MgcError

CPU = torch.device("cpu")
CUT = logmel().cut
CLASSES = ("Electronic", "Experimental", "Folk")
T = 200
CROPS = torch.randn(64, 1, T, 100, generator=torch.Generator().manual_seed(1))


def augment(**recipe: object) -> Augment:
    return Augment(AugmentRecipe(**recipe), CLASSES)


def applied(
    effects: Augment, batch: torch.Tensor = CROPS, strong: bool = False, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    before, labels = batch.clone(), torch.arange(len(batch)) % 3
    out, targets = effects.apply(batch, labels, np.full(len(batch), strong), np.random.default_rng(seed))
    assert torch.equal(batch, before)
    assert (out.shape, out.dtype) == (batch.shape, batch.dtype)
    assert torch.allclose(targets.sum(1), torch.ones(len(batch)))
    assert effects.recipe.mixup or torch.equal(targets, torch.eye(3)[labels])
    return out, targets


def masked(after: torch.Tensor) -> list[np.ndarray]:
    """Shares of frames and of bands that are 0, (B,) each."""
    zero = after[:, 0] == 0
    return [zero.all(axis).float().mean(1).numpy() for axis in (2, 1)]


def test_nothing_is_the_identity() -> None:
    nothing = augment(pitch=[2], stretch=[0.9], choose="one")
    assert nothing.nothing
    assert torch.equal(applied(nothing)[0], CROPS)
    rows, strong = nothing.order(np.arange(50) % 3, np.random.default_rng(0))
    assert sorted(rows) == list(range(50)) != list(rows)
    assert not strong.any()
    assert not any(augment(**{effect: 0.1}).nothing for effect in ("noise", "shift", "mask", "mixup"))


def test_noise_has_its_deviation() -> None:
    change, other = (applied(augment(noise=0.3), seed=seed)[0] - CROPS for seed in (0, 1))
    assert abs(change.mean()) < 0.003
    assert [one.std().item() for one in change] == pytest.approx([0.3] * 64, rel=0.05)
    assert all(abs(np.corrcoef(change[0].ravel(), x.ravel())[0, 1]) < 0.05 for x in (change[1], other[0]))


def test_shift_is_a_roll_to_both_sides() -> None:
    after, _ = applied(augment(shift=0.2))
    pairs = list(zip(CROPS[:, 0], after[:, 0], strict=True))
    by = [k for old, new in pairs for k in range(-T // 2, T // 2) if torch.equal(old.roll(k, 0), new)]
    assert len(by) == len(CROPS)
    assert -0.2 * T <= min(by) < -0.12 * T < 0.12 * T < max(by) <= 0.2 * T


def test_masks_blank_one_run_of_frames_and_of_bands() -> None:
    after, _ = applied(augment(mask=0.3))
    assert all(share.max() <= 0.3 and 0.1 < share.mean() < 0.2 for share in masked(after))
    zero = after[:, 0] == 0
    assert torch.equal(zero, zero.all(2, keepdim=True) | zero.all(1, keepdim=True))
    assert torch.equal(after[:, 0][~zero], CROPS[:, 0][~zero])
    assert zero.all(2).int().diff(dim=1).abs().sum(1).max() == 2


def test_mixup_mixes_targets_as_it_mixes_crops() -> None:
    many, alpha, values = 4000, 0.4, torch.arange(3).float()
    batch = values[torch.arange(many) % 3, None, None, None].expand(many, 1, 2, 2)  # full of its class
    after, targets = applied(augment(mixup=alpha), batch)
    assert torch.allclose(after, (targets @ values)[:, None, None, None].expand_as(after), atol=1e-5)
    weights = targets[torch.arange(many), torch.arange(many) % 3].numpy()
    mixed = weights[weights < 1]  # whose partner is of another class
    assert len(mixed) / many == pytest.approx(2 / 3, abs=0.06)
    assert mixed.mean() == pytest.approx(0.5, abs=0.03)
    assert mixed.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)  # the Beta distribution's


def test_one_effect_or_none_in_equal_shares() -> None:
    batch = torch.randn(3000, 1, 60, 10, generator=torch.Generator().manual_seed(0))
    after = applied(augment(noise=0.1, mask=0.5, choose="one"), batch)[0]
    changed = after != batch
    masked_only = (after[changed.any((1, 2, 3))] == 0).any(1).any(1).any(1).sum().item()
    shares = [(~changed.any(3).any(2).any(1)).sum().item(), masked_only, changed.all((1, 2, 3)).sum().item()]
    assert [share / 3000 for share in shares] == pytest.approx([1 / 3] * 3, abs=0.04)


def test_the_same_generator_gives_the_same_crops() -> None:
    effects = augment(noise=0.1, shift=0.1, mask=0.1, mixup=0.2)
    first, again, other = (applied(effects, seed=seed) for seed in (5, 5, 6))
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(first, other, strict=True))


@pytest.mark.parametrize("noise", [0.0, 0.15])
def test_strong_crops_get_every_effect_and_more_of_it(noise: float) -> None:
    plain = {"noise": noise, "shift": 0.05, "mask": 0.02, "choose": "one"}
    effects = augment(**plain, strong_class="Folk", strong_factor=2.0)
    batch = torch.ones_like(CROPS)
    batch[:, :, 0] = 1000.0  # tells where the first frame has gone
    after, _ = applied(effects, batch, strong=True)
    assert all(0.05 <= share.min() < share.max() <= 0.1 for share in masked(after))
    assert (after[(after != 0) & (after < 500)] - 1).std() == pytest.approx(2 * (noise or NOISE), rel=0.02)
    first, place = after[:, 0].amax(2).max(1)
    by = (place[first > 500] + T // 2) % T - T // 2
    assert 0.1 * T < by.abs().max() <= 0.15 * T
    assert max(share.max() for share in masked(applied(effects)[0])) <= 0.02


def test_the_strong_class_comes_more_often() -> None:
    labels, effects = np.repeat([0, 1, 2], [30, 20, 10]), augment(strong_class=CLASSES[1], strong_factor=1.5)
    rows, strong = effects.order(labels, np.random.default_rng(0))
    assert sorted(rows[~strong]) == list(range(60))
    assert len(set(rows[strong])) == strong.sum() == 10
    assert set(labels[rows[strong]]) == {1}
    assert not strong[-10:].all()  # shuffled among the others


def test_strong_settings_without_an_effect_are_refused() -> None:
    with pytest.raises(MgcError, match="no class 'experimental'"):
        augment(strong_class="experimental", strong_factor=1.5)
    with pytest.raises(MgcError, match=r"no effect without strong_class"):
        augment(strong_factor=1.5)
    with pytest.raises(MgcError, match=r"no effect with strong_factor = 1"):
        augment(strong_class="Folk")


# --- pitch and stretch ------------------------------------------------------------------------------------


def frames(card: Representation, folder: Path, *clips: np.ndarray) -> list[np.ndarray]:
    """The arrays of clips, one window at a time and so in order."""
    paths = [folder / f"{number}.wav" for number in range(len(clips))]
    for path, samples in zip(paths, clips, strict=True):
        soundfile.write(path, samples, CUT.sample_rate_hz, subtype="FLOAT")
    return [array for _, array in represent(card, card.load(CPU), paths, CPU, batch_size=1)]


def test_published_noise_changes_no_more_than_rounding_does_and_ours_a_hundredfold(tmp_path: Path) -> None:
    [decibels] = frames(logmel(), tmp_path, tone(1, 5, CUT.sample_rate_hz, 0))
    noise = np.random.default_rng(0).normal(0, 0.005, decibels.shape)
    rounded = decibels.astype(np.float16).astype(np.float32)  # as the store keeps it
    plain, kept, published = ((x - x.mean()) / x.std() for x in (decibels, rounded, decibels + noise))
    ours = applied(augment(noise=0.2), torch.from_numpy(kept)[None, None])[0].numpy() - kept
    assert (published - plain).std() < 2 * (kept - plain).std() < 1e-3
    assert ours.std() > 100 * (published - plain).std()


def test_pitch_moves_a_tone_by_an_octave_and_stretch_halves_the_frames(tmp_path: Path) -> None:
    seconds = np.arange(4 * CUT.sample_rate_hz) / CUT.sample_rate_hz
    low, high = (0.3 * np.sin(2 * np.pi * hertz * seconds) for hertz in (440, 880))
    plain, octave = frames(logmel(), tmp_path, low, high)
    [up] = frames(variant(logmel(), semitones=12), tmp_path, low)
    [fast] = frames(variant(logmel(), rate=2.0), tmp_path, low)
    peaks = [int(x.mean(axis=0).argmax()) for x in (plain, fast, octave, up)]
    assert peaks[0] == peaks[1] < peaks[2] == peaks[3]
    assert (len(up), len(fast)) == (len(plain), len(plain) // 2 + 1)


@pytest.mark.parametrize("rate", [0.9, 1.1])
def test_every_length_has_its_frames_and_each_event_its_place(rate: float, tmp_path: Path) -> None:
    window = round(CUT.window * rate)
    card = variant(logmel(), rate=rate)
    for length in (CUT.sample_rate_hz // 2, window - 1, window, window + 1, window + 9 * HOP):
        samples = 1e-4 * np.random.default_rng(0).standard_normal(length)
        clicks = [at for at in (length // 2, window - 5000, window + 2000) if at < length]
        samples[clicks] = 1.0
        [array] = frames(card, tmp_path, samples)
        assert abs(len(array) - (1 + length / rate / HOP)) <= 1
        loud = array.mean(axis=1) - np.median(array)
        for near in (round(at / rate / HOP) for at in clicks):
            assert loud[near - 2 : near + 3].max() > 10
            assert loud[near - 8 : near - 5].max() < 5


def test_variants_are_cards_of_their_own_and_make_sense() -> None:
    cards = [logmel(), *variants(logmel(), AugmentRecipe(pitch=[2, -2], stretch=[0.9]))]
    assert [card.name for card in cards[1:]] == ["logmel pitch +2", "logmel pitch -2", "logmel stretch 0.9"]
    assert len({card.key for card in cards}) == 4
    nonsense = [{"pitch": [0]}, {"pitch": [2, 2.0]}, {"pitch": [200]}, {"stretch": [-1]}, {"stretch": [1]}]
    for recipe in nonsense:
        with pytest.raises(MgcError, match=r"change nothing|twice|out of range"):
            variants(logmel(), AugmentRecipe(**recipe))
    with pytest.raises(MgcError, match="keeps no frames"):
        variant(replace(logmel(), pooled=True), 2)
