"""What a paper is made of, and its three forms: Markdown, LaTeX, and Typst, from which the PDF is typeset.

Texts may mention tables and figures, and may hold names, titles and hypotheses written by others: the
template of each form escapes every text where it prints it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.ft2font import FT2Font

from mgc.util.text import escape_latex, escape_markdown, markdown_table

MINUS = "\u2212"


class Block(NamedTuple):
    """A part of a paper. `kind`: "heading", "text", "item", "code", "table" or "figure".

    Items and lines of code that follow one another are one block. Tables and figures have a name, and a
    caption as their only line.
    """

    kind: str
    lines: list[str]
    name: str = ""


@dataclass(frozen=True)
class Table:
    """`rows[0]` is the header. The first columns hold words; `widths` are their shares of the text width. The
    other columns hold numbers. `full` is the content of `tables/<name>.csv`, which may have more rows."""

    rows: list[list[str]]
    widths: tuple[float, ...]
    full: list[list[str]]

    @property
    def number_widths(self) -> list[int]:
        """The longest cells of the columns that hold numbers, in characters."""
        columns = [*zip(*self.rows, strict=True)][len(self.widths) :]
        return [max(map(len, column)) for column in columns]


@dataclass(frozen=True)
class Paper:
    """Its blocks in order, and its tables by name. Figures are `figures/<name>.pdf` and `.png`. `questions`
    are those of its discussion by topic, and `author` is "" if the author's name is left blank."""

    title: str
    author: str
    blocks: list[Block]
    tables: dict[str, Table]
    questions: dict[str, list[str]] = field(default_factory=dict)

    def names(self, kind: str) -> list[str]:
        """The names of its tables or figures, in order."""
        return [block.name for block in self.blocks if block.kind == kind]


class Form(NamedTuple):
    """`escape` shows a text literally, `bold` makes it bold, and `mention` refers to a table or figure by its
    key and number, such as `table:systems` and `Table 2`."""

    template: str
    escape: Callable[[str], str]
    bold: Callable[[str], str]
    mention: Callable[[str, str], str]


def mark(kind: str, name: str) -> Markup:
    """A mention of a table or figure, or a "bold" text; each form replaces it."""
    return Markup(f"\ue000{kind}:{name}\ue001")  # private-use characters, which `one_line` escapes elsewhere


def write_as(form: str, paper: Paper) -> str:
    """The paper as "markdown", "latex" or "typst"."""
    template, escape, bold, mention = FORMS[form]
    numbers = {
        f"{kind}:{name}": f"{kind.title()} {number}"
        for kind in ("table", "figure")
        for number, name in enumerate(paper.names(kind), 1)
    }

    def marked(key: str) -> str:
        kind, _, name = key.partition(":")
        if kind == "bold":
            return bold(escape(name))
        # A figure that was dropped is mentioned by its file.
        return mention(key, numbers[key]) if key in numbers else escape(f"figures/{name}.pdf")

    def text(words: str) -> str:
        parts = re.split("[\ue000\ue001]", words)  # texts and marks in turn
        return "".join(marked(p) if n % 2 else escape(p) for n, p in enumerate(parts) if p)

    environment = Environment(
        loader=PackageLoader("mgc.report"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        block_start_string="<%", block_end_string="%>", variable_start_string="<<", variable_end_string=">>",
        comment_start_string="<#", comment_end_string="#>",
    )  # fmt: skip
    environment.filters |= {"text": text, "quoted": _quoted}
    page = environment.get_template(template).render(
        paper=paper, numbers=numbers, markdown_table=markdown_table
    )
    return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n"


@cache
def _glyphs() -> frozenset[int]:
    font = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return frozenset(FT2Font(str(font)).get_charmap())


def displayable(text: str) -> str:
    """`text`, with the characters that DejaVu Sans lacks, the last font to be tried, shown as `[U+97F3]`."""
    return "".join(c if c == "\n" or ord(c) in _glyphs() else f"[U+{ord(c):04X}]" for c in text)


def _quoted(text: str) -> str:
    """`text` as a Typst string, which is shown literally."""
    return '"' + displayable(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


FORMS = {
    "markdown": Form("paper.md", escape_markdown, "**{}**".format, lambda _, number: number),
    "latex": Form(
        "paper.tex", escape_latex, r"\textbf{{{}}}".format,
        lambda key, number: rf"{number.split()[0]}~\ref{{{key}}}",
    ),
    "typst": Form(
        "paper.typ", lambda text: f"#{_quoted(text)}", "#strong[{}]".format, lambda key, _: f"#ref(<{key}>)"
    ),
}  # fmt: skip
