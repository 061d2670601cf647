"""Evaluate trained runs on altered test tracks: noise, mp3, limited bandwidth, ten seconds only.

The models of a run are loaded, not trained again: the model of each fold predicts its own test tracks,
unaltered and altered. Embeddings of altered clips are cached like any others, so an interrupted call resumes.
"""

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from soundfile import SoundFileError

from mgc import data
from mgc.audio.effects import EFFECTS, Alteration
from mgc.config import CompareRecipe, DataRecipe, Device, RobustRecipe
from mgc.data import Dataset, Track
from mgc.data.loading import limit_tracks
from mgc.evaluate import Outcomes, Predictions, compare, evaluate, unit_numbers
from mgc.experiments import differences
from mgc.predict.models import RunModels, load_models
from mgc.representations import Representation
from mgc.representations.cache.embed import embed_tracks
from mgc.representations.cache.embeddings import EmbeddingCache, library_versions
from mgc.representations.derived import altered
from mgc.runs import find_run
from mgc.runs.record import RunRecord, select_records
from mgc.runs.tables import compare_records
from mgc.util import files
from mgc.util.errors import MgcError, did_you_mean, explaining
from mgc.util.progress import Progress, say
from mgc.util.text import markdown_table, text_table
from mgc.util.workers import cores
from mgc.workspace import Workspace

BATCH_SECONDS = 45 * 60.0  # of altered audio on disk at a time: 480 MB, or one clip if that is longer
MAX_CHANGED = 0.02  # share of unaltered tracks that the loaded models may predict differently from the record


def robust(recipe: RobustRecipe, workspace: Workspace) -> pd.DataFrame:
    """Evaluate every run on its test tracks, unaltered and under every alteration.

    Returns a row for each run and alteration, with the columns of `robust.csv`: accuracies are in 0..1, and
    `difference` is the change against the unaltered tracks. In further rows, it is the change of a system
    minus that of the system `versus`. All comparisons are one family. The results are also written to
    `robust.csv`, `.md`, `.png` and `.svg` in `results/<dataset>/`.

    Raises:
        MgcError: no such run or alteration, a run without models, runs on different tracks, tracks other than
            those of the runs, or models whose predictions of unaltered tracks differ from the record.
    """
    alterations = _alterations(recipe)
    named = [find_run(word, workspace).require_record() for word in dict.fromkeys(recipe.runs)]
    records = named or _best(recipe, workspace)
    runs = [_load_once(load_models(record, workspace, device=recipe.device)) for record in records]
    dataset = _dataset_of(records, recipe, workspace)
    tested = [dataset.by_id[track_id] for track_id in records[0].predictions().track_ids]
    tracks = limit_tracks(tested, DataRecipe(limit=recipe.limit))
    clean = [_unaltered(run, dataset, tracks, recipe.device) for run in runs]
    under: list[list[Predictions]] = [[] for _ in runs]  # of each run, one for each alteration
    for number, alteration in enumerate(alterations, start=1):
        say(f"robust: {alteration.label} ({number} of {len(alterations)})")
        plain = [run.representation for run in runs]
        representations = [replace(altered(one, alteration), load=one.load) for one in plain]
        _embed_altered(alteration, representations, tracks, recipe.device, workspace)
        for own, run, representation, unaltered in zip(under, runs, representations, clean, strict=True):
            own.append(_predict(run, representation, dataset, unaltered))
    conditions = [[unaltered, *own] for unaltered, own in zip(clean, under, strict=True)]
    results = pd.DataFrame(_rows(records, [None, *alterations], conditions, recipe.margin))
    folder = records[0].folder.parent
    for form, suffix in (("csv", "csv"), ("markdown", "md")):
        files.write(folder / f"robust.{suffix}", format_results(results, form) + "\n")
    _plot(results, folder)
    return results


