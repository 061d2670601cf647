"""Tracks at another pitch or speed: representations like the given one, of a waveform changed before.

Signalsmith Stretch (MIT, by way of `python-stretch`) does it, 0.2 s for 30 s of audio on one core. Against
librosa.effects on real clips it takes two thirds of the time, leaves clicks where they were (librosa: up
to 30 ms beside) and attacks as sharp (librosa: three quarters), and up two semitones and down again the
log-mel is 1 dB off (librosa: 7 dB). It holds Python's lock, so windows go to processes.
"""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mgc.audio import Windowing
from mgc.config import AugmentRecipe
from mgc.representations.card import Encoder, Representation
from mgc.representations.features.librosa_features import side_by_side
from mgc.util.errors import MgcError

if TYPE_CHECKING:
    import torch

REVISION = 1  # raised by hand when the stretcher gives other numbers
MOST_SEMITONES, SLOWEST, FASTEST = 24.0, 0.25, 4.0
# The stretcher works on blocks of 0.12 s; what stands so near to an end of a window is cut off.
CONTEXT_SECONDS = 0.15


def variants(representation: Representation, recipe: AugmentRecipe) -> list[Representation]:
    """A card for each of the recipe's pitches and speeds, in this order.

    Raises:
        MgcError: as `variant`, or the same one twice.
    """
    cards = [variant(representation, semitones=semitones) for semitones in recipe.pitch]
    cards += [variant(representation, rate=rate) for rate in recipe.stretch]
    for card in cards:
        if cards.count(card) > 1:
            raise MgcError(f"{card.name} is named twice", where="augment", fix="name each once")
    return cards


def variant(representation: Representation, semitones: float = 0.0, rate: float = 1.0) -> Representation:
    """The card of the same representation of each clip moved by `semitones` and played at `rate` times its
    speed: at 2.0 it has half the frames.

    The stretcher starts anew in each window, 30 s of log-mel. So frames of longer clips are half a decibel
    off those of a clip that is changed as a whole, at the joints no more than elsewhere.

    Raises:
        MgcError: no change at all, one that leaves no music, or a representation that keeps no frames.
    """
    if representation.pooled:
        what = f"{representation.name} keeps no frames to train on: pitch and stretch cannot vary it"
        raise MgcError(what, where="augment", fix="leave them out, or use a representation like logmel")
    if not -MOST_SEMITONES <= semitones <= MOST_SEMITONES:
        fix = f"at most {MOST_SEMITONES:g} semitones up or down"
        raise MgcError(f"pitch {semitones:+g} leaves no music", where="augment.pitch", fix=fix)
    if not SLOWEST <= rate <= FASTEST:
        fix = f"name speeds from {SLOWEST:g} to {FASTEST:g}; 1.1 is a tenth faster"
        raise MgcError(f"stretch {rate:g} leaves no music", where="augment.stretch", fix=fix)
    if semitones == 0 and rate == 1:
        what = "pitch 0 and stretch 1 change nothing: the track itself is always there"
        raise MgcError(what, where="augment", fix="leave them out")
    effect = f" pitch {semitones:+g}" * (semitones != 0) + f" stretch {rate:g}" * (rate != 1)
    cut = _longer(representation.cut, rate)
    return replace(
        representation,
        name=f"{representation.name}{effect}",
        cut=cut,
        effect=f"stretcher revision {REVISION}{effect}",
        load=partial(_Varied, representation, cut, semitones, rate),
    )


def _longer(cut: Windowing, rate: float) -> Windowing:
    """Windows that at `rate` become those of `cut`, with context for the stretcher on both sides."""
    extra = CONTEXT_SECONDS * cut.sample_rate_hz
    left, right = (round((side + extra) * rate) for side in (cut.left, cut.right))
    return replace(cut, window=round(cut.window * rate), left=left, right=right)


class _Varied:
    """The encoder of `inner` behind a stretcher: it sees windows of the lengths that it expects."""

    def __init__(
        self, inner: Representation, cut: Windowing, semitones: float, rate: float, device: "torch.device"
    ) -> None:
        self.encode: Encoder = inner.load(device)
        self.outer, self.inner = cut, inner.cut
        self.semitones, self.rate = semitones, rate

    def __call__(
        self, waveforms: "torch.Tensor", covered: "torch.Tensor", real: "torch.Tensor"
    ) -> tuple[list["torch.Tensor"], "torch.Tensor"]:
        import torch

        samples = waveforms.shape[1] - self.outer.left - self.outer.right
        length = self.inner.window if samples == self.outer.window else round(samples / self.rate)
        ends = (self.outer.left + real + self.outer.right).tolist()  # behind them is only padding
        parts = [part[:end] for part, end in zip(waveforms.cpu().numpy(), ends, strict=True)]
        changed = np.zeros((len(parts), self.inner.left + length + self.inner.right), np.float32)
        begin = round(self.outer.left / self.rate) - self.inner.left  # what is cut off in front
        change = partial(_changed, self.outer.sample_rate_hz, self.semitones, self.rate)
        for row, part in zip(changed, side_by_side(change, parts), strict=True):
            row[: len(part) - begin] = part[begin : begin + len(row)]
        covered, real = ((x / self.rate).round().long().clamp_max(length) for x in (covered, real))
        return self.encode(torch.from_numpy(changed).to(waveforms.device), covered, real)


def _changed(sample_rate_hz: int, semitones: float, rate: float, samples: np.ndarray) -> np.ndarray:
    """(n,) to (round(n / rate),), both at `sample_rate_hz`."""
    from python_stretch.Signalsmith import Stretch

    stretch = Stretch(0)  # its seed: the same clip gives the same numbers
    stretch.preset(1, sample_rate_hz)
    stretch.setTransposeSemitones(semitones)
    stretch.setTimeFactor(rate)
    return np.asarray(stretch.process(samples[np.newaxis]))[0]
