"""The demo set: the same seed gives the same samples, nothing is made twice, nothing is left behind."""

import csv
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mgc.data.sources import demo
from mgc.data.sources.demo import excerpts, styles
from mgc.util.errors import MgcError

needs_extra = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("music21", "symusic", "pretty_midi")),
    reason='needs pip install "mgc[demo]"',
)
SMALL = {"pieces_per_style": 2, "styles": ("bach_chorale", "fiddle_tune", "palestrina")}


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
    return demo.render(tmp_path_factory.mktemp("small") / "demo", workers=1, **SMALL)


@needs_extra
def test_clips_are_full_of_music_and_equally_loud(small: Path) -> None:
    assert [row["genre"] for row in rows(small)] == [style for style in SMALL["styles"] for _ in range(2)]
    for row in rows(small):
        assert row["path"].startswith(row["genre"] + "/") and row["artist"] and row["title"]
        audio, rate = soundfile.read(small.parent / row["path"])
        assert soundfile.info(small.parent / row["path"]).subtype == "PCM_16"
        assert rate == demo.SAMPLE_RATE_HZ and audio.shape == (demo.CLIP_SECONDS * rate,)
        assert 20 * np.log10(np.sqrt(np.mean(audio**2))) == pytest.approx(demo.LOUDNESS_DBFS, abs=0.1)
        assert 0.05 < np.abs(audio).max() < 1
        blocks = audio.reshape(-1, int(1.5 * rate))  # (8, 1.5 s)
        assert (np.sqrt(np.mean(blocks**2, axis=1)) > 0.005).all()
    assert not list(small.parent.rglob("*.part"))


@needs_extra
def test_every_style_gives_a_clip_and_two_processes_give_the_samples_of_one(
    small: Path, tmp_path: Path
) -> None:
    again = demo.render(tmp_path / "again", workers=2, **SMALL)
    assert samples(again) == samples(small) and again.read_bytes() == small.read_bytes()
    rest = [style for style in demo.STYLES if style not in SMALL["styles"]]
    assert len(rows(demo.render(tmp_path / "rest", workers=1, pieces_per_style=1, styles=rest))) == len(rest)


@needs_extra
def test_it_goes_on_where_it_stopped(tmp_path: Path, small: Path) -> None:
    folder = tmp_path / "demo"
    manifest = demo.render(folder, workers=1, **SMALL)
    complete, text = samples(manifest), manifest.read_bytes()
    manifest.unlink()
    kept, *lost = sorted(folder.glob("*/*.flac"))
    for clip in lost:
        clip.unlink()
    (kept.parent / ".0123456789abcdef0123456789abcdef.part").write_bytes(b"half a clip")
    made = kept.stat().st_mtime_ns
    demo.render(folder, workers=1, **SMALL)
    assert kept.stat().st_mtime_ns == made
    assert samples(manifest) == complete and manifest.read_bytes() == text
    assert not list(folder.rglob("*.part"))