def _rows(
    records: Sequence[RunRecord],
    alterations: Sequence[Alteration | None],
    under: Sequence[Sequence[Predictions]],
    margin: float,
) -> Iterator[dict[str, Any]]:
    """The rows of the results, from the predictions of each run `under` each of `alterations`, first None."""
    runs, size = range(len(records)), len(alterations)
    changes = {(run, run, k): {size * run + k: 1, size * run: -1} for run in runs for k in range(1, size)}
    contrasts = changes | {
        (a, b, k): changes[a, a, k] | {system: -sign for system, sign in changes[b, b, k].items()}
        for a, b in combinations(runs, 2)
        for k in range(1, size)
    }
    systems = [Outcomes.of([predictions]) for own in under for predictions in own]
    found = compare(systems, [*contrasts.values()], unit_numbers(under[0][0]))
    compared = dict(zip(contrasts, found, strict=True))
    titles = [record.title for record in records]
    names = [one.title if titles.count(one.title) == 1 else one.run_id for one in records]
    order = [(run, run, k) for run in runs for k in range(size)]
    for a, b, k in order + [key for key in contrasts if key not in changes]:
        scores, alteration = evaluate(under[a][k]), alterations[k]
        yield {
            "system": names[a],
            "run_id": records[a].run_id,
            "versus": names[b] if a != b else "",
            "data": records[a].data,
            "split": records[a].split,
            "effect": alteration.effect if alteration else "none",
            "strength": alteration.strength if alteration else "",
            "alteration": alteration.label if alteration else "unaltered",
            **(differences.columns(compared[a, b, k], margin) if alteration else {"verdict": None}),
            "n_tracks": scores.n_tracks,
            "majority": max(row.support for row in scores.per_class) / scores.n_tracks,
            "accuracy": scores.accuracy,
            "accuracy_low": scores.accuracy_low,
            "accuracy_high": scores.accuracy_high,
            "interval_over": f"{scores.interval_unit}s",
        }


def _alterations(recipe: RobustRecipe) -> list[Alteration]:
    """Those that the recipe asks for, by effect, from weak to strong."""
    for word in recipe.only:
        if "=" not in word and word not in EFFECTS:
            raise MgcError(f"unknown alteration {word!r}", where="--only", fix=did_you_mean(word, EFFECTS))
    named = [word for word in recipe.only if "=" in word]
    known = dict.fromkeys(map(Alteration.parse, (*recipe.alterations, *named)))
    chosen = [one for one in known if not recipe.only or {one.effect, one.text} & {*recipe.only}]
    if not chosen:
        raise MgcError(f"no alteration is left by {', '.join(recipe.only)}", where="--only")
    order = [*EFFECTS]
    return sorted(chosen, key=lambda one: (order.index(one.effect), EFFECTS[one.effect].stronger * one.value))


def _best(recipe: RobustRecipe, workspace: Workspace) -> list[RunRecord]:
    """The best network and the best probe among the runs on most tracks."""
    rows = compare_records(select_records(CompareRecipe(data=recipe.data), workspace))[0].rows
    ranked = sorted(rows, key=lambda row: row.system.scores.accuracy)
    records = [row.system.record for row in ranked]
    best = {one.kind: one for one in records if one.kind != "floor" and not one.leaky}
    if not best:
        what = "all runs on this dataset are floors or use a leaky split, which are not chosen automatically"
        fix = "run mgc baseline and mgc probe on a split without a leak, or name the runs"
        raise MgcError(what, fix=fix)
    return [best[kind] for kind in sorted(best)]


def _dataset_of(records: Sequence[RunRecord], recipe: RobustRecipe, workspace: Workspace) -> Dataset:
    """The tracks of the runs: by their own recipe, with what `recipe.data` sets now."""
    first = records[0]
    for other in records[1:]:
        if other.data_hash != first.data_hash:
            what = f"{first.run_id} and {other.run_id} are runs on different tracks"
            raise MgcError(what, fix="call mgc robust once for each of them")
    known = {key: value for key, value in first.recipe["data"].items() if key in DataRecipe.model_fields}
    changes = recipe.data.model_dump(exclude_unset=True)
    if changes.get("source") == first.data:  # the name of the results folder does not locate the tracks
        del changes["source"]
    dataset = data.load(DataRecipe.model_validate(known | changes), workspace)
    if dataset.hash != first.data_hash:
        fix = "use the --data and the quarantine of that run, or run its command again"
        raise MgcError(f"the tracks are not those of {first.run_id}", where=dataset.name, fix=fix)
    return dataset


def _load_once(run: RunModels) -> RunModels:
    """The same models, with an encoder that is loaded once for all alterations."""
    plain = run.representation
    return replace(run, representation=replace(plain, load=cache(plain.load)))


