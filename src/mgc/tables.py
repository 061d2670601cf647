"""Runs side by side, made from records alone: who may be compared with whom, and the table in five forms."""

import csv
import io
import json
import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mgc import files
from mgc.config import BaselineRecipe, MgcError, ProbeRecipe, did_you_mean, printable, results_dir
from mgc.evaluate import Difference, Leak, OverSeeds, Predictions, holm, leak, over_seeds, paired
from mgc.representations import RANDOM_PREFIX
from mgc.results import NAMES_ONLY, RunRecord, load_records

WORDS = ("system", "representation", "head", "split", "reported elsewhere")  # columns that hold no numbers
FORMATS = ("table", "markdown", "latex", "csv", "json")
KINDS = {"floor": "floor", "baseline": "network", "probe": "probe"}  # of a path, in the narrow table
REPORTED = "Reported elsewhere"
WIDEST = 34  # characters of words in a cell of the narrow table
SCORES = ("macro_f1", "balanced_accuracy", "roc_auc")  # those with an interval, beside the accuracy


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
        return over_seeds(self.predictions, [record.judged for record in self.records])

    @property
    def title(self) -> str:
        """Name and head."""
        return " + ".join(word for word in (self.record.called, self.record.head) if word)


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

    @property
    def shown(self) -> list[Row]:
        """The rows that tables print: all, or the best of each kind and whatever they are compared with."""
        if self.best is None:
            return self.rows
        place: Counter[tuple[str, bool]] = Counter()
        kept = []
        for row in reversed(self.rows):  # of each kind the best stands last
            kind = row.system.record.path, row.leak is not None
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
    sections = [replace(section, best=best) for section in sections]
    return sorted(sections, key=lambda s: -s.rows[0].system.record.judged.n_tracks)


def _place_of(record: RunRecord) -> tuple[str, str]:
    """Equal for runs that may be compared."""
    return record.data_fingerprint, record.split_fingerprint


def _key(record: RunRecord) -> str:
    """Equal for runs of one system and one recipe, on whatever split of as many tracks, by whatever seed."""
    recipe = {} if record.path == "floor" else _filled(record)  # a floor has nothing to set
    recipe = {key: value for key, value in recipe.items() if key not in {*NAMES_ONLY, "seed"}}
    card = record.representation_card
    # Weights that were drawn are another seed's, not another system's.
    drawn = str(card.get("address")).startswith(RANDOM_PREFIX)
    weights = None if drawn else card.get("weights")
    limit = record.recipe["data"]["limit"]
    return json.dumps([record.system, record.path, recipe, weights, limit], sort_keys=True)


def _filled(record: RunRecord) -> dict[str, Any]:
    """Its recipe, with the defaults of keys that there were not yet when it ran: they changed nothing."""
    kind = BaselineRecipe if record.path == "baseline" else ProbeRecipe
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
    rows = _corrected(rows)
    return Section(rows + sorted(leaky, key=lambda row: _order(row.system)), baseline, superseded)


def _corrected(rows: list[Row]) -> list[Row]:
    """By Holm's correction over all that are compared with the baseline. Floors are not: a floor is there to
    see that the others have learned something, and each would make every other comparison harder to win."""
    family = {n: row.versus for n, row in enumerate(rows) if row.versus and row.system.record.path != "floor"}
    corrected = list(rows)
    for (n, versus), p in zip(family.items(), holm([v.p_value for v in family.values()]), strict=True):
        corrected[n] = replace(rows[n], versus=replace(versus, p_corrected=p))
    return corrected


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
        **{name + end: getattr(scores, name + end) for name in SCORES for end in ("", "_low", "_high")},
        "top2_accuracy": scores.top2_accuracy,
        "log_loss": scores.log_loss,
        "calibration_error": scores.calibration_error,
        "vs_baseline": versus.accuracy_difference if versus else None,
        "vs_baseline_low": versus.low if versus else None,
        "vs_baseline_high": versus.high if versus else None,
        "p_value": versus.p_value if versus else None,
        "p_holm": row.p_holm,
        "verdict": versus.verdict if versus and row.p_holm is not None else None,
        "tracks_needed": versus.tracks_needed if versus and row.p_holm is not None else None,
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


