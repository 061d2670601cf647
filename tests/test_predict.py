"""The models of a run: loaded, calibrated, predicting new files, and exported."""

import csv
import errno
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from conftest import here, tone
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from safetensors.torch import save as save_bytes
from sklearn.metrics import log_loss
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model
from typer.testing import CliRunner

from mgc import data
from mgc.cli import app
from mgc.config import BaselineRecipe, DataRecipe, ProbeRecipe, TrainRecipe
from mgc.data import Track
from mgc.evaluate import Predictions
from mgc.experiments import systems as experiment
from mgc.experiments.systems import baseline, probe
from mgc.predict import (
    Calibration,
    Novelty,
    export,
    find_files,
    format_predictions,
    load_models,
    open_run,
    predict_files,
)  # fmt: skip
from mgc.predict.calibrate import temperature, tempered
from mgc.predict.novelty import pool_windows
from mgc.representations.cache.embeddings import EmbeddingCache
from mgc.representations.derived import per_window
from mgc.runs.record import RunRecord, load_record
from mgc.util.errors import MgcError

RATE = 16_000


@dataclass(frozen=True)
class Lab:
    """A network and a probe, run once for all tests; each test has its own copy of the results."""

    music: Path
    encoder: Path
    network: RunRecord
    probe: RunRecord


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lab")
    for genre, name in enumerate(("calm", "pulse")):
        (root / "music" / name).mkdir(parents=True)
        for number in range(10):
            soundfile.write(root / "music" / name / f"{number}.wav", tone(genre, 3.0, RATE, number), RATE)
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=(8, 8),
        conv_kernel=(10, 8), conv_stride=(5, 64), num_feat_extract_layers=2, num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    Wav2Vec2Model(config).save_pretrained(root / "ear")
    Wav2Vec2FeatureExtractor(sampling_rate=RATE).save_pretrained(root / "ear")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MGC_RESULTS", str(root / "results"))
        patch.setenv("MGC_EMBEDDINGS_CACHE", str(root / "cache"))
        patch.chdir(root)
        tracks = DataRecipe(source=str(root / "music"), split="holdout")
        train = TrainRecipe(epochs=2, crop_seconds=1.0, normalise="train")
        baseline(BaselineRecipe(data=tracks, train=train, device="cpu"), workspace=here())
        probe(
            ProbeRecipe(data=tracks, model="ear", layers="sweep", pool="mean+max", device="cpu"),
            workspace=here(),
        )
    return root


