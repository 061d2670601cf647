"""What a report is made of, from records alone: the sections of the table, the systems of the first of them
with all that a reader may ask, the tracks worth hearing, and the card of the data.

A page, a paper and a bundle are three ways to write the same `Content`.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from mgc.config import CompareRecipe, ReportRecipe
from mgc.data.checking.check import Check
from mgc.data.quarantine import Quarantined, read_quarantine
from mgc.evaluate import Predictions, confusion_matrix, precision_recall_f1
from mgc.runs import tables
from mgc.runs.record import RunRecord, load_tracks, select_records, tracks_file
from mgc.runs.tables import Row, Section, compare_records
from mgc.util.errors import MgcError
from mgc.workspace import Workspace

HEARD = 8  # tracks of each kind that are worth hearing
FRONT = 5  # systems that are shown first, the others on demand
CURVES = dict.fromkeys(("train_loss", "train_accuracy", "val_loss", "val_accuracy"), float)
NAMES = ("label", "artist", "title", "album")


@dataclass(frozen=True)
class Entry:
    """One system of the first section, on its honest split. Arrays are means over its seeds.

    title: unlike that of any other entry.
    """

    row: Row
    title: str

    @property
    def record(self) -> RunRecord:
        """The first of its runs, for all that they share."""
        return self.row.system.record

    @property
    def kind(self) -> str:
        """ "floor", "baseline" (from scratch) or "probe"."""
        return self.record.kind

    @property
    def accuracy(self) -> float:
        """Mean over seeds."""
        return self.row.system.scores.accuracy

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(N, C), tracks sorted by id."""
        return np.mean([run.probabilities for run in self.row.system.predictions], axis=0)

    @cached_property
    def confusion(self) -> np.ndarray:
        """(C, C) tracks, whole ones for a single seed; rows are the truth, columns the prediction."""
        runs = self.row.system.predictions
        return np.mean([confusion_matrix(r.labels, r.predicted, len(r.classes)) for r in runs], axis=0)

    @cached_property
    def per_class(self) -> dict[str, np.ndarray]:
        """ "precision", "recall" and "f1", (C,) each."""
        runs = self.row.system.predictions
        each = [precision_recall_f1(confusion_matrix(r.labels, r.predicted, len(r.classes))) for r in runs]
        return dict(zip(("precision", "recall", "f1"), np.mean(each, axis=0), strict=True))

    @cached_property
    def curves(self) -> pd.DataFrame | None:
        """`curves.csv` of the first seed of a network; None where there is none.

        Raises:
            MgcError: it cannot be read.
        """
        file = self.record.folder / "curves.csv"
        if not file.exists():
            return None
        try:
            table = pd.read_csv(file).astype({**CURVES, "fold": int, "epoch": int, "best": bool})
            if not np.isfinite(table[[*CURVES]]).any().all():
                raise ValueError("a column holds no number")
        except (OSError, ValueError, KeyError) as error:
            fix = "delete it, or run the same mgc baseline again with --again"
            raise MgcError(f"training curves cannot be read: {error}", where=file, fix=fix) from None
        return table


@dataclass(frozen=True)
class Said:
    """What one system takes a track for, and how surely (0..1)."""

    title: str
    label: str
    probability: float


@dataclass(frozen=True)
class Clip:
    """A track worth hearing. `why`: "disagreement" or "error". `said`: by every trained system, in the order
    of the table; `votes`: how many of them say what, most first."""

    track_id: str
    title: str  # the track's own id where nothing is known
    artist: str
    label: str
    why: str
    said: tuple[Said, ...]

    @property
    def votes(self) -> list[tuple[str, int]]:
        """Labels and how many systems say so, most first."""
        return Counter(one.label for one in self.said).most_common()


@dataclass(frozen=True)
class GenreCount:
    """A line of the data card. `groups`: artists, or tracks where those are unknown."""

    label: str
    tracks: int
    groups: int
    seconds: float | None


