"""How much of what a run knows is left when its test tracks are altered: noise, mp3, bandwidth, ten seconds.

The models are those of the run, loaded and not trained again: each fold's model hears the fold's own test
tracks, as they are and altered. Vectors of altered clips go to the store under a fingerprint of their own, so
nothing is computed twice and an interrupted call goes on.
"""

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from soundfile import SoundFileError

from mgc import data
from mgc.config import CompareRecipe, DataRecipe, RobustRecipe
from mgc.data import Dataset, Track
from mgc.data.loading import limit_tracks
from mgc.evaluate import Difference, Predictions, Scores, evaluate, holm, paired
from mgc.predict.models import RunModels, load_models
from mgc.representations import Representation
from mgc.representations.altered import EFFECTS, Alteration, altered, parsed
from mgc.representations.cache.embed import embed_tracks
from mgc.representations.cache.store import Store
from mgc.runs import find_run
from mgc.runs.record import RunRecord, select_records
from mgc.runs.tables import compare_records
from mgc.util import files
from mgc.util.errors import MgcError, did_you_mean
from mgc.util.progress import Progress, say
from mgc.util.workers import cores
from mgc.workspace import Workspace

FORMATS = ("table", "markdown", "csv")
SECONDS_AT_ONCE = 45 * 60.0  # of altered audio on disk: 480 MB, or one clip if that is longer
CHANGED_DECISIONS = 0.02  # share, on tracks as they are, from which the models are not those of the record


@dataclass(frozen=True)
class Heard:
    """What is left of a run's accuracy under one alteration; `alteration` None: its tracks as they are.

    `versus`: against the tracks as they are; its p-value is for all alterations of the run together (Holm).
    """

    record: RunRecord
    title: str
    alteration: Alteration | None
    scores: Scores
    versus: Difference | None = None


@dataclass(frozen=True)
class _System:
    """A run with its models, and what it said of the tracks that are judged."""

    models: RunModels
    card: Representation  # of tracks as they are; its encoder is loaded once for all
    said: Predictions

    @property
    def title(self) -> str:
        return " + ".join(word for word in (self.models.record.display_name, self.models.record.head) if word)

    def judged(self, card: Representation, dataset: Dataset) -> Predictions:
        """What each fold's model says of its own test tracks, as the store holds them under `card`."""
        store, said = Store(card, self.models.workspace.cache), self.said
        probabilities = np.zeros_like(said.probabilities)
        for number in np.unique(said.fold):
            places = np.flatnonzero(said.fold == number)
            arrays = [store.read(dataset.by_id[said.track_ids[place]].content) for place in places]
            probabilities[places] = self.models.folds[number].probabilities(arrays)
        return replace(said, probabilities=probabilities)


def robust(recipe: RobustRecipe, workspace: Workspace) -> list[Heard]:
    """Judge every run on its test tracks as they are and under every alteration.

    `results/<data>/robust.csv`, `.md`, `.png` and `.svg` show the last call.

    Raises:
        MgcError: no such run or alteration, a run without its models, runs on different tracks, tracks that
            are not those of the runs, or models that do not say on tracks as they are what the record says.
    """
    alterations = _alterations(recipe)
    records = [_record_of(word, workspace) for word in dict.fromkeys(recipe.runs)] or _best(recipe, workspace)
    every = [
        load_models(record, workspace, recipe.trust_remote_code, device=recipe.device) for record in records
    ]
    dataset = _tracks_of(records, recipe, workspace)
    tested = [dataset.by_id[track_id] for track_id in records[0].predictions().track_ids]
    tracks = limit_tracks(tested, DataRecipe(limit=recipe.limit))
    systems = [_system(models, tracks) for models in every]
    clean = [_clean(system, dataset, tracks, recipe) for system in systems]
    altered_ones: list[list[Predictions]] = [[] for _ in systems]
    for number, alteration in enumerate(alterations, start=1):
        say(f"robust: {alteration.label} ({number} of {len(alterations)})")
        cards = [replace(altered(system.card, alteration), load=system.card.load) for system in systems]
        _embed(cards, alteration, dataset, tracks, recipe, workspace)
        for predictions, system, card in zip(altered_ones, systems, cards, strict=True):
            predictions.append(system.judged(card, dataset))
    heard: list[Heard] = []
    for system, whole, those in zip(systems, clean, altered_ones, strict=True):
        record, title = system.models.record, system.title
        versus = [paired([predictions], [whole]) for predictions in those]
        together = holm([one.p_value for one in versus])
        heard.append(Heard(record, title, None, evaluate(whole)))
        for alteration, said, one, p in zip(alterations, those, versus, together, strict=True):
            heard.append(Heard(record, title, alteration, evaluate(said), replace(one, p_value=p)))
    write(heard, workspace.results_of(records[0].data))
    return heard


