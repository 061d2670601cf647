"""Compare the training loop with a plain one: `python scripts/bench_training.py --out speed.json`.

Three methods process the same clips (1292 frames x 128 bands, batches of 16) in turn, in changing order:

    plain   the network with its layers in the published order; one .npz file per track, read one by one
    mgc     the network of `mgc.training.networks` in the epoch of `mgc.training.loop`, from the embedding
            cache
    bare    only forward, backward and Adam step of that network, on tensors in memory

All use float32 on all cores. The plain loop has its own process with PyTorch's default settings, or with
those of mgc (`--tuned`). Ratios are computed per round, so other load on the machine affects all; `cores` is
CPU time divided by wall-clock time. With `--accuracy`, plain and mgc are instead trained for the same number
of epochs on 5-s crops of the first fold of a dataset, and their test accuracies are compared.
"""

import itertools
import json
import multiprocessing
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import mean, median, stdev
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from torch import nn

from mgc.config import DataRecipe, TrainRecipe
from mgc.data import load, make_split
from mgc.representations import open_representation
from mgc.representations.cache.embed import embed_tracks
from mgc.representations.cache.embeddings import EmbeddingCache
from mgc.training.loop import Learner, TrackSet, predict
from mgc.training.networks import make_network
from mgc.util.devices import make_accelerator, tune_cpu
from mgc.util.errors import MgcError
from mgc.util.progress import Progress
from mgc.util.workers import cores
from mgc.workspace import Workspace

FRAMES, BANDS, CLASSES = 1292, 128, 8
CROP_FRAMES = 215  # 5 s, for --accuracy
RECIPE = TrainRecipe(batch_size=16, learning_rate=1e-3)
Pass = Callable[[int], object]  # one pass over all clips; takes its number


