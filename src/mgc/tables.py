"""Runs side by side, made from records alone: who may be compared with whom, and the table in five forms."""

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mgc.config import MgcError, did_you_mean, results_dir
from mgc.evaluate import Difference, Leak, OverSeeds, Predictions, leak, over_seeds, paired
from mgc.representations import RANDOM_PREFIX
from mgc.results import NAMES_ONLY, RunRecord, load_records

WORDS = ("system", "representation", "head", "split", "reported elsewhere")  # columns that hold no numbers
FORMATS = ("table", "markdown", "latex", "csv", "json")


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
        return over_seeds(self.predictions)

    @property
    def title(self) -> str:
        """Name and head."""
        return " + ".join(word for word in (self.record.called, self.record.head) if word)


@dataclass(frozen=True)
class Row:
    """One line of the table. `versus` compares with the section's baseline; `twin` and `leak`, on a row of a
    leaky split, with the row of the same system on the section's honest one."""

    system: System
    versus: Difference | None = None
    twin: System | None = None
    leak: Leak | None = None


@dataclass(frozen=True)
class Section:
    """Systems on one split of one set of tracks: all that may be compared with one another.

    Its last rows may be of a leaky split of the same data, each with its leak measured.
    """

    rows: list[Row]
    baseline: System | None
    superseded: int  # older runs of the same recipes by other code, not shown


def compare_records(records: Sequence[RunRecord], baseline: str | None = None) -> list[Section]:
    """Sections, the one with most tracks first; in each, floors, baselines and probes by accuracy.

    Runs that differ in their seed alone are one row. The baseline of a section is the system with the run
    called `baseline`, else its newest one of that path, with the plain `cnn` before other networks. A system
    on a leaky split stands below itself on an honest one; where it is not, in a section of its own.
    """
    if baseline is not None and baseline not in {record.run_id for record in records}:
        names = [record.run_id for record in records]
        raise MgcError(f"no run is called {baseline!r}", fix=did_you_mean(baseline, names))
    systems = _systems(records)
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
    return sorted(sections, key=lambda s: -int(s.rows[0].system.record.scores["n_tracks"]))


def _place_of(record: RunRecord) -> tuple[str, str]:
    """Equal for runs that may be compared."""
    return record.data_fingerprint, record.split_fingerprint


def _key(record: RunRecord) -> str:
    """Equal for runs of one system and one recipe, on whatever split of as many tracks, by whatever seed."""
    recipe = {key: value for key, value in record.recipe.items() if key not in {*NAMES_ONLY, "seed"}}
    if record.path == "floor":
        recipe = {}  # a floor has nothing to set
    card = record.representation_card
    # Weights that were drawn are another seed's, not another system's.
    drawn = str(card.get("address")).startswith(RANDOM_PREFIX)
    weights = None if drawn else card.get("weights")
    limit = record.recipe["data"]["limit"]
    return json.dumps([record.system, record.path, recipe, weights, limit], sort_keys=True)


def _systems(records: Sequence[RunRecord]) -> list[System]:
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
    candidates = [s for s in systems if s.record.path == "baseline"]
    candidates.sort(key=lambda s: (s.record.called == "cnn", s.record.created))
    named = (s for s in systems if wanted in {record.run_id for record in s.records})
    baseline = next(named, candidates[-1] if candidates else None)
    rows = []
    for system in sorted(systems, key=_order):
        if baseline is None or system is baseline:
            rows.append(Row(system))
        else:
            rows.append(Row(system, paired(system.predictions, baseline.predictions)))
    return Section(rows + sorted(leaky, key=lambda row: _order(row.system)), baseline, superseded)


def _order(system: System) -> tuple[int, float]:
    return ("floor", "baseline", "probe").index(system.record.path), system.scores.accuracy


