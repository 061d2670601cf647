"""The paper as PDF, drawn with the fonts that come with matplotlib."""

import io
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import matplotlib as mpl
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Image, KeepTogether, Paragraph, SimpleDocTemplate, Spacer
from reportlab.platypus import Table as Grid

from mgc.report.paper.blocks import Block, Code, Figure, Heading, Items, Table, Text, drawn, numbered

MARGIN, LEFT, CENTRE, RIGHT, JUSTIFIED = 62, 0, 1, 2, 4
WIDTH, HEIGHT = (side - 2 * MARGIN - 12 for side in A4)  # a frame pads by 6 points
BODY = ParagraphStyle("", fontName="Serif", fontSize=10, leading=12.2, alignment=JUSTIFIED, spaceAfter=5)
AUTHOR = ParagraphStyle("", BODY, alignment=CENTRE)
ITEM = ParagraphStyle("", BODY, leftIndent=11, bulletIndent=2, spaceAfter=2)
HEAD = ParagraphStyle(
    "", BODY, fontName="Bold", fontSize=12, leading=15, spaceBefore=7, alignment=LEFT, keepWithNext=1
)
TITLE = ParagraphStyle("", HEAD, fontSize=16, leading=20, alignment=CENTRE, spaceAfter=8, keepWithNext=0)
SMALL = ParagraphStyle("", BODY, fontSize=8.7, leading=10.4, spaceBefore=3)
CELL = ParagraphStyle("", BODY, fontSize=8.3, leading=9.6, alignment=LEFT, spaceAfter=0)
NUMBER = ParagraphStyle("", CELL, alignment=RIGHT)
CODE = ParagraphStyle("", CELL, fontName="Mono", fontSize=7.4, leftIndent=11)
GRID = [
    ("LINEABOVE", (0, 0), (-1, 0), 0.9, "black"), ("LINEBELOW", (0, 0), (-1, 0), 0.5, "black"),
    ("LINEBELOW", (0, -1), (-1, -1), 0.9, "black"), ("VALIGN", (0, 0), (-1, -1), "TOP"),
    ("TOPPADDING", (0, 0), (-1, -1), 1.2), ("BOTTOMPADDING", (0, 0), (-1, -1), 1.6),
    ("LEFTPADDING", (0, 0), (-1, -1), 2), ("RIGHTPADDING", (0, 0), (-1, -1), 2),
]  # fmt: skip


@cache
def _fonts() -> tuple[frozenset[int], frozenset[int]]:
    """Registers the fonts; what a serif has, and a sans for what that lacks."""
    folder, known = Path(mpl.get_data_path()) / "fonts" / "ttf", {}
    files = {"Serif": "STIXGeneral", "Bold": "STIXGeneralBol", "Mono": "DejaVuSansMono", "Sans": "DejaVuSans"}
    for name, file in files.items():
        font = TTFont(name, str(folder / f"{file}.ttf"))
        pdfmetrics.registerFont(font)
        known[name] = frozenset(font.face.charToGlyph)
    return known["Serif"] & known["Bold"] & known["Mono"], known["Sans"]


def visible(text: str) -> str:
    """What no font has goes by its number."""
    serif, sans = _fonts()
    return "".join(c if ord(c) in serif or ord(c) in sans else f"[U+{ord(c):04X}]" for c in text)


def rich(text: str) -> str:
    """reportlab's markup of a text, the sans where the serif lacks a character."""
    serif, _ = _fonts()
    runs = [(known, escape("".join(run))) for known, run in groupby(visible(text), lambda c: ord(c) in serif)]
    return "".join(run if known else f'<font name="Sans">{run}</font>' for known, run in runs)


def pdf_of(blocks: Sequence[Block], title: str, folder: Path) -> tuple[bytes, int]:
    """The bytes, and how many pages. Pictures are read from `folder/figures`."""
    out, sides = io.BytesIO(), ("leftMargin", "rightMargin", "topMargin", "bottomMargin")
    paper = SimpleDocTemplate(
        out, pagesize=A4, title=visible(title), author="", invariant=1, **dict.fromkeys(sides, MARGIN)
    )
    story = [_text(title, {}, TITLE), _text("Author: " + 30 * "_", {}, AUTHOR)]
    story += _story(blocks, folder / "figures")
    paper.build(_arranged(story), onFirstPage=_foot, onLaterPages=_foot)
    return out.getvalue(), int(paper.page)


def _foot(canvas: Any, page: Any) -> None:
    canvas.setFont("Serif", 8.5)
    canvas.drawCentredString(A4[0] / 2, 36, str(page.page))


def _text(
    said: str, mentions: dict[str, str], style: Any = BODY, lead: str = "", bullet: str | None = None
) -> Any:
    bold = f'<font name="Bold">{escape(lead)}</font> ' if lead else ""
    return Paragraph(bold + drawn(said, rich, mentions), style, bulletText=bullet)


def _story(blocks: Sequence[Block], figures: Path) -> Iterator[Any]:
    """What reportlab sets, a paragraph, a space or a float (KeepTogether) each."""
    known, section = numbered(blocks), 0
    for block in blocks:
        match block:
            case Heading():
                section += 1
                yield _text(f"{section}  {block.text}", known, HEAD)
            case Text():
                yield _text(block.text, known, lead=block.lead)
            case Items():
                yield from (_text(one, known, ITEM, bullet="\u2022") for one in block.items)
                yield Spacer(1, 3)
            case Code():
                yield from (_text(line, known, CODE) for line in block.lines)
                yield Spacer(1, 4)
            case Table():
                said = _text(f"{known[f'table:{block.name}']}: {block.caption}", known, SMALL)
                yield KeepTogether([said, _grid(block, known), Spacer(1, 9)])
            case Figure():
                picture = Image(str(figures / f"{block.name}.png"), WIDTH, WIDTH * block.height)
                said = _text(f"{known[f'figure:{block.name}']}: {block.caption}", known, SMALL)
                yield KeepTogether([picture, said, Spacer(1, 6)])


def _grid(table: Table, known: dict[str, str]) -> Any:
    """Columns of numbers share the rest of the width by their longest cells."""
    words = len(table.widths)
    longest = [max(map(len, column)) + 2 for column in list(zip(*table.rows, strict=True))[words:]]
    own = [(1 - sum(table.widths)) * length / sum(longest) for length in longest]
    styles = [CELL] * words + [NUMBER] * len(own)
    lines = [[_text(c, known, style) for c, style in zip(row, styles, strict=True)] for row in table.rows]
    return Grid(lines, [WIDTH * share for share in (*table.widths, *own)], style=GRID)


def _arranged(story: Sequence[Any]) -> list[Any]:
    """Tables and figures that the rest of a page is too low for come after the text that fills it."""
    placed: list[Any] = []
    waiting: list[Any] = []
    free = HEIGHT
    for part in story:
        if isinstance(part, KeepTogether):
            waiting.append(part)
        else:
            placed.append(part)
            free -= part.wrap(WIDTH, HEIGHT)[1] + part.getSpaceBefore() + part.getSpaceAfter()
        free += HEIGHT * (free < 0)
        while waiting and not placed[-1].getKeepWithNext():
            need = sum(one.wrap(WIDTH, HEIGHT)[1] + 6 for one in waiting[0]._content)
            if need > free:
                break
            placed.append(waiting.pop(0))
            free -= need
    return placed + waiting
