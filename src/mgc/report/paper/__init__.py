"""The paper: at most six A4 pages as Markdown, LaTeX or PDF, in which every number comes from run records.

Its words are in `templates/paper.txt`, and each form draws the same blocks. It draws no conclusions: the
discussion lists the questions that the numbers raise.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from mgc.report.content import Content
from mgc.report.paper.figures import OPTIONAL, draw_figures
from mgc.report.paper.forms import MINUS, write_as
from mgc.report.paper.text import paper_of
from mgc.util import files
from mgc.util.errors import MgcError, did_you_mean
from mgc.util.text import csv_table

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
    paper = paper_of(content)
    for name, table in paper.tables.items():
        files.write(folder / "tables" / f"{name}.csv", csv_table(table.full).replace(MINUS, "-"))
    draw_figures(content, paper.names("figure"), folder / "figures")
    pdf, pages = _typeset(write_as("typst", paper), folder)
    for name in OPTIONAL:
        if pages > MOST_PAGES:
            paper.blocks[:] = [block for block in paper.blocks if block.name != name]
            pdf, pages = _typeset(write_as("typst", paper), folder)
    papers = {form: pdf if form == "pdf" else write_as(form, paper) for form in forms}
    return [files.write(folder / FORMS[form], written) for form, written in papers.items()]


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