@dataclass(frozen=True)
class Content:
    """All that a report tells. `systems` are those of the first section on its honest split, as in the table;
    `tracks` has a row a track id and the columns label, artist, title, album, seconds, empty where nothing is
    known; `missing` are sentences on what could not be told, and why."""

    recipe: ReportRecipe
    data: str
    records: tuple[RunRecord, ...]  # that the table shows, oldest first
    sections: tuple[Section, ...]
    systems: tuple[Entry, ...]
    tracks: pd.DataFrame
    check: Mapping[str, Any] | None  # check.json
    quarantine: tuple[Quarantined, ...]
    missing: tuple[str, ...]
    workspace: Workspace

    @property
    def folder(self) -> Path:
        """Where the data set's results lie, and reports go by default."""
        return self.workspace.results_of(self.data)

    @property
    def first(self) -> RunRecord:
        """Of the first section: for what its rows share."""
        return self.sections[0].rows[0].system.record

    @property
    def predictions(self) -> Predictions:
        """Of the first system: for classes, track ids, labels, groups and folds, which all share."""
        return self.systems[0].row.system.predictions[0]

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of every array."""
        return self.predictions.classes

    @property
    def verdict(self) -> str:
        """The answer, in a sentence."""
        return tables.verdict_sentence(self.sections[0])

    def best(self, path: str) -> Entry | None:
        """The system of a path ("floor", "baseline", "probe") with the highest accuracy."""
        own = [entry for entry in self.systems if entry.kind == path]
        return max(own, key=lambda entry: entry.accuracy, default=None)

    @property
    def baseline(self) -> Entry | None:
        """The system that the others are compared with."""
        against = self.sections[0].baseline
        return next((entry for entry in self.systems if entry.row.system is against), None)

    @cached_property
    def front(self) -> tuple[Entry, ...]:
        """What is shown first: the best floor, the baseline, the best network and the best probes of
        different representations, in the order of the table."""
        fixed = [e for e in (self.best("floor"), self.baseline, self.best("baseline")) if e is not None]
        chosen = {entry.title: entry for entry in [*fixed, *self.probes]}
        chosen = dict([*chosen.items()][:FRONT])
        return tuple(entry for entry in self.systems if entry.title in chosen)

    @property
    def probes(self) -> list[Entry]:
        """The best probe of each representation, the best first."""
        own = sorted((e for e in self.systems if e.kind == "probe"), key=lambda e: e.accuracy)
        best = {entry.record.representation: entry for entry in own}  # the last one of each counts
        return sorted(best.values(), key=lambda e: -e.accuracy)

    @cached_property
    def genres(self) -> list[GenreCount]:
        """A line a genre."""
        run, lines = self.predictions, []
        seconds = self.tracks["seconds"].reindex(run.track_ids).to_numpy(float)  # (N,)
        for number, label in enumerate(run.classes):
            own = np.flatnonzero(run.labels == number)
            heard = seconds[own]
            total = float(heard.sum()) if len(own) and not np.isnan(heard).any() else None
            lines.append(GenreCount(label, len(own), len({run.groups[i] for i in own}), total))
        return lines

    @cached_property
    def clips(self) -> list[Clip]:
        """The worst errors first, then the tracks on which the trained systems disagree most.

        An error is the worse the more systems are wrong and the surer they are: the mean over systems of the
        probability of what they say, where that is wrong. Disagreement is the entropy of their votes.
        """
        trained = [entry for entry in self.systems if entry.kind != "floor"]
        if not trained:
            return []
        run = self.predictions
        said = np.stack([entry.probabilities.argmax(axis=1) for entry in trained])  # (S, N)
        sure = np.stack([entry.probabilities.max(axis=1) for entry in trained])
        wrong = said != run.labels
        blame = np.where(wrong, sure, 0.0).mean(axis=0)  # (N,)
        shares = np.stack([(said == k).mean(axis=0) for k in range(len(run.classes))])  # (C, N)
        entropy = -(shares * np.log(shares, out=np.zeros_like(shares), where=shares > 0)).sum(axis=0)
        several = wrong.sum(axis=0) >= min(2, len(trained))
        errors = [i for i in np.argsort(-blame, kind="stable") if several[i]][:HEARD]
        split = [i for i in np.argsort(-entropy, kind="stable") if entropy[i] > 0 and i not in errors]

        def clip(i: int, why: str) -> Clip:
            each = zip(trained, said[:, i], sure[:, i], strict=True)
            words = tuple(Said(entry.title, run.classes[k], float(p)) for entry, k, p in each)
            track_id = run.track_ids[i]
            title, artist = (str(self.tracks.at[track_id, name]) for name in ("title", "artist"))
            label = run.classes[run.labels[i]]
            return Clip(track_id, title or track_id, artist, label, why, words)

        return [clip(i, "error") for i in errors] + [clip(i, "disagreement") for i in split[:HEARD]]

    @cached_property
    def confused(self) -> list[tuple[str, str, float]]:
        """(truth, taken for, share of the truth's tracks), the mean over trained systems, largest first."""
        trained = [entry.confusion for entry in self.systems if entry.kind != "floor"]
        if not trained:
            return []
        counts = np.mean(trained, axis=0)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        pairs = [(i, k) for i in range(len(shares)) for k in range(len(shares)) if i != k]
        pairs.sort(key=lambda pair: -shares[pair])
        return [(self.classes[i], self.classes[k], float(shares[i, k])) for i, k in pairs]


def gather(recipe: ReportRecipe, workspace: Workspace) -> Content:
    """The content of a report on a data set, from the records that lie in `results/<data>/`.

    Raises:
        MgcError: no runs, no run called `recipe.baseline`, or records that cannot be read.
    """
    wanted = CompareRecipe(data=recipe.data, baseline=recipe.baseline, seed=recipe.seed, device=recipe.device)
    records = select_records(wanted, workspace)
    sections = compare_records(records, recipe.baseline)
    shown = [record for s in sections for row in s.rows for record in row.system.records]
    missing: list[str] = []
    rows = [row for row in sections[0].rows if not row.leak]
    systems = tuple(Entry(row, title) for row, title in zip(rows, _titles(rows), strict=True))
    tracks = _tracks(systems[0], missing)
    folder = workspace.results_of(records[0].data)
    return Content(
        recipe=recipe,
        data=records[0].data,
        records=tuple(sorted(shown, key=lambda record: record.created)),
        sections=tuple(sections),
        systems=systems,
        tracks=tracks,
        check=_check(folder / "check.json", missing),
        quarantine=tuple(read_quarantine(workspace.quarantine_file(records[0].data)).values()),
        missing=tuple(missing),
        workspace=workspace,
    )


def _titles(rows: Sequence[Row]) -> list[str]:
    """A title a row; those that would be alike are told apart by the end of the run's id."""
    titles = [row.system.title for row in rows]
    twice = {title for title, count in Counter(titles).items() if count > 1}
    ids = [row.system.record.run_id.rpartition("-")[2] for row in rows]
    return [f"{t} ({i})" if t in twice else t for t, i in zip(titles, ids, strict=True)]


def _tracks(entry: Entry, missing: list[str]) -> pd.DataFrame:
    """What is known of the tracks, for every one that was judged."""
    run = entry.row.system.predictions[0]
    try:
        known = load_tracks(entry.record).reindex(run.track_ids)[[*NAMES, "seconds"]]
        known = known.astype({"seconds": float})
    except (MgcError, KeyError, ValueError) as error:
        what, fix = (error.what, error.fix) if isinstance(error, MgcError) else (f"damaged: {error}", None)
        file = tracks_file(entry.record.folder.parent, entry.record.data_hash).name
        missing.append(f"Titles and artists are not known: {file}: {what}. {fix or ''}".strip())
        known = pd.DataFrame(index=pd.Index(run.track_ids, name="track_id"), columns=[*NAMES, "seconds"])
    known[[*NAMES]] = known[[*NAMES]].astype(object).fillna("")
    known["label"] = [run.classes[number] for number in run.labels]
    return known.astype({"seconds": float})


def _check(file: Path, missing: list[str]) -> dict[str, Any] | None:
    if not file.exists():
        missing.append("The audio was not checked for damaged, doubled or mislabelled clips: mgc data check.")
        return None
    try:
        text = file.read_text(encoding="utf-8")
        TypeAdapter(Check).validate_json(text)
        return dict(json.loads(text))
    except (OSError, ValueError) as error:
        fix = "run mgc data check again"
        raise MgcError(f"the data check's result cannot be read: {error}", where=file, fix=fix) from None


def recipe_toml(recipe: Mapping[str, Any]) -> str:
    """A record's recipe as a config file that `read_recipe` reads back to the same; values that are None are
    left out: they are the defaults."""

    def value(one: Any) -> str:
        if isinstance(one, Mapping):
            return "{" + ", ".join(f"{_key(k)} = {value(v)}" for k, v in one.items() if v is not None) + "}"
        if isinstance(one, (list, tuple)):
            return "[" + ", ".join(map(value, one)) + "]"
        # JSON's strings, numbers and truth values are TOML's, but for one control character.
        return json.dumps(one, ensure_ascii=False).replace("\x7f", "\\u007f")

    plain = {key: v for key, v in recipe.items() if v is not None}
    lines = [f"{_key(key)} = {value(v)}" for key, v in plain.items() if not isinstance(v, Mapping)]
    for key, part in plain.items():
        if isinstance(part, Mapping):
            lines += ["", f"[{_key(key)}]"]
            lines += [f"{_key(k)} = {value(v)}" for k, v in part.items() if v is not None]
    return "\n".join(lines) + "\n"


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)
