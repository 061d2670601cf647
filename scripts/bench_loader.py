"""The loader against the usual loop, in one run: `python scripts/bench_loader.py --out loader.json`.

Makes 30-s stereo mp3 clips (44.1 kHz, 128 kb/s) from real music in a temporary folder. Then, for each sample
rate, both ways decode, mix and resample the same clips, several rounds, fifteen clips at a time in turn:

    librosa   librosa.load(path, sr=rate, mono=True, res_type="soxr_hq"), one clip after another
    mgc       mgc.audio.load_windows(paths, ...), which decodes ahead on all cores

Both resample with soxr in its HQ setting; both are consumed by a loop that sums the samples. A first pass,
which is not timed, compares the samples of every clip and leaves the files in the page cache. The ratio is
taken round by round, so that it bears other work on the machine. `cores` is CPU by wall seconds: where that
of mgc is far below the number of cores, the machine was busy and the ratio is less than it could be.

Memory is the peak of a process of its own that loads 100 tracks, and of one that loads 8,000 (a few 5-s clips
again and again). Linux and macOS.
"""

import itertools
import json
import multiprocessing
import os
import platform
import resource
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import soundfile
import typer

from mgc.audio import Windowing, decode, load_windows
from mgc.config import DataRecipe
from mgc.data import Track, load
from mgc.util.errors import MgcError
from mgc.util.progress import Progress
from mgc.util.workers import cores
from mgc.workspace import Workspace

RATES_HZ = (16_000, 22_050, 32_000)
CLIP_RATE_HZ, CLIP_SECONDS = 44_100, 30.0
KILOBITS = 128
WINDOW_SECONDS = 10
PART = 15  # clips that one way loads before the other takes its turn
MEMORY_TRACKS, MEMORY_SECONDS, MEMORY_CLIPS = (100, 8_000), 5.0, 10
# Both run the same soxr filter, one over the whole clip, one block by block: only rounding may differ.
SAME = 1e-5


@dataclass(frozen=True)
class Round:
    """Seconds that each way took for all clips: on the clock, and of all cores together."""

    librosa_wall: float
    librosa_cpu: float
    mgc_wall: float
    mgc_cpu: float

    @property
    def ratio(self) -> float:
        """How many times as fast mgc was."""
        return self.librosa_wall / self.mgc_wall


@dataclass(frozen=True)
class Rate:
    """All rounds at one sample rate, and the largest difference between the samples of the two ways."""

    sample_rate_hz: int
    rounds: list[Round]
    largest_difference: float


