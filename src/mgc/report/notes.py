"""What the author of a report writes: title, author, references, and answers to the questions of the paper.

They are in `results/<dataset>/notes.md`, which is written once, with the questions, and then never again.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mgc.util import files
from mgc.util.errors import explaining
from mgc.util.progress import say
from mgc.util.text import one_line, render_template

NAME = "notes.md"
BOLD = re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*")


@dataclass(frozen=True)
class Notes:
    """The text below each heading, in the order of the file; text above the first heading has the key ""."""

    sections: Mapping[str, str] = field(default_factory=dict)

    def text(self, heading: str) -> str:
        """The text below a heading, in upper or lower case; "" if there is none."""
        return next((own for name, own in self.sections.items() if _same(name, heading)), "")

    @property
    def title(self) -> str:
        """On one line; "" if none is given."""
        return one_line(self.text("title"))

    @property
    def author(self) -> str:
        """One or several names, separated by commas; "" if none is given."""
        names = (name.strip(" ,-*") for name in self.text("author").splitlines())
        return one_line(", ".join(filter(None, names)))

    @property
    def others(self) -> list[str]:
        """The other headings that have a text: those of questions, and the author's own."""
        known = ("title", "author", "references")
        return [name for name in self.sections if name.casefold() not in known and self.blocks(name)]

    def blocks(self, heading: str) -> list[tuple[str, list[str]]]:
        """The paragraphs below a heading: ("text", one line), or ("item", the items of a list)."""
        blocks: list[tuple[str, list[str]]] = []
        for paragraph in re.split(r"\n\s*\n", self.text(heading)):
            text, *items = re.split(r"^ *[-*+] +", paragraph, flags=re.MULTILINE)
            blocks += [("text", [one_line(text)])] if text.strip() else []
            blocks += [("item", [*map(one_line, items)])] if items else []
        return blocks


def _same(heading: str, other: str) -> bool:
    return heading.casefold() == one_line(other).casefold()


def read_notes(folder: Path) -> Notes:
    """The notes in a folder of results; none if there is no such file.

    Headings are lines that begin with #, of any level. Comments of HTML are skipped. If a heading occurs
    several times, its texts follow one another, so nothing that was written is lost.

    Raises:
        MgcError: the file cannot be read.
    """
    file, sections = folder / NAME, {"": ""}
    if not file.exists():
        return Notes()
    with explaining("the notes cannot be read", file, "save it as text in UTF-8", (OSError, ValueError)):
        text = file.read_text(encoding="utf-8-sig")
    parts = re.split(r"^#{1,6} +(.*?)[ #]*$", re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL), flags=re.M)
    for heading, body in zip(["", *parts[1::2]], parts[::2], strict=True):
        name = next((name for name in sections if _same(name, heading)), one_line(heading))
        sections[name] = f"{sections.get(name, '')}\n\n{body.strip()}".strip()
    return Notes(sections)


def write_notes(folder: Path, data: str, questions: Mapping[str, Sequence[str]]) -> None:
    """Write the file with blank answers, unless there is one."""
    if (folder / NAME).exists():
        return
    shown = {topic: [one_line(text).replace("--", "- -") for text in q] for topic, q in questions.items()}
    text = render_template("mgc.report", NAME, data=one_line(data).replace("--", "- -"), questions=shown)
    say(f"{files.write(folder / NAME, text + chr(10))}: write title, author and answers here")