def _grid(lines: list[dict[str, str]], always: Sequence[str]) -> list[list[str]]:
    """Headings, then the lines; columns in which no line says anything are left out."""
    kept = [name for name in lines[0] if name in always or any(line[name] for line in lines)]
    return [kept, *([printable(line[name]) for name in kept] for line in lines)]


def _cells(row: Row) -> dict[str, str]:
    cell, scores = as_dict(row), row.system.scores
    versus, p_value = "", ""
    if row.versus:
        versus = f"{row.versus.accuracy_difference:+.3f} [{row.versus.low:+.3f}, {row.versus.high:+.3f}]"
        p_value = "" if row.p_holm is None else "<0.001" if row.p_holm < 0.001 else f"{row.p_holm:.3f}"
    elif row.leak:
        versus = "not comparable"
    elif row.system.record.path == "baseline":
        versus = "baseline"
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
        "p (Holm)": p_value,
        "trained par.": f"{cell['parameters']:,}",
        "seconds": f"{cell['seconds']:.0f}",
        "reported elsewhere": cell["reported"],
    }


def _narrow_cells(row: Row) -> dict[str, str]:
    """What a terminal of 140 columns has room for."""
    cell, record = _cells(row), row.system.record
    apart = "" if record.representation in record.called else cell["representation"]
    if row.leak:
        cell["vs baseline [95 %]"] = f"{record.split}: LEAKY"
    kept = ("accuracy [95 %]", "over seeds", "macro-F1", "vs baseline [95 %]", "p (Holm)")
    words = {"system": row.system.title, "kind": KINDS[record.path], "input": apart}
    return words | {name: cell[name] for name in kept}


def render(sections: Sequence[Section], form: str) -> str:
    """The table in one of FORMATS.

    Raises:
        MgcError: no such format.
    """
    if form == "json":
        return json.dumps([as_dict(row) for section in sections for row in section.shown], indent=2)
    if form == "csv":
        rows = [as_dict(row) for section in sections for row in section.shown]
        out = io.StringIO()
        writer = csv.DictWriter(out, list(rows[0]) if rows else [], lineterminator="\n")
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
    compared = [row for row in section.rows if row.p_holm is not None]
    lines = [
        f"{first.data}, {scores.n_tracks} tracks, split {first.split}: {first.split_authority}.",
        f"Intervals: 95 % bootstrap over {scores.n_groups} {unit}.",
    ]
    if compared:
        lines[-1] += (
            f" p: exact McNemar against the baseline, by Holm's correction for all systems compared with it "
            f"({len(compared)}); floors are none of these and get no p. Better or worse: p < 0.05 and the "
            "interval of the difference excludes 0."
        )
    if any(row.versus.tracks_needed for row in compared if row.versus):
        each = ", as many to an artist," if unit == "artists" else ""
        lines.append(
            f"Tracks needed: of this kind{each} to show a difference as large as this one, at least 1 point, "
            "by a single two-sided test at 5 % with a power of 80 %."
        )
    if all(_frozen_and_scratch(section)):
        lines.append(
            "Best of several: by accuracy on these very tracks, which flatters it; its p is multiplied by "
            "how many it is the best of, the points and their interval are as they are."
        )
    if any(len(row.system.records) > 1 for row in section.shown):
        lines.append(
            "Rows of several seeds show means over them; over seeds: the deviation of the accuracy from seed "
            "to seed, while the interval is over tracks. Their p: sign-flip test of the shares of seeds."
        )
    if any(row.system.record.reported for row in section.shown):
        lines.append(f"{REPORTED}: by others, on other tracks or splits; compared with nothing here.")
    if first.excluded:
        lines.append(f"{len(first.excluded)} tracks could not be used and are left out everywhere.")
    rules = dict.fromkeys(row.system.record.split_authority for row in section.rows if row.leak)
    lines += [f"{rule}. Such rows stand against no other row." for rule in rules]
    if len(section.shown) < len(section.rows):
        lines.append(
            f"Shown are the {section.best} best of each kind and the baseline, {len(section.shown)} of "
            f"{len(section.rows)} systems; all of them count wherever a number of systems does."
        )
    if section.superseded:
        lines.append(f"{section.superseded} older runs of the same recipes are not shown.")
    return lines


