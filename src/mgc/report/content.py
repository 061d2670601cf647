"""What a report is made of: tables of systems, the systems of the first table in detail, tracks worth
listening to, and the dataset. All of it comes from run records.

A page, a paper and a bundle are three ways to present the same `Content`. It is made to be handed on: its
records name no folders of this machine.
"""

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

from mgc.config import CompareRecipe, ReportRecipe
from mgc.data.checking.check import Check
from mgc.evaluate import Predictions, confusion_matrix, precision_recall_f1
from mgc.runs import tables
from mgc.runs.record import (
    RunRecord,
    load_tracks,
    select_records,
    text_without_places,
    tracks_file,
    without_places,
)  # fmt: skip
from mgc.util.errors import MgcError
from mgc.workspace import Workspace

CLIPS = 8  # tracks of each kind that are worth listening to
FRONT = 5  # systems that are shown first, the others on demand
MOST_ROWS = 14  # rows in the main table of a paper
CURVES = dict.fromkeys(("train_loss", "train_accuracy", "val_loss", "val_accuracy"), float)
NAMES = ("label", "artist", "title", "album")


@dataclass(frozen=True)
class Entry:
    """A system of the first table, on its honest split, with a unique title. Arrays are means over seeds."""

    row: tables.Row
    title: str

    @property
    def record(self) -> RunRecord:
        """The first of its runs, for everything that they share."""
        return self.row.system.record

    @property
    def kind(self) -> str:
        """ "floor", "baseline" or "probe"."""
        return self.record.kind

    @property
    def accuracy(self) -> float:
        """The mean over seeds."""
        return self.row.system.scores.accuracy

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(N, C), tracks sorted by id."""
        return np.mean([run.probabilities for run in self.row.system.predictions], axis=0)

    @cached_property
    def _confusions(self) -> list[np.ndarray]:
        runs = self.row.system.predictions
        return [confusion_matrix(run.labels, run.predicted, len(run.classes)) for run in runs]

    @cached_property
    def confusion(self) -> np.ndarray:
        """(C, C) numbers of tracks; rows are the true class, columns the predicted one."""
        return np.mean(self._confusions, axis=0)

    @cached_property
    def per_class(self) -> dict[str, np.ndarray]:
        """ "precision", "recall" and "f1", (C,) each."""
        scores = np.mean([precision_recall_f1(confusion) for confusion in self._confusions], axis=0)
        return dict(zip(("precision", "recall", "f1"), scores, strict=True))

    @cached_property
    def curves(self) -> pd.DataFrame | None:
        """`curves.csv` of the first seed of a network; None if there is none.

        Raises:
            MgcError: the file cannot be read.
        """
        file = self.record.folder / "curves.csv"
        if not file.exists():
            return None
        try:
            table = pd.read_csv(file).astype({**CURVES, "fold": int, "epoch": int, "best": bool})
            if not np.isfinite(table[[*CURVES]]).any().all():
                raise ValueError("a column contains no number")
        except (OSError, ValueError, KeyError) as error:
            fix = f"delete it, or run mgc rerun {self.record.run_id}"
            raise MgcError(f"training curves cannot be read: {error}", where=file, fix=fix) from None
        return table


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

    `systems` are those of the first table on its honest split, in the order of the table. `tracks` has one
    row per track id and the columns label, artist, title, album and seconds, empty where unknown. `missing`
    are sentences on what is not available, and why.
    """

    recipe: ReportRecipe
    data: str
    records: tuple[RunRecord, ...]  # those in the tables, oldest first
    sections: tuple[tables.Section, ...]
    systems: tuple[Entry, ...]
    tracks: pd.DataFrame
    check: Check | None
    missing: tuple[str, ...]
    workspace: Workspace

    @property
    def folder(self) -> Path:
        """The results of the dataset, where reports are written by default."""
        return self.workspace.results_of(self.data)

    @property
    def first(self) -> RunRecord:
        """A record of the first table, for everything that its rows share."""
        return self.sections[0].rows[0].system.record

    @property
    def predictions(self) -> Predictions:
        """Predictions of the first system, for the classes, ids, labels, groups and folds that all share."""
        return self.systems[0].row.system.predictions[0]

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
    def baseline(self) -> Entry | None:
        """The system that the others are compared with."""
        against = self.sections[0].baseline
        return next((entry for entry in self.systems if entry.row.system is against), None)

    def best(self, kind: str) -> Entry | None:
        """The system of a kind ("floor", "baseline" or "probe") with the highest accuracy."""
        return max((e for e in self.systems if e.kind == kind), key=lambda e: e.accuracy, default=None)

    def _best_by(self, kind: str, name: Callable[[RunRecord], object]) -> list[Entry]:
        """The best system of a kind for each value of `name`, best first."""
        own = sorted((e for e in self.systems if e.kind == kind), key=lambda e: e.accuracy)
        best = {name(entry.record): entry for entry in own}  # the last and best one remains
        return sorted(best.values(), key=lambda e: -e.accuracy)

    @property
    def probes(self) -> list[Entry]:
        """The best probe of each representation, best first."""
        return self._best_by("probe", lambda record: record.representation)

    @property
    def networks(self) -> list[Entry]:
        """The best system of each network architecture, best first."""
        return self._best_by("baseline", lambda record: record.recipe.get("network"))

    @cached_property
    def front(self) -> tuple[Entry, ...]:
        """The systems that a page shows first, in the order of the table: the best floor, the baseline, the
        best network, and the best probes of different representations."""
        fixed = (self.best("floor"), self.baseline, self.best("baseline"))
        return self._in_order([*fixed, *self.probes], FRONT)

    @cached_property
    def main_rows(self) -> tuple[Entry, ...]:
        """The rows of a paper's main table, in the order of the table: the best floors, the baseline, then in
        turn the best of each representation and of each network, up to MOST_ROWS."""
        floors = [entry for entry in self.systems if entry.kind == "floor"][-3:]
        turns = [entry for turn in zip_longest(self.probes, self.networks) for entry in turn]
        return self._in_order([*floors, self.baseline, *turns], MOST_ROWS)

    def _in_order(self, entries: Iterable[Entry | None], most: int) -> tuple[Entry, ...]:
        titles = [*dict.fromkeys(entry.title for entry in entries if entry)][:most]
        return tuple(entry for entry in self.systems if entry.title in titles)

    @cached_property
    def pair(self) -> list[Entry]:
        """The best network from scratch and the best probe, as far as there are any; else the best system.
        Probes of pretrained encoders are preferred."""
        probes = [e for e in self.probes if tables.is_pretrained(e.record)] or self.probes
        found = [entry for entry in (self.best("baseline"), *probes[:1]) if entry]
        return found or [max(self.systems, key=lambda entry: entry.accuracy)]

    @property
    def trained_network(self) -> Entry | None:
        """The best network from scratch, if its training curves are available."""
        best = self.best("baseline")
        return best if best and best.curves is not None else None

    @property
    def representations(self) -> dict[str, dict[str, Any]]:
        """The representations in a paper's main table, with their cards."""
        return {e.record.representation: e.record.representation_card for e in self.main_rows}

    @cached_property
    def genres(self) -> pd.DataFrame:
        """The test tracks of each genre: label, tracks, groups (artists, or tracks of unknown artists), and
        seconds, NaN if they are not known for all."""
        run = self.predictions
        seconds = self.tracks["seconds"].reindex(run.track_ids).to_numpy(float)  # (N,)
        tracks = pd.DataFrame({"label": run.labels, "group": run.groups, "seconds": seconds})
        by_label = tracks.groupby("label")
        counts = by_label["group"].agg(["size", "nunique"]).reindex(range(len(run.classes)), fill_value=0)
        counts.columns = pd.Index(["tracks", "groups"])
        total = by_label["seconds"].agg(lambda own: own.sum(skipna=False))
        return counts.assign(label=run.classes, seconds=total)

    @cached_property
    def clips(self) -> list[Clip]:
        """The worst errors first, then the tracks on which the trained systems disagree most.

        An error is worse the more systems make it and the more confident they are: the mean over systems of
        the probability of the wrong prediction. Disagreement is the entropy of the predictions.
        """
        trained = [entry for entry in self.systems if entry.kind != "floor"]
        if not trained:
            return []
        run = self.predictions
        predicted = np.stack([entry.probabilities.argmax(axis=1) for entry in trained])  # (S, N)
        confidence = np.stack([entry.probabilities.max(axis=1) for entry in trained])
        wrong = predicted != run.labels
        badness = np.where(wrong, confidence, 0.0).mean(axis=0)  # (N,)
        shares = np.stack([(predicted == k).mean(axis=0) for k in range(len(run.classes))])  # (C, N)
        entropy = -(shares * np.log(shares, out=np.zeros_like(shares), where=shares > 0)).sum(axis=0)
        several = wrong.sum(axis=0) >= min(2, len(trained))
        errors = [i for i in np.argsort(-badness, kind="stable") if several[i]][:CLIPS]
        disputed = [i for i in np.argsort(-entropy, kind="stable") if entropy[i] > 0 and i not in errors]

        def clip(i: int, why: str) -> Clip:
            each = zip(trained, predicted[:, i], confidence[:, i], strict=True)
            answers = tuple(Answer(entry.title, run.classes[k], float(p)) for entry, k, p in each)
            track_id = run.track_ids[i]
            title, artist = (str(self.tracks.at[track_id, name]) for name in ("title", "artist"))
            return Clip(track_id, title or track_id, artist, run.classes[run.labels[i]], why, answers)

        return [clip(i, "error") for i in errors] + [clip(i, "disagreement") for i in disputed[:CLIPS]]

    @cached_property
    def most_confused(self) -> tuple[str, str, float] | None:
        """The true genre, the predicted genre and their share for the largest mean confusion of all trained
        systems; None if there is none."""
        trained = [entry.confusion for entry in self.systems if entry.kind != "floor"]
        if not trained:
            return None
        i, k, share = largest_confusion(np.mean(trained, axis=0))
        return (self.classes[i], self.classes[k], share) if share > 0 else None


