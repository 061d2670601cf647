"""What is known of a search, made from its journal: the trials, the best recipe, a table, a picture."""

import csv
import io
import json
import shlex
from statistics import pstdev
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from mgc.experiments.tune.search import Row, Search
from mgc.util import files

UNITS = {"accuracy": "accuracy (share of tracks)", "loss": "loss (nats)"}


def write(search: Search) -> None:
    """`trials.csv`, `best.toml`, `importance.png` and `.svg` in the folder of the search."""
    rows = search.rows()
    keys = dict.fromkeys(key for space in search.spaces for key in space)
    text = io.StringIO()
    table = csv.DictWriter(text, ["phase", "number", "state", "value", *keys, "seconds", "epochs"])
    table.writeheader()
    for row in rows:
        for t in row.trials:
            line = {"phase": row.phase.name, "number": t.number, "state": t.state.name.lower()}
            line["value"] = t.values[0] if t.values else ""
            table.writerow(line | row.settings | t.params | t.user_attrs)
    files.write(search.folder / "trials.csv", text.getvalue())
    found = search.best()
    if found is not None:
        file_name = search.folder / "best.toml"
        lines = [f"# mgc baseline --config {shlex.quote(str(file_name))}", "#"]
        lines += [f"# {line}" for line in _verdict(search, found[0])]
        files.write(file_name, "\n".join([*lines, *_toml(found[1].model_dump(mode="json"))]) + "\n")
    _picture(search, rows)


def _toml(tree: dict[str, Any]) -> list[str]:
    """TOML lines of a recipe. A JSON value is a TOML value but for null and the DEL character."""
    lines = []
    for key, value in sorted(tree.items(), key=lambda item: isinstance(item[1], dict)):
        if isinstance(value, dict):
            lines += ["", f"[{key}]", *_toml(value)]
        elif value is not None:
            lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f"))
    return lines


def _verdict(search: Search, best: FrozenTrial) -> list[str]:
    trials = sum(trial.state.is_finished() for row in search.rows() for trial in row.trials)
    folds = f"mean of {len(search.folds)} folds" if len(search.folds) > 1 else "one fold"
    return [
        f"Validation {search.recipe.metric} {best.values[0]:.4f} ({folds} of split {search.split}),",
        f"the best of {trials} trials and hence optimistic. No test track was read; this run tests it:",
    ]


def render(search: Search) -> str:
    """The phases as a table, and what the best value is worth."""
    cells = [["phase", "sampler", "trials", "pruned", "failed", f"best {search.recipe.metric}", "found"]]
    for row in search.rows():
        count = [sum(t.state == s for t in row.trials) for s in (TrialState.PRUNED, TrialState.FAIL)]
        params = row.best.params.items() if row.best else ()
        found = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in params)
        value = f"{row.best.values[0]:.4f}" if row.best else "-"
        note = found if row.better else f"nothing better than before ({found})"
        cells.append([row.phase.name, row.phase.sampler, str(len(row.trials)), *map(str, count), value, note])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
    best = search.best()
    if best is None:
        return "\n".join([*lines, "No trial ended with a number: widen the space."])
    config = shlex.quote(str(search.folder / "best.toml"))
    return "\n".join([*lines, *_verdict(search, best[0]), f"  mgc baseline --config {config}"])


def _picture(search: Search, rows: list[Row]) -> None:
    """What mattered in each phase, and the value of every trial."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances  # imports scikit-learn

    bars, dots = [], []
    for number, (row, study) in enumerate(zip(rows, search.studies(), strict=True)):
        values = [t.values[0] for t in row.trials if t.state == TrialState.COMPLETE]
        if len(set(values)) > 1:
            shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
            # As a part of the deviation phases can be compared, also those of a single setting.
            bars += [(files.as_label(f"{key}\n({row.phase.name})"), share**0.5 * pstdev(values), f"C{number}")
                     for key, share in shares.items() if share]  # fmt: skip
        dots += [(t.values[0], t.state, number) for t in row.trials if t.values]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(13, max(5, 2 + 0.45 * len(bars))), layout="constrained", width_ratios=(2, 3)
    )
    names, widths, colours = zip(*bars[::-1], strict=True) if bars else ((), (), ())
    left.barh(range(len(names)), widths, color=colours, tick_label=names)
    left.set(title="what mattered", xlabel=f"deviation it explains (fANOVA), {search.recipe.metric}")
    for number, row in enumerate(rows):
        for state, marker, note in ((TrialState.COMPLETE, "o", ""), (TrialState.PRUNED, "x", ", pruned")):
            own = [(x, dot[0]) for x, dot in enumerate(dots, 1) if dot[1:] == (state, number)]
            if own:
                x, y = zip(*own, strict=True)
                right.scatter(
                    x, y, s=22, marker=marker, color=f"C{number}", label=files.as_label(row.phase.name + note)
                )
    complete = [(x, search.sign * dot[0]) for x, dot in enumerate(dots, 1) if dot[1] == TrialState.COMPLETE]
    if complete:
        x, y = zip(*complete, strict=True)
        best = search.sign * np.maximum.accumulate(y)
        right.step(x, best, where="post", color="#7f7f7f", lw=1, label="best so far", zorder=0)
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    right.set(title="trials", xlabel="trial, in the order of the phases (pruned: its last epoch)")
    right.set_ylabel(f"validation {UNITS[search.recipe.metric]}")
    right.grid(alpha=0.3)
    for kind in ("png", "svg"):
        files.write_figure(figure, search.folder / f"importance.{kind}", dpi=120)
    plt.close(figure)
