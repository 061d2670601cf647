"""Records, weights, checkpoints and settings that were damaged, swapped, or written by somebody else."""

import functools
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import here, write_music
from typer.testing import CliRunner, Result

from mgc import runs
from mgc.cli import app
from mgc.config import CompareRecipe, ProbeRecipe, Repeats, StudyRecipe, TrainRecipe, read_recipe
from mgc.experiments import rerun as reruns
from mgc.experiments import systems
from mgc.experiments.rerun import RERUNS
from mgc.experiments.study import plan_runs
from mgc.predict import export, open_run
from mgc.predict.models import load_models
from mgc.representations import open_representation
from mgc.runs.record import RunRecord, load_record, load_records, sealed, select_records
from mgc.training.loop import Epoch, TrackSet, Trained, train
from mgc.util import files
from mgc.util.errors import MgcError
from mgc.workspace import Workspace


def mgc(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(*words: object) -> str:
    done = mgc(*words)
    assert done.exit_code == 2, (done.output, done.exception)
    assert isinstance(done.exception, SystemExit)
    return done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tracks, and the results of a probe and a small network on them, with the floors."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MGC_RESULTS", str(folder / "mgc_results"))
        patch.setenv("MGC_EMBEDDINGS_CACHE", str(folder / "mgc_embeddings_cache"))
        write_music(folder / "music", 1.0)
        common = ("--data", folder / "music", "--split", "holdout")
        for words in (
            ("probe", "--model", "mfcc"),
            ("baseline", "--network", "mlp57", "--set", "train.epochs=2"),
        ):
            done = mgc(*words, *common)
            assert done.exit_code == 0, (done.output, done.exception)
    return folder


