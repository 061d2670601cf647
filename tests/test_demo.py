"""The demo dataset and `mgc demo`: the same samples every time, a run that `mgc predict` can use."""

import csv
import importlib.util
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import here
from typer.testing import CliRunner

from mgc.cli import app
from mgc.config import BaselineRecipe, TrainRecipe
from mgc.data.sources import demo
from mgc.data.sources.demo import performance, scores, styles
from mgc.util.errors import MgcError

needs_extra = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("music21", "symusic", "pretty_midi")),
    reason='needs pip install "mgc[demo]"',
)
PIECES = 6  # in each style: enough groups for five folds


def rows(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def samples(manifest: Path) -> dict[str, bytes]:
    return {
        row["path"]: soundfile.read(manifest.parent / row["path"], dtype="int16")[0].tobytes()
        for row in rows(manifest)
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo.render(tmp_path_factory.mktemp("small") / "demo", processes=1, pieces_per_style=PIECES)


@needs_extra
def test_clips_are_full_of_music_and_equally_loud(small: Path) -> None:
    assert [row["genre"] for row in rows(small)] == [style for style in demo.STYLES for _ in range(PIECES)]
    for row in rows(small):
        assert row["path"].startswith(row["genre"] + "/") and row["artist"] and row["title"]
        audio, rate = soundfile.read(small.parent / row["path"])
        assert soundfile.info(small.parent / row["path"]).subtype == "PCM_16"
        assert rate == demo.SAMPLE_RATE_HZ and audio.shape == (demo.CLIP_SECONDS * rate,)
        assert 20 * np.log10(np.sqrt(np.mean(audio**2))) == pytest.approx(demo.LOUDNESS_DBFS, abs=0.5)
        assert 0.05 < np.abs(audio).max() < 1
        blocks = audio.reshape(-1, int(1.5 * rate))  # (8, 1.5 s)
        assert (np.sqrt(np.mean(blocks**2, axis=1)) > 0.003).all(), row["path"]
    assert not list(small.parent.rglob("*.part"))


@needs_extra
def test_the_manifest_names_the_instruments(small: Path) -> None:
    for style in demo.STYLES:
        ensembles = Counter(row["instruments"] for row in rows(small) if row["genre"] == style)
        assert len(ensembles) >= min(PIECES, len(demo.STYLES[style].ensembles))
        assert {name for ensemble in ensembles for name in ensemble.split("|")} <= set(styles.PROGRAMS)
    quartets = {row["instruments"] for row in rows(small) if row["genre"] == "string_quartet"}
    assert "cello|viola|violin" in quartets


@needs_extra
def test_two_processes_render_the_samples_of_one(tmp_path: Path) -> None:
    one = demo.render(tmp_path / "one", processes=1, pieces_per_style=1)
    two = demo.render(tmp_path / "two", processes=2, pieces_per_style=1)
    assert samples(one) == samples(two) and one.read_bytes() == two.read_bytes()
    assert len(rows(one)) == len(demo.STYLES)


@needs_extra
def test_an_incomplete_or_older_set_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    manifest = demo.render(folder, processes=1, pieces_per_style=1)
    complete, text = samples(manifest), manifest.read_bytes()
    manifest.unlink()
    (folder / "palestrina" / ".0123456789abcdef.part").write_bytes(b"half a clip")
    (folder / "palestrina" / "older.flac").write_bytes(b"a clip of an older revision")
    (folder / "mine.flac").write_bytes(b"not a clip of the demo dataset")
    demo.render(folder, processes=1, pieces_per_style=1)
    assert samples(manifest) == complete and manifest.read_bytes() == text
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {*complete, "tracks.csv", "demo.json", "mine.flac"}


@needs_extra
def test_a_complete_set_is_returned_at_once_without_music21(small: Path) -> None:
    call = f"demo.render(Path({str(small.parent)!r}), pieces_per_style={PIECES})"
    imports = "import sys; from pathlib import Path; from mgc.data.sources import demo"
    script = f"{imports}; {call}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"music21", "symusic", "pretty_midi"} & set(done.stdout.split())
    before = time.monotonic()
    demo.render(small.parent, pieces_per_style=PIECES)
    assert time.monotonic() - before < 0.1


@needs_extra
@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="process groups")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_parent(tmp_path: Path, how: signal.Signals) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom mgc.data.sources import demo\n"
        f"if __name__ == '__main__':\n    demo.render(Path({str(tmp_path / 'demo')!r}), processes=2)\n"
    )
    process = subprocess.Popen([sys.executable, script], start_new_session=True, stderr=subprocess.DEVNULL)
    wait_until(lambda: any((tmp_path / "demo").glob("*/*.flac")))
    (process.send_signal if how == signal.SIGKILL else lambda s: os.killpg(process.pid, s))(how)
    assert process.wait(timeout=30) != 0
    wait_until(lambda: not group_lives(process.pid))
    assert not (tmp_path / "demo" / "tracks.csv").exists()
    for clip in (tmp_path / "demo").glob("*/*.flac"):
        assert soundfile.info(clip).duration == demo.CLIP_SECONDS