def verdict_sentence(section: Section) -> str:
    """Is a frozen pretrained encoder better than a network from scratch here, by how much, is it real?

    One sentence. Of each side the system of best accuracy, with how many there were to choose from; p is
    multiplied by that number for the side that is ahead (Bonferroni: any of them might have been the best).
    A floor that beats either is named.
    """
    frozen, scratch = _frozen_and_scratch(section)
    if frozen and scratch:
        told = _encoder_against_network(frozen, scratch)
    else:
        sides = {
            "probe of a frozen pretrained encoder": frozen,
            "network from scratch": scratch,
        }
        gone = " and ".join(f"no {name}" for name, side in sides.items() if not side)
        here = "".join(f"; of the other side, {_best(side)}" for side in sides.values() if side)
        told = (
            f"whether a frozen pretrained encoder beats a network from scratch is open: {gone} is here{here}"
        )
    told += _floor_above(section, [side[0] for side in (frozen, scratch) if side])
    if section.rows[0].system.record.leaky:
        told = f"on a split that leaks, {told}"
    return f"{told[0].upper()}{told[1:]}."


def _encoder_against_network(frozen: list[System], scratch: list[System]) -> str:
    gain = paired(frozen[0].predictions, scratch[0].predictions)
    ahead = frozen if gain.accuracy_difference >= 0 else scratch
    p = min(1.0, len(ahead) * gain.p_value)
    gain = replace(gain, p_corrected=p)
    told = {
        "better": "a frozen pretrained encoder is better than a network from scratch here",
        "worse": "a frozen pretrained encoder is worse than a network from scratch here",
    }.get(gain.verdict, f"a frozen pretrained encoder against a network from scratch: {gain.words}")
    over = f" of {gain.n_groups} artists" if gain.interval_unit == "group" else ""
    numbers = f"{_points(gain)}, p = {p:.3g}, on {gain.n_tracks} tracks{over}"
    return f"{told}: {_best(frozen)} against {_best(scratch)}, {numbers}"


def _frozen_and_scratch(section: Section) -> tuple[list[System], list[System]]:
    """Probes of encoders that were trained on something, and networks that learn all they know here, each the
    best first, on the section's own split. Features made by hand and random twins are neither."""

    def best_first(path: str, pretrained: bool) -> list[System]:
        systems = [row.system for row in section.rows if row.leak is None and row.system.record.path == path]
        side = [s for s in systems if _pretrained(s) == pretrained]
        return sorted(side, key=lambda s: -s.scores.accuracy)

    return best_first("probe", True), best_first("baseline", False)


def _pretrained(system: System) -> bool:
    # "nothing" of a feature made by hand, "nothing: random weights, seed 0" of a twin.
    return not str(system.record.representation_card.get("trained_on")).startswith("nothing")


def _best(side: list[System]) -> str:
    """`musicnn + logistic (0.762, the best of 5)`, by its place in front of the others."""
    number = f"the best of {len(side)}" if len(side) > 1 else "the only one"
    return f"{side[0].title} ({side[0].scores.accuracy:.3f}, {number})"


def _floor_above(section: Section, others: list[System]) -> str:
    floors = [row.system for row in section.rows if row.leak is None and row.system.record.path == "floor"]
    if not floors:
        return ""
    floor = max(floors, key=lambda s: s.scores.accuracy)
    beaten = [system.title for system in others if system.scores.accuracy < floor.scores.accuracy]
    more = f", more than {' and '.join(beaten)}"
    return f"; the floor {floor.title} scores {floor.scores.accuracy:.3f}{more}" if beaten else ""


