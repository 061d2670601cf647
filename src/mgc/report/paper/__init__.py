"""The paper: at most six A4 pages as Markdown, LaTeX or PDF, in which every number comes from run records.

Its words are in `templates/paper.txt`, and each form draws the same blocks. It draws no conclusions: the
discussion lists the questions that the numbers raise.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from mgc.report.content import Content
from mgc.report.notes import NAME, write_notes
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

    The first paper also writes the file for the author's notes. The same records and notes give the same
    bytes. Each form ends with a content hash, by which a later call detects that it was edited.

    Raises:
        MgcError: unknown form, a form that was edited by hand, or records that cannot be read.
    """
    if unknown := [form for form in forms if form not in FORMS]:
        raise MgcError(f"unknown form of a paper: {unknown[0]!r}", fix=did_you_mean(unknown[0], FORMS))
    edited = [] if content.recipe.overwrite else [name for name in forms if is_edited(folder / FORMS[name])]
    if edited:
        fix = f"write into {NAME} what you added, and repeat the command with --overwrite"
        raise MgcError("the paper was edited by hand", where=folder / FORMS[edited[0]], fix=fix)
    paper = paper_of(content)
    write_notes(content.folder, content.data, paper.questions)
    for name, table in paper.tables.items():
        files.write(folder / "tables" / f"{name}.csv", csv_table(table.full).replace(MINUS, "-"))
    draw_figures(content, paper.names("figure"), folder / "figures")
    pdf, pages = _typeset(write_as("typst", paper), folder)
    for name in OPTIONAL:
        if pages > MOST_PAGES:
            paper.blocks[:] = [block for block in paper.blocks if block.name != name]
            pdf, pages = _typeset(write_as("typst", paper), folder)
    written = {form: pdf if form == "pdf" else write_as(form, paper).encode() for form in forms}
    return [files.write(folder / FORMS[form], _signed(body, form)) for form, body in written.items()]


def is_edited(file: Path) -> bool:
    """Whether a form of a paper exists and is not as `write_papers` wrote it. Line ends may have changed."""
    if not file.exists():
        return False
    body = file.read_bytes().replace(b"\r\n", b"\n")
    signature = re.search(rb"^(?:<!--|%) by mgc, ([0-9a-f]{64})[^\n]*\n?\Z", body, re.MULTILINE)
    return not signature or _hash(body[: signature.start()]) != signature[1].decode()


def _signed(body: bytes, form: str) -> bytes:
    """With a last line, a comment, that holds the content hash of the others. PDF readers skip it."""
    start, end = ("\n<!--", " -->") if form == "markdown" else ("%", "")
    return body.rstrip(b"\n") + f"\n{start} by mgc, {_hash(body)}{end}\n".encode()


def _hash(body: bytes) -> str:
    return hashlib.sha256(body.replace(b"\r\n", b"\n").strip()).hexdigest()


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
