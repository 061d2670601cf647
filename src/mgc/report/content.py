"""What a report is made of: tables of systems, the systems of the first table in detail, tracks worth
listening to, and the dataset. All of it comes from run records.

A page, a paper and a bundle are three ways to present the same `Content`. It is made to be handed on: its
records name no folders of this machine.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter
from scipy.special import entr

from mgc.config import CompareRecipe, ReportRecipe
from mgc.data.checking.check import Check
from mgc.evaluate import Predictions
from mgc.report.notes import Notes, read_notes
from mgc.runs import tables
from mgc.runs.record import (
    RunRecord,
    load_tracks,
    select_records,
    text_without_places,
    tracks_file,
    without_places,
)
from mgc.runs.tables import Row, System
from mgc.util.errors import MgcError, counted
from mgc.workspace import Workspace

CLIPS = 8  # tracks of each kind that are worth listening to
FRONT = 5  # systems that are shown first, the others on demand
MOST_ROWS = 14  # rows in the main table of a paper
CURVES = dict.fromkeys(("train_loss", "train_accuracy", "val_loss", "val_accuracy"), float)
NAMES = ("label", "artist", "title", "album")


@dataclass(frozen=True)
class Answer:
    """The prediction of one system for a track, and its probability."""

    title: str
    label: str
    probability: float


@dataclass(frozen=True)
class Clip:
    """A track worth listening to, with the answers of all trained systems in the order of the table.

    `why` is "error" or "disagreement". `title` is the track id if no title is known.
    """

    track_id: str
    title: str
    artist: str
    label: str
    why: str
    answers: tuple[Answer, ...]

    @property
    def votes(self) -> list[tuple[str, int]]:
        """Labels and how many systems predict them, most frequent first."""
        return Counter(answer.label for answer in self.answers).most_common()


@dataclass(frozen=True)
class Content:
    """Everything that a report shows.

    `tracks` has one row per track id and the columns label, artist, title, album and seconds, empty where
    unknown. `notes` is what the author wrote. `missing` are sentences on what is not available, and why.
    """

    recipe: ReportRecipe
    sections: Sequence[tables.Section]
    tracks: pd.DataFrame
    check: Check | None
    notes: Notes
    missing: Sequence[str]
    workspace: Workspace

    @property
    def first(self) -> RunRecord:
        """A record of the first table, for everything that its rows share."""
        return self.sections[0].first

    @property
    def data(self) -> str:
        """The name of the dataset."""
        return self.first.data

    @property
    def folder(self) -> Path:
        """The results of the dataset, where reports are written by default."""
        return self.first.folder.parent

    @property
    def records(self) -> list[RunRecord]:
        """Those in the tables, oldest first."""
        shown = [record for s in self.sections for row in s.rows for record in row.system.records]
        return sorted(shown, key=lambda record: record.created)

    @property
    def systems(self) -> list[Row]:
        """The rows of the first table on its honest split, with unique titles."""
        return [row for row in self.sections[0].rows if not row.twin]

    @property
    def counts(self) -> str:
        """The numbers of systems and runs in the first table, in sentences."""
        leaky = [row.system.records for row in self.sections[0].rows if row.twin]
        honest = [row.system.records for row in self.systems]
        again = (
            f" {len(leaky)} of them also on a split that leaks, from {counted(len(sum(leaky, ())), 'run')}."
        )
        first = f"{counted(len(honest), 'system')} from {counted(len(sum(honest, ())), 'run')}."
        return first + (again if leaky else "")

    @property
    def predictions(self) -> Predictions:
        """Predictions of the first system, for the classes, ids, labels, groups and folds that all share."""
        return self.systems[0].system.predictions[0]

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of every array."""
        return self.predictions.classes

    @property
    def n_folds(self) -> int:
        """The number of folds with test tracks."""
        return len(set(self.predictions.fold.tolist()))

    @property
    def verdict(self) -> str:
        """The answer of the first table, in one sentence."""
        return tables.verdict_sentence(self.sections[0])

    @property
    def baseline(self) -> Row | None:
        """The system that the others are compared with."""
        against = self.sections[0].baseline
        return next((row for row in self.systems if row.system is against), None)

    def best(self, kind: str) -> Row | None:
        """The system of a kind ("floor", "baseline" or "probe") with the highest accuracy."""
        own = [row for row in self.systems if row.record.kind == kind]
        return max(own, key=lambda row: row.scores.accuracy, default=None)

    def _best_by(self, kind: str, name: Callable[[RunRecord], object]) -> list[Row]:
        """The best system of a kind for each value of `name`, best first."""
        own = [row for row in self.systems if row.record.kind == kind]  # by ascending accuracy
        best = {name(row.record): row for row in own}  # the last and best one remains
        return sorted(best.values(), key=lambda row: -row.scores.accuracy)

    @property
    def probes(self) -> list[Row]:
        """The best probe of each representation, best first."""
        return self._best_by("probe", lambda record: record.representation)

    @property
    def networks(self) -> list[Row]:
        """The best system of each network architecture, best first."""
        return self._best_by("baseline", lambda record: record.recipe.get("network"))

    @property
    def trained(self) -> list[Row]:
        """All systems except floors."""
        return [row for row in self.systems if row.record.kind != "floor"]

    @cached_property
    def front(self) -> list[Row]:
        """The systems that a page shows first, in the order of the table: the best floor, the baseline, the
        best network, and the best probes of different representations."""
        return self._in_order([self.best("floor"), self.baseline, self.best("baseline"), *self.probes], FRONT)

    @cached_property
    def main_rows(self) -> list[Row]:
        """The rows of a paper's main table, in the order of the table: the best floors, `compared`,
        then in turn the best of each representation and of each network, up to MOST_ROWS."""
        floors = [row for row in self.systems if row.record.kind == "floor"][-3:]
        turns = [row for turn in zip_longest(self.probes, self.networks) for row in turn]
        return self._in_order([*floors, *self.compared, *turns], MOST_ROWS)

    def _in_order(self, rows: Iterable[Row | None], most: int) -> list[Row]:
        titles = [*dict.fromkeys(row.title for row in rows if row)][:most]
        return [row for row in self.systems if row.title in titles]

    @cached_property
    def gain(self) -> tables.BestPair | None:
        """The comparison of two categories of systems that the first answer is about, if there are two."""
        pairs = (self.sections[0].best_against(*question) for question in tables.QUESTIONS)
        return next(filter(None, pairs), None)

    @cached_property
    def pair(self) -> list[Row]:
        """The two systems that the first answer compares, the simpler one first; else the best system."""
        if gain := self.gain:
            return [row for of in (gain.other, gain.one) for row in self.systems if row.system is of]
        return [max(self.systems, key=lambda row: row.scores.accuracy)]

    @cached_property
    def compared(self) -> list[Row]:
        """The baseline, and the pair."""
        rows = {row.title: row for row in (self.baseline, *self.pair) if row}
        return [*rows.values()]

    @property
    def matrices(self) -> list[Row]:
        """Those of `compared` whose confusion matrices find room in a paper: of many genres, two."""
        return self.compared if len(self.classes) <= 6 else [*self.compared[:1], *self.compared[1:][-1:]]

    @cached_property
    def trained_networks(self) -> list[tuple[Row, pd.DataFrame]]:
        """The networks among these, with their training curves where they are available."""
        curves = [(row, training_curves(row)) for row in self.compared if row.record.kind == "baseline"]
        return [(row, table) for row, table in curves if table is not None]

    @property
    def representations(self) -> dict[str, dict[str, Any]]:
        """The representations in a paper's main table, with their cards."""
        return {row.record.representation: row.record.representation_card for row in self.main_rows}

    @cached_property
    def genres(self) -> pd.DataFrame:
        """The test tracks of each genre: label, tracks, groups (artists, or tracks of unknown artists), and
        seconds, NaN if they are not known for all."""
        run = self.predictions
        seconds = self.tracks["seconds"].reindex(run.track_ids).to_numpy(float)  # (N,)
        tracks = pd.DataFrame({"label": run.labels, "group": run.groups, "seconds": seconds})
        genres = tracks.groupby("label").agg(
            tracks=("group", "size"),
            groups=("group", "nunique"),
            seconds=("seconds", lambda own: own.sum(skipna=False)),
        )
        genres = genres.reindex(range(len(run.classes))).fillna({"tracks": 0, "groups": 0})
        return genres.astype({"tracks": int, "groups": int}).assign(label=run.classes)

    @cached_property
    def clips(self) -> list[Clip]:
        """The worst errors first, then the tracks on which the trained systems disagree most.

        An error is worse the more systems make it and the more confident they are: the mean over systems of
        the probability of the wrong prediction. Disagreement is the entropy of the predictions.
        """
        trained, run = self.trained, self.predictions
        if not trained:
            return []
        probabilities = np.stack([row.system.probabilities for row in trained])  # (S, N, C)
        predicted, confidence = probabilities.argmax(axis=2), probabilities.max(axis=2)  # (S, N)
        wrong = predicted != run.labels
        badness = np.where(wrong, confidence, 0.0).mean(axis=0)  # (N,)
        shares = np.stack([(predicted == k).mean(axis=0) for k in range(len(run.classes))])  # (C, N)
        entropy = entr(shares).sum(axis=0)
        several = wrong.sum(axis=0) >= min(2, len(trained))
        errors = [i for i in np.argsort(-badness, kind="stable") if several[i]][:CLIPS]
        disputed = [i for i in np.argsort(-entropy, kind="stable") if entropy[i] > 0 and i not in errors]

        def clip(i: int, why: str) -> Clip:
            each = zip(trained, predicted[:, i], confidence[:, i], strict=True)
            answers = tuple(Answer(row.title, run.classes[k], float(p)) for row, k, p in each)
            track_id = run.track_ids[i]
            title, artist = (str(self.tracks.at[track_id, name]) for name in ("title", "artist"))
            return Clip(track_id, title or track_id, artist, run.classes[run.labels[i]], why, answers)

        return [clip(i, "error") for i in errors] + [clip(i, "disagreement") for i in disputed[:CLIPS]]

    @cached_property
    def most_confused(self) -> tuple[str, str, float] | None:
        """The true genre, the predicted genre and their share for the largest mean confusion of all trained
        systems; None if there is none."""
        if not self.trained:
            return None
        i, k, share = largest_confusion(np.mean([row.system.confusion for row in self.trained], axis=0))
        return (self.classes[i], self.classes[k], share) if share > 0 else None


