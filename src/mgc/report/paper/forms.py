"""What a paper is made of, and its three forms: Markdown, LaTeX, and Typst, from which the PDF is typeset.

A paper is a list of blocks. Their texts may mention tables and figures, and may hold names, titles and
hypotheses written by others: each form escapes all text where it draws a block, and nowhere else.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib as mpl
from matplotlib.ft2font import FT2Font

from mgc.util.text import escape_latex, escape_markdown, markdown_table

AUTHOR = "Author: "
MINUS = "\u2212"


@dataclass(frozen=True)
class Heading:
    """The heading of a section."""

    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph. `lead` is printed in bold in front of it."""

    text: str
    lead: str = ""


@dataclass(frozen=True)
class Items:
    """A bullet list."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """Lines to be typed."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """`rows[0]` is the header. The first columns hold words; `widths` are their shares of the text width. The
    other columns hold numbers. `full` is the content of `tables/<name>.csv`, if that has more rows."""

    name: str
    caption: str
    rows: list[list[str]]
    widths: tuple[float, ...]
    full: list[list[str]] | None = None


@dataclass(frozen=True)
class Figure:
    """`figures/<name>.pdf` and `.png`. `height` is relative to the width. An `optional` figure is dropped,
    the last one first, if the paper gets too long; its files are still written."""

    name: str
    caption: str
    height: float
    optional: bool = False


Block = Heading | Text | Items | Code | Table | Figure


def ref(kind: str, name: str) -> str:
    """A mention of a table or figure, which each form replaces by its number."""
    return f"\ue000{kind}:{name}\ue001"  # private-use characters, which `one_line` removes from foreign text


def _numbers(blocks: Sequence[Block]) -> dict[str, str]:
    """From `table:systems` to `Table 2`, and so on."""
    numbers: dict[str, str] = {}
    for kind in (Table, Figure):
        names = [block.name for block in blocks if isinstance(block, kind)]
        word = kind.__name__
        numbers |= {f"{word.lower()}:{name}": f"{word} {number}" for number, name in enumerate(names, 1)}
    return numbers


def _writer(escape: Callable[[str], str], mentions: dict[str, str]) -> Callable[[str], str]:
    """A function that escapes a text and replaces its mentions; a dropped figure is mentioned by its file."""

    def write(text: str) -> str:
        parts = re.split("\ue000(.*?)\ue001", text)
        parts[::2] = [escape(part) if part else "" for part in parts[::2]]
        parts[1::2] = [mentions.get(key) or escape(f"figures/{key.split(':')[1]}.pdf") for key in parts[1::2]]
        return "".join(parts)

    return write


def markdown(blocks: Sequence[Block], title: str) -> str:
    """GitHub-flavoured Markdown; pictures are `figures/<name>.png`."""
    numbers = _numbers(blocks)
    text = _writer(escape_markdown, numbers)
    parts, section = [f"# {text(title)}", AUTHOR + 16 * "_"], 0
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
                header, *rows = block.rows
                parts.append(f"{numbers[f'table:{block.name}']}: {text(block.caption)}")
                parts.append(markdown_table(header, rows, right=header[len(block.widths) :]))
            case Figure():
                caption = f"{numbers[f'figure:{block.name}']}: {text(block.caption)}"
                parts += [f"![{caption}](figures/{block.name}.png)", caption]
    return "\n\n".join(parts) + "\n"


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


def latex(blocks: Sequence[Block], title: str) -> str:
    """LaTeX for pdflatex; pictures are `figures/<name>.pdf`."""
    numbers = _numbers(blocks)
    text = _writer(escape_latex, {k: rf"{number.split()[0]}~\ref{{{k}}}" for k, number in numbers.items()})

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
                # The braces keep an item that begins with a bracket from becoming the item's label.
                lines = [rf"\item {{}}{text(item)}" for item in block.items]
                parts.append("\n".join([r"\begin{itemize}", *lines, r"\end{itemize}"]))
            case Code():
                lines = [rf"\texttt{{{text(line)}}}\\" for line in block.lines]
                parts.append("\n".join([r"\begin{flushleft}\small", *lines, r"\end{flushleft}"]))
            case Table():
                widths = [rf"\dimexpr {w:.2f}\linewidth-2\tabcolsep" for w in block.widths]
                words = [rf">{{\raggedright\arraybackslash}}p{{{width}}}" for width in widths]
                columns = "".join(words) + "r" * (len(block.rows[0]) - len(words))
                begin = rf"\footnotesize\begin{{tabular}}{{{columns}}}"
                first, *rest = [rf"{{}}{' & '.join(map(text, row))} \\" for row in block.rows]
                lines = [begin, r"\toprule", first, r"\midrule", *rest, r"\bottomrule", r"\end{tabular}"]
                parts.append(floating("table", block, *lines))
            case Figure():
                picture = rf"\includegraphics[width=\linewidth]{{figures/{block.name}.pdf}}"
                parts.append(floating("figure", block, picture))
    return "\n\n".join([*parts, r"\end{document}"]) + "\n"


TYPST_HEAD = """\
#set document(title: %(title)s, date: none)
#set page(paper: "a4", margin: 2.2cm, numbering: "1")
#set text(font: ("Libertinus Serif", "DejaVu Sans"), size: 10.5pt, lang: "en")
#set par(justify: true, leading: 0.55em, spacing: 0.9em)
#set heading(numbering: "1")
#show heading: set text(12pt)
#show heading: set block(above: 1.3em, below: 0.7em)
#show figure: set text(9pt)
#show figure: set par(justify: false, leading: 0.45em)
#show figure.caption: it => align(left, it)
#show figure.where(kind: table): set figure.caption(position: top)
#set figure(placement: auto)
#set table(stroke: none, inset: (x: 2pt, y: 2.5pt))
#show raw: set text(font: ("DejaVu Sans Mono", "DejaVu Sans"), size: 7.5pt)
#show title: set text(17pt)
#align(center)[
  #title()
  #%(author)s #box(width: 6cm, stroke: (bottom: 0.5pt))
]
"""


def typst(blocks: Sequence[Block], title: str) -> str:
    """Typst, the source of the PDF; pictures are `figures/<name>.pdf`."""
    text = _writer(lambda words: f"#{_quoted(words)}", {key: f"#ref(<{key}>)" for key in _numbers(blocks)})
    parts = [TYPST_HEAD % {"title": _quoted(title), "author": _quoted(AUTHOR)}]
    for block in blocks:
        match block:
            case Heading():
                parts.append(f"= {text(block.text)}")
            case Text():
                parts.append((f"*{block.lead}* " if block.lead else "") + text(block.text))
            case Items():
                parts.append("\n".join(f"- {text(item)}" for item in block.items))
            case Code():
                parts.append(f"#raw(block: true, {_quoted(chr(10).join(block.lines))})")
            case Table():
                words, numbers = len(block.widths), list(zip(*block.rows, strict=True))[len(block.widths) :]
                # Columns of numbers share the remaining width by their longest cells.
                shares = [f"{width:.0%}" for width in block.widths]
                shares += [f"{max(map(len, column)) + 2}fr" for column in numbers]
                header, *rows = [", ".join(f"[{text(cell)}]" for cell in row) for row in block.rows]
                align = f"(x, _) => if x < {words} {{ left }} else {{ right }}"
                lines = [
                    f"#figure(caption: [{text(block.caption)}],",
                    f"table(columns: ({', '.join(shares)}), align: {align},",
                    f"table.hline(stroke: 0.9pt), table.header({header}), table.hline(stroke: 0.5pt),",
                    *(f"{row}," for row in rows),
                    f"table.hline(stroke: 0.9pt))) <table:{block.name}>",
                ]
                parts.append("\n".join(lines))
            case Figure():
                caption = text(block.caption)
                picture = f'image("figures/{block.name}.pdf", width: 100%, alt: {_quoted(block.caption)})'
                parts.append(f"#figure(caption: [{caption}], {picture}) <figure:{block.name}>")
    return "\n\n".join(parts) + "\n"


def _quoted(text: str) -> str:
    """`text` as a Typst string, which is shown literally."""
    return '"' + displayable(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


@cache
def _glyphs() -> frozenset[int]:
    font = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return frozenset(FT2Font(str(font)).get_charmap())


def displayable(text: str) -> str:
    """`text`, with the characters that DejaVu Sans lacks, the last font to be tried, shown as `[U+97F3]`."""
    return "".join(c if c == "\n" or ord(c) in _glyphs() else f"[U+{ord(c):04X}]" for c in text)
