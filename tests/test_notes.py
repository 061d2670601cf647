"""What the author writes is kept: notes in every form of the report, and papers that were edited by hand."""

import re
import zipfile
from pathlib import Path

import pytest
from conftest import here
from test_paper import NASTY, run

from mgc.config import DataRecipe, ReportRecipe
from mgc.report.bundle import write_bundle
from mgc.report.content import Content, gather
from mgc.report.notes import Notes, read_notes
from mgc.report.page import render_page
from mgc.report.paper import FORMS, figures, is_edited, write_papers
from mgc.util.errors import MgcError

NOTES = f"""<!-- not printed -->
## Title
Song & dance
## Author
Ada L. {NASTY}
Grace H.

# largest confusion
They are **both** loud: 50 % of *them* & more.

1. is no list

- one {NASTY}
- two

## Related work
Others did <b>this</b>.
## References
- Aljanaki. Emotify, 2016.
"""


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of results with one probe."""
    monkeypatch.setattr(figures, "DPI", 40)
    run("tunes", "probe", "ear", 1.0, head="svm", classes=("x", "y"))
    return here().results_of("tunes")


def gathered(**settings: object) -> Content:
    recipe = ReportRecipe(data=DataRecipe(source="tunes"), audio=False, **settings)  # type: ignore[arg-type]
    return gather(recipe, workspace=here())


def texts(folder: Path, **settings: object) -> dict[str, str]:
    """Every form of the paper, the PDF by its source's title, and the page."""
    content = gathered(**settings)
    papers = write_papers(content, [*FORMS], folder)
    shown = {file.suffix: file.read_bytes().decode(errors="replace") for file in papers}
    return shown | {".html": render_page(content)}


def test_the_first_paper_writes_blank_notes_and_no_later_one_changes_them(probe: Path) -> None:
    texts(probe)
    blank = (probe / "notes.md").read_text("utf-8")
    assert re.findall("^## .*", blank, re.MULTILINE)[:3] == ["## Title", "## Author", "## Largest confusion"]
    assert "The largest confusion of ear + svm" in blank and blank.count("<!--") == blank.count("-->")
    assert read_notes(probe).others == [] and not read_notes(probe).title  # blank notes add nothing
    (probe / "notes.md").write_text(blank.replace("## Author\n", "## Author\nAda\n"))
    assert "Author: Ada" in texts(probe)[".md"]
    assert "\nAda\n" in (probe / "notes.md").read_text("utf-8")


def test_notes_are_in_every_form_and_on_the_page_as_text(probe: Path) -> None:
    (probe / "notes.md").write_text(NOTES, encoding="utf-8")
    shown = texts(probe)
    for form in (".md", ".tex", ".html"):
        assert not [words for words in ("not printed", "<b>this", "<script>a()") if words in shown[form]], (
            form
        )
    assert "# Song & dance\n" in shown[".md"] and r"\title{Song \& dance}" in shown[".tex"]
    assert "<h1>Song &amp; dance</h1>" in shown[".html"]
    assert "x\\_y" in re.findall(r"\\author.*", shown[".tex"])[0] and ", Grace H." in shown[".md"]
    assert r"They are \textbf{both} loud: 50 \% of *them* \& more." in shown[".tex"]
    question, answer = (
        shown[".md"].index("**Largest confusion.**"),
        shown[".md"].index("They are **both** loud"),
    )
    assert question < answer < shown[".md"].index("Which hypotheses")
    assert r"1\. is no list" in shown[".md"] and "\n- two\n" in shown[".md"]
    assert "**Related work.** Others did &lt;b>this" in shown[".md"]
    assert "- Aljanaki. Emotify, 2016." in shown[".md"].split("References")[1]
    assert "They are <b>both</b> loud" in shown[".html"] and "<li>two</li>" in shown[".html"]
    assert "Grace H.)" in shown[".pdf"] and "(Song & dance)" in shown[".pdf"]  # its text is packed


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("", {"": ""}),
        ("only words\n", {"": "only words"}),
        ("## A\none\n## b\n## a ##\ntwo", {"": "", "A": "one\n\ntwo", "b": ""}),
        ("<!-- ## Title\nno -->## Title\nyes", {"": "", "Title": "yes"}),
        ("## Title\r\nyes\r\n", {"": "", "Title": "yes"}),
        ("\ufeff## Title\nyes", {"": "", "Title": "yes"}),
        ("#tag\n####### seven", {"": "#tag\n####### seven"}),
        ("<!-- never closed\n## Title\nyes", {"": "<!-- never closed", "Title": "yes"}),
    ],
)
def test_odd_notes_lose_nothing(text: str, sections: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_bytes(text.encode())
    assert read_notes(tmp_path).sections == sections


def test_text_without_a_heading_is_in_the_paper(probe: Path) -> None:
    (probe / "notes.md").write_text("Nothing but words.")
    shown = texts(probe)
    assert "\nNothing but words.\n" in shown[".md"] and "Nothing but words." in shown[".html"]
    assert "________" in shown[".md"]


def test_notes_cannot_imitate_marks() -> None:
    assert Notes({"a": "\ue000table:x\ue001"}).blocks("A") == [("text", [r"\ue000table:x\ue001"])]


@pytest.mark.parametrize("damage", [b"\xff\xfe\x00", None])
def test_notes_that_cannot_be_read_are_named(probe: Path, damage: bytes | None) -> None:
    file = probe / "notes.md"
    if damage:
        file.write_bytes(damage)
    else:
        file.mkdir()
    with pytest.raises(MgcError, match="notes cannot be read") as refusal:
        gathered()
    assert refusal.value.where == file and refusal.value.fix


@pytest.mark.parametrize("form", FORMS)
def test_a_paper_edited_by_hand_is_kept(form: str, probe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts(probe)
    file = probe / FORMS[form]
    written = file.read_bytes()
    assert not is_edited(file)
    if form != "pdf":
        file.write_bytes(written.replace(b"\n", b"\r\n"))  # as git may check it out
        assert not is_edited(file)
    for edited in (b"%PDF mine\n" + written, written + b"more\n", written.rpartition(b"by mgc")[0], b""):
        file.write_bytes(edited)
        with pytest.raises(MgcError, match="edited by hand") as refusal:
            write_papers(gathered(), [form], probe)
        assert refusal.value.where == file and "--overwrite" in str(refusal.value.fix)
        assert file.read_bytes() == edited
    with zipfile.ZipFile(write_bundle(gathered(), probe)) as archive:
        assert archive.read(FORMS[form]) == edited
    assert f"{FORMS[form]} was edited by hand and is included as it is" in capsys.readouterr().err
    write_papers(gathered(overwrite=True), [form], probe)
    assert file.read_bytes() == written


def test_an_old_paper_without_a_hash_counts_as_edited(probe: Path) -> None:
    (probe / "paper.md").write_text("# Made by an earlier version, or by hand\n")
    with pytest.raises(MgcError, match="edited by hand"):
        texts(probe)
