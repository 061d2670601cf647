"""The paper: at most six A4 pages in Markdown, LaTeX or PDF, every number of which comes from records.

What it says is a list of blocks, made once; each form draws the same blocks. Nothing is concluded: the
discussion is questions that the numbers raise. Names, titles and hypotheses are other people's text: they are
escaped where a block is drawn, and nowhere else.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from mgc.report.content import Content
from mgc.report.paper.blocks import Block, Figure, Table
from mgc.report.paper.figures import draw_figures
from mgc.report.paper.forms import latex, markdown
from mgc.report.paper.pdf import pdf_of
from mgc.report.paper.text import blocks_of, title_of
from mgc.report.paper.words import MINUS, plain
from mgc.util import files
from mgc.util.errors import MgcError, did_you_mean

__all__ = ["FORMS", "Figure", "Table", "blocks_of", "plain", "write_paper", "write_papers"]

FORMS = {"markdown": "paper.md", "latex": "paper.tex", "pdf": "paper.pdf"}
MOST_PAGES = 6


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
    title, blocks = title_of(content), blocks_of(content)
    _write_tables(blocks, folder / "tables")
    draw_figures(content, blocks, folder / "figures")
    pdf, pages = pdf_of(blocks, title, folder)
    spare = [block for block in blocks if isinstance(block, Figure) and block.spare]
    while pages > MOST_PAGES and spare:
        gone = spare.pop()
        blocks = [block for block in blocks if block is not gone]
        pdf, pages = pdf_of(blocks, title, folder)
    written = []
    for form in forms:
        text = {"markdown": markdown, "latex": latex}.get(form)
        written.append(files.write(folder / FORMS[form], text(blocks, title) if text else pdf))
    return written


def _write_tables(blocks: Sequence[Block], folder: Path) -> None:
    for block in blocks:
        if isinstance(block, Table):
            rows = [[cell.replace(MINUS, "-") for cell in row] for row in block.whole or block.rows]
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(rows)
            files.write(folder / f"{block.name}.csv", text.getvalue())