@pytest.fixture
def lab(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    shutil.copytree(template / "results", tmp_path / "results")
    monkeypatch.setenv("MGC_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("MGC_EMBEDDINGS_CACHE", str(template / "cache"))
    records = [load_record(file) for file in (tmp_path / "results" / "music").glob("*/record.json")]
    by_kind = {record.kind: record for record in records}
    yield Lab(template / "music", template / "ear", by_kind["baseline"], by_kind["probe"])


@pytest.mark.parametrize("which", ["network", "probe"])
def test_the_model_of_a_fold_predicts_what_the_record_says(lab: Lab, which: str) -> None:
    record: RunRecord = getattr(lab, which)
    models = load_models(record, here())
    tracks = data.load(DataRecipe.model_validate(record.recipe["data"]), workspace=here()).by_id
    store = EmbeddingCache(models.representation, root=here().cache)
    recorded = record.predictions()
    arrays = [store.read(tracks[track_id].content) for track_id in recorded.track_ids]
    assert models.classes == recorded.classes == ("calm", "pulse")
    np.testing.assert_allclose(models.folds[0].probabilities(arrays), recorded.probabilities, atol=1e-4)
    # The predictions depend on the input.
    assert not np.allclose(models.folds[0].probabilities(arrays[::-1]), recorded.probabilities, atol=1e-4)


def test_segments_are_normalised_by_the_whole_clip(lab: Lab) -> None:
    (trained,) = load_models(lab.network, here()).folds
    fold: Any = replace(trained, normalise="track", train=None)  # type: ignore[type-var]
    rng = np.random.default_rng(0)
    loud, quiet = rng.normal(0, 10, (60, 128)), rng.normal(-60, 10, (60, 128))
    clip = np.concatenate([loud, quiet]).astype(np.float16)
    alone = fold.probabilities([clip[:60], clip[60:]])
    parts = fold.segment_probabilities(clip, [slice(0, 60), slice(60, 120)])
    assert not np.allclose(parts, alone, atol=1e-3)
    np.testing.assert_allclose(
        fold.segment_probabilities(clip, [slice(0, 120)]), fold.probabilities([clip]), atol=1e-6
    )


def predictions(probabilities: np.ndarray, labels: np.ndarray) -> Predictions:
    ids = tuple(f"{number:03d}" for number in range(len(labels)))
    names = tuple("abc"[: probabilities.shape[1]])
    return Predictions(names, ids, labels, probabilities, ids, np.zeros(len(labels), np.int64))


def ids_of(labels: np.ndarray) -> np.ndarray:
    return np.arange(len(labels))


def test_calibration_corrects_overconfidence_but_needs_evidence() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1.5, (300, 3))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([rng.choice(3, p=row) for row in true])
    assert temperature(tempered(true, 0.25), labels, ids_of(labels)) == pytest.approx(4.0, rel=0.2)
    assert temperature(true, labels, ids_of(labels)) == 1.0  # already calibrated
    # The same tracks by one artist are one observation.
    assert temperature(tempered(true, 0.25), labels, np.zeros(300)) == 1.0
    certain = np.eye(3)[[0, 1, 2]]
    hard = {
        "right and certain": (certain, np.array([0, 1, 2])),
        "wrong and certain": (certain, np.array([1, 2, 0])),
        "a single track": (np.array([[0.4, 0.6, 0.0]]), np.array([1])),
        "not sure enough": (tempered(true, 3.0), labels),
    }
    for name, (probabilities, truth) in hard.items():
        chosen = temperature(probabilities, truth, ids_of(truth))
        before, after = (
            log_loss(truth, tempered(probabilities, t).clip(1e-12), labels=[0, 1, 2]) for t in (1.0, chosen)
        )
        assert after <= before + 1e-12, name
    fold = predictions(true, labels)
    calibration = Calibration.fit([fold], replace(fold, groups=tuple(f"new {i}" for i in fold.groups)))
    # A few tracks without an error do not lead to a temperature of 0.
    assert temperature(np.tile([0.8, 0.2], (5, 1)), np.zeros(5, int), np.arange(5)) > 0.3
    assert Calibration.model_validate(json.loads(calibration.model_dump_json())) == calibration


def test_the_stated_quality_is_that_of_test_tracks_and_tracks_are_counted_once() -> None:
    """The validation sets of two folds overlap and are all correct; of the test tracks half are."""
    rng = np.random.default_rng(2)
    sure = rng.uniform(0.5, 1.0, 400)
    labels = (rng.random(400) > sure).astype(int)
    pairs = np.stack([sure, 1 - sure], axis=1)
    easy = predictions(np.tile([0.9, 0.1], (30, 1)), np.zeros(30, int))
    test = predictions(pairs, labels)
    calibration = Calibration.fit([easy, easy], replace(test, fold=np.arange(400) % 2))
    assert calibration.chosen_on == 30 and calibration.tracks == 400
    assert calibration.accuracy == pytest.approx((labels == 0).mean()) != 1.0
    assert "chosen on 30 validation tracks. Of the 400 test tracks" in calibration.summary()
    # A threshold that was chosen on like tracks keeps 95 % of the correct predictions.
    other = replace(test, track_ids=tuple(f"v{i}" for i in test.track_ids), groups=("v",) * 400)
    calibration = Calibration.fit([other], test)
    assert calibration.threshold is not None
    named = tempered(pairs, calibration.temperature).max(axis=1) >= calibration.threshold
    assert 0.94 < named[labels == 0].mean() < 1.0
    assert calibration.named == pytest.approx(named.mean())
    assert calibration.accuracy_named == pytest.approx((labels == 0)[named].mean())
    assert calibration.accuracy_named > calibration.accuracy
    wrong = predictions(np.array([[0.9, 0.1]]), np.array([1]))
    assert Calibration.fit([wrong], wrong).threshold is None
    # The artists of a test fold have no part in its calibration.
    alone = Calibration.fit([test], test)
    assert alone.threshold is not None and alone.named == 1.0


def test_the_printed_accuracy_is_that_of_the_record(lab: Lab) -> None:
    for record in (lab.probe, lab.network):
        assert open_run(record.run_id, here()).calibration.accuracy == record.evaluation.accuracy


@pytest.mark.parametrize("which", ["network", "probe"])
def test_sounds_unlike_the_training_tracks_are_novel(lab: Lab, tmp_path: Path, which: str) -> None:
    for name, samples in {
        "like": tone(1, 3.0, RATE, 77),
        "sine": 0.3 * np.sin(np.arange(3 * RATE) * 0.6),
    }.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE)
    files = sorted(tmp_path.glob("*.wav"))
    ready = open_run(getattr(lab, which).run_id, here())
    done = predict_files(ready, files)
    said = {Path(file.file).stem: file.segments[0] for file in done.files}
    assert said["sine"].genre == "novel" and said["sine"].novelty > 1
    assert said["like"].genre != "novel" and 0 < said["like"].novelty <= 1
    assert [*ready.novelty.genres] == ["calm", "pulse"] and ready.novelty.summary() in done.known
    (row, *_) = json.loads(format_predictions(done, "json"))["files"]
    assert set(row) >= {"genre", "likeliest", "novelty"}
    assert "novel (" in format_predictions(done, "table") and ",novelty,error" in format_predictions(
        done, "csv"
    )
    over_time = predict_files(ready, files, over_time=True)
    assert [file.segments[0].genre for file in over_time.files] == [
        file.segments[0].genre for file in done.files
    ]