def as_dict(row: Row) -> dict[str, Any]:
    """A row as plain values, the keys of `--format json` and `csv`.

    `accuracy_low` and `accuracy_high` are over tracks, `accuracy_deviation` is over seeds.
    """
    record, scores, versus = row.system.record, row.system.scores, row.versus
    records = row.system.records
    return {
        "system": record.called,
        "path": record.path,
        "representation": record.representation,
        "head": record.head,
        "split": record.split,
        "leaky": record.leaky,
        "n_tracks": record.judged.n_tracks,
        "accuracy": scores.accuracy,
        "accuracy_low": scores.accuracy_low,
        "accuracy_high": scores.accuracy_high,
        "seeds": " ".join(str(r.seed) for r in records),
        "accuracy_deviation": scores.accuracy_deviation,
        "macro_f1": scores.macro_f1,
        "vs_baseline": versus.accuracy_difference if versus else None,
        "vs_baseline_low": versus.low if versus else None,
        "vs_baseline_high": versus.high if versus else None,
        "p_value": versus.p_value if versus else None,
        "verdict": versus.verdict if versus else None,
        "leak": row.leak.accuracy_difference if row.leak else None,
        "leak_low": row.leak.low if row.leak else None,
        "leak_high": row.leak.high if row.leak else None,
        "parameters": record.parameters,
        "seconds": round(sum(sum(r.seconds.values()) for r in records) / len(records), 1),
        "interval_over": record.judged.interval_unit,
        "reported": record.reported,
        "data_fingerprint": record.data_fingerprint,
        "split_fingerprint": record.split_fingerprint,
        "run_id": " ".join(r.run_id for r in records),
    }


def _grid(section: Section) -> list[list[str]]:
    """Headings, then a line a row; columns in which no row says anything are left out."""
    lines = [_cells(row) for row in section.rows]
    always = ("system", "accuracy [95 %]")
    kept = [name for name in lines[0] if name in always or any(line[name] for line in lines)]
    return [kept, *([line[name] for name in kept] for line in lines)]


def _cells(row: Row) -> dict[str, str]:
    cell = as_dict(row)
    versus, p_value = "", ""
    if row.versus:
        versus = f"{row.versus.accuracy_difference:+.3f} [{row.versus.low:+.3f}, {row.versus.high:+.3f}]"
        p_value = "<0.001" if row.versus.p_value < 0.001 else f"{row.versus.p_value:.3f}"
    elif row.leak:
        versus = "not comparable"
    elif row.system.record.path == "baseline":
        versus = "baseline"
    scores = row.system.scores
    return {
        "system": cell["system"],
        "representation": cell["representation"],
        "head": cell["head"],
        "split": f"{cell['split']} (LEAKY)" if cell["leaky"] else cell["split"],
        "tracks": str(cell["n_tracks"]),
        "accuracy [95 %]": f"{scores.accuracy:.3f} [{scores.accuracy_low:.3f}, {scores.accuracy_high:.3f}]",
        "over seeds": f"±{scores.accuracy_deviation:.3f} ({scores.seeds})" if scores.seeds > 1 else "",
        "macro-F1": f"{cell['macro_f1']:.3f}",
        "vs baseline [95 %]": versus,
        "p": p_value,
        "trained par.": f"{cell['parameters']:,}",
        "seconds": f"{cell['seconds']:.0f}",
        "reported elsewhere": cell["reported"],
    }


def render(sections: Sequence[Section], form: str) -> str:
    """The table in one of FORMATS.

    Raises:
        MgcError: no such format.
    """
    if form == "json":
        return json.dumps([as_dict(row) for section in sections for row in section.rows], indent=2)
    if form == "csv":
        rows = [as_dict(row) for section in sections for row in section.rows]
        out = io.StringIO()
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue().rstrip()
    draw = {"table": _text, "markdown": _markdown, "latex": _latex}.get(form)
    if draw is None:
        raise MgcError(f"there is no format {form!r}", fix=f"use {', '.join(FORMATS)}")
    return "\n\n".join(draw(section) for section in sections)


