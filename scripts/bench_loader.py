"""Compare the audio loader with librosa.load: `python scripts/bench_loader.py --out loader.json`.

The script renders 30-s stereo mp3 clips (44.1 kHz, 128 kb/s) from a dataset into a temporary folder. For each
sample rate, both methods decode, mix and resample the same clips in several rounds, alternating every 15
clips:

    librosa   librosa.load(path, sr=rate, mono=True, res_type="soxr_hq"), one clip after another
    mgc       mgc.audio.load_windows(paths, ...), which decodes ahead on all cores

Both resample with soxr's HQ setting, and a loop sums the samples of both. A first pass, which is not timed,
compares the samples of every clip and fills the page cache. Ratios are computed per round, so other load on
the machine affects both. `cores` is CPU time divided by wall-clock time: if that of mgc is far below the
number of cores, the machine was busy and the ratio is underestimated.

Memory is the peak of a separate process that loads 100 tracks, and of one that loads 8,000 (a few 5-s clips
repeatedly). Runs on Linux and macOS.
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
PART = 15  # clips that one method loads before the other one
MEMORY_TRACKS, MEMORY_SECONDS, MEMORY_CLIPS = (100, 8_000), 5.0, 10
# Both use the same soxr filter, on the whole clip or block by block, so only rounding may differ.
SAME = 1e-5


@dataclass(frozen=True)
class Round:
    """Wall-clock seconds and CPU seconds (of all cores) of each method for all clips."""

    librosa_wall: float
    librosa_cpu: float
    mgc_wall: float
    mgc_cpu: float

    @property
    def ratio(self) -> float:
        """Speed of mgc relative to librosa."""
        return self.librosa_wall / self.mgc_wall


@dataclass(frozen=True)
class Rate:
    """All rounds at one sample rate, and the largest difference between the samples of the methods."""

    sample_rate_hz: int
    rounds: list[Round]
    largest_difference: float


def main(
    data: Annotated[str, typer.Option(help="Dataset: a known name, a folder or a manifest.")] = "demo",
    clips: Annotated[int, typer.Option(min=1, help="Number of timed clips.")] = 60,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds per sample rate.")] = 5,
    memory: Annotated[bool, typer.Option(help="Measure peak memory too.")] = True,
    out: Annotated[Path | None, typer.Option(help="JSON file for the results. Default: none.")] = None,
) -> None:
    """Compare the speed of the loader with librosa.load, and measure its peak memory."""
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
    """Write `count` stereo mp3 files with different music in the two channels."""
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
    """(samples,) float32: the audio of the tracks from `first` on, concatenated to `seconds`."""
    samples = round(seconds * CLIP_RATE_HZ)
    blocks: list[np.ndarray] = []
    for track in itertools.islice(itertools.cycle(tracks), first, None):
        for block in decode(track.path, CLIP_RATE_HZ):
            blocks.append(block)
            if sum(map(len, blocks)) >= samples:
                return np.concatenate(blocks)[:samples]
    raise AssertionError("every track has samples, since `load` excludes the others")


def by_librosa(path: Path, rate: int) -> np.ndarray:
    """The clip, (samples,) float32, loaded by librosa."""
    import librosa

    samples: np.ndarray = librosa.load(path, sr=rate, mono=True, res_type="soxr_hq")[0]
    return samples


def use_librosa(paths: Sequence[Path], rate: int) -> None:
    """Load all clips with librosa."""
    for path in paths:
        by_librosa(path, rate).sum()


def use_mgc(paths: Sequence[Path], rate: int) -> None:
    """Load all clips with mgc."""
    for _, window in load_windows(paths, Windowing(rate, WINDOW_SECONDS * rate)):
        window.samples.sum()


def largest_difference(paths: Sequence[Path], rate: int) -> float:
    """The largest difference between the samples of both methods. The lengths may differ by one sample.

    Raises:
        MgcError: the samples differ by more than SAME.
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
                f"samples differ at {rate} Hz: {len(usual)} and {len(ours)}, by up to {largest:.2g}",
                where=paths[position],
            )
    return largest


def compare(paths: Sequence[Path], rate: int, count: int) -> Rate:
    """`count` rounds of both methods over all clips."""
    difference = largest_difference(paths, rate)
    rounds = []
    with Progress(f"librosa and mgc at {rate} Hz", count, "rounds") as progress:
        for _ in range(count):
            rounds.append(in_turn(paths, rate))
            progress.step(note=f"{rounds[-1].ratio:.2f} times as fast")
    return Rate(rate, rounds, difference)


def in_turn(paths: Sequence[Path], rate: int) -> Round:
    """Both methods over all clips, alternating every PART clips in changing order."""
    took = {use_librosa: np.zeros(2), use_mgc: np.zeros(2)}
    ways = [use_librosa, use_mgc]
    for start in range(0, len(paths), PART):
        for way in ways:
            took[way] += timed(way, paths[start : start + PART], rate)
        ways.reverse()
    return Round(*took[use_librosa].tolist(), *took[use_mgc].tolist())


def timed(way: Callable[[Sequence[Path], int], None], paths: Sequence[Path], rate: int) -> np.ndarray:
    """(2,) wall-clock seconds, and CPU seconds of all threads."""
    before, start = os.times(), time.perf_counter()
    way(paths, rate)
    wall, after = time.perf_counter() - start, os.times()
    return np.array([wall, after.user + after.system - before.user - before.system])


def peak_of(clips: Sequence[Path], count: int) -> int:
    """Peak resident memory in bytes of a new process that loads `count` tracks."""
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    paths = list(itertools.islice(itertools.cycle(clips), count))
    child = spawn.Process(target=load_tracks, args=(paths, sender), daemon=True)
    child.start()
    sender.close()  # so that recv raises EOFError if the child dies
    peak: int = receiver.recv()
    child.join()
    return peak


def load_tracks(paths: Sequence[Path], sender: Connection) -> None:
    """Load all tracks and send the peak resident memory in bytes. Runs in the child process."""
    cut = Windowing(RATES_HZ[-1], WINDOW_SECONDS * RATES_HZ[-1])
    with Progress(f"load {len(paths)} tracks", len(paths), "tracks") as progress:
        for position, window in load_windows(paths, cut):
            window.samples.sum()
            progress.step(position + 1 - progress.done)
    sender.send(peak_bytes())


def peak_bytes() -> int:
    """Peak resident memory of this process. On Linux, getrusage would include the peak of the parent."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def speed_table(rates: Sequence[Rate], clips: int) -> str:
    """One row per sample rate, with medians over the rounds."""
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
    """The peaks in MB and their difference."""
    peaks_text = ", ".join(f"{count} tracks {peak / 1e6:.0f} MB" for count, peak in peaks.items())
    few, many = (peaks[count] for count in MEMORY_TRACKS)
    return f"peak memory at {RATES_HZ[-1]} Hz: {peaks_text}: {(many - few) / 1e6:+.0f} MB"


if __name__ == "__main__":
    try:
        typer.run(main)
    except MgcError as error:
        sys.exit(f"bench_loader: {error}")
