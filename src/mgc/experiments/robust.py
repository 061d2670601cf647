"""Evaluate trained runs on altered test tracks: noise, mp3, limit_tracks bandwidth, ten seconds only.

The models of a run are loaded, not trained again: the model of each fold predicts its own test tracks,
unaltered and altered. Embeddings of altered clips are cached like any others, so an interrupted call resumes.
"""

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
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
from mgc.evaluate import Difference, Predictions, evaluate, holm, paired
from mgc.predict.models import RunModels, load_models
from mgc.representations import Representation
from mgc.representations.cache.embed import embed_tracks
from mgc.representations.cache.embeddings import EmbeddingCache, library_versions
from mgc.representations.derived import altered
from mgc.runs import find_run
from mgc.runs.record import RunRecord, select_records
from mgc.runs.tables import compare_records
from mgc.util import files
from mgc.util.errors import MgcError, did_you_mean
from mgc.util.progress import Progress, say
from mgc.util.text import markdown_table, text_table
from mgc.util.workers import cores
from mgc.workspace import Workspace

BATCH_SECONDS = 45 * 60.0  # of altered audio on disk at a time: 480 MB, or one clip if that is longer
MAX_CHANGED = 0.02  # share of unaltered tracks that the loaded models may predict differently from the record


@dataclass(frozen=True)
class _System:
    """A run with its models; `recorded` are its predictions of the tracks that are evaluated."""

    models: RunModels
    representation: Representation  # of unaltered tracks; its encoder is loaded once for all alterations
    recorded: Predictions

    def predict(self, representation: Representation, dataset: Dataset) -> Predictions:
        """The predictions of each fold's model for its own test tracks, from cached embeddings."""
        store = EmbeddingCache(representation, self.models.workspace.cache)
        probabilities = np.zeros_like(self.recorded.probabilities)  # (N, C)
        for number in np.unique(self.recorded.fold):
            rows = np.flatnonzero(self.recorded.fold == number)
            arrays = [store.read(dataset.by_id[self.recorded.track_ids[row]].content) for row in rows]
            probabilities[rows] = self.models.folds[number].probabilities(arrays)
        return replace(self.recorded, probabilities=probabilities)


def robust(recipe: RobustRecipe, workspace: Workspace) -> pd.DataFrame:
    """Evaluate every run on its test tracks, unaltered and under every alteration.

    Returns a row for each run and alteration, with the columns of `robust.csv`; accuracies are in 0..1, and
    `change` compares with the unaltered tracks. The results are also written to `robust.csv`, `.md`, `.png`
    and `.svg` in `results/<dataset>/`.

    Raises:
        MgcError: no such run or alteration, a run without models, runs on different tracks, tracks other than
            those of the runs, or models whose predictions of unaltered tracks differ from the record.
    """
    alterations = _alterations(recipe)
    named = [find_run(word, workspace).require_record() for word in dict.fromkeys(recipe.runs)]
    records = named or _best(recipe, workspace)
    every = [
        load_models(record, workspace, recipe.trust_remote_code, device=recipe.device) for record in records
    ]
    dataset = _dataset_of(records, recipe, workspace)
    tested = [dataset.by_id[track_id] for track_id in records[0].predictions().track_ids]
    tracks = limit_tracks(tested, DataRecipe(limit=recipe.limit))
    systems = [_system(models, tracks) for models in every]
    clean = [_predict_unaltered(system, dataset, tracks, recipe.device) for system in systems]
    under: list[list[Predictions]] = [[] for _ in systems]  # of each system, one for each alteration
    for number, alteration in enumerate(alterations, start=1):
        say(f"robust: {alteration.label} ({number} of {len(alterations)})")
        representations = [
            replace(altered(system.representation, alteration), load=system.representation.load)
            for system in systems
        ]
        _embed_altered(representations, alteration, tracks, recipe.device, workspace)
        for own, system, representation in zip(under, systems, representations, strict=True):
            own.append(system.predict(representation, dataset))
    rows = []
    for record, unaltered, predictions in zip(records, clean, under, strict=True):
        rows.append(_row(record, None, unaltered, None))
        differences = [paired([one], [unaltered]) for one in predictions]
        corrected = holm([difference.p_value for difference in differences])
        for alteration, one, difference, p in zip(
            alterations, predictions, differences, corrected, strict=True
        ):
            rows.append(_row(record, alteration, one, replace(difference, p_value=p)))
    results, folder = pd.DataFrame(rows), workspace.results_of(records[0].data)
    for form, suffix in (("csv", "csv"), ("markdown", "md")):
        files.write(folder / f"robust.{suffix}", format_results(results, form) + "\n")
    _plot(results, folder)
    return results


