"""Accuracy by the number of training tracks: how much music of one's own does a pretrained encoder save?

Every point is an ordinary run, on nested subsets of each fold's training side and the same validation and
test sides; so it is there already when the same command runs again.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from mgc.config import BaselineRecipe, CurveRecipe, ProbeRecipe
from mgc.evaluate import over_seeds
from mgc.experiments.study import Planned, plan, run
from mgc.experiments.systems import load_tracks
from mgc.representations import open_representation
from mgc.runs.record import NAMES_ONLY, RunRecord, load_records
from mgc.runs.tables import System
from mgc.training.networks import NETWORKS
from mgc.util import files
from mgc.util.errors import MgcError
from mgc.util.progress import say
from mgc.workspace import Workspace

SMALLEST_SIZE = 5
RESAMPLES = 1000


@dataclass(frozen=True)
class Line:
    """One system: its points by rising number of training tracks, several draws a point."""

    points: tuple[System, ...]

    @property
    def title(self) -> str:
        """Name and head."""
        return self.points[0].title

    @cached_property
    def tracks(self) -> np.ndarray:
        """(K,) training tracks a genre, the mean over genres, folds and draws."""
        return np.array([_tracks(point) for point in self.points])

    @cached_property
    def right(self) -> np.ndarray:
        """(K, N) in how many of a point's draws each test track was predicted right, as a share."""
        runs = [point.predictions for point in self.points]
        return np.array([np.mean([p.predicted == p.labels for p in point], axis=0) for point in runs])


def curve(recipe: CurveRecipe, workspace: Workspace, file: Path | None = None) -> list[Line]:
    """Run every system on every size and draw, small ones first; write results/<data>/curve.csv, .png, .svg.

    Raises:
        MgcError: no such system, a config that would be refused, sizes that no genre has, systems on several
            splits, or what `baseline` and `probe` raise.
    """
    planned = _planned(recipe, workspace, file)
    jobs = [
        (one, size, seed)
        for size in _sizes(recipe, planned, workspace)
        for one in planned
        for seed in one.seeds
    ]
    records = []
    for number, (one, size, seed) in enumerate(jobs, start=1):
        data = one.recipe.data.model_copy(update={"per_class": size, "per_class_seed": seed})
        say(f"curve: {number} of {len(jobs)}: {one.title}, {size or 'all'} tracks a genre, seed {seed}")
        records.append(run(one.recipe.model_copy(update={"seed": seed, "data": data}), workspace))
    lines = lines_of([*_floors(records, workspace), *records])
    folder = workspace.results_of(records[0].data)
    points = curve_points(lines)
    files.write(folder / "curve.csv", points.to_csv(index=False))
    _draw(points, folder)
    return lines


def _planned(recipe: CurveRecipe, workspace: Workspace, file: Path | None) -> list[Planned]:
    if recipe.runs:
        assert file
        return plan(recipe, file)
    seeds = recipe.seeds if recipe.seed is None else (recipe.seed,)
    planned = []
    for name in recipe.systems:
        one: BaselineRecipe | ProbeRecipe
        if name in NETWORKS:
            one = BaselineRecipe(network=name, data=recipe.data, device=recipe.device)
        else:
            open_representation(name, workspace)  # a wrong name fails before a network is trained
            one = ProbeRecipe(model=name, data=recipe.data, device=recipe.device)
        planned.append(Planned(name, one, seeds))
    return planned


def _sizes(recipe: CurveRecipe, planned: Sequence[Planned], workspace: Workspace) -> list[int | None]:
    """Rising, None for all; by default doubled up to what the smallest genre has in the smallest fold."""
    dataset, split = load_tracks(planned[0].recipe.data, workspace)
    counts = [Counter(dataset.by_id[i].label for i in fold.train) for fold in split.folds]
    most, least = (kind(kind(c.values()) for c in counts) for kind in (max, min))
    doubled = [SMALLEST_SIZE << k for k in range(least.bit_length()) if SMALLEST_SIZE << k < least]
    asked = recipe.sizes or (*doubled, "all")
    numbers = sorted({size for size in asked if isinstance(size, int)})
    if any(size < 1 or size >= most for size in numbers):
        what = f"sizes {', '.join(map(str, numbers))}: the largest genre has {most} training tracks"
        raise MgcError(what, where=dataset.name, fix='name smaller ones, and "all" for all there are')
    return [*numbers, *([None] if "all" in asked else [])]


