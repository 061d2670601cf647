"""The paper in Markdown and in LaTeX: the same blocks, other people's text escaped."""

import re
from collections.abc import Sequence

from mgc.report.paper.blocks import Block, Code, Figure, Heading, Items, Table, Text, drawn, numbered


def markdown(blocks: Sequence[Block], title: str) -> str:
    """Tables in the way of GitHub; pictures are `figures/<name>.png`."""
    known = numbered(blocks)

    def text(said: str) -> str:
        shown = drawn(said, _escape_markdown, known)
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


def latex(blocks: Sequence[Block], title: str) -> str:
    """For pdflatex; pictures are `figures/<name>.pdf`."""
    mentions = {key: rf"{words.split()[0]}~\ref{{{key}}}" for key, words in numbered(blocks).items()}

    def text(said: str) -> str:
        return drawn(said, _escape_latex, mentions)

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


def _escape_latex(text: str) -> str:
    """Characters that T1 fonts lack go by their numbers; two alike are kept from becoming one sign."""
    shown = "".join(LATEX.get(c) or (c if _in_t1(c) else f"[U+{ord(c):04X}]") for c in text)
    return re.sub(r"([-',])(?=\1)", r"\1{}", shown)


def _in_t1(c: str) -> bool:
    """The Latin letters of Western and Central Europe."""
    return c.isascii() or ("\u00a1" <= c <= "\u017e" and c not in "ĦħĸĿŀŉŦŧ\u00ad")
