"""Representations derived from another one: per window, in bfloat16, altered, at another pitch or speed."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mgc.audio import Windowing, effects
from mgc.audio.effects import Alteration
from mgc.config import AugmentRecipe
from mgc.representations.card import Encoder, Representation
from mgc.representations.features.librosa_features import side_by_side
from mgc.util.errors import MgcError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mgc.representations.card import Encoded

# Raised by hand when the numbers of a derived representation change.
STRETCH_REVISION = 1
BFLOAT16_REVISION = 1

MAX_SEMITONES, MIN_RATE, MAX_RATE = 24.0, 0.25, 4.0
# The stretcher works on blocks of 0.12 s; samples this close to the end of a window are discarded.
CONTEXT_SECONDS = 0.15


def _derived(
    card: Representation, label: str, step: tuple[str, int] | None, **changes: Any
) -> Representation:
    """`card` with `label` behind its name; `changes` are fields of its spec."""
    steps = (*card.steps, step) if step else card.steps
    return replace(card, name=f"{card.name} {label}", spec=replace(card.spec, **changes), steps=steps)


def per_window(card: Representation) -> Representation:
    """The same representation, with statistics of each window instead of the whole clip.

    Raises:
        MgcError: the representation keeps all frames already.
    """
    if not card.pooled:
        what = f"{card.name} keeps every frame of a clip: it has no windows to keep"
        raise MgcError(what, where="--keep windows", fix="omit --keep, or name an encoder")
    return _derived(card, "windows", None, keep="windows")


def altered(card: Representation, alteration: Alteration) -> Representation:
    """The same representation of altered clips. It has no encoder of its own: `mgc robust` alters the files
    and gives them to the encoder of `card`."""

    def refuse(device: "torch.device") -> Encoder:
        what = f"{alteration.label}: altered clips are only used to evaluate models, not to train them"
        raise MgcError(what, fix=f"mgc robust --only {alteration.text}")

    step = ("alteration", effects.REVISION)
    return replace(_derived(card, alteration.label, step, alteration=alteration), load=refuse)


# ---- bfloat16 ---------------------------------------------------------------------------------------------


def in_bfloat16(card: Representation) -> Representation:
    """The same encoder with weights and activations in bfloat16; front end and pooling stay in float32.

    It is a representation of its own, since its embeddings differ by about 1e-3 from those in float32: what a
    name stands for must not depend on the machine that computed it.

    Raises:
        MgcError: the representation is a feature without weights.
    """
    if not card.weights:
        what = f"{card.name} has no weights that could be converted to bfloat16"
        raise MgcError(what, where="--precision bfloat16", fix="omit --precision")
    derived = _derived(card, "bfloat16", ("bfloat16", BFLOAT16_REVISION), precision="bfloat16")
    return replace(derived, load=partial(_load_bfloat16, card.load, card.name))


def _load_bfloat16(load: Callable[["torch.device"], Encoder], name: str, device: "torch.device") -> Encoder:
    """Raises:
    MgcError: the device only emulates bfloat16, many times slower.
    """
    import torch

    from mgc.util.devices import precision_of

    dtype = precision_of("bfloat16", device)
    encoder = load(device)
    model = getattr(encoder, "model", None)
    if not isinstance(model, torch.nn.Module):
        raise MgcError(f"{name} has no torch module to convert to bfloat16", fix="omit --precision")
    model.to(dtype)

    def cast(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    def before(module: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return tuple(map(cast, arguments)), {key: cast(value) for key, value in named.items()}

    for entry in (model, *model.children()):  # CLAP's towers are called one by one
        entry.register_forward_pre_hook(before, with_kwargs=True)
    return encoder


# ---- pitch and speed --------------------------------------------------------------------------------------
#
# Signalsmith Stretch (MIT, as `python-stretch`) takes 0.2 s for 30 s of audio on one core. Compared with
# librosa.effects on real clips it needs two thirds of the time, keeps clicks in place (librosa: up to 30 ms
# off) and attacks sharp (librosa: three quarters), and two semitones up and down again leave the log-mel 1 dB
# off (librosa: 7 dB). It holds Python's lock, so windows are processed in parallel processes.


def variants(representation: Representation, recipe: AugmentRecipe) -> list[Representation]:
    """A representation for each of the recipe's pitches and speeds, in this order.

    Raises:
        MgcError: as `variant`, or a value is given twice.
    """
    cards = [variant(representation, semitones=semitones) for semitones in recipe.pitch]
    cards += [variant(representation, rate=rate) for rate in recipe.stretch]
    for card in cards:
        if cards.count(card) > 1:
            raise MgcError(f"{card.name} is given twice", where="augment", fix="give each value once")
    return cards


def variant(representation: Representation, semitones: float = 0.0, rate: float = 1.0) -> Representation:
    """The same representation of each clip transposed by `semitones` and played at `rate` times its speed.

    At a rate of 2.0 a clip has half the frames. The stretcher starts anew in each window (30 s of log-mel),
    so frames of longer clips differ by half a decibel from those of a clip that is stretched as a whole.

    Raises:
        MgcError: no change, a change beyond the supported range, or a representation that keeps no frames.
    """
    if representation.pooled:
        what = f"{representation.name} keeps no frames to train on: pitch and stretch cannot vary it"
        raise MgcError(what, where="augment", fix="omit them, or use a representation like logmel")
    if not -MAX_SEMITONES <= semitones <= MAX_SEMITONES:
        fix = f"at most {MAX_SEMITONES:g} semitones up or down"
        raise MgcError(f"pitch {semitones:+g} is out of range", where="augment.pitch", fix=fix)
    if not MIN_RATE <= rate <= MAX_RATE:
        fix = f"speeds are {MIN_RATE:g} to {MAX_RATE:g}; 1.1 is 10 % faster"
        raise MgcError(f"stretch {rate:g} is out of range", where="augment.stretch", fix=fix)
    if semitones == 0 and rate == 1:
        what = "pitch 0 and stretch 1 change nothing: the unchanged track is always used"
        raise MgcError(what, where="augment", fix="omit them")
    label = " ".join([f"pitch {semitones:+g}"] * (semitones != 0) + [f"stretch {rate:g}"] * (rate != 1))
    step = ("stretch", STRETCH_REVISION)
    derived = _derived(
        representation, label, step, pitch_semitones=float(semitones), stretch_rate=float(rate)
    )
    cut = _stretched(representation.cut, rate)
    return replace(derived, cut=cut, load=partial(_Varied, representation, cut, semitones, rate))


def _stretched(cut: Windowing, rate: float) -> Windowing:
    """Windows that become those of `cut` at `rate`, with context for the stretcher on both sides."""
    extra = CONTEXT_SECONDS * cut.sample_rate_hz
    left, right = (round((side + extra) * rate) for side in (cut.left, cut.right))
    return replace(cut, window=round(cut.window * rate), left=left, right=right)


class _Varied:
    """The encoder of `inner` behind a stretcher: it receives windows of the lengths that it expects."""

    def __init__(
        self, inner: Representation, cut: Windowing, semitones: float, rate: float, device: "torch.device"
    ) -> None:
        self.encode: Encoder = inner.load(device)
        self.outer, self.inner = cut, inner.cut
        self.semitones, self.rate = semitones, rate

    def __call__(self, waveforms: "Tensor", covered: "Tensor", real: "Tensor") -> "Encoded":
        import torch

        samples = waveforms.shape[1] - self.outer.left - self.outer.right
        length = self.inner.window if samples == self.outer.window else round(samples / self.rate)
        ends = (self.outer.left + real + self.outer.right).tolist()  # behind them is only padding
        parts = [part[:end] for part, end in zip(waveforms.cpu().numpy(), ends, strict=True)]
        changed = np.zeros((len(parts), self.inner.left + length + self.inner.right), np.float32)
        begin = round(self.outer.left / self.rate) - self.inner.left  # discarded at the start
        stretch = partial(_stretch, self.outer.sample_rate_hz, self.semitones, self.rate)
        for row, part in zip(changed, side_by_side(stretch, parts), strict=True):
            row[: len(part) - begin] = part[begin : begin + len(row)]
        covered, real = ((x / self.rate).round().long().clamp_max(length) for x in (covered, real))
        return self.encode(torch.from_numpy(changed).to(waveforms.device), covered, real)


def _stretch(sample_rate_hz: int, semitones: float, rate: float, samples: np.ndarray) -> np.ndarray:
    """(n,) to (round(n / rate),), both at `sample_rate_hz`."""
    from python_stretch.Signalsmith import Stretch

    stretch = Stretch(0)  # the seed: the same clip always gives the same samples
    stretch.preset(1, sample_rate_hz)
    stretch.setTransposeSemitones(semitones)
    stretch.setTimeFactor(rate)
    return np.asarray(stretch.process(samples[np.newaxis]))[0]