def wait_until(so: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not so():  # type: ignore[operator]
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_missing_extra_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "music21", None)
    with pytest.raises(MgcError, match=r'not installed: music21(.|\n)*pip install "mgc\[demo\]"'):
        demo.render(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


@needs_extra
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("MGC_DATA_ROOT", str(tmp_path / "file"))
    done = CliRunner().invoke(app, ["data", "info", "--data", "demo"])
    assert done.exit_code == 2 and f"where: {tmp_path / 'file'}" in done.stderr


@needs_extra
def test_every_style_has_more_pieces_than_are_drawn() -> None:
    for style in demo.STYLES:
        assert len(styles.catalogue(styles.find_corpus(), style)) > demo.PIECES_PER_STYLE


def test_excerpts_are_whole_and_without_long_rests() -> None:
    def cut(notes: list[scores.Note], seconds_per_quarter: float = 0.5) -> list[scores.Note] | None:
        return performance.excerpt(notes, seconds_per_quarter, random.Random(0))

    line = [scores.Note(i, i + 1, 60, 0) for i in range(60)]
    clip = cut(line)
    assert clip is not None and len(clip) == 24
    assert clip[0].start == 0 and clip[-1].end == pytest.approx(demo.CLIP_SECONDS)
    assert len(cut(line, 1.0) or ()) == 12
    assert cut([]) is None
    assert cut(line[:20]) is None  # shorter than a clip
    assert cut([note for note in line if note.start % 20 < 15]) is None  # rests of 2.5 s
    assert cut([note._replace(pitch=20) for note in line]) is None  # below every instrument


def test_the_lowest_note_of_a_part_decides_which_string_instrument_plays_it() -> None:
    notes = [scores.Note(0, 1, pitch, part) for part, pitch in enumerate((76, 55, 50, 36))]
    played = performance.assign([*notes, scores.Note(1, 2, 80, 3)], ("strings", "church organ"))
    pitches = {name: [note.pitch for note in own] for name, own in played.items()}
    assert pitches == {
        "violin": [76, 55], "viola": [50], "cello": [36, 80], "church organ": [76, 55, 50, 36, 80],
    }  # fmt: skip


@needs_extra
def test_ties_and_repeats_are_read_from_abc() -> None:
    tune = b"X:1\nT:Test -- Reel\nM:6/8\nL:1/4\nK:C\n|: C3- | C2 {g}D |1 E3 :|2 F3 |]\n"
    notes, beat = scores.read_score(Path("test.abc"), tune)
    assert beat == 1.5
    assert [(n.start, n.end, n.pitch) for n in notes] == [
        (0, 5, 60), (5, 6, 62), (6, 9, 64), (9, 14, 60), (14, 15, 62), (15, 18, 65),
    ]  # fmt: skip


@needs_extra
def test_musicxml_is_read_as_music21_reads_it() -> None:
    """Chords, several voices, ties over bar lines, tuplets and a pick-up, in real scores."""
    from music21 import converter

    corpus = styles.find_corpus()
    for name in ("mozart/k458/movement2.mxl", "monteverdi/madrigal.3.7.mxl", "bach/bwv301.mxl"):
        raw = scores.read_bytes(corpus / name)
        ours, _ = scores.read_score(corpus / name, raw)
        parts = converter.parse(corpus / name, forceSource=True).stripTies().parts
        theirs = Counter(
            (round(float(element.offset), 3), pitch.midi, number)
            for number, part in enumerate(parts)
            for element in part.flatten().notes
            if not element.duration.isGrace and "Harmony" not in element.classes
            for pitch in element.pitches
        )
        assert Counter((round(note.start, 3), note.pitch, note.part) for note in ours) == theirs, name


def labels(style: str, path: str, raw: bytes = b"") -> tuple[str, str]:
    return demo.STYLES[style].labels(Path(path), raw)


def test_groups_keep_together_what_belongs_together() -> None:
    assert labels("string_quartet", "c/haydn/opus1no1/movement2.mxl") == (
        "Haydn: String Quartet op. 1 no. 1", "Haydn: String Quartet op. 1 no. 1, movement 2",
    )  # fmt: skip
    assert labels("string_quartet", "c/beethoven/opus74.mxl")[0] == "Beethoven: String Quartet op. 74"
    tunes = (b"Money Musk -- Reel", b"MONEY MUSK -- STRATHSPEY")
    reel, strathspey = (labels("fiddle_tune", "x.abc", b"X:1\nT:%s\n" % tune) for tune in tunes)
    assert reel[0] == strathspey[0] == "Fiddle tune: Money Musk"
    a, b = (labels("trecento", f"PMFC_12_10{v}-Credo PMFC12.10{v}.xml")[0] for v in "ab")
    assert a == b != labels("trecento", "PMFC_12_11a-Credo PMFC12.11a.xml")[0]
    a, b = (labels("trecento", f"PMFC_06-Jacopo-03{v}-Di_Novo.xml")[0] for v in "ab")
    assert a == b


@needs_extra
@pytest.mark.slow
def test_the_whole_set(tmp_path: Path) -> None:
    manifest = demo.render(tmp_path, processes=2)
    made = rows(manifest)
    for style in demo.STYLES:
        mine = [row for row in made if row["genre"] == style]
        assert len(mine) == demo.PIECES_PER_STYLE
        assert len({row["artist"] for row in mine}) >= 10
    assert len({row["path"] for row in made}) == len(made)


@needs_extra
@pytest.mark.slow
def test_the_command_ends_with_a_table_and_commands_that_work(
    small: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["mgc"])
    shutil.copytree(small.parent, here().data / "demo")
    monkeypatch.setattr(demo, "render", partial(demo.render, pieces_per_style=PIECES))
    monkeypatch.setattr("mgc.experiments.study.DEMO_ENCODER", str(tiny_encoder))
    short = partial(BaselineRecipe, train=TrainRecipe(epochs=1))
    monkeypatch.setattr("mgc.experiments.study.BaselineRecipe", short)
    first = CliRunner().invoke(app, ["demo", "--device", "cpu"])
    assert first.exit_code == 0, first.output
    table, _, commands = first.stdout.partition("\n\nNext:\n")
    assert table.startswith("system") and " against cnn + epochs 1 (" in table
    arguments = [shlex.split(line, comments=True)[1:] for line in commands.splitlines()]
    assert [words[0] for words in arguments] == ["predict", "report", "probe"]
    for words in arguments[:2]:
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
    again = CliRunner().invoke(app, ["demo", "--device", "cpu"])
    assert again.stdout == first.stdout
