"""The documents hold: the commands of the tutorial run, messages are quoted correctly, the example works."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
from conftest import tone
from typer.main import get_command
from typer.testing import CliRunner

from mgc.cli import app
from mgc.representations import REPRESENTATIONS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def console_blocks(text: str) -> list[tuple[list[str], list[str]]]:
    """The commands of each block and the texts they must print: `<!-- expect: ... -->` lines below it."""
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
    """Words as a shell splits and expands them; `encoder` replaces musicnn, which must be downloaded."""
    words = [
        str(encoder) if word == "musicnn" else word.replace("/musicnn-", f"/{encoder.name}-")
        for word in shlex.split(command)
    ]
    return [str(file) for word in words for file in (Path().glob(word) if "*" in word else [word])]


@pytest.mark.slow
def test_the_tutorial_runs(my_music: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(my_music.parent)
    monkeypatch.setenv("MGC_RESULTS", "results")
    # Starting processes takes longer than these folds.
    monkeypatch.setattr("mgc.training.folds.cores", lambda: 1)
    blocks = console_blocks((DOCS / "tutorial.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 11
    (my_music.parent / "new_files").mkdir()
    shutil.copy(my_music / "blues" / "blues artist 0" / "0.wav", my_music.parent / "new_files" / "new.wav")
    for commands, expected in blocks:
        output = ""
        for command in commands:
            words = shell_words(command, tiny_encoder)
            if words[0] == "export":
                monkeypatch.setenv(*words[1].split("=", 1))
                continue
            assert words.pop(0) == "mgc"
            done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, (command, done.output, done.exception)
            output += done.output
        assert expected, commands
        for line in expected:
            assert line in output, (commands, line, output)


@pytest.mark.parametrize(
    "document", [*sorted(DOCS.glob("*.md")), ROOT / "CHANGELOG.md"], ids=lambda file: file.name
)
def test_the_options_of_every_command_exist(document: Path) -> None:
    commands = dict(get_command(app).commands)  # type: ignore[attr-defined]
    for group in ("data", "cache", "runs"):
        commands |= {f"{group} {name}": command for name, command in commands[group].commands.items()}
    text = document.read_text(encoding="utf-8")
    for name, rest in re.findall(r"\bmgc (data \w+|cache \w+|runs \w+|\w+)([^`\n#]*)", text):
        options = {
            option
            for parameter in (commands[name].params if name in commands else [])
            for option in [*parameter.opts, *parameter.secondary_opts]
        }
        assert set(re.findall(r"--[a-z-]+", rest)) <= options, (name, rest)


@pytest.mark.parametrize("document", [*DOCS.glob("*.md"), ROOT / "README.md"], ids=lambda file: file.name)
def test_links_lead_to_files_and_headings(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", document.read_text(encoding="utf-8")):
        file = document.parent / target if target else document
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
            assert anchor in anchors, anchor


def too_many_bad_files(music: Path) -> list[str]:
    for number in range(4):
        (music / "blues" / "blues artist 0" / f"broken {number}.wav").write_bytes(b"no audio")
    return ["data", "info", "--data", str(music)]


def one_folder_too_high(music: Path) -> list[str]:
    return ["data", "info", "--data", str(music.parent)]


def a_column_of_a_folder(music: Path) -> list[str]:
    return ["data", "info", "--data", str(music), "--column", "label=style"]


def too_few_tracks(music: Path) -> list[str]:
    for artist in range(1, 5):
        shutil.rmtree(music / "blues" / f"blues artist {artist}")
    return ["data", "info", "--data", str(music), "--split", "cv5"]


def an_artist_in_two_sets(music: Path) -> list[str]:
    manifest = music / "tracks.csv"
    rows = [
        f"{file.relative_to(music)},{file.parts[-3]},{file.parent.name},{['test', 'train'][int(file.stem)]}"
        for file in sorted(music.glob("*/*/*.wav"))
    ]
    manifest.write_text("\n".join(["path,genre,artist,split", *rows]))
    return ["data", "info", "--data", str(manifest), "--split", "given"]


def an_encoder_that_is_not_cached(music: Path) -> list[str]:
    return ["embed", "--data", str(music), "--model", "ast"]


def weights_that_are_never_downloaded(music: Path) -> list[str]:
    return ["embed", "--data", str(music), "--model", "efficientat_mn04"]


def an_unknown_run(music: Path) -> list[str]:
    return ["runs", "show", "cnn-cv5-s0-00000000"]


@pytest.mark.parametrize(
    "mistake",
    [
        too_many_bad_files, one_folder_too_high, a_column_of_a_folder, too_few_tracks, an_artist_in_two_sets,
        an_encoder_that_is_not_cached, weights_that_are_never_downloaded, an_unknown_run,
    ],
    ids=lambda mistake: mistake.__name__,
)  # fmt: skip
def test_troubleshooting_quotes_the_message_of_a_mistake(
    mistake: Callable[[Path], list[str]], my_music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the headings, with `...`, N and M for anything, is in the message."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "no hub"))
    monkeypatch.setenv("MGC_WEIGHTS", str(tmp_path / "no weights"))
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = [
        q for bold in re.findall(r"^\*\*(.*?)\*\*", text, re.MULTILINE) for q in re.findall("`(.*?)`", bold)
    ]
    parts = [re.split(r"\.\.\.|\b[NM]\b", quote) for quote in quoted]
    patterns = [".*".join(map(re.escape, own)) for own in parts]
    done = CliRunner().invoke(app, mistake(my_music))
    assert done.exit_code == 2, done.output
    message = done.stderr.replace("\n", " ")
    assert any(re.search(pattern, message) for pattern in patterns), message


def test_the_documented_feature_can_be_added(my_music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DOCS / "add-an-encoder.md").read_text(encoding="utf-8")
    module, entry = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert "brightness" in entry
    names: dict[str, Any] = {}
    exec(module, names)
    monkeypatch.setitem(REPRESENTATIONS, "brightness", lambda workspace: names["brightness"]())
    commands = [line.strip() for line in text.splitlines() if "brightness --data" in line]
    assert len(commands) == 2
    program, *words = shlex.split(commands[0])
    assert program == "mgc"
    monkeypatch.chdir(my_music.parent)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "brightness + logistic on my_music" in done.stdout
