"""The documents do as they say: the tutorial's commands run in order, the hand-made feature can be added."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from conftest import tone
from typer.testing import CliRunner

from mgc.cli import app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def console_blocks(text: str) -> list[tuple[list[str], list[str]]]:
    """Commands and what they must say, a pair a block: `<!-- expect: ... -->` lines stand below it."""
    blocks = re.findall(r"```console\n(.*?)```\n((?:<!-- expect: .*? -->\n)*)", text, re.DOTALL)
    return [
        (re.findall(r"^\$ (.*)$", body, re.MULTILINE), re.findall(r"<!-- expect: (.*?) -->", expected))
        for body, expected in blocks
    ]


@pytest.fixture
def my_music(tmp_path: Path) -> Path:
    """Two genres of five artists with two clips of 3 s each."""
    for genre, name in enumerate(("blues", "techno")):
        for artist in range(5):
            folder = tmp_path / "my_music" / name / f"{name} artist {artist}"
            folder.mkdir(parents=True)
            for number in range(2):
                soundfile.write(
                    folder / f"{number}.wav", tone(genre, 3.0, 16_000, 10 * artist + number), 16_000
                )
    return tmp_path / "my_music"


def shell_words(command: str, encoder: Path) -> list[str]:
    """As a shell splits them, stars filled in; musicnn, which is not on every machine, is `encoder`."""
    words = [
        str(encoder) if word == "musicnn" else word.replace("/musicnn-", f"/{encoder.name}-")
        for word in shlex.split(command)
    ]
    return [str(file) for word in words for file in (Path().glob(word) if "*" in word else [word])]


@pytest.mark.slow
def test_the_tutorial_runs(my_music: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(my_music.parent)
    monkeypatch.setenv("MGC_RESULTS", "results")
    monkeypatch.setattr(
        "mgc.training.folds.cores", lambda: 1
    )  # starting processes takes longer than these folds
    blocks = console_blocks((DOCS / "tutorial.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 11
    (my_music.parent / "new_files").mkdir()
    shutil.copy(my_music / "blues" / "blues artist 0" / "0.wav", my_music.parent / "new_files" / "new.wav")
    for commands, expected in blocks:
        told = ""
        for command in commands:
            words = shell_words(command, tiny_encoder)
            if words[0] == "export":
                monkeypatch.setenv(*words[1].split("=", 1))
                continue
            assert words.pop(0) == "mgc"
            done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, (command, done.output, done.exception)
            told += done.output
        assert expected, commands
        for line in expected:
            assert line in told, (commands, line, told)


def test_the_messages_that_troubleshooting_names_are_those_of_the_code() -> None:
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    messages = [
        m for bold in re.findall(r"^\*\*(.*?)\*\*", text, re.MULTILINE) for m in re.findall("`(.*?)`", bold)
    ]
    source = "".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "src").rglob("*.py")))
    source = re.sub(r'"\s+f?"', "", source)  # a message over several lines
    source = re.sub(r"\{[^{}]*\}", "...", source)
    # What stands for something else in a message: a number, a name, what the system says.
    parts = [
        p.strip(" ,():")
        for m in messages
        for p in re.split(r"\.\.\.|'ast'|\b[NM]\b|\.m4a|\b5\b|(?<=used|tten): .*", m)
    ]
    parts = [part for part in parts if len(part) > 3]
    assert len(parts) >= 15
    for part in parts:
        assert part in source, part


def test_the_feature_made_by_hand_can_be_added(my_music: Path, tmp_path: Path) -> None:
    text = (DOCS / "add-an-encoder.md").read_text(encoding="utf-8")
    module, lines = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    imported, entry = lines.splitlines()
    package = tmp_path / "src" / "mgc"
    shutil.copytree(ROOT / "src" / "mgc", package, ignore=shutil.ignore_patterns("__pycache__"))
    folder = package / "representations"
    (folder / "brightness.py").write_text(module, encoding="utf-8")
    table = (folder / "__init__.py").read_text(encoding="utf-8")
    for like, line in (
        ("from mgc.representations.features.frames import chroma, cqt", imported),
        ('    "chroma": chroma,', entry),
    ):
        assert like in table
        table = table.replace(like, f"{like}\n{line}")
    (folder / "__init__.py").write_text(table, encoding="utf-8")
    commands = [line.strip() for line in text.splitlines() if "brightness --data" in line]
    assert len(commands) == 2
    command = [sys.executable, "-m", *shlex.split(commands[0])]
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "brightness + logistic on my_music" in done.stdout