def _alterations(recipe: RobustRecipe) -> list[Alteration]:
    everything = dict.fromkeys(parsed(text) for text in recipe.alterations)
    for word in recipe.only:
        if "=" in word:
            everything[parsed(word)] = None
        elif word not in EFFECTS:
            raise MgcError(
                f"there is no alteration {word!r}", where="--only", fix=did_you_mean(word, EFFECTS)
            )
    chosen = [one for one in everything if not recipe.only or {one.effect, one.text} & {*recipe.only}]
    # By effect in the order of the table, from weak to strong.
    effects = [*EFFECTS]
    return sorted(chosen, key=lambda one: (effects.index(one.effect), EFFECTS[one.effect].rising * one.value))


def _record_of(word: str, workspace: Workspace) -> RunRecord:
    run = find_run(word, workspace)
    if run.record is None:
        raise MgcError(f"the run {word!r} is {run.state}: {run.why}", where=run.folder, fix="run it again")
    return run.record


def _best(recipe: RobustRecipe, workspace: Workspace) -> list[RunRecord]:
    """The best network and the best probe among the runs on most tracks."""
    rows = compare_records(select_records(CompareRecipe(data=recipe.data), workspace))[0].rows
    best: dict[str, RunRecord] = {}
    for row in sorted(rows, key=lambda row: row.system.scores.accuracy):
        record = row.system.record
        if record.kind != "floor" and not record.leaky:
            best[record.kind] = record
    if not best:
        what = "there are only floors, or runs on a split that leaks, which are not compared by themselves"
        raise MgcError(what, fix="run mgc baseline and mgc probe on an honest split, or name the runs")
    return [best[path] for path in sorted(best)]


def _tracks_of(records: Sequence[RunRecord], recipe: RobustRecipe, workspace: Workspace) -> Dataset:
    """The tracks of the runs: by their own recipe, with what was asked for now about where they lie."""
    first = records[0]
    for other in records[1:]:
        if other.data_hash != first.data_hash:
            what = f"{first.run_id} and {other.run_id} are runs on different tracks"
            raise MgcError(what, fix="call mgc robust for each of them")
    known = {key: value for key, value in first.recipe["data"].items() if key in DataRecipe.model_fields}
    asked = recipe.data.model_dump(exclude_unset=True)
    if asked.get("source") == first.data:  # the name of the results says nothing about where the tracks lie
        del asked["source"]
    dataset = data.load(DataRecipe.model_validate(known | asked), workspace)
    if dataset.hash != first.data_hash:
        fix = "give the same --data and quarantine as then, or run it again on these"
        raise MgcError(f"these are not the tracks of {first.run_id}", where=dataset.name, fix=fix)
    return dataset


def _system(models: RunModels, tracks: Sequence[Track]) -> _System:
    frame = models.record.predictions().to_frame()
    said = Predictions.from_frame(frame[frame["track_id"].isin([track.track_id for track in tracks])])
    said.check_covers(track.track_id for track in tracks)
    plain = models.representation
    return _System(models, replace(plain, load=cache(plain.load)), said)


def _clean(system: _System, dataset: Dataset, tracks: Sequence[Track], recipe: RobustRecipe) -> Predictions:
    """What the models say of tracks as they are; an encoder fed otherwise than then shall not pass for one
    that cannot stand noise."""
    embed_tracks(dataset, system.card, system.models.workspace, recipe.device, tracks=tracks)
    clean = system.judged(system.card, dataset)
    changed = float((clean.predicted != system.said.predicted).mean())
    if changed > CHANGED_DECISIONS:
        raise MgcError(
            f"the run's models now say something else of {100 * changed:.0f} % of the tracks as they are",
            where=system.models.record.folder,
            fix="weights or code have changed since: run it again",
        )
    return clean


