"""The commands end to end, as a user types them, on a small folder of made-up music."""

import errno
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import soundfile
import typer
from conftest import SHARED, here, needs_emotify, needs_whisper
from typer.testing import CliRunner, Result

from mgc.cli import app
from mgc.cli.options import guarded
from mgc.runs.record import load_records
from mgc.training.folds import _Job
from mgc.training.loop import DivergedError

FAST_CNN = "cnn + epochs 3, crop_seconds 1.5"
FAST = ["--set", "train.epochs=3", "--set", "train.crop_seconds=1.5", "--split", "holdout"]


def mgc(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def ok(*words: object) -> str:
    done = mgc(*words)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*words: object) -> str:
    """What a user's mistake prints: one message, exit code 2, no traceback."""
    done = mgc(*words)
    assert done.exit_code == 2, (done.output, done.exception)
    assert "Traceback" not in done.output
    assert isinstance(done.exception, SystemExit)
    return done.stderr


def test_the_main_job_on_a_folder(music: Path, tiny_encoder: Path) -> None:
    assert "20 tracks, 2 genres" in ok("data", "info", "--data", music)
    assert "accuracy" in ok("baseline", "--data", music, *FAST)
    assert "20 computed, 0 cached" in ok("embed", "--model", tiny_encoder, "--data", music)
    assert "all cached, up to date" in ok("embed", "--model", tiny_encoder, "--data", music)
    assert "tiny-wav2vec2 + logistic" in ok("probe", "--data", music, "--split", "holdout")
    rows = json.loads(ok("compare", "--data", music, "--format", "json"))
    assert [row["kind"] for row in rows] == ["floor", "floor", "baseline", "probe"]
    by_kind = {row["kind"]: row for row in rows}
    assert by_kind["baseline"]["system"] == FAST_CNN
    assert by_kind["baseline"]["vs_baseline"] is None
    probe = by_kind["probe"]
    assert probe["vs_baseline"] == pytest.approx(probe["accuracy"] - by_kind["baseline"]["accuracy"])
    assert 0 <= probe["p_value"] <= 1
    assert {row["n_tracks"] for row in rows} == {4}
    assert {row["split"] for row in rows} == {"holdout"}
    assert all(row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] for row in rows)

    run = here().results / "music" / by_kind["baseline"]["run_id"]
    names = {file.name for file in run.iterdir()}
    curves = {"curves.csv", "curves.png", "curves.svg"}
    models = {"fold0.safetensors", "novelty.npz"}
    assert names == {"record.json", "predictions.parquet", "validation.parquet", *models, *curves}
    lines = pd.read_csv(run / "curves.csv")
    assert len(lines) == 3
    assert lines["best"].sum() == 1
    record = json.loads((run / "record.json").read_text())
    assert record["split_authority"].startswith("one fifth for testing, stratified, artists unknown")
    assert record["recipe"]["train"]["epochs"] == 3
    for file in ("table.md", "table.csv"):
        assert "tiny-wav2vec2" in (here().results / "music" / file).read_text()


def test_every_format_of_the_table(music: Path) -> None:
    ok("baseline", "--data", music, *FAST)
    table = ok("compare", "--data", music)
    assert "majority" in table
    assert "95 %, bootstrap over 4 tracks" in table
    markdown = ok("compare", "--data", music, "--format", "markdown")
    assert markdown.splitlines()[1].startswith("| --- |")
    latex = ok("compare", "--data", music, "--format", "latex")
    assert r"\toprule" in latex
    assert r"95 \%" in latex
    lines = ok("compare", "--data", music, "--format", "csv").splitlines()
    assert lines[0].startswith("system,category,kind,representation,head,split,leaky,n_tracks,accuracy")
    assert len(lines) == 4
    assert "known: " in refused("compare", "--data", music, "--set", "formt=csv")
    refused("compare", "--data", music, "--format", "html")
    refused("compare", "--data", music, "--seed", "7")


