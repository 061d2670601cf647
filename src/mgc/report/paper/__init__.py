"""The paper: at most six A4 pages as Markdown, LaTeX or PDF, in which every number comes from run records.

The paper is a list of blocks, made once, which each form draws. It draws no conclusions: the discussion lists
the questions that the numbers raise.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from mgc.report.content import Content
from mgc.report.paper.figures import draw_figures
from mgc.report.paper.forms import MINUS, Block, Figure, Table, latex, markdown, typst
from mgc.report.paper.text import blocks_of, title_of
from mgc.util import files
from mgc.util.errors import MgcError, did_you_mean

__all__ = ["FORMS", "Figure", "Table", "blocks_of", "write_papers"]

FORMS = {"markdown": "paper.md", "latex": "paper.tex", "pdf": "paper.pdf"}
MOST_PAGES = 6


def write_papers(content: Content, forms: Sequence[str], folder: Path) -> list[Path]:
    """Write the paper in some of FORMS into `folder`, with `figures/` and `tables/` beside it.

    The same records give the same bytes.

    Raises:
        MgcError: unknown form, or records that cannot be read.
    """
    if unknown := [form for form in forms if form not in FORMS]:
        raise MgcError(f"unknown form of a paper: {unknown[0]!r}", fix=did_you_mean(unknown[0], FORMS))
    title, blocks = title_of(content), blocks_of(content)
    _write_tables(blocks, folder / "tables")
    draw_figures(content, blocks, folder / "figures")
    pdf, pages = _typeset(typst(blocks, title), folder)
    optional = [block for block in blocks if isinstance(block, Figure) and block.optional]
    while pages > MOST_PAGES and optional:
        blocks.remove(optional.pop())
        pdf, pages = _typeset(typst(blocks, title), folder)
    text = {"markdown": markdown, "latex": latex}
    papers = {form: text[form](blocks, title) if form in text else pdf for form in forms}
    return [files.write(folder / FORMS[form], paper) for form, paper in papers.items()]


def _typeset(source: str, folder: Path) -> tuple[bytes, int]:
    """The PDF, which is tagged for screen readers, and its number of pages. Nothing is downloaded: the fonts
    are those that come with typst and matplotlib, and the source imports no packages."""
    from typst import Compiler

    fonts = Path(mpl.get_data_path()) / "fonts" / "ttf"
    compiler = Compiler(root=folder, font_paths=[fonts], ignore_system_fonts=True)
    pdf = compiler.compile(source.encode(), format="pdf")
    pictures = compiler.compile(source.encode(), format="png", ppi=1)
    assert isinstance(pdf, bytes)
    return pdf, len(pictures) if isinstance(pictures, list) else 1


def _write_tables(blocks: Sequence[Block], folder: Path) -> None:
    for block in blocks:
        if isinstance(block, Table):
            rows = [[cell.replace(MINUS, "-") for cell in row] for row in block.full or block.rows]
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(rows)
            files.write(folder / f"{block.name}.csv", text.getvalue())
