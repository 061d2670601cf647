"""Altered clips have the named property, and trained models are evaluated on them."""

import csv
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import here, tone, write_music
from typer.testing import CliRunner, Result

from mgc.audio import inspect, load
from mgc.audio.effects import RATE_HZ, Alteration
from mgc.cli import app
from mgc.config import DataRecipe
from mgc.data import load as load_data
from mgc.evaluate import Predictions
from mgc.experiments.robust import _rows, altered_files, format_results
from mgc.representations import ModelSpec, open_representation
from mgc.representations.cache.embeddings import EmbeddingCache
from mgc.representations.derived import altered
from mgc.runs.record import RunRecord, load_records
from mgc.util.errors import MgcError

SECONDS = 12.0


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, str]:
    """A clip at another rate than that of alterations, its samples at that rate, and its content hash."""
    file = tmp_path_factory.mktemp("clip") / "clip.wav"
    soundfile.write(file, tone(1, SECONDS, 22_050, 0), 22_050)
    return file, load(file, RATE_HZ), inspect(file).content


def written(clip: tuple[Path, np.ndarray, str], text: str, folder: Path, content: str = "") -> np.ndarray:
    Alteration.parse(text).write(clip[0], content or clip[2], folder / "out.caf")
    assert [file.name for file in folder.iterdir()] == ["out.caf"]
    assert soundfile.info(folder / "out.caf").samplerate == RATE_HZ
    return load(folder / "out.caf")


def power_db(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.square(samples, dtype=np.float64).mean()))