@pytest.fixture
def records(made: Path, tmp_path: Path) -> dict[str, RunRecord]:
    """The records by kind, in a copy of the results for this test; floors are by the name of the system."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    found = load_records("music", here())
    return {record.system if record.kind == "floor" else record.kind: record for record in found}


def state_of(record: RunRecord) -> runs.Run:
    listed = runs.list_runs(here(), "music", weights=True)
    return next(run for run in listed if run.folder == record.folder)


def rewrite(record: RunRecord, **changes: object) -> None:
    """Change fields of a record.json as somebody would who knows its checksum."""
    file = record.folder / "record.json"
    file.write_text(sealed(json.loads(file.read_text()) | changes))


# --- names ------------------------------------------------------------------------------------------------

HOSTILE = ("../../precious", "../precious", "..", ".", "", "a/b", "/tmp/precious")
PLACES = [*itertools.product(("run_id", "data"), HOSTILE), ("run_id", "another-run-0123abcd")]


@pytest.mark.parametrize(("field", "name"), PLACES)
def test_a_record_with_the_name_of_another_place_is_refused(
    records: dict[str, RunRecord], tmp_path: Path, field: str, name: str
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    probe = records["probe"]
    rewrite(probe, **{field: name})
    assert state_of(probe).state == "damaged"
    assert "damaged" in refused("rerun", probe.run_id)
    assert [record.kind for record in load_records("music", here())].count("probe") == 0
    assert (precious / "thesis.tex").read_text() == "years of work"
    assert not (here().results / RERUNS).exists()


def test_a_checksum_of_a_file_elsewhere_is_refused(records: dict[str, RunRecord]) -> None:
    rewrite(records["probe"], sha256={"../../../../../../dev/zero": "0"})
    assert "cannot be the name of a file" in state_of(records["probe"]).reason


def test_save_writes_into_the_folder_of_the_run_only(records: dict[str, RunRecord], tmp_path: Path) -> None:
    probe = records["probe"]
    said = probe.predictions()
    with pytest.raises(MgcError, match="not the folder of the run"):
        replace(probe, folder=tmp_path / "elsewhere").save(said)
    with pytest.raises(MgcError, match="cannot be the name"):
        replace(probe, run_id="../elsewhere", folder=tmp_path / "elsewhere").save(said)
    outside = probe.folder.rename(tmp_path / probe.run_id)
    probe.folder.symlink_to(outside)
    before = {file: file.read_bytes() for file in outside.iterdir()}
    with pytest.raises(MgcError, match="a link to another place"):
        probe.save(said)
    assert {file: file.read_bytes() for file in outside.iterdir()} == before
    assert not (tmp_path / "elsewhere").exists()


def test_a_rerun_removes_only_what_it_created(records: dict[str, RunRecord], tmp_path: Path) -> None:
    precious, probe = tmp_path / "precious", records["probe"]
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    place = here().results / RERUNS
    (place / probe.run_id / "music").mkdir(parents=True)
    (place / probe.run_id / "notes.txt").write_text("mine")
    (place / f"{probe.run_id}.1").symlink_to(precious)
    (place / f"{probe.run_id}.2").mkdir()
    (place / f"{probe.run_id}.2" / "notes.txt").write_text("mine, too")
    done = mgc("rerun", probe.run_id)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "SAME" in done.output and f"new run: {place / probe.run_id}.2" in done.output
    done = mgc("rerun", probe.run_id)
    assert done.exit_code == 0 and "new run" not in done.output
    assert not (place / f"{probe.run_id}.3").exists()
    assert {file.read_text() for file in place.glob("*/notes.txt")} == {"mine", "mine, too"}
    assert [*precious.iterdir()] == [precious / "thesis.tex"]


# --- trust ------------------------------------------------------------------------------------------------


def test_no_file_gives_trust(records: dict[str, RunRecord], tmp_path: Path) -> None:
    config, probe = tmp_path / "probe.toml", records["probe"]
    config.write_text('model = "mfcc"\ntrust_remote_code = true\n')
    for words in (("--config", config), ("--set", "trust_remote_code=true")):
        for command in ("probe", "embed", "doctor", "robust", "curve"):
            assert "add --trust-remote-code" in refused(command, "--data", tmp_path / "music", *words)
    study = tmp_path / "study.toml"
    run = '[[runs]]\nconfig = "probe.toml"\n'
    for text in ("trust_remote_code = true\n" + run, run):
        study.write_text(text)
        assert "add --trust-remote-code" in refused("study", study, "--data", tmp_path / "music")
    config.write_text('model = "mfcc"\ntrust_remote_code = false\n')  # in configs of earlier versions
    assert read_recipe(ProbeRecipe, config) == ProbeRecipe(model="mfcc")
    study.write_text('[[runs]]\nconfig = "probe.toml"\nsettings = ["trust_remote_code=true"]\n')
    with pytest.raises(MgcError, match="cannot allow it"):
        plan_runs(read_recipe(StudyRecipe, study), study, Repeats())
    rewrite(probe, recipe={**probe.recipe, "trust_remote_code": True})
    assert "trust_remote_code" not in load_record(probe.folder / "record.json").recipe
    assert "trust_remote_code" not in runs.command_line(load_record(probe.folder / "record.json"))


@pytest.mark.parametrize("given", [True, False])
def test_a_rerun_is_trusted_by_its_flag_alone(
    records: dict[str, RunRecord], monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    probe, asked = records["probe"], []

    def spy(recipe: ProbeRecipe, workspace: Workspace) -> RunRecord:
        asked.append(workspace.trust_remote_code)
        return probe

    monkeypatch.setattr(reruns, "run_recipe", spy)
    rewrite(probe, recipe={**probe.recipe, "trust_remote_code": True})
    mgc("rerun", probe.run_id, *(["--trust-remote-code"] if given else []))
    assert asked == [given]


@pytest.mark.parametrize(
    "words",
    ["rerun X", "study X", "curve", "robust", "predict X {file}", "export X Y", "probe", "embed", "doctor"],
)
def test_commands_that_load_an_encoder_have_the_flag(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def spy(data: str | None = None, trust_remote_code: bool = False) -> Workspace:
        asked.append(trust_remote_code)
        raise MgcError("stopped")

    monkeypatch.setattr(Workspace, "from_environment", spy)
    (tmp_path / "a.wav").touch()
    (tmp_path / "X").touch()
    monkeypatch.chdir(tmp_path)
    for flag in ([], ["--trust-remote-code"]):
        refused(*words.format(file=tmp_path / "a.wav").split(), *flag)
    assert asked == [False, True]


# --- damage -----------------------------------------------------------------------------------------------

Damage = Callable[[Path, random.Random], None]


def flipped(file: Path, draw: random.Random) -> None:
    raw = bytearray(file.read_bytes())
    raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
    file.write_bytes(raw)


def truncated(file: Path, draw: random.Random) -> None:
    raw = file.read_bytes()
    file.write_bytes(raw[: draw.randrange(1, len(raw))])


def empty(file: Path, draw: random.Random) -> None:
    file.write_bytes(b"")


def longer(file: Path, draw: random.Random) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


def swapped(file: Path, draw: random.Random) -> None:
    """With a file of the same kind of another run, or of another fold."""
    others = [*file.parent.parent.glob(f"*/{file.name}"), *file.parent.parent.glob("*/*.safetensors")]
    contents = {other.read_bytes() for other in others if other.suffix == file.suffix} - {file.read_bytes()}
    file.write_bytes(min(contents) if contents else b"fold,epoch\n")


def missing(file: Path, draw: random.Random) -> None:
    file.unlink()


def linked(file: Path, draw: random.Random) -> None:
    file.unlink()
    file.symlink_to("/etc/hostname")


def a_pipe(file: Path, draw: random.Random) -> None:
    file.unlink()
    os.mkfifo(file)


def endless(file: Path, draw: random.Random) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def a_folder(file: Path, draw: random.Random) -> None:
    file.unlink()
    file.mkdir()


DAMAGES = (flipped, truncated, empty, longer, swapped, missing, linked, a_pipe, endless, a_folder)
FILES = {
    "record.json": "baseline",
    "predictions.parquet": "probe",
    "validation.parquet": "probe",
    "curves.csv": "baseline",
    "fold0.safetensors": "baseline",
    "head0.safetensors": "probe",
    "novelty.npz": "probe",
}


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_of_a_run_is_found(records: dict[str, RunRecord], name: str) -> None:
    draw, record = random.Random(name), records[FILES[name]]
    file, weights = record.folder / name, name.endswith((".safetensors", ".npz"))
    whole, others = file.read_bytes(), len(load_records("music", here())) - 1
    for damage in (*[flipped] * 8, *DAMAGES):
        damage(file, draw)
        if name == "record.json" and damage is missing:
            assert state_of(record).state == "unfinished"
        elif weights and damage is missing:  # they are not shared with the records
            assert state_of(record).state == "current"
        else:
            assert state_of(record).state == "damaged", damage
        if name == "record.json" or not weights:
            assert len(load_records("music", here())) == others, damage
        with pytest.raises(MgcError):
            load_record(record.folder / "record.json").read(name)
        shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
        file.write_bytes(whole)
        assert state_of(record).state == "current"


def test_a_run_of_another_folder_is_not_this_run(records: dict[str, RunRecord]) -> None:
    probe, network = records["probe"].folder, records["baseline"].folder
    shutil.rmtree(probe)
    shutil.copytree(network, probe)
    assert "it is of the run" in state_of(records["probe"]).reason


def test_a_folder_of_results_may_be_renamed(records: dict[str, RunRecord]) -> None:
    (here().results / "music").rename(here().results / "renamed")
    listed = runs.list_runs(here(), "renamed", weights=True)
    assert len(listed) == len(records) and {run.state for run in listed} == {"current"}
    assert {record.data for record in load_records("renamed", here())} == {"music"}
    done = mgc("report", "--data", "renamed", "--bundle", "--no-audio")
    assert done.exit_code == 0, (done.output, done.exception)
    assert (here().results / "renamed" / "hand-in.zip").exists() and not (here().results / "music").exists()


def test_damaged_runs_are_named_once_and_the_others_compared(
    records: dict[str, RunRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    flipped(records["probe"].folder / "predictions.parquet", random.Random(1))
    for _ in range(2):
        selected = select_records(CompareRecipe.model_validate({"data": {"source": "music"}}), here())
        assert {record.kind for record in selected} == {"floor", "baseline"}
    told = capsys.readouterr().err
    assert mgc("compare", "--data", "music").exit_code == 0
    assert told.count(records["probe"].run_id) == 1 and "is damaged" in told and "--overwrite" in told


def test_records_of_earlier_versions_are_used_and_named(
    records: dict[str, RunRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    probe = records["probe"]
    file = probe.folder / "record.json"
    content = json.loads(file.read_text())
    del content["sha256"], content["record_sha256"]
    file.write_text(json.dumps(content))
    assert state_of(probe).status == "current: no checksums, written by an earlier version of mgc"
    select_records(CompareRecipe.model_validate({"data": {"source": "music"}}), here())
    assert "1 run of an earlier version of mgc without checksums" in capsys.readouterr().err
    assert load_models(load_record(probe.folder / "record.json"), here()).classes == ("calm", "pulse")
    whole = (probe.folder / "predictions.parquet").read_bytes()
    draw = random.Random(2)
    for damage in (*[flipped] * 60, *[truncated] * 10, empty):  # whatever it reads, it does not fail
        damage(probe.folder / "predictions.parquet", draw)
        assert state_of(probe).state in ("current", "damaged")
        (probe.folder / "predictions.parquet").write_bytes(whole)
    content["sha256"] = {"predictions.parquet": "0"}  # half of the checksums are damage, not an old version
    file.write_text(json.dumps(content))
    assert state_of(probe).state == "damaged"


def test_every_damaged_parquet_file_is_a_value_error(records: dict[str, RunRecord]) -> None:
    whole, draw = (records["probe"].folder / "validation.parquet").read_bytes(), random.Random(3)
    for number in range(300):
        raw = bytearray(whole)
        for _ in range(1 + number % 3):
            raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        try:
            files.read_parquet(bytes(raw))
        except ValueError as error:
            assert str(error)


def test_damaged_floors_are_computed_again(records: dict[str, RunRecord], tmp_path: Path) -> None:
    for system in ("majority", "logmel statistics"):
        flipped(records[system].folder / "predictions.parquet", random.Random(4))
    done = mgc("probe", "--model", "mfcc", "--data", tmp_path / "music", "--split", "holdout")
    assert done.exit_code == 0, (done.output, done.exception)
    assert {run.state for run in runs.list_runs(here(), "music", weights=True)} == {"current"}


def test_a_damaged_network_is_not_taken_for_a_finished_one(
    records: dict[str, RunRecord], tmp_path: Path
) -> None:
    record = records["baseline"]
    flipped(record.folder / "fold0.safetensors", random.Random(5))
    words = ("baseline", "--network", "mlp57", "--set", "train.epochs=2", "--split", "holdout")
    assert "--overwrite" in refused(*words, "--data", tmp_path / "music")
    done = mgc(*words, "--data", tmp_path / "music", "--overwrite")
    assert done.exit_code == 0, (done.output, done.exception)
    again = load_record(record.folder / "record.json", weights=True)
    assert again.sha256["fold0.safetensors"] == record.sha256["fold0.safetensors"]
    assert {file.stat().st_mode & 0o777 for file in record.folder.iterdir()} == {0o644}


def test_an_interrupted_replacement_leaves_no_record(
    records: dict[str, RunRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = records["baseline"]

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(systems, "evaluate", stopped)
        mgc("baseline", "--network", "mlp57", "--set", "train.epochs=2", "--split", "holdout",
            "--data", tmp_path / "music", "--overwrite")  # fmt: skip
    assert state_of(record).state == "unfinished"


def test_a_damaged_export_is_refused(records: dict[str, RunRecord], tmp_path: Path) -> None:
    ready, draw = open_run(records["baseline"].run_id, here()), random.Random(6)
    folder = export(ready, tmp_path / "out")
    for name in ("config.json", "fold0.safetensors", "novelty.npz"):
        whole = (folder / name).read_bytes()
        for damage in (*[flipped] * 3, truncated, empty, missing, endless):
            damage(folder / name, draw)
            with pytest.raises(MgcError):
                open_run(str(folder), here())
            (folder / name).unlink(missing_ok=True)
            (folder / name).write_bytes(whole)
    open_run(str(folder), here())


def test_links_and_foreign_files_are_not_handed_in(records: dict[str, RunRecord], tmp_path: Path) -> None:
    probe, secret = records["probe"].folder, tmp_path / "secret.json"
    secret.write_text('{"password": "hunter2"}')
    (probe / "curves.png").symlink_to(secret)
    (probe / "map.csv").symlink_to(secret)
    (probe / "notes.json").write_text('{"password": "hunter2"}')
    (probe.parent / "linked.json").symlink_to(secret)
    done = mgc("report", "--data", "music", "--bundle", "--no-audio")
    assert done.exit_code == 0, (done.output, done.exception)
    with zipfile.ZipFile(probe.parent / "hand-in.zip") as packed:
        contents = {name: packed.read(name) for name in packed.namelist()}
    assert f"runs/{probe.name}/predictions.parquet" in contents
    assert not [name for name, content in contents.items() if b"hunter2" in content]
    unpacked = tmp_path / "unpacked"
    for name, content in contents.items():
        if name.startswith(f"runs/{probe.name}/"):
            files.write(unpacked / probe.name / Path(name).name, content)
    load_record(unpacked / probe.name / "record.json", weights=True)


# --- encoders ---------------------------------------------------------------------------------------------


def test_weights_that_changed_after_their_hash_was_taken_are_refused(tiny_encoder: Path) -> None:
    card = open_representation(str(tiny_encoder), here())
    card.encoder(torch.device("cpu"))
    file, draw = tiny_encoder / "model.safetensors", random.Random(7)
    whole = file.read_bytes()
    for damage in (*[flipped] * 5, longer):
        damage(file, draw)
        with pytest.raises(MgcError, match="have changed since they were first read"):
            card.encoder(torch.device("cpu"))
        file.write_bytes(whole)
    card.encoder(torch.device("cpu"))


# --- checkpoints ------------------------------------------------------------------------------------------


def trained(checkpoint: Path, stop_after: int | None = None) -> tuple[Trained, list[Epoch]]:
    """A small training; with `stop_after` it is interrupted after so many epochs."""
    rng, reported = np.random.default_rng(0), []
    arrays = [rng.standard_normal((20, 6)).astype(np.float32) + n % 2 for n in range(12)]

    def report(epoch: Epoch) -> None:
        reported.append(epoch)
        if len(reported) == stop_after:
            raise KeyboardInterrupt

    done = train(
        lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(10 * 6, 2)),
        TrackSet.of(arrays[:8], [n % 2 for n in range(8)]),
        TrackSet.of(arrays[8:], [n % 2 for n in range(4)]),
        TrainRecipe(epochs=5, patience=5, batch_size=4),
        crop_frames=10, seed=5, device="cpu", checkpoint=checkpoint, report=report,
    )  # fmt: skip
    return done, reported


def same(one: Trained, other: Trained) -> bool:
    pairs = zip(one.network.parameters(), other.network.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The checkpoint of an interrupted training."""
    monkeypatch.setattr("mgc.training.loop.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    file = tmp_path / "run" / "fold0.checkpoint"
    with pytest.raises(KeyboardInterrupt):
        trained(file, stop_after=4)
    yield file


def test_a_damaged_checkpoint_is_set_aside_and_the_training_starts_anew(
    interrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, draw = interrupted.read_bytes(), random.Random(8)
    expected, _ = trained(tmp_path / "fresh" / "fold0.checkpoint")
    resumed, _ = trained(interrupted)
    assert same(resumed, expected) and not interrupted.with_name("fold0.checkpoint.damaged").exists()
    assert not capsys.readouterr().err

    def of_an_earlier_version(file: Path, draw: random.Random) -> None:
        file.write_bytes(whole[:-32])

    damages = [*[flipped] * 12, *[truncated] * 4, empty, longer, of_an_earlier_version]
    for damage in (*damages, linked, a_pipe, endless):
        interrupted.unlink(missing_ok=True)
        interrupted.write_bytes(whole)
        damage(interrupted, draw)
        again, reported = trained(interrupted)
        assert same(again, expected) and len(reported) == 5
        aside = interrupted.with_name("fold0.checkpoint.damaged")
        assert os.path.lexists(aside)
        told = capsys.readouterr().err
        assert str(interrupted) in told and aside.name in told and "starts anew" in told
        aside.unlink()


def test_a_whole_checkpoint_that_does_not_fit_is_set_aside(
    interrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For instance after an update of torch; the checksum is right."""
    expected, _ = trained(tmp_path / "fresh" / "fold0.checkpoint")
    load = torch.load
    monkeypatch.setattr("torch.load", lambda *a, **k: load(*a, **k) | {"learner": {"network": {}}})
    again, _ = trained(interrupted)
    assert same(again, expected)
    assert interrupted.with_name("fold0.checkpoint.damaged").exists()


# --- processes --------------------------------------------------------------------------------------------

SAVER = """
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from mgc.evaluate import Predictions
from mgc.runs.record import load_record
copy, seed = load_record(Path(sys.argv[3])), int(sys.argv[2])
record, said = replace(copy, folder=Path(sys.argv[1]).parent), copy.predictions()
for number in range(int(sys.argv[4])):
    share = np.random.default_rng((seed, number)).random(len(said.track_ids))
    probabilities = np.stack([share, 1 - share], axis=1)
    new = Predictions(said.classes, said.track_ids, said.labels, probabilities, said.groups, said.fold)
    replace(record, created=f"{seed} {number}").save(new, [new])
    print(number, flush=True)
"""


def saver(record: RunRecord, copy: Path, seed: int, times: int) -> subprocess.Popen[str]:
    """A process that saves a run again and again, each time with other predictions."""
    words = [record.folder / "record.json", seed, copy / "record.json", times]
    return subprocess.Popen(
        [sys.executable, "-c", SAVER, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


@pytest.mark.slow
def test_processes_that_save_the_same_run_leave_a_whole_one(
    records: dict[str, RunRecord], tmp_path: Path
) -> None:
    probe = records["probe"]
    copy = Path(shutil.copytree(probe.folder, tmp_path / "copy" / probe.run_id))
    savers = [saver(probe, copy, seed, 40) for seed in (1, 2, 3)]
    for process in savers:
        assert process.stdout and process.stdout.readline()
    while any(process.poll() is None for process in savers):
        for record in load_records("music", here()):  # a run that is being replaced is not among them
            assert record.created
    for process in savers:
        assert process.wait() == 0, process.communicate()[1]
    assert load_record(probe.folder / "record.json", weights=True).created.endswith(" 39")
    assert not [*probe.folder.glob("*.part")]


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_saves_leaves_a_whole_run_or_none(
    records: dict[str, RunRecord], tmp_path: Path
) -> None:
    probe, draw = records["probe"], random.Random(9)
    copy = Path(shutil.copytree(probe.folder, tmp_path / "copy" / probe.run_id))
    for seed in range(6):
        process = saver(probe, copy, seed, 10_000)
        assert process.stdout and process.stdout.readline()
        time.sleep(draw.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (probe.folder / "record.json").exists():
            load_record(probe.folder / "record.json", weights=True)
        else:
            assert state_of(probe).state == "unfinished"
            (probe.folder / "record.json").write_bytes((copy / "record.json").read_bytes())
            assert state_of(probe).state in ("damaged", "current")
    load_record(copy / "record.json")
    probe.save(load_record(copy / "record.json").predictions())  # the lock of a killed process is released
    assert state_of(probe).state == "current"


def test_a_second_process_says_that_it_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    code = f"""
import sys, pathlib
from mgc.util import files
with files.lock(pathlib.Path({str(folder)!r})):
    print("locked", flush=True)
    sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == "locked\n"
    kill = functools.partial(process.send_signal, signal.SIGKILL)
    threading.Timer(0.3, kill).start()
    with files.lock(folder), files.lock(folder):  # it may be nested
        assert process.wait() == -signal.SIGKILL
    assert capsys.readouterr().err.count(f"another process works on {folder}: waiting") == 1
