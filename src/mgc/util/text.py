"""Text tables, and the escaping of other people's text for Markdown and LaTeX."""

import csv
import io
import itertools
import json
import re
import textwrap
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial

from mgc.util.errors import printable

LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "`": r"\textasciigrave{}", '"': r"\char34{}",
    "±": r"$\pm$", "×": r"$\times$", "−": "$-$",
}  # fmt: skip


def text_table(
    header: Sequence[str], rows: Sequence[Sequence[object]], *, wrap: int | None = None, rule: bool = False
) -> str:
    """Left-aligned columns, two spaces apart, without trailing spaces. Control characters are escaped.

    Parameters
    ----------
    wrap
        Break cells that are longer than this many characters into several lines.
    rule
        Underline the header.

    Examples
    --------
    >>> print(text_table(["model", "clips"], [["musicnn", 400]]))
    model    clips
    musicnn  400
    """
    cells = [[printable(str(cell)) for cell in row] for row in (header, *rows)]
    wrapped = [[textwrap.wrap(c, wrap) or [""] if wrap else [c] for c in row] for row in cells]
    widths = [max(len(line) for lines in column for line in lines) for column in zip(*wrapped, strict=True)]

    def padded(row: list[list[str]]) -> list[str]:
        lines = itertools.zip_longest(*row, fillvalue="")
        return ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]

    head, *body = map(padded, wrapped)
    head += ["  ".join("-" * width for width in widths)] if rule else []
    return "\n".join(itertools.chain(head, *body))


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[object]], *, right: Collection[str] = ()
) -> str:
    """A Markdown table. Foreign text in a cell cannot end the cell or become markup.

    Parameters
    ----------
    right
        Headers of the columns that are aligned to the right.

    Examples
    --------
    >>> print(markdown_table(["model", "clips"], [["a|b", 400]], right=["clips"]))
    | model | clips |
    | --- | ---: |
    | a\\|b | 400 |
    """
    lines = [f"| {' | '.join(escape_markdown(str(cell)) for cell in row)} |" for row in (header, *rows)]
    lines.insert(1, f"| {' | '.join('---:' if name in right else '---' for name in header)} |")
    return "\n".join(lines)


def render_template(
    package: str, name: str, escape: Callable[[str], str] | None = None, **values: object
) -> str:
    """Fill in `templates/<name>` of a package with jinja; `escape` is applied to every inserted value.

    The filter `markdown` is `escape_markdown`; `json` writes a value as JSON.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=False, finalize=escape and (lambda value: escape(str(value))),
    )  # fmt: skip
    environment.filters |= {"markdown": escape_markdown, "json": partial(json.dumps, ensure_ascii=False)}
    return environment.get_template(name).render(values).rstrip("\n")


def csv_table(rows: Iterable[Iterable[object]]) -> str:
    """Rows, the header first, as CSV with a line feed after each."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def one_line(text: object) -> str:
    """`text` on one line, with single spaces and without control characters."""
    return printable(" ".join(str(text).split()))


def shortened(text: object, length: int) -> str:
    """`one_line(text)`, cut to `length` characters that then end in an ellipsis."""
    line = one_line(text)
    return line if len(line) <= length else line[: length - 1] + "…"


def listed(items: Sequence[object], most: int = 4) -> str:
    """The first `most` items, and how many more there are: `a, b and 3 more`."""
    shown = ", ".join(map(one_line, items[:most]))
    return shown + (f" and {len(items) - most} more" if len(items) > most else "")


def escape_markdown(text: str) -> str:
    """`text` so that Markdown shows it literally on one line, in a table cell as well as in a paragraph."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", printable(text))
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)
    # Emphasis, code, cells, formulas, strike-through; links and footnotes need `](`, `][` or `]:`.
    text = re.sub(r"[*`\\|$~]|(?<!\w)_|_(?!\w)|\](?=[(\[:])", r"\\\g<0>", text)
    # At the beginning of a line: numbered lists, then bullets, rules, headings and quotations.
    return re.sub(r"^(\d+(?=[.)](?:\s|$))|(?=[-+](?:[-+\s]|$)|[=#>]))", r"\1\\", text)


def escape_latex(text: str) -> str:
    """`text` so that LaTeX shows it literally. Characters that T1 fonts lack are shown as `[U+97F3]`."""
    shown = "".join(LATEX.get(c) or (c if _in_t1(c) else f"[U+{ord(c):04X}]") for c in text)
    return re.sub(r"([-',])(?=\1)", r"\1{}", shown)  # keeps `--` and `''` from becoming one character


def _in_t1(c: str) -> bool:
    """Whether `c` is ASCII or a Latin letter of Western or Central Europe."""
    return c.isascii() or ("\u00a1" <= c <= "\u017e" and c not in "ĦħĸĿŀŉŦŧ\u00ad")