def _points(d: Difference | Leak) -> str:
    return f"{100 * d.accuracy_difference:+.1f} points [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"


def verdicts(section: Section) -> list[str]:
    """A sentence for each system that was set against the baseline, floors apart, and for each leak."""
    sentences = []
    for row in section.shown:
        if row.versus is None or row.p_holm is None or section.baseline is None:
            continue
        ours, theirs = _sentence_name(row.system), _sentence_name(section.baseline)
        numbers = f"{_points(row.versus)}, p = {row.p_holm:.3g}"
        sentences.append(f"{ours} against {theirs}: {row.versus.words}, {numbers}.")
    return sentences + [_leak_sentence(row) for row in section.shown if row.leak]


def _sentence_name(system: System) -> str:
    return f"{system.title} from scratch" if system.record.path == "baseline" else system.title


def _leak_sentence(row: Row) -> str:
    assert row.leak
    assert row.twin
    ours, honest = row.system.record, row.twin.record
    shown = "" if row.leak.low > 0 else ", no leak shown"
    learned = ""
    if honest.learned:  # older records do not tell
        learned = f", {ours.learned:.0f} against {honest.learned:.0f} training tracks"
    return (
        f"LEAKY: {row.system.title} scores {_points(row.leak)} on the {ours.split} "
        f"split over {honest.split}{learned}{shown}."
    )


def _text(section: Section) -> str:
    grid = _grid([_narrow_cells(row) for row in section.shown], ("system", "accuracy [95 %]"))
    rows = [[textwrap.wrap(cell, WIDEST) or [""] for cell in row] for row in grid]  # only words are so long
    widths = [max(len(part) for row in rows for part in row[column]) for column in range(len(grid[0]))]
    lines = []
    for row in rows:
        for height in range(max(map(len, row))):
            parts = [cell[height] if height < len(cell) else "" for cell in row]
            padded = (part.ljust(width) for part, width in zip(parts, widths, strict=True))
            lines.append("  ".join(padded).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    notes = [note for note in caption(section) if not note.startswith(REPORTED)]
    notes.append("More scores and columns: --format markdown, csv or json.")
    sentences = [verdict_sentence(section), "", *notes, "", *verdicts(section)]
    return "\n".join([*lines, "", *map(printable, sentences)]).rstrip()


def _markdown(section: Section) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(map(_escape_markdown, cells))} |"

    headings, *rows = _grid([_cells(row) for row in section.shown], ("system", "accuracy [95 %]"))
    table = [line(headings), line(["---"] * len(headings)), *map(line, rows)]
    sentences = [verdict_sentence(section), "", *caption(section), "", *(f"- {v}" for v in verdicts(section))]
    return "\n".join([*table, "", *map(_escape_markdown, sentences)]).rstrip()


def _escape_markdown(text: str) -> str:
    """What would be a cell's end, a tag, an entity or emphasis becomes itself; `<0.001` is none of these."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", printable(text))
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text).replace("|", "&#124;")
    return re.sub(r"[*`\\]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)


def _latex(section: Section) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(_escape_latex, cells)) + r" \\"

    headings, *rows = _grid([_cells(row) for row in section.shown], ("system", "accuracy [95 %]"))
    return "\n".join(
        [
            *(f"% {printable(sentence)}" for sentence in (verdict_sentence(section), *caption(section))),
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
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
    }
    special |= {"<": r"$<$", ">": r"$>$", "|": r"$|$"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def write_tables(data: str) -> Path:
    """`results/<data>/table.md` and `table.csv` from the records of the data set; not from those that learned
    from fewer tracks a class."""
    folder = results_dir() / data
    whole = [record for record in load_records(data) if not record.recipe["data"].get("per_class")]
    if not whole:
        return folder / "table.md"
    sections = compare_records(whole)
    files.write(folder / "table.csv", render(sections, "csv") + "\n")
    return files.write(folder / "table.md", render(sections, "markdown") + "\n")