def _unaltered(run: RunModels, dataset: Dataset, tracks: Sequence[Track], device: Device) -> Predictions:
    """Predictions of the unaltered tracks, which must be those of the record.

    Otherwise an encoder with other weights or input would pass for one that is not robust.
    """
    frame, ids = run.record.predictions().to_frame(), [track.track_id for track in tracks]
    recorded = Predictions.from_frame(frame[frame["track_id"].isin(ids)])
    recorded.check_covers(ids)
    embed_tracks(tracks, run.representation, run.workspace, device)
    predictions = _predict(run, run.representation, dataset, recorded)
    changed = float((predictions.predicted != recorded.predicted).mean())
    if changed > MAX_CHANGED:
        share = f"{100 * changed:.0f} % of the unaltered tracks"
        what = f"the models of the run predict {share} differently from the record"
        fix = "weights or code have changed since: run its command again"
        raise MgcError(what, where=run.record.folder, fix=fix)
    return predictions


def _predict(run: RunModels, card: Representation, dataset: Dataset, recorded: Predictions) -> Predictions:
    """As `recorded`, predicted by each fold's model for its own test tracks, from cached embeddings."""
    store = EmbeddingCache(card, run.workspace.cache)
    probabilities = np.zeros_like(recorded.probabilities)  # (N, C)
    for number in np.unique(recorded.fold):
        rows = np.flatnonzero(recorded.fold == number)
        arrays = [store.read(dataset.by_id[recorded.track_ids[row]].content) for row in rows]
        probabilities[rows] = run.folds[number].probabilities(arrays)
    return replace(recorded, probabilities=probabilities)


def _embed_altered(
    alteration: Alteration,
    representations: Sequence[Representation],
    tracks: Sequence[Track],
    device: Device,
    workspace: Workspace,
) -> None:
    """Cache the embeddings of altered clips; each clip is altered once for all representations."""
    contents = {track.content for track in tracks}
    stores = [EmbeddingCache(representation, workspace.cache) for representation in representations]
    missing = set[str]().union(*(store.missing(contents) for store in stores))
    if missing and any(store.libraries() and library_versions() not in store.libraries() for store in stores):
        missing = contents  # cached clips are needed too, to compare library versions
    todo = [track for track in tracks if track.content in missing]
    batches = np.cumsum([track.seconds for track in todo]) // BATCH_SECONDS
    for number in np.unique(batches):
        batch = [track for track, own in zip(todo, batches, strict=True) if own == number]
        with altered_files(alteration, batch) as altered_tracks:
            for representation in representations:
                embed_tracks(altered_tracks, representation, workspace, device)


@contextmanager
def altered_files(alteration: Alteration, tracks: Sequence[Track]) -> Iterator[list[Track]]:
    """The same tracks with paths of altered clips, in a folder that is removed at the end of the context."""
    with tempfile.TemporaryDirectory(prefix="mgc-altered-") as folder:
        targets = [Path(folder) / f"{number}.caf" for number in range(len(tracks))]
        sources, contents = [track.path for track in tracks], [track.content for track in tracks]
        what, fix = "altered clips cannot be written", "free some space, or set $TMPDIR to another folder"
        with (
            explaining(what, folder, fix, (SoundFileError,)),
            Progress(f"alter: {alteration.label}", len(tracks), "clips") as progress,
            ThreadPoolExecutor(cores()) as pool,
        ):
            try:
                for _ in pool.map(alteration.write, sources, contents, targets):
                    progress.step()
            finally:
                pool.shutdown(cancel_futures=True)
        yield [replace(track, path=file) for track, file in zip(tracks, targets, strict=True)]


# ---- tables and figures


