"""Whatever the data commands are given, they end with words, and account for every file."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from fuzz_data import Guard, Ran, faults, fuzz, remove


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder that is gone afterwards: pytest could not remove one with 1,200 levels."""
    yield tmp_path / "fuzz"
    remove(tmp_path / "fuzz")


def test_some_inputs_of_every_kind(home: Path) -> None:
    report = fuzz(home, seed=0, count=60, encode=False)
    assert report.inputs == 60 and len(report.outcomes) == 17
    assert not report.failures, report.text()


@pytest.mark.slow
def test_a_third_of_all_inputs(home: Path) -> None:
    report = fuzz(home, seed=1, count=450)
    assert report.inputs == 450
    assert not report.failures, report.text()


def test_the_judge_sees_faults() -> None:
    good = Ran(["data", "info"], 0, 10**8, "music: 3 tracks\n", "", [])
    assert faults(good) == []
    for changed, words in (
        ({"code": 1, "err": "Traceback (most recent call last):\nKeyError: 3"}, "KeyError: 3"),
        ({"code": -11}, "exit code -11"),
        ({"code": 1, "err": "Timeout (0:01:00)!\n"}, "no answer"),
        ({"code": 2}, "without words"),
        ({"peak": 3 * 10**9}, "3.0 GB"),
        ({"out": "a\x1b[31mred"}, "x1b"),
        ({"out": "left out: 1\nFORGED: all is well"}, "a line of its own"),
        ({"broke": ["open /etc/passwd"]}, "touched"),
    ):
        (wrong,) = faults(Ran(**{**vars(good), **changed}))
        assert words in wrong


def test_the_guard_sees_writes_outside(tmp_path: Path) -> None:
    guard = Guard()
    guard.allowed = (f"{tmp_path}{os.sep}",)
    guard("open", (str(tmp_path / "here"), "w", os.O_WRONLY | os.O_CREAT))
    guard("open", ("/etc/passwd", "r", os.O_RDONLY))
    assert guard.broke == []
    (tmp_path / "link").symlink_to("/etc")
    guard("open", (str(tmp_path / "link" / "passwd"), "w", os.O_WRONLY))
    guard("os.rename", (str(tmp_path / "a"), str(tmp_path / ".." / "b"), -1, -1))
    guard("socket.connect", (None, ("127.0.0.1", 80)))
    assert [text.split()[0] for text in guard.broke] == ["open", "os.rename", "socket.connect"]
