"""Who may be compared with whom: runs of one recipe are a system, systems on one split a section."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from mgc.config import BaselineRecipe, ProbeRecipe
from mgc.evaluate import Difference, Leak, OverSeeds, Predictions, holm, leak, over_seeds, paired
from mgc.representations import RANDOM_PREFIX
from mgc.runs.record import NAMES_ONLY, RunRecord
from mgc.util.errors import MgcError, did_you_mean


@dataclass(frozen=True)
class System:
    """The runs of one recipe by one code on one split, which differ in their seed alone, in its order."""

    records: tuple[RunRecord, ...]

    @property
    def record(self) -> RunRecord:
        """The first of them, for all that they share."""
        return self.records[0]

    @cached_property
    def predictions(self) -> list[Predictions]:
        """Of each run."""
        return [record.predictions() for record in self.records]

    @cached_property
    def scores(self) -> OverSeeds:
        """Means over the seeds."""
        return over_seeds(self.predictions, [record.evaluation for record in self.records])

    @property
    def title(self) -> str:
        """Name and head."""
        return " + ".join(word for word in (self.record.display_name, self.record.head) if word)


@dataclass(frozen=True)
class Row:
    """One line of the table. `versus` compares with the section's baseline, its p corrected for the section;
    `twin` and `leak`, on a row of a leaky split, with the row of the same system on the section's honest one.
    """

    system: System
    versus: Difference | None = None
    twin: System | None = None
    leak: Leak | None = None

    @property
    def p_holm(self) -> float | None:
        """Of the comparison with the baseline, by Holm's correction for all systems of the section that are
        compared with it; None for floors, which are no part of that family and get no verdict."""
        return self.versus.p_corrected if self.versus else None


@dataclass(frozen=True)
class Section:
    """Systems on one split of one set of tracks: all that may be compared with one another.

    Its last rows may be of a leaky split of the same data, each with its leak measured.
    """

    rows: list[Row]
    baseline: System | None
    superseded: int  # older runs of the same recipes by other code, not shown
    best: int | None = None  # of each kind (floor, baseline, probe, leaky), how many are shown
    told_apart: str = ""  # from a section on as many tracks of the same data, by the same rule

    @property
    def shown(self) -> list[Row]:
        """The rows that tables print: all, or the best of each kind and whatever they are compared with."""
        if self.best is None:
            return self.rows
        place: Counter[tuple[str, bool]] = Counter()
        kept = []
        for row in reversed(self.rows):  # of each kind the best stands last
            kind = row.system.record.kind, row.leak is not None
            place[kind] += 1
            if place[kind] <= self.best or row.system is self.baseline:
                kept.append(row)
        return kept[::-1]


def compare_records(
    records: Sequence[RunRecord], baseline: str | None = None, best: int | None = None
) -> list[Section]:
    """Sections, the one with most tracks first; in each, floors, baselines and probes by accuracy.

    Runs that differ in their seed alone are one row. The baseline of a section is the system with the run
    called `baseline`, else its newest one of that path, with the plain `cnn` before other networks. A system
    on a leaky split stands below itself on an honest one; where it is not, in a section of its own. With
    `best` only so many of each kind are shown, and all are counted.
    """
    if baseline is not None and baseline not in {record.run_id for record in records}:
        names = [record.run_id for record in records]
        raise MgcError(f"no run is called {baseline!r}", fix=did_you_mean(baseline, names))
    systems = systems_of(records)
    honest = {_key(s.record): s for s in systems if not s.record.leaky}
    below, apart = defaultdict(list), defaultdict(list)
    for system in systems:
        twin = honest.get(_key(system.record)) if system.record.leaky else None
        if twin:
            measured = leak(system.predictions, twin.predictions)
            below[_place_of(twin.record)].append(Row(system, twin=twin, leak=measured))
        else:
            apart[_place_of(system.record)].append(system)
    hidden = Counter(_place_of(record) for record in records)
    hidden.subtract(_place_of(record) for system in systems for record in system.records)
    sections = [_section(group, baseline, below[key], hidden[key]) for key, group in apart.items()]
    sections = [replace(section, best=best) for section in _told_apart(sections)]
    return sorted(sections, key=lambda s: -s.rows[0].system.record.evaluation.n_tracks)


def _told_apart(sections: Sequence[Section]) -> Iterator[Section]:
    """Sections that look alike, since labels, audio or artists were changed, each with what it stands on."""

    def looks(section: Section) -> tuple[str, int, str]:
        first = section.rows[0].system.record
        return first.data, first.evaluation.n_tracks, first.split_authority

    alike = Counter(map(looks, sections))
    for section in sections:
        records = [record for row in section.rows for record in row.system.records]
        first, last = records[0], max(record.created for record in records)
        stands_on = (
            f"Labels, audio, artists or sides are not those of another section: tracks "
            f"{first.data_hash}, split {first.split_hash}, last run on {last[:10]}."
        )
        yield replace(section, told_apart=stands_on) if alike[looks(section)] > 1 else section


def _place_of(record: RunRecord) -> tuple[str, str]:
    """Equal for runs that may be compared."""
    return record.data_hash, record.split_hash


def _key(record: RunRecord) -> str:
    """Equal for runs of one system and one recipe, on whatever split of as many tracks, by whatever seed."""
    recipe = {} if record.kind == "floor" else _filled(record)  # a floor has nothing to set
    recipe = {key: value for key, value in recipe.items() if key not in {*NAMES_ONLY, "seed"}}
    card = record.representation_card
    # Weights that were drawn are another seed's, not another system's.
    drawn = str(card.get("address")).startswith(RANDOM_PREFIX)
    weights = None if drawn else card.get("weights")
    limit = record.recipe["data"]["limit"]
    return json.dumps([record.system, record.kind, recipe, weights, limit], sort_keys=True)


def _filled(record: RunRecord) -> dict[str, Any]:
    """Its recipe, with the defaults of keys that there were not yet when it ran: they changed nothing."""
    kind = BaselineRecipe if record.kind == "baseline" else ProbeRecipe
    default = kind().model_dump(mode="json")
    tables = {
        key: {**default[key], **value} for key, value in record.recipe.items() if isinstance(value, dict)
    }
    return {**default, **record.recipe, **tables}


def systems_of(records: Sequence[RunRecord]) -> list[System]:
    """Seeds together. Of each recipe and split only runs by the newest code: others are superseded."""
    groups: dict[tuple[tuple[str, str], str], list[RunRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda r: r.created):
        groups[_place_of(record), _key(record)].append(record)
    systems = []
    for group in groups.values():
        by_seed = {record.seed: record for record in group if _made_by(record) == _made_by(group[-1])}
        systems.append(System(tuple(by_seed[seed] for seed in sorted(by_seed))))
    return systems


def _made_by(record: RunRecord) -> tuple[str, object]:
    return record.code, record.representation_card.get("fingerprint")


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
    """By Holm's correction over all that are compared with the baseline. Floors are not: a floor is there to
    see that the others have learned something, and each would make every other comparison harder to win."""
    family = {n: row.versus for n, row in enumerate(rows) if row.versus and row.system.record.kind != "floor"}
    corrected = list(rows)
    for (n, versus), p in zip(family.items(), holm([v.p_value for v in family.values()]), strict=True):
        corrected[n] = replace(rows[n], versus=replace(versus, p_corrected=p))
    return corrected


def _order(system: System) -> tuple[int, float]:
    return ("floor", "baseline", "probe").index(system.record.kind), system.scores.accuracy