def largest_confusion(confusion: np.ndarray) -> tuple[int, int, float]:
    """The true class, the predicted class and their share of the tracks of the true class, for the largest
    such share in (C, C) counts."""
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    i, k = divmod(int(shares.argmax()), len(shares))
    return i, k, float(shares[i, k])


def gather(recipe: ReportRecipe, workspace: Workspace) -> Content:
    """Gather the content of a report on a dataset from the records in `results/<dataset>/`.

    Raises:
        MgcError: no runs, no run called `recipe.baseline`, or records that cannot be read.
    """
    wanted = CompareRecipe(data=recipe.data, baseline=recipe.baseline, seed=recipe.seed, device=recipe.device)
    records = [*map(without_places, select_records(wanted, workspace))]
    sections = tables.compare_records(records, recipe.baseline)
    shown = [record for s in sections for row in s.rows for record in row.system.records]
    missing: list[str] = []
    rows = [row for row in sections[0].rows if not row.leak]
    systems = tuple(Entry(row, title) for row, title in zip(rows, _titles(rows), strict=True))
    tracks = _tracks(systems[0], missing)
    check = _check(workspace.results_of(records[0].data) / "check.json", missing)
    return Content(
        recipe=recipe,
        data=records[0].data,
        records=tuple(sorted(shown, key=lambda record: record.created)),
        sections=tuple(sections),
        systems=systems,
        tracks=tracks,
        check=check,
        missing=tuple(map(text_without_places, missing)),
        workspace=workspace,
    )


