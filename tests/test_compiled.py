"""Compiled functions are kept between processes, and processes that compile at the same time never crash."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

# Prints whether numba loaded the function from its cache.
SOURCE = """
import numba

@numba.njit(cache=True)
def double(x):
    return 2 * x
"""
SCRIPT = """
import sys
from mgc.util.compiled import prepare_librosa

prepare_librosa()
import compiled_here

assert compiled_here.double(21) == 42
print("cached" if compiled_here.double.stats.cache_hits else "compiled", flush=True)
"""
FEATURES = """
import sys
import numpy as np
import torch
from mgc.representations import open_representation
from mgc.workspace import Workspace

for name in sys.argv[1:]:
    card = open_representation(name, Workspace())
    seconds = card.cut.sample_rate_hz * 2
    waves = torch.randn(2, card.cut.left + seconds + card.cut.right, generator=torch.manual_seed(0))
    frames, _ = card.encoder(torch.device("cpu"))(waves, torch.zeros(2), torch.full((2,), seconds))
    print(name, frames[0].double().sum().item())
"""


class Machine:
    """Starts Python processes that find no cache but the one in `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "compiled_here.py").write_text(SOURCE)
        self.environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
        paths = [str(home), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.temporary = home / "temporary"
        self.temporary.mkdir()
        self.environment |= {
            "XDG_CACHE_HOME": str(home), "TMPDIR": str(self.temporary), "PYTHONPATH": os.pathsep.join(paths)
        }  # fmt: skip

    def start(self, script: str = SCRIPT, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", script, *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self.environment, stdout=pipe, stderr=pipe, text=True)

    def run(self, script: str = SCRIPT) -> tuple[int, str, str]:
        process = self.start(script)
        out, err = process.communicate(timeout=60)
        return process.returncode, out.strip(), err

    @property
    def snapshots(self) -> list[Path]:
        return [*(self.home / "mgc/numba").glob("*")]


@pytest.fixture
def machine() -> Iterator[Machine]:
    # Not `tmp_path`: a socket of multiprocessing lies in it, and its path may have 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="mgc-") as folder:
        yield Machine(Path(folder))


def test_what_processes_compile_at_the_same_time_is_kept_once(machine: Machine) -> None:
    processes = [machine.start() for _ in range(2)]
    results = [process.communicate(timeout=60) for process in processes]
    assert [out.strip() for out, _ in results] == ["compiled", "compiled"], results
    assert "up to half a minute" in results[0][1]
    assert len(machine.snapshots) == 1
    before = machine.snapshots[0].stat().st_mtime_ns
    assert machine.run() == (0, "cached", "")
    assert machine.snapshots[0].stat().st_mtime_ns == before
    assert [*machine.temporary.iterdir()] == []


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_child_processes_keep_what_they_compile_too(machine: Machine, method: str) -> None:
    (machine.home / "child.py").write_text(f"def work():\n{textwrap.indent(SCRIPT, '    ')}")
    start = f"""
import multiprocessing, child
if __name__ == "__main__":
    process = multiprocessing.get_context({method!r}).Process(target=child.work)
    process.start()
    process.join()
"""
    assert machine.run(start) == (0, "compiled", "")
    assert machine.run()[:2] == (0, "cached")
    assert [*machine.temporary.glob("mgc-numba-*")] == []


def test_a_process_that_is_killed_while_it_compiles_damages_nothing(machine: Machine) -> None:
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert machine.run(f"{SCRIPT}\n{kill}")[:2] == (-signal.SIGKILL, "compiled")
    assert machine.snapshots == []
    assert machine.run()[:2] == (0, "compiled")
    assert machine.run()[:2] == (0, "cached")


def test_a_damaged_snapshot_is_reported_and_replaced(machine: Machine) -> None:
    machine.run()
    [snapshot] = machine.snapshots
    content = bytearray(snapshot.read_bytes())
    for damaged in (content[: len(content) // 2], content[:60] + bytes(40) + content[100:]):
        snapshot.write_bytes(damaged)
        code, out, err = machine.run()
        assert (code, out) == (0, "compiled")
        assert f"{snapshot}: " in err and "compiled again" in err
        assert machine.run() == (0, "cached", "")


def test_a_folder_that_cannot_be_written_is_reported(machine: Machine) -> None:
    (machine.home / "mgc").write_text("a file where the folder should be")
    code, out, err = machine.run()
    assert (code, out) == (0, "compiled")
    assert f"{machine.home}/mgc/numba/librosa-" in err
    assert "librosa's functions will be compiled again by the next run" in err


@pytest.mark.slow
def test_features_in_several_processes_on_a_new_machine(machine: Machine) -> None:
    names = ["stats57", "fma518", "chroma", "cqt"]
    processes = [machine.start(FEATURES, *order) for order in (names, names[::-1], names)]
    results = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], results
    values = [dict(line.split() for line in out.splitlines()) for out, _ in results]
    assert values[0] == values[1] == values[2]
    assert np.isfinite([float(value) for value in values[0].values()]).all()
    assert len(machine.snapshots) == 1
