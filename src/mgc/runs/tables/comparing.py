"""Which runs may be compared: runs of one recipe form a system, systems on one split form a section."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from mgc.config import BaselineRecipe, ProbeRecipe
from mgc.evaluate import Difference, Leak, OverSeeds, Predictions, holm, leak, over_seeds, paired
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
    def scores(self) -> OverSeeds:
        """Scores, averaged over seeds."""
        return over_seeds(self.predictions, [record.evaluation for record in self.records])

    @property
    def title(self) -> str:
        """Name and head, such as `musicnn + logistic`."""
        return self.record.title


@dataclass(frozen=True)
class Row:
    """One row of a table.

    `versus` compares the system with the baseline of the section. On a leaky split, `twin` is the same system
    on the honest split of the section, and `leak` is the difference to it.
    """

    system: System
    versus: Difference | None = None
    twin: System | None = None
    leak: Leak | None = None

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
    distinction: str = ""  # a sentence, if another section has the same dataset, track count and split rule

    @property
    def shown(self) -> list[Row]:
        """The rows that tables print: all of them, or the `best` of each kind and the baseline."""
        if self.best is None:
            return self.rows
        seen: Counter[tuple[str, bool]] = Counter()
        kept = []
        for row in reversed(self.rows):  # within a kind, rows are ordered by ascending accuracy
            kind = row.system.record.kind, row.leak is not None
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
    if baseline is not None and baseline not in {record.run_id for record in records}:
        names = [record.run_id for record in records]
        raise MgcError(f"there is no run {baseline!r} to compare with", fix=did_you_mean(baseline, names))
    systems = systems_of(records)
    honest = {_system_key(s.record): s for s in systems if not s.record.leaky}
    below, apart = defaultdict(list), defaultdict(list)
    for system in systems:
        twin = honest.get(_system_key(system.record)) if system.record.leaky else None
        if twin:
            measured = leak(system.predictions, twin.predictions)
            below[_comparable_key(twin.record)].append(Row(system, twin=twin, leak=measured))
        else:
            apart[_comparable_key(system.record)].append(system)
    hidden = Counter(_comparable_key(record) for record in records)
    hidden.subtract(_comparable_key(record) for system in systems for record in system.records)
    sections = [_section(group, baseline, below[key], hidden[key]) for key, group in apart.items()]
    sections = [replace(section, best=best) for section in _distinguished(sections)]
    return sorted(sections, key=lambda s: -s.rows[0].system.record.evaluation.n_tracks)


def _distinguished(sections: Sequence[Section]) -> Iterator[Section]:
    """The sections; those whose captions would be equal otherwise get a `distinction`."""

    def appearance(section: Section) -> tuple[str, int, str]:
        first = section.rows[0].system.record
        return first.data, first.evaluation.n_tracks, first.split_authority

    alike = Counter(map(appearance, sections))
    for section in sections:
        records = [record for row in section.rows for record in row.system.records]
        first, last = records[0], max(record.created for record in records)
        distinction = (
            "Another table has the same dataset and number of tracks but other labels, audio, artists or "
            f"splits. Here: tracks {first.data_hash}, split {first.split_hash}, last run on "
            f"{last[:10]}."
        )
        yield replace(section, distinction=distinction) if alike[appearance(section)] > 1 else section


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
    kind = BaselineRecipe if record.kind == "baseline" else ProbeRecipe
    default = kind().model_dump(mode="json")
    tables = {
        key: {**default[key], **value} for key, value in record.recipe.items() if isinstance(value, dict)
    }
    return {**default, **record.recipe, **tables}


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


def _section(systems: list[System], wanted: str | None, leaky: list[Row], superseded: int) -> Section:
    candidates = [s for s in systems if s.record.kind == "baseline"]
    candidates.sort(key=lambda s: (s.record.display_name == "cnn", s.record.created))
    named = (s for s in systems if wanted in {record.run_id for record in s.records})
    baseline = next(named, candidates[-1] if candidates else None)
    rows = []
    for system in sorted(systems, key=_order):
        if baseline is None or system is baseline:
            rows.append(Row(system))
        else:
            rows.append(Row(system, paired(system.predictions, baseline.predictions)))
    rows = _corrected(rows)
    return Section(rows + sorted(leaky, key=lambda row: _order(row.system)), baseline, superseded)


def _corrected(rows: list[Row]) -> list[Row]:
    """Holm's correction over all systems that are compared with the baseline.

    Floors are excluded: they only show that the others have learned something, and each of them would make
    every other comparison less powerful.
    """
    family = {n: row.versus for n, row in enumerate(rows) if row.versus and row.system.record.kind != "floor"}
    corrected = list(rows)
    for (n, versus), p in zip(family.items(), holm([v.p_value for v in family.values()]), strict=True):
        corrected[n] = replace(rows[n], versus=replace(versus, p_corrected=p))
    return corrected


def _order(system: System) -> tuple[int, float]:
    return ("floor", "baseline", "probe").index(system.record.kind), system.scores.accuracy