@needs_extra
def test_another_seed_replaces_the_set(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    one = {"workers": 1, "pieces_per_style": 1, "styles": ("fiddle_tune",)}
    first = samples(demo.render(folder, seed=0, **one))
    second = samples(demo.render(folder, seed=1, **one))
    assert first != second
    assert {clip.relative_to(folder).as_posix() for clip in folder.glob("*/*.flac")} == set(second)
    assert json.loads((folder / "demo.json").read_text())["plan"]["seed"] == 1


@needs_extra
def test_a_complete_set_is_returned_at_once_without_music21(small: Path) -> None:
    call = f"demo.render(Path({str(small.parent)!r}), **{SMALL!r})"
    script = f"import sys; from pathlib import Path; from mgc.data import demo; {call}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"music21", "symusic", "pretty_midi"} & set(done.stdout.split())
    before = time.monotonic()
    demo.render(small.parent, **SMALL)
    assert time.monotonic() - before < 0.1


@needs_extra
@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="process groups")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_parent(tmp_path: Path, how: signal.Signals) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom mgc.data import demo\n"
        f"if __name__ == '__main__':\n    demo.render(Path({str(tmp_path / 'demo')!r}), workers=2)\n"
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
    with pytest.raises(MgcError, match=r'needs music21(.|\n)*pip install "mgc\[demo\]"'):
        demo.render(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


@needs_extra
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(MgcError, match=r"cannot be written(.|\n)*file"):
        demo.render(tmp_path / "file" / "demo")


def test_an_unknown_style_is_corrected(tmp_path: Path) -> None:
    with pytest.raises(MgcError, match="did you mean 'palestrina'"):
        demo.render(tmp_path, styles=["palestina"])


@needs_extra
def test_every_style_has_more_pieces_than_are_drawn() -> None:
    for style in demo.STYLES:
        assert len(styles.catalogue(styles.find_corpus(), style)) > demo.PIECES_PER_STYLE


def test_treatments_are_evenly_spread() -> None:
    treatments = excerpts.draw_treatments(0, 40)
    assert sorted(t.program for t in treatments) == sorted(excerpts.INSTRUMENTS * 2)
    assert {t.semitones for t in treatments} == set(range(-5, 7))
    assert all(80 < t.quarters_a_minute < 140 for t in treatments)


def test_excerpts_are_whole_and_without_long_rests() -> None:
    treatment = excerpts.Treatment(program=0, semitones=2, quarters_a_minute=120.0)
    line = [excerpts.Sound(i, i + 1, 60, 0) for i in range(60)]
    clip = excerpts.excerpt(line, treatment, random.Random(0))
    assert len(clip) == 24 and clip[0].start == 0 and {s.pitch for s in clip} == {62}
    assert clip[-1].end == pytest.approx(demo.CLIP_SECONDS)
    with pytest.raises(excerpts.PassedOverError, match="too short"):
        excerpts.excerpt(line[:20], treatment, random.Random(0))
    with pytest.raises(excerpts.PassedOverError, match="rest"):
        excerpts.excerpt([s for s in line if s.start % 20 < 15], treatment, random.Random(0))
    low = [excerpts.Sound(s.start, s.end, 20, 0) for s in line]
    with pytest.raises(excerpts.PassedOverError, match="compass"):
        excerpts.excerpt(low, treatment, random.Random(0))


def test_a_first_ending_is_left_out() -> None:
    line = [excerpts.Sound(i, i + 1, 60 + i, 0) for i in range(5)]
    kept = excerpts._leave_out(line, [(1.0, 2.0)])
    assert [(s.start, s.pitch) for s in kept] == [(0, 60), (1, 62), (2, 63), (3, 64)]


@needs_extra
def test_ties_and_first_endings_are_read_from_a_score(tmp_path: Path) -> None:
    tune = b"X:1\nT:Test -- Reel\nM:4/4\nL:1/4\nK:C\n|: CDEF- | F2 {g}G2 |1 A4 :|2 B4 |]\n"
    sounds = excerpts.sounds_of(tmp_path / "test.abc", tune, random.Random(0))
    assert [(s.start, s.end, s.pitch) for s in sounds] == [
        (0, 1, 60), (1, 2, 62), (2, 3, 64), (3, 6, 65), (6, 8, 67), (8, 12, 71),
    ]  # fmt: skip


def test_groups_keep_together_what_belongs_together() -> None:
    assert styles._quartet(Path("c/haydn/opus1no1/movement2.mxl"), b"") == (
        "Haydn: String Quartet op. 1 no. 1", "Haydn: String Quartet op. 1 no. 1, movement 2",
    )  # fmt: skip
    assert styles._quartet(Path("c/beethoven/opus74.mxl"), b"")[0] == "Beethoven: String Quartet op. 74"
    reel, strathspey = (styles._fiddle_tune(Path("x.abc"), b"X:1\nT:%s\n" % t) for t in (
        b"Money Musk -- Reel", b"MONEY MUSK -- STRATHSPEY",
    ))  # fmt: skip
    assert reel[0] == strathspey[0] == "Fiddle tune: Money Musk"
    a, b = (styles._trecento(Path(f"PMFC_12_10{v}-Credo PMFC12.10{v}.xml"), b"")[0] for v in "ab")
    assert a == b != styles._trecento(Path("PMFC_12_11a-Credo PMFC12.11a.xml"), b"")[0]
    a, b = (styles._trecento(Path(f"PMFC_06-Jacopo-03{v}-Di_Novo.xml"), b"")[0] for v in "ab")
    assert a == b


@needs_extra
@pytest.mark.slow
def test_the_whole_set(tmp_path: Path) -> None:
    manifest = demo.render(tmp_path, workers=2)
    made = rows(manifest)
    for style in demo.STYLES:
        mine = [row for row in made if row["genre"] == style]
        assert len(mine) == demo.PIECES_PER_STYLE
        assert len({row["artist"] for row in mine}) >= 10
    assert len({row["path"] for row in made}) == len(made)
    passed_over = json.loads((tmp_path / "demo.json").read_text(encoding="utf-8"))["passed_over"]
    assert all(entry["why"] for entry in passed_over) and len(passed_over) < 40
