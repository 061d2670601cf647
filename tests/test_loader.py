"""The loader under strain: order, errors, interrupts, memory. What it loads is tested in test_audio."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import tone

from mgc.audio import AudioError, Window, Windowing, load_windows, windows
from mgc.audio import loader as module

RATE = 16_000
CUT = Windowing(8_000, 8_000, left=100, right=50)


def wav(path: Path, seconds: float, seed: int = 0) -> Path:
    soundfile.write(path, tone(seed % 2, seconds, RATE, seed), RATE)
    return path


@pytest.fixture
def uneven(tmp_path: Path) -> list[Path]:
    """Clips from half a second to half a minute: the first to start is seldom the first to finish."""
    lengths = (20.0, 0.5, 3.0, 0.7, 31.0, 1.0, 0.6, 12.0, 2.0, 5.0)
    return [wav(tmp_path / f"{n}.wav", seconds, n) for n, seconds in enumerate(lengths)]


def no_worker_is_left() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


@pytest.mark.parametrize("workers", [1, 2, 16])
@pytest.mark.parametrize("ahead_seconds", [0.01, 240.0])
def test_the_order_is_kept(
    uneven: list[Path], workers: int, ahead_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "cores", lambda: workers)
    monkeypatch.setattr(module, "AHEAD_SECONDS", ahead_seconds)
    monkeypatch.setattr(module, "MIN_AHEAD_SECONDS", 0.0)
    wanted = [(n, window) for n, path in enumerate(uneven) for window in windows(path, CUT)]
    loaded = list(load_windows(uneven, CUT))
    assert [n for n, _ in loaded] == [n for n, _ in wanted]
    for (_, window), (_, expected) in zip(loaded, wanted, strict=True):
        np.testing.assert_array_equal(window.samples, expected.samples)
        assert (window.covered, window.real) == (expected.covered, expected.real)
    assert no_worker_is_left()


def test_threads_decode_side_by_side(uneven: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=5.0)

    def together(path: Path, cut: Windowing) -> Iterator[Window]:
        if path in uneven[:2]:
            both.wait()  # breaks unless another thread comes here, too
        return windows(path, cut)

    monkeypatch.setattr(module, "cores", lambda: 2)
    monkeypatch.setattr(module, "windows", together)
    assert {n for n, _ in load_windows(uneven, CUT)} == set(range(len(uneven)))


def test_decoding_goes_on_while_the_consumer_is_busy(
    uneven: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    def noted(path: Path, cut: Windowing) -> Iterator[Window]:
        yield from windows(path, cut)
        if path == uneven[-1]:
            ended.set()

    monkeypatch.setattr(module, "windows", noted)
    loader = load_windows(uneven, CUT)
    next(loader)
    assert ended.wait(timeout=5.0)
    assert len(list(loader)) > len(uneven)


def test_an_error_comes_in_its_turn_and_names_its_clip(
    uneven: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    uneven[4].write_text("no music")
    uneven[5].unlink()
    seen = []
    with pytest.raises(AudioError, match="Format not recognised") as caught:
        for position, _ in load_windows(uneven, CUT):
            seen.append(position)
            time.sleep(0.002)  # the error is there long before its turn
    assert caught.value.where == uneven[4]
    assert seen == [n for n in range(4) for _ in windows(uneven[n], CUT)]
    assert no_worker_is_left()

    def broken(path: Path, cut: Windowing) -> Iterator[Window]:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(module, "windows", broken)
    with pytest.raises(ZeroDivisionError) as caught_too:
        list(load_windows(uneven, CUT))
    assert caught_too.value.__notes__ == [f"while decoding {uneven[0]}"]
    assert no_worker_is_left()


@pytest.mark.parametrize("full", [True, False], ids=["workers wait for room", "workers decode"])
def test_a_consumer_that_stops_leaves_no_thread(
    uneven: list[Path], full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if full:
        monkeypatch.setattr(module, "AHEAD_SECONDS", 0.01)
        monkeypatch.setattr(module, "MIN_AHEAD_SECONDS", 0.0)

    def took_long_to_end(began: float) -> bool:
        assert no_worker_is_left()
        return time.monotonic() - began > 0.4  # less than a waiting worker looks up by itself

    loader = load_windows(uneven, CUT)
    next(loader)
    began = time.monotonic()
    loader.close()  # type: ignore[attr-defined]
    assert not took_long_to_end(began)
    with pytest.raises(KeyboardInterrupt):
        for position, _ in load_windows(uneven, CUT):
            if position == 2:
                began = time.monotonic()
                raise KeyboardInterrupt
    assert not took_long_to_end(began)


# ---- in a process of its own -----------------------------------------------------------------------------

LONG = """
import sys, time
from pathlib import Path
from mgc.audio import Windowing, load_windows, loader
loader.cores = lambda: 2
loader = load_windows([Path(sys.argv[1])] * 100_000, Windowing(8_000, 8_000))
for count, _ in enumerate(loader):
    if count == 12:
        print("ready", flush=True)
    {body}
"""


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Leads a process group of its own, so that whoever it leaves behind can be found."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def group_is_empty(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups")
@pytest.mark.parametrize(
    "body", ["pass", "time.sleep(0.05)"], ids=["workers decode", "workers wait for room"]
)
def test_ctrl_c_ends_the_process(tmp_path: Path, body: str) -> None:
    # The loader stands in a global name: nothing but the interrupt itself can end it.
    process = child(LONG.format(body=body), wav(tmp_path / "long.wav", 600.0))
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert process.returncode == -signal.SIGINT
        assert group_is_empty(process.pid)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


PEAK = """
import sys, time
from pathlib import Path
from mgc.audio import Windowing, load_windows, loader
loader.cores = lambda: 2
for position, window in load_windows([Path(sys.argv[1])] * int(sys.argv[2]), Windowing(32_000, 160_000)):
    time.sleep(0.002)  # slower than the workers
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak where Linux tells it")
def test_memory_is_flat(tmp_path: Path) -> None:
    """Clips of 640 kB: both lists are longer than what is held ready (48 clips); 400 more would be 256 MB."""
    file = tmp_path / "clip.wav"
    soundfile.write(file, tone(1, 5.0, 32_000, 0), 32_000)
    processes = [child(PEAK, file, count) for count in (150, 550)]
    few, many = (int(process.communicate(timeout=60)[0]) / 1024 for process in processes)
    assert many - few < 30