def _row(
    record: RunRecord, alteration: Alteration | None, predictions: Predictions, versus: Difference | None
) -> dict[str, Any]:
    scores = evaluate(predictions)
    return {
        "system": record.title,
        "run_id": record.run_id,
        "data": record.data,
        "split": record.split,
        "effect": alteration.effect if alteration else "none",
        "strength": alteration.strength if alteration else "",
        "alteration": alteration.label if alteration else "unaltered",
        "n_tracks": scores.n_tracks,
        "majority": max(row.support for row in scores.per_class) / scores.n_tracks,
        "accuracy": scores.accuracy,
        "accuracy_low": scores.accuracy_low,
        "accuracy_high": scores.accuracy_high,
        "change": versus.accuracy_difference if versus else None,
        "change_low": versus.low if versus else None,
        "change_high": versus.high if versus else None,
        "p_holm": versus.p_value if versus else None,
        "verdict": versus.verdict if versus else None,
        "interval_over": "artists" if scores.interval_unit == "group" else "tracks",
        "n_units": scores.n_groups,
    }


def _alterations(recipe: RobustRecipe) -> list[Alteration]:
    """Those that the recipe asks for, by effect, from weak to strong."""
    known = dict.fromkeys(Alteration.parse(text) for text in recipe.alterations)
    for word in recipe.only:
        if "=" in word:
            known[Alteration.parse(word)] = None
        elif word not in EFFECTS:
            raise MgcError(f"unknown alteration {word!r}", where="--only", fix=did_you_mean(word, EFFECTS))
    chosen = [one for one in known if not recipe.only or {one.effect, one.text} & {*recipe.only}]
    effects = [*EFFECTS]
    return sorted(
        chosen, key=lambda one: (effects.index(one.effect), EFFECTS[one.effect].stronger * one.value)
    )


def _best(recipe: RobustRecipe, workspace: Workspace) -> list[RunRecord]:
    """The best network and the best probe among the runs on most tracks."""
    rows = compare_records(select_records(CompareRecipe(data=recipe.data), workspace))[0].rows
    best: dict[str, RunRecord] = {}
    for row in sorted(rows, key=lambda row: row.system.scores.accuracy):
        record = row.system.record
        if record.kind != "floor" and not record.leaky:
            best[record.kind] = record
    if not best:
        raise MgcError(
            "all runs on this dataset are floors or use a leaky split, which are not chosen automatically",
            fix="run mgc baseline and mgc probe on a split without a leak, or name the runs",
        )
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
        raise MgcError(
            f"the tracks are not those of {first.run_id}",
            where=dataset.name,
            fix="use the --data and the quarantine of that run, or run its command again",
        )
    return dataset


def _system(models: RunModels, tracks: Sequence[Track]) -> _System:
    frame = models.record.predictions().to_frame()
    recorded = Predictions.from_frame(frame[frame["track_id"].isin([track.track_id for track in tracks])])
    recorded.check_covers(track.track_id for track in tracks)
    plain = models.representation
    return _System(models, replace(plain, load=cache(plain.load)), recorded)


