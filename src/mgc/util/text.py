"""Tables as text: aligned columns for a terminal, Markdown for files; the escaping of cells."""

import re
from collections.abc import Sequence

from mgc.util.errors import printable


def text_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Left-aligned columns, two spaces apart, without trailing spaces. Control characters are escaped.

    Examples
    --------
    >>> print(text_table(["model", "clips"], [["musicnn", 400]]))
    model    clips
    musicnn  400
    """
    cells = [[printable(str(cell)) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; foreign text in a cell cannot end the cell or become markup.

    Examples
    --------
    >>> print(markdown_table(["model"], [["a|b"]]))
    | model |
    | --- |
    | a&#124;b |
    """
    lines = [f"| {' | '.join(escape_markdown(str(cell)) for cell in row)} |" for row in (header, *rows)]
    lines.insert(1, f"| {' | '.join(['---'] * len(header))} |")
    return "\n".join(lines)


def escape_markdown(text: str) -> str:
    """`text` so that Markdown shows it as it is, on one line: no cell end, tag, entity or emphasis in it."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", printable(text))
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text).replace("|", "&#124;")
    return re.sub(r"[*`\\]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)


def escape_latex(text: str) -> str:
    """`text` so that LaTeX shows it as it is."""
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
    }
    special |= {"<": r"$<$", ">": r"$>$", "|": r"$|$"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
