"""What a paper is made of, and its three forms: Markdown, LaTeX, and Typst, from which the PDF is typeset.

A paper is a list of blocks. Their texts may mention tables and figures, and may hold names, titles and
hypotheses written by others: the template of each form escapes every text where it prints it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.ft2font import FT2Font

from mgc.util.text import escape_latex, escape_markdown, markdown_table

MINUS = "\u2212"


@dataclass(frozen=True)
class Block:
    """A part of a paper."""

    @property
    def kind(self) -> str:
        """The name of its class, in lower case."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Heading(Block):
    """The heading of a section."""

    text: str


@dataclass(frozen=True)
class Text(Block):
    """A paragraph. `lead` is printed in bold in front of it."""

    text: str
    lead: str = ""


@dataclass(frozen=True)
class Items(Block):
    """A bullet list."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Code(Block):
    """Lines to be typed."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Table(Block):
    """`rows[0]` is the header. The first columns hold words; `widths` are their shares of the text width. The
    other columns hold numbers. `full` is the content of `tables/<name>.csv`, if that has more rows."""

    name: str
    caption: str
    rows: list[list[str]]
    widths: tuple[float, ...]
    full: list[list[str]] | None = None

    @property
    def number_widths(self) -> list[int]:
        """The longest cells of the columns that hold numbers, in characters."""
        columns = [*zip(*self.rows, strict=True)][len(self.widths) :]
        return [max(map(len, column)) for column in columns]


@dataclass(frozen=True)
class Figure(Block):
    """`figures/<name>.pdf` and `.png`. `height` is relative to the width. An `optional` figure is dropped,
    the last one first, if the paper gets too long; its files are still written."""

    name: str
    caption: str
    height: float
    optional: bool = False


def ref(kind: str, name: str) -> str:
    """A mention of a table or figure, which each form replaces by its number."""
    return f"\ue000{kind}:{name}\ue001"  # private-use characters, which `one_line` removes from foreign text


def markdown(blocks: Sequence[Block], title: str) -> str:
    """GitHub-flavoured Markdown; pictures are `figures/<name>.png`."""
    return _fill("paper.md", blocks, title, escape_markdown, lambda key, number: number)


def latex(blocks: Sequence[Block], title: str) -> str:
    """LaTeX for pdflatex; pictures are `figures/<name>.pdf`."""
    return _fill(
        "paper.tex", blocks, title, escape_latex, lambda key, number: rf"{number.split()[0]}~\ref{{{key}}}"
    )


def typst(blocks: Sequence[Block], title: str) -> str:
    """Typst, the source of the PDF; pictures are `figures/<name>.pdf`."""
    return _fill(
        "paper.typ", blocks, title, lambda text: f"#{_quoted(text)}", lambda key, number: f"#ref(<{key}>)"
    )


def _fill(
    template: str, blocks: Sequence[Block], title: str,
    escape: Callable[[str], str], mention: Callable[[str, str], str],
) -> str:  # fmt: skip
    """A template filled with blocks. `mention` gets the key and the number of a table or figure, such as
    `table:systems` and `Table 2`."""
    environment = Environment(
        loader=PackageLoader("mgc.report"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        block_start_string="<%", block_end_string="%>", variable_start_string="<<", variable_end_string=">>",
        comment_start_string="<#", comment_end_string="#>",
    )  # fmt: skip
    numbers: dict[str, str] = {}
    for kind in (Table, Figure):
        names = [block.name for block in blocks if isinstance(block, kind)]
        numbers |= {f"{kind.__name__.lower()}:{n}": f"{kind.__name__} {k}" for k, n in enumerate(names, 1)}

    def text(words: str) -> str:
        parts = re.split("\ue000(.*?)\ue001", words)
        parts[::2] = [escape(part) if part else "" for part in parts[::2]]
        for i, key in enumerate(parts[1::2]):  # a dropped figure is mentioned by its file
            file = escape(f"figures/{key.split(':')[1]}.pdf")
            parts[2 * i + 1] = mention(key, numbers[key]) if key in numbers else file
        return "".join(parts)

    environment.filters |= {"text": text, "quoted": _quoted}
    page = environment.get_template(template).render(
        blocks=blocks, title=title, numbers=numbers, markdown_table=markdown_table
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