def _predict_unaltered(
    system: _System, dataset: Dataset, tracks: Sequence[Track], device: Device
) -> Predictions:
    """Predictions of the unaltered tracks, which must be those of the record.

    Otherwise an encoder with other weights or input would pass for one that is not robust.
    """
    embed_tracks(tracks, system.representation, system.models.workspace, device)
    predictions = system.predict(system.representation, dataset)
    changed = float((predictions.predicted != system.recorded.predicted).mean())
    if changed > MAX_CHANGED:
        raise MgcError(
            f"the models of the run predict {100 * changed:.0f} % of the unaltered tracks differently from "
            "the record",
            where=system.models.record.folder,
            fix="weights or code have changed since: run its command again",
        )
    return predictions


def _embed_altered(
    representations: Sequence[Representation],
    alteration: Alteration,
    tracks: Sequence[Track],
    device: Device,
    workspace: Workspace,
) -> None:
    """Cache the embeddings of altered clips; each clip is altered once for all representations."""
    contents = [track.content for track in tracks]
    stores = [EmbeddingCache(representation, workspace.cache) for representation in representations]
    missing = set[str]().union(*(store.missing(contents) for store in stores))
    if missing and any(store.libraries() and library_versions() not in store.libraries() for store in stores):
        missing = set(contents)  # cached clips are needed too, to compare library versions
    todo = [track for track in tracks if track.content in missing]
    batches = np.cumsum([track.seconds for track in todo]) // BATCH_SECONDS
    for number in np.unique(batches):
        batch = [track for track, own in zip(todo, batches, strict=True) if own == number]
        with altered_files(alteration, batch) as altered_tracks:
            for representation in representations:
                embed_tracks(altered_tracks, representation, workspace, device)


