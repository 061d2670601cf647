"""The table in five forms: text, Markdown, LaTeX, CSV and JSON."""

import csv
import io
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mgc.runs.record import load_records
from mgc.runs.tables.comparing import Row, Section, compare_records
from mgc.runs.tables.sentences import REPORTED, caption, further_verdicts, verdict_sentence
from mgc.util import files
from mgc.util.errors import MgcError, printable
from mgc.util.text import escape_latex, escape_markdown
from mgc.workspace import Workspace

WORDS = ("system", "representation", "head", "split", "reported elsewhere")  # columns that hold no numbers
FORMATS = ("table", "markdown", "latex", "csv", "json")
KINDS = {"floor": "floor", "baseline": "network", "probe": "probe"}  # of a path, in the narrow table
WIDEST = 34  # characters of words in a cell of the narrow table
SCORES = ("macro_f1", "balanced_accuracy", "roc_auc")  # those with an interval, beside the accuracy


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


def as_dict(row: Row) -> dict[str, Any]:
    """A row as plain values, the keys of `--format json` and `csv`.

    `accuracy_low` and `accuracy_high` are over tracks, `accuracy_deviation` is over seeds.
    """
    record, scores, versus = row.system.record, row.system.scores, row.versus
    records = row.system.records
    return {
        "system": record.display_name,
        "kind": record.kind,
        "representation": record.representation,
        "head": record.head,
        "split": record.split,
        "leaky": record.leaky,
        "n_tracks": record.evaluation.n_tracks,
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
        "interval_over": record.evaluation.interval_unit,
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
    elif row.system.record.kind == "baseline":
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
    apart = "" if record.representation in record.display_name else cell["representation"]
    if row.leak:
        cell["vs baseline [95 %]"] = f"{record.split}: LEAKY"
    kept = ("accuracy [95 %]", "over seeds", "macro-F1", "vs baseline [95 %]", "p (Holm)")
    words = {"system": row.system.title, "kind": KINDS[record.kind], "input": apart}
    return words | {name: cell[name] for name in kept}


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
    sentences = [verdict_sentence(section), "", *notes, "", *further_verdicts(section)]
    return "\n".join([*lines, "", *map(printable, sentences)]).rstrip()


def _markdown(section: Section) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(map(escape_markdown, cells))} |"

    headings, *rows = _grid([_cells(row) for row in section.shown], ("system", "accuracy [95 %]"))
    table = [line(headings), line(["---"] * len(headings)), *map(line, rows)]
    further = [f"- {verdict}" for verdict in further_verdicts(section)]
    sentences = [verdict_sentence(section), "", *caption(section), "", *further]
    return "\n".join([*table, "", *map(escape_markdown, sentences)]).rstrip()


def _latex(section: Section) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(escape_latex, cells)) + r" \\"

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


def write_tables(data: str, workspace: Workspace) -> Path:
    """`results/<data>/table.md` and `table.csv` from the records of the data set; not from those that learned
    from fewer tracks a class."""
    folder = workspace.results_of(data)
    whole = [record for record in load_records(data, workspace) if not record.recipe["data"].get("per_class")]
    if not whole:
        return folder / "table.md"
    sections = compare_records(whole)
    files.write(folder / "table.csv", render(sections, "csv") + "\n")
    return files.write(folder / "table.md", render(sections, "markdown") + "\n")