def test_a_genre_that_is_excluded_from_training_is_measured() -> None:
    """Three genres: two are alike, one is far away. Only the last is found when it is excluded."""
    rng = np.random.default_rng(0)
    tracks = [
        Track(f"{g}{n}", Path(f"{g}{n}"), f"g{g}", f"{g}{n}", content=f"{g}{n}")
        for g in range(3)
        for n in range(40)
    ]
    arrays = {t.content: rng.normal(9.0 * (t.label == "g2"), 1, (3, 8)).astype(np.float32) for t in tracks}
    dataset = data.Dataset("toy", tuple(tracks))
    representation: Any = SimpleNamespace(pooled=True, layer_slice=lambda name: slice(0, 8))
    cache: Any = SimpleNamespace(representation=representation, read=arrays.__getitem__)
    novelty = Novelty.fit(cache, dataset)
    assert novelty.found[2] == 1.0 and max(novelty.found[:2]) < 0.3
    assert "g2 100 %" in novelty.summary()
    far, near = novelty.of(representation, [np.full((3, 8), 60.0), arrays["00"]])
    assert near < 1 < far


def test_artists_are_not_compared_with_themselves() -> None:
    """Songs of an artist are alike: new artists must not be novel because of that."""
    rng = np.random.default_rng(0)
    places = rng.normal(0, 1, (60, 8))

    def song(artist: int) -> np.ndarray:
        return np.tile(places[artist] + rng.normal(0, 0.01, 8), (3, 1)).astype(np.float32)

    tracks = [
        Track(f"{artist:02d}{n}", Path("x"), "ab"[artist % 2], str(artist), content=f"{artist:02d}{n}")
        for artist in range(40)
        for n in range(6)
    ]
    arrays = {track.content: song(int(track.group)) for track in tracks}
    representation: Any = SimpleNamespace(pooled=True, layer_slice=lambda name: slice(0, 8))
    cache: Any = SimpleNamespace(representation=representation, read=arrays.__getitem__)
    novelty = Novelty.fit(cache, data.Dataset("toy", tuple(tracks)))
    new = novelty.of(representation, [song(artist) for artist in range(40, 60)])
    assert (new > 1).mean() <= 0.2
    # With a single artist nothing can be measured, and nothing is novel.
    alone = data.Dataset("toy", tuple(replace(track, group="one") for track in tracks))
    novelty = Novelty.fit(cache, alone)
    assert "not available" in novelty.summary()
    assert (novelty.of(representation, [np.full((3, 8), 60.0)]) < 1).all()


