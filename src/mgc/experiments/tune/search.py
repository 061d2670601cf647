"""`mgc tune`: a search, phase by phase, for the settings of `mgc baseline` that validation likes best.

The test side is taken out of every fold before a trial sees it. A search lies in its folder under results/ as
an Optuna journal, one study a phase. What a trial tries is drawn from (seed, phase, number) and from the
trials before it, so that a search that was killed goes on as if nothing had happened. Table, picture and best
recipe are made from the journal alone.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.pruners import MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mgc.config import BaselineRecipe, PhaseRecipe, TuneRecipe
from mgc.data import Dataset, Fold
from mgc.experiments.systems import load_tracks, revisions_of
from mgc.experiments.tune.space import (
    Space,
    check_points,
    choices_of,
    count_trials,
    spaces_of,
    trial_recipe,
)
from mgc.training.folds import fit_fold, prepare, representations_of
from mgc.training.loop import DivergedError, Epoch
from mgc.util.devices import make_accelerator
from mgc.util.errors import MgcError
from mgc.util.progress import Progress, say
from mgc.util.workers import workers
from mgc.workspace import Workspace

REVISION = 1  # of the search: raised by hand when the same recipe tries other settings


def tune(
    recipe: TuneRecipe, workspace: Workspace, file: Path | None, told: Callable[["Search"], None]
) -> "Search":
    """Run every trial that is not finished yet; `file` is the config, for messages.

    `told` is called with the search after each phase.

    Raises:
        MgcError: a space that `mgc baseline` would refuse, no such data, a training that failed, or another
            process at the same search.
    """
    spaces = spaces_of(recipe, file)
    dataset, split = load_tracks(recipe.data, workspace)
    if recipe.folds > len(split.folds):
        what = f"folds = {recipe.folds}, but the split {split.name} has {len(split.folds)}"
        raise MgcError(what, where=file, fix="lower folds, or give --split cv5")
    check_points(recipe, spaces, dataset, file)
    base = trial_recipe(recipe, {}, 1)
    prepare(base, dataset, split, workspace)
    code: list[Any] = [card.fingerprint for card in representations_of(base, workspace)]
    code += [revisions_of("baseline", base), REVISION]
    unimportant = dict.fromkeys(("name", "hypothesis", "reported", "data", "device", "workers"), True)
    kept = recipe.model_dump(mode="json", exclude={**unimportant, "base": unimportant})
    parts = json.dumps([kept, dataset.hash, split.hash, code])
    digest = hashlib.blake2b(parts.encode(), digest_size=4).hexdigest()
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in recipe.name or recipe.base.network)
    folder = workspace.results_of(dataset.name) / f"tune-{name}-{digest}"
    # What the test side holds is out of a trial's reach.
    folds = tuple(replace(fold, test=()) for fold in split.folds[: recipe.folds])
    search = Search(recipe, spaces, dataset, split.name, folds, folder, workspace)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "search.lock", timeout=0):
            _mend(folder / "journal.log")
            search.run(told)
    except Timeout:
        raise MgcError("another process is at this very search", where=folder, fix="wait for it") from None
    return search


@dataclass(frozen=True)
class Row:
    """A phase, as the journal has it."""

    phase: PhaseRecipe
    trials: list[FrozenTrial]  # by number
    settings: dict[str, Any]  # what the phases before have found
    best: FrozenTrial | None
    better: bool  # than all phases before, so that later phases start from it


@dataclass(frozen=True)
class Search:
    """A search, and what each of its trials needs."""

    recipe: TuneRecipe
    spaces: tuple[Space, ...]
    dataset: Dataset
    split: str
    folds: tuple[Fold, ...]  # without test sides
    folder: Path
    workspace: Workspace

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.recipe.metric == "accuracy" else -1

    def studies(self) -> list[optuna.Study]:
        """The journal's study of each phase."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        file = str(self.folder / "journal.log")
        try:
            storage = JournalStorage(JournalFileBackend(file, JournalFileOpenLock(file)))
        except ValueError as error:
            what, fix = f"the journal cannot be read: {error}", "take its folder away, and search anew"
            raise MgcError(what, where=file, fix=fix) from None
        pruners = {
            "none": NopPruner(),
            "median": MedianPruner(n_startup_trials=4, n_warmup_steps=2),
            "halving": SuccessiveHalvingPruner(min_resource=2, reduction_factor=2),
        }
        there, studies = optuna.get_all_study_names(storage), []
        for phase in self.recipe.phases:
            if phase.name not in there:
                direction = StudyDirection.MAXIMIZE if self.sign == 1 else StudyDirection.MINIMIZE
                optuna.create_study(storage=storage, study_name=phase.name, direction=direction)
            pruner = pruners[phase.prune]
            studies.append(optuna.load_study(study_name=phase.name, storage=storage, pruner=pruner))
        return studies

    def rows(self) -> list[Row]:
        """Every phase. One that found nothing better than those before changes no setting."""
        settings: dict[str, Any] = {}
        value, rows = -math.inf, []
        for phase, study in zip(self.recipe.phases, self.studies(), strict=True):
            trials = study.get_trials(deepcopy=False)
            scored = {t.number: self.sign * t.values[0] for t in trials if t.state == TrialState.COMPLETE}
            best = max(scored, key=lambda number: scored[number], default=None)
            better = best is not None and scored[best] > value
            rows.append(Row(phase, trials, settings, None if best is None else trials[best], better))
            if best is not None and better:
                settings, value = settings | trials[best].params, scored[best]
        return rows

    def best(self) -> tuple[FrozenTrial, BaselineRecipe] | None:
        """The best trial of all phases, and its complete recipe; None while no trial has ended well."""
        for row in reversed(self.rows()):
            if row.best is not None and row.better:
                return row.best, trial_recipe(self.recipe, row.settings | row.best.params, row.phase.epochs)
        return None

    def run(self, told: Callable[["Search"], None]) -> None:
        """Train what is not trained yet, phase after phase; `told` is called after each."""
        totals = [
            count_trials(phase, space) for phase, space in zip(self.recipe.phases, self.spaces, strict=True)
        ]
        done = sum(trial.state.is_finished() for row in self.rows() for trial in row.trials)
        if done:
            say(f"{done} of {sum(totals)} trials are there already: {self.folder}")
        todo, one_thread = sum(totals) - done, make_accelerator(self.recipe.device).device.type == "cpu"
        with (
            Progress(f"tune {self.recipe.base.network}", todo, "trials") as progress,
            workers(max(1, min(self.recipe.workers, todo)), one_thread) as pool,
        ):
            for index, total in enumerate(totals):
                self._run_phase(index, total, pool, progress)
                told(self)
        shutil.rmtree(self.folder / "trials", ignore_errors=True)

    def _run_phase(self, index: int, total: int, pool: Executor, progress: Progress) -> None:
        """Every trial that is not finished; one that was running when the search was killed runs again."""
        study, settings, phase = self.studies()[index], self.rows()[index].settings, self.recipe.phases[index]
        trials = study.get_trials(deepcopy=False)
        left = [n for n in range(total) if n >= len(trials) or not trials[n].state.is_finished()]
        running: dict[Future[float | None], int] = {}
        while left or running:
            while left and len(running) < self.recipe.workers:
                number = left.pop(0)
                trial = self._ask(study, index, number)
                recipe = trial_recipe(self.recipe, settings | trial.params, phase.epochs)
                running[pool.submit(_train, self, index, trial._trial_id, recipe, fit_fold)] = number
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number, value = running.pop(future), future.result()
                if value is not None and math.isfinite(value):
                    study.tell(number, value)
                else:
                    study.tell(number, state=TrialState.PRUNED if value is None else TrialState.FAIL)
                shutil.rmtree(self._place(index, number))
                found = self.best()
                best = f", best {self.recipe.metric} {found[0].value:.4f}" if found else ""
                progress.step(note=f"{phase.name}{best}")

    def _ask(self, study: optuna.Study, index: int, number: int) -> optuna.Trial:
        """Trial `number`, new or taken up, with every parameter drawn."""
        phase, space, known = self.recipe.phases[index], self.spaces[index], study.get_trials(deepcopy=False)
        state = np.random.SeedSequence((self.recipe.seed, index, number)).generate_state(1)
        study.sampler = _sampler(phase, space, self.recipe.seed, int(state[0]))
        # Optuna takes up a trial, and draws from a distribution, only by what it calls private.
        trial = optuna.Trial(study, known[number]._trial_id) if number < len(known) else study.ask()
        for key, distribution in space.items():
            trial._suggest(key, distribution)
        # The sampler of a grid, told of its last trial, would stop a loop of Optuna's own: there is none.
        study.sampler = RandomSampler()
        return trial

    def _place(self, index: int, number: int) -> Path:
        return self.folder / "trials" / f"{index + 1}-{number}"