def largest_confusion(confusion: np.ndarray) -> tuple[int, int, float]:
    """The true class, the predicted class and their share of the tracks of the true class, for the largest
    such share in (C, C) counts."""
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    i, k = divmod(int(shares.argmax()), len(shares))
    return i, k, float(shares[i, k])


def training_curves(row: Row) -> pd.DataFrame | None:
    """`curves.csv` of the first seed of a network; None if there is none.

    Raises:
        MgcError: the file cannot be read.
    """
    file = row.record.folder / "curves.csv"
    if not file.exists():
        return None
    try:
        table = pd.read_csv(file).astype({**CURVES, "fold": int, "epoch": int, "best": bool})
        if not np.isfinite(table[[*CURVES]]).any().all():
            raise ValueError("a column contains no number")
    except (OSError, ValueError, KeyError) as error:
        fix = f"delete it, or run mgc rerun {row.record.run_id}"
        raise MgcError(f"training curves cannot be read: {error}", where=file, fix=fix) from None
    return table


def gather(recipe: ReportRecipe, workspace: Workspace) -> Content:
    """Gather the content of a report on a dataset from the records in `results/<dataset>/`.

    Raises:
        MgcError: no runs, no run called `recipe.baseline`, or records that cannot be read.
    """
    wanted = CompareRecipe(data=recipe.data, baseline=recipe.baseline, seed=recipe.seed, device=recipe.device)
    records = [*map(without_places, select_records(wanted, workspace))]
    sections = tables.compare_records(records, recipe.baseline, margin=recipe.margin)
    missing: list[str] = []
    tracks = _tracks(sections[0].rows[0].system, missing)
    folder = records[0].folder.parent
    check, notes = _check(folder / "check.json", workspace, missing), read_notes(folder)
    return Content(recipe, sections, tracks, check, notes, [*map(text_without_places, missing)], workspace)


