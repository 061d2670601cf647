"""`mgc data check`: what it finds, excludes and remembers."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import conftest
import numpy as np
import pytest
import soundfile
from conftest import here, tone
from miniature import MiniatureFma, make_fma, make_gtzan, real_clips
from typer.testing import CliRunner

from mgc.cli import app
from mgc.config import DataRecipe
from mgc.data import load
from mgc.data.checking import measure as module
from mgc.data.checking.check import Check, check
from mgc.data.checking.report import render
from mgc.data.quarantine import read_quarantine
from mgc.runs.record import load_records
from mgc.util.errors import MgcError


def recipe(source: object, **fields: Any) -> DataRecipe:
    return DataRecipe(source=str(source), **fields)


def mgc(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.stdout


def melody(seed: int, seconds: float = 6.0, rate: int = 22_050) -> np.ndarray:
    """(samples,) that an audio fingerprint can tell from another seed's: notes of random pitch and length."""
    draw = np.random.default_rng(seed)
    notes = [
        np.sin(2 * np.pi * np.cumsum(np.full(int(rate * length), pitch)) / rate)
        for length, pitch in zip(draw.uniform(0.1, 0.4, 80), draw.uniform(300, 1900, 80), strict=True)
    ]
    wave = np.concatenate(notes)[: int(seconds * rate)]
    return (0.3 * wave + 0.02 * draw.standard_normal(len(wave))).astype(np.float32)


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """root/<genre>/<file>, two genres of eight melodies."""
    for number in range(16):
        file = tmp_path / "songs" / ("jazz", "rock")[number % 2] / f"{number:02}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, melody(number), 22_050)
    return tmp_path / "songs"


def kinds(found: Check) -> dict[str, str]:
    return {finding.track_id: finding.kind for finding in found.findings}


def test_clean_music_has_no_findings(songs: Path) -> None:
    found = check(recipe(songs), workspace=here())
    assert not found.findings
    assert not found.copies
    assert (found.tracks, found.used) == (16, 16)
    assert not any(p.confound for p in found.properties)
    assert {p.name: p.accuracy for p in found.properties}["sample rate"] == 0.5
    assert read_quarantine(here().quarantine_file("songs")) == {}


def test_copies_are_found_in_any_encoding(songs: Path) -> None:
    shutil.copy(songs / "jazz/00.wav", songs / "jazz/copy.wav")
    samples, rate = soundfile.read(songs / "jazz/02.wav", dtype="int16")
    soundfile.write(songs / "jazz/lossless.flac", samples, rate)
    soundfile.write(songs / "jazz/quiet.mp3", 0.4 * melody(4)[5000:], rate)
    soundfile.write(songs / "rock/other label.ogg", melody(6), rate)
    found = check(recipe(songs), workspace=here())
    how = {group.track_ids: (group.how, group.first) for group in found.copies}
    assert how == {
        ("jazz/00.wav", "jazz/copy.wav"): ("same bytes", "jazz/00.wav"),
        ("jazz/02.wav", "jazz/lossless.flac"): ("same samples", "jazz/02.wav"),
        ("jazz/04.wav", "jazz/quiet.mp3"): ("near-duplicate", "jazz/04.wav"),
        ("jazz/06.wav", "rock/other label.ogg"): ("near-duplicate", None),
    }
    assert kinds(found) == dict.fromkeys(("jazz/06.wav", "rock/other label.ogg"), "label conflict")
    dataset = load(recipe(songs), workspace=here())
    assert len(dataset) == 18 == found.used
    for first, copy in (("00.wav", "copy.wav"), ("02.wav", "lossless.flac"), ("04.wav", "quiet.mp3")):
        assert dataset.by_id[f"jazz/{first}"].group == dataset.by_id[f"jazz/{copy}"].group
    assert check(recipe(songs, split="random"), workspace=here()).copies[0].crosses_split in (True, False)


def test_faults_are_reported_and_unusable_files_excluded(songs: Path) -> None:
    rate = 22_050
    for number in range(20, 30):
        soundfile.write(songs / f"jazz/{number}.wav", melody(number), rate)
    (songs / "jazz/00.wav").write_bytes(b"")
    (songs / "jazz/02.wav").write_text("no music" * 99)
    soundfile.write(songs / "jazz/04.wav", np.zeros(rate * 6, np.float32), rate)
    soundfile.write(songs / "jazz/06.wav", melody(6)[: rate * 2], rate)
    soundfile.write(songs / "rock/01.wav", np.clip(9 * melody(1), -1, 1), rate)
    soundfile.write(songs / "rock/03.wav", melody(3)[: rate * 5], rate)
    soundfile.write(songs / "rock/05.mp3", melody(5), rate, format="WAV")
    (songs / "rock/05.wav").unlink()
    half = melody(7)
    half[rate * 2 :] = 0
    soundfile.write(songs / "rock/07.wav", half, rate)
    whole = (songs / "rock/09.wav").read_bytes()
    (songs / "rock/09.wav").write_bytes(whole[: int(0.97 * len(whole))])
    soundfile.write(songs / "rock/11.wav", melody(11) + 0.1, rate)
    found = check(recipe(songs), workspace=here())
    assert kinds(found) == {
        "jazz/00.wav": "unusable",
        "jazz/02.wav": "unusable",
        "jazz/04.wav": "unusable",
        "jazz/06.wav": "short",
        "rock/01.wav": "clipped",
        "rock/03.wav": "shorter",
        "rock/05.mp3": "wrong suffix",
        "rock/07.wav": "mostly silent",
        "rock/09.wav": "header",
        "rock/11.wav": "DC offset",
    }
    assert {f.track_id for f in found.findings if f.excluded} == {
        f"jazz/{n}.wav" for n in ("00", "02", "04", "06")
    }
    assert (found.tracks, found.used) == (26, 22)
    assert [bad.track_id for bad in load(recipe(songs), workspace=here()).excluded] == [
        f"jazz/{n}.wav" for n in ("00", "02", "04", "06")
    ]  # and no run is stopped, since they were checked


