"""Altered clips are what they are called, and models hear them with nothing else changed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import here, tone
from typer.testing import CliRunner

from mgc.audio import inspect, load
from mgc.audio.effects import RATE_HZ, Alteration
from mgc.cli import app
from mgc.config import DataRecipe
from mgc.data import load as load_data
from mgc.experiments.robust import _written
from mgc.representations import ModelSpec, open_representation
from mgc.representations.cache.embeddings import EmbeddingCache
from mgc.representations.derived import altered
from mgc.runs.record import load_records
from mgc.util.errors import MgcError

SECONDS = 12.0


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, str]:
    """A clip at another rate than clips are altered at, what it is at that one, and its hash."""
    file = tmp_path_factory.mktemp("clip") / "clip.wav"
    soundfile.write(file, tone(1, SECONDS, 22_050, 0), 22_050)
    return file, load(file, RATE_HZ), inspect(file).content


def heard(clip: tuple[Path, np.ndarray, str], text: str, folder: Path, content: str = "") -> np.ndarray:
    Alteration.parse(text).write(clip[0], content or clip[2], folder / "out.caf")
    assert [file.name for file in folder.iterdir()] == ["out.caf"]
    assert soundfile.info(folder / "out.caf").samplerate == RATE_HZ
    return load(folder / "out.caf")


def power_db(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.square(samples, dtype=np.float64).mean()))


@pytest.mark.parametrize("snr", [20, 0])
def test_noise_has_its_level_and_depends_on_nothing_but_the_clip(clip, snr, tmp_path) -> None:
    noisy = heard(clip, f"noise={snr}", tmp_path)
    noise = noisy - clip[1]
    assert power_db(clip[1]) - power_db(noise) == pytest.approx(snr, abs=0.05)
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    low, high = spectrum[: len(spectrum) // 2].mean(), spectrum[len(spectrum) // 2 :].mean()
    assert low == pytest.approx(high, rel=0.05)
    assert np.array_equal(noisy, heard(clip, f"noise={snr}", tmp_path))
    other = heard(clip, f"noise={snr}", tmp_path, content="ab" * 16) - clip[1]
    assert abs(np.corrcoef(noise, other)[0, 1]) < 0.01


def test_gain_is_cut_off_at_full_scale(clip, tmp_path) -> None:
    assert np.allclose(heard(clip, "gain=-20", tmp_path), clip[1] / 10, atol=1e-6)
    loud = heard(clip, "gain=20", tmp_path)
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
    back = heard(clip, f"mp3={kbits}", tmp_path)
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
        assert np.array_equal(heard(clip, f"crop={word}", tmp_path), clip[1][start : start + ten])


@pytest.mark.parametrize(
    "text", ["reverb=1", "noise", "noise=loud", "noise=nan", "noise=200", "mp3=33", "mp3=16.5", "crop=second"]
)
def test_what_alters_nothing_known_is_refused(text) -> None:
    with pytest.raises(MgcError) as error:
        Alteration.parse(text)
    assert error.value.fix


def test_cards_are_apart_and_cannot_be_filled_by_mistake() -> None:
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


def mgc(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def refused(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 2, (done.output, done.exception)
    return done.stderr


def test_robust_end_to_end(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mgc("baseline", "--data", music, "--split", "holdout", "--set", "train.epochs=1")
    records = {record.head or record.kind: record for record in load_records("music", workspace=here())}
    run = records["baseline"]
    few = ["robust", "--data", music, "--only", "noise=0,gain=-20", "--format", "csv"]
    told = mgc(*few)
    names, *lines = [line.split(",") for line in told.splitlines()]
    rows = [dict(zip(names, line, strict=True)) for line in lines]
    assert [row["alteration"] for row in rows] == ["as it is", "noise 0 dB SNR", "gain -20 dB"]
    assert float(rows[0]["accuracy"]) == pytest.approx(run.scores["accuracy"])
    # The log-mel of a clip turned down is the clip's, 20 dB lower: normalised by track, nothing has changed.
    assert float(rows[2]["change"]) == 0
    assert {file.suffix for file in here().results.glob("music/robust.*")} == {".csv", ".md", ".png", ".svg"}

    # The store holds the noisy clip beside the clip, under the hash of the one file.
    plain = open_representation("logmel", workspace=here())
    noisy = EmbeddingCache(altered(plain, Alteration.parse("noise=0")), root=here().cache)
    contents = [track.content for track in load_data(DataRecipe(source=str(music)), workspace=here()).tracks]
    held = {*contents} - noisy.missing(contents)
    assert len(held) == 4
    assert all(
        np.median(noisy.read(one) - EmbeddingCache(plain, root=here().cache).read(one)) > 1 for one in held
    )  # dB

    with monkeypatch.context() as patch:
        patch.setattr("mgc.experiments.robust._written", None)  # a second call alters nothing
        assert mgc(few[0], run.run_id, *few[1:]) == told
        assert mgc(few[0], run.run_id, "--data", "music", *few[3:]) == told  # the name of its results
        assert len(mgc(*few, "--limit", 2).splitlines()) == 4

    assert "known: crop" in refused("robust", "--data", music, "--only", "reverb")
    assert "floor" in refused("robust", records["floor"].run_id, "--data", music)
    said = run.predictions()
    run.save(replace(said, probabilities=said.probabilities[:, ::-1]))
    assert "something else of 100 %" in refused(*few)
    (run.folder / "fold0.safetensors").unlink()
    assert "not there" in refused(*few)


def test_nothing_is_left_behind(music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tracks = load_data(DataRecipe(source=str(music)), workspace=here()).tracks
    broken = [*tracks[:3], replace(tracks[3], path=tmp_path / "none.wav")]
    with pytest.raises(MgcError, match="cannot be read"), _written(Alteration.parse("gain=-6"), broken):
        pass
    assert not [*tmp_path.glob("mgc-altered-*")]


def test_a_full_disk_is_told(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise soundfile.LibsndfileError(2)

    monkeypatch.setattr(Alteration, "write", full)
    tracks = load_data(DataRecipe(source=str(music)), workspace=here()).tracks
    with (
        pytest.raises(MgcError, match="altered clips cannot be written"),
        _written(Alteration.parse("gain=-6"), tracks),
    ):
        pass


def test_a_leaky_run_alone_is_not_called_a_floor(music: Path) -> None:
    mgc("probe", "--data", music, "--split", "random", "--model", "logmel")
    assert "a split that leaks" in refused("robust", "--data", music)
