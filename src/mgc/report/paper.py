"""The paper: at most six A4 pages in Markdown, LaTeX or PDF, every number of which comes from records.

What it says is a list of blocks, made once; each form draws the same blocks. Nothing is concluded: the
discussion is questions that the numbers raise. Names, titles and hypotheses are other people's text: they are
escaped where a block is drawn, and nowhere else.
"""

import csv
import io
import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from mgc.config import MgcError, did_you_mean, printable
from mgc.evaluate import Difference, Leak, paired, roc_aucs, roc_curves
from mgc.report.content import Content, Entry
from mgc.results import NAMES_ONLY, RunRecord
from mgc.tables import Row, caption

FORMS = {"markdown": "paper.md", "latex": "paper.tex", "pdf": "paper.pdf"}
MOST_PAGES = 6
MOST_ROWS = 14  # of the table of systems
MINUS = "\u2212"
MOST_CLASSES = 12  # with a row, a curve or a number in a cell each
METHODS = {  # of those that mgc.evaluate names
    "Dietterich": "Approximate Statistical Tests for Comparing Supervised Classification Learning "
    "Algorithms. Neural Computation 10(7), 1998",
    "Efron & Tibshirani": "An Introduction to the Bootstrap. Chapman & Hall, 1993",
    "Fawcett": "An introduction to ROC analysis. Pattern Recognition Letters 27(8), 2006",
    "Field & Welsh": "Bootstrapping clustered data. Journal of the Royal Statistical Society B 69(3), 2007",
    "Forman & Scholz": "Apples-to-Apples in Cross-Validation Studies. SIGKDD Explorations 12(1), 2010",
    "Holm": "A Simple Sequentially Rejective Multiple Test Procedure. Scandinavian Journal of Statistics "
    "6(2), 1979",
    "Lachin": "Introduction to sample size determination and power analysis for clinical trials. Controlled "
    "Clinical Trials 2(2), 1981",
    "McNemar": "Note on the sampling error of the difference between correlated proportions or percentages. "
    "Psychometrika 12(2), 1947",
    "Phipson & Smyth": "Permutation P-values Should Never Be Zero. Statistical Applications in Genetics and "
    "Molecular Biology 9(1), 2010",
}


# ---- what a paper is made of


@dataclass(frozen=True)
class Heading:
    """Of a section."""

    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph, after a word in bold."""

    text: str
    lead: str = ""


@dataclass(frozen=True)
class Items:
    """A list."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """Lines to be typed."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """`rows[0]` are the headings. `widths` are shares of the text's width of the first columns, which hold
    words; the others hold numbers. `whole` is what `tables/<name>.csv` holds, where it is more."""

    name: str
    caption: str
    rows: list[list[str]]
    widths: tuple[float, ...]
    whole: list[list[str]] | None = None


@dataclass(frozen=True)
class Figure:
    """`figures/<name>.pdf` and `.png`, `height` its share of its width. What is `spare` stays away where
    pages are short, the last one first; its files stay."""

    name: str
    caption: str
    height: float
    spare: bool = False


Block = Heading | Text | Items | Code | Table | Figure


def _ref(kind: str, name: str) -> str:
    """A mention of a table or figure; a number where a paper is drawn."""
    return f"\ue000{kind}:{name}\ue001"  # private characters, which `plain` lets nobody else use


def plain(text: object) -> str:
    """Other people's text as one line without control characters."""
    return printable(" ".join(str(text).split()))


# ---- the three forms


def write_paper(content: Content, form: str, folder: Path) -> Path:
    """Write `paper.md`, `paper.tex` or `paper.pdf` into `folder`, with `figures/` and `tables/` beside it.

    The same records give the same bytes.

    Raises:
        MgcError: no such form, or records that cannot be read.
    """
    return write_papers(content, (form,), folder)[0]


def write_papers(content: Content, forms: Sequence[str], folder: Path) -> list[Path]:
    """`write_paper` in several forms, of which tables and figures are drawn once."""
    if unknown := [form for form in forms if form not in FORMS]:
        raise MgcError(f"there is no form {unknown[0]!r} of a paper", fix=did_you_mean(unknown[0], FORMS))
    title, blocks = _title(content), blocks_of(content)
    _write_tables(blocks, folder / "tables")
    _draw_figures(content, blocks, folder / "figures")
    pdf, pages = _pdf(blocks, title, folder)
    spare = [block for block in blocks if isinstance(block, Figure) and block.spare]
    while pages > MOST_PAGES and spare:
        gone = spare.pop()
        blocks = [block for block in blocks if block is not gone]
        pdf, pages = _pdf(blocks, title, folder)
    written = []
    for form in forms:
        text = {"markdown": _markdown, "latex": _latex}.get(form)
        written.append(folder / FORMS[form])
        written[-1].write_bytes(text(blocks, title).encode("utf-8") if text else pdf)
    return written