def _tracks(system: System, missing: list[str]) -> pd.DataFrame:
    """Names and durations of all test tracks, as far as they are known."""
    run, record = system.predictions[0], system.record
    try:
        known = load_tracks(record).reindex(run.track_ids)[[*NAMES, "seconds"]].astype({"seconds": float})
    except (MgcError, KeyError, ValueError) as error:
        what = f"{error.what}. {error.fix or ''}" if isinstance(error, MgcError) else f"damaged: {error}."
        file = tracks_file(record.folder.parent, record.data_hash).name
        missing.append(f"Titles and artists are unknown: {file}: {what}".strip())
        known = pd.DataFrame(index=pd.Index(run.track_ids, name="track_id"), columns=[*NAMES, "seconds"])
    known[[*NAMES]] = known[[*NAMES]].astype(object).fillna("")
    known["label"] = [run.classes[number] for number in run.labels]
    return known.astype({"seconds": float})


def without_folders(text: str, workspace: Workspace) -> str:
    """`text` without the absolute folders of the workspace, the current folder and the home folder."""
    known = (place for place in vars(workspace).values() if isinstance(place, Path))
    folders = {Path.cwd(), Path.home(), *known}
    places = {str(place) for folder in folders for place in (folder.absolute(), folder.resolve())} - {"/"}
    for place in sorted(places, key=len, reverse=True):
        for written in (place, json.dumps(place)[1:-1]):
            text = re.sub(rf"(?<![\w.~-]){re.escape(written)}(/|(?![\w.-]))", "", text)
    return text


def _check(file: Path, workspace: Workspace, missing: list[str]) -> Check | None:
    if not file.exists():
        missing.append(
            "The audio was not checked for damaged, duplicated or mislabelled clips: run mgc data check."
        )
        return None
    try:
        text = text_without_places(without_folders(file.read_text(encoding="utf-8"), workspace))
        return TypeAdapter(Check).validate_json(text)
    except (OSError, ValueError) as error:
        fix = "run mgc data check again"
        raise MgcError(f"the result of the data check cannot be read: {error}", where=file, fix=fix) from None