def _titles(rows: Sequence[tables.Row]) -> list[str]:
    """A title for each row; equal ones are distinguished by the end of the run id."""
    titles = [row.system.title for row in rows]
    ids = [row.system.record.run_id.rpartition("-")[2] for row in rows]
    return [f"{t} ({i})" if titles.count(t) > 1 else t for t, i in zip(titles, ids, strict=True)]


def _tracks(entry: Entry, missing: list[str]) -> pd.DataFrame:
    """Names and durations of all test tracks, as far as they are known."""
    run = entry.row.system.predictions[0]
    try:
        known = load_tracks(entry.record).reindex(run.track_ids)[[*NAMES, "seconds"]]
        known = known.astype({"seconds": float})
    except (MgcError, KeyError, ValueError) as error:
        what, fix = (error.what, error.fix) if isinstance(error, MgcError) else (f"damaged: {error}", None)
        file = tracks_file(entry.record.folder.parent, entry.record.data_hash).name
        missing.append(f"Titles and artists are unknown: {file}: {what}. {fix or ''}".strip())
        known = pd.DataFrame(index=pd.Index(run.track_ids, name="track_id"), columns=[*NAMES, "seconds"])
    known[[*NAMES]] = known[[*NAMES]].astype(object).fillna("")
    known["label"] = [run.classes[number] for number in run.labels]
    return known.astype({"seconds": float})


def _check(file: Path, missing: list[str]) -> Check | None:
    if not file.exists():
        missing.append(
            "The audio was not checked for damaged, duplicated or mislabelled clips: run mgc data check."
        )
        return None
    try:
        return TypeAdapter(Check).validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fix = "run mgc data check again"
        raise MgcError(f"the result of the data check cannot be read: {error}", where=file, fix=fix) from None