def test_a_genre_revealed_by_its_sample_rate_is_a_confound(songs: Path) -> None:
    for number in range(1, 16, 2):
        soundfile.write(songs / f"rock/{number:02}.wav", melody(number, rate=44_100), 44_100)
    found = check(recipe(songs), workspace=here())
    by_name = {p.name: p for p in found.properties}
    assert by_name["sample rate"].confound
    assert by_name["sample rate"].accuracy == 1.0
    assert by_name["sample rate"].by_class == {"jazz": "22050 Hz (100 %)", "rock": "44100 Hz (100 %)"}
    assert not by_name["format"].confound
    text = render(found, "table")
    assert "CONFOUND" in text
    assert "The sample rate differs between genres" in text


def test_an_interrupted_check_is_resumed(songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.measure
    measured = list[Path]()

    def stopped_after(count: int) -> Callable[[Path], Any]:
        def measure(path: Path) -> Any:
            if len(measured) >= count:
                raise KeyboardInterrupt
            measured.append(path)
            return real(path)

        return measure

    monkeypatch.setattr(module, "measure", stopped_after(6))
    with pytest.raises(KeyboardInterrupt):
        check(recipe(songs), workspace=here())
    assert not here().quarantine_file("songs").exists()
    kept = len(measured)
    monkeypatch.setattr(module, "measure", stopped_after(99))
    first = check(recipe(songs), workspace=here())
    assert kept < len(measured) < 16 + kept  # some of the six were remembered
    measured.clear()
    assert check(recipe(songs), workspace=here()) == first
    assert not measured
    soundfile.write(songs / "jazz/00.wav", melody(77), 22_050)
    check(recipe(songs), workspace=here())
    assert measured == [songs / "jazz/00.wav"]


def test_a_damaged_quarantine_file_is_reported_before_the_work(
    songs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here().quarantine_file("songs").parent.mkdir(parents=True)
    here().quarantine_file("songs").write_text("track_id\nx\n")
    monkeypatch.setattr(module, "measure", lambda path: pytest.fail("inspected a file"))
    with pytest.raises(MgcError, match="has no column"):
        check(recipe(songs), workspace=here())


def test_every_format_and_what_is_written(songs: Path) -> None:
    (songs / "jazz" / "<b>|bold|\n.wav").write_bytes(b"")
    printed = json.loads(mgc("data", "check", "--data", songs, "--format", "json"))
    assert printed["tracks"] == 17
    assert printed["used"] == 16
    assert [f["kind"] for f in printed["findings"]] == ["unusable"]
    table = mgc("data", "check", "--data", songs)
    assert r"<b>|bold|\n.wav" in table
    markdown = mgc("data", "check", "--data", songs, "--format", "markdown")
    assert r"| jazz/&lt;b>\|bold\|\\n.wav | jazz | unusable |" in markdown
    folder = here().results / "songs"
    assert json.loads((folder / "check.json").read_text()) == printed
    assert (folder / "check.md").read_text().strip() == markdown.strip()


# ---- the sets that people have ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fma(tmp_path_factory: pytest.TempPathFactory) -> MiniatureFma:
    return make_fma(tmp_path_factory.mktemp("fma"), real_clips(), seconds=6.0)


def test_every_fault_of_a_miniature_fma_is_found(fma: MiniatureFma) -> None:
    found = check(recipe("fma_small"), replace(here(), data=fma.root))
    kind = kinds(found)
    expected_kinds = {"short": "short", "no audio": "unusable", "silent": "unusable", "wav": "wrong suffix"}
    for track_id, fault in fma.faults.items():
        if fault in expected_kinds:
            assert kind[track_id] == expected_kinds[fault], (track_id, fault)
    known = {f.track_id for f in found.findings if f.known}
    assert known == {"098565", "098567", "098569", "099134", "108925", "133297"}
    out = {f.track_id: f.detail for f in found.findings if f.excluded}
    for test_track, train_track in (fma.copies | fma.reencoded).items():
        assert test_track not in out
        assert "in another part of the given split" in out[train_track]
    assert found.used == 112 - len(out)
    assert found.crossing["artists"] == []
    assert len(found.crossing["albums"]) == 1
    dataset = load(recipe("fma_small"), replace(here(), data=fma.root))
    assert len(dataset) == found.used
    assert {bad.track_id for bad in dataset.excluded} == set(out)


def test_the_commands_run_on_a_miniature_fma_by_name(fma: MiniatureFma, tiny_encoder: Path) -> None:
    here = ["--data", "fma_small", "--data-root", fma.root]
    assert "[available]" in mgc("data", "list", "--data-root", fma.root)
    assert "split official" in mgc("data", "info", *here)
    mgc("data", "check", *here)
    assert "excluded: " in mgc("data", "info", *here, "--limit", "50")
    fast = ["--set", "train.epochs=2", "--set", "train.crop_seconds=2"]
    assert "split official" in mgc("baseline", *here, "--limit", "50", *fast)
    assert " computed, " in mgc("embed", "--model", tiny_encoder, *here)
    assert "split official" in mgc("probe", "--model", tiny_encoder, *here)
    mgc("probe", "--model", tiny_encoder, *here, "--split", "random")
    rows = json.loads(mgc("compare", *here, "--format", "json"))
    leaky = [row for row in rows if row["leaky"]]
    assert [(row["split"], row["system"]) for row in leaky] == [("random", "tiny-wav2vec2 + logistic")]
    by_split = {
        record.split: dict(zip(p.track_ids, p.predicted == p.labels, strict=True))
        for record in load_records("fma_small", workspace=conftest.here())
        if record.system == "tiny-wav2vec2"
        for p in [record.predictions()]
    }
    both = {*by_split["random"]} & {*by_split["official"]}  # the leak is measured on the tracks of both
    gain = [float(by_split["random"][name]) - float(by_split["official"][name]) for name in both]
    assert leaky[0]["leak"] == pytest.approx(sum(gain) / len(gain))
    assert leaky[0]["vs_baseline"] is None
    for form in ("table", "markdown", "latex", "csv"):
        text = mgc("compare", *here, "--format", form)
        assert "leaky" in text.lower()
        assert len(text.splitlines()) > 3


@pytest.mark.parametrize(
    ("layout", "suffix", "spelling"),
    [("genres", ".au", "hiphop"), ("Data/genres_original", ".wav", "hip-hop")],
)
def test_the_commands_run_on_a_miniature_gtzan(
    tmp_path: Path, tiny_encoder: Path, layout: str, suffix: str, spelling: str
) -> None:
    made = make_gtzan(tmp_path, layout, suffix, spelling, real_clips(), seconds=3.0)
    here = ["--data", "gtzan", "--data-root", tmp_path, "--set", "data.max_excluded=1.0"]
    printed = json.loads(mgc("data", "check", *here, "--format", "json"))
    jazz = next(f for f in printed["findings"] if f["track_id"] == "jazz.00054")
    assert jazz["excluded"]
    assert jazz["known"]
    assert f"gtzan: {len(made.filtered) - 1} tracks, 10 genres" in mgc("data", "info", *here)
    assert "split fault-filtered" in mgc("probe", "--model", tiny_encoder, *here)
    mgc("baseline", *here, "--set", "train.epochs=1", "--set", "train.crop_seconds=1")
    mgc("probe", "--model", tiny_encoder, *here, "--split", "random")
    text = mgc("compare", "--data", "gtzan", "--data-root", tmp_path)
    assert "random: LEAKY" in text
    assert "fault-filtered" in text
    leak = next(line for line in text.splitlines() if line.startswith("LEAKY: tiny"))
    assert "training tracks" in leak


def test_a_folder_in_a_zip(songs: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "songs")
    zipped = tmp_path / "packed.zip"
    dataset = load(recipe(zipped), workspace=here())
    assert dataset.name == "packed"
    assert [t.track_id for t in dataset.tracks] == [
        t.track_id for t in load(recipe(songs), workspace=here()).tracks
    ]
    assert {t.content for t in dataset.tracks} == {
        t.content for t in load(recipe(songs), workspace=here()).tracks
    }
    where = {path: path.stat().st_mtime_ns for path in dataset.tracks[0].path.parent.iterdir()}
    assert load(recipe(zipped), workspace=here()).hash == dataset.hash
    assert {path: path.stat().st_mtime_ns for path in where} == where  # unpacked once
    soundfile.write(songs / "jazz/new.wav", tone(0, 2.0, 8_000, 1), 8_000)
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "songs")
    assert len(load(recipe(zipped), workspace=here())) == len(dataset) + 1


def test_unknown_artists_do_not_read_as_no_leak() -> None:
    counts = {"tracks": 1, "excluded": 0, "artists": 0, "albums": 2}
    check = Check("tunes", 1, 1, "cv5", (), (), (), {"pop": counts}, {"artists": [], "albums": []}, (), ())
    for form in ("table", "markdown"):
        text = render(check, form)
        assert "artists: unknown, so a leak cannot be seen" in text and "albums: none" in text
        assert "1 track checked" in text
    found = replace(check, crossing={"artists": [], "albums": ["Blue"]})
    assert "albums: 1 (Blue)" in render(found, "table")
