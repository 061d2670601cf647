"""From windows to one array a clip: batches of equal windows, pooled over real frames only."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from mgc.audio import Window
from mgc.data import load_windows
from mgc.representations.kinds import Encoder, Representation


@dataclass
class _Clip:
    """What has been seen of one clip; windows still in flight are counted."""

    weight: float = 0.0
    mean: np.ndarray | float = 0.0  # (width,) float64
    spread: np.ndarray | float = 0.0  # (width,) sum of squared deviations from the mean
    frames: list[np.ndarray] = field(default_factory=list)  # (T, D) each
    in_flight: int = 0
    complete: bool = False

    def merge(self, weight: float, mean: np.ndarray, spread: np.ndarray) -> None:
        """Chan, Golub and LeVeque's update (1983): exact whatever the order and size of the parts."""
        if weight == 0:
            return
        total = self.weight + weight
        delta = mean - self.mean
        self.mean = self.mean + delta * (weight / total)
        self.spread = self.spread + spread + delta**2 * (self.weight * weight / total)
        self.weight = total


def represent(
    representation: Representation,
    encoder: Encoder,
    paths: Sequence[Path],
    device: torch.device,
    batch_size: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """(position in `paths`, array) for each clip as soon as its windows are through.

    Pooled: (2, width), mean and standard deviation over real frames. Else: (T, D), all real frames.
    A clip's array does not depend on its neighbours: windows of different lengths are never padded to
    share a batch.
    """
    clips: dict[int, _Clip] = defaultdict(_Clip)
    waiting: dict[int, list[tuple[int, Window]]] = defaultdict(list)
    last = -1

    def finished() -> Iterator[tuple[int, np.ndarray]]:
        for position in [p for p, clip in clips.items() if clip.complete and not clip.in_flight]:
            yield position, _array(representation, clips.pop(position))

    with torch.inference_mode():
        for position, window in load_windows(paths, representation.cut):
            if position != last and last >= 0:
                clips[last].complete = True
            last = position
            clips[position].in_flight += 1
            batch = waiting[len(window.samples)]
            batch.append((position, window))
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
    batch: list[tuple[int, Window]],
    clips: dict[int, _Clip],
    device: torch.device,
) -> None:
    waveforms = torch.from_numpy(np.stack([window.samples for _, window in batch])).to(device)  # (B, S)
    covered = torch.tensor([window.covered for _, window in batch], device=device)
    real = torch.tensor([window.real for _, window in batch], device=device)
    layers, weights = encoder(waveforms, covered, real)
    if representation.pooled:
        parts = [_moments(layer.float(), weights.float()) for layer in layers]
        means = torch.cat([mean for mean, _ in parts], dim=1).double().cpu().numpy()  # (B, width)
        spreads = torch.cat([spread for _, spread in parts], dim=1).double().cpu().numpy()
        totals = weights.float().sum(dim=1).double().cpu().numpy()
        for row, (position, _) in enumerate(batch):
            clips[position].merge(float(totals[row]), means[row], spreads[row])
            clips[position].in_flight -= 1
    else:
        frames = layers[0].float().cpu().numpy()  # (B, T, D)
        kept = weights.cpu().numpy() > 0
        for row, (position, _) in enumerate(batch):
            clips[position].frames.append(frames[row][kept[row]])
            clips[position].in_flight -= 1


def _moments(frames: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted mean and sum of squared deviations over time: (B, T, D), (B, T) -> (B, D) twice."""
    weight = weights.unsqueeze(2)
    mean = (frames * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1e-12)
    spread = ((frames - mean.unsqueeze(1)) ** 2 * weight).sum(dim=1)
    return mean, spread


def _array(representation: Representation, clip: _Clip) -> np.ndarray:
    if representation.pooled:
        return np.stack([clip.mean, np.sqrt(clip.spread / clip.weight)])
    frames = np.concatenate(clip.frames)
    clip.frames.clear()  # two hours of log-mel are 160 MB: not held twice
    return representation.finish(frames) if representation.finish else frames