def _train(
    search: Search, index: int, trial_id: int, recipe: BaselineRecipe, fit: Callable[..., Any]
) -> float | None:
    """The mean over folds of the metric at the epoch kept; None if pruned, NaN if the training diverged.

    Only the first fold is judged while it trains: the later ones are of trials that passed.
    """
    trial = optuna.Trial(search.studies()[index], trial_id)
    told = max(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values, default=-1)
    place = search._place(index, trial.number)
    place.mkdir(parents=True, exist_ok=True)
    key = f"val_{search.recipe.metric}"
    lines: list[Epoch] = []
    values: list[float] = []

    def report(line: Epoch) -> None:
        lines.append(line)
        if not values and line.epoch > told:  # a trial that is taken up repeats what it has told
            trial.report(getattr(line, key), line.epoch)
        if not values and line.epoch >= told and trial.should_prune():
            raise optuna.TrialPruned

    result: float | None
    try:
        for number, fold in enumerate(search.folds):
            # Seeded as mgc baseline does it: testing the best trial repeats its training.
            seed, checkpoint = recipe.seed * 1000 + number, place / f"fold{number}.checkpoint"
            trained = fit(
                recipe,
                search.dataset,
                fold,
                search.workspace,
                seed=seed,
                checkpoint=checkpoint,
                report=report,
            )
            values.append(getattr(trained.history[trained.best_epoch], key))
        result = fmean(values)
    except optuna.TrialPruned:
        result = None
    except MgcError as error:
        say(f"phase {search.recipe.phases[index].name!r}, trial {trial.number}, {trial.params}: {error.what}")
        # Too high a learning rate is a finding, not the end of the search.
        if not isinstance(error, DivergedError):
            raise
        result = math.nan
    trial.set_user_attr("epochs", len(lines))
    trial.set_user_attr("seconds", sum(line.seconds for line in lines))
    return result


def _mend(journal: Path) -> None:
    """Remove what a kill has left of a line that was being written, and of the lock around it."""
    Path(f"{journal}.lock").unlink(missing_ok=True)
    written = journal.read_bytes() if journal.exists() else b""
    if written and not written.endswith(b"\n"):
        with journal.open("r+b") as file:
            file.truncate(written.rfind(b"\n") + 1)


def _sampler(phase: PhaseRecipe, space: Space, seed: int, own: int) -> BaseSampler:
    """Drawn anew for every trial by its `own` seed; the order of a grid by the seed of the search."""
    if phase.sampler == "grid":
        return GridSampler({key: choices_of(one) for key, one in space.items()}, seed=seed)
    if phase.sampler == "random":
        return RandomSampler(own)
    # A third at random at most: ten, Optuna's default, would be most of a short search.
    return TPESampler(seed=own, n_startup_trials=min(10, max(3, (phase.trials or 0) // 3)))
