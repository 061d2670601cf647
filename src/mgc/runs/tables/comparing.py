"""Which runs may be compared: runs of one recipe form a system, systems on one split form a section."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from mgc.config import BaselineRecipe, ProbeRecipe
from mgc.evaluate import (
    MARGIN,
    Comparison,
    Outcomes,
    OverRuns,
    Predictions,
    check_same_tracks,
    compare,
    over_runs,
    unit_numbers,
)
from mgc.runs.commands import variant_of
from mgc.runs.record import NAMES_ONLY, RunRecord
from mgc.util.errors import MgcError, did_you_mean

# Categories of systems in the order of a table, and as readers see them.
CATEGORIES = {
    "floor": "floor",
    "untrained": "untrained encoder",
    "features": "hand-made features",
    "scratch": "from scratch",
    "frozen": "frozen encoder",
}


@dataclass(frozen=True)
class System:
    """Runs of one recipe and code version that differ only in their seeds, ordered by split and seed."""

    records: tuple[RunRecord, ...]

    @property
    def record(self) -> RunRecord:
        """The first run, for everything that the runs share."""
        return self.records[0]

    @property
    def splits(self) -> tuple[str, ...]:
        """The seed of the split of each run."""
        return tuple(str(record.split_seed) for record in self.records)

    @cached_property
    def predictions(self) -> list[Predictions]:
        """The predictions of each run."""
        return [record.predictions() for record in self.records]

    @cached_property
    def outcomes(self) -> Outcomes:
        """Which tracks each run classified correctly."""
        return Outcomes.of(self.predictions, self.splits, random=self.record.random)

    @cached_property
    def scores(self) -> OverRuns:
        """Scores, averaged over runs."""
        evaluations = [record.evaluation for record in self.records]
        return over_runs(self.predictions, evaluations, splits=self.splits)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(N, C) means over runs, tracks sorted by id."""
        return np.mean([run.probabilities for run in self.predictions], axis=0)

    @property
    def confusion(self) -> np.ndarray:
        """(C, C) numbers of tracks, means over runs; rows are the true class, columns the predicted one."""
        return np.mean([record.evaluation.confusion for record in self.records], axis=0)

    def per_class(self, score: str) -> np.ndarray:
        """(C,) means over runs of "precision", "recall" or "f1"."""
        classes = [record.evaluation.per_class for record in self.records]
        return np.mean([[getattr(one, score) for one in run] for run in classes], axis=0)

    @property
    def category(self) -> str:
        """One of CATEGORIES. A network on one vector per track learns from features, like a probe of them."""
        record, card = self.record, self.record.representation_card
        if record.kind == "floor":
            return "floor"
        if record.kind == "baseline":
            return "features" if card.get("pooled") else "scratch"
        # "nothing" of a feature, "nothing: random weights, seed 0" of an encoder.
        trained_on = str(card.get("trained_on") or "nothing")
        return "features" if trained_on == "nothing" else "untrained" if "nothing" in trained_on else "frozen"

    @property
    def title(self) -> str:
        """Name and head, such as `musicnn + logistic`, and what differs from the defaults."""
        return self.record.title

    @property
    def runs_text(self) -> str:
        """`3 seeds`, `5 seeds, 3 splits`; empty for one run, or seeds that change nothing."""
        counts = {"seed": self.scores.seeds if self.record.random else 1, "split": self.scores.splits}
        return ", ".join(f"{count} {what}s" for what, count in counts.items() if count > 1)


@dataclass(frozen=True)
class Row:
    """One row of a table.

    `title` is unique among the rows of a section that are not on a leaky split. `versus` compares the system
    with the baseline of the section; None for floors. On a leaky split, `twin` is the same system on the
    honest split of the section, and `leak` the difference to it on the tracks that both test, if any.
    """

    system: System
    title: str
    versus: Comparison | None = None
    twin: System | None = None
    leak: Comparison | None = None

    @property
    def record(self) -> RunRecord:
        """The first run of the system."""
        return self.system.record

    @property
    def scores(self) -> OverRuns:
        """The scores of the system."""
        return self.system.scores