def test_a_run_of_an_older_version_gets_its_novelty_without_training(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, weights = (lab.network.folder / name for name in ("novelty.npz", "fold0.safetensors"))
    content, trained = file.read_bytes(), weights.stat().st_mtime_ns
    file.unlink()
    with pytest.raises(MgcError, match="novelty data cannot be read") as caught:
        open_run(lab.network.run_id, here())
    assert "run the command" in str(caught.value)
    baseline(BaselineRecipe.model_validate(lab.network.recipe), here())
    assert "run exists" in capsys.readouterr().err
    assert file.read_bytes() == content and weights.stat().st_mtime_ns == trained
    folder = export(open_run(lab.network.run_id, here()), tmp_path / "out")
    assert (folder / "novelty.npz").read_bytes() == content
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"mgc_export": 1}))
    with pytest.raises(MgcError, match="export format 1") as caught:
        open_run(str(folder), here())
    assert "export the run again" in str(caught.value)


def test_damaged_novelty_data_is_named(lab: Lab) -> None:
    file = lab.probe.folder / "novelty.npz"
    content = file.read_bytes()
    flipped = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    foreign = save_bytes({"x": torch.zeros(2)})
    for damaged in (flipped, content[:-20], content[:7], b"", b"no tensors", foreign):
        file.write_bytes(damaged)
        with pytest.raises(MgcError, match="novelty data cannot be read") as caught:
            open_run(lab.probe.run_id, here())
        assert caught.value.where == file and "run the command" in str(caught.value)


def test_a_run_without_its_files_is_refused(lab: Lab) -> None:
    (lab.probe.folder / "validation.parquet").rename(lab.probe.folder / "moved")
    with pytest.raises(MgcError) as caught:
        open_run(lab.probe.run_id, workspace=here())
    assert caught.value.where == lab.probe.folder / "validation.parquet"
    (lab.probe.folder / "moved").rename(lab.probe.folder / "validation.parquet")
    (lab.probe.folder / "head0.safetensors").unlink()
    with pytest.raises(MgcError, match="file of a head does not exist"):
        open_run(lab.probe.run_id, workspace=here())
    floor = next(lab.probe.folder.parent.glob("majority*"))
    with pytest.raises(MgcError, match="a floor without a model"):
        open_run(str(floor), workspace=here())
    with pytest.raises(MgcError, match="no run") as caught:
        open_run(lab.network.run_id[:-2], workspace=here())
    assert lab.network.run_id in str(caught.value)


def test_files_of_any_name_are_predicted_and_broken_ones_named(lab: Lab, tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "deep" / "er").mkdir(parents=True)
    (own / "deep" / "up").symlink_to(own)  # a cycle
    odd = own / "deep" / 'a,"b"\n<script>alert(1)<.wav'
    soundfile.write(odd, tone(0, 3.0, RATE, 90), RATE)
    soundfile.write(own / "deep" / "er" / "two.wav", tone(1, 3.0, RATE, 91), RATE)
    (own / "broken.mp3").write_bytes(b"no music")
    (own / "notes.txt").write_text("no audio")
    run = CliRunner().invoke
    done = run(app, ["predict", lab.probe.run_id, str(own), "--format", "json"])
    assert done.exit_code == 0, done.output
    files = json.loads(done.stdout)["files"]
    assert [file["file"] for file in files] == [
        str(odd), str(own / "deep/er/two.wav"), str(own / "broken.mp3")
    ]  # fmt: skip
    assert files[1]["likeliest"] == "pulse"
    assert sum(files[0]["probabilities"].values()) == pytest.approx(1)
    assert "cannot be decoded" in files[2]["error"]
    assert "1 file skipped: the name does not end like that of an audio file" in done.stderr
    table = run(app, ["predict", lab.probe.run_id, str(own)])
    assert "\\n<script>" in table.stdout
    assert "broken.mp3: cannot be decoded" in table.stderr
    assert len(table.stdout.splitlines()) == 3
    rows = [
        *csv.DictReader(
            io.StringIO(run(app, ["predict", lab.probe.run_id, str(own), "--format", "csv"]).stdout)
        )
    ]
    assert [row["file"] for row in rows] == [file["file"] for file in files]
    assert float(rows[1]["p_pulse"]) == files[1]["probabilities"]["pulse"]
    alone = run(app, ["predict", lab.probe.run_id, str(own / "broken.mp3"), str(own / "not there.wav")])
    assert alone.exit_code == 2
    assert "No such file" in alone.stderr
    with pytest.raises(MgcError, match="no audio"):
        find_files([lab.encoder])