@pytest.mark.parametrize("snr", [20, 0])
def test_noise_has_its_level_and_depends_on_the_clip_only(clip, snr, tmp_path) -> None:
    noisy = written(clip, f"noise={snr}", tmp_path)
    noise = noisy - clip[1]
    assert power_db(clip[1]) - power_db(noise) == pytest.approx(snr, abs=0.05)
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    low, high = spectrum[: len(spectrum) // 2].mean(), spectrum[len(spectrum) // 2 :].mean()
    assert low == pytest.approx(high, rel=0.05)
    assert np.array_equal(noisy, written(clip, f"noise={snr}", tmp_path))
    other = written(clip, f"noise={snr}", tmp_path, content="ab" * 16) - clip[1]
    assert abs(np.corrcoef(noise, other)[0, 1]) < 0.01


def test_gain_is_clipped_at_full_scale(clip, tmp_path) -> None:
    assert np.allclose(written(clip, "gain=-20", tmp_path), clip[1] / 10, atol=1e-6)
    loud = written(clip, "gain=20", tmp_path)
    assert np.abs(loud).max() == 1.0
    assert np.allclose(loud, np.clip(10 * clip[1], -1, 1), atol=1e-5)


# 64 kb/s has a header that takes the delay off, 32 has none, 16 is at half the rate.
@pytest.mark.parametrize("kbits", [64, 32, 16])
def test_mp3_has_its_bitrate_and_comes_back_in_place(clip, kbits, tmp_path, monkeypatch) -> None:
    sizes = []
    unlink = Path.unlink

    def weigh(self: Path, missing_ok: bool = False) -> None:
        sizes.append(self.stat().st_size)
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", weigh)
    back = written(clip, f"mp3={kbits}", tmp_path)
    assert sizes[-1] * 8 / SECONDS / 1000 == pytest.approx(kbits, rel=0.03)
    assert len(back) == len(clip[1])
    product = np.fft.rfft(back) * np.conj(np.fft.rfft(clip[1]))
    assert np.argmax(np.fft.irfft(product)) == 0  # the two are in step to the sample


@pytest.mark.parametrize(
    ("text", "kept_hz", "gone_hz"), [("lowpass=2000", 500, 6000), ("highpass=300", 1200, 75)]
)
def test_filters_take_off_48_db_an_octave_and_more(text, kept_hz, gone_hz, tmp_path) -> None:
    t = np.arange(RATE_HZ * 4) / RATE_HZ
    for hz, expected in ((kept_hz, 0.0), (gone_hz, -70.0)):
        file = tmp_path / f"{hz}.wav"
        soundfile.write(file, 0.5 * np.sin(2 * np.pi * hz * t), RATE_HZ, subtype="FLOAT")
        Alteration.parse(text).write(file, "0" * 32, tmp_path / "out.caf")
        change = power_db(load(tmp_path / "out.caf")[RATE_HZ:]) - power_db(load(file)[RATE_HZ:])
        assert change == pytest.approx(0.0, abs=0.2) if expected == 0 else change < expected


def test_crops_are_ten_seconds_of_the_clip(clip, tmp_path) -> None:
    ten = 10 * RATE_HZ
    begin = round((len(clip[1]) - ten) / 2)
    for word, start in (("first", 0), ("middle", begin), ("last", len(clip[1]) - ten)):
        assert np.array_equal(written(clip, f"crop={word}", tmp_path), clip[1][start : start + ten])


@pytest.mark.parametrize(
    "text", ["reverb=1", "noise", "noise=loud", "noise=nan", "noise=200", "mp3=33", "mp3=16.5", "crop=second"]
)
def test_an_unknown_effect_or_value_is_refused(text) -> None:
    with pytest.raises(MgcError) as error:
        Alteration.parse(text)
    assert error.value.fix


def test_each_alteration_has_a_cache_key_of_its_own_and_no_encoder() -> None:
    plain = open_representation("logmel", workspace=here())
    cards = [altered(plain, Alteration.parse(text)) for text in ("noise=10", "noise=20", "mp3=32")]
    assert len({plain.key, *(card.key for card in cards)}) == 4
    assert open_representation(cards[0].spec, here()) == cards[0]
    assert (
        open_representation(ModelSpec("logmel", alteration=Alteration("noise", 10.0)), here()).key
        == cards[0].key
    )
    with pytest.raises(MgcError, match="only used to evaluate"):
        cards[0].load(None)  # type: ignore[arg-type]


def mgc(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def rows_of(*words: object) -> list[dict[str, str]]:
    """The rows of `mgc robust --format csv`."""
    done = mgc("robust", *words, "--format", "csv")
    assert done.exit_code == 0, (done.output, done.exception)
    return [*csv.DictReader(done.stdout.splitlines())]


def refused(*words: object) -> str:
    done = mgc("robust", *words)
    assert done.exit_code == 2, (done.output, done.exception)
    return done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Music, and the results and the cache of one network that was trained on it."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MGC_RESULTS", str(folder / "mgc_results"))
        patch.setenv("MGC_EMBEDDINGS_CACHE", str(folder / "mgc_embeddings_cache"))
        write_music(folder / "music", 3.0)
        done = mgc("baseline", "--data", folder / "music", "--split", "holdout", "--set", "train.epochs=1")
        assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> RunRecord:
    """The record of the network; results and cache are a copy for this test, the music is not."""
    for name in ("mgc_results", "mgc_embeddings_cache"):
        shutil.copytree(trained / name, tmp_path / name)
    return next(record for record in load_records("music", here()) if record.kind == "baseline")


def test_a_run_is_evaluated_on_unaltered_and_on_altered_tracks(run: RunRecord, trained: Path) -> None:
    rows = rows_of("--data", trained / "music", "--only", "noise=0,gain=-20")
    assert [row["alteration"] for row in rows] == ["unaltered", "noise 0 dB SNR", "gain -20 dB"]
    assert float(rows[0]["accuracy"]) == pytest.approx(run.scores["accuracy"])
    # Normalised by track, the log-mel of a clip that is 20 dB quieter is the same.
    assert float(rows[2]["difference"]) == 0
    assert rows[2]["verdict"] == "equivalent"
    assert {file.suffix for file in here().results.glob("music/robust.*")} == {".csv", ".md", ".png", ".svg"}


def test_embeddings_of_altered_clips_are_cached_beside_the_others(run: RunRecord, trained: Path) -> None:
    rows_of("--data", trained / "music", "--only", "noise=0")
    plain = open_representation("logmel", here())
    noisy = EmbeddingCache(altered(plain, Alteration.parse("noise=0")), here().cache)
    tracks = load_data(DataRecipe(source=str(trained / "music")), here()).tracks
    cached = {track.content for track in tracks} - noisy.missing(track.content for track in tracks)
    assert len(cached) == run.evaluation.n_tracks == 4
    unaltered = EmbeddingCache(plain, here().cache)
    assert all(np.median(noisy.read(clip) - unaltered.read(clip)) > 1 for clip in cached)  # dB


def test_a_second_call_alters_nothing(run: RunRecord, trained: Path) -> None:
    words = ("robust", run.run_id, "--data", trained / "music", "--only", "noise=0")
    first, second = mgc(*words), mgc(*words)
    assert "alter: noise 0 dB SNR: 4/4 clips" in first.stderr
    assert "alter: " not in second.stderr
    assert second.stdout == first.stdout


def test_the_table_shows_no_difference_for_unaltered_tracks(run: RunRecord, trained: Path) -> None:
    table = mgc("robust", run.run_id, "--data", trained / "music", "--only", "gain=-20").stdout
    (unaltered,) = (line for line in table.splitlines() if re.search(r"  unaltered  ", line))
    assert unaltered.rstrip().endswith("]")  # the interval of the accuracy is the last cell
    assert "equivalent within 3 points under gain -20 dB (+0.0)" in table
    assert "nan" not in table


def test_the_dataset_can_be_given_by_the_name_of_its_results(run: RunRecord) -> None:
    assert len(rows_of(run.run_id, "--data", "music", "--only", "gain=-20")) == 2


def test_limit_takes_some_of_the_test_tracks(run: RunRecord, trained: Path) -> None:
    rows = rows_of("--data", trained / "music", "--only", "gain=-20", "--limit", 2)
    assert {row["n_tracks"] for row in rows} == {"2"}


def conditions(*correct: int) -> list[Predictions]:
    """Predictions of 100 tracks by as many artists; of each, so many of the first tracks are correct."""
    labels = np.arange(100) % 2
    ids = tuple(f"t{number:03d}" for number in range(100))
    return [
        Predictions(("x", "y"), ids, labels, np.eye(2)[labels ^ (np.arange(100) >= n)], ids, labels * 0)
        for n in correct
    ]


def test_an_alteration_that_costs_one_system_more_is_named(run: RunRecord) -> None:
    """Neither "worse" beside "undecided" nor the opposite: the difference of the changes is tested."""
    alterations = [None, *map(Alteration.parse, ("noise=0", "gain=-20", "mp3=16"))]
    other = replace(run, run_id="other", name="other")
    under = [conditions(80, 40, 80, 78), conditions(80, 40, 60, 82)]
    results = pd.DataFrame(_rows([run, other], alterations, under, margin=3.0))
    assert set(results["family_size"].dropna()) == {9}
    between = results[results["versus"] == "other"]
    assert between["difference"].tolist() == pytest.approx([0.0, 0.2, -0.04])
    assert between["verdict"].tolist() == ["equivalent", "better", "undecided"]
    text = format_results(results, "markdown")
    assert (
        f"- Change of {run.title} minus change of other, in points: other loses more under gain -20 dB "
        "(+20.0); undecided under mp3 16 kb/s (-4.0); equivalent within 3 points under noise 0 dB SNR (+0.0)."
    ) in text
    assert (
        f"- {run.title}: 0.800 unaltered; lowest under noise 0 dB SNR (0.400). Changes in points: worse"
        in text
    )
    assert "undecided under mp3 16 kb/s (-2.0); equivalent within 3 points under gain -20 dB (+0.0)." in text
    assert "p and intervals hold for all 9 comparisons" in text
    mirrored = pd.DataFrame(_rows([other, run], alterations, under[::-1], margin=3.0))
    assert "other loses more under gain -20 dB (-20.0)" in format_results(mirrored, "table")


def test_two_runs_of_one_name_are_told_apart(run: RunRecord) -> None:
    records = [run, replace(run, run_id="again", seed=1)]
    alterations = [None, Alteration.parse("noise=0")]
    results = pd.DataFrame(_rows(records, alterations, [conditions(80, 40), conditions(80, 70)], margin=3.0))
    assert f"{run.run_id} loses more under noise 0 dB SNR (-30.0)" in format_results(results, "table")


def test_the_margin_decides_what_is_equivalent(run: RunRecord, trained: Path) -> None:
    results = pd.DataFrame(
        _rows([run], [None, Alteration.parse("gain=6")], [conditions(80, 76)], margin=15.0)
    )
    assert results["verdict"].tolist()[1:] == ["equivalent"]
    assert "margin" in refused("--data", trained / "music", "--only", "gain=-20", "--margin", "0")


def test_no_alteration_is_refused(run: RunRecord, trained: Path) -> None:
    message = refused("--data", trained / "music", "--only", "gain", "--set", 'alterations=["noise=0"]')
    assert "no alteration" in message


def test_an_unknown_alteration_is_refused(run: RunRecord, trained: Path) -> None:
    assert "known: crop" in refused("--data", trained / "music", "--only", "reverb")


def test_a_floor_without_a_model_is_refused(run: RunRecord, trained: Path) -> None:
    majority = next(record for record in load_records("music", here()) if record.system == "majority")
    assert "floor without a model" in refused(majority.run_id, "--data", trained / "music")


def test_models_that_do_not_predict_what_the_record_says_are_refused(run: RunRecord, trained: Path) -> None:
    predictions = run.predictions()
    run.save(replace(predictions, probabilities=predictions.probabilities[:, ::-1]))
    message = refused("--data", trained / "music", "--only", "gain=-20")
    assert "predict 100 % of the unaltered tracks differently" in message


def test_missing_weights_are_named(run: RunRecord, trained: Path) -> None:
    (run.folder / "fold0.safetensors").unlink()
    message = refused("--data", trained / "music", "--only", "gain=-20")
    assert "fold0.safetensors cannot be read: No such file" in message


def test_altered_clips_are_removed_also_after_an_error(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tracks = load_data(DataRecipe(source=str(music)), workspace=here()).tracks
    with altered_files(Alteration.parse("gain=-6"), tracks[:2]) as files:
        assert all(track.path.is_file() for track in files)
    assert not [*tmp_path.glob("mgc-altered-*")]
    broken = [*tracks[:3], replace(tracks[3], path=tmp_path / "none.wav")]
    with pytest.raises(MgcError, match="cannot be read"), altered_files(Alteration.parse("gain=-6"), broken):
        pass
    assert not [*tmp_path.glob("mgc-altered-*")]


def test_a_full_disk_ends_in_an_error_with_the_folder(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise soundfile.LibsndfileError(2)

    monkeypatch.setattr(Alteration, "write", full)
    tracks = load_data(DataRecipe(source=str(music)), workspace=here()).tracks
    with pytest.raises(MgcError, match="altered clips cannot be written") as caught:  # noqa: SIM117
        with altered_files(Alteration.parse("gain=-6"), tracks):
            pass
    assert "mgc-altered-" in str(caught.value.where)


def test_runs_on_a_leaky_split_are_not_chosen_automatically(music: Path) -> None:
    assert mgc("probe", "--data", music, "--split", "random", "--model", "logmel").exit_code == 0
    assert "use a leaky split" in refused("--data", music)