@dataclass(frozen=True)
class Section:
    """Systems that may be compared with one another: those on one set of tracks and rule of splitting.

    The last rows may be systems on a leaky split of the same data, with their leak measured.
    """

    rows: list[Row]
    baseline: System | None
    superseded: int  # older runs of the same recipes by other code, which are not shown
    margin: float  # of accuracy, within which systems are equivalent
    best: int | None = None  # how many of each category (and of the leaky ones) are shown
    distinct: bool = True  # no other section has the same `appearance`

    @property
    def first(self) -> RunRecord:
        """A record, for everything that the rows share."""
        return self.rows[0].record

    @property
    def appearance(self) -> tuple[str, int, str]:
        """What captions say about the tracks: dataset, number of tracks and split rule."""
        return self.first.data, self.first.evaluation.n_tracks, self.first.split_authority

    @property
    def systems(self) -> list[System]:
        """The systems that are compared: not those on a leaky split."""
        return [row.system for row in self.rows if row.twin is None]

    @property
    def shown(self) -> list[Row]:
        """The rows that tables print: all of them, or the `best` of each category and the baseline."""
        if self.best is None:
            return self.rows
        seen: Counter[tuple[str, bool]] = Counter()
        kept = []
        for row in reversed(self.rows):  # within a category, rows are ordered by ascending accuracy
            kind = row.system.category, row.twin is not None
            seen[kind] += 1
            if seen[kind] <= self.best or row.system is self.baseline:
                kept.append(row)
        return kept[::-1]

    @cached_property
    def _pairs(self) -> dict[tuple[str, str], "BestPair | None"]:
        """The results of `best_against`: several sentences, and the report, use the same ones."""
        return {}

    def best_against(self, category: str, other: str) -> "BestPair | None":
        """The best system of a category against the best of another; None if either category is empty.

        All pairs of both categories are one family, since any of them could have been the best. Systems that
        need more seeds are candidates only if the category has no others.
        """
        if (category, other) not in self._pairs:
            self._pairs[category, other] = self._best_pair(category, other)
        return self._pairs[category, other]

    def _best_pair(self, category: str, other: str) -> "BestPair | None":
        sides = [_candidates(self.systems, name) for name in (category, other)]
        if not all(sides):
            return None
        systems = [system for side in sides for system in side]
        pairs = [(a, len(sides[0]) + b) for a in range(len(sides[0])) for b in range(len(sides[1]))]
        results = _compare(systems, [{a: 1, b: -1} for a, b in pairs])
        best = pairs.index((_best(sides[0]), len(sides[0]) + _best(sides[1])))
        a, b = pairs[best]
        return BestPair(systems[a], systems[b], results[best], (len(sides[0]), len(sides[1])))


@dataclass(frozen=True)
class BestPair:
    """The best of several systems against the best of several others."""

    one: System
    other: System
    comparison: Comparison
    candidates: tuple[int, int]  # from how many systems each was the best


def compare_records(
    records: Sequence[RunRecord],
    baseline: str | None = None,
    best: int | None = None,
    margin: float = 100 * MARGIN,
) -> list[Section]:
    """Group records into sections, the one with the most tracks first.

    Within a section, the categories follow one another, each ordered by accuracy. Runs that differ only in
    their seed, or in the seed of a cross-validation, share a row. A system on a leaky split goes into the
    section with the same system on an honest split, if there is one, else into a section of its own.

    Parameters
    ----------
    baseline
        A run id: the system of this run is the baseline of its section. In other sections, and by default,
        it is the network `cnn` with its default settings, or else the oldest network from scratch.
    best
        How many rows of each category tables show. Corrections and counts cover all rows.
    margin
        Percentage points of accuracy within which two systems are equivalent.

    Raises
    ------
    MgcError
        No run has the id `baseline`.
    """
    names = [record.run_id for record in records]
    if baseline is not None and baseline not in names:
        raise MgcError(f"there is no run {baseline!r} to compare with", fix=did_you_mean(baseline, names))
    systems = systems_of(records)
    honest = {_system_key(s.record): s for s in systems if not s.record.leaky}
    leaky, apart = defaultdict(list), defaultdict(list)
    for system in systems:
        twin = honest.get(_system_key(system.record)) if system.record.leaky else None
        if twin:
            leaky[_comparable_key(twin.record)].append((system, twin))
        else:
            apart[_comparable_key(system.record)].append(system)
    hidden = Counter(map(_comparable_key, records))
    hidden.subtract(_comparable_key(record) for system in systems for record in system.records)
    sections = []
    for key, group in apart.items():
        against = _baseline(group, baseline)
        rows = _rows(sorted(group, key=_order), against) + _leaky_rows(leaky[key])
        sections.append(Section(rows, against, hidden[key], margin / 100, best))
    alike = Counter(section.appearance for section in sections)
    sections = [replace(section, distinct=alike[section.appearance] == 1) for section in sections]
    return sorted(sections, key=lambda section: -section.first.evaluation.n_tracks)


def _comparable_key(record: RunRecord) -> tuple[object, ...]:
    """Equal for runs that may be compared. Cross-validations test the same tracks, whatever their seed."""
    data = record.recipe["data"]
    per_class = data.get("per_class"), data.get("per_class_seed")
    if record.split.startswith("cv") and not record.leaky:
        return record.data_hash, record.split, record.revisions.get("split"), per_class
    return record.data_hash, record.split_hash


def _system_key(record: RunRecord) -> str:
    """Equal for runs of one system and recipe, whatever their seed and split."""
    recipe = {} if record.kind == "floor" else _filled(record)  # a floor has nothing to set
    recipe = {key: value for key, value in recipe.items() if key not in {*NAMES_ONLY, "seed"}}
    card = record.representation_card
    # Random weights differ between seeds of one system.
    drawn = "random_seed" in card.get("spec", {})
    weights = None if drawn else card.get("weights")
    limit = record.recipe["data"]["limit"]
    return json.dumps([record.system, record.kind, recipe, weights, limit], sort_keys=True)


