"""librosa's compiled functions: once on a machine, by one process at a time, and never twice in a process."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import nobody

from mgc import compiled
from mgc.config import MgcError

USE = """
import numpy as np, os
from mgc.compiled import librosa_ready
librosa_ready()
import librosa
librosa.util.localmax(np.arange(9.0)); librosa.beat.beat_track(y=np.zeros(22050, np.float32))
print(os.environ["NUMBA_CACHE_DIR"])
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


@pytest.mark.slow
def test_processes_that_start_at_once_on_a_new_machine(tmp_path: Path) -> None:
    """Without the lock one of them, or every later one, ends in a segmentation fault."""
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    environment["XDG_CACHE_HOME"] = str(tmp_path)
    calls = [
        subprocess.Popen([sys.executable, "-c", USE], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    told = [call.communicate(timeout=400)[0].strip() for call in calls]
    assert told == [str(tmp_path / "mgc/numba")] * 3
    assert [call.returncode for call in calls] == [0, 0, 0]
    later = subprocess.run(
        [sys.executable, "-c", USE], check=False, env=environment, capture_output=True, timeout=100
    )
    assert later.returncode == 0
    assert b"compiling" not in later.stderr
