"""The result of `mgc data check` as text for a terminal, Markdown or JSON."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from textwrap import indent

from mgc.data.checking.check import Check, Finding
from mgc.data.dataset import MAX_NAMED
from mgc.util import files
from mgc.util.errors import MgcError, did_you_mean, printable
from mgc.util.text import escape_markdown, markdown_table, text_table
from mgc.workspace import Workspace

FORMATS = ("table", "markdown", "json")


def render(check: Check, form: str) -> str:
    """The findings in one of FORMATS.

    Raises:
        MgcError: the format is unknown.
    """
    if form == "json":
        return check.to_json()
    if form not in FORMATS:
        raise MgcError(f"unknown format {form!r}", fix=did_you_mean(form, FORMATS))
    page = _Page(markdown=form == "markdown")
    page.heading(f"{check.data}: {check.tracks} tracks checked, {check.used} can be used")
    page.lines([f"split {check.split}", *check.notes])
    _excluded(page, check)
    _copies(page, check)
    _remarks(page, check)
    _properties(page, check)
    _classes(page, check)
    _crossing(page, check)
    return page.text()


def save(check: Check, workspace: Workspace) -> None:
    """Write `check.json` and `check.md` to the dataset's folder of results."""
    folder = workspace.results_of(check.data)
    for name, text in (("check.json", check.to_json()), ("check.md", render(check, "markdown"))):
        files.write(folder / name, text + "\n")


def _excluded(page: "_Page", check: Check) -> None:
    excluded = [f for f in check.findings if f.excluded]
    known = sum(bool(f.known) for f in excluded)
    page.heading(f"Excluded: {len(excluded)}" + (f", {known} of them known to be faulty" if known else ""))
    by_detail: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for f in excluded:
        by_detail[f.kind, f.detail].append(f)
    rows = []
    for (kind, detail), same in by_detail.items():
        if len(same) > MAX_NAMED:
            rows.append([f"{len(same)} tracks ({same[0].track_id} ...)", "", kind, detail, ""])
        else:
            rows += [[f.track_id, f.label, kind, detail, f.known and f"known: {f.known}"] for f in same]
    page.table(("track", "label", "kind", "finding", ""), rows)
    if check.kept:
        page.lines([f"used, because the quarantine file says keep: {', '.join(check.kept)}"])


def _copies(page: "_Page", check: Check) -> None:
    crossing = sum(group.crosses_split for group in check.copies)
    page.heading(
        f"Duplicate recordings: {len(check.copies)}, {crossing} of them in several parts of the split"
    )
    rows = [
        [
            _some(group.track_ids),
            group.how + (f": {group.detail}" if group.detail else ""),
            "LEAK" if group.crosses_split else "",
            group.action,
        ]
        for group in check.copies
    ]
    page.table(("tracks", "similarity", "split", "action"), rows)


def _remarks(page: "_Page", check: Check) -> None:
    by_kind: dict[str, list[Finding]] = defaultdict(list)
    for finding in check.findings:
        if not finding.excluded:
            by_kind[finding.kind].append(finding)
    page.heading("Unusual, but used" if by_kind else "Nothing unusual about the other tracks")
    rows = [[kind, len(of), f"{of[0].track_id}: {of[0].detail}"] for kind, of in sorted(by_kind.items())]
    page.table(("kind", "tracks", "example"), rows)


def _properties(page: "_Page", check: Check) -> None:
    if not check.properties:
        return
    chance = check.properties[0].chance
    page.heading(f"Genre predicted from file properties alone (chance: {100 * chance:.0f} %)")
    rows = []
    for p in check.properties:
        rows.append([p.name, f"{100 * p.accuracy:.0f} %", "CONFOUND" if p.confound else "", "all", p.usual])
        if p.confound:
            rows += [["", "", "", label, values] for label, values in p.by_class.items()]
    page.table(("property", "accuracy", "", "genre", "values"), rows)
    for name in (p.name for p in check.properties if p.confound):
        page.lines([f"The {name} differs between genres: a network can learn that instead of the music."])


def _classes(page: "_Page", check: Check) -> None:
    page.heading("Genres")
    columns = ("tracks", "excluded", "artists", "albums")
    rows = [[label, *(counts[column] for column in columns)] for label, counts in check.classes.items()]
    page.table(("genre", *columns), rows)
    sizes = [counts["tracks"] - counts["excluded"] for counts in check.classes.values()]
    if min(sizes, default=0) > 0 and max(sizes) >= 1.5 * min(sizes):
        share = f"the largest genre has {100 * max(sizes) / sum(sizes):.0f} % of the tracks"
        page.lines([f"Unbalanced: {share}. Compare macro-F1 in addition to accuracy."])


def _crossing(page: "_Page", check: Check) -> None:
    page.heading("In several parts of the split")
    page.lines(
        f"{what}: {len(names)}" + (f" ({_some(names)})" if names else "")
        for what, names in check.crossing.items()
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


class _Page:
    """Headings, lines and tables, as Markdown or aligned for a terminal."""

    def __init__(self, markdown: bool) -> None:
        self._markdown = markdown
        self._escape = escape_markdown if markdown else printable
        self._blocks: list[str] = []

    def heading(self, text: str) -> None:
        self._blocks.append(f"{'### ' if self._markdown else ''}{self._escape(text)}")

    def lines(self, lines: Iterable[str]) -> None:
        mark = "- " if self._markdown else "  "
        self._blocks.append("\n".join(f"{mark}{self._escape(line)}" for line in lines))

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        if rows:
            table = markdown_table(header, rows) if self._markdown else indent(text_table(header, rows), "  ")
            self._blocks.append(table)

    def text(self) -> str:
        return ("\n\n" if self._markdown else "\n").join(self._blocks)
