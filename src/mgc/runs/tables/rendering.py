"""Tables of runs as text, Markdown, LaTeX, CSV and JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mgc.runs.record import load_records
from mgc.runs.tables.comparing import CATEGORIES, Row, Section, compare_records
from mgc.runs.tables.sentences import (
    REPORTED,
    caption,
    further_verdicts,
    p_value_text,
    verdict_sentence,
)
from mgc.util import files
from mgc.util.errors import MgcError, printable
from mgc.util.text import csv_table, escape_latex, escape_markdown, markdown_table, text_table
from mgc.workspace import Workspace

WORDS = (
    "system",
    "kind",
    "representation",
    "split",
    "runs",
    "verdict",
    "reported elsewhere",
)  # columns without numbers
FORMATS = ("table", "markdown", "latex", "csv", "json")
WRAP = 25  # characters in a cell of the text table; only words are longer
SCORES = ("macro_f1", "balanced_accuracy", "roc_auc")  # scores with an interval, besides the accuracy
ENDS = ("", "_low", "_high")
DIFFERENCE = dict(zip(ENDS, ("difference", "low", "high"), strict=True))


def render(sections: Sequence[Section], form: str) -> str:
    """The tables in one of FORMATS.

    Raises:
        MgcError: unknown format.
    """
    if form in ("json", "csv"):
        rows = [as_dict(row, section) for section in sections for row in section.shown]
        if form == "json":
            return json.dumps(rows, indent=2)
        return csv_table([row.keys() for row in rows[:1]] + [row.values() for row in rows]).rstrip()
    draw = {"table": _text, "markdown": _markdown, "latex": _latex}.get(form)
    if draw is None:
        raise MgcError(f"unknown format {form!r}", fix=f"use {', '.join(FORMATS)}")
    return "\n\n".join(draw(section) for section in sections)


def as_dict(row: Row, section: Section) -> dict[str, Any]:
    """A row as plain values; the keys are the columns of `--format json` and `csv`.

    Differences, errors and deviations are in units of accuracy, 0..1. `p_value` is corrected for the family
    of `family_size` comparisons; `groups_needed` is for a difference of the section's margin.
    """
    record, scores, versus, records = row.record, row.scores, row.versus, row.system.records
    return {
        "system": row.title,
        "category": row.system.category,
        **{name: getattr(record, name) for name in ("kind", "representation", "head", "split", "leaky")},
        "n_tracks": record.evaluation.n_tracks,
        **{f"accuracy{end}": getattr(scores, f"accuracy{end}") for end in ENDS},
        **{name: getattr(scores, name) for name in ("seeds", "splits", "group_error", "seed_sd", "split_sd")},
        **{name + end: getattr(scores, name + end) for name in SCORES for end in ENDS},
        **{name: getattr(scores, name) for name in ("top2_accuracy", "log_loss", "calibration_error")},
        **{f"vs_baseline{end}": getattr(versus, name, None) for end, name in DIFFERENCE.items()},
        **{name: getattr(versus, name, None) for name in ("p_value", "family_size")},
        "verdict": versus.verdict(section.margin) if versus else None,
        "detectable": versus.detectable if versus else None,
        "groups_needed": versus.groups_needed(section.margin) if versus else None,
        **{f"leak{end}": getattr(row.leak, name, None) for end, name in DIFFERENCE.items()},
        "parameters": record.parameters,
        "seconds": _seconds(row),
        "interval_over": record.evaluation.interval_unit,
        **{name: getattr(record, name) for name in ("reported", "data_hash", "split_hash")},
        "run_id": " ".join(r.run_id for r in records),
    }


def _seconds(row: Row) -> float:
    """Mean over runs."""
    records = row.system.records
    return round(sum(sum(record.seconds.values()) for record in records) / len(records), 1)


def cells(row: Row, section: Section) -> dict[str, str]:
    """A row as formatted text, by column; empty where there is nothing to show."""
    record, scores, versus = row.record, row.scores, row.versus
    difference = "not comparable" if row.twin else "baseline" if row.system is section.baseline else ""
    if versus:
        difference = f"{versus.difference:+.3f} [{versus.low:+.3f}, {versus.high:+.3f}]"
    return {
        "system": row.title,
        "kind": CATEGORIES[row.system.category],
        "representation": record.representation,
        "split": f"{record.split} (LEAKY)" if record.leaky else record.split,
        "runs": row.system.runs_text,
        "± seeds": "" if scores.seed_sd is None else f"{scores.seed_sd:.3f}",
        "± splits": "" if scores.split_sd is None else f"{scores.split_sd:.3f}",
        "accuracy [95 %]": f"{scores.accuracy:.3f} [{scores.accuracy_low:.3f}, {scores.accuracy_high:.3f}]",
        "macro-F1": f"{scores.macro_f1:.3f}",
        "vs baseline [95 %]": difference,
        "p": p_value_text(versus.p_value) if versus else "",
        "verdict": versus.verdict(section.margin) if versus else "",
        "trained par.": f"{record.parameters:,}",
        "seconds": f"{_seconds(row):.0f}",
        "reported elsewhere": record.reported,
    }


def _narrow_cells(row: Row, section: Section) -> dict[str, str]:
    """The columns that fit into a terminal of 140 characters."""
    cell = cells(row, section)
    if row.twin:
        cell["vs baseline [95 %]"] = f"{row.record.split}: LEAKY"
    columns = ("accuracy [95 %]", "runs", "macro-F1", "vs baseline [95 %]", "p", "verdict")
    return {name: cell[name] for name in ("system", "kind", *columns)}


def _grid(lines: list[dict[str, str]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, without empty columns."""
    header = [name for name in lines[0] if any(line[name] for line in lines)]
    return header, [[printable(line[name]) for name in header] for line in lines]