def _floors(records: Sequence[RunRecord], workspace: Workspace) -> list[RunRecord]:
    """The newest line through log-mel statistics on the same training tracks: it costs nothing."""
    splits = {record.split_hash for record in records}
    floors = [r for r in load_records(records[0].data, workspace) if r.kind == "floor" and r.head]
    return [*{r.split_hash: r for r in floors if r.split_hash in splits}.values()]


def lines_of(records: Sequence[RunRecord]) -> list[Line]:
    """Records of one recipe are a line, those of one size in it a point.

    Raises:
        MgcError: they are not judged on the same tracks.
    """
    groups: dict[str, dict[int | None, list[RunRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        recipe = {key: value for key, value in record.recipe.items() if key not in {*NAMES_ONLY, "seed"}}
        key = json.dumps([record.system, record.kind, record.name, recipe], sort_keys=True)
        groups[key][record.recipe["data"].get("per_class")].append(record)
    lines = [
        Line(tuple(sorted((System(tuple(point)) for point in sizes.values()), key=_tracks)))
        for sizes in groups.values()
    ]
    judged = {p.track_ids for line in lines for point in line.points for p in point.predictions}
    if len(judged) > 1:
        raise MgcError("the systems of a curve are judged on different tracks", fix="give all one split")
    return lines


def _tracks(point: System) -> float:
    return float(np.mean([r.training_tracks / len(r.scores["per_class"]) for r in point.records]))


def curve_points(lines: Sequence[Line]) -> pd.DataFrame:
    """A row a system and size, the columns of curve.csv. `accuracy_low` and `accuracy_high` are over artists
    (or tracks), `accuracy_deviation` is over draws; `tracks` are training tracks a genre."""
    rows = []
    for line in lines:
        for point, tracks in zip(line.points, line.tracks, strict=True):
            scores = over_seeds(point.predictions)
            rows.append(
                {
                    "system": line.title,
                    "kind": point.record.kind,
                    "per_class": point.record.recipe["data"].get("per_class") or "all",
                    "tracks": tracks,
                    "draws": scores.seeds,
                    "accuracy": scores.accuracy,
                    "accuracy_low": scores.accuracy_low,
                    "accuracy_high": scores.accuracy_high,
                    "accuracy_deviation": scores.accuracy_deviation,
                    "interval_over": point.record.evaluation.interval_unit,
                    "n_tracks": point.record.evaluation.n_tracks,
                    "run_id": " ".join(r.run_id for r in point.records),
                }
            )
    return pd.DataFrame(rows)


def reached(ours: Line, target: np.ndarray, groups: Sequence[str]) -> tuple[float, float, float]:
    """With how many tracks a genre `ours` reaches, and from there on keeps, the accuracy of `target` (N,).

    And the 95 % interval over groups, both systems drawn together. By interpolation over the logarithm; -inf:
    with its smallest point or fewer, inf: not with its largest.
    """
    unit = np.unique(groups, return_inverse=True)[1]
    units = unit.max() + 1
    sums = np.array([np.bincount(unit, row) for row in (*ours.right, target)])  # (K + 1, U)
    # Not divided by how many tracks were drawn: that changes no comparison.
    drawn = np.random.default_rng(0).multinomial(units, np.full(units, 1 / units), RESAMPLES)
    everything = [sums.sum(axis=1), *(drawn @ sums.T)]
    sizes = [_crossing(ours.tracks, row[:-1], row[-1]) for row in everything]
    low, high = np.quantile(sizes[1:], [0.025, 0.975], method="nearest")
    return sizes[0], float(low), float(high)


def _crossing(tracks: np.ndarray, ours: np.ndarray, target: float) -> float:
    below = np.flatnonzero(ours < target)
    if not len(below):
        return -np.inf
    last = below[-1]
    if last == len(ours) - 1:
        return np.inf
    share = (target - ours[last]) / (ours[last + 1] - ours[last])
    return float(tracks[last] * (tracks[last + 1] / tracks[last]) ** share)


def sentences(lines: Sequence[Line]) -> list[str]:
    """For each probe and network: with how many tracks the probe knows what the network learns from all."""
    probes, networks = (
        [line for line in lines if line.points[0].record.kind == path] for path in ("probe", "baseline")
    )
    return [_sentence(probe, network) for network in networks for probe in probes]


def _sentence(probe: Line, network: Line) -> str:
    predictions = network.points[0].predictions[0]
    size, low, high = reached(probe, network.right[-1], predictions.groups)
    first, last = probe.tracks[0], probe.tracks[-1]
    words = {-np.inf: f"{first:.0f} or fewer", np.inf: f"more than {last:.0f}"}
    least, most = (words.get(x, f"{x:.0f}") for x in (low, high))
    theirs = f"{network.title} reaches with {network.tracks[-1]:.0f} ({network.right[-1].mean():.3f})"
    if size == np.inf:
        ours = f"{last:.0f} tracks a genre ({probe.right[-1].mean():.3f})"
        return f"{probe.title} does not reach with {ours} what {theirs}."
    unit = "artists" if predictions.has_groups else "tracks"
    return (
        f"{probe.title} reaches with {words.get(size, f'about {size:.0f}')} tracks a genre what {theirs}; "
        f"95 % over {unit}: {least} to {most}, interpolated between the sizes that were run."
    )


def render(lines: Sequence[Line]) -> str:
    """The points as a table, and the sentences."""
    points = curve_points(lines)
    spread = points["accuracy_deviation"]
    shown = pd.DataFrame(
        {
            "system": points["system"],
            "tracks a genre": points["tracks"].map("{:.1f}".format),
            "accuracy [95 %]": [
                f"{a:.3f} [{low:.3f}, {high:.3f}]"
                for a, low, high in points[["accuracy", "accuracy_low", "accuracy_high"]].itertuples(
                    index=False
                )
            ],
            "over draws": [
                f"±{d:.3f} ({n})" if n > 1 else "" for d, n in zip(spread, points["draws"], strict=True)
            ],
        }
    )
    return "\n".join([shown.to_string(index=False), "", *sentences(lines)])


def _draw(points: pd.DataFrame, folder: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7.5, 5), layout="constrained")
    several = points["draws"].max() > 1
    for number, (_, line) in enumerate(points.groupby(["kind", "system"], sort=False)):
        colour = "#7f7f7f" if line["kind"].iloc[0] == "floor" else f"C{number}"
        x = line["tracks"] * 1.02 ** (number - 1)  # bars beside one another
        bars = [line["accuracy"] - line["accuracy_low"], line["accuracy_high"] - line["accuracy"]]
        axis.errorbar(
            x, line["accuracy"], bars, color=colour, marker="o", ms=4, capsize=3, lw=1.5, elinewidth=0.9,
            label=files.as_label(line["system"].iloc[0]),
        )  # fmt: skip
        if several:
            spread = line["accuracy_deviation"].fillna(0.0)
            low, high = line["accuracy"] - spread, line["accuracy"] + spread
            axis.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
    sizes = sorted({round(x) for x in points["tracks"]})
    axis.set_xscale("log")
    axis.set_xticks(sizes, map(str, sizes), minor=False)
    axis.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    unit = "artists" if set(points["interval_over"]) == {"group"} else "tracks"
    shade = f"; shaded: deviation over {points['draws'].max()} draws" if several else ""
    axis.set(
        xlabel="training tracks a genre (logarithmic)",
        ylabel=f"accuracy (share of {points['n_tracks'].iloc[0]} test tracks)\nbars: 95 % over {unit}{shade}",
        ylim=(0, 1),
    )
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    files.write_figure(figure, folder / "curve.png", dpi=120)
    files.write_figure(figure, folder / "curve.svg")
    plt.close(figure)