def test_below_the_threshold_a_genre_is_unknown(lab: Lab) -> None:
    ready = open_run(lab.probe.run_id, workspace=here())
    strict = replace(ready, calibration=ready.calibration.model_copy(update={"threshold": 1.1}))
    lax = replace(ready, calibration=ready.calibration.model_copy(update={"threshold": None}))
    file = [lab.music / "pulse" / "3.wav"]
    assert predict_files(strict, file).files[0].segments[0].genre == "unknown"
    assert predict_files(lax, file).files[0].segments[0].genre == "pulse"


@pytest.mark.parametrize("which", ["network", "probe"])
def test_segments_cover_a_long_file(lab: Lab, tmp_path: Path, which: str) -> None:
    long = tmp_path / "long.wav"
    soundfile.write(long, np.concatenate([tone(0, 65, RATE, 50), tone(1, 70, RATE, 51)]), RATE)
    ready = open_run(getattr(lab, which).run_id, workspace=here())
    (prediction,) = predict_files(ready, [long], over_time=True).files
    segments = prediction.segments
    assert [s.start for s in segments[1:]] == [s.end for s in segments[:-1]]
    assert (segments[0].start, segments[-1].end) == (0, pytest.approx(135))
    assert all(s.end - s.start >= 10 for s in segments)
    if which == "probe":
        first, last = segments[0].probabilities, segments[-1].probabilities
        assert (first.argmax(), last.argmax()) == (0, 1)


