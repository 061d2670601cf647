"""The results of a search, from its journal: all trials, the best recipe, a table, a figure."""

import shlex
from statistics import pstdev

import numpy as np
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from mgc.config import recipe_toml
from mgc.experiments.tune.search import Phase, Search
from mgc.util import files
from mgc.util.text import text_table

UNITS = {"accuracy": "accuracy (share of tracks)", "loss": "loss (nats)"}


def write(search: Search) -> None:
    """`trials.csv`, `best.toml`, `importance.png` and `.svg` in the folder of the search."""
    phases = search.phases()
    keys = dict.fromkeys(key for space in search.spaces for key in space)
    rows = [
        {
            "phase": phase.recipe.name,
            "number": trial.number,
            "state": trial.state.name.lower(),
            "value": trial.values[0] if trial.values else None,
            **phase.settings,
            **trial.params,
            **trial.user_attrs,
        }
        for phase in phases
        for trial in phase.trials
    ]
    columns = ["phase", "number", "state", "value", *keys, "seconds", "epochs"]
    # As objects, so that integers stay integers in columns with gaps.
    table = pd.DataFrame(rows, columns=columns, dtype=object)
    files.write(search.folder / "trials.csv", table.to_csv(index=False))
    if best := search.best():
        file = search.folder / "best.toml"
        lines = [f"# mgc baseline --config {shlex.quote(str(file))}", "#"]
        lines += [f"# {line}" for line in _summary(search, best[0])]
        files.write(file, "\n".join([*lines, recipe_toml(best[1].model_dump(mode="json"))]))
    plot_trials(search, phases)


def _summary(search: Search, best: FrozenTrial) -> list[str]:
    trials = sum(trial.state.is_finished() for phase in search.phases() for trial in phase.trials)
    folds = f"mean of {len(search.folds)} folds" if len(search.folds) > 1 else "one fold"
    return [
        f"Validation {search.recipe.metric} {best.values[0]:.4f} ({folds} of split {search.split}),",
        f"the best of {trials} trials and therefore optimistic. No test track was used; to test it, run:",
    ]


def format_search(search: Search) -> str:
    """The phases as a table, and the best trial."""
    header = ["phase", "sampler", "trials", "pruned", "failed", f"best {search.recipe.metric}", "found"]
    rows = []
    for phase in search.phases():
        pruned, failed = (
            sum(trial.state == state for trial in phase.trials)
            for state in (TrialState.PRUNED, TrialState.FAIL)
        )
        value, found = "-", ""
        if phase.best:
            value = f"{phase.best.values[0]:.4f}"
            pairs = phase.best.params.items()
            found = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in pairs)
        if not phase.improved:
            found = f"nothing better than before ({found})"
        rows.append(
            [phase.recipe.name, phase.recipe.sampler, len(phase.trials), pruned, failed, value, found]
        )
    table, best = text_table(header, rows), search.best()
    if best is None:
        return f"{table}\nNo trial ended with a finite value: widen the search space."
    config = shlex.quote(str(search.folder / "best.toml"))
    return "\n".join([table, *_summary(search, best[0]), f"  mgc baseline --config {config}"])


def plot_trials(search: Search, phases: list[Phase]) -> None:
    """Left, the importance of each setting in each phase; right, the value of every trial."""
    from matplotlib.figure import Figure
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances  # imports scikit-learn

    bars, trials = [], []
    for number, (phase, study) in enumerate(zip(phases, search.studies(), strict=True)):
        values = [t.values[0] for t in phase.trials if t.state == TrialState.COMPLETE]
        if len(set(values)) > 1:
            shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
            # As parts of the deviation, phases can be compared, also those with a single setting.
            for key, share in shares.items():
                label = files.as_label(f"{key}\n({phase.recipe.name})")
                bars += [(label, share**0.5 * pstdev(values), f"C{number}")] if share else []
        trials += [(t.values[0], t.state, number) for t in phase.trials if t.values]
    figure = Figure(figsize=(13, max(5, 2 + 0.45 * len(bars))), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    names, widths, colours = zip(*bars[::-1], strict=True) if bars else ((), (), ())
    left.barh(range(len(names)), widths, color=colours, tick_label=names)
    left.set(title="importance", xlabel=f"deviation explained (fANOVA), {search.recipe.metric}")
    for number, phase in enumerate(phases):
        for state, marker, note in ((TrialState.COMPLETE, "o", ""), (TrialState.PRUNED, "x", ", pruned")):
            own = [(x, trial[0]) for x, trial in enumerate(trials, 1) if trial[1:] == (state, number)]
            if own:
                label = files.as_label(phase.recipe.name + note)
                right.scatter(*zip(*own, strict=True), s=22, marker=marker, color=f"C{number}", label=label)
    complete = [(x, trial[0]) for x, trial in enumerate(trials, 1) if trial[1] == TrialState.COMPLETE]
    if complete:
        x, y = zip(*complete, strict=True)
        best = search.sign * np.maximum.accumulate(search.sign * np.array(y))
        right.step(x, best, where="post", color="#7f7f7f", lw=1, label="best so far", zorder=0)
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    right.set(title="trials", xlabel="trial, in the order of the phases (pruned: its last epoch)")
    right.set_ylabel(f"validation {UNITS[search.recipe.metric]}")
    right.grid(alpha=0.3)
    for suffix in ("png", "svg"):
        files.write_figure(figure, search.folder / f"importance.{suffix}", dpi=120)