@contextmanager
def altered_files(alteration: Alteration, tracks: Sequence[Track]) -> Iterator[list[Track]]:
    """The same tracks with paths of altered clips, in a folder that is removed at the end of the context.

    Raises:
        MgcError: a clip cannot be decoded, or the folder cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="mgc-altered-") as folder:
        targets = [Path(folder) / f"{number}.caf" for number in range(len(tracks))]
        pool = ThreadPoolExecutor(cores())
        try:
            with Progress(f"alter: {alteration.label}", len(tracks), "clips") as progress:
                sources, contents = [t.path for t in tracks], [t.content for t in tracks]
                for _ in pool.map(alteration.write, sources, contents, targets):
                    progress.step()
        except SoundFileError as error:
            fix = "free some space, or set $TMPDIR to another folder"
            raise MgcError(f"altered clips cannot be written: {error}", where=folder, fix=fix) from None
        finally:
            pool.shutdown(cancel_futures=True)
        yield [replace(track, path=file) for track, file in zip(tracks, targets, strict=True)]


# ---- tables and figures


def format_results(results: pd.DataFrame, form: str) -> str:
    """The results of `robust` as "table", "markdown" or "csv"."""
    if form == "csv":
        return results.to_csv(index=False).rstrip()
    header = ["system", "test tracks", "accuracy [95 %]", "against unaltered [95 %]", "p (Holm)"]
    rows = []
    for one in results.to_dict("records"):
        difference = p_value = ""
        if pd.notna(one["verdict"]):  # missing for the unaltered tracks
            difference = f"{one['change']:+.3f} [{one['change_low']:+.3f}, {one['change_high']:+.3f}]"
            p_value = "<0.001" if one["p_holm"] < 0.001 else f"{one['p_holm']:.3f}"
        accuracy = f"{one['accuracy']:.3f} [{one['accuracy_low']:.3f}, {one['accuracy_high']:.3f}]"
        rows.append([one["system"], one["alteration"], accuracy, difference, p_value])
    first = results.iloc[0]
    caption = [
        f"{first['data']}, {first['n_tracks']} test tracks, split {first['split']}. The models were trained "
        "on unaltered tracks.",
        "Noise: white, up to 22 kHz, its level relative to that of the whole clip. Gain: clipped at full "
        "scale. mp3: LAME, constant bitrate, mono. Filters: Butterworth, 48 dB per octave.",
        f"Intervals: 95 % bootstrap over {first['n_units']} {first['interval_over']}, paired for the "
        "differences. p: exact McNemar test against the unaltered tracks, Holm-corrected for all alterations "
        "of a system.",
    ]
    summary = [_sentence(own) for _, own in results.groupby("run_id", sort=False) if len(own) > 1]
    if form == "markdown":
        return "\n".join([markdown_table(header, rows), "", *caption, "", *(f"- {line}" for line in summary)])
    return "\n".join([text_table(header, rows), "", *caption, *summary])


def _sentence(results: pd.DataFrame) -> str:
    """The largest loss of a system, the alterations with a significant loss, and the others."""
    unaltered, others = results.iloc[0], results.iloc[1:]
    worst = others.sort_values("change").iloc[0]
    change, low, high = (f"{100 * worst[key]:+.1f}" for key in ("change", "change_low", "change_high"))
    significant = others["verdict"] == "worse"
    worse, not_worse = (", ".join(others.loc[own, "alteration"]) for own in (significant, ~significant))
    chance = unaltered["accuracy_low"] <= unaltered["majority"]
    return (
        f"{unaltered['system']}: {unaltered['accuracy']:.3f} unaltered"
        f"{' (not shown to beat the most common genre)' if chance else ''}; lowest under "
        f"{worst['alteration']} ({change} points [{low}, {high}]). "
        f"Worse under: {worse or 'none'}. No loss shown under: {not_worse or 'none'}."
    )


def _plot(rows: pd.DataFrame, folder: Path) -> None:
    """One panel per effect: accuracy on unaltered and on increasingly altered tracks, one line per system."""
    from matplotlib.figure import Figure

    effects = [name for name in EFFECTS if name in set(rows["effect"])]
    strengths = {name: [*dict.fromkeys(rows.loc[rows["effect"] == name, "strength"])] for name in effects}
    widths = [1.5 + len(strengths[name]) for name in effects]
    figure = Figure(figsize=(max(5.0, 0.62 * sum(widths)), 4.2), layout="constrained")
    axes = figure.subplots(1, max(1, len(effects)), sharey=True, squeeze=False, width_ratios=widths or None)[
        0
    ]
    systems = [*dict.fromkeys(zip(rows["run_id"], rows["system"], strict=True))]
    for axis, name in zip(axes, effects, strict=False):
        for number, (run_id, title) in enumerate(systems):
            own = rows[rows["run_id"] == run_id].set_index("strength")
            line = own[own["effect"].isin(["none", name])].loc[["", *strengths[name]]]
            bars = [line["accuracy"] - line["accuracy_low"], line["accuracy_high"] - line["accuracy"]]
            x = np.arange(len(line)) + 0.14 * (number - (len(systems) - 1) / 2)
            axis.axhline(line["accuracy"].iloc[0], color=f"C{number}", lw=0.8, ls=":", alpha=0.7)
            axis.errorbar(
                x, line["accuracy"], bars, color=f"C{number}", marker="o", ms=4, lw=1.2, capsize=2,
                ls="none" if name in ("gain", "crop") else "-",  # values that are not ordered by strength
                label=files.as_label(title) if axis is axes[0] else None,
            )  # fmt: skip
        effect = EFFECTS[name]
        axis.set_xticks(range(1 + len(strengths[name])), ["unaltered", *strengths[name]], rotation=45)
        axis.set_title(effect.title if name != "crop" else f"{effect.title} ... {effect.unit}", fontsize=10)
        axis.set_xlabel(effect.unit if name != "crop" else "")
        axis.grid(axis="y", alpha=0.3)
        axis.set_ylim(0, 1)
    unit = rows["interval_over"].iloc[0]
    axes[0].set_ylabel(f"accuracy on altered test tracks\n(share; bars: 95 % over {unit})")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    for suffix in ("png", "svg"):
        files.write_figure(figure, folder / f"robust.{suffix}", dpi=120)