def caption(section: Section) -> list[str]:
    """What must be known to read the rows, in sentences."""
    first = section.rows[0].system.record
    scores = first.judged
    unit = "artists" if scores.interval_unit == "group" else "tracks"
    lines = [
        f"{first.data}, {scores.n_tracks} tracks, split {first.split}: {first.split_authority}.",
        f"Intervals: 95 % bootstrap over {scores.n_groups} {unit}. p: exact McNemar against the baseline, "
        "one pair at a time. Better or worse: p < 0.05 and the interval of the difference excludes 0.",
    ]
    if any(len(row.system.records) > 1 for row in section.rows):
        lines.append(
            "Rows of several seeds show means over them; over seeds: the deviation of the accuracy from seed "
            "to seed, while the interval is over tracks. Their p: sign-flip test of the shares of seeds."
        )
    if any(row.system.record.reported for row in section.rows):
        lines.append("Reported elsewhere: by others, on other tracks or splits; compared with nothing here.")
    if first.excluded:
        lines.append(f"{len(first.excluded)} tracks could not be used and are left out everywhere.")
    rules = dict.fromkeys(row.system.record.split_authority for row in section.rows if row.leak)
    lines += [f"{rule}. Such rows stand against no other row." for rule in rules]
    if section.superseded:
        lines.append(f"{section.superseded} older runs of the same recipes are not shown.")
    return lines


def verdicts(section: Section) -> list[str]:
    """A sentence for each system that was set against the baseline."""
    sentences = []
    for row in section.rows:
        if row.versus is None or row.system.record.path == "floor" or section.baseline is None:
            continue
        v, ours, theirs = row.versus, _sentence_name(row.system), _sentence_name(section.baseline)
        points = f"{100 * v.accuracy_difference:+.1f} points [{100 * v.low:+.1f}, {100 * v.high:+.1f}]"
        sentences.append(f"{ours} against {theirs}: {v.verdict} ({points}, p = {v.p_value:.2g}).")
    return sentences + [_leak_sentence(row) for row in section.rows if row.leak]


def _sentence_name(system: System) -> str:
    return f"{system.title} from scratch" if system.record.path == "baseline" else system.title


def _leak_sentence(row: Row) -> str:
    assert row.leak
    assert row.twin
    ours, honest = row.system.record, row.twin.record
    points = [f"{100 * x:+.1f}" for x in (row.leak.accuracy_difference, row.leak.low, row.leak.high)]
    shown = "" if row.leak.low > 0 else ", no leak shown"
    learned = ""
    if honest.learned:  # older records do not tell
        learned = f", {ours.learned:.0f} against {honest.learned:.0f} training tracks"
    return (
        f"LEAKY: {row.system.title} scores {points[0]} points [{points[1]}, {points[2]}] on the {ours.split} "
        f"split over {honest.split}{learned}{shown}."
    )


def _text(section: Section) -> str:
    rows = _grid(section)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", *caption(section), *verdicts(section)])


def _markdown(section: Section) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"

    headings, *rows = _grid(section)
    table = [line(headings), line(["---"] * len(headings)), *map(line, rows)]
    return "\n".join(
        [*table, "", *caption(section), "", *(f"- {sentence}" for sentence in verdicts(section))]
    ).rstrip()


def _latex(section: Section) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(_escape_latex, cells)) + r" \\"

    headings, *rows = _grid(section)
    return "\n".join(
        [
            *(f"% {sentence}" for sentence in caption(section)),
            rf"\begin{{tabular}}{{{''.join('l' if name in WORDS else 'r' for name in headings)}}}",
            r"\toprule",
            line(headings),
            r"\midrule",
            *map(line, rows),
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _escape_latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$"}
    special["±"] = r"$\pm$"
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def write_tables(data: str) -> Path:
    """`results/<data>/table.md` and `table.csv` from the records of the data set; not from those that learned
    from fewer tracks a class."""
    folder = results_dir() / data
    whole = [record for record in load_records(data) if not record.recipe["data"].get("per_class")]
    if not whole:
        return folder / "table.md"
    sections = compare_records(whole)
    (folder / "table.csv").write_text(render(sections, "csv") + "\n", encoding="utf-8")
    (folder / "table.md").write_text(render(sections, "markdown") + "\n", encoding="utf-8")
    return folder / "table.md"