def _embed(
    cards: Sequence[Representation],
    alteration: Alteration,
    dataset: Dataset,
    tracks: Sequence[Track],
    recipe: RobustRecipe,
    workspace: Workspace,
) -> None:
    """Altered clips that the store lacks under any of `cards` are written once for all, some at a time."""
    contents = [track.content for track in tracks]
    missing = set[str]().union(*(Store(card, workspace.cache).missing(contents) for card in cards))
    todo = [track for track in tracks if track.content in missing]
    ends = np.cumsum([track.seconds for track in todo])
    for part in np.unique(ends // SECONDS_AT_ONCE):
        chosen = [track for track, end in zip(todo, ends, strict=True) if end // SECONDS_AT_ONCE == part]
        with _written(alteration, chosen) as heard:
            for card in cards:
                embed_tracks(dataset, card, workspace, recipe.device, tracks=heard)


@contextmanager
def _written(alteration: Alteration, tracks: Sequence[Track]) -> Iterator[list[Track]]:
    """The same tracks with the paths of altered clips, which are gone behind the context."""
    with tempfile.TemporaryDirectory(prefix="mgc-altered-") as folder:
        files = [Path(folder) / f"{number}.caf" for number in range(len(tracks))]
        pool = ThreadPoolExecutor(cores())
        try:
            with Progress(f"alter: {alteration.label}", len(tracks), "clips") as progress:
                sources, contents = [t.path for t in tracks], [t.content for t in tracks]
                for _ in pool.map(alteration.write, sources, contents, files):
                    progress.step()
        except SoundFileError as error:
            fix = "make room, or name another folder with $TMPDIR"
            raise MgcError(f"altered clips cannot be written: {error}", where=folder, fix=fix) from None
        finally:
            pool.shutdown(cancel_futures=True)
        yield [replace(track, path=file) for track, file in zip(tracks, files, strict=True)]


# ---- what is told


def table(heard: Sequence[Heard]) -> pd.DataFrame:
    """A row a run and alteration, the columns of robust.csv; shares of tracks in 0..1."""
    rows = []
    for one in heard:
        v = one.versus
        rows.append(
            {
                "system": one.title,
                "run_id": one.record.run_id,
                "effect": one.alteration.effect if one.alteration else "none",
                "strength": one.alteration.strength if one.alteration else "",
                "alteration": one.alteration.label if one.alteration else "as it is",
                "n_tracks": one.scores.n_tracks,
                "accuracy": one.scores.accuracy,
                "accuracy_low": one.scores.accuracy_low,
                "accuracy_high": one.scores.accuracy_high,
                "change": v.accuracy_difference if v else None,
                "change_low": v.low if v else None,
                "change_high": v.high if v else None,
                "p_holm": v.p_value if v else None,
                "verdict": v.verdict if v else None,
                "interval_over": one.scores.interval_unit,
            }
        )
    return pd.DataFrame(rows)


def render(heard: Sequence[Heard], form: str) -> str:
    """The table in one of FORMATS."""
    if form == "csv":
        return table(heard).to_csv(index=False).rstrip()
    grid = [["system", "test tracks", "accuracy [95 %]", "against as they are [95 %]", "p (Holm)"]]
    for one in heard:
        s, v = one.scores, one.versus
        grid.append(
            [
                one.title,
                one.alteration.label if one.alteration else "as they are",
                f"{s.accuracy:.3f} [{s.accuracy_low:.3f}, {s.accuracy_high:.3f}]",
                f"{v.accuracy_difference:+.3f} [{v.low:+.3f}, {v.high:+.3f}]" if v else "",
                ("<0.001" if v.p_value < 0.001 else f"{v.p_value:.3f}") if v else "",
            ]
        )
    if form == "markdown":
        grid.insert(1, ["---"] * len(grid[0]))
        lines = [f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in grid]
        return "\n".join([*lines, "", *caption(heard), "", *(f"- {line}" for line in sentences(heard))])
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in grid]
    return "\n".join([*lines, "", *caption(heard), *sentences(heard)])


def caption(heard: Sequence[Heard]) -> list[str]:
    """What must be known to read the rows."""
    record, scores = heard[0].record, heard[0].scores
    unit = "artists" if scores.interval_unit == "group" else "tracks"
    return [
        f"{record.data}, {scores.n_tracks} test tracks, split {record.split}. The models learned from "
        "unaltered tracks and were not trained again.",
        "Noise: white, up to 22 kHz, its level relative to that of the whole clip. Gain: cut off at full "
        "scale. mp3: LAME, constant bitrate, mono. Filters: Butterworth, 48 dB an octave.",
        f"Intervals: 95 % bootstrap over {scores.n_groups} {unit}, paired for the differences. p: exact "
        "McNemar against the tracks as they are, by Holm for all alterations of a system together.",
    ]


def sentences(heard: Sequence[Heard]) -> list[str]:
    """One for each system: what harms it most, what is shown to harm it, what is not."""
    by_run: dict[str, list[Heard]] = defaultdict(list)
    for one in heard:
        by_run[one.record.run_id].append(one)
    told = []
    for clean, *rows in by_run.values():
        pairs = [(one.versus, one.alteration.label) for one in rows if one.versus and one.alteration]
        if not pairs:
            continue
        worst, label = min(pairs, key=lambda pair: pair[0].accuracy_difference)
        lost = [name for v, name in pairs if v.verdict == "worse"]
        kept = [name for v, name in pairs if v.verdict != "worse"]
        commonest = max(row.support for row in clean.scores.per_class) / clean.scores.n_tracks
        chance = " (not shown to beat the commonest genre: nothing to lose)"
        points = ", ".join(f"{100 * x:+.1f}" for x in (worst.low, worst.high))
        told.append(
            f"{clean.title}: {clean.scores.accuracy:.3f} as the tracks are"
            f"{chance if clean.scores.accuracy_low <= commonest else ''}; lowest under {label} "
            f"({100 * worst.accuracy_difference:+.1f} points [{points}]). "
            f"Worse under: {', '.join(lost) or 'none'}. No loss shown under: {', '.join(kept) or 'none'}."
        )
    return told


def write(heard: Sequence[Heard], folder: Path) -> None:
    """robust.csv, .md, .png and .svg."""
    files.write(folder / "robust.csv", render(heard, "csv") + "\n")
    files.write(folder / "robust.md", render(heard, "markdown") + "\n")
    _draw(table(heard), folder)


def _draw(rows: pd.DataFrame, folder: Path) -> None:
    """A panel an effect: accuracy from tracks as they are to the strongest alteration, a line a system."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    effects = [name for name in EFFECTS if name in set(rows["effect"])]
    strengths = {name: [*dict.fromkeys(rows.loc[rows["effect"] == name, "strength"])] for name in effects}
    widths = [1.5 + len(strengths[name]) for name in effects]
    figure, axes = plt.subplots(
        1, max(1, len(effects)), figsize=(max(5.0, 0.62 * sum(widths)), 4.2), sharey=True, squeeze=False,
        layout="constrained", width_ratios=widths or None,
    )  # fmt: skip
    systems = [*dict.fromkeys(zip(rows["run_id"], rows["system"], strict=True))]
    for axis, name in zip(axes[0], effects, strict=False):
        for number, (run_id, title) in enumerate(systems):
            own = rows[rows["run_id"] == run_id].set_index("strength")
            line = own[own["effect"].isin(["none", name])].loc[["", *strengths[name]]]
            bars = [line["accuracy"] - line["accuracy_low"], line["accuracy_high"] - line["accuracy"]]
            places = np.arange(len(line)) + 0.14 * (number - (len(systems) - 1) / 2)
            colour = f"C{number}"
            axis.axhline(line["accuracy"].iloc[0], color=colour, lw=0.8, ls=":", alpha=0.7)
            style = "none" if name in ("gain", "crop") else "-"  # which are in no order of strength
            axis.errorbar(
                places, line["accuracy"], bars, color=colour, marker="o", ms=4, lw=1.2, ls=style, capsize=2,
                label=files.as_label(title) if axis is axes[0][0] else None,
            )  # fmt: skip
        effect = EFFECTS[name]
        axis.set_xticks(range(1 + len(strengths[name])), ["as it is", *strengths[name]], rotation=45)
        axis.set_title(effect.title if name != "crop" else f"{effect.title} ... {effect.unit}", fontsize=10)
        axis.set_xlabel(effect.unit if name != "crop" else "")
        axis.grid(axis="y", alpha=0.3)
        axis.set_ylim(0, 1)
    unit = "artists" if set(rows["interval_over"]) == {"group"} else "tracks"
    axes[0][0].set_ylabel(f"accuracy on altered test tracks\n(share; bars: 95 % over {unit})")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    files.write_figure(figure, folder / "robust.png", dpi=120)
    files.write_figure(figure, folder / "robust.svg")
    plt.close(figure)
