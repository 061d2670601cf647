"""Which runs may be compared: runs of one recipe form a system, systems on one split form a section."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from mgc.config import BaselineRecipe, ProbeRecipe
from mgc.evaluate import Difference, Leak, OverRuns, Predictions, holm, leak, over_runs, paired
from mgc.runs.record import NAMES_ONLY, RunRecord
from mgc.util.errors import MgcError, did_you_mean


@dataclass(frozen=True)
class System:
    """Runs of one recipe, code version and split that differ only in their seed, ordered by seed."""

    records: tuple[RunRecord, ...]

    @property
    def record(self) -> RunRecord:
        """The first run, for everything that its seeds share."""
        return self.records[0]

    @cached_property
    def predictions(self) -> list[Predictions]:
        """The predictions of each run."""
        return [record.predictions() for record in self.records]

    @cached_property
    def scores(self) -> OverRuns:
        """Scores, averaged over seeds."""
        return over_runs(self.predictions, [record.evaluation for record in self.records])

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(N, C) means over seeds, tracks sorted by id."""
        return np.mean([run.probabilities for run in self.predictions], axis=0)

    @property
    def confusion(self) -> np.ndarray:
        """(C, C) numbers of tracks, means over seeds; rows are the true class, columns the predicted one."""
        return np.mean([record.evaluation.confusion for record in self.records], axis=0)

    def per_class(self, score: str) -> np.ndarray:
        """(C,) means over seeds of "precision", "recall" or "f1"."""
        classes = [record.evaluation.per_class for record in self.records]
        return np.mean([[getattr(one, score) for one in run] for run in classes], axis=0)

    @property
    def title(self) -> str:
        """Name and head, such as `musicnn + logistic`."""
        return self.record.title


@dataclass(frozen=True)
class Row:
    """One row of a table.

    `title` is unique among the rows of a section that are not on a leaky split. `versus` compares the system
    with the baseline of the section. On a leaky split, `twin` is the same system on the honest split of the
    section, and `leak` is the difference to it.
    """

    system: System
    title: str
    versus: Difference | None = None
    twin: System | None = None
    leak: Leak | None = None

    @property
    def record(self) -> RunRecord:
        """The first run of the system."""
        return self.system.record

    @property
    def scores(self) -> OverRuns:
        """The scores of the system."""
        return self.system.scores

    @property
    def p_holm(self) -> float | None:
        """The p value against the baseline, Holm-corrected for all systems of the section that are compared
        with it; None for floors, which are not part of this family and get no verdict."""
        return self.versus.p_corrected if self.versus else None


@dataclass(frozen=True)
class Section:
    """Systems that may be compared with one another: those on one split of one set of tracks.

    The last rows may be systems on a leaky split of the same data, with their leak measured.
    """

    rows: list[Row]
    baseline: System | None
    superseded: int  # older runs of the same recipes by other code, which are not shown
    best: int | None = None  # how many of each kind (floor, baseline, probe, leaky) are shown
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
    def shown(self) -> list[Row]:
        """The rows that tables print: all of them, or the `best` of each kind and the baseline."""
        if self.best is None:
            return self.rows
        seen: Counter[tuple[str, bool]] = Counter()
        kept = []
        for row in reversed(self.rows):  # within a kind, rows are ordered by ascending accuracy
            kind = row.record.kind, row.leak is not None
            seen[kind] += 1
            if seen[kind] <= self.best or row.system is self.baseline:
                kept.append(row)
        return kept[::-1]


def compare_records(
    records: Sequence[RunRecord], baseline: str | None = None, best: int | None = None
) -> list[Section]:
    """Group records into sections, the one with the most tracks first.

    Within a section, floors, baselines and probes follow one another, each ordered by accuracy. Runs that
    differ only in their seed share a row. A system on a leaky split goes into the section with the same
    system on an honest split, if there is one, else into a section of its own.

    Parameters
    ----------
    baseline
        A run id: the system of this run is the baseline of its section. In other sections, and by default,
        it is the newest network called `cnn`, or else the newest network.
    best
        How many rows of each kind tables show. Corrections and counts cover all rows.

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
    below, apart = defaultdict(list), defaultdict(list)
    for system in systems:
        twin = honest.get(_system_key(system.record)) if system.record.leaky else None
        if twin:
            measured = leak(system.predictions, twin.predictions)
            below[_comparable_key(twin.record)].append(Row(system, system.title, twin=twin, leak=measured))
        else:
            apart[_comparable_key(system.record)].append(system)
    hidden = Counter(map(_comparable_key, records))
    hidden.subtract(_comparable_key(record) for system in systems for record in system.records)
    sections = []
    for key, group in apart.items():
        against = _baseline(group, baseline)
        leaky = sorted(below[key], key=lambda row: _order(row.system))
        rows = _rows(sorted(group, key=_order), against) + leaky
        sections.append(Section(rows, against, hidden[key], best))
    alike = Counter(section.appearance for section in sections)
    sections = [replace(section, distinct=alike[section.appearance] == 1) for section in sections]
    return sorted(sections, key=lambda section: -section.first.evaluation.n_tracks)


def _comparable_key(record: RunRecord) -> tuple[str, str]:
    """Equal for runs that may be compared."""
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
    """Group runs that differ only in their seed. Runs of the same recipe by older code are superseded."""
    groups: dict[tuple[tuple[str, str], str], list[RunRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda r: r.created):
        groups[_comparable_key(record), _system_key(record)].append(record)
    systems = []
    for group in groups.values():
        by_seed = {record.seed: record for record in group if _made_by(record) == _made_by(group[-1])}
        systems.append(System(tuple(by_seed[seed] for seed in sorted(by_seed))))
    return systems


def _made_by(record: RunRecord) -> tuple[object, object]:
    return record.revisions, record.representation_card.get("key")


def _baseline(systems: Sequence[System], wanted: str | None) -> System | None:
    networks = [system for system in systems if system.record.kind == "baseline"]
    networks.sort(key=lambda system: (system.record.display_name == "cnn", system.record.created))
    named = [system for system in systems if wanted in {record.run_id for record in system.records}]
    return next(iter(named or networks[-1:]), None)


def _rows(systems: Sequence[System], baseline: System | None) -> list[Row]:
    """The systems compared with the baseline, with Holm's correction over all comparisons.

    Floors are excluded from the correction: they only show that the others have learned something, and each
    of them would make every other comparison less powerful.
    """
    against = baseline.predictions if baseline else []
    others = [n for n, system in enumerate(systems) if baseline and system is not baseline]
    versus = {n: paired(systems[n].predictions, against) for n in others}
    family = [n for n in others if systems[n].record.kind != "floor"]
    for n, p in zip(family, holm([versus[n].p_value for n in family]), strict=True):
        versus[n] = replace(versus[n], p_corrected=p)
    same = Counter(system.title for system in systems)
    rows = []
    for n, system in enumerate(systems):
        end = f" ({system.record.run_id.rpartition('-')[2]})" if same[system.title] > 1 else ""
        rows.append(Row(system, system.title + end, versus.get(n)))
    return rows


def _order(system: System) -> tuple[int, float]:
    return ("floor", "baseline", "probe").index(system.record.kind), system.scores.accuracy
