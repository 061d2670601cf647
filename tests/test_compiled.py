"""librosa's compiled functions: once on a machine, by one process at a time, and never twice in a process."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import nobody

from mgc.util import compiled
from mgc.util.errors import MgcError

SLOW = """
import os, time
from mgc.util import compiled

def tell(word):
    with open(os.environ["TOLD"], "a") as file:
        file.write(word + "\\n")

def compile_():
    tell("begins"); time.sleep(2); tell("ends")

compiled._compile = compile_
compiled.librosa_ready()
tell("returns")
"""


@pytest.fixture
def asked_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A process that has not asked yet, and its cache folder."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "numba"))
    compiled.librosa_ready.cache_clear()
    yield tmp_path / "numba"
    compiled.librosa_ready.cache_clear()


def test_compiles_once_and_says_so(
    asked_first: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(compiled, "_compile", lambda: calls.append(1))
    compiled.librosa_ready()
    compiled.librosa_ready.cache_clear()
    compiled.librosa_ready()
    assert calls == [1]
    assert capsys.readouterr().err.count("compiling librosa's functions") == 1


def test_an_interrupted_compilation_is_done_again(asked_first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(compiled, "_compile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compiled.librosa_ready()
    calls: list[int] = []
    monkeypatch.setattr(compiled, "_compile", lambda: calls.append(1))
    compiled.librosa_ready()
    assert calls == [1]


def test_a_failure_is_told_and_not_taken_for_done(asked_first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(MgcError, match="could not be compiled: exit code 1"):
        compiled.librosa_ready()
    assert not list(asked_first.glob("librosa-*"))


def test_another_processor_compiles_for_itself(asked_first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(compiled, "_compile", lambda: calls.append(1))
    compiled.librosa_ready()
    compiled.librosa_ready.cache_clear()
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_name", lambda: "another")
    compiled.librosa_ready()
    assert calls == [1, 1]


def test_a_folder_that_cannot_be_written_is_told_and_gone_round(
    asked_first: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked_first.mkdir(mode=0o500)
    monkeypatch.setattr(compiled, "_compile", lambda: None)
    with nobody():
        compiled.librosa_ready()
    assert f"{asked_first}: Permission denied; librosa" in capsys.readouterr().err
    own = Path(os.environ["NUMBA_CACHE_DIR"])
    assert own != asked_first
    assert own.is_dir()


def test_of_processes_that_start_at_once_one_compiles(tmp_path: Path) -> None:
    """Without the lock they would leave a cache that ends every later one in a segmentation fault."""
    told = tmp_path / "told"
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "TOLD": str(told)}
    calls = [subprocess.Popen([sys.executable, "-c", SLOW], env=environment) for _ in range(3)]
    assert [call.wait(timeout=60) for call in calls] == [0, 0, 0]
    # The others return when it has ended, and not before.
    assert told.read_text().split() == ["begins", "ends", "returns", "returns", "returns"]
    assert len(list((tmp_path / "mgc/numba").glob("librosa-*"))) == 1
