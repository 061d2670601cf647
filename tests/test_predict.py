"""The models of a run: loaded, calibrated, predicting new files, and exported."""

import csv
import errno
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from conftest import here, tone
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model
from typer.testing import CliRunner

from mgc import data
from mgc.cli import app
from mgc.config import BaselineRecipe, DataRecipe, ProbeRecipe, TrainRecipe
from mgc.evaluate import Predictions
from mgc.experiments.systems import baseline, probe
from mgc.predict import Calibration, export, find_files, load_models, open_run, predict_files
from mgc.predict.calibrate import temperature, tempered
from mgc.predict.predict import pool_windows
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


def test_calibration_corrects_overconfidence_and_never_worsens() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1.5, (300, 3))
    true = tempered(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), 1.0)
    labels = np.array([rng.choice(3, p=row) for row in true])
    assert temperature(tempered(true, 0.25), labels) == pytest.approx(4.0, rel=0.2)
    certain = np.eye(3)[[0, 1, 2]]
    hard = {
        "right and certain": (certain, np.array([0, 1, 2])),
        "wrong and certain": (certain, np.array([1, 2, 0])),
        "a single track": (np.array([[0.4, 0.6, 0.0]]), np.array([1])),
        "not sure enough": (tempered(true, 3.0), labels),
    }
    for name, (probabilities, truth) in hard.items():
        calibration = Calibration.fit([predictions(probabilities, truth)])
        assert calibration.log_loss_after <= calibration.log_loss_before + 1e-12, name
        assert np.isfinite(calibration.temperatures[0]), name
    # A few tracks without an error do not lead to a temperature of 0.
    assert temperature(np.tile([0.8, 0.2], (5, 1)), np.zeros(5, int)) > 0.3
    assert Calibration.model_validate(json.loads(calibration.model_dump_json())) == calibration


def test_the_threshold_has_the_stated_cost() -> None:
    rng = np.random.default_rng(2)
    sure = rng.uniform(0.5, 1.0, 400)
    labels = (rng.random(400) > sure).astype(int)
    calibration = Calibration.fit([predictions(np.stack([sure, 1 - sure], axis=1), labels)])
    assert calibration.threshold is not None
    confidence = tempered(np.stack([sure, 1 - sure], axis=1), calibration.temperatures[0]).max(axis=1)
    named = confidence >= calibration.threshold
    assert 0.94 < named[labels == 0].mean() < 1.0
    assert calibration.named == pytest.approx(named.mean())
    assert calibration.accuracy_named == pytest.approx((labels == 0)[named].mean())
    assert calibration.accuracy_named > calibration.accuracy
    assert Calibration.fit([predictions(np.array([[0.9, 0.1]]), np.array([1]))]).threshold is None


def test_a_run_without_its_files_is_refused(lab: Lab) -> None:
    (lab.probe.folder / "validation.parquet").rename(lab.probe.folder / "moved")
    with pytest.raises(MgcError) as caught:
        open_run(lab.probe.run_id, workspace=here())
    assert caught.value.where == lab.probe.folder / "validation.parquet"
    (lab.probe.folder / "moved").rename(lab.probe.folder / "validation.parquet")
    (lab.probe.folder / "head0.safetensors").unlink()
    with pytest.raises(MgcError, match="cannot be read: No such file"):
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
        export(ready.models, ready.calibration, tmp_path / record.kind, with_encoder)
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
    folder = export(ready.models, ready.calibration, tmp_path / "out")
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
    folder = export(ready.models, ready.calibration, tmp_path / "out")
    card = (folder / "README.md").read_text()
    scores = lab.probe.evaluation
    assert f"Accuracy {scores.accuracy:.3f} [{scores.accuracy_low:.3f}, {scores.accuracy_high:.3f}]" in card
    assert lab.probe.split_authority in card
    assert f"value: {round(scores.accuracy, 4)}" in card
    assert "layers=sweep" in card
    assert json.loads((folder / "labels.json").read_text()) == ["calm", "pulse"]
    export(ready.models, ready.calibration, folder)  # of the same run: written again
    other = open_run(lab.network.run_id, workspace=here())
    with pytest.raises(MgcError, match="not empty and not an export of cnn"):
        export(other.models, other.calibration, folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").write_text("years of work")
    with pytest.raises(MgcError, match="not empty"):
        export(ready.models, ready.calibration, tmp_path / "mine")
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


def reseal(record: RunRecord) -> None:
    """Write the record again with the checksums of the files that are beside it now."""
    record.save(record.predictions())


def test_damaged_files_are_named(lab: Lab) -> None:
    """Validation predictions of other folds or genres, NaN weights, a record without its choices."""
    validation = pd.read_parquet(lab.probe.folder / "validation.parquet")
    for damaged in (
        validation.drop(columns="fold"),
        validation[:0],
        validation.rename(columns={"p_calm": "p_quiet"}),
    ):
        damaged.to_parquet(lab.probe.folder / "validation.parquet")
        reseal(lab.probe)
        with pytest.raises(MgcError) as refusal:
            open_run(lab.probe.run_id, workspace=here())
        assert refusal.value.where == lab.probe.folder / "validation.parquet" and refusal.value.fix
    weights = load_file(lab.network.folder / "fold0.safetensors")
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[name].fill_(float("nan"))
    save_file(weights, lab.network.folder / "fold0.safetensors")
    reseal(lab.network)
    with pytest.raises(MgcError, match="NaN"):
        open_run(lab.network.run_id, workspace=here())
    del weights[name]
    save_file(weights, lab.network.folder / "fold0.safetensors")
    reseal(lab.network)
    with pytest.raises(MgcError, match="do not fit this version"):
        open_run(lab.network.run_id, workspace=here())
    for changes in ({"chosen": []}, {"chosen": [{}]}, {"scores": {}}, {"representation_card": {}}):
        with pytest.raises(MgcError, match="damaged"):
            load_models(replace(lab.probe, **changes), here())  # type: ignore[arg-type]


def test_an_export_that_fails_can_be_repeated(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    ready = open_run(lab.probe.run_id, workspace=here())
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError) as caught:
            export(ready.models, ready.calibration, tmp_path / "out")
    assert caught.value.filename == str(tmp_path / "out" / "head0.safetensors")
    export(ready.models, ready.calibration, tmp_path / "out")


def test_an_export_that_was_edited_is_refused(lab: Lab, tmp_path: Path) -> None:
    ready = open_run(lab.network.run_id, workspace=here())
    folder = export(ready.models, ready.calibration, tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())
    config["calibration"]["temperatures"] = []
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(MgcError, match="changed after it was written"):
        open_run(str(folder), workspace=here())
