"""Learning curves: accuracy by the number of training tracks, for networks from scratch and for probes.

Every point is an ordinary run on nested subsets of the training set of each fold, with the same validation
and test sets. Runs that exist are not repeated.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mgc.config import BaselineRecipe, CurveRecipe, ProbeRecipe, Repeats
from mgc.evaluate import Outcomes, compare, unit_numbers
from mgc.experiments import differences
from mgc.experiments.study import PlannedRun, plan_runs, run_recipe
from mgc.experiments.systems import load_dataset_and_split
from mgc.representations import open_representation
from mgc.runs.record import NAMES_ONLY, RunRecord, load_records
from mgc.runs.tables import System
from mgc.training.networks import NETWORKS
from mgc.util import files
from mgc.util.errors import MgcError
from mgc.util.progress import say
from mgc.util.text import markdown_table, text_table
from mgc.workspace import Workspace

SMALLEST_SIZE = 5  # training tracks per genre; the default sizes double from here
KINDS = ("probe", "baseline", "floor")  # of two systems that are compared, the first one of these is first


def curve(recipe: CurveRecipe, workspace: Workspace, file: Path | None = None) -> list[System]:
    """Run every system for every size and seed, small sizes first.

    The points are also written to `curve.csv`, `.md`, `.png` and `.svg` in `results/<dataset>/`. `file` is
    the config of the recipe; configs named in `recipe.runs` are relative to it.

    Raises:
        MgcError: no such system, an invalid config, sizes that no genre has, systems on several splits, or as
            `baseline` and `probe`.
    """
    planned = _planned_runs(recipe, workspace, file)
    sizes = _sizes(recipe, planned, workspace)
    jobs = [(one, size, seed) for size in sizes for one in planned for seed in one.seeds]
    records = []
    for number, (one, size, seed) in enumerate(jobs, start=1):
        data = one.recipe.data.model_copy(update={"per_class": size, "per_class_seed": seed})
        say(f"curve: {number} of {len(jobs)}: {one.title}, {size or 'all'} tracks per genre, seed {seed}")
        records.append(run_recipe(one.recipe.model_copy(update={"seed": seed, "data": data}), workspace))
    points = points_of([*_floors(records, workspace), *records])
    table, folder = curve_points(points), workspace.results_of(records[0].data)
    files.write(folder / "curve.csv", table.to_csv(index=False))
    files.write(folder / "curve.md", format_curve(points, recipe.margin, "markdown") + "\n")
    _plot(table, folder)
    return points


def _planned_runs(recipe: CurveRecipe, workspace: Workspace, file: Path | None) -> list[PlannedRun]:
    if recipe.split_seeds or any(one.split_seeds for one in recipe.runs):
        raise MgcError("a curve uses one split", where=file, fix="replace split_seeds by data.split_seed")
    if recipe.runs:
        assert file
        return plan_runs(recipe, file, Repeats())
    shared: dict[str, Any] = {"data": recipe.data, "device": recipe.device}
    planned = []
    for name in recipe.systems:
        if name in NETWORKS:
            planned.append(PlannedRun(name, BaselineRecipe(network=name, **shared), recipe))
        else:
            open_representation(name, workspace)  # an unknown name fails before a network is trained
            planned.append(PlannedRun(name, ProbeRecipe(model=name, **shared), recipe))
    return planned


def _sizes(recipe: CurveRecipe, planned: Sequence[PlannedRun], workspace: Workspace) -> list[int | None]:
    """Training tracks per genre, rising; None for all. By default doubled up to the smallest genre."""
    dataset, split = load_dataset_and_split(planned[0].recipe.data, workspace)
    counts = [Counter(dataset.by_id[i].label for i in fold.train) for fold in split.folds]
    most = max(max(count.values()) for count in counts)
    least = min(min(count.values()) for count in counts)
    doubled = [SMALLEST_SIZE << k for k in range(least.bit_length()) if SMALLEST_SIZE << k < least]
    wanted = recipe.sizes or (*doubled, "all")
    numbers = sorted({size for size in wanted if isinstance(size, int)})
    if any(size < 1 or size >= most for size in numbers):
        what = f"sizes {', '.join(map(str, numbers))}: the largest genre has {most} training tracks"
        fix = 'use sizes from 1 to below that, and "all" for all tracks'
        raise MgcError(what, where=dataset.name, fix=fix)
    return [*numbers, *([None] if "all" in wanted else [])]


def _floors(records: Sequence[RunRecord], workspace: Workspace) -> list[RunRecord]:
    """The newest log-mel floor on the training tracks of each record: it exists beside every run."""
    splits = {record.split_hash for record in records}
    floors = [r for r in load_records(records[0].data, workspace) if r.kind == "floor" and r.head]
    return [*{r.split_hash: r for r in floors if r.split_hash in splits}.values()]


def points_of(records: Sequence[RunRecord]) -> list[System]:
    """Group records into points: those of one recipe and size. The points of a recipe follow one another, by
    rising size."""
    groups: dict[str, dict[int | None, list[RunRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        recipe = {key: value for key, value in record.recipe.items() if key not in {*NAMES_ONLY, "seed"}}
        key = json.dumps([record.system, record.kind, record.name, recipe], sort_keys=True)
        groups[key][record.recipe["data"].get("per_class")].append(record)
    lines = [[System(tuple(point)) for point in sizes.values()] for sizes in groups.values()]
    points = [point for line in lines for point in sorted(line, key=_tracks_per_genre)]
    if len({predictions.track_ids for point in points for predictions in point.predictions}) > 1:
        what = "the systems of a curve are evaluated on different tracks"
        raise MgcError(what, fix="give all of them one split")
    return points


def _tracks_per_genre(point: System) -> float:
    return float(np.mean([r.training_tracks / len(r.scores["per_class"]) for r in point.records]))


def curve_points(points: Sequence[System]) -> pd.DataFrame:
    """A row for each system and size, with the columns of curve.csv.

    `tracks` are training tracks per genre, and `validation_tracks` are those of a fold, of all genres.
    `accuracy_low` and `accuracy_high` are over `interval_over`, `accuracy_deviation` is over seeds.
    """
    scores = ("accuracy", "accuracy_low", "accuracy_high")
    rows = [
        {
            "system": point.title,
            "kind": point.record.kind,
            "per_class": point.record.recipe["data"].get("per_class") or "all",
            "tracks": _tracks_per_genre(point),
            "validation_tracks": np.mean([len(fold) for fold in point.record.validation()]),
            "draws": point.scores.seeds,
            **{name: getattr(point.scores, name) for name in scores},
            "accuracy_deviation": point.scores.seed_sd,
            "interval_over": f"{point.record.evaluation.interval_unit}s",
            "n_tracks": point.record.evaluation.n_tracks,
            "run_id": " ".join(r.run_id for r in point.records),
        }
        for point in points
    ]
    return pd.DataFrame(rows)


def curve_differences(points: Sequence[System], margin: float) -> pd.DataFrame:
    """Every pair of systems at every size, and every probe at every size against each network at its largest.

    Their comparisons are one family. `margin` is in points of accuracy. Of two systems, the probe comes
    first, then the network, then the floor.
    """
    points = sorted(points, key=lambda point: KINDS.index(point.record.kind))
    table = curve_points(points)
    kind, size, tracks = table["kind"], table["per_class"], table["tracks"]
    largest = {*table[kind == "baseline"].groupby("system")["tracks"].idxmax()}
    pairs = [
        (a, b)
        for a, b in combinations(range(len(points)), 2)
        if size[a] == size[b] or (kind[a] == "probe" and b in largest)
    ]
    pairs.sort(key=lambda pair: (tracks[pair[0]], tracks[pair[1]]))
    # Seeds draw the training tracks as well as the weights.
    drawn = [point.record.random or one != "all" for point, one in zip(points, size, strict=True)]
    systems = [Outcomes.of(point.predictions, random=one) for point, one in zip(points, drawn, strict=True)]
    groups = unit_numbers(points[0].predictions[0])
    found = compare(systems, [{a: 1, b: -1} for a, b in pairs], groups)
    names = table[["kind", "system", "tracks"]]
    first, second = names.to_dict("records"), names.add_prefix("versus_").to_dict("records")
    return pd.DataFrame(
        first[a] | second[b] | differences.columns(one, margin)
        for (a, b), one in zip(pairs, found, strict=True)
    )


def sentences(compared: pd.DataFrame) -> list[str]:
    """For each probe and network: the verdicts with as many tracks, and against the network with its most."""
    own = compared[(compared["kind"] == "probe") & (compared["versus_kind"] == "baseline")]
    own = own.assign(label=own["tracks"].map(_number))
    found = []
    for (probe, network), rows in own.groupby(["system", "versus_system"], sort=False):
        most = rows["versus_tracks"].max()
        for number, other in ((rows["tracks"], "as many"), (most, _number(most))):
            verdicts = differences.by_verdict(rows[rows["versus_tracks"] == number], "label", "with")
            start = f"{probe} against {network} with {other} training tracks per genre"
            found.append(f"{start} (differences in points): {verdicts}")
    return found


def format_curve(points: Sequence[System], margin: float, form: str = "table") -> str:
    """The points, their differences and the sentences, as "table" or "markdown"."""
    results, compared = curve_points(points), curve_differences(points, margin)
    rows, pairs = [], []
    for one in results.to_dict("records"):
        accuracy = f"{one['accuracy']:.3f} [{one['accuracy_low']:.3f}, {one['accuracy_high']:.3f}]"
        deviation = "" if one["draws"] == 1 else f"±{one['accuracy_deviation']:.3f} ({one['draws']})"
        rows.append([one["system"], _number(one["tracks"]), accuracy, deviation])
    for one in compared.to_dict("records"):
        names = [f"{one['system']}: {_number(one['tracks'])}"]
        names += [f"{one['versus_system']}: {_number(one['versus_tracks'])}"]
        pairs.append([*names, *differences.cells(one)])
    table, bullet = (markdown_table, "- ") if form == "markdown" else (text_table, "")
    first, record = results.iloc[0], points[0].record
    text = [
        table(["system", "training tracks per genre", "accuracy [95 %]", "over seeds"], rows),
        f"\n{record.data}, {first['n_tracks']} test tracks, split {record.split}. Besides training tracks, "
        f"every system uses {_number(first['validation_tracks'])} validation tracks per fold.",
    ]
    if pairs:
        header = ["system: tracks", "against", "difference [95 %]", "p", "verdict"]
        text[1:1] = ["", table(header, pairs)]
        text += [
            differences.note(compared, first["interval_over"]),
            "Seeds draw training tracks and weights; their variance is pooled over systems and sizes.\n",
            *(bullet + line for line in sentences(compared)),
        ]
    return "\n".join(text)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _plot(points: pd.DataFrame, folder: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axis = figure.subplots()
    several = points["draws"].max() > 1
    for number, (_, line) in enumerate(points.groupby(["kind", "system"], sort=False)):
        colour = "#7f7f7f" if line["kind"].iloc[0] == "floor" else f"C{number}"
        x = line["tracks"] * 1.02 ** (number - 1)  # so that the bars of systems do not cover one another
        label = files.as_label(line["system"].iloc[0])
        bars = [line["accuracy"] - line["accuracy_low"], line["accuracy_high"] - line["accuracy"]]
        axis.errorbar(
            x, line["accuracy"], bars, color=colour, marker="o", ms=4, capsize=3, lw=1.5, elinewidth=0.9,
            label=label,
        )  # fmt: skip
        if several:
            spread = line["accuracy_deviation"].fillna(0.0)
            low, high = line["accuracy"] - spread, line["accuracy"] + spread
            axis.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
    sizes = sorted({round(x) for x in points["tracks"]})
    axis.set_xscale("log")
    axis.set_xticks(sizes, [*map(str, sizes)], minor=False)
    axis.xaxis.set_minor_locator(NullLocator())
    first = points.iloc[0]
    shade = f"; shaded: deviation over {points['draws'].max()} seeds" if several else ""
    ylabel = f"accuracy (share of {first['n_tracks']} test tracks)\n"
    ylabel += f"bars: 95 % over {first['interval_over']}{shade}"
    xlabel = (
        f"training tracks per genre, besides {_number(first['validation_tracks'])} validation tracks per fold"
    )
    axis.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, 1))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    for suffix in ("png", "svg"):
        files.write_figure(figure, folder / f"curve.{suffix}", dpi=120)
