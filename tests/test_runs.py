"""Finished runs: listed, found, described, removed and reproduced."""

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import here, write_music
from typer.testing import CliRunner, Result

from mgc import runs
from mgc.cli import app
from mgc.evaluate import Predictions
from mgc.experiments.rerun import RERUNS
from mgc.runs.record import RunRecord, load_records
from mgc.util.errors import MgcError

CLASSES = ("calm", "pulse")


def mgc(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def ok(*words: object) -> str:
    done = mgc(*words)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def refused(*words: object) -> str:
    done = mgc(*words)
    assert done.exit_code == 2, (done.output, done.exception)
    assert isinstance(done.exception, SystemExit)
    return done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Music, and the results and the cache of one probe of it with its floors."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MGC_RESULTS", str(folder / "mgc_results"))
        patch.setenv("MGC_EMBEDDINGS_CACHE", str(folder / "mgc_embeddings_cache"))
        write_music(folder / "music", 1.0)
        ok("probe", "--model", "mfcc", "--data", folder / "music", "--split", "holdout", "--limit", "16")
    return folder


@pytest.fixture
def music(made: Path, tmp_path: Path) -> Path:
    """A copy of all of it for this test."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "music"


@pytest.fixture
def probed(music: Path) -> RunRecord:
    """The record of the probe, with the copied music as its data."""
    found = next(record for record in load_records("music", workspace=here()) if record.kind == "probe")
    data = {**found.recipe["data"], "source": str(music)}
    return written(replace(found, recipe={**found.recipe, "data": data}))


def test_a_record_knows_whether_its_run_draws_random_numbers(probed: RunRecord) -> None:
    assert not probed.random
    changes: list[dict[str, object]] = [
        {"head": "mlp"}, {"network": "cnn"},
        {"random_weights": True}, {"random_weights": True, "random_seed": 7},
    ]  # fmt: skip
    assert all(replace(probed, recipe=probed.recipe | change).random for change in changes)


def written(record: RunRecord) -> RunRecord:
    """The record, saved with its present predictions."""
    record.save(record.predictions())
    return record


def test_the_list_shows_every_folder_of_a_run_and_its_state(probed: RunRecord) -> None:
    data = here().results / "music"
    newer = replace(probed, run_id="mfcc-newer", revisions={"split": 9}, created="2999-01-01")
    newer = replace(newer, folder=data / newer.run_id)
    newer.save(probed.predictions())
    for name in ("broken", "begun", "tune-cnn-1"):
        (data / name).mkdir()
    (data / "broken" / "record.json").write_text("{")
    (data / "begun" / "fold0.checkpoint").write_text("")
    (data / "tune-cnn-1" / "journal.log").write_text("")
    rows = {row["run_id"]: row for row in json.loads(ok("runs", "ls", "--format", "json"))}
    states = {name: row["state"] for name, row in rows.items() if not name.startswith(("majority", "logmel"))}
    assert states == {
        probed.run_id: "superseded", "mfcc-newer": "current", "broken": "damaged", "begun": "unfinished",
    }  # fmt: skip
    assert rows[probed.run_id]["predictions"] is True
    assert rows[probed.run_id]["accuracy"] == probed.scores["accuracy"]
    table = ok("runs", "ls", "--data", "music").splitlines()
    assert len(table) == len(rows) + 2
    assert "did you mean 'music'" in refused("runs", "ls", "--data", "musik")
    refused("runs", "ls", "--format", "csv")
    assert "unfinished" in ok("runs", "show", data / "begun")


def test_a_run_is_found_by_id_or_folder_and_a_wrong_id_gets_a_suggestion(probed: RunRecord) -> None:
    for word in (probed.run_id, str(probed.folder), f"{probed.folder}/record.json"):
        assert runs.find_run(word, workspace=here()).record == probed
    with pytest.raises(MgcError) as refusal:
        runs.find_run(probed.run_id[:-1], workspace=here())
    assert f"did you mean '{probed.run_id}'" in str(refusal.value)
    other = here().results / "elsewhere" / probed.run_id
    other.mkdir(parents=True)
    (other / "record.json").write_text((probed.folder / "record.json").read_text())
    assert "2 runs have the id" in refused("runs", "show", probed.run_id)


def test_show_names_changed_settings_and_a_command_that_reproduces_the_run(probed: RunRecord) -> None:
    told = ok("runs", "show", probed.run_id)
    assert 'data.split = "holdout"' in told
    assert "data.limit = 16" in told
    assert "data.max_excluded" not in told
    assert f"accuracy {probed.evaluation.accuracy:.3f}" in told
    assert "predictions.parquet" in told
    assert "strength" in told
    odd = replace(probed, recipe={**probed.recipe, "name": "a 'b' é", "hypothesis": "h"})
    words = shlex.split(runs.command_line(odd))
    assert words[:2] == ["mgc", "probe"]
    assert "name=\"a 'b' é\"" in words
    (probed.folder / "record.json").unlink()
    ok(*words[1:])
    again = [record for record in load_records("music", workspace=here()) if record.kind == "probe"]
    assert [record.run_id for record in again] == [probed.run_id]
    assert again[0].name == "a 'b' é"


def test_rm_lists_first_and_updates_the_tables(probed: RunRecord, tmp_path: Path) -> None:
    table = probed.folder.parent / "table.md"
    assert "mfcc" in table.read_text()
    assert "nothing was removed" in ok("runs", "rm", probed.run_id)
    assert probed.folder.exists()
    outside = tmp_path / "outside"
    probed.folder.rename(outside)
    probed.folder.symlink_to(outside)
    assert "link" in refused("runs", "rm", probed.run_id, "--apply")
    assert (outside / "record.json").exists()
    probed.folder.unlink()
    outside.rename(probed.folder)
    refused("runs", "rm", "nonsense", probed.run_id, "--apply")
    refused("runs", "rm", str(tmp_path / "music"), "--apply")
    assert probed.folder.exists()
    ok("runs", "rm", probed.run_id, probed.folder, "--apply")
    assert not probed.folder.exists()
    assert "mfcc" not in table.read_text()
    ok("runs", "rm", *(record.run_id for record in load_records("music", workspace=here())), "--apply")
    assert not table.exists()


def test_a_rerun_is_bit_identical_also_after_the_tracks_moved(probed: RunRecord, music: Path) -> None:
    music.rename(music.parent / "moved")
    assert "--data" in refused("rerun", probed.run_id)
    before = {file: file.read_bytes() for file in probed.folder.parent.rglob("*") if file.is_file()}
    told = ok("rerun", probed.run_id, "--data", music.parent / "moved")
    assert "predictions: bit-identical, 3 tracks" in told
    for what in ("tracks", "split", "representation", "revisions"):
        assert f"{what}: same" in told
    assert {file: file.read_bytes() for file in probed.folder.parent.rglob("*") if file.is_file()} == before
    assert {folder.name for folder in (here().results / RERUNS).iterdir()} == {".locks"}
    floor = next(record for record in load_records("music", workspace=here()) if record.system == "majority")
    patched = replace(floor, recipe={**floor.recipe, "data": probed.recipe["data"]})
    assert "bit-identical" in ok("rerun", written(patched).run_id, "--data", music.parent / "moved")


def test_a_rerun_with_other_predictions_or_code_reports_the_difference(probed: RunRecord) -> None:
    said = probed.predictions()
    shifted = said.probabilities @ np.array([[0.9, 0.1], [0.1, 0.9]])
    old = replace(probed, revisions={"split": 9}, versions={**probed.versions, "torch": "1.0"}, commit="abc")
    old.save(Predictions(said.classes, said.track_ids, said.labels, shifted, said.groups, said.fold))
    done = mgc("rerun", probed.run_id)
    assert done.exit_code == 1, done.output
    assert "0 of 3 tracks predicted differently, probabilities differ by at most 0." in done.output
    for reason in (
        "revisions: DIFFERENT, split 9 then",
        "torch 1.0 then",
        "commit abc then",
        "DIFFERENT. Poss",
    ):
        assert reason in done.output
    [left] = (here().results / RERUNS).glob("*/*/mfcc-*")
    assert str(left) in done.output
    ok("rerun", probed.run_id, "--tolerance", "0.1")  # the earlier rerun is neither reused nor removed
    assert [*(here().results / RERUNS).glob("*/*/mfcc-*")] == [left]


def test_a_rerun_on_other_tracks_compares_those_in_both(probed: RunRecord, music: Path) -> None:
    (music / "calm" / "0.wav").write_bytes((music / "calm" / "1.wav").read_bytes())
    gone = [track for track in probed.predictions().track_ids if track.startswith("pulse")]
    (music / gone[0]).unlink()
    done = mgc("rerun", probed.run_id)
    assert done.exit_code == 1, done.output
    assert "tracks: DIFFERENT" in done.output
    assert "of the tracks in both" in done.output


def test_a_rerun_uses_the_quarantine(probed: RunRecord) -> None:
    file = here().quarantine_file("music")
    file.parent.mkdir(exist_ok=True)
    header = "track_id,excluded,kind,reason,copy_of,label,path,content"
    tested = probed.predictions().track_ids[0]
    file.write_text(f"{header}\n{tested},yes,by hand,noise,,calm,,\n")
    done = mgc("rerun", probed.run_id)
    assert done.exit_code == 1
    assert "tracks: DIFFERENT" in done.output


def test_settings_of_another_version_are_named(probed: RunRecord) -> None:
    data = {key: value for key, value in probed.recipe["data"].items() if key != "per_class"}
    written(replace(probed, recipe={**probed.recipe, "data": data}))
    assert "set to their defaults: data.per_class" in ok("rerun", probed.run_id)
    written(replace(probed, recipe={**probed.recipe, "tempo": 3}))
    assert "unknown settings in this version of mgc: tempo" in refused("rerun", probed.run_id)
    assert "tempo = 3" in ok("runs", "show", probed.run_id)
    written(replace(probed, recipe={**probed.recipe, "keep": "frames"}))
    assert "keep = 'frames'" in refused("rerun", probed.run_id)
    (probed.folder / "predictions.parquet").unlink()
    assert "is damaged: predictions.parquet cannot be read: No such file" in refused("rerun", probed.run_id)


@pytest.fixture
def study_file(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "probe.toml").write_text('head = "logistic"\n')
    runs_ = "".join(
        f'[[runs]]\nconfig = "probe.toml"\nsettings = ["model={model}"]\n'
        for model in (tmp_path / "not-there", f'{tmp_path / "nor-there"}", "random_weights=true', "mfcc")
    )
    file = tmp_path / "study.toml"
    file.write_text(f'hypothesis = "h"\n[data]\nsplit = "holdout"\nlimit = 16\n{runs_}')
    yield file


def test_a_study_skips_a_missing_encoder_and_names_it(music: Path, study_file: Path) -> None:
    done = mgc("study", study_file, "--data", music)
    assert done.exit_code == 0, done.output
    assert "mfcc" in done.stdout
    assert "skipped: probe model=" in done.stderr
    assert "2 of 3 runs failed and are not in the table" in done.stderr
    assert "no folder, manifest or dataset" in refused("study", study_file, "--data", music / "no")
    study_file.write_text(study_file.read_text().replace('"model=mfcc"', '"model=also-not-there"'))
    assert "not-there" in refused("study", study_file, "--data", music)


def test_a_closed_pipe_is_not_an_error(probed: RunRecord) -> None:
    """`mgc ... | head` ends silently, with exit code 1."""
    command = [sys.executable, "-m", "mgc", "runs", "show", probed.run_id]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writer.stdout and writer.stderr
    writer.stdout.close()
    assert (writer.wait(60), writer.stderr.read()) == (1, b"")


def test_a_record_without_scores_is_listed(probed: RunRecord) -> None:
    written(replace(probed, scores={}))
    rows = {row["run_id"]: row for row in json.loads(ok("runs", "ls", "--format", "json"))}
    assert rows[probed.run_id]["accuracy"] is None
    assert "no run" in refused("runs", "show", "a\0b")
