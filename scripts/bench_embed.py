"""Compare mgc embed with the usual loop: `python scripts/bench_embed.py --model musicnn --data DIR`.

Both methods embed the same clips with the same weights. They alternate every few clips, and ratios are
computed per round, so other load on the machine affects both.

    usual   One clip after another: librosa.load at the encoder's sample rate, the feature extractor, the
            model in float32 under no_grad, one window at a time, mean over tokens. For musicnn: librosa's
            mel spectrogram and the network as published, with every filter in the published order.
    mgc     mgc.representations.pooling.represent and the writer of the embedding cache, as called by mgc
            embed.
    bare    Only the forward pass, on prepared inputs of the same windows in memory, in batches like
            mgc's.

Both cover every whole window of a clip and ignore the remainder at its end. (`mgc embed` covers it with a
window that is moved back, which the usual loop does not do.) Usual code often embeds only the first window,
which is less work on less audio and cannot be compared.

The printed time over the bare forward pass is what mgc spends on decoding, front end, pooling and writing;
`waited` is the share of its time in which the model had no window to process.

Memory is the peak of a separate process that embeds 100 clips, and of one that embeds 1,000 (the same files
repeatedly). Use `--precision bfloat16` on devices that compute in bfloat16. Runs on Linux and macOS.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Annotated, Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as mgc does
import librosa
import numpy as np
import torch
import typer

from mgc.audio import load_windows
from mgc.config import WINDOWS_AT_ONCE, DataRecipe
from mgc.data import load
from mgc.representations import ModelSpec, Representation, open_representation, pooling
from mgc.representations.cache.embeddings import EmbeddingCache
from mgc.representations.card import Encoder
from mgc.representations.encoders.musicnn import load_network
from mgc.representations.encoders.musicnn_weights import WEIGHTS_FILE
from mgc.util.devices import make_accelerator, tune_cpu
from mgc.workspace import Workspace

SHORT = {"ast": ModelSpec("ast", random_seed=0), "whisper": "../shared/weights/whisper-tiny.en-encoder"}
PART = 4  # clips that one method embeds before the other one
Embeddings = list[np.ndarray]


def batched(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Parts of at most `size`, like itertools.batched of Python 3.12."""
    return (items[start : start + size] for start in range(0, len(items), size))


@dataclass(frozen=True)
class Round:
    """Wall-clock seconds of each method for all clips; `waited` is part of `mgc`."""

    usual: float
    mgc: float
    bare: float
    waited: float

    @property
    def ratio(self) -> float:
        """Speed of mgc relative to the usual loop."""
        return self.usual / self.mgc


class Bench:
    """One encoder, used by both methods."""

    def __init__(self, model: str) -> None:
        card = open_representation(SHORT.get(model, model), workspace=Workspace.from_environment())
        self.device = make_accelerator("auto").device
        tune_cpu()
        # Only whole windows: a remainder shorter than a window is ignored.
        self.card: Representation = replace(card, cut=replace(card.cut, ignore=card.cut.window))
        self.encoder: Any = card.load(self.device)
        self.plain: Any = self.encoder
        if not hasattr(self.encoder, "extractor"):  # musicnn as published, including filters without effect
            file = Workspace.from_environment().weights / WEIGHTS_FILE
            self.plain = SimpleNamespace(model=load_network(file).to(self.device))
        self.waited = 0.0

    def usual(self, paths: Sequence[Path]) -> Embeddings:
        """The mean of the last layer over tokens and windows, (D,) per clip."""
        return [np.mean([*self._usual(path)], axis=0) for path in paths]

    @torch.no_grad()
    def _usual(self, path: Path) -> Iterator[np.ndarray]:
        cut = self.card.cut
        wave, _ = librosa.load(path, sr=cut.sample_rate_hz, mono=True)
        starts = range(0, max(1, len(wave) - cut.window + 1), cut.window)
        if not hasattr(self.plain, "front"):
            from mgc.representations.encoders.musicnn import WINDOW_FRAMES
            from mgc.representations.encoders.musicnn_network import HOP_SAMPLES, N_FFT, N_MELS

            mel = librosa.feature.melspectrogram(
                y=wave, sr=cut.sample_rate_hz, n_fft=N_FFT, hop_length=HOP_SAMPLES, n_mels=N_MELS
            )
            frames = torch.from_numpy(np.log10(10_000 * mel + 1).T.astype(np.float32))
            batch = [frames[i * WINDOW_FRAMES : (i + 1) * WINDOW_FRAMES] for i in range(len(starts))]
            yield from self.plain.model(torch.stack(batch).to(self.device)).penultimate.cpu().numpy()
            return
        for start in starts:
            piece = wave[start : start + cut.window]
            inputs = self.plain.extractor(piece, sampling_rate=cut.sample_rate_hz, return_tensors="pt")
            yield self.plain.states(self.plain.model, inputs.to(self.device))[-1].mean(1)[0].cpu().numpy()

    def mgc(self, paths: Sequence[Path], encoder: Encoder) -> Embeddings:
        """The same, computed by mgc and written to an embedding cache."""
        embeddings: Embeddings = [np.empty(0)] * len(paths)
        wanted = self.card.layer_slice("last")
        with EmbeddingCache(self.card, root=Workspace.from_environment().cache).writer() as writer:
            for place, array in pooling.represent(self.card, encoder, paths, self.device, WINDOWS_AT_ONCE):
                writer.add(f"{place:032x}", paths[place].name, array)
                embeddings[place] = array[0, wanted].copy()
        return embeddings

    def inputs(self, paths: Sequence[Path]) -> list[Any]:
        """The inputs of the model for these clips, one entry per batch."""
        windows = [window.samples for _, window in load_windows(paths, self.card.cut)]
        made = []
        for batch in batched(windows, WINDOWS_AT_ONCE):
            waveforms = torch.from_numpy(np.stack(batch)).to(self.device)
            if hasattr(self.encoder, "extractor"):
                made.append(self.encoder.front_end(waveforms))
            else:
                from mgc.representations.encoders.musicnn import WINDOW_FRAMES
                from mgc.representations.encoders.musicnn_network import logmel

                made.append(logmel(waveforms, center=False)[:, :WINDOW_FRAMES])
        return made

    @torch.inference_mode()
    def bare(self, inputs: Sequence[Any], encoder: Any) -> None:
        """Only the forward pass of the model."""
        for batch in inputs:
            states = (
                encoder.states(encoder.model, batch) if hasattr(encoder, "states") else encoder.model(batch)
            )
            del states

    def timed_windows(self, paths: Sequence[Path], cut: Any) -> Iterator[Any]:
        """`load_windows`; adds the time that the consumer waits to `self.waited`."""
        windows = load_windows(paths, cut)
        while True:
            began = time.perf_counter()
            item = next(windows, None)
            self.waited += time.perf_counter() - began
            if item is None:
                return
            yield item