def _write_tables(blocks: Sequence[Block], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for block in blocks:
        if isinstance(block, Table):
            rows = [[cell.replace(MINUS, "-") for cell in row] for row in block.whole or block.rows]
            with (folder / f"{block.name}.csv").open("w", encoding="utf-8", newline="") as out:
                csv.writer(out, lineterminator="\n").writerows(rows)


def _numbered(blocks: Sequence[Block]) -> dict[str, str]:
    """`table:systems` and the like to "Table 2"."""
    tables = [block.name for block in blocks if isinstance(block, Table)]
    figures = [block.name for block in blocks if isinstance(block, Figure)]
    known = {f"table:{name}": f"Table {number}" for number, name in enumerate(tables, 1)}
    return known | {f"figure:{name}": f"Figure {number}" for number, name in enumerate(figures, 1)}


def _drawn(text: str, escaped: Callable[[str], str], mentions: dict[str, str]) -> str:
    """`text` escaped, with its mentions; what is left out goes by its file."""
    parts = re.split("\ue000(.*?)\ue001", text)
    parts[::2] = map(escaped, parts[::2])
    parts[1::2] = [mentions.get(key) or escaped(f"figures/{key.split(':')[1]}.pdf") for key in parts[1::2]]
    return "".join(parts)


def _markdown(blocks: Sequence[Block], title: str) -> str:
    known = _numbered(blocks)

    def text(said: str) -> str:
        shown = _drawn(said, _escape_markdown, known)
        return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", shown)  # else it would begin a list or a rule

    def row(cells: Sequence[str]) -> str:
        return f"| {' | '.join(map(text, cells))} |"

    parts, section = [f"# {text(title)}", "Author: ________________"], 0
    for block in blocks:
        match block:
            case Heading():
                section += 1
                parts.append(f"## {section} {text(block.text)}")
            case Text():
                parts.append((f"**{block.lead}** " if block.lead else "") + text(block.text))
            case Items():
                parts.append("\n".join(f"- {text(item)}" for item in block.items))
            case Code():
                parts.append("\n".join(f"    {line}" for line in block.lines))
            case Table():
                words = len(block.widths)
                rule = "|" + " --- |" * words + " ---: |" * (len(block.rows[0]) - words)
                parts.append(f"{known[f'table:{block.name}']}: {text(block.caption)}")
                parts.append("\n".join([row(block.rows[0]), rule, *map(row, block.rows[1:])]))
            case Figure():
                said = f"{known[f'figure:{block.name}']}: {text(block.caption)}"
                parts += [f"![{said}](figures/{block.name}.png)", said]
    return "\n\n".join(parts) + "\n"


def _escape_markdown(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|$~#])", r"\\\1", text)


LATEX_HEAD = r"""\documentclass[10pt,a4paper]{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage{lmodern}
\usepackage[margin=2.3cm]{geometry}
\usepackage{array,booktabs,graphicx}
\usepackage[hidelinks]{hyperref}
\setlength{\tabcolsep}{4pt}
\title{%s}
\author{\rule{6cm}{0.4pt}}
\date{}
\begin{document}
\maketitle
"""
LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "`": r"\textasciigrave{}", '"': r"\textquotedbl{}",
    "±": r"$\pm$", "×": r"$\times$", "−": "$-$",
}  # fmt: skip


def _latex(blocks: Sequence[Block], title: str) -> str:
    mentions = {key: rf"{words.split()[0]}~\ref{{{key}}}" for key, words in _numbered(blocks).items()}

    def text(said: str) -> str:
        return _drawn(said, _escape_latex, mentions)

    def floating(kind: str, block: Table | Figure, *lines: str) -> str:
        begin = [rf"\begin{{{kind}}}[htbp]", r"\centering", rf"\caption{{{text(block.caption)}}}"]
        return "\n".join([*begin, rf"\label{{{kind}:{block.name}}}", *lines, rf"\end{{{kind}}}"])

    parts = [LATEX_HEAD % text(title)]
    for block in blocks:
        match block:
            case Heading():
                parts.append(rf"\section{{{text(block.text)}}}")
            case Text():
                parts.append((rf"\textbf{{{block.lead}}} " if block.lead else "") + text(block.text))
            case Items():
                # The braces keep an item that begins with a bracket from being the item's label.
                lines = [rf"\item {{}}{text(item)}" for item in block.items]
                parts.append("\n".join([r"\begin{itemize}", *lines, r"\end{itemize}"]))
            case Code():
                lines = [rf"\texttt{{{text(line)}}}\\" for line in block.lines]
                parts.append("\n".join([r"\begin{flushleft}\small", *lines, r"\end{flushleft}"]))
            case Table():
                words = [rf">{{\raggedright\arraybackslash}}p{{{w:.2f}\linewidth}}" for w in block.widths]
                columns = "".join(words) + "r" * (len(block.rows[0]) - len(words))
                begin = rf"\footnotesize\begin{{tabular}}{{{columns}}}"
                first, *rest = [rf"{{}}{' & '.join(map(text, row))} \\" for row in block.rows]
                lines = [begin, r"\toprule", first, r"\midrule", *rest, r"\bottomrule", r"\end{tabular}"]
                parts.append(floating("table", block, *lines))
            case Figure():
                picture = rf"\includegraphics[width=\linewidth]{{figures/{block.name}.pdf}}"
                parts.append(floating("figure", block, picture))
    return "\n\n".join([*parts, r"\end{document}"]) + "\n"


def _escape_latex(text: str) -> str:
    """Characters that T1 fonts lack go by their numbers; two alike are kept from becoming one sign."""
    shown = "".join(LATEX.get(c) or (c if _in_t1(c) else f"[U+{ord(c):04X}]") for c in text)
    return re.sub(r"([-',])(?=\1)", r"\1{}", shown)


def _in_t1(c: str) -> bool:
    """The Latin letters of Western and Central Europe."""
    return c.isascii() or ("\u00a1" <= c <= "\u017e" and c not in "ĦħĸĿŀŉŦŧ\u00ad")


# ---- PDF


@cache
def _fonts() -> tuple[frozenset[int], frozenset[int]]:
    """Registers the fonts that come with matplotlib; what a serif has, and a sans for what that lacks."""
    import matplotlib as mpl
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    folder, known = Path(mpl.get_data_path()) / "fonts" / "ttf", {}
    files = {"Serif": "STIXGeneral", "Bold": "STIXGeneralBol", "Mono": "DejaVuSansMono", "Sans": "DejaVuSans"}
    for name, file in files.items():
        font = TTFont(name, str(folder / f"{file}.ttf"))
        pdfmetrics.registerFont(font)
        known[name] = frozenset(font.face.charToGlyph)
    return known["Serif"] & known["Bold"] & known["Mono"], known["Sans"]


def _visible(text: str) -> str:
    """What no font has goes by its number."""
    serif, sans = _fonts()
    return "".join(c if ord(c) in serif or ord(c) in sans else f"[U+{ord(c):04X}]" for c in text)


def _rich(text: str) -> str:
    """reportlab's markup of a text, the sans where the serif lacks a character."""
    serif, _ = _fonts()
    runs = [
        (known, escape("".join(run))) for known, run in groupby(_visible(text), lambda c: ord(c) in serif)
    ]
    return "".join(run if known else f'<font name="Sans">{run}</font>' for known, run in runs)


def _pdf(blocks: Sequence[Block], title: str, folder: Path) -> tuple[bytes, int]:  # noqa: PLR0915
    """The bytes, and how many pages."""
    _fonts()
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.platypus import Image, KeepTogether, Paragraph, SimpleDocTemplate, Spacer
    from reportlab.platypus import Table as Grid

    known, margin, left, centre, right, justified = _numbered(blocks), 62, 0, 1, 2, 4
    width, height = A4[0] - 2 * margin - 12, A4[1] - 2 * margin - 12  # a frame pads by 6 points
    body = ParagraphStyle("", fontName="Serif", fontSize=10, leading=12.2, alignment=justified, spaceAfter=5)
    item = ParagraphStyle("", body, leftIndent=11, bulletIndent=2, spaceAfter=2)
    head = ParagraphStyle("", body, fontName="Bold", fontSize=12, leading=15, spaceBefore=7, alignment=left)
    small = ParagraphStyle("", body, fontSize=8.7, leading=10.4, spaceBefore=3)
    cell = ParagraphStyle("", body, fontSize=8.3, leading=9.6, alignment=left, spaceAfter=0)
    number = ParagraphStyle("", cell, alignment=right)
    code = ParagraphStyle("", cell, fontName="Mono", fontSize=7.4, leftIndent=11)
    name = ParagraphStyle("", head, fontSize=16, leading=20, alignment=centre, spaceAfter=8)

    def text(said: str, style: Any = body, lead: str = "", bullet: str | None = None) -> Any:
        bold = f'<font name="Bold">{escape(lead)}</font> ' if lead else ""
        return Paragraph(bold + _drawn(said, _rich, known), style, bulletText=bullet)

    def grid(table: Table) -> Any:
        words = len(table.widths)
        longest = [max(map(len, column)) + 2 for column in list(zip(*table.rows, strict=True))[words:]]
        own = [(1 - sum(table.widths)) * length / sum(longest) for length in longest]
        lines = [
            [text(said, cell if c < words else number) for c, said in enumerate(row)] for row in table.rows
        ]
        style = [("LINEABOVE", (0, 0), (-1, 0), 0.9, "black"), ("LINEBELOW", (0, 0), (-1, 0), 0.5, "black"),
                 ("LINEBELOW", (0, -1), (-1, -1), 0.9, "black"), ("VALIGN", (0, 0), (-1, -1), "TOP"),
                 ("TOPPADDING", (0, 0), (-1, -1), 1.2), ("BOTTOMPADDING", (0, 0), (-1, -1), 1.6),
                 ("LEFTPADDING", (0, 0), (-1, -1), 2), ("RIGHTPADDING", (0, 0), (-1, -1), 2)]  # fmt: skip
        return Grid(lines, [width * share for share in (*table.widths, *own)], style=style)

    story, section = (
        [text(title, name), text("Author: " + 30 * "_", ParagraphStyle("", body, alignment=centre))],
        0,
    )
    floats = []
    for block in blocks:
        match block:
            case Heading():
                section += 1
                story.append(text(f"{section}  {block.text}", head))
                story[-1].keepWithNext = True
            case Text():
                story.append(text(block.text, lead=block.lead))
            case Items():
                story += [text(one, item, bullet="\u2022") for one in block.items] + [Spacer(1, 3)]
            case Code():
                story += [text(line, code) for line in block.lines] + [Spacer(1, 4)]
            case Table():
                said = text(f"{known[f'table:{block.name}']}: {block.caption}", small)
                story.append(KeepTogether([said, grid(block), Spacer(1, 9)]))
                floats.append(story[-1])
            case Figure():
                picture = Image(str(folder / "figures" / f"{block.name}.png"), width, width * block.height)
                said = text(f"{known[f'figure:{block.name}']}: {block.caption}", small)
                story.append(KeepTogether([picture, said, Spacer(1, 6)]))
                floats.append(story[-1])

    def foot(canvas: Any, page: Any) -> None:
        canvas.setFont("Serif", 8.5)
        canvas.drawCentredString(A4[0] / 2, 36, str(page.page))

    out, sides = (
        io.BytesIO(),
        dict.fromkeys(("leftMargin", "rightMargin", "topMargin", "bottomMargin"), margin),
    )
    paper = SimpleDocTemplate(out, pagesize=A4, title=_visible(title), author="", invariant=1, **sides)
    paper.build(_arranged(story, floats, width, height), onFirstPage=foot, onLaterPages=foot)
    return out.getvalue(), int(paper.page)


def _arranged(story: Sequence[Any], floats: Sequence[Any], width: float, height: float) -> list[Any]:
    """Tables and figures that the rest of a page is too low for come after the text that fills it."""
    placed: list[Any] = []
    waiting: list[Any] = []
    free = height
    for part in story:
        if any(part is one for one in floats):
            waiting.append(part)
        else:
            placed.append(part)
            free -= part.wrap(width, height)[1] + part.getSpaceBefore() + part.getSpaceAfter()
        free += height * (free < 0)
        while waiting and not getattr(placed[-1], "keepWithNext", False):
            need = sum(one.wrap(width, height)[1] + 6 for one in waiting[0]._content)
            if need > free:
                break
            placed.append(waiting.pop(0))
            free -= need
    return placed + waiting


# ---- figures

STYLE: Any = {
    "font.family": ["STIXGeneral", "DejaVu Sans"],
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a dollar in a name is a dollar
}
WIDE = 6.46  # inches, the width of the text
COLOURS = {"floor": "#7f7f7f", "baseline": "#0072b2", "probe": "#d55e00"}  # colour-blind safe: Okabe and Ito
MARKS = {"floor": "s", "baseline": "o", "probe": "D"}
KINDS = {"floor": "floor", "baseline": "from scratch", "probe": "probe"}


def _draw_figures(content: Content, blocks: Sequence[Block], folder: Path) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    draw = {"accuracies": _accuracies, "confusion": _confusion, "roc": _roc, "curves": _curves}
    folder.mkdir(parents=True, exist_ok=True)
    for block in blocks:
        if isinstance(block, Figure):
            with mpl.rc_context(STYLE):
                canvas = Canvas(figsize=(WIDE, WIDE * block.height), layout="constrained")
                draw[block.name](canvas, content)
                canvas.savefig(folder / f"{block.name}.pdf", metadata={"CreationDate": None})
                canvas.savefig(folder / f"{block.name}.png", dpi=300, metadata={"Software": None})


def _accuracies(canvas: Any, content: Content) -> None:
    axis, rows = canvas.subplots(), shown_rows(content)
    for place, entry in enumerate(rows):
        s = entry.row.system.scores
        axis.plot([s.accuracy_low, s.accuracy_high], [place, place], color=COLOURS[entry.path], lw=1.3)
        axis.plot(s.accuracy, place, MARKS[entry.path], color=COLOURS[entry.path], ms=4.5)
    for path in dict.fromkeys(entry.path for entry in rows):
        axis.plot([], [], MARKS[path], color=COLOURS[path], ms=4.5, label=KINDS[path])
    if content.baseline:
        axis.axvline(content.baseline.accuracy, color="black", lw=0.7, ls=(0, (4, 3)), zorder=0)
    axis.set_yticks(range(len(rows)), [_short(entry.title, 46) for entry in rows])
    axis.set(xlabel="accuracy", ylim=(-0.7, len(rows) - 0.3))
    axis.grid(axis="x", alpha=0.25)
    axis.legend(frameon=False, loc="upper left", fontsize=8.5)


def _short(text: str, most: int) -> str:
    return _visible(_clipped(text, most))


def _confusion(canvas: Any, content: Content) -> None:
    names = [_short(label, 14) for label in content.classes]
    few = len(names) <= MOST_CLASSES
    for axis, entry in zip(np.ravel(canvas.subplots(1, 2)), pair_of(content), strict=False):
        percent = 100 * entry.confusion / np.maximum(entry.confusion.sum(axis=1, keepdims=True), 1)
        axis.imshow(percent, cmap="Blues", vmin=0, vmax=100)
        for (i, j), value in np.ndenumerate(percent if few else np.zeros((0, 0))):
            colour = "white" if value > 55 else "black"
            axis.text(j, i, f"{value:.0f}", ha="center", va="center", color=colour)
        axis.set_title(_short(entry.title, 44), fontsize=9.5)
        size = 8.5 if few else max(2.0, min(7.0, 130 / len(names)))
        axis.set_xticks(
            range(len(names)),
            names,
            rotation=35 if few else 90,
            ha="right" if few else "center",
            fontsize=size,
        )
        axis.set_yticks(range(len(names)), names, fontsize=size)
        axis.set(xlabel="said", ylabel="labelled")
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
    _hide_unused(canvas)


def _roc(canvas: Any, content: Content) -> None:
    styles = ["-", "--", "-.", ":"]  # for those who see no colours
    colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999"]
    for axis, entry in zip(np.ravel(canvas.subplots(1, 2)), pair_of(content), strict=False):
        run = entry.row.system.predictions[0]
        areas = dict(zip(run.classes, roc_aucs(run), strict=True))
        for number, (label, (wrong, right)) in enumerate(roc_curves(run).items()):
            named = f"{_short(label, 16)} {areas[label]:.3f}" if len(areas) <= MOST_CLASSES else None
            style = {"ls": styles[number % 4], "color": colours[number % 8]}
            axis.plot(wrong, right, lw=1.2, label=named, **style)
        axis.plot([0, 1], [0, 1], color="#bbbbbb", lw=0.7, zorder=0)
        axis.set_title(_short(entry.title, 44), fontsize=9.5)
        axis.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
        if len(areas) <= MOST_CLASSES:
            axis.legend(title="area", frameon=False, loc="lower right", fontsize=8, title_fontsize=8)
    _hide_unused(canvas)


def _hide_unused(canvas: Any) -> None:
    for axis in canvas.axes:
        axis.set_visible(axis.has_data())


def _curves(canvas: Any, content: Content) -> None:
    curves = _trained(content)[0].curves
    assert curves is not None
    sides = (("loss", "loss (nats)"), ("accuracy", "accuracy"))
    for axis, (quantity, label_) in zip(canvas.subplots(1, 2), sides, strict=True):
        for side, said, colour in (("train", "training", "#999999"), ("val", "validation", "#0072b2")):
            for number, (_, fold) in enumerate(curves.groupby("fold")):
                label = said if number == 0 else None
                axis.plot(fold["epoch"] + 1, fold[f"{side}_{quantity}"], color=colour, lw=0.8, label=label)
        best = curves[curves["best"]]
        axis.plot(best["epoch"] + 1, best[f"val_{quantity}"], "o", color="#d55e00", ms=4, label="epoch kept")
        axis.set(xlabel="epoch", ylabel=label_)
        axis.grid(alpha=0.25)
    canvas.axes[0].legend(frameon=False, fontsize=8.5)


# ---- which systems it shows


def pair_of(content: Content) -> list[Entry]:
    """The best system from scratch and the best probe, those there are; else the best of all. Of probes those
    of encoders that have learned something come first."""
    probes = [entry for entry in content.systems if entry.path == "probe"]
    probes = [entry for entry in probes if _learned(entry.record)] or probes
    found = [content.best("baseline"), max(probes, key=lambda entry: entry.accuracy, default=None)]
    return [entry for entry in found if entry] or [max(content.systems, key=lambda entry: entry.accuracy)]


def _learned(record: RunRecord) -> bool:
    return record.representation_card.get("trained_on") not in ("nothing", None)


def shown_rows(content: Content) -> list[Entry]:
    """Rows of the main table: the best floors, the baseline, then by turns the best of each network and of
    each probed representation, up to MOST_ROWS; in the order of the whole table."""
    chosen = [entry for entry in content.systems if entry.path == "floor"][-3:]
    chosen += [content.baseline] if content.baseline else []
    for turn in zip_longest(_families(content, "probe"), _families(content, "baseline")):
        chosen += [entry for entry in turn if entry and entry not in chosen]
    titles = {entry.title for entry in chosen[:MOST_ROWS]}
    return [entry for entry in content.systems if entry.title in titles]


def _families(content: Content, path: str) -> list[Entry]:
    """The best of each network, or of each probed representation; the best family first."""
    best: dict[str, Entry] = {}
    for entry in sorted((e for e in content.systems if e.path == path), key=lambda entry: entry.accuracy):
        record = entry.record
        best[str(record.recipe.get("network")) if path == "baseline" else record.representation] = entry
    return sorted(best.values(), key=lambda entry: -entry.accuracy)


def _trained(content: Content) -> list[Entry]:
    """The best network from scratch, if its curves are there."""
    best = content.best("baseline")
    return [best] if best and best.curves is not None else []


# ---- what it says


def blocks_of(content: Content) -> list[Block]:
    """The paper, from hypotheses to references."""
    return [
        Text(plain(content.verdict), "Summary."),
        *_hypotheses(content),
        *_data(content),
        *_systems(content),
        *_setup(content),
        *_results(content),
        Heading("Discussion"),
        Text("Questions that the numbers raise; the answers are the author's."),
        Items(tuple(_questions(content))),
        Heading("Threats to validity"),
        Items(tuple(_threats(content))),
        Heading("How to repeat it"),
        *_commands(content),
        Heading("References"),
        Items(tuple(_references(content))),
    ]


def _title(content: Content) -> str:
    kinds = {"baseline": "networks trained from scratch", "probe": "heads on fixed representations"}
    there = [words for path, words in kinds.items() if any(entry.path == path for entry in content.systems)]
    return f"Music genres of {plain(content.data)}: {' and '.join(there) or 'floors'}"


def _hypotheses(content: Content) -> Iterator[Block]:
    asked = [entry for entry in shown_rows(content) if entry.path != "floor"]
    told = [f"{plain(e.title)}: {_clipped(e.record.hypothesis, 240)}" for e in asked if e.record.hypothesis]
    yield Heading("Hypotheses")
    yield Text(
        f"{len(told)} of the {len(asked)} recipes behind {_ref('table', 'systems')} state one; all are "
        "measured by "
        "the accuracy on test tracks, set against that of the baseline."
    )
    yield from [Items(tuple(told))] if told else []


def _data(content: Content) -> Iterator[Block]:
    record = content.first
    known = "" if record.judged.interval_unit == "group" else " (those of unknown artist count as one each)"
    yield Heading("Data and preprocessing")
    yield Text(
        f"{plain(content.data)}: {record.judged.n_tracks} tested tracks of {len(content.classes)} genres by "
        f"{record.judged.n_groups} artists{known}, see {_ref('table', 'genres')}. Split "
        f"{plain(record.split)}: "
        f"{plain(record.split_authority)}; {record.learned:.0f} training tracks a fold. Licence: "
        f"{plain(record.licence or 'not stated')}. {_left_out(record)} {_found(content)} Fingerprints: "
        "tracks "
        f"{record.data_fingerprint}, split {record.split_fingerprint}."
    )
    cards = {e.record.representation: e.record.representation_card for e in shown_rows(content)}
    heard = [f"{plain(name)} ({_heard(card)})" for name, card in cards.items() if card.get("cut")]
    yield Text(
        "One loader decodes, mixes down and resamples every file, whatever the system; windows cover "
        "whole tracks, "
        f"and padding is not pooled. Inputs: {'; '.join(heard)}."
    )


def _heard(card: dict[str, Any]) -> str:
    rate, window, width = card["cut"]["sample_rate_hz"], card["cut"]["window"], card["layers"][-1]["dim"]
    return f"{rate / 1000:g} kHz, windows of {window / rate:.3g} s, {width} values"


def _left_out(record: RunRecord) -> str:
    why = [f"{bad.get('track_id', '')}: {bad.get('reason', '')}" for bad in record.excluded]
    said = f"{len(why)} tracks cannot be used and are left out for every system ({_few(why)})."
    return said if why else "No track is left out."


def _found(content: Content) -> str:
    if not content.check:
        return "The audio was not checked for copies and faults (mgc data check)."
    told = Counter(one["kind"] for one in content.check.get("findings", ()) if not one.get("left_out"))
    faults = ", ".join(f"{plain(kind)} {count}" for kind, count in sorted(told.items()))
    copies = len(content.check.get("copies", ()))
    return f"Its check found {copies} recordings more than once; tracks told of and used: {faults or 'none'}."


def _systems(content: Content) -> Iterator[Block]:
    base = content.baseline
    yield Heading("Systems")
    yield Text(
        (f"The baseline is {plain(base.title)}, trained from scratch. " if base else "There is no baseline. ")
        + "Of a network validation chooses the epoch. Encoders are frozen: they run once over every "
        "track, and a "
        "small head learns from pooled vectors, its strength chosen on the same validation tracks. "
        f"{_ref('table', 'setup')} says what is other than in the baseline."
    )
    rows = [["system", "input", "has learned from", "settings other than the baseline's", "trained par."]]
    for entry in shown_rows(content):
        record = entry.record
        learned = plain(record.representation_card.get("trained_on") or "not stated")
        changed = "the baseline" if entry is base else _changes(record, base)
        named = [plain(entry.title), plain(record.representation), learned, changed, f"{record.parameters:,}"]
        rows += [named] if entry.path != "floor" else []
    yield Table("setup", "The systems. Floors have nothing to set.", rows, (0.22, 0.14, 0.18, 0.35))


def _changes(record: RunRecord, base: Entry | None) -> str:
    recipe = record.recipe
    if record.path == "probe":
        told = {key: recipe.get(key) for key in ("head", "layers", "pool", "keep")}
        return ", ".join(
            f"{key} {plain(value)}" for key, value in told.items() if value not in (None, "clip")
        )
    own, theirs = _flat(recipe), _flat(base.record.recipe if base else {})
    return _few([f"{k} {v}" for k, v in own.items() if v != theirs.get(k) and v not in ("", None)], 7)


def _flat(recipe: dict[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in recipe.items() if key not in {*NAMES_ONLY, "seed", "representation"}}
    tables = [value for value in own.values() if isinstance(value, dict)]
    return {
        key: value for table in (own, *tables) for key, value in table.items() if not isinstance(value, dict)
    }


def _setup(content: Content) -> Iterator[Block]:
    systems = [entry.row.system for entry in content.systems]
    records = [record for system in systems for record in system.records]
    seeds = sorted(Counter(len(system.records) for system in systems).items())
    many = ", ".join(f"{count} with {n} seed{'s' * (n > 1)}" for n, count in seeds)
    versions = ", ".join(f"{name} {number}" for name, number in content.first.versions.items())
    hours = sum(sum(record.seconds.values()) for record in records) / 3600
    yield Heading("Set-up and metrics")
    yield Text(
        f"{len(systems)} systems ({many}), {len(records)} runs, {hours:.1f} h of computing on "
        f"{_few(sorted({record.device for record in records}))}. Code: commit "
        f"{_few(sorted({str(record.commit) for record in records}))} (+: with changes). Versions: {versions}."
    )
    # The first line tells of the data, which has been told; the others of rows that stand elsewhere.
    lines = [s for s in caption(content.sections[0])[1:] if not s.startswith(("Reported", "LEAKY"))]
    yield Text(
        "Accuracy is the share of tracks named right, macro-F1 the mean of F1 over genres; the tracks "
        "of all folds "
        f"are scored together. {' '.join(map(plain, lines))}"
    )


def _results(content: Content) -> Iterator[Block]:
    pair, rows = pair_of(content), shown_rows(content)
    names = " and ".join(f"{plain(e.title)}{mark}" for e, mark in zip(pair, _marks(pair), strict=True))
    leaks = [f"{plain(row.system.title)} {_points(row.leak)}" for row in content.sections[0].rows if row.leak]
    rules = [row.system.record.split_authority for row in content.sections[0].rows if row.leak]
    rule = plain("".join(rules[:1]).removeprefix("LEAKY: "))
    yield Heading("Results")
    yield Text(
        f"{_ref('table', 'systems')} and {_ref('figure', 'accuracies')} set the systems against the "
        "baseline; "
        f"{_ref('table', 'genres')}, {_ref('figure', 'confusion')} and {_ref('figure', 'roc')} look at "
        f"{names} "
        f"genre by genre. "
        + (
            f"What a split that leaks would have added to the same system: {_few(leaks)} ({rule})."
            if leaks
            else ""
        )
    )
    yield _main_table(content, rows)
    yield Figure(
        "accuracies", "Accuracy and its 95 % interval. Dashed: the baseline.", 0.1 + 0.026 * len(rows)
    )
    yield _genre_table(content, pair)
    yield Figure("confusion", "What is taken for what: percent of the tracks that are labelled so.", 0.42)
    yield from _errors(content, pair)
    yield Figure("roc", "Each genre against the rest, mean over folds, and the area under it.", 0.45, True)
    for entry in _trained(content):
        said = f"Training of {plain(entry.title)}: a line a fold, and the epoch that validation chose."
        yield Figure("curves", said, 0.34, True)


def _marks(pair: Sequence[Entry]) -> list[str]:
    return [" (a)", " (b)"] if len(pair) > 1 else [""]


def _main_table(content: Content, chosen: Sequence[Entry]) -> Table:
    head = ["system", "accuracy [95 %]", "macro-F1", "against the baseline [95 %]", "p"]
    rows = [[plain(entry.title), *_cells(entry.row)] for entry in content.systems]
    shown = [row for row, entry in zip(rows, content.systems, strict=True) if entry in chosen]
    said = "All systems."
    if len(rows) > len(shown):
        said = (
            "Floors, the baseline, and by turns the best of each network and of each probed "
            "representation, up "
            f"to {MOST_ROWS} rows. All {len(rows)} systems: tables/systems.csv."
        )
    if any(len(entry.row.system.records) > 1 for entry in chosen):
        said += " After ±: deviation over seeds, and how many."
    return Table("systems", said, [head, *shown], (0.33,), [head, *rows])


def _cells(row: Row) -> list[str]:
    scores, versus = row.system.scores, row.versus
    accuracy = f"{scores.accuracy:.3f} [{scores.accuracy_low:.3f}, {scores.accuracy_high:.3f}]"
    if scores.accuracy_deviation is not None:
        accuracy += f" ±{scores.accuracy_deviation:.3f} ({scores.seeds})"
    against = "baseline" if row.system.record.path == "baseline" else ""
    if versus:
        against = f"{versus.accuracy_difference:+.3f} [{versus.low:+.3f}, {versus.high:+.3f}]"
    p = versus.p_corrected if versus else None
    word = "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
    return [accuracy, f"{scores.macro_f1:.3f}", against.replace("-", MINUS), word]


def _genre_table(content: Content, pair: Sequence[Entry]) -> Table:
    keys = {"precision": "precision", "recall": "recall", "f1": "F1"}
    head = [
        "genre",
        "tracks",
        "artists",
        *(f"{word}{mark}" for mark in _marks(pair) for word in keys.values()),
    ]
    rows = [
        [plain(genre.label), str(genre.tracks), str(genre.groups)]
        + [f"{entry.per_class[key][k]:.2f}" for entry in pair for key in keys]
        for k, genre in enumerate(content.genres)
    ]
    said = "; ".join(f"{plain(e.title)}{mark}" for e, mark in zip(pair, _marks(pair), strict=True))
    if len(rows) > MOST_CLASSES:
        said += f". The first {MOST_CLASSES} of {len(rows)} genres; all: tables/genres.csv"
    return Table("genres", f"{said}.", [head, *rows[:MOST_CLASSES]], (0.22,), [head, *rows])


def _errors(content: Content, pair: Sequence[Entry]) -> Iterator[Block]:
    truth = content.predictions.labels
    right = np.stack([entry.probabilities.argmax(axis=1) == truth for entry in pair])  # (S, N)
    both = "both" if len(pair) > 1 else plain(pair[0].title)
    clips = [clip for clip in content.clips if clip.why == "error"]
    head = ["track", "labelled", "said, by how many systems", "surest"]
    rows = [
        [
            ", ".join(plain(part) for part in (clip.title, clip.artist) if part),
            plain(clip.label),
            ", ".join(f"{plain(label)} {votes}" for label, votes in clip.votes[:3]),
            f"{max(said.probability for said in clip.said if said.label != clip.label):.2f}",
        ]
        for clip in clips
    ]
    named = "" if (content.tracks["title"] != "").any() else " Their titles are not known to these records."
    yield Text(
        f"Of {len(truth)} tracks {both} named {right.all(axis=0).sum()} right and "
        f"{(~right).all(axis=0).sum()} wrong. "
        + (
            f"{_ref('table', 'errors')} lists those that most systems miss, and surely.{named}"
            if rows
            else ""
        ),
        "Errors.",
    )
    if rows:
        said = "The worst errors of all trained systems. Surest: the highest probability of a wrong genre."
        yield Table("errors", said, [head, *rows], (0.42, 0.15, 0.33))


def _points(v: Difference | Leak) -> str:
    numbers = [f"{100 * x:+.1f}".replace("-", MINUS) for x in (v.accuracy_difference, v.low, v.high)]
    return f"{numbers[0]} points [{numbers[1]}, {numbers[2]}]"


def _clipped(text: object, most: int) -> str:
    shown = plain(text)
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _few(items: Sequence[object], most: int = 4) -> str:
    shown = ", ".join(plain(item) for item in items[:most])
    return shown + (f" and {len(items) - most} more" if len(items) > most else "")


def _questions(content: Content) -> Iterator[str]:
    pair, classes = pair_of(content), content.classes
    for entry in pair:
        shares = entry.confusion / np.maximum(entry.confusion.sum(axis=1, keepdims=True), 1)
        np.fill_diagonal(shares, 0)
        i, j = divmod(int(shares.argmax()), len(classes))
        if shares[i, j] > 0:
            yield (
                f"{plain(entry.title)} takes {_percent(shares[i, j])} of the {plain(classes[i])} tracks for "
                f"{plain(classes[j])}, its largest confusion, and {_percent(shares[j, i])} the other "
                "way round. "
                "What do these tracks share, and would a listener part them?"
            )
    if len(pair) == 2:
        yield from _duel(pair[0], pair[1], classes)
    for entry in content.systems:
        if entry.row.versus and entry.path == "floor" and entry.record.head:
            yield (
                f"{plain(entry.title)}, which knows no order in time, stands at "
                f"{_points(entry.row.versus)} to the "
                f"baseline: {entry.row.versus.words}. What does the network learn beyond means and "
                "deviations?"
            )
    leaks = [(row.leak, plain(row.system.title)) for row in content.sections[0].rows if row.leak]
    if leaks:
        leak, title = max(leaks, key=lambda one: one[0].accuracy_difference)
        yield f"{title} gains {_points(leak)} where the split leaks. How much of that is knowing artists?"
    for entry in _trained(content):
        assert entry.curves is not None
        kept = entry.curves[entry.curves["best"]].mean(numeric_only=True)
        yield (
            f"At the epochs kept {plain(entry.title)} has an accuracy of "
            f"{_percent(kept['train_accuracy'])} in "
            f"training and {_percent(kept['val_accuracy'])} on validation. Would more data help, or "
            "another size?"
        )
    told = [p for p in (content.check or {}).get("properties", ()) if p["p_value"] < 0.05]
    if told:
        most = max(told, key=lambda p: p["told"] - p["chance"])
        yield (
            f"{plain(most['name']).capitalize()} alone names the genre of {_percent(most['told'])} of "
            "the tracks "
            f"(guessing: {_percent(most['chance'])}). How much of each accuracy is sound production, "
            "not music?"
        )
    if any(entry.record.reported for entry in content.systems):
        yield (
            "Others reported other figures for some of these systems, on other tracks or splits "
            "(table.csv). What "
            "would have to be alike before they could be compared?"
        )
    yield "Which hypotheses do the intervals support, which do they contradict, which do they leave open?"


def _duel(network: Entry, probe: Entry, classes: Sequence[str]) -> Iterator[str]:
    v = paired(probe.row.system.predictions, network.row.system.predictions)
    ours, theirs, holds = plain(probe.title), plain(network.title), v.low <= 0 <= v.high
    yield (
        f"{ours} stands at {_points(v)} to {theirs}, p = {v.p_value:.2g} for this pair alone: {v.words}. "
        + ("The interval holds 0. What may be said all the same?" if holds else "")
        + ("" if holds else "The interval does not hold 0. Would it be so with other artists?")
    )
    loss = network.per_class["recall"] - probe.per_class["recall"]  # (C,)
    k = int(loss.argmax())
    found = [_percent(entry.per_class["recall"][k]) for entry in (network, probe)]
    yield (
        f"{theirs} finds {found[0]} of the {plain(classes[k])} tracks, {ours} {found[1]}. Why does it lose?"
        if loss[k] > 0
        else f"In no genre does {theirs} find more tracks than {ours}. Is there a kind of track it does for?"
    )
    cost = [
        f"{plain(e.title)} {e.record.parameters:,} in {sum(e.record.seconds.values()):.0f} s"
        for e in (network, probe)
    ]
    yield (
        f"Trained parameters, and seconds with the making of the input: {', '.join(cost)}; what an "
        "encoder had "
        "learned before is in neither. Is the comparison fair, and to whom?"
    )


def _threats(content: Content) -> Iterator[str]:
    """Each where the records make it true."""
    section, record, scores = content.sections[0], content.first, content.first.judged
    trained = [entry.row.system for entry in content.systems if entry.path != "floor"]
    records = [each for entry in content.systems for each in entry.row.system.records]
    single = sum(len(system.records) == 1 for system in trained)
    encoders = [*dict.fromkeys(s.record.representation for s in trained if _learned(s.record))]
    dirty = sum(str(each.commit).endswith("+") for each in records)
    devices, limit = {each.device for each in records}, record.recipe["data"].get("limit")
    versions = {json.dumps(each.versions, sort_keys=True) for each in records}
    threats = {
        f"This split leaks on purpose ({plain(record.split_authority)}): scores are too high.": record.leaky,
        f"The best of {len(trained)} systems are picked by their accuracy on test tracks, which flatters "
        "them.": len(trained) > 2,
        f"{single} of {len(trained)} systems ran with one seed; intervals do not hold the spread of training "
        "again.": single,
        "No artist is known to have several tracks: where artists are unknown, one may stand on two "
        "sides.": scores.interval_unit == "track",
        f"{scores.n_groups} artists or tracks were drawn for the intervals; below about 30 they are too "
        "narrow.": scores.n_groups < 30,
        "The records cannot tell whether tested tracks were among what "
        f"{_few(encoders)} learned from.": encoders,
        f"{dirty} of {len(records)} runs were made by code with uncommitted changes.": dirty,
        f"The runs were made on {len(devices)} kinds of device.": len(devices) > 1,
        f"The runs were made with {len(versions)} sets of library versions.": len(versions) > 1,
        f"Only {limit} tracks of the data were taken (--limit).": limit,
        f"{len(record.excluded)} tracks were left out, which need not be like the others.": record.excluded,
        f"{section.superseded} older runs of the same recipes are not shown.": section.superseded,
        f"{len(content.sections) - 1} groups of runs on other tracks or splits are not told of here "
        "(table.csv).": len(content.sections) > 1,
        "Copies on two sides of the split were not looked for.": not content.check,
    }
    yield from (threat for threat, so in threats.items() if so)


def _commands(content: Content) -> Iterator[Block]:
    records = {e.record.run_id: e.record for e in (content.baseline, *pair_of(content)) if e}
    yield Text(
        "The bundle (mgc report --bundle) holds all recipes as configs, and all commands. The main ones:"
    )
    lines = [f"mgc {r.path} --config configs/{r.run_id}.toml" for r in records.values() if r.path != "floor"]
    yield Code((*lines, f"mgc compare --data {shlex.quote(plain(content.first.recipe['data']['source']))}"))


def _references(content: Content) -> Iterator[str]:
    versus = [entry.row.versus for entry in content.systems if entry.row.versus]
    used = {
        "Dietterich": versus,
        "Efron & Tibshirani": True,
        "Fawcett": True,
        "Field & Welsh": content.first.judged.interval_unit == "group",
        "Forman & Scholz": len(set(content.predictions.fold)) > 1,
        "Holm": any(v.p_corrected is not None for v in versus),
        "Lachin": any(v.tracks_needed for v in versus),
        "McNemar": versus,
        "Phipson & Smyth": any(len(row.system.records) > 1 for row in content.sections[0].rows),
    }
    yield from (f"{who}. {METHODS[who]}." for who, needed in used.items() if needed)
    cards = {e.record.representation: e.record.representation_card for e in shown_rows(content)}
    for name, card in cards.items():
        if card.get("source"):
            # Where a folder lies on one machine tells nobody else anything.
            source = re.sub(r"(?<![^ ])/(?:[^/,]+/)*([^/,]+)", r"\1", plain(card["source"]))
            yield f"{plain(name)}: {source}."
