"""Learning curves: accuracy by the number of training tracks, for networks from scratch and for probes.

Every point is an ordinary run on nested subsets of the training set of each fold, with the same validation
and test sets. Runs that exist are not repeated.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mgc.config import BaselineRecipe, CurveRecipe, ProbeRecipe
from mgc.experiments.study import PlannedRun, plan_runs, run_recipe
from mgc.experiments.systems import load_dataset_and_split
from mgc.representations import open_representation
from mgc.runs.record import NAMES_ONLY, RunRecord, load_records
from mgc.runs.tables import System
from mgc.training.networks import NETWORKS
from mgc.util import files
from mgc.util.errors import MgcError
from mgc.util.progress import say
from mgc.util.text import text_table
from mgc.workspace import Workspace

SMALLEST_SIZE = 5  # training tracks per genre; the default sizes double from here
RESAMPLES = 1000


@dataclass(frozen=True)
class Line:
    """The curve of one system: its points by rising number of training tracks, each a system over seeds."""

    points: tuple[System, ...]

    @property
    def title(self) -> str:
        """Name and head."""
        return self.points[0].title

    @cached_property
    def tracks(self) -> np.ndarray:
        """(K,) training tracks per genre, the mean over genres, folds and seeds."""
        return np.array([_tracks_per_genre(point) for point in self.points])

    @cached_property
    def correct(self) -> np.ndarray:
        """(K, N) share of the seeds of a point that predict each test track correctly."""
        runs = [point.predictions for point in self.points]
        return np.array([np.mean([p.predicted == p.labels for p in point], axis=0) for point in runs])


def curve(recipe: CurveRecipe, workspace: Workspace, file: Path | None = None) -> list[Line]:
    """Run every system for every size and seed, small sizes first.

    The points are also written to `curve.csv`, `.png` and `.svg` in `results/<dataset>/`. `file` is the
    config of the recipe; configs named in `recipe.runs` are relative to it.

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
    lines = lines_of([*_floors(records, workspace), *records])
    folder = workspace.results_of(records[0].data)
    points = curve_points(lines)
    files.write(folder / "curve.csv", points.to_csv(index=False))
    _plot(points, folder)
    return lines


def _planned_runs(recipe: CurveRecipe, workspace: Workspace, file: Path | None) -> list[PlannedRun]:
    if recipe.runs:
        assert file
        return plan_runs(recipe, file)
    seeds = recipe.seeds if recipe.seed is None else (recipe.seed,)
    shared: dict[str, Any] = {"data": recipe.data, "device": recipe.device}
    planned = []
    for name in recipe.systems:
        if name in NETWORKS:
            planned.append(PlannedRun(name, BaselineRecipe(network=name, **shared), seeds))
        else:
            open_representation(name, workspace)  # an unknown name fails before a network is trained
            trust = recipe.trust_remote_code
            probe = ProbeRecipe(model=name, trust_remote_code=trust, **shared)
            planned.append(PlannedRun(name, probe, seeds))
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


