"""The result of `mgc data check` as text for a terminal, Markdown or JSON."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from textwrap import indent

from mgc.data.checking.check import Check, Finding
from mgc.data.dataset import MAX_NAMED
from mgc.util import files
from mgc.util.errors import MgcError, counted, did_you_mean, printable
from mgc.util.text import escape_markdown, listed, markdown_table, text_table
from mgc.workspace import Workspace

FORMATS = ("table", "markdown", "json")
# Heading, lines of text, and the header and rows of a table.
_Section = tuple[str, Sequence[str], Sequence[str], Sequence[Sequence[object]]]


def render(check: Check, form: str) -> str:
    """The findings in one of FORMATS; `MgcError` if there is no such format."""
    if form == "json":
        return json.dumps(asdict(check), indent=2, ensure_ascii=False)
    if form not in FORMATS:
        raise MgcError(f"unknown format {form!r}", fix=did_you_mean(form, FORMATS))
    blocks: list[str] = []
    for heading, lines, header, rows in _sections(check):
        if form == "markdown":
            items = "\n".join(f"- {escape_markdown(line)}" for line in lines)
            blocks += [f"### {escape_markdown(heading)}", markdown_table(header, rows) if rows else "", items]
        else:
            table = indent(text_table(header, rows), "  ") if rows else ""
            blocks += [printable(heading), table, *(f"  {printable(line)}" for line in lines)]
    return ("\n\n" if form == "markdown" else "\n").join(filter(None, blocks))


def save(check: Check, workspace: Workspace) -> None:
    """Write `check.json` and `check.md` to the dataset's folder of results."""
    folder = workspace.results_of(check.data)
    for name, form in (("check.json", "json"), ("check.md", "markdown")):
        files.write(folder / name, render(check, form) + "\n")


def _sections(check: Check) -> Iterator[_Section]:
    heading = f"{check.data}: {counted(check.tracks, 'track')} checked, {check.used} can be used"
    yield heading, [f"split {check.split}", *check.notes], (), ()
    yield _excluded(check)
    yield _copies(check)
    yield _remarks(check)
    if check.properties:
        yield _properties(check)
    yield _classes(check)
    crossing = []
    for what, ids in check.crossing.items():
        known = any(counts[what] for counts in check.classes.values())
        named = f"{len(ids)} ({listed(ids, MAX_NAMED)})" if ids else "none"
        crossing.append(f"{what}: {named if known else 'unknown, so a leak cannot be seen'}")
    yield "In several parts of the split", crossing, (), ()


def _excluded(check: Check) -> _Section:
    by_detail: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for f in check.findings:
        if f.excluded:
            by_detail[f.kind, f.detail].append(f)
    rows = []
    for (kind, detail), same in by_detail.items():
        if len(same) > MAX_NAMED:
            rows.append([f"{len(same)} tracks ({same[0].track_id} ...)", "", kind, detail, ""])
        else:
            rows += [[f.track_id, f.label, kind, detail, f.known and f"known: {f.known}"] for f in same]
    known = [bool(f.known) for f in check.findings if f.excluded]
    heading = f"Excluded: {len(known)}" + (f", {sum(known)} of them known to be faulty" if any(known) else "")
    kept = [f"used, because the quarantine file says keep: {', '.join(check.kept)}"] if check.kept else []
    return heading, kept, ("track", "label", "kind", "finding", ""), rows


def _copies(check: Check) -> _Section:
    crossing = sum(group.crosses_split for group in check.copies)
    rows = []
    for group in check.copies:
        how = f"{group.how}: {group.detail}".removesuffix(": ")
        leak = "LEAK" if group.crosses_split else ""
        rows.append([listed(group.track_ids, MAX_NAMED), how, leak, group.action])
    heading = f"Duplicate recordings: {len(rows)}, {crossing} of them in several parts of the split"
    return heading, (), ("tracks", "similarity", "split", "action"), rows


def _remarks(check: Check) -> _Section:
    by_kind: dict[str, list[Finding]] = defaultdict(list)
    for finding in check.findings:
        if not finding.excluded:
            by_kind[finding.kind].append(finding)
    rows = [[kind, len(of), f"{of[0].track_id}: {of[0].detail}"] for kind, of in sorted(by_kind.items())]
    heading = "Unusual, but used" if rows else "Nothing unusual about the other tracks"
    return heading, (), ("kind", "tracks", "example"), rows


def _properties(check: Check) -> _Section:
    rows, lines = [], []
    for p in check.properties:
        rows.append([p.name, f"{100 * p.accuracy:.0f} %", "CONFOUND" if p.confound else "", "all", p.usual])
        if p.confound:
            rows += [["", "", "", label, values] for label, values in p.by_class.items()]
            text = f"The {p.name} differs between genres: a network can learn that instead of the music."
            lines.append(text)
    chance = f"{100 * check.properties[0].chance:.0f} %"
    heading = f"Genre predicted from file properties alone (chance: {chance})"
    return heading, lines, ("property", "accuracy", "", "genre", "values"), rows


def _classes(check: Check) -> _Section:
    columns = ("tracks", "excluded", "artists", "albums")
    rows = [[label, *(counts[column] for column in columns)] for label, counts in check.classes.items()]
    sizes = [counts["tracks"] - counts["excluded"] for counts in check.classes.values()]
    lines = []
    if min(sizes, default=0) > 0 and max(sizes) >= 1.5 * min(sizes):
        share = f"the largest genre has {100 * max(sizes) / sum(sizes):.0f} % of the tracks"
        lines.append(f"Unbalanced: {share}. Compare macro-F1 in addition to accuracy.")
    return "Genres", lines, ("genre", *columns), rows
