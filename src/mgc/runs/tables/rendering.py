"""Tables of runs as text, Markdown, LaTeX, CSV and JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mgc.runs.record import load_records
from mgc.runs.tables.comparing import Row, Section, compare_records
from mgc.runs.tables.sentences import REPORTED, caption, further_verdicts, verdict_sentence
from mgc.util import files
from mgc.util.errors import MgcError, printable
from mgc.util.text import csv_table, escape_latex, escape_markdown, markdown_table, text_table
from mgc.workspace import Workspace

WORDS = ("system", "representation", "head", "split", "reported elsewhere")  # columns without numbers
FORMATS = ("table", "markdown", "latex", "csv", "json")
KINDS = {"floor": "floor", "baseline": "from scratch", "probe": "probe"}  # kinds of run, as readers see them
WRAP = 34  # characters in a cell of the text table; only words are longer
SCORES = ("macro_f1", "balanced_accuracy", "roc_auc")  # scores with an interval, besides the accuracy
ENDS = ("", "_low", "_high")
DIFFERENCE = dict(zip(ENDS, ("accuracy_difference", "low", "high"), strict=True))


def render(sections: Sequence[Section], form: str) -> str:
    """The tables in one of FORMATS.

    Raises:
        MgcError: unknown format.
    """
    if form in ("json", "csv"):
        rows = [as_dict(row) for section in sections for row in section.shown]
        if form == "json":
            return json.dumps(rows, indent=2)
        return csv_table([row.keys() for row in rows[:1]] + [row.values() for row in rows]).rstrip()
    draw = {"table": _text, "markdown": _markdown, "latex": _latex}.get(form)
    if draw is None:
        raise MgcError(f"unknown format {form!r}", fix=f"use {', '.join(FORMATS)}")
    return "\n\n".join(draw(section) for section in sections)


def as_dict(row: Row) -> dict[str, Any]:
    """A row as plain values; the keys are the columns of `--format json` and `csv`.

    `accuracy_low` and `accuracy_high` are over tracks, `accuracy_deviation` is over seeds.
    """
    record, scores, versus, records = row.record, row.scores, row.versus, row.system.records
    decided = versus if row.p_holm is not None else None
    return {
        "system": record.display_name,
        **{name: getattr(record, name) for name in ("kind", "representation", "head", "split", "leaky")},
        "n_tracks": record.evaluation.n_tracks,
        **{f"accuracy{end}": getattr(scores, f"accuracy{end}") for end in ENDS},
        "seeds": " ".join(str(r.seed) for r in records),
        "accuracy_deviation": scores.seed_sd,
        **{name + end: getattr(scores, name + end) for name in SCORES for end in ENDS},
        **{name: getattr(scores, name) for name in ("top2_accuracy", "log_loss", "calibration_error")},
        **{f"vs_baseline{end}": getattr(versus, name, None) for end, name in DIFFERENCE.items()},
        "p_value": versus.p_value if versus else None,
        "p_holm": row.p_holm,
        "verdict": decided.verdict if decided else None,
        "tracks_needed": decided.tracks_needed if decided else None,
        **{f"leak{end}": getattr(row.leak, name, None) for end, name in DIFFERENCE.items()},
        "parameters": record.parameters,
        "seconds": round(sum(sum(r.seconds.values()) for r in records) / len(records), 1),
        "interval_over": record.evaluation.interval_unit,
        **{name: getattr(record, name) for name in ("reported", "data_hash", "split_hash")},
        "run_id": " ".join(r.run_id for r in records),
    }


def cells(row: Row) -> dict[str, str]:
    """A row as formatted text, by column; empty where there is nothing to show."""
    record, scores, versus, p = row.record, row.scores, row.versus, row.p_holm
    difference = "not comparable" if row.leak else "baseline" if record.kind == "baseline" else ""
    if versus:
        difference = f"{versus.accuracy_difference:+.3f} [{versus.low:+.3f}, {versus.high:+.3f}]"
    return {
        "system": record.display_name,
        "representation": record.representation,
        "head": record.head,
        "split": f"{record.split} (LEAKY)" if record.leaky else record.split,
        "tracks": str(record.evaluation.n_tracks),
        "accuracy [95 %]": f"{scores.accuracy:.3f} [{scores.accuracy_low:.3f}, {scores.accuracy_high:.3f}]",
        "over seeds": f"±{scores.seed_sd:.3f} ({scores.seeds})" if scores.seeds > 1 else "",
        "macro-F1": f"{scores.macro_f1:.3f}",
        "vs baseline [95 %]": difference,
        "p (Holm)": "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}",
        "trained par.": f"{record.parameters:,}",
        "seconds": f"{as_dict(row)['seconds']:.0f}",
        "reported elsewhere": record.reported,
    }


def _narrow_cells(row: Row) -> dict[str, str]:
    """The columns that fit into a terminal of 140 characters."""
    record, cell = row.record, cells(row)
    if row.leak:
        cell["vs baseline [95 %]"] = f"{record.split}: LEAKY"
    shown = {
        "system": row.system.title,
        "kind": KINDS[record.kind],
        "input": "" if record.representation in record.display_name else record.representation,
    }
    columns = ("accuracy [95 %]", "over seeds", "macro-F1", "vs baseline [95 %]", "p (Holm)")
    return shown | {name: cell[name] for name in columns}


def _grid(lines: list[dict[str, str]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, without empty columns."""
    header = [name for name in lines[0] if any(line[name] for line in lines)]
    return header, [[printable(line[name]) for name in header] for line in lines]


def _text(section: Section) -> str:
    table = text_table(*_grid([_narrow_cells(row) for row in section.shown]), wrap=WRAP, rule=True)
    notes = [note for note in caption(section) if not note.startswith(REPORTED)]
    notes.append("More scores and columns: --format markdown, csv or json.")
    sentences = [verdict_sentence(section), "", *notes, "", *further_verdicts(section)]
    return "\n".join([table, "", *map(printable, sentences)]).rstrip()


def _markdown(section: Section) -> str:
    table = markdown_table(*_grid([cells(row) for row in section.shown]))
    notes = [verdict_sentence(section), "", *caption(section), ""]
    items = [f"- {escape_markdown(sentence)}" for sentence in further_verdicts(section)]
    return "\n".join([table, "", *map(escape_markdown, notes), *items]).rstrip()


def _latex(section: Section) -> str:
    header, rows = _grid([cells(row) for row in section.shown])
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
