"""The search: with a stand-in for training that scores settings at once, and once for real."""

import csv
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import here
from typer.testing import CliRunner

from mgc.cli import app
from mgc.config import BaselineRecipe, DataRecipe, TuneRecipe, read_recipe
from mgc.data import Dataset, Fold, Track
from mgc.experiments import tune as search
from mgc.experiments.tune import Search, format_search, tune
from mgc.training.loop import DivergedError, Epoch
from mgc.util.errors import MgcError
from mgc.workspace import Workspace

TPE = {"name": "rate", "sampler": "tpe", "trials": 9, "epochs": 4, "prune": "median"}
TPE["space"] = {"train.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}, "dropout": [0.0, 0.2, 0.4]}
GRID = {"name": "size", "sampler": "grid", "epochs": 3}
GRID["space"] = {
    "train.batch_size": [8, 16],
    "train.optimizer": ["adam", "adamw"],
    "train.beta2": [0.98, 0.999],
}
POINTS = 8


def recipe(*phases: dict[str, Any], **other: Any) -> TuneRecipe:
    return TuneRecipe.model_validate({"data": DataRecipe(source="made"), "phases": phases, **other})


def score(given: BaselineRecipe, epoch: int) -> float:
    """Grows from epoch to epoch; best at a learning rate of 1e-2, dropout 0.2, batches of 8 and adamw."""
    train = given.train
    far = abs(train.learning_rate - 1e-2) * 3 + abs((given.dropout or 0) - 0.2)
    return 0.9 - far - train.batch_size / 100 + (train.optimizer == "adamw") / 100 - 0.1 / (epoch + 1)


def stand_in(
    given: BaselineRecipe,
    dataset: Dataset,
    fold: Fold,
    workspace: Workspace,
    *,
    seed: int,
    checkpoint: Path,
    report: Callable[..., None],
) -> Any:
    """Like `fit_fold`, without music: every fold is a hundredth better than the one before."""
    assert not fold.test, "the test set is available to a trial"
    assert checkpoint.parent.is_dir()
    history = []
    for epoch in range(given.train.epochs):
        value = score(given, epoch) + seed % 1000 / 100
        history.append(Epoch(epoch, 1.0, 0.5, -value, value, 0.0, 0.25))
        report(history[-1])
    return SimpleNamespace(history=history, best_epoch=len(history) - 1)


@dataclass
class Bench:
    """Counts trainings, and lets something happen at the end of one of them."""

    seen: list[BaselineRecipe] = field(default_factory=list)
    at: dict[int, BaseException] = field(default_factory=dict)

    def fit(self, given: BaselineRecipe, *sides: Any, report: Callable[..., None], **other: Any) -> Any:
        self.seen.append(given)
        event = self.at.get(len(self.seen))

        def reported(line: Epoch) -> None:
            report(line)
            if event is not None and line.epoch == 1:
                raise event

        return stand_in(given, *sides, report=reported, **other)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    tracks = tuple(Track(f"{n}", Path(f"{n}"), "ab"[n % 2], f"{n}", content=f"{n}") for n in range(12))
    folds = (Fold(("0", "1"), ("2", "3"), ("4", "5")), Fold(("2", "3"), ("4", "5"), ("0", "1")))
    split = SimpleNamespace(name="cv2", folds=folds, hash="s")
    monkeypatch.setattr(search, "load_dataset_and_split", lambda *given: (Dataset("made", tracks), split))
    monkeypatch.setattr(search, "prepare", lambda *given: None)
    monkeypatch.setattr(search, "revisions_of", lambda *given: {})
    monkeypatch.setattr(search, "plot_trials", lambda *given: None)  # seconds for each search
    made = Bench()
    monkeypatch.setattr(search, "fit_fold", made.fit)
    return made


def tried(search: Search) -> list[Any]:
    return [(t.number, t.state.name, t.params, t.values) for phase in search.phases() for t in phase.trials]


def test_phases_build_on_each_other_and_the_best_is_a_recipe(bench: Bench) -> None:
    search = tune(recipe(TPE, GRID, folds=2), workspace=here())
    first, second = search.phases()
    assert len(first.trials) == TPE["trials"]
    assert first.best is not None
    points = {json.dumps(trial.params, sort_keys=True) for trial in second.trials}
    assert len(points) == len(second.trials) == POINTS
    later = bench.seen[-2 * POINTS :]  # two folds each
    assert {(one.train.learning_rate, one.dropout) for one in later} == {tuple(first.best.params.values())}
    assert {one.train.epochs for one in later} == {GRID["epochs"]}

    file = search.folder / "best.toml"
    best = read_recipe(BaselineRecipe, file)
    assert best in bench.seen
    assert (best.train.batch_size, best.train.optimizer) == (8, "adamw")
    value = score(best, best.train.epochs - 1) + 0.005  # the mean of two folds
    assert value == pytest.approx(max(t[3][0] for t in tried(search) if t[1] == "COMPLETE"))
    opening, _, *summary = file.read_text(encoding="utf-8").splitlines()
    assert opening == f"# mgc baseline --config {file}"
    assert f"{value:.4f} (mean of 2 folds" in summary[0]
    assert f"best of {TPE['trials'] + POINTS} trials" in summary[1]
    assert "optimistic" in format_search(search)
    rows = [*csv.DictReader((search.folder / "trials.csv").open(encoding="utf-8"))]
    assert [row["phase"] for row in rows] == ["rate"] * TPE["trials"] + ["size"] * POINTS
    assert {row["dropout"] for row in rows[-POINTS:]} == {str(best.dropout)}
    assert float(rows[-1]["seconds"]) == 2 * GRID["epochs"] * 0.25


def test_a_phase_that_finds_nothing_better_changes_nothing(bench: Bench) -> None:
    worse = {**GRID, "name": "worse", "space": {"train.batch_size": [32, 64]}}
    search = tune(recipe(GRID, worse), workspace=here())
    best = read_recipe(BaselineRecipe, search.folder / "best.toml")
    assert best.train.batch_size == 8
    assert "nothing better" in format_search(search)


def test_unpromising_trials_are_pruned(bench: Bench) -> None:
    search = tune(recipe({**TPE, "trials": 20, "epochs": 10}), workspace=here())
    pruned = [t for t in search.phases()[0].trials if t.state.name == "PRUNED"]
    complete = [t for t in search.phases()[0].trials if t.state.name == "COMPLETE"]
    assert pruned
    assert all(t.user_attrs["epochs"] < 10 for t in pruned)
    assert all(t.user_attrs["epochs"] == 10 for t in complete)
    best = search.phases()[0].best
    assert best is not None
    assert best.values == max(t.values for t in complete)


@pytest.mark.parametrize("prune", ["median", "halving"])
def test_an_interrupted_search_resumes_with_the_same_trials(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prune: str
) -> None:
    phases = recipe({**TPE, "prune": prune}, GRID)
    undisturbed = tried(tune(phases, workspace=here()))
    monkeypatch.setenv("MGC_RESULTS", str(tmp_path / "again"))
    trainings = len(bench.seen)
    bench.seen.clear()
    for stop in (3, 8, 14):  # in the midst of a training, in both phases
        bench.at = {stop: KeyboardInterrupt()}
        with pytest.raises(KeyboardInterrupt):
            tune(phases, workspace=here())
    journal = next((tmp_path / "again").rglob("journal.log"))
    with journal.open("a") as file:
        file.write('{"op_code": 4, "tri')  # a line that was being written, and its lock
    Path(f"{journal}.lock").touch()
    bench.at = {}
    search = tune(phases, workspace=here())
    assert tried(search) == undisturbed
    assert len(bench.seen) == trainings + 3  # only what was interrupted ran again
    assert not (search.folder / "trials").exists()
    tune(phases, workspace=here())
    assert len(bench.seen) == trainings + 3


def test_another_seed_space_or_base_is_another_search(bench: Bench) -> None:
    plain, seeded = tune(recipe(GRID), workspace=here()), tune(recipe(GRID, seed=1), workspace=here())
    other = tune(recipe(GRID, base=BaselineRecipe(dropout=0.1)), workspace=here())
    assert len({plain.folder, seeded.folder, other.folder}) == 3
    assert tune(recipe(GRID, workers=2, hypothesis="So."), workspace=here()).folder == plain.folder


def test_a_diverging_training_fails_its_trial_and_any_other_error_ends_the_search(bench: Bench) -> None:
    bench.at = {2: DivergedError("the training loss is not finite in epoch 2"), 5: MgcError("no class 'pop'")}
    with pytest.raises(MgcError, match="no class 'pop'"):
        tune(recipe(GRID), workspace=here())
    assert len(bench.seen) == 5
    states = [state for _, state, *_ in tried(tune(recipe(GRID), workspace=here()))]
    assert states == ["COMPLETE", "FAIL", *["COMPLETE"] * (POINTS - 2)]
    assert len(bench.seen) == 5 + POINTS - 4  # the failed one is taken up


@pytest.mark.parametrize(
    ("space", "what", "fix"),
    [
        ({"train.batchsize": [8]}, "unknown key 'train.batchsize'", "did you mean 'batch_size'"),
        ({"train": {"batch_size": [8, "many"]}}, "train.batch_size = 'many'", ""),
        ({"train.optimizer": ["adam", "sgd"]}, "train.optimizer = 'sgd'", ""),
        ({"dropout": {"low": 0.1, "high": 1.5}}, "dropout = 1.5", ""),
        ({"dropout": {"low": 0.5, "high": 0.1}}, "low below high", ""),
        ({"dropout": {"low": 0.0, "high": 0.1, "log": True}}, "dropout = ", ""),
        ({"dropout": {"low": 0.0, "hihg": 0.1}}, "dropout = ", "low"),
        ({"dropout": []}, "not a search space", "list"),
        ({"augment.pitch": [[1.0]]}, "not a search space", "list"),
        ({"train": [1]}, "train is a table", "train.epochs"),
        ({"seed": [1, 2]}, "seed cannot be searched", "fixed in a search"),
        ({"data.split_seed": [1, 2]}, "data.split_seed cannot", "fixed in a search"),
        ({"network": ["cnn"]}, "network cannot", "[base]"),
        ({"scan": ["time", "mel"]}, "scan", ""),
        ({"augment.strong_class": ["c"], "augment.strong_factor": [2.0]}, "'c'", "a"),
        ({}, "space is empty", ""),
    ],
)
def test_an_invalid_space_is_refused_before_anything_is_trained(
    bench: Bench, space: dict[str, Any], what: str, fix: str
) -> None:
    with pytest.raises(MgcError, match=re.escape(what)) as caught:
        tune(recipe(GRID, {**TPE, "space": space}), here(), Path("search.toml"))
    assert fix in (caught.value.fix or "")
    assert "search.toml, phase 'rate'" in str(caught.value.where)
    assert not bench.seen


@pytest.mark.slow  # two processes import torch
def test_workers_share_the_trials(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(search, "fit_fold", stand_in)
    alone = {
        json.dumps(params, sort_keys=True): values
        for *_, params, values in tried(tune(recipe(GRID, seed=3), workspace=here()))
    }
    monkeypatch.setenv("MGC_RESULTS", str(tmp_path / "shared"))
    shared = tried(tune(recipe(GRID, seed=3, workers=2), workspace=here()))
    assert {json.dumps(params, sort_keys=True): values for *_, params, values in shared} == alone


def test_a_search_through_the_command_line(music: Path, tmp_path: Path) -> None:
    config = tmp_path / "search.toml"
    config.write_text(
        'hypothesis = "Two rates differ."\n[base.train]\ncrop_seconds = 1.0\n[[phases]]\nname = "rate"\n'
        'sampler = "random"\ntrials = 2\nepochs = 2\n[phases.space]\n'
        "train.learning_rate = {low = 1e-3, high = 1e-2, log = true}\ntrain.batch_size = [4, 8]\n"
    )
    ran = CliRunner().invoke(app, ["tune", "--config", str(config), "--data", str(music), "--device", "cpu"])
    assert ran.exit_code == 0, ran.output
    folder = next((tmp_path / "mgc_results").glob("*/tune-cnn-*"))
    assert {file.name for file in folder.iterdir()} >= {"trials.csv", "importance.png", "importance.svg"}
    assert f"mgc baseline --config {folder / 'best.toml'}" in ran.output
    best = read_recipe(BaselineRecipe, folder / "best.toml")
    assert best.data.source == str(music)
    assert f"learning_rate {best.train.learning_rate:.4g}" in ran.output