def test_the_same_seed_gives_the_same_predictions_bit_for_bit(music: Path) -> None:
    def predictions() -> list[pd.DataFrame]:
        ok("baseline", "--data", music, "--overwrite", *FAST)
        ok("probe", "--model", "logmel", "--data", music, "--split", "holdout")
        return [
            r.predictions().to_frame() for r in load_records("music", workspace=here()) if r.kind != "floor"
        ]

    first, second = predictions(), predictions()
    assert len(first) == 2
    for one, other in zip(first, second, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_a_run_that_is_there_is_not_repeated_and_another_seed_is_another_run(music: Path) -> None:
    ok("baseline", "--data", music, *FAST)
    again = mgc("baseline", "--data", music, *FAST)
    assert "run exists: " in again.stderr and "use --overwrite to repeat it" in again.stderr
    ok("baseline", "--data", music, "--seed", "1", *FAST)
    rows = json.loads(ok("compare", "--data", music, "--format", "json"))
    assert [row["seeds"] for row in rows if row["kind"] == "baseline"] == [2]
    only = json.loads(ok("compare", "--data", music, "--format", "json", "--seed", "1"))
    assert {row["seeds"] for row in only} == {1}


def test_several_seeds_are_one_row_of_means(music: Path) -> None:
    told = ok("baseline", "--data", music, "--seeds", "3", *FAST)
    assert told.count(f"{FAST_CNN} on music") == 3
    assert "verdict" not in told
    [row] = [
        r for r in json.loads(ok("compare", "--data", music, "--format", "json")) if r["kind"] == "baseline"
    ]
    each = [r.evaluation.accuracy for r in load_records("music", workspace=here()) if r.kind == "baseline"]
    assert row["accuracy"] == pytest.approx(np.mean(each))
    assert row["seed_sd"] == pytest.approx(np.std(each, ddof=1))
    assert row["seeds"] == 3
    assert "  3 seeds  " in ok("compare", "--data", music)


@pytest.mark.parametrize("wrong", ["0,0", "1,x", "", "x", "0", "-1", "1,-1", "101", "9" * 30, "1.5"])
@pytest.mark.parametrize("flag", ["--seeds", "--split-seeds"])
def test_wrong_seeds_are_refused_before_any_work(music: Path, flag: str, wrong: str) -> None:
    assert f"where: {flag}" in refused("baseline", "--data", music, flag, wrong, *FAST)
    assert not here().results.exists()


def test_a_single_seed_cannot_be_combined_with_several(music: Path) -> None:
    study = music.parent / "study.toml"
    study.write_text("[data]\n")
    for command in (["baseline"], ["probe", "--model", "logmel"], ["study", study]):
        for name in ("seed", "split-seed"):
            message = refused(*command, "--data", music, f"--{name}", "1", f"--{name}s", "2")
            assert f"--{name}s cannot be combined with --{name}" in message


def test_a_system_without_random_numbers_runs_once_and_a_random_one_for_every_seed(music: Path) -> None:
    words = ("probe", "--data", music, "--model", "logmel", "--split", "holdout", "--seeds", "1,2")
    done = mgc(*words, "--head", "naive_bayes")
    assert done.stdout.count(" on music") == 1 and "verdict" not in done.stdout
    assert "logmel + naive_bayes does not depend on the seed: it runs with seed 1 only" in done.stderr
    told = ok(*words, "--head", "decision_tree")
    assert told.count(" on music") == 2 and "a verdict needs 3 seeds" in told
    runs = [r for r in load_records("music", workspace=here()) if r.kind == "probe"]
    assert Counter((r.head, r.seed) for r in runs) == {
        ("naive_bayes", 1): 1, ("decision_tree", 1): 1, ("decision_tree", 2): 1,
    }  # fmt: skip


def test_only_cross_validation_is_repeated_with_several_split_seeds(music: Path) -> None:
    words = ("probe", "--data", music, "--model", "logmel", "--head", "decision_tree", "--split-seeds", "2")
    for split in ("holdout", "random"):
        message = refused(*words, "--split", split)
        assert f"split {split}" in message and "need cross-validation" in message
    assert ok(*words, "--seeds", "2").count(" on music") == 4
    runs = [r for r in load_records("music", workspace=here()) if r.kind == "probe"]
    assert {(r.recipe["data"]["split_seed"], r.seed) for r in runs} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert len({r.split_hash for r in runs}) == 2
    assert len({frozenset(r.predictions().track_ids) for r in runs}) == 1
    manifest = music / "tracks.csv"
    rows = [
        f"{file},{file.parent.name},{(n % 3 and 'train') or 'test'}"
        for n, file in enumerate(music.glob("*/*"))
    ]
    manifest.write_text("\n".join(["path,genre,split", *rows]))
    words = ("probe", "--data", manifest, "--model", "logmel", "--split-seeds", "0,1")
    assert "split given" in refused(*words)
    assert ok(*words, "--split", "cv5").count(" on ") == 2


def test_one_seed_prints_the_command_for_a_verdict_which_resumes(
    music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["baseline", "--data", str(music), "--seed", "1", "--overwrite", *FAST]
    monkeypatch.setattr(sys, "argv", ["mgc", *words])
    *_, cost, command = ok(*words).splitlines()
    assert cost.startswith("a verdict needs 3 seeds; 2 more take about ")
    again = shlex.split(command)[1:]
    assert again == ["baseline", "--data", str(music), *FAST, "--seeds", "3"]
    done = mgc(*again)
    assert done.stderr.count("run exists: ") == 1
    assert f"2 more runs of {FAST_CNN}: about " in done.stderr
    assert done.stdout.count(f"{FAST_CNN} on music") == 3 and "verdict" not in done.stdout


def test_a_seed_that_fails_does_not_stop_the_others(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _Job.run

    def failing(job: _Job, report: Any) -> Any:
        if job.recipe.seed == failed:
            raise DivergedError("the loss is not finite")
        return run(job, report)

    monkeypatch.setattr(_Job, "run", failing)
    failed: int | None = 0
    done = mgc("baseline", "--data", music, "--seeds", "2", *FAST)
    assert done.exit_code == 0 and done.stdout.count(f"{FAST_CNN} on music") == 1
    assert "1 of 2 runs failed and are not in the table:\n  cnn: the loss is not finite" in done.stderr
    assert "cnn-holdout-s0-" in done.stderr
    assert refused("baseline", "--data", music, *FAST).count("not finite") == 1
    failed = None
    done = mgc("baseline", "--data", music, "--seeds", "2", *FAST)
    assert done.stdout.count(f"{FAST_CNN} on music") == 2 and done.stderr.count("run exists") == 1


@pytest.mark.slow
def test_folds_of_all_seeds_trained_together_give_the_runs_of_single_seeds(music: Path) -> None:
    words = ("baseline", "--data", music, *FAST[:4], "--split", "cv5")

    def predictions() -> list[pd.DataFrame]:
        runs = [r for r in load_records("music", workspace=here()) if r.kind == "baseline"]
        return [r.predictions().to_frame() for r in sorted(runs, key=lambda r: r.run_id)]

    ok(*words, "--seeds", "2")
    together = predictions()
    shutil.rmtree(here().results)
    for seed in "01":
        ok(*words, "--seed", seed)
    for one, other in zip(together, predictions(), strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    diverging = ("--set", "train.learning_rate=1e30", "--set", "train.epochs=20")
    assert "not finite" in refused("baseline", "--data", music, "--split", "cv5", "--seeds", "2", *diverging)


def test_a_study_runs_what_it_names_and_only_once(music: Path, tmp_path: Path) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "net.toml").write_text(
        'name = "Small net"\nreported = "99 % (elsewhere)"\nnetwork = "cnn"\n[train]\nepochs = 9\n'
    )
    (folder / "head.toml").write_text('model = "logmel"\nhead = "naive_bayes"\n')
    study = folder / "study.toml"
    study.write_text(
        '[data]\nsplit = "holdout"\n[[runs]]\nconfig = "net.toml"\nseeds = [0, 1]\n'
        'settings = ["train.epochs=2", "train.crop_seconds=1.5"]\n[[runs]]\nconfig = "head.toml"\n'
    )
    first = mgc("study", study, "--data", music)
    assert first.exit_code == 0, first.output
    assert "study: 2 of 2: head" in first.stderr
    assert "Small net" in first.stdout
    assert "99 % (elsewhere)" in mgc("compare", "--data", music, "--format", "markdown").stdout
    assert "naive_bayes" in first.stdout
    again = mgc("study", study, "--data", music)
    assert again.stderr.count("run exists") == 2
    assert again.stdout == first.stdout
    other = mgc("study", study, "--data", music, "--seeds", "1,2")  # replaces those of single runs
    assert other.stderr.count("run exists") == 1
    assert "run exists" in mgc("study", study, "--data", music, "--seed", "2").stderr
    assert "need cross-validation" in refused("study", study, "--data", music, "--split-seeds", "2")
    (folder / "head.toml").write_text('model = "logmel"\nhaed = "svm"\n')
    message = refused("study", study, "--data", music)
    assert "'head'" in message
    assert "head.toml" in message
    (folder / "net.toml").write_text('network = "cnn"\nscan = "mel"\n')
    assert "no option scan" in refused("study", study, "--data", music)
    study.write_text("[data]\n")
    assert "has no runs" in refused("study", study, "--data", music)


def test_networks_train_on_hand_made_features(music: Path) -> None:
    ok("baseline", "--data", music, "--network", "cnn_gru", "--set", "representation=mfcc", *FAST)
    ok("baseline", "--data", music, "--network", "mlp57", "--set", "train.normalise=train", *FAST)
    by_system = {r.system: r for r in load_records("music", workspace=here())}
    assert by_system["cnn_gru"].representation == "mfcc"
    assert by_system["cnn_gru"].recipe["scan"] == "time"
    assert by_system["mlp57"].representation == "stats57"
    assert by_system["mlp57"].recipe["train"]["normalise"] == "train"
    message = refused("baseline", "--data", music, "--set", "representation=musicnn", *FAST)
    assert "is not trained from scratch" in message
    message = refused(
        "baseline", "--data", music, "--network", "cnn_gru", "--set", "representation=stats57", *FAST
    )
    assert "needs at least 8 frames" in message
    noisy = ("--network", "mlp57", "--set", "augment.noise=0.2")
    assert "train.normalise = 'l2'" in refused("baseline", "--data", music, *noisy, *FAST)
    assert "no option classifier_dropout" in refused(
        "baseline", "--data", music, "--set", "classifier_dropout=0.1", *FAST
    )


def test_epochs_after_the_first_decode_nothing(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ok("probe", "--model", "logmel", "--data", music, "--split", "holdout")

    def fail(*_: object) -> None:
        raise AssertionError("an audio file was opened")

    monkeypatch.setattr(soundfile, "SoundFile", fail)
    assert "accuracy" in ok("baseline", "--data", music, *FAST)


def test_splits_of_different_seeds_are_never_compared(music: Path) -> None:
    ok("baseline", "--data", music, *FAST)
    ok("probe", "--model", "logmel", "--data", music, "--split", "holdout", "--split-seed", "1")
    rows = json.loads(ok("compare", "--data", music, "--format", "json"))
    other = [row for row in rows if row["kind"] == "probe"]
    assert other[0]["vs_baseline"] is None
    assert len({row["split_hash"] for row in rows}) == 2


def test_a_config_file_and_what_overrides_it(music: Path, tmp_path: Path) -> None:
    config = tmp_path / "short.toml"
    config.write_text('hypothesis = "less is enough"\n[data]\nsplit = "holdout"\n[train]\nepochs = 1\n')
    ok("baseline", "--data", music, "--config", config, "--set", "train.batch_size=4", "--seed", "3")
    record = next(r for r in load_records("music", workspace=here()) if r.kind == "baseline")
    assert (record.recipe["train"]["epochs"], record.recipe["train"]["batch_size"]) == (1, 4)
    assert (record.seed, record.hypothesis) == (3, "less is enough")
    config.write_text("[train]\nepoch = 1\n")
    message = refused("baseline", "--data", music, "--config", config)
    assert "train.epoch" in message
    assert str(config) in message
    assert "'epochs'" in message


def test_columns_are_named_by_an_option(music: Path, tmp_path: Path) -> None:
    files = sorted(music.glob("*/*.wav"))
    rows = {
        "where": [f.relative_to(tmp_path).as_posix() for f in files],
        "style": [f.parent.name for f in files],
    }
    pd.DataFrame(rows).to_csv(tmp_path / "tracks.csv", index=False)
    manifest = tmp_path / "tracks.csv"
    assert "--column path=" in refused("data", "info", "--data", manifest)
    told = ok("data", "info", "--data", manifest, "--column", "path=where", "--column", "label=style")
    assert "20 tracks, 2 genres" in told
    assert "KEY=NAME" in refused("data", "info", "--data", manifest, "--column", "pth=where")


def test_mistakes_end_in_one_message(music: Path, tmp_path: Path) -> None:
    assert "no folder, manifest or dataset" in refused("baseline", "--data", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no audio was found" in refused("probe", "--model", "musicnn", "--data", tmp_path / "empty")
    (tmp_path / "one").mkdir()
    shutil.copytree(music / "calm", tmp_path / "one" / "calm")
    assert "only the class 'calm'" in refused("baseline", "--data", tmp_path / "one")
    assert "unknown network 'cnnn'" in refused("baseline", "--data", music, "--network", "cnnn")
    assert "device = 'tpu'" in refused("embed", "--data", music, "--model", "logmel", "--device", "tpu")
    assert "unknown head 'logistics'" in refused("probe", "--data", music, "--head", "logistics")
    assert "seed = 2147483648" in refused("probe", "--data", music, "--model", "logmel", "--seed", 2**31)
    assert "seeds.1 = 4294967296" in refused("baseline", "--data", music, "--seeds", f"0,{2**32}")
    assert "split_seed = 4294967296" in refused("data", "info", "--data", music, "--split-seed", 2**32)
    assert "model = ''" in refused("probe", "--data", music, "--model", "")
    assert "source = ''" in refused("data", "info", "--data", "")
    for file in sorted((music / "pulse").iterdir())[3:]:
        file.unlink()
    assert "'pulse' has 3 tracks" in refused("baseline", "--data", music)


def test_a_genre_of_two_lines_stays_on_one(music: Path) -> None:
    (music / "calm").rename(music / "calm\nand\x1b[31m slow")
    told = ok("probe", "--data", music, "--model", "logmel", "--split", "holdout")
    assert "    calm\\nand\\x1b[31m slow  precision" in told


def test_a_full_disk_ends_in_a_message_with_a_fix(capsys: pytest.CaptureFixture[str]) -> None:
    @guarded
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "results/x")

    with pytest.raises(typer.Exit):
        full()
    told = capsys.readouterr().err
    assert "where: results/x" in told and "to do: free some space" in told


def test_unusable_tracks_are_named_and_left_out_of_every_path(music: Path, tiny_encoder: Path) -> None:
    (music / "calm" / "notes.mp3").write_text("this is text")
    (music / "pulse" / "nothing.wav").write_bytes(b"")
    soundfile.write(music / "pulse" / "one.wav", np.zeros(1), 16_000)
    soundfile.write(music / "pulse" / "nan.wav", np.full(32_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    stopped = refused("baseline", "--data", music, *FAST)
    for name in ("notes.mp3", "nothing.wav", "one.wav", "nan.wav", "4 of 24"):
        assert name in stopped
    allowed = ("--set", "data.max_excluded=0.2")
    done = mgc("baseline", "--data", music, *FAST, *allowed)
    assert done.exit_code == 0
    assert "excluded: pulse/one.wav: too short: 1 samples" in done.stderr
    told = mgc("embed", "--model", tiny_encoder, "--data", music, *allowed)
    assert "excluded: pulse/one.wav: too short: 1 samples" in told.stderr
    ok("probe", "--model", tiny_encoder, "--data", music, "--split", "holdout", *allowed)
    records = load_records("music", workspace=here())
    assert {len(record.excluded) for record in records} == {4}
    assert len({record.split_hash for record in records}) == 1


def test_probe_alone_takes_what_the_store_holds(music: Path, tiny_encoder: Path) -> None:
    assert "mgc embed" in refused("probe", "--data", music)
    ok("embed", "--data", music, "--model", tiny_encoder)
    assert "tiny-wav2vec2 + logistic" in ok("probe", "--data", music)
    layers = refused("probe", "--data", music, "--model", tiny_encoder, "--layers", "layer9")
    assert "layer2" in layers
    assert "accuracy" in ok(
        "probe", "--data", music, "--model", tiny_encoder, "--layers", "layer1", "--pool", "mean"
    )


def test_layers_are_chosen_by_inner_folds_on_validation_or_weighted(music: Path, tiny_encoder: Path) -> None:
    command = ("probe", "--data", music, "--model", tiny_encoder, "--split", "holdout")
    told = ok(*command, "--layers", "sweep") + ok(*command, "--layers", "weighted")
    assert "tiny-wav2vec2 (best layer) + logistic" in told
    assert "tiny-wav2vec2 (weighted layers) + logistic" in told
    sweep, summed = (r for r in load_records("music", workspace=here()) if r.kind == "probe")
    [fold] = sweep.chosen
    losses = fold["cv_brier_score_of_layers"]
    assert list(losses) == ["layer0", "layer1", "layer2"]
    assert fold["layer"] == min(losses, key=losses.get)
    assert "chosen by inner folds" in ok("runs", "show", sweep.run_id)
    ok(*command, "--layers", "sweep", "--select", "validation")
    [old] = (r for r in load_records("music", workspace=here()) if r.recipe.get("select") == "validation")
    losses = old.chosen[0]["val_log_loss_of_layers"]
    assert min(losses, key=losses.get) == old.chosen[0]["layer"]
    assert "chosen on the validation set" in ok("runs", "show", old.run_id)
    assert sum(summed.chosen[0]["layer_weights"]) == pytest.approx(1)
    assert "--layers sweep" in refused(*command, "--layers", "weighted", "--head", "knn")


def test_limit_takes_tracks_of_every_genre(music: Path) -> None:
    told = ok("data", "info", "--data", music, "--limit", "10")
    assert "10 tracks, 2 genres" in told
    assert told.count(" 5 tracks") == 2


def test_the_default_data_set_is_named_by_the_environment(
    music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MGC_DATA", str(music))
    assert "music: 20 tracks" in ok("data", "info")


def test_a_killed_embedding_goes_on_where_it_stopped(music: Path, tiny_encoder: Path) -> None:
    """SIGTERM while clips are computed: what was finished is kept, the next call computes the rest."""
    slow = (
        "import sys, time\nfrom mgc.representations import pooling\nrepresent = pooling.represent\n"
        "def slowly(*a, **k):\n    for item in represent(*a, **k):\n        time.sleep(0.2); yield item\n"
        "pooling.represent = slowly\nfrom mgc.cli import main\n"
        f"sys.argv = ['mgc', 'embed', '--data', {str(music)!r}, '--model', {str(tiny_encoder)!r},"
        " '--set', 'batch_size=1']\nmain()"
    )
    child = subprocess.Popen([sys.executable, "-c", slow], stderr=subprocess.PIPE, text=True)
    card = None
    for _ in range(600):
        card = next(here().cache.glob("tiny*/representation.json"), None)
        if card:
            break
        time.sleep(0.1)
    assert card
    time.sleep(1.5)
    child.send_signal(signal.SIGTERM)
    _, told = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "stopped" in told
    kept = sum(len(pd.read_feather(shard)) for shard in card.parent.glob("*.arrow"))
    assert 0 < kept < 20
    assert f"{20 - kept} computed, {kept} cached" in ok("embed", "--data", music, "--model", tiny_encoder)
    rows = pd.concat([pd.read_feather(shard) for shard in card.parent.glob("*.arrow")])
    assert rows["clip"].is_unique
    assert len(rows) == 20


@pytest.mark.slow
def test_folds_side_by_side_are_the_same_twice(music: Path) -> None:
    quick = [word for word in FAST if word not in ("--split", "holdout")]
    tables = []
    for _ in range(2):
        ok("baseline", "--data", music, "--overwrite", *quick)
        record = next(r for r in load_records("music", workspace=here()) if r.kind == "baseline")
        assert (record.split, record.evaluation.n_tracks) == ("cv5", 20)
        tables.append(record.predictions().to_frame())
    pd.testing.assert_frame_equal(*tables, check_exact=True)


@pytest.mark.slow
def test_a_training_that_is_stopped_leaves_no_process_behind(music: Path) -> None:
    command = [sys.executable, "-m", "mgc", "baseline", "--data", str(music), "--set", "train.epochs=9999"]
    child = subprocess.Popen(
        [*command, "--set", "train.patience=9999"], stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert child.stderr
    for line in child.stderr:
        if line.startswith("train cnn") and "epoch" in line:
            break
    started = psutil.Process(child.pid).children(recursive=True)
    assert len(started) >= 2
    child.send_signal(signal.SIGTERM)
    _, told = child.communicate(timeout=20)
    assert child.returncode == 130
    assert "stopped" in told
    _, alive = psutil.wait_procs(started, timeout=5)
    assert not alive


@pytest.mark.slow
@needs_emotify
def test_emotify_musicnn_reaches_what_it_should() -> None:
    manifest = SHARED / "data/emotify/tracks.csv"
    assert "138 artists" in ok("probe", "--model", "musicnn", "--data", manifest)
    record = next(r for r in load_records("emotify", workspace=here()) if r.kind == "probe")
    assert record.evaluation.n_tracks == 400
    assert record.evaluation.accuracy >= 0.72
    floor = next(r for r in load_records("emotify", workspace=here()) if r.system == "logmel statistics")
    assert floor.evaluation.accuracy < record.evaluation.accuracy_low


@pytest.mark.slow
@needs_emotify
@needs_whisper
def test_emotify_a_part_through_the_real_whisper_encoder() -> None:
    manifest, folder = SHARED / "data/emotify/tracks.csv", SHARED / "weights/whisper-tiny.en-encoder"
    ok("probe", "--model", folder, "--data", manifest, "--limit", "80")
    record = next(r for r in load_records("emotify", workspace=here()) if r.kind == "probe")
    assert record.evaluation.accuracy > 0.45


def commands() -> list[tuple[str, Any]]:
    """Every command of the program by its words."""

    def walk(words: str, command: Any) -> Iterator[tuple[str, Any]]:
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(f"{words} {name}", child)
        if not hasattr(command, "commands"):
            yield words, command

    return [*walk("mgc", typer.main.get_command(app))]


@pytest.mark.parametrize(("words", "command"), commands(), ids=lambda value: value if value is str else None)
def test_help_documents_every_option_and_gives_examples(words: str, command: Any) -> None:
    assert command.help
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    for parameter in command.params:
        assert parameter.help.endswith("."), (words, parameter.name)
    for option in options:
        assert "Default: " in option.help or option.name == "help", (words, option.name)
    title, *examples = command.epilog.split("\n\n")
    assert title == "Examples:"
    assert examples
    known = {flag for option in options for flag in option.opts + option.secondary_opts}
    for example in examples:
        assert example.startswith(words)
        assert {word for word in example.split() if word.startswith("--")} <= known, example