def seconds_of(work: Callable[[], Any]) -> float:
    """Wall-clock seconds that `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def one_round(bench: Bench, paths: Sequence[Path], encoder: Any) -> Round:
    """All clips; the methods alternate every PART clips."""
    usual = mgc = bare = 0.0
    bench.waited = 0.0
    for part in batched(paths, PART):
        usual += seconds_of(lambda part=part: bench.usual(part))
        mgc += seconds_of(lambda part=part: bench.mgc(part, encoder))
        inputs = bench.inputs(part)
        bare += seconds_of(lambda inputs=inputs: bench.bare(inputs, encoder))
    return Round(usual, mgc, bare, bench.waited)


def cosines(one: Embeddings, other: Embeddings) -> list[float]:
    """Cosine similarity of the two embeddings of each clip."""
    return [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(one, other, strict=True)]


def peak_bytes(model: str, paths: Sequence[Path], count: int) -> int:
    """Peak resident memory of a process that embeds `count` clips."""
    words = [sys.executable, __file__, "--model", model, "--peak", str(count)]
    files = "\n".join(map(str, paths))
    out = subprocess.run(words, input=files, capture_output=True, text=True, check=True).stdout
    return int(out.splitlines()[-1])


def main(
    model: Annotated[str, typer.Option(help="ast, whisper, or a --model of mgc embed.")] = "musicnn",
    data: Annotated[str, typer.Option(help="Dataset: a known name, a folder or a manifest.")] = "demo",
    clips: Annotated[int, typer.Option(min=1, help="Number of timed clips.")] = 20,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    precision: Annotated[str, typer.Option(help="Precision of mgc: float32 or bfloat16.")] = "float32",
    memory: Annotated[str, typer.Option(help="Numbers of clips for peak memory; empty: skip.")] = "100,1000",
    peak: Annotated[int, typer.Option(hidden=True)] = 0,
    out: Annotated[Path | None, typer.Option(help="JSON file for the results. Default: none.")] = None,
) -> None:
    """Compare the speed of mgc embed with the usual loop, and measure its peak memory."""
    with tempfile.TemporaryDirectory(prefix="bench_embed_") as folder:
        if peak:
            os.environ["MGC_EMBEDDINGS_CACHE"] = folder
            bench = Bench(model)
            bench.mgc([*islice(cycle(map(Path, sys.stdin.read().splitlines())), peak)], bench.encoder)
            unit = 1 if platform.system() == "Darwin" else 1024
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
            return
        paths = [
            track.path
            for track in load(
                DataRecipe(source=data, limit=clips), workspace=Workspace.from_environment()
            ).tracks
        ]
        os.environ["MGC_EMBEDDINGS_CACHE"] = folder
        bench = Bench(model)
        encoder = bench.encoder
        if precision == "bfloat16":
            from mgc.representations.derived import in_bfloat16

            encoder = in_bfloat16(bench.card).load(bench.device)
        pooling.load_windows = bench.timed_windows
        same = cosines(bench.usual(paths[:PART]), bench.mgc(paths[:PART], encoder))  # also warms up both
        print(f"cosine similarity of the embeddings, {len(same)} clips: at least {min(same):.6f}", flush=True)
        done = []
        for _ in range(rounds):
            done.append(one_round(bench, paths, encoder))
            print(line(done[-1], len(paths)), flush=True)
        ratios = sorted(one.ratio for one in done)
        print(
            f"{model}: {median(ratios):.2f} times as fast ({ratios[0]:.2f} to {ratios[-1]:.2f})",
            flush=True,
        )
        peaks = {int(word): peak_bytes(model, paths, int(word)) for word in memory.split(",") if word}
        print("".join(f"peak memory at {n} clips: {size / 2**20:.0f} MiB\n" for n, size in peaks.items()))
    if out is not None:
        figures = {"model": model, "clips": len(paths), "threads": torch.get_num_threads(), "cosines": same}
        figures |= {"rounds": [asdict(one) for one in done], "peak_bytes": peaks, "precision": precision}
        out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def line(one: Round, clips: int) -> str:
    """The results of a round as text."""
    return (
        f"usual {clips / one.usual:.2f} clips/s, mgc {clips / one.mgc:.2f} clips/s, ratio {one.ratio:.2f}; "
        f"over the bare forward {one.mgc / one.bare - 1:+.0%}, waited {one.waited / one.mgc:.0%}"
    )


if __name__ == "__main__":
    typer.run(main)
