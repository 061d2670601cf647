"""From windows to one array for each clip: batches of equally long windows, pooled over real frames only."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from mgc.audio import Window, load_windows
from mgc.representations.card import Encoder, Representation

Batch = list[tuple[int, int, Window]]  # position of the clip, number of the window in it


@dataclass
class _Clip:
    """What the encoder returned for the windows of a clip."""

    windows: int = 0  # read so far
    in_flight: int = 0  # read, but not encoded yet
    complete: bool = False  # all windows were read
    # By number of the window: real frames (T, D), or their moments (3, width) with the weight of the window.
    parts: dict[int, np.ndarray] = field(default_factory=dict)
    weights: dict[int, float] = field(default_factory=dict)


def represent(
    representation: Representation,
    encoder: Encoder,
    paths: Sequence[Path],
    device: torch.device,
    batch_size: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (position in `paths`, array) for each clip as soon as its windows are processed.

    A pooled array is (3, width): mean, standard deviation and maximum over real frames. With windows kept
    apart it is (3 * windows, width), one window after the other. Any other array is (T, D), all real frames.
    A clip's array does not depend on its neighbours: windows of different lengths are never padded to share a
    batch.
    """
    clips: dict[int, _Clip] = defaultdict(_Clip)
    waiting: dict[int, Batch] = defaultdict(list)  # by length
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
                _encode(representation, encoder, waiting.pop(len(window.samples)), clips, device)
                yield from finished()
        if last >= 0:
            clips[last].complete = True
        for batch in waiting.values():
            _encode(representation, encoder, batch, clips, device)
        yield from finished()


def _encode(
    representation: Representation,
    encoder: Encoder,
    batch: Batch,
    clips: dict[int, _Clip],
    device: torch.device,
) -> None:
    """Encode a batch of windows, and add the results to their clips."""
    waveforms = torch.from_numpy(np.stack([window.samples for *_, window in batch])).to(device)  # (B, S)
    covered = torch.tensor([window.covered for *_, window in batch], device=device)
    real = torch.tensor([window.real for *_, window in batch], device=device)
    layers, weights = encoder(waveforms, covered, real)
    if representation.pooled:
        moments = [_moments(layer.float(), weights.float()) for layer in layers]
        parts = torch.cat(moments, dim=2).cpu().numpy()  # (B, 3, width)
        totals = weights.float().sum(dim=1).double().cpu().numpy()
    else:
        parts = layers[0].float().cpu().numpy()  # (B, T, D)
        real_frames = weights.cpu().numpy() > 0
    for row, (position, number, _) in enumerate(batch):
        clip = clips[position]
        clip.in_flight -= 1
        if not representation.pooled:
            clip.parts[number] = parts[row][real_frames[row]]
        elif totals[row] > 0:
            clip.parts[number], clip.weights[number] = parts[row], float(totals[row])


def _moments(frames: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean, variance and maximum over time: (B, T, D), (B, T) -> (B, 3, D)."""
    weight = weights.unsqueeze(2)
    total = weight.sum(dim=1).clamp_min(1e-12)
    mean = (frames * weight).sum(dim=1) / total
    variance = ((frames - mean.unsqueeze(1)) ** 2 * weight).sum(dim=1) / total
    largest = frames.masked_fill(weight == 0, -torch.inf).amax(dim=1)
    return torch.stack([mean, variance, largest], dim=1)


def _array(representation: Representation, clip: _Clip) -> np.ndarray:
    parts = [clip.parts[number] for number in sorted(clip.parts)]
    if not representation.pooled:
        clip.parts.clear()  # two hours of log-mel are 160 MB, which should not be held twice
        frames = np.concatenate(parts)
        return representation.finish(frames) if representation.finish else frames
    means, variances, largest = np.stack(parts).astype(np.float64).transpose(1, 0, 2)  # (windows, width) each
    if representation.spec.keep == "windows":
        return np.stack([means, np.sqrt(variances), largest], axis=1).reshape(-1, representation.width)
    share = np.array([clip.weights[number] for number in sorted(clip.weights)])[:, None]
    share /= share.sum()
    mean = (share * means).sum(axis=0)
    # The variance within windows, and that between them.
    variance = (share * (variances + (means - mean) ** 2)).sum(axis=0)
    return np.stack([mean, np.sqrt(variance), largest.max(axis=0)])
