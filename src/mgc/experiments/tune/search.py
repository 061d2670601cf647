"""The trials of a search: their order, training, and journal.

The test set is removed from every fold before a trial sees it. A search is kept in its folder under results/
as an Optuna journal, one study per phase. What a trial tries is drawn from (seed, phase, number) and from the
trials before it, so an interrupted search resumes with the trials it would have run. Table, figure and best
recipe are made from the journal alone.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator
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
from mgc.experiments.systems import load_dataset_and_split, revisions_of
from mgc.experiments.tune.space import Space, check_points, choices_of, count_trials, spaces_of, trial_recipe
from mgc.training.folds import fit_fold, prepare, representations_of
from mgc.training.loop import DivergedError, Epoch
from mgc.util.devices import make_accelerator
from mgc.util.errors import MgcError
from mgc.util.progress import Progress, say
from mgc.util.workers import workers
from mgc.workspace import Workspace

REVISION = 1  # of the search: raised by hand when the same recipe tries other settings
# None of these changes which trials a search runs, or their values.
NOT_HASHED = dict.fromkeys(("name", "hypothesis", "reported", "data", "device", "workers"), True)
PRUNERS = {
    "none": NopPruner(),
    "median": MedianPruner(n_startup_trials=4, n_warmup_steps=2),
    "halving": SuccessiveHalvingPruner(min_resource=2, reduction_factor=2),
}


@dataclass(frozen=True)
class Phase:
    """A phase as recorded in the journal."""

    recipe: PhaseRecipe
    trials: list[FrozenTrial]  # by number
    settings: dict[str, Any]  # found by the phases before
    best: FrozenTrial | None
    improved: bool  # over all phases before, so that later phases start from its best trial


@dataclass(frozen=True)
class Search:
    """A search, and what each of its trials needs."""

    recipe: TuneRecipe
    spaces: tuple[Space, ...]
    dataset: Dataset
    split: str
    folds: tuple[Fold, ...]  # without test sets
    folder: Path
    workspace: Workspace

    @property
    def sign(self) -> int:
        """1 if a larger value of the metric is better, else -1."""
        return 1 if self.recipe.metric == "accuracy" else -1

    def studies(self) -> list[optuna.Study]:
        """The Optuna study of each phase.

        Raises:
            MgcError: the journal is damaged.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        file = str(self.folder / "journal.log")
        try:
            storage = JournalStorage(JournalFileBackend(file, JournalFileOpenLock(file)))
        except ValueError as error:
            fix = "delete the folder of the search, and start it again"
            raise MgcError(f"the journal cannot be read: {error}", where=file, fix=fix) from None
        existing, studies = optuna.get_all_study_names(storage), []
        for phase in self.recipe.phases:
            if phase.name not in existing:
                direction = StudyDirection.MAXIMIZE if self.sign == 1 else StudyDirection.MINIMIZE
                optuna.create_study(storage=storage, study_name=phase.name, direction=direction)
            pruner = PRUNERS[phase.prune]
            studies.append(optuna.load_study(study_name=phase.name, storage=storage, pruner=pruner))
        return studies

    def phases(self) -> list[Phase]:
        """Every phase. One that found nothing better than those before changes no setting."""
        settings: dict[str, Any] = {}
        value, phases = -math.inf, []
        for recipe, study in zip(self.recipe.phases, self.studies(), strict=True):
            trials = study.get_trials(deepcopy=False)
            complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
            best = max(complete, key=lambda trial: self.sign * trial.values[0], default=None)
            improved = best is not None and self.sign * best.values[0] > value
            phases.append(Phase(recipe, trials, settings, best, improved))
            if best is not None and improved:
                settings, value = settings | best.params, self.sign * best.values[0]
        return phases

    def best(self) -> tuple[FrozenTrial, BaselineRecipe] | None:
        """The best trial of all phases and its complete recipe; None if no trial has completed."""
        for phase in reversed(self.phases()):
            if phase.best is not None and phase.improved:
                settings = phase.settings | phase.best.params
                return phase.best, trial_recipe(self.recipe, settings, phase.recipe.epochs)
        return None

    def run(self) -> Iterator[None]:
        """Run the trials that are not finished; yields after each phase.

        Raises:
            MgcError: another process runs this search, or a training failed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / "search.lock", timeout=0):
                _repair(self.folder / "journal.log")
                yield from self._run_phases()
        except Timeout:
            what = "another process is running this search"
            raise MgcError(what, where=self.folder, fix="wait for it to end") from None

    def _run_phases(self) -> Iterator[None]:
        totals = [
            count_trials(phase, space) for phase, space in zip(self.recipe.phases, self.spaces, strict=True)
        ]
        done = sum(trial.state.is_finished() for phase in self.phases() for trial in phase.trials)
        if done:
            say(f"{done} of {sum(totals)} trials exist: {self.folder}")
        todo, one_thread = sum(totals) - done, make_accelerator(self.recipe.device).device.type == "cpu"
        with (
            Progress(f"tune {self.recipe.base.network}", todo, "trials") as progress,
            workers(max(1, min(self.recipe.workers, todo)), one_thread) as pool,
        ):
            for index, total in enumerate(totals):
                self._run_phase(index, total, pool, progress)
                yield
        shutil.rmtree(self.folder / "trials", ignore_errors=True)

    def _run_phase(self, index: int, total: int, pool: Executor, progress: Progress) -> None:
        """Run the trials of a phase that are not finished; one that was interrupted is resumed."""
        study, phase = self.studies()[index], self.phases()[index]
        todo = [n for n in range(total) if n >= len(phase.trials) or not phase.trials[n].state.is_finished()]
        running: dict[Future[float | None], int] = {}
        while todo or running:
            while todo and len(running) < self.recipe.workers:
                number = todo.pop(0)
                trial = self._ask(study, index, number)
                recipe = trial_recipe(self.recipe, phase.settings | trial.params, phase.recipe.epochs)
                running[pool.submit(_run_trial, self, index, trial._trial_id, recipe, fit_fold)] = number
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number, value = running.pop(future), future.result()
                if value is not None and math.isfinite(value):
                    study.tell(number, value)
                else:
                    study.tell(number, state=TrialState.PRUNED if value is None else TrialState.FAIL)
                shutil.rmtree(self._trial_folder(index, number))
                found = self.best()
                best = f", best {self.recipe.metric} {found[0].value:.4f}" if found else ""
                progress.step(note=f"{phase.recipe.name}{best}")

    def _ask(self, study: optuna.Study, index: int, number: int) -> optuna.Trial:
        """Trial `number`, new or resumed, with every parameter drawn."""
        phase, space, known = self.recipe.phases[index], self.spaces[index], study.get_trials(deepcopy=False)
        state = np.random.SeedSequence((self.recipe.seed, index, number)).generate_state(1)
        study.sampler = _sampler(phase, space, self.recipe.seed, int(state[0]))
        # Optuna can resume a trial, and draw from a given distribution, only by private members.
        trial = optuna.Trial(study, known[number]._trial_id) if number < len(known) else study.ask()
        for key, distribution in space.items():
            trial._suggest(key, distribution)
        # After the last trial of a grid its sampler would call study.stop(), which raises outside optimize().
        study.sampler = RandomSampler()
        return trial

    def _trial_folder(self, index: int, number: int) -> Path:
        return self.folder / "trials" / f"{index + 1}-{number}"


def open_search(recipe: TuneRecipe, workspace: Workspace, file: Path | None) -> Search:
    """The search of a recipe, new or existing. Every setting that it may draw is checked first.

    Raises:
        MgcError: a search space that `mgc baseline` would refuse, or no such data or split.
    """
    spaces = spaces_of(recipe, file)
    dataset, split = load_dataset_and_split(recipe.data, workspace)
    if recipe.folds > len(split.folds):
        what = f"folds = {recipe.folds}, but the split {split.name} has {len(split.folds)}"
        raise MgcError(what, where=file, fix="lower folds, or use --split cv5")
    check_points(recipe, spaces, dataset, file)
    base = trial_recipe(recipe, {}, 1)
    prepare(base, dataset, split, workspace)
    parts = [
        recipe.model_dump(mode="json", exclude={**NOT_HASHED, "base": NOT_HASHED}),
        dataset.hash,
        split.hash,
        [card.key for card in representations_of(base, workspace)],
        revisions_of(base),
        REVISION,
    ]
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=4).hexdigest()
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in recipe.name or recipe.base.network)
    folder = workspace.results_of(dataset.name) / f"tune-{name}-{digest}"
    folds = tuple(replace(fold, test=()) for fold in split.folds[: recipe.folds])
    return Search(recipe, spaces, dataset, split.name, folds, folder, workspace)


def _run_trial(
    search: Search, index: int, trial_id: int, recipe: BaselineRecipe, fit: Callable[..., Any]
) -> float | None:
    """The metric at the best epoch, averaged over folds; None if pruned, NaN if the training diverged.

    Only the first fold can be pruned: later folds are trained for trials that passed it.
    """
    trial = optuna.Trial(search.studies()[index], trial_id)
    reported = max(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values, default=-1)
    folder = search._trial_folder(index, trial.number)
    folder.mkdir(parents=True, exist_ok=True)
    key = f"val_{search.recipe.metric}"
    history: list[Epoch] = []
    values: list[float] = []

    def report(epoch: Epoch) -> None:
        history.append(epoch)
        if not values and epoch.epoch > reported:  # a trial that is resumed repeats epochs
            trial.report(getattr(epoch, key), epoch.epoch)
        if not values and epoch.epoch >= reported and trial.should_prune():
            raise optuna.TrialPruned

    result: float | None
    try:
        for number, fold in enumerate(search.folds):
            trained = fit(
                recipe,
                search.dataset,
                fold,
                search.workspace,
                seed=recipe.seed * 1000
                + number,  # as in mgc baseline, which repeats the training of the best trial
                checkpoint=folder / f"fold{number}.checkpoint",
                report=report,
            )
            values.append(getattr(trained.history[trained.best_epoch], key))
        result = fmean(values)
    except optuna.TrialPruned:
        result = None
    except MgcError as error:
        say(f"phase {search.recipe.phases[index].name!r}, trial {trial.number}, {trial.params}: {error.what}")
        # A learning rate that is too high is a result; the search continues.
        if not isinstance(error, DivergedError):
            raise
        result = math.nan
    trial.set_user_attr("epochs", len(history))
    trial.set_user_attr("seconds", sum(epoch.seconds for epoch in history))
    return result


def _repair(journal: Path) -> None:
    """Remove the incomplete last line and the lock that a killed process has left."""
    Path(f"{journal}.lock").unlink(missing_ok=True)
    written = journal.read_bytes() if journal.exists() else b""
    if written and not written.endswith(b"\n"):
        with journal.open("r+b") as file:
            file.truncate(written.rfind(b"\n") + 1)


def _sampler(phase: PhaseRecipe, space: Space, search_seed: int, trial_seed: int) -> BaseSampler:
    if phase.sampler == "grid":
        return GridSampler({key: choices_of(one) for key, one in space.items()}, seed=search_seed)
    if phase.sampler == "random":
        return RandomSampler(trial_seed)
    # At most a third at random: Optuna's default, ten, would be most of a short search.
    return TPESampler(seed=trial_seed, n_startup_trials=min(10, max(3, (phase.trials or 0) // 3)))