def main(
    data: Annotated[str, typer.Option(help="real music: a known name, a folder or a manifest")] = "demo",
    clips: Annotated[int, typer.Option(min=1, help="clips that are timed")] = 60,
    rounds: Annotated[int, typer.Option(min=1, help="at each sample rate")] = 5,
    memory: Annotated[bool, typer.Option(help="measure the memory, too")] = True,
    out: Annotated[Path | None, typer.Option(help="keep the figures in this JSON file")] = None,
) -> None:
    """Time the loader against librosa.load on the same clips, and show that its memory is flat."""
    tracks = load(DataRecipe(source=data), workspace=Workspace.from_environment()).tracks
    with tempfile.TemporaryDirectory(prefix="bench_loader_") as folder:
        paths = make_clips(tracks, clips, CLIP_SECONDS, Path(folder, "timed"))
        rates = [compare(paths, rate, rounds) for rate in RATES_HZ]
        print(speed_table(rates, clips))
        peaks = {}
        if memory:
            short = make_clips(tracks, MEMORY_CLIPS, MEMORY_SECONDS, Path(folder, "short"))
            peaks = {count: peak_of(short, count) for count in MEMORY_TRACKS}
            print(memory_line(peaks))
    if out is not None:
        figures = {
            "command": shlex.join(["python", *sys.argv]),
            "data": data,
            "clips": clips,
            "cores": cores(),
            "versions": {name: version(name) for name in ("librosa", "soundfile", "soxr", "numpy")}
            | {"libsndfile": soundfile.__libsndfile_version__, "python": platform.python_version()},
            "ratio": {rate.sample_rate_hz: median(r.ratio for r in rate.rounds) for rate in rates},
            "rates": [asdict(rate) for rate in rates],
            "peak_bytes": peaks,
        }
        out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def make_clips(tracks: Sequence[Track], count: int, seconds: float, folder: Path) -> list[Path]:
    """`count` stereo mp3 files, on the left other music than on the right."""
    folder.mkdir()

    def make(number: int) -> Path:
        first = number * len(tracks) // count
        channels = [channel(tracks, start, seconds) for start in (first, first + len(tracks) // 2)]
        path = folder / f"{number}.mp3"
        soundfile.write(
            path, np.stack(channels, axis=1), CLIP_RATE_HZ, format="MP3", subtype="MPEG_LAYER_III",
            bitrate_mode="CONSTANT", compression_level=(320 - KILOBITS) / (320 - 32),  # libsndfile's scale
        )  # fmt: skip
        return path

    with Progress("make clips", count, "clips") as progress, ThreadPoolExecutor(cores()) as pool:
        paths = []
        for path in pool.map(make, range(count)):
            paths.append(path)
            progress.step()
    return paths


def channel(tracks: Sequence[Track], first: int, seconds: float) -> np.ndarray:
    """(samples,) float32: the music from track `first` on, one track after another until it is enough."""
    samples = round(seconds * CLIP_RATE_HZ)
    blocks: list[np.ndarray] = []
    for track in itertools.islice(itertools.cycle(tracks), first, None):
        for block in decode(track.path, CLIP_RATE_HZ):
            blocks.append(block)
            if sum(map(len, blocks)) >= samples:
                return np.concatenate(blocks)[:samples]
    raise AssertionError("every track has samples: `load` left the others out")


def by_librosa(path: Path, rate: int) -> np.ndarray:
    """The clip in the usual way: (samples,) float32."""
    import librosa

    samples: np.ndarray = librosa.load(path, sr=rate, mono=True, res_type="soxr_hq")[0]
    return samples


def use_librosa(paths: Sequence[Path], rate: int) -> None:
    """The usual loop."""
    for path in paths:
        by_librosa(path, rate).sum()


def use_mgc(paths: Sequence[Path], rate: int) -> None:
    """The loader's loop."""
    for _, window in load_windows(paths, Windowing(rate, WINDOW_SECONDS * rate)):
        window.samples.sum()


def largest_difference(paths: Sequence[Path], rate: int) -> float:
    """Between the samples of the two ways, over all clips; a clip's last sample may be missing in one.

    Raises:
        MgcError: they are not the same samples.
    """
    largest = 0.0
    loaded = load_windows(paths, Windowing(rate, WINDOW_SECONDS * rate))
    for position, group in itertools.groupby(loaded, key=lambda item: item[0]):
        ours = np.concatenate([window.samples[window.covered : window.real] for _, window in group])
        usual = by_librosa(paths[position], rate)
        both = min(len(ours), len(usual))
        largest = max(largest, float(np.abs(ours[:both] - usual[:both]).max()))
        if largest > SAME or abs(len(ours) - len(usual)) > 1:
            raise MgcError(
                f"the two ways differ at {rate} Hz: {len(usual)} and {len(ours)} samples, by {largest:.2g}",
                where=paths[position],
            )
    return largest


def compare(paths: Sequence[Path], rate: int, count: int) -> Rate:
    """`count` rounds of both ways over all clips."""
    difference = largest_difference(paths, rate)
    rounds = []
    with Progress(f"both ways at {rate} Hz", count, "rounds") as progress:
        for _ in range(count):
            rounds.append(in_turn(paths, rate))
            progress.step(note=f"{rounds[-1].ratio:.2f} times as fast")
    return Rate(rate, rounds, difference)


def in_turn(paths: Sequence[Path], rate: int) -> Round:
    """Both ways over all clips, a part at a time in changing order: other work of some seconds meets both."""
    took = {use_librosa: np.zeros(2), use_mgc: np.zeros(2)}
    ways = [use_librosa, use_mgc]
    for start in range(0, len(paths), PART):
        for way in ways:
            took[way] += timed(way, paths[start : start + PART], rate)
        ways.reverse()
    return Round(*took[use_librosa].tolist(), *took[use_mgc].tolist())


def timed(way: Callable[[Sequence[Path], int], None], paths: Sequence[Path], rate: int) -> np.ndarray:
    """(2,) wall and CPU seconds, the latter of all threads."""
    before, start = os.times(), time.perf_counter()
    way(paths, rate)
    wall, after = time.perf_counter() - start, os.times()
    return np.array([wall, after.user + after.system - before.user - before.system])


def peak_of(clips: Sequence[Path], count: int) -> int:
    """Peak resident bytes of a fresh process that loads `count` tracks."""
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    paths = list(itertools.islice(itertools.cycle(clips), count))
    child = spawn.Process(target=load_tracks, args=(paths, sender), daemon=True)
    child.start()
    sender.close()  # so that a child that dies is an EOFError here
    peak: int = receiver.recv()
    child.join()
    return peak


def load_tracks(paths: Sequence[Path], sender: Connection) -> None:
    """What a child does: load all, and tell the peak of its resident memory in bytes."""
    cut = Windowing(RATES_HZ[-1], WINDOW_SECONDS * RATES_HZ[-1])
    with Progress(f"load {len(paths)} tracks", len(paths), "tracks") as progress:
        for position, window in load_windows(paths, cut):
            window.samples.sum()
            progress.step(position + 1 - progress.done)
    sender.send(peak_bytes())


def peak_bytes() -> int:
    """Of this process. Not getrusage on Linux: a parent hands its own peak on to its children."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes


def speed_table(rates: Sequence[Rate], clips: int) -> str:
    """A row a sample rate, medians over the rounds."""
    lines = [
        f"{clips} clips of {CLIP_SECONDS:.0f} s, stereo mp3 at {KILOBITS} kb/s, {cores()} cores, "
        f"{len(rates[0].rounds)} rounds; medians",
        f"{'to Hz':>6}  {'librosa clips/s':>15}  {'cores':>5}  {'mgc clips/s':>11}  {'cores':>5}  "
        f"{'times as fast':>13}  {'(min to max)':>14}  {'largest difference':>18}",
    ]
    for rate in rates:
        rounds, ratios = rate.rounds, [each.ratio for each in rate.rounds]
        lines.append(
            f"{rate.sample_rate_hz:>6}  {clips / median(r.librosa_wall for r in rounds):>15.1f}  "
            f"{median(r.librosa_cpu / r.librosa_wall for r in rounds):>5.2f}  "
            f"{clips / median(r.mgc_wall for r in rounds):>11.1f}  "
            f"{median(r.mgc_cpu / r.mgc_wall for r in rounds):>5.2f}  {median(ratios):>13.2f}  "
            f"{f'({min(ratios):.2f} to {max(ratios):.2f})':>14}  {rate.largest_difference:>18.1e}"
        )
    return "\n".join(lines)


def memory_line(peaks: dict[int, int]) -> str:
    """The peaks in MB, and what the longer list costs more."""
    told = ", ".join(f"{count} tracks {peak / 1e6:.0f} MB" for count, peak in peaks.items())
    few, many = (peaks[count] for count in MEMORY_TRACKS)
    return (
        f"peak memory of a process that loads them at {RATES_HZ[-1]} Hz: {told}: {(many - few) / 1e6:+.0f} MB"
    )


if __name__ == "__main__":
    try:
        typer.run(main)
    except MgcError as error:
        sys.exit(f"bench_loader: {error}")