def lines_of(records: Sequence[RunRecord]) -> list[Line]:
    """Group records into lines: those of one recipe are a line, those of one size in it a point."""
    groups: dict[str, dict[int | None, list[RunRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        recipe = {key: value for key, value in record.recipe.items() if key not in {*NAMES_ONLY, "seed"}}
        key = json.dumps([record.system, record.kind, record.name, recipe], sort_keys=True)
        groups[key][record.recipe["data"].get("per_class")].append(record)
    points = [[System(tuple(point)) for point in sizes.values()] for sizes in groups.values()]
    lines = [Line(tuple(sorted(line, key=_tracks_per_genre))) for line in points]
    if len({p.track_ids for line in lines for point in line.points for p in point.predictions}) > 1:
        what = "the systems of a curve are evaluated on different tracks"
        raise MgcError(what, fix="give all of them one split")
    return lines


def _tracks_per_genre(point: System) -> float:
    return float(np.mean([r.training_tracks / len(r.scores["per_class"]) for r in point.records]))


def curve_points(lines: Sequence[Line]) -> pd.DataFrame:
    """A row for each system and size, with the columns of curve.csv.

    `tracks` are training tracks per genre; `accuracy_low` and `accuracy_high` are over artists (or tracks),
    `accuracy_deviation` is over seeds.
    """
    scores = ("accuracy", "accuracy_low", "accuracy_high", "accuracy_deviation")
    rows = [
        {
            "system": line.title,
            "kind": point.record.kind,
            "per_class": point.record.recipe["data"].get("per_class") or "all",
            "tracks": tracks,
            "draws": point.scores.seeds,
            **{name: getattr(point.scores, name) for name in scores},
            "interval_over": point.record.evaluation.interval_unit,
            "n_tracks": point.record.evaluation.n_tracks,
            "run_id": " ".join(r.run_id for r in point.records),
        }
        for line in lines
        for point, tracks in zip(line.points, line.tracks, strict=True)
    ]
    return pd.DataFrame(rows)


def tracks_to_reach(line: Line, target: np.ndarray, groups: Sequence[str]) -> tuple[float, float, float]:
    """Training tracks per genre from which on a system keeps the accuracy of a target.

    `target` is the (N,) share of seeds in which the target predicts each test track correctly, `groups` are
    the (N,) artists. Returns the number, interpolated over its logarithm, and its 95 % bootstrap interval
    over groups, in which both systems are resampled together. -inf: the smallest point or fewer; inf: not at
    the largest.
    """
    unit = np.unique(groups, return_inverse=True)[1]
    units = unit.max() + 1
    sums = np.array([np.bincount(unit, row) for row in (*line.correct, target)])  # (K + 1, U)
    # Sums in place of means: division by the number of tracks drawn would not change a comparison.
    drawn = np.random.default_rng(0).multinomial(units, np.full(units, 1 / units), RESAMPLES)
    totals = [sums.sum(axis=1), *(drawn @ sums.T)]  # the sample itself, then the resamples
    sizes = [_crossing(line.tracks, row[:-1], row[-1]) for row in totals]
    low, high = np.quantile(sizes[1:], [0.025, 0.975], method="nearest")
    return sizes[0], float(low), float(high)


def _crossing(tracks: np.ndarray, values: np.ndarray, target: float) -> float:
    """Where `values` (K,) over `tracks` (K,) rise to `target` for the last time."""
    below = np.flatnonzero(values < target)
    if not len(below):
        return -np.inf
    last = below[-1]
    if last == len(values) - 1:
        return np.inf
    share = (target - values[last]) / (values[last + 1] - values[last])
    return float(tracks[last] * (tracks[last + 1] / tracks[last]) ** share)


def sentences(lines: Sequence[Line]) -> list[str]:
    """For each probe and network: the training tracks with which the probe equals the network with all."""
    probes, networks = (
        [line for line in lines if line.points[0].record.kind == kind] for kind in ("probe", "baseline")
    )
    return [_sentence(probe, network) for network in networks for probe in probes]


def _sentence(probe: Line, network: Line) -> str:
    predictions = network.points[0].predictions[0]
    size, low, high = tracks_to_reach(probe, network.correct[-1], predictions.groups)
    first, last = probe.tracks[0], probe.tracks[-1]
    target = f"accuracy of {network.title} with {network.tracks[-1]:.0f} ({network.correct[-1].mean():.3f})"
    if size == np.inf:
        most = f"{last:.0f} training tracks per genre ({probe.correct[-1].mean():.3f})"
        return f"{probe.title} with {most} does not reach the {target}."
    words = {-np.inf: f"{first:.0f} or fewer", np.inf: f"more than {last:.0f}"}
    unit = "artists" if predictions.has_groups else "tracks"
    least, most = (words.get(x, f"{x:.0f}") for x in (low, high))
    return (
        f"{probe.title} with {words.get(size, f'about {size:.0f}')} training tracks per genre reaches the "
        f"{target}; 95 % interval over {unit}: {least} to {most}, interpolated between sizes."
    )


def format_curve(lines: Sequence[Line]) -> str:
    """The points as a table, and the sentences."""
    rows = []
    for line in lines:
        for tracks, s in zip(line.tracks, (point.scores for point in line.points), strict=True):
            accuracy = f"{s.accuracy:.3f} [{s.accuracy_low:.3f}, {s.accuracy_high:.3f}]"
            deviation = "" if s.accuracy_deviation is None else f"±{s.accuracy_deviation:.3f} ({s.seeds})"
            rows.append([line.title, f"{tracks:.1f}", accuracy, deviation])
    header = ["system", "tracks per genre", "accuracy [95 %]", "over seeds"]
    return "\n".join([text_table(header, rows), "", *sentences(lines)])


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
    unit = f"{points['interval_over'].iloc[0]}s"
    shade = f"; shaded: deviation over {points['draws'].max()} seeds" if several else ""
    ylabel = f"accuracy (share of {points['n_tracks'].iloc[0]} test tracks)\nbars: 95 % over {unit}{shade}"
    axis.set(xlabel="training tracks per genre (logarithmic)", ylabel=ylabel, ylim=(0, 1))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    for suffix in ("png", "svg"):
        files.write_figure(figure, folder / f"curve.{suffix}", dpi=120)