def test_windows_pool_to_the_statistics_of_the_clip(lab: Lab, tmp_path: Path) -> None:
    long = tmp_path / "long.wav"
    soundfile.write(long, np.concatenate([tone(0, 40, RATE, 50), tone(1, 35, RATE, 51)]), RATE)
    ready = open_run(lab.probe.run_id, workspace=here())
    predict_files(ready, [long])
    predict_files(ready, [long], over_time=True)
    (clip,) = data.inspect_all([long], cache=here().cache)
    whole = (
        EmbeddingCache(ready.models.representation, root=here().cache).read(clip.content).astype(np.float32)
    )
    windows = EmbeddingCache(per_window(ready.models.representation), here().cache).read(clip.content)
    length = ready.models.representation.cut.window / RATE
    assert len(windows) > 3
    share = np.clip(clip.seconds / length - np.arange(len(windows) // 3), 0, 1)
    pooled = pool_windows(windows.reshape(len(share), 3, -1), share)
    np.testing.assert_allclose(pooled, whole, atol=0.01)


def test_an_export_predicts_the_same_without_data_and_results(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(lab.music.glob("*/1*.wav"))
    predicted = {}
    for record, with_encoder in ((lab.network, False), (lab.probe, True)):
        ready = open_run(record.run_id, workspace=here())
        predicted[record.kind] = predict_files(ready, files)
        export(ready, tmp_path / record.kind, with_encoder)
    shutil.rmtree(tmp_path / "results")
    monkeypatch.setenv("MGC_EMBEDDINGS_CACHE", str(tmp_path / "new cache"))
    for kind, before in predicted.items():
        shutil.move(tmp_path / kind, tmp_path / "elsewhere" / kind)
        after = predict_files(open_run(str(tmp_path / "elsewhere" / kind), workspace=here()), files)
        assert after.threshold == before.threshold
        for one, other in zip(before.files, after.files, strict=True):
            np.testing.assert_array_equal(one.segments[0].probabilities, other.segments[0].probabilities)
        texts = [
            file.read_text() for file in (tmp_path / "elsewhere" / kind).glob("*.[jm]*") if file.is_file()
        ]
        assert len(texts) == 3
        assert not any(str(lab.music.parent) in text or "/tmp" in text for text in texts)


def test_an_export_asks_for_its_encoder_and_refuses_another(lab: Lab, tmp_path: Path) -> None:
    ready = open_run(lab.probe.run_id, workspace=here())
    folder = export(ready, tmp_path / "out")
    with pytest.raises(MgcError, match="encoder ear is not part") as caught:
        open_run(str(folder), workspace=here())
    assert "--model" in str(caught.value)
    assert open_run(str(folder), model=str(lab.encoder), workspace=here()).calibration == ready.calibration
    other = shutil.copytree(lab.encoder, tmp_path / "other")
    model = Wav2Vec2Model.from_pretrained(other)
    torch.nn.init.normal_(model.encoder.layers[0].attention.k_proj.weight)
    model.save_pretrained(other)
    with pytest.raises(MgcError, match="not what the run was trained on: different weights"):
        open_run(str(folder), model=str(other), workspace=here())


def test_changed_code_of_the_representation_is_a_warning(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    card = lab.network.representation_card | {"revision": 0, "key": "older"}
    load_models(replace(lab.network, representation_card=card), here())
    assert "warning: the code of logmel has changed" in capsys.readouterr().err


def test_the_card_has_the_figures_of_the_record_and_other_folders_are_not_overwritten(
    lab: Lab, tmp_path: Path
) -> None:
    ready = open_run(lab.probe.run_id, workspace=here())
    folder = export(ready, tmp_path / "out")
    card = (folder / "README.md").read_text()
    scores = lab.probe.evaluation
    assert f"Accuracy {scores.accuracy:.3f} [{scores.accuracy_low:.3f}, {scores.accuracy_high:.3f}]" in card
    assert lab.probe.split_authority in card
    assert f"value: {round(scores.accuracy, 4)}" in card
    assert "layers=sweep" in card
    assert json.loads((folder / "labels.json").read_text()) == ["calm", "pulse"]
    export(ready, folder)  # of the same run: written again
    other = open_run(lab.network.run_id, workspace=here())
    with pytest.raises(MgcError, match="not empty and not an export of cnn"):
        export(other, folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").write_text("years of work")
    with pytest.raises(MgcError, match="not empty"):
        export(ready, tmp_path / "mine")
    (folder / "labels.json").write_text('["pulse", "calm"]')
    with pytest.raises(MgcError, match="does not list the genres"):
        open_run(str(folder), model=str(lab.encoder), workspace=here())


def test_a_cache_that_cannot_be_written_is_replaced(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MGC_EMBEDDINGS_CACHE", str(tmp_path / "file"))
    predictions = predict_files(
        open_run(lab.network.run_id, workspace=here()), [lab.music / "calm" / "1.wav"]
    )
    assert len(predictions.predicted) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_damaged_files_are_named(lab: Lab) -> None:
    """Validation predictions of other folds or genres, NaN weights, a record without its choices."""
    validation = pd.read_parquet(lab.probe.folder / "validation.parquet")
    for damaged in (
        validation.drop(columns="fold"),
        validation[:0],
        validation.rename(columns={"p_calm": "p_quiet"}),
    ):
        damaged.to_parquet(lab.probe.folder / "validation.parquet")
        with pytest.raises(MgcError) as refusal:
            open_run(lab.probe.run_id, workspace=here())
        assert refusal.value.where == lab.probe.folder / "validation.parquet" and refusal.value.fix
    weights = load_file(lab.network.folder / "fold0.safetensors")
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[name].fill_(float("nan"))
    save_file(weights, lab.network.folder / "fold0.safetensors")
    with pytest.raises(MgcError, match="NaN"):
        open_run(lab.network.run_id, workspace=here())
    for changes in ({"chosen": []}, {"chosen": [{}]}, {"scores": {}}, {"representation_card": {}}):
        with pytest.raises(MgcError, match="damaged"):
            load_models(replace(lab.probe, **changes), here())  # type: ignore[arg-type]


def test_an_export_that_fails_can_be_repeated(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    ready = open_run(lab.probe.run_id, workspace=here())
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError) as caught:
            export(ready, tmp_path / "out")
    assert caught.value.filename == str(tmp_path / "out" / "head0.safetensors")
    export(ready, tmp_path / "out")


@pytest.mark.parametrize("said", ["[enforce fail at inline_container.cc:603]", "I/O error: No space left"])
def test_a_full_disk_while_training_ends_in_a_message(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    def full(*_: object) -> Iterator[None]:
        yield from ()
        raise SafetensorError(said) if "I/O" in said else RuntimeError(said)

    monkeypatch.setattr(experiment, "train_folds", full)
    recipe = BaselineRecipe.model_validate(lab.network.recipe)
    with pytest.raises(MgcError, match="weights cannot be written") as caught:
        experiment.baseline(recipe, overwrite=True, workspace=here())
    assert lab.network.run_id in str(caught.value)