def format_results(results: pd.DataFrame, form: str) -> str:
    """The results of `robust` as "table", "markdown" or "csv"."""
    if form == "csv":
        return results.to_csv(index=False).rstrip()
    runs = results[results["versus"] == ""]
    pairs = [own for _, own in results.drop(runs.index).groupby(["system", "versus"], sort=False)]
    rows = []
    for one in runs.to_dict("records"):
        accuracy = f"{one['accuracy']:.3f} [{one['accuracy_low']:.3f}, {one['accuracy_high']:.3f}]"
        rows.append([one["system"], one["alteration"], accuracy, *differences.cells(one)])
    header = ["system", "test tracks", "accuracy [95 %]", "against unaltered [95 %]", "p", "verdict"]
    table = markdown_table if form == "markdown" else text_table
    parts = [table(header, rows), ""]
    for own in pairs:
        title = "change of {system} minus change of {versus} [95 %]".format(**own.iloc[0])
        rows = [[one["alteration"], *differences.cells(one)] for one in own.to_dict("records")]
        parts += [table(["test tracks", title, "p", "verdict"], rows), ""]
    first = results.iloc[-1]
    parts += [
        f"{first['data']}, {first['n_tracks']} test tracks, split {first['split']}. The models were trained "
        "on unaltered tracks. The results are about these trained models; other training seeds may differ.",
        "Noise: white, up to 22 kHz, its level relative to that of the whole clip. Gain: clipped at full "
        "scale. mp3: LAME, constant bitrate, mono. Filters: Butterworth, 48 dB per octave.",
        differences.note(results.dropna(subset="verdict"), first["interval_over"]),
        "",
    ]
    costs = [_cost(own) for _, own in runs.groupby("run_id", sort=False)]
    lines = costs + [_interaction(own) for own in pairs]
    return "\n".join(parts + [f"- {line}" if form == "markdown" else line for line in lines])


def _cost(results: pd.DataFrame) -> str:
    """What each alteration costs a system."""
    unaltered, others = results.iloc[0], results.iloc[1:]
    worst = others.sort_values("difference").iloc[0]
    chance = unaltered["accuracy_low"] <= unaltered["majority"]
    return (
        f"{unaltered['system']}: {unaltered['accuracy']:.3f} unaltered"
        f"{' (not shown to beat the most common genre)' if chance else ''}; lowest under "
        f"{worst['alteration']} ({worst['accuracy']:.3f}). Changes in points: "
        + differences.by_verdict(others, "alteration", "under")
    )


def _interaction(results: pd.DataFrame) -> str:
    """Which alterations cost one system more than the other."""
    one, other = results.iloc[0][["system", "versus"]]
    words = {"worse": f"{one} loses more", "better": f"{other} loses more"}
    found = differences.by_verdict(results, "alteration", "under", **words)
    return f"Change of {one} minus change of {other}, in points: {found}"


def _plot(rows: pd.DataFrame, folder: Path) -> None:
    """One panel per effect: accuracy on unaltered and on increasingly altered tracks, one line per system."""
    from matplotlib.figure import Figure

    rows = rows[rows["versus"] == ""]
    effects = {str(name): own["strength"].unique() for name, own in rows.groupby("effect", sort=False)}
    del effects["none"]
    widths = [1.5 + len(strengths) for strengths in effects.values()]
    figure = Figure(figsize=(max(5.0, 0.62 * sum(widths)), 4.2), layout="constrained")
    [axes] = figure.subplots(1, len(effects), sharey=True, squeeze=False, width_ratios=widths)
    systems = rows.groupby("run_id", sort=False)
    for axis, (name, strengths) in zip(axes, effects.items(), strict=True):
        effect, crop = EFFECTS[name], name == "crop"
        for number, (_, own) in enumerate(systems):
            line = own[own["effect"].isin(["none", name])]
            bars = [line["accuracy"] - line["accuracy_low"], line["accuracy_high"] - line["accuracy"]]
            x = np.arange(len(line)) + 0.14 * (number - (len(systems) - 1) / 2)
            axis.axhline(line["accuracy"].iloc[0], color=f"C{number}", lw=0.8, ls=":", alpha=0.7)
            axis.errorbar(
                x, line["accuracy"], bars, color=f"C{number}", marker="o", ms=4, lw=1.2, capsize=2,
                ls="none" if name in ("gain", "crop") else "-",  # values that are not ordered by strength
                label=files.as_label(own["system"].iloc[0]) if axis is axes[0] else None,
            )  # fmt: skip
        axis.set_xticks(range(1 + len(strengths)), ["unaltered", *strengths], rotation=45)
        axis.set_title(f"{effect.title} ... {effect.unit}" if crop else effect.title, fontsize=10)
        axis.set(xlabel="" if crop else effect.unit, ylim=(0, 1))
        axis.grid(axis="y", alpha=0.3)
    unit = rows["interval_over"].iloc[0]
    axes[0].set_ylabel(f"accuracy on altered test tracks\n(share; bars: 95 % over {unit})")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    for suffix in ("png", "svg"):
        files.write_figure(figure, folder / f"robust.{suffix}", dpi=120)