def _filled(record: RunRecord) -> dict[str, Any]:
    """Its recipe, completed with the defaults of settings that did not exist when it ran."""
    default = (BaselineRecipe if record.kind == "baseline" else ProbeRecipe)().model_dump(mode="json")
    tables = {key: default[key] | table for key, table in record.recipe.items() if isinstance(table, dict)}
    return default | record.recipe | tables


def systems_of(records: Sequence[RunRecord]) -> list[System]:
    """Group runs that differ only in their seeds. Runs of the same recipe by older code are superseded."""
    groups: dict[object, list[RunRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda r: r.created):
        groups[_comparable_key(record), _system_key(record)].append(record)
    systems = []
    for group in groups.values():
        current = [record for record in group if _made_by(record) == _made_by(group[-1])]
        by_seed = {(record.split_seed, record.split_hash, record.seed): record for record in current}
        systems.append(System(tuple(by_seed[seeds] for seeds in sorted(by_seed))))
    return systems


def _made_by(record: RunRecord) -> tuple[object, object]:
    # Embeddings of an encoder with random weights have another key for every seed.
    card = record.representation_card
    return record.revisions, None if "random_seed" in card.get("spec", {}) else card.get("key")


def _baseline(systems: Sequence[System], wanted: str | None) -> System | None:
    named = [s for s in systems if wanted in {record.run_id for record in s.records}]
    networks = [system for system in systems if system.record.kind == "baseline"]
    networks.sort(key=lambda s: (s.record.system != "cnn" or bool(variant_of(s.record)), s.record.created))
    return next(iter(named or networks), None)


def _rows(systems: Sequence[System], baseline: System | None) -> list[Row]:
    """The systems, compared with the baseline as one family. Floors are excluded: they only show that the
    others have learned something, and each of them would make every other comparison less powerful."""
    others = [n for n, s in enumerate(systems) if baseline and s is not baseline and s.category != "floor"]
    against = [n for n, system in enumerate(systems) if system is baseline]
    compared = _compare(systems, [{n: 1, against[0]: -1} for n in others])
    versus = dict(zip(others, compared, strict=True))
    titled = zip(systems, _titles(systems), strict=True)
    return [Row(system, title, versus.get(n)) for n, (system, title) in enumerate(titled)]


def _titles(systems: Sequence[System]) -> list[str]:
    """Distinct titles: systems of equal names also show their settings, or else their run ids."""
    titles = [system.title for system in systems]
    for end_of in (_settings_end, lambda record: f" ({record.run_id.rpartition('-')[2]})"):
        same = Counter(titles)
        both = zip(titles, systems, strict=True)
        titles = [title + end_of(s.record) if same[title] > 1 else title for title, s in both]
    return titles


def _settings_end(record: RunRecord) -> str:
    return f" + {variant_of(record)}" if record.name and variant_of(record) else ""


def _leaky_rows(pairs: Sequence[tuple[System, System]]) -> list[Row]:
    """Systems on leaky splits and their leaks; those that test the same tracks are one family."""
    families = defaultdict(list)
    for system, twin in pairs:
        shared = {*system.predictions[0].track_ids} & {*twin.predictions[0].track_ids}
        families[tuple(sorted(shared))].append((system, twin))
    rows = []
    for track_ids, family in families.items():
        leaks: Sequence[Comparison | None] = [None] * len(family)
        if track_ids:
            flat = [system for pair in family for system in pair]
            leaks = _compare(flat, [{2 * n: 1, 2 * n + 1: -1} for n in range(len(family))], track_ids)
        for (system, twin), leak in zip(family, leaks, strict=True):
            rows.append(Row(system, system.title, twin=twin, leak=leak))
    return sorted(rows, key=lambda row: _order(row.system))


def _compare(
    systems: Sequence[System], contrasts: Sequence[dict[int, int]], track_ids: Sequence[str] = ()
) -> list[Comparison]:
    """The contrasts as one family, on `track_ids` (default: all tracks, which all systems then share)."""
    if not contrasts:
        return []
    first = systems[0].predictions[0]
    if not track_ids:
        for system in systems:
            check_same_tracks(first, system.predictions[0])
        return compare([system.outcomes for system in systems], contrasts, unit_numbers(first))
    outcomes = []
    for system in systems:
        kept = np.isin(system.predictions[0].track_ids, track_ids)  # sorted by id, so tracks stay aligned
        # One name for all splits, since an honest and a leaky split differ in more than the draw of folds.
        names = ("",) * len(system.records)
        outcomes.append(replace(system.outcomes, correct=system.outcomes.correct[:, kept], splits=names))
    groups = np.array(first.groups)[np.isin(first.track_ids, track_ids)]
    return compare(outcomes, contrasts, np.unique(groups, return_inverse=True)[1])


def _candidates(systems: Sequence[System], category: str) -> list[System]:
    own = [system for system in systems if system.category == category]
    return [system for system in own if not system.outcomes.needs_seeds] or own


def _best(systems: Sequence[System]) -> int:
    """The index of the system of highest accuracy."""
    return int(np.argmax([system.scores.accuracy for system in systems]))


def _order(system: System) -> tuple[int, float]:
    return [*CATEGORIES].index(system.category), system.scores.accuracy