def normed(before: int, after: int, kernel: int, groups: int = 1, bias: bool = False) -> list[nn.Module]:
    """Convolution, BatchNorm, ReLU."""
    conv = nn.Conv2d(before, after, kernel, padding=kernel // 2, groups=groups, bias=bias)
    return [conv, nn.BatchNorm2d(after), nn.ReLU()]


class PlainCNN(nn.Sequential):
    """`cnn` with layers in the published order; parameters in the order of mgc."""

    def __init__(self, classes: int, dropout: float = 0.25) -> None:
        layers: list[nn.Module] = []
        for before, after, pool in ((1, 16, 4), (16, 32, 2), (32, 64, 2), (64, 64, 2)):
            conv = nn.Conv2d(before, after, 3, padding=1)
            layers += [conv, nn.ReLU(), nn.MaxPool2d(pool), nn.Dropout(dropout)]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


class PlainCNNGRU(nn.Module):
    """`cnn_gru` with layers in the published order; parameters in the order of mgc."""

    def __init__(self, classes: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.stack = nn.Sequential(
            *normed(1, 32, 3, bias=True), nn.MaxPool2d(2),
            *normed(32, 32, 3, groups=32), *normed(32, 64, 1), nn.MaxPool2d(2), nn.Dropout2d(dropout / 2),
            *normed(64, 64, 3, groups=64), *normed(64, 128, 1), nn.MaxPool2d(2), nn.Dropout2d(dropout),
        )  # fmt: skip
        self.gru = nn.GRU(128, 32, 2, batch_first=True)
        self.residual, self.gate = nn.Linear(128, 32), nn.Linear(160, 1)
        self.attention = nn.Sequential(nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 1))
        self.classify = nn.Sequential(nn.Dropout(dropout), nn.Linear(32, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, frames, bands) -> (B, classes)."""
        sequence = self.stack(x).mean(dim=3).transpose(1, 2)
        states, _ = self.gru(sequence)
        gate = torch.sigmoid(self.gate(torch.cat([sequence, states], dim=2)))
        mixed = gate * states + (1 - gate) * self.residual(sequence)
        return self.classify((self.attention(mixed).softmax(dim=1) * mixed).sum(dim=1))


PLAIN: dict[str, Callable[[int], nn.Module]] = {"cnn": PlainCNN, "cnn_gru": PlainCNNGRU}


def step(network: nn.Module, adam: torch.optim.Optimizer, batch: torch.Tensor, labels: torch.Tensor) -> None:
    """Forward, backward, Adam."""
    adam.zero_grad()
    F.cross_entropy(network(batch), labels).backward()
    adam.step()


def plain_way(name: str, folder: Path, labels: np.ndarray, frames: int) -> tuple[nn.Module, Pass]:
    """The plain network, and a plain loop over `<number>.npz`: read, normalise, crop, stack, step."""
    network = PLAIN[name](int(labels.max()) + 1)
    adam = torch.optim.Adam(network.parameters(), RECIPE.learning_rate)

    def run(_: int) -> None:
        network.train()
        for chosen in torch.randperm(len(labels)).split(RECIPE.batch_size):
            crops = []
            for number in chosen.tolist():
                array = np.load(folder / f"{number}.npz")["logmel"]
                start = int(torch.randint(max(1, len(array) - frames + 1), ()))
                crop = ((array - array.mean()) / array.std())[start : start + frames]
                crops.append(torch.from_numpy(np.pad(crop, ((0, frames - len(crop)), (0, 0)))))
            step(network, adam, torch.stack(crops).unsqueeze(1), torch.from_numpy(labels[chosen]))

    return network, run


def mgc_way(name: str, tracks: TrackSet, frames: int, seed: int) -> tuple[nn.Module, Pass, Pass]:
    """The network of mgc, the epoch of its loop, and the bare passes over tensors in memory."""
    classes = int(tracks.labels.max()) + 1
    make = partial(make_network, name, classes, BANDS, frames)
    learner = Learner(make, tracks, RECIPE, frames, seed, "cpu", None)
    network = learner.plain
    targets = torch.from_numpy(tracks.labels).split(RECIPE.batch_size)
    batches = [torch.randn(len(target), 1, frames, BANDS) for target in targets]

    def bare(_: int) -> None:
        network.train()
        for batch, target in zip(batches, targets, strict=True):
            step(network, learner.optimizer, batch, target)

    return network, learner.epoch, bare


_READY: dict[str, Pass] = {}  # the passes of this process


def get_ready(kind: str, name: str, clips: int, folder: Path, tuned: bool) -> None:
    """Write the clips as files (plain) or to an embedding cache (others), and run each method once."""
    labels = np.arange(clips) % CLASSES
    rng = np.random.default_rng(0)
    arrays = [rng.normal(-40, 15, (FRAMES, BANDS)).astype(np.float16) for _ in range(clips)]
    if tuned or kind != "plain":
        tune_cpu()
    if kind == "plain":
        for number, array in enumerate(arrays):
            np.savez(folder / f"{number}.npz", logmel=array.astype(np.float32))
        _READY["plain"] = plain_way(name, folder, labels, FRAMES)[1]
    else:
        os.environ["MGC_EMBEDDINGS_CACHE"] = str(folder)
        cache = EmbeddingCache(
            open_representation("logmel", workspace=Workspace.from_environment()),
            root=Workspace.from_environment().cache,
        )
        with cache.writer() as writer:
            for number, array in enumerate(arrays):
                writer.add(str(number), str(number), array)
        cache.refresh()
        tracks = TrackSet.of([cache.read(str(number)) for number in range(clips)], labels.tolist())
        _, _READY["mgc"], _READY["bare"] = mgc_way(name, tracks, FRAMES, 0)
    for way in _READY.values():
        way(0)


def timed(kind: str, number: int) -> tuple[float, float]:
    """Wall-clock and CPU seconds of one pass."""
    start, before = time.perf_counter(), time.process_time()
    _READY[kind](number)
    return time.perf_counter() - start, time.process_time() - before


def race(name: str, clips: int, rounds: int, tuned: bool) -> list[dict[str, tuple[float, float]]]:
    """Wall-clock and CPU seconds of every method in each of `rounds` rounds."""
    alone = partial(ProcessPoolExecutor, 1, multiprocessing.get_context("spawn"))
    with tempfile.TemporaryDirectory() as folder, alone() as usual, alone() as ours:
        pools = {"plain": usual, "mgc": ours, "bare": ours}
        for kind in ("plain", "mgc"):
            pools[kind].submit(get_ready, kind, name, clips, Path(folder), tuned).result()
        took: list[dict[str, tuple[float, float]]] = []
        with Progress(name, rounds, "rounds") as progress:
            for order in itertools.islice(itertools.cycle(itertools.permutations(pools)), rounds):
                took.append({kind: pools[kind].submit(timed, kind, len(took)).result() for kind in order})
                progress.step(note=f"{took[-1]['plain'][0] / took[-1]['mgc'][0]:.2f} times as fast")
    return took


def summary(name: str, clips: int, took: Sequence[dict[str, tuple[float, float]]]) -> str:
    """Medians over the rounds."""
    lines = [f"{name}: {clips} clips, {len(took)} rounds, {cores()} cores"]
    for way in took[0]:
        wall, cpu = (median(each[way][k] for each in took) for k in (0, 1))
        lines.append(f"  {way:>6} {clips / wall:6.1f} clips/s on {cpu / wall:.2f} cores")
    ratios = [each["plain"][0] / each["mgc"][0] for each in took]
    over = median(each["mgc"][0] / each["bare"][0] - 1 for each in took)
    lines.append(
        f"  {median(ratios):.2f} times as fast as plain ({min(ratios):.2f} to {max(ratios):.2f}); goal: 2.0"
    )
    return "\n".join([*lines, f"  {over:+.1%} more time than bare; goal: at most 10 %"])


def accuracies(name: str, source: str, epochs: int, seeds: int) -> dict[str, list[float]]:
    """Test accuracy of both methods on the first fold of `source`, for each seed."""
    dataset, representation = (
        load(DataRecipe(source=source), workspace=Workspace.from_environment()),
        open_representation("logmel", workspace=Workspace.from_environment()),
    )
    embed_tracks(dataset.tracks, representation, device="cpu", workspace=Workspace.from_environment())
    cache, fold = (
        EmbeddingCache(representation, root=Workspace.from_environment().cache),
        make_split(dataset, "auto", 0).folds[0],
    )
    tracks = [[dataset.by_id[track_id] for track_id in part] for part in (fold.train, fold.test)]
    train, test = (
        TrackSet.of([cache.read(t.content) for t in part], dataset.label_numbers(part)) for part in tracks
    )
    correct: dict[str, list[float]] = {"plain": [], "mgc": []}
    with tempfile.TemporaryDirectory() as folder, Progress(name, 2 * seeds * epochs, "epochs") as progress:
        for number, array in enumerate(train.arrays):
            np.savez(Path(folder, f"{number}.npz"), logmel=array.astype(np.float32))
        for seed, way in itertools.product(range(seeds), correct):
            torch.manual_seed(seed)
            if way == "plain":
                network, run = plain_way(name, Path(folder), train.labels, CROP_FRAMES)
            else:
                network, run, _ = mgc_way(name, train, CROP_FRAMES, seed)
            for epoch in range(epochs):
                run(epoch)
                progress.step()
            shares = predict(network, test, CROP_FRAMES, make_accelerator("cpu"))
            correct[way].append(float((shares.argmax(axis=1) == test.labels).mean()))
    return correct


def main(
    network: Annotated[list[str], typer.Option(help="Network. Can be repeated.")] = list(PLAIN),  # noqa: B006
    clips: Annotated[int, typer.Option(min=16)] = 64,
    rounds: Annotated[int, typer.Option(min=1)] = 6,
    tuned: Annotated[bool, typer.Option("--tuned", help="Plain loop with mgc's settings.")] = False,
    accuracy: Annotated[bool, typer.Option("--accuracy", help="Compare accuracies, not speed.")] = False,
    data: Annotated[str, typer.Option(help="Dataset for --accuracy.")] = "demo",
    epochs: Annotated[int, typer.Option(min=1, help="Epochs for --accuracy.")] = 40,
    seeds: Annotated[int, typer.Option(min=2, help="Seeds for --accuracy.")] = 3,
    out: Annotated[Path | None, typer.Option(help="JSON file for the results. Default: none.")] = None,
) -> None:
    """Compare the speed or the accuracy of the training loop with a plain one."""
    figures: dict[str, object] = {"command": shlex.join(["python", *sys.argv]), "cores": cores()}
    for name in network:
        if accuracy:
            tune_cpu()
            figures[name] = results = accuracies(name, data, epochs, seeds)
            for way, each in results.items():
                print(f"{name} {way:>6}: test accuracy {mean(each):.3f} +- {stdev(each):.3f} ({seeds} seeds)")
        else:
            figures[name] = took = race(name, clips, rounds, tuned)
            print(summary(name, clips, took), flush=True)
    if out is not None:
        out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        typer.run(main)
    except MgcError as error:
        sys.exit(f"bench_training: {error}")
