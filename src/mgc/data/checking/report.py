"""What `mgc data check` found, as a page for a terminal or as a section of a report."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from mgc.data.checking.check import Check, Copies, Finding
from mgc.data.dataset import NAMED
from mgc.util import files
from mgc.util.errors import MgcError, did_you_mean, printable
from mgc.workspace import Workspace

FORMATS = ("table", "markdown", "json")


def render(check: Check, form: str) -> str:
    """The findings in one of FORMATS.

    Raises:
        MgcError: no such format.
    """
    if form == "json":
        return check.to_json()
    if form not in FORMATS:
        raise MgcError(f"there is no format {form!r}", fix=did_you_mean(form, FORMATS))
    page = _Page(markdown=form == "markdown")
    page.heading(f"{check.data}: {check.tracks} tracks looked at, {check.used} can be used")
    page.lines([f"split {check.split}", *check.notes])
    _left_out(page, check)
    _copies(page, check.copies)
    _remarks(page, check)
    _properties(page, check)
    _classes(page, check)
    _crossing(page, check)
    return page.text()


def save(check: Check, workspace: Workspace) -> None:
    """Write `check.json` and `check.md` beside the results of the data set."""
    folder = workspace.results_of(check.data)
    for name, text in (("check.json", check.to_json()), ("check.md", render(check, "markdown"))):
        files.write(folder / name, text + "\n")


def _left_out(page: "_Page", check: Check) -> None:
    out = [f for f in check.findings if f.left_out]
    known = [f for f in out if f.known]
    page.heading(f"Left out: {len(out)}" + (f", {len(known)} of them known to be bad" if known else ""))
    sharing: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for f in out:
        sharing[f.kind, f.detail].append(f)
    rows = []
    for (kind, detail), of in sharing.items():
        if len(of) > NAMED:
            rows.append([f"{len(of)} tracks ({of[0].track_id} ...)", "", kind, detail, ""])
        else:
            rows += [[f.track_id, f.label, kind, detail, f.known and f"known: {f.known}"] for f in of]
    page.table(("track", "label", "kind", "what was found", ""), rows)
    if check.taken_back:
        page.lines([f"used all the same, since the quarantine file says keep: {', '.join(check.taken_back)}"])


def _copies(page: "_Page", copies: Sequence[Copies]) -> None:
    across = sum(group.across for group in copies)
    page.heading(
        f"Recordings that are there more than once: {len(copies)}, {across} of them across the split"
    )
    rows = [
        [
            _some(group.track_ids),
            group.how + (f": {group.detail}" if group.detail else ""),
            "ACROSS" if group.across else "",
            group.done,
        ]
        for group in copies
    ]
    page.table(("tracks", "how alike", "split", "done"), rows)


def _remarks(page: "_Page", check: Check) -> None:
    by_kind: dict[str, list[Finding]] = defaultdict(list)
    for finding in check.findings:
        if not finding.left_out:
            by_kind[finding.kind].append(finding)
    page.heading("Told, and used all the same" if by_kind else "Nothing odd about the others")
    rows = [[kind, str(len(of)), f"{of[0].track_id}: {of[0].detail}"] for kind, of in sorted(by_kind.items())]
    page.table(("what", "tracks", "for example"), rows)


def _properties(page: "_Page", check: Check) -> None:
    if not check.properties:
        return
    chance = check.properties[0].chance
    confounds = [p.name for p in check.properties if p.confound]
    page.heading(f"What tells the genre before a note is heard (guessing: {100 * chance:.0f} %)")
    rows = []
    for p in check.properties:
        rows.append([p.name, f"{100 * p.told:.0f} %", "CONFOUND" if p.confound else "", "all", p.usual])
        if p.confound:
            rows += [["", "", "", label, values] for label, values in p.by_class.items()]
    page.table(("property", "tells", "", "genre", "values"), rows)
    for name in confounds:
        page.lines([f"The {name} differs between genres: a network can learn that instead of the music."])


def _classes(page: "_Page", check: Check) -> None:
    page.heading("Genres")
    columns = ("tracks", "left out", "artists", "albums")
    rows = [[label, *(str(counts[c]) for c in columns)] for label, counts in check.classes.items()]
    page.table(("genre", *columns), rows)
    sizes = [counts["tracks"] - counts["left out"] for counts in check.classes.values()]
    if min(sizes, default=0) > 0 and max(sizes) >= 1.5 * min(sizes):
        share = max(sizes) / sum(sizes)
        page.lines([f"Unbalanced: the largest genre alone is {100 * share:.0f} %. Look at macro-F1 as well."])


def _crossing(page: "_Page", check: Check) -> None:
    page.heading("On two sides of the split")
    for what, names in check.crossing.items():
        page.lines([f"{what}: {len(names)}" + (f" ({_some(names)})" if names else "")])


def _some(names: Iterable[str]) -> str:
    names = [*names]
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


class _Page:
    """Headings, lines and tables, as Markdown or aligned for a terminal."""

    def __init__(self, markdown: bool) -> None:
        self.markdown = markdown
        self._blocks: list[str] = []

    def heading(self, text: str) -> None:
        self._blocks.append(f"### {self._plain(text)}" if self.markdown else self._plain(text))

    def lines(self, lines: Iterable[str]) -> None:
        mark = "- " if self.markdown else "  "
        self._blocks.append("\n".join(f"{mark}{self._plain(line)}" for line in lines))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        if not rows:
            return
        cells = [[self._plain(cell) for cell in row] for row in rows]
        if self.markdown:
            table = [head, ["---"] * len(head), *([c.replace("|", "&#124;") for c in r] for r in cells)]
            self._blocks.append("\n".join(f"| {' | '.join(row)} |" for row in table))
            return
        shown = [[*head], *cells]
        widths = [max(len(row[k]) for row in shown) for k in range(len(head))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in shown]
        self._blocks.append("\n".join(f"  {line}" for line in lines))

    def text(self) -> str:
        return ("\n\n" if self.markdown else "\n").join(self._blocks)

    def _plain(self, text: str) -> str:
        """One line, and no HTML, whatever a name holds."""
        return printable(text).replace("<", "&lt;") if self.markdown else printable(text)