def _text(section: Section) -> str:
    table = text_table(*_grid([_narrow_cells(row, section) for row in section.shown]), wrap=WRAP, rule=True)
    notes = [note for note in caption(section) if not note.startswith(REPORTED)]
    notes.append("More scores and columns: --format markdown, csv or json.")
    sentences = [verdict_sentence(section), "", *notes, "", *further_verdicts(section)]
    return "\n".join([table, "", *map(printable, sentences)]).rstrip()


def _markdown(section: Section) -> str:
    table = markdown_table(*_grid([cells(row, section) for row in section.shown]))
    notes = [verdict_sentence(section), "", *caption(section), ""]
    items = [f"- {escape_markdown(sentence)}" for sentence in further_verdicts(section)]
    return "\n".join([table, "", *map(escape_markdown, notes), *items]).rstrip()


def _latex(section: Section) -> str:
    header, rows = _grid([cells(row, section) for row in section.shown])
    first, *rest = [" & ".join(map(escape_latex, row)) + r" \\" for row in (header, *rows)]
    columns = "".join("l" if name in WORDS else "r" for name in header)
    return "\n".join(
        [
            *(f"% {printable(sentence)}" for sentence in (verdict_sentence(section), *caption(section))),
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule", first, r"\midrule", *rest, r"\bottomrule",
            r"\end{tabular}",
        ]
    )  # fmt: skip


def write_tables(data: str, workspace: Workspace) -> Path:
    """Write `table.md` and `table.csv` of a dataset, from the records of its runs.

    Runs on a limited number of training tracks per class (`per_class`) are not included.
    """
    folder = workspace.results_of(data)
    whole = [record for record in load_records(data, workspace) if not record.recipe["data"].get("per_class")]
    if not whole:
        return folder / "table.md"
    sections = compare_records(whole)
    files.write(folder / "table.csv", render(sections, "csv") + "\n")
    return files.write(folder / "table.md", render(sections, "markdown") + "\n")
