"""A search for the settings of `mgc baseline` with Optuna, phase by phase, on the validation set alone.

The test set is removed from every fold before a trial sees it. A search is kept in its folder under results/
as an Optuna journal, one study per phase. What a trial tries is drawn from (seed, phase, number) and from the
trials before it, so an interrupted search resumes with the trials it would have run. Table, figure and best
recipe are made from the journal alone.
"""

import hashlib
import json
import math
import shlex
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, replace
from functools import reduce
from itertools import product
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np
import optuna
import pandas as pd
from filelock import FileLock, Timeout
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import GridSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mgc.config import BaselineRecipe, PhaseRecipe, TuneRecipe, put, read_recipe, recipe_toml
from mgc.data import Dataset, Fold
from mgc.experiments.systems import load_dataset_and_split, revisions_of
from mgc.training.augment import Augment
from mgc.training.folds import fit_fold, prepare, representations_of
from mgc.training.loop import DivergedError, Epoch
from mgc.training.networks import resolved
from mgc.util import files
from mgc.util.devices import make_accelerator
from mgc.util.errors import MgcError, explaining
from mgc.util.progress import Progress, say
from mgc.util.text import text_table
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
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
UNITS = {"accuracy": "accuracy (share of tracks)", "loss": "loss (nats)"}
# A search is for one network on one input; searching seeds or splits would select by luck.
FIXED = (
    "data", "seed", "device", "name", "hypothesis", "reported", "network", "representation", "train.epochs",
)  # fmt: skip
Distribution = CategoricalDistribution | FloatDistribution | IntDistribution
Space = dict[str, Distribution]  # by dotted key of BaselineRecipe


@dataclass(frozen=True)
class Phase:
    """A phase as recorded in the journal."""

    recipe: PhaseRecipe
    trials: list[FrozenTrial]  # by number
    settings: dict[str, Any]  # found by the phases before
    best: FrozenTrial | None
    improved: bool  # over all phases before, so that later phases start from its best trial

    def count(self, *states: TrialState) -> int:
        """The number of trials in one of these states."""
        return sum(trial.state in states for trial in self.trials)


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
        fix = "delete the folder of the search, and start it again"
        with explaining("the journal cannot be read", file, fix, (ValueError,)):
            storage = JournalStorage(JournalFileBackend(file, JournalFileOpenLock(file)))
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

    def trial_folder(self, index: int, number: int) -> Path:
        """The folder of the checkpoints of a trial."""
        return self.folder / "trials" / f"{index + 1}-{number}"


def tune(recipe: TuneRecipe, workspace: Workspace, file: Path | None = None) -> Search:
    """Run every trial that is not finished, and write the results after each phase.

    `file` is the config of the recipe, for messages.

    Raises:
        MgcError: a search space that `mgc baseline` would refuse, no such data, a training that failed, or
            another process runs the same search.
    """
    search = _open_search(recipe, workspace, file)
    search.folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(search.folder / "search.lock", timeout=0):
            _run_phases(search)
    except Timeout:
        what = "another process is running this search"
        raise MgcError(what, where=search.folder, fix="wait for it to end") from None
    return search


def _open_search(recipe: TuneRecipe, workspace: Workspace, file: Path | None) -> Search:
    """The search of a recipe, new or existing. Every setting that it may draw is checked first."""
    dataset, split = load_dataset_and_split(recipe.data, workspace)
    spaces = _spaces(recipe, dataset.classes, file)
    if recipe.folds > len(split.folds):
        what = f"folds = {recipe.folds}, but the split {split.name} has {len(split.folds)}"
        raise MgcError(what, where=file, fix="lower folds, or use --split cv5")
    base = trial_recipe(recipe, {}, 1)
    prepare(base, dataset, split, workspace)
    parts: list[Any] = [
        recipe.model_dump(mode="json", exclude={**NOT_HASHED, "base": NOT_HASHED}),
        dataset.hash,
    ]
    keys = [representation.key for representation in representations_of(base, workspace)]
    parts += [split.hash, keys, revisions_of(base), REVISION]
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=4).hexdigest()
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in recipe.name or recipe.base.network)
    folder = workspace.results_of(dataset.name) / f"tune-{name}-{digest}"
    folds = tuple(replace(fold, test=()) for fold in split.folds[: recipe.folds])
    return Search(recipe, spaces, dataset, split.name, folds, folder, workspace)


