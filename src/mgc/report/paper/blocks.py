"""What a paper is made of: blocks, and mentions of tables and figures within their text."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass


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


def ref(kind: str, name: str) -> str:
    """A mention of a table or figure; a number where a paper is drawn."""
    return f"\ue000{kind}:{name}\ue001"  # private characters, which `words.plain` lets nobody else use


def numbered(blocks: Sequence[Block]) -> dict[str, str]:
    """`table:systems` and the like to "Table 2"."""
    known: dict[str, str] = {}
    for kind, word in (("table", Table), ("figure", Figure)):
        names = [block.name for block in blocks if isinstance(block, word)]
        known |= {f"{kind}:{name}": f"{word.__name__} {number}" for number, name in enumerate(names, 1)}
    return known


def drawn(text: str, escaped: Callable[[str], str], mentions: dict[str, str]) -> str:
    """`text` escaped, with its mentions; what is left out goes by its file."""
    parts = re.split("\ue000(.*?)\ue001", text)
    parts[::2] = map(escaped, parts[::2])
    parts[1::2] = [mentions.get(key) or escaped(f"figures/{key.split(':')[1]}.pdf") for key in parts[1::2]]
    return "".join(parts)
