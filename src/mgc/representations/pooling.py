"""From windows to one array a clip: batches of equal windows, pooled over real frames only.

Pooled are the statistics of `kinds.STATISTICS`: mean, standard deviation, maximum.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from mgc.audio import Window, load_windows
from mgc.representations.card import Encoder, Representation


@dataclass
class _Clip:
    """What has been seen of one clip; windows still in flight are counted."""

    weight: float = 0.0
    mean: np.ndarray | float = 0.0  # (width,) float64
    spread: np.ndarray | float = 0.0  # (width,) sum of squared deviations from the mean
    largest: np.ndarray | float = -np.inf  # (width,)
    windows: int = 0  # read so far
    parts: dict[int, np.ndarray] = field(default_factory=dict)  # of window k: frames (T, D), or pooled
    in_flight: int = 0
    complete: bool = False

    def merge(self, weight: float, mean: np.ndarray, spread: np.ndarray, largest: np.ndarray) -> None:
        """Chan, Golub and LeVeque's update (1983): exact whatever the order and size of the parts."""
        total = self.weight + weight
        delta = mean - self.mean
        self.mean = self.mean + delta * (weight / total)
        self.spread = self.spread + spread + delta**2 * (self.weight * weight / total)
        self.largest = np.maximum(self.largest, largest)
        self.weight = total

    def statistics(self) -> np.ndarray:
        """(3, width)."""
        return np.stack([self.mean, np.sqrt(self.spread / self.weight), self.largest])


def represent(
    representation: Representation,
    encoder: Encoder,
    paths: Sequence[Path],
    device: torch.device,
    batch_size: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """(position in `paths`, array) for each clip as soon as its windows are through.

    Pooled: (3, width), mean, standard deviation and maximum over real frames; where windows are kept,
    (3 * windows, width), those of one window after the other. Else: (T, D), all real frames.
    A clip's array does not depend on its neighbours: windows of different lengths are never padded to
    share a batch.
    """
    clips: dict[int, _Clip] = defaultdict(_Clip)
    waiting: dict[int, list[tuple[int, int, Window]]] = defaultdict(list)
    last = -1

    def finished() -> Iterator[tuple[int, np.ndarray]]:
        for position in [p for p, clip in clips.items() if clip.complete and not clip.in_flight]:
            yield position, _array(representation, clips.pop(position))

    with torch.inference_mode():
        for position, window in load_windows(paths, representation.cut):
            if position != last and last >= 0:
                clips[last].complete = True
            last = position
            clip = clips[position]
            batch = waiting[len(window.samples)]
            batch.append((position, clip.windows, window))
            clip.in_flight += 1
            clip.windows += 1
            if len(batch) == batch_size:
                _run(representation, encoder, waiting.pop(len(window.samples)), clips, device)
                yield from finished()
        if last >= 0:
            clips[last].complete = True
        for batch in waiting.values():
            _run(representation, encoder, batch, clips, device)
        yield from finished()


def _run(
    representation: Representation,
    encoder: Encoder,
    batch: list[tuple[int, int, Window]],
    clips: dict[int, _Clip],
    device: torch.device,
) -> None:
    waveforms = torch.from_numpy(np.stack([window.samples for *_, window in batch])).to(device)  # (B, S)
    covered = torch.tensor([window.covered for *_, window in batch], device=device)
    real = torch.tensor([window.real for *_, window in batch], device=device)
    layers, weights = encoder(waveforms, covered, real)
    if representation.pooled:
        moments = [_moments(layer.float(), weights.float()) for layer in layers]
        # (3, B, width)
        pooled = torch.stack([torch.cat(kind, dim=1) for kind in zip(*moments, strict=True)])
        means, spreads, largest = pooled.double().cpu().numpy()
        totals = weights.float().sum(dim=1).double().cpu().numpy()
        for row, (position, number, _) in enumerate(batch):
            clip = clips[position]
            clip.in_flight -= 1
            if totals[row] == 0:
                continue
            one = _Clip() if representation.keep == "windows" else clip
            one.merge(float(totals[row]), means[row], spreads[row], largest[row])
            if one is not clip:
                clip.parts[number] = one.statistics()
    else:
        frames = layers[0].float().cpu().numpy()  # (B, T, D)
        kept = weights.cpu().numpy() > 0
        for row, (position, number, _) in enumerate(batch):
            clips[position].parts[number] = frames[row][kept[row]]
            clips[position].in_flight -= 1


def _moments(frames: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Weighted mean, sum of squared deviations, and maximum over time: (B, T, D), (B, T) -> (B, D) each."""
    weight = weights.unsqueeze(2)
    mean = (frames * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1e-12)
    spread = ((frames - mean.unsqueeze(1)) ** 2 * weight).sum(dim=1)
    largest = frames.masked_fill(weight == 0, -torch.inf).amax(dim=1)
    return mean, spread, largest


def _array(representation: Representation, clip: _Clip) -> np.ndarray:
    if representation.pooled and not clip.parts:
        return clip.statistics()
    frames = np.concatenate([clip.parts[number] for number in sorted(clip.parts)])
    clip.parts.clear()  # two hours of log-mel are 160 MB: not held twice
    if representation.pooled:
        return frames
    return representation.finish(frames) if representation.finish else frames