def _run_phases(search: Search) -> None:
    recipe, journal = search.recipe, search.folder / "journal.log"
    Path(f"{journal}.lock").unlink(missing_ok=True)
    if journal.exists():  # a killed process may have left its lock and an incomplete last line
        written = journal.read_bytes()
        files.write(journal, written[: written.rfind(b"\n") + 1])
    totals = [
        phase.trials or math.prod(len(_choices(one)) for one in space.values())
        for phase, space in zip(recipe.phases, search.spaces, strict=True)
    ]
    done = sum(phase.count(*FINISHED) for phase in search.phases())
    if done:
        say(f"{done} of {sum(totals)} trials exist: {search.folder}")
    todo, one_thread = sum(totals) - done, make_accelerator(recipe.device).device.type == "cpu"
    with (
        Progress(f"tune {recipe.base.network}", todo, "trials") as progress,
        workers(max(1, min(recipe.workers, todo)), one_thread) as pool,
    ):
        for index, total in enumerate(totals):
            _run_phase(search, index, total, pool, progress)
            write(search)
    shutil.rmtree(search.folder / "trials", ignore_errors=True)


def _run_phase(search: Search, index: int, total: int, pool: Executor, progress: Progress) -> None:
    """Run the trials of a phase that are not finished; one that was interrupted is resumed."""
    study, phase = search.studies()[index], search.phases()[index]
    finished = {trial.number for trial in phase.trials if trial.state.is_finished()}
    todo = [number for number in range(total) if number not in finished]
    running: dict[Future[float | None], int] = {}
    while todo or running:
        while todo and len(running) < search.recipe.workers:
            number = todo.pop(0)
            trial = _ask(search, study, index, number)
            recipe = trial_recipe(search.recipe, phase.settings | trial.params, phase.recipe.epochs)
            running[pool.submit(_run_trial, search, index, trial._trial_id, recipe, fit_fold)] = number
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            number, value = running.pop(future), future.result()
            if value is not None and math.isfinite(value):
                study.tell(number, value)
            else:
                study.tell(number, state=TrialState.PRUNED if value is None else TrialState.FAIL)
            shutil.rmtree(search.trial_folder(index, number))
            found = search.best()
            best = f", best {search.recipe.metric} {found[0].value:.4f}" if found else ""
            progress.step(note=f"{phase.recipe.name}{best}")


def _ask(search: Search, study: optuna.Study, index: int, number: int) -> optuna.Trial:
    """Trial `number`, new or resumed, with every parameter drawn."""
    phase, space, known = search.recipe.phases[index], search.spaces[index], study.get_trials(deepcopy=False)
    seed = int(np.random.SeedSequence((search.recipe.seed, index, number)).generate_state(1)[0])
    if phase.sampler == "grid":
        choices = {key: _choices(one) for key, one in space.items()}
        study.sampler = GridSampler(choices, seed=search.recipe.seed)
    elif phase.sampler == "random":
        study.sampler = RandomSampler(seed)
    else:
        # At most a third at random: Optuna's default, ten, would be most of a short search.
        startup = min(10, max(3, (phase.trials or 0) // 3))
        study.sampler = TPESampler(seed=seed, n_startup_trials=startup)
    # Optuna can resume a trial, and draw from a given distribution, only by private members.
    trial = optuna.Trial(study, known[number]._trial_id) if number < len(known) else study.ask()
    for key, distribution in space.items():
        trial._suggest(key, distribution)
    # After the last trial of a grid its sampler would call study.stop(), which raises outside optimize().
    study.sampler = RandomSampler()
    return trial


def _run_trial(
    search: Search, index: int, trial_id: int, recipe: BaselineRecipe, fit: Callable[..., Any]
) -> float | None:
    """The metric at the best epoch, averaged over folds; None if pruned, NaN if the training diverged.

    Only the first fold can be pruned: later folds are trained for trials that passed it.
    """
    trial = optuna.Trial(search.studies()[index], trial_id)
    reported = max(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values, default=-1)
    folder = search.trial_folder(index, trial.number)
    folder.mkdir(parents=True, exist_ok=True)
    key = f"val_{search.recipe.metric}"
    history: list[Epoch] = []
    values: list[float] = []

    def report(epoch: Epoch) -> None:
        history.append(epoch)
        if values or epoch.epoch < reported:  # a trial that is resumed repeats epochs
            return
        if epoch.epoch > reported:
            trial.report(getattr(epoch, key), epoch.epoch)
        if trial.should_prune():
            raise optuna.TrialPruned

    result: float | None
    try:
        for number, fold in enumerate(search.folds):
            seed = recipe.seed * 1000 + number  # as in mgc baseline, which repeats the best trial
            checkpoint = folder / f"fold{number}.checkpoint"
            given = (recipe, search.dataset, fold, search.workspace)
            trained = fit(*given, seed=seed, checkpoint=checkpoint, report=report)
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


# ---- search spaces


def trial_recipe(recipe: TuneRecipe, settings: dict[str, Any], epochs: int) -> BaselineRecipe:
    """The base recipe with `settings` applied; settings that are None get the network's own values.

    Raises:
        MgcError: the network does not have one of the settings.
    """
    tree = recipe.base.model_dump()
    for key, value in {**settings, "train.epochs": epochs}.items():
        put(tree, key, value, "the search")
    tree |= {"name": f"{recipe.base.name or recipe.base.network}, tuned", "hypothesis": recipe.hypothesis}
    tree |= {"data": recipe.data, "seed": recipe.seed, "device": recipe.device}
    return resolved(BaselineRecipe.model_validate(tree))


def _spaces(recipe: TuneRecipe, classes: tuple[str, ...], file: Path | None) -> tuple[Space, ...]:
    """The search space of each phase. `mgc baseline` accepts every point of a grid; in other phases, every
    choice with the first choice of the other keys."""
    if not recipe.phases:
        raise MgcError("a search needs [[phases]]", where=file, fix="see configs/tune/quick.toml")
    if named := sorted(recipe.base.model_fields_set & {"data", "seed", "device"}):
        what = f"base.{named[0]} has no effect"
        raise MgcError(what, where=file, fix=f"set {named[0]} outside of [base]")
    settings: dict[str, Any] = {}
    spaces: dict[str, Space] = {}
    for phase in recipe.phases:
        where = f"{file or 'the recipe'}, phase {phase.name!r}"
        try:
            if phase.name in spaces or not phase.space:
                what = "two phases have the same name" if phase.space else "the search space is empty"
                fix = 'every phase needs its own name and a space such as "train.batch_size" = [16, 32]'
                raise MgcError(what, fix=fix)
            if (phase.sampler == "grid") != (phase.trials is None):
                fix = "set trials for random and tpe; a grid tries every combination once, without trials"
                raise MgcError(f"sampler = {phase.sampler!r}, trials = {phase.trials}", fix=fix)
            spaces[phase.name] = {key: _distribution(phase, key, one) for key, one in _flat(phase.space)}
            choices = {key: _choices(one) for key, one in spaces[phase.name].items()}
            first = {key: among[0] for key, among in choices.items()}
            points = [first | {key: value} for key, among in choices.items() for value in among]
            if phase.sampler == "grid":
                points = [dict(zip(choices, point, strict=True)) for point in product(*choices.values())]
            for point in points:
                where = f"{file or 'the recipe'}, phase {phase.name!r}: {point}"
                Augment(trial_recipe(recipe, settings | point, phase.epochs).augment, classes)
        except MgcError as error:
            raise MgcError(error.what, where=where, fix=error.fix) from None
        settings |= first
    return tuple(spaces.values())


def _flat(space: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """TOML reads `train.batch_size = [16]` without quotes as nested tables: both forms are accepted."""
    for key, one in space.items():
        if isinstance(one, dict) and not one.keys() & {"low", "high", "log"}:
            yield from _flat(one, f"{above}{key}.")
        else:
            yield f"{above}{key}", one


def _distribution(phase: PhaseRecipe, key: str, one: Any) -> Distribution:
    if any(f"{key}.".startswith(f"{fixed}.") for fixed in FIXED):
        fix = f"set it in [base] or in the phase; fixed in a search: {', '.join(FIXED)}"
        raise MgcError(f"{key} cannot be searched", fix=fix)
    spread = [one.get("low"), one.get("high")] if isinstance(one, dict) else one
    known = isinstance(spread, list) and all(isinstance(value, str | int | float) for value in spread)
    if not known or not spread:
        fix = "use a list of numbers or words, or {low = 1e-4, high = 1e-2, log = true}"
        raise MgcError(f"{key} = {one!r} is not a search space", fix=fix)
    # As a recipe stores the values: 1 becomes 1.0 if the setting is a float.
    recipes = [read_recipe(BaselineRecipe, options={key: value}) for value in spread]
    values: list[Any] = [reduce(getattr, key.split("."), recipe) for recipe in recipes]
    if not isinstance(one, dict):
        return CategoricalDistribution(list(dict.fromkeys(values)))
    make = IntDistribution if isinstance(values[0], int) else FloatDistribution
    with explaining(f"{key} = {one!r}", None, errors=(ValueError,)):
        if phase.sampler == "grid" or one.keys() - {"low", "high", "log"} or values[0] >= values[1]:
            raise ValueError("expected {low, high, log} with low below high; a grid needs a list")
        distribution: Distribution = make(values[0], values[1], one.get("log", False))
    return distribution


def _choices(distribution: Distribution) -> list[Any]:
    """All choices, or both ends of a range."""
    if isinstance(distribution, CategoricalDistribution):
        return [*distribution.choices]
    return [distribution.low, distribution.high]


# ---- results


def write(search: Search) -> None:
    """`trials.csv`, `best.toml`, `importance.png` and `.svg` in the folder of the search."""
    rows = []
    for phase in search.phases():
        for trial in phase.trials:
            row = {"phase": phase.recipe.name, "number": trial.number, "state": trial.state.name.lower()}
            rows.append(row | {"value": trial.value} | phase.settings | trial.params | trial.user_attrs)
    keys = dict.fromkeys(key for space in search.spaces for key in space)
    columns = ["phase", "number", "state", "value", *keys, "seconds", "epochs"]
    # As objects, so that integers stay integers in columns with gaps.
    table = pd.DataFrame(rows, columns=columns, dtype=object)
    files.write(search.folder / "trials.csv", table.to_csv(index=False))
    if best := search.best():
        file = search.folder / "best.toml"
        lines = [f"# mgc baseline --config {shlex.quote(str(file))}", "#"]
        lines += [f"# {line}" for line in _summary(search, best[0])]
        files.write(file, "\n".join([*lines, recipe_toml(best[1].model_dump(mode="json"))]))
    plot_trials(search, table)


def _summary(search: Search, best: FrozenTrial) -> list[str]:
    trials = sum(phase.count(*FINISHED) for phase in search.phases())
    folds = f"mean of {len(search.folds)} folds" if len(search.folds) > 1 else "one fold"
    return [
        f"Validation {search.recipe.metric} {best.value:.4f} ({folds} of split {search.split}),",
        f"the best of {trials} trials and therefore optimistic. No test track was used; to test it, run:",
    ]


def format_search(search: Search) -> str:
    """The phases as a table, and the best trial."""
    header = ["phase", "sampler", "trials", "pruned", "failed", f"best {search.recipe.metric}", "found"]
    rows = []
    for phase in search.phases():
        value, found = "-", ""
        if phase.best:
            value = f"{phase.best.value:.4f}"
            pairs = phase.best.params.items()
            found = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in pairs)
        if not phase.improved:
            found = f"nothing better than before ({found})"
        counts = len(phase.trials), phase.count(TrialState.PRUNED), phase.count(TrialState.FAIL)
        rows.append([phase.recipe.name, phase.recipe.sampler, *counts, value, found])
    table, best = text_table(header, rows), search.best()
    if best is None:
        return f"{table}\nNo trial ended with a finite value: widen the search space."
    config = shlex.quote(str(search.folder / "best.toml"))
    return "\n".join([table, *_summary(search, best[0]), f"  mgc baseline --config {config}"])


def plot_trials(search: Search, table: pd.DataFrame) -> None:
    """Left, the importance of each setting in each phase; right, the value of every trial."""
    from matplotlib.figure import Figure
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances  # imports scikit-learn

    colours = {phase.name: f"C{number}" for number, phase in enumerate(search.recipe.phases)}
    bars = []
    for study in search.studies():
        values = [trial.values[0] for trial in study.get_trials(states=(TrialState.COMPLETE,))]
        if len(set(values)) > 1:
            shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
            # As parts of the deviation, phases can be compared, also those with a single setting.
            for key, share in shares.items():
                label = files.as_label(f"{key}\n({study.study_name})")
                bars += [(label, share**0.5 * pstdev(values), colours[study.study_name])] if share else []
    figure = Figure(figsize=(13, max(5, 2 + 0.45 * len(bars))), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    names, widths, shades = zip(*bars[::-1], strict=True) if bars else ((), (), ())
    left.barh(range(len(names)), widths, color=shades, tick_label=names)
    left.set(title="importance", xlabel=f"deviation explained (fANOVA), {search.recipe.metric}")
    ended = table.dropna(subset="value").reset_index(drop=True)
    ended["trial"] = ended.index + 1
    for (name, state), own in ended.groupby(["phase", "state"], sort=False):
        marker, note = ("x", ", pruned") if state == "pruned" else ("o", "")
        label, colour = files.as_label(f"{name}{note}"), colours[str(name)]
        right.scatter(own["trial"], own["value"], s=22, marker=marker, color=colour, label=label)
    complete = ended[ended["state"] == "complete"]
    if len(complete):
        best = search.sign * np.maximum.accumulate(search.sign * complete["value"].to_numpy(float))
        step = {"where": "post", "color": "#7f7f7f", "lw": 1, "label": "best so far", "zorder": 0}
        right.step(complete["trial"], best, **step)
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    right.set(title="trials", xlabel="trial, in the order of the phases (pruned: its last epoch)")
    right.set_ylabel(f"validation {UNITS[search.recipe.metric]}")
    right.grid(alpha=0.3)
    for suffix in ("png", "svg"):
        files.write_figure(figure, search.folder / f"importance.{suffix}", dpi=120)
