"""The paper and the bundle: every number from records, foreign text as text, six pages, the same bytes."""

import contextlib
import hashlib
import io
import json
import re
import subprocess
import tomllib
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as Xml

import numpy as np
import pandas as pd
import pytest
from conftest import here
from markdown_it import MarkdownIt

import mgc.evaluate
from mgc.config import BaselineRecipe, DataRecipe, ProbeRecipe, ReportRecipe, read_recipe
from mgc.data.checking.check import Check
from mgc.data.checking.report import save
from mgc.evaluate import Predictions, evaluate
from mgc.report.bundle import MOST_WEIGHTS, write_bundle
from mgc.report.content import MOST_ROWS, Content, gather
from mgc.report.paper import MOST_PAGES, figures, forms, write_papers
from mgc.report.paper.text import paper_of
from mgc.runs.record import RunRecord, tracks_file, without_places
from mgc.util.errors import MgcError
from mgc.util.files import write

NASTY = r"<script>a()</script> x_y & 50% | $z$ {b} \w `c` *d* ~ ^ # -- '' 音"
CLASSES = ("a_b & c|d", "éthé", *(f"genre {n}" for n in range(12)))
HOME = "/home/me/own music"  # must not appear in a bundle
QUARANTINE = (
    "track_id,excluded,kind,reason,copy_of,label,path,content\n"
    f"t01,no,copy,a copy of t02,t02,x,{HOME}/t01.mp3,00\n"
)
WORDY = "Long " + "and longer " * 60


def predictions(data: str, skill: float, seed: int, names: tuple[str, ...]) -> Predictions:
    labels = np.arange(70) % len(names)
    rng = np.random.default_rng(seed)
    values = rng.random((70, len(names))) + skill * np.eye(len(names))[labels] * rng.random((70, 1))
    ids, groups = [f"t{n:02}" for n in range(70)], [f"artist {n // 2}" for n in range(70)]
    folds = np.arange(70) // 2 % 2
    return Predictions(names, tuple(ids), labels, values / values.sum(1, keepdims=True), tuple(groups), folds)


def run(
    data: str, path: str, name: str, skill: float, *, seed: int = 0, leaky: bool = False, head: str = "",
    classes: tuple[str, ...] = CLASSES, representation: str = "logmel", **settings: object,
) -> RunRecord:  # fmt: skip
    source = DataRecipe(source=f"{HOME}/{data}", split="random" if leaky else "auto")
    kind = ProbeRecipe if path == "probe" else BaselineRecipe
    recipe = kind(name=name, hypothesis=WORDY + NASTY, data=source, seed=seed, **settings)
    answers = predictions(data, skill, len(name) + seed, classes)
    digest = hashlib.md5(f"{name}{leaky}{recipe}".encode()).hexdigest()[:8]
    learned = "nothing" if representation == "logmel" else "tags"
    card = {
        "source": f"folder {HOME}/{representation}",
        "spec": {"name": f"{HOME}/{representation}", "keep": "windows"},
        "trained_on": learned,
        "layers": [{"dim": 8}],
    }
    card |= {"parameters": 1, "licence": "mine"}
    card |= {"cut": {"sample_rate_hz": 16_000, "window": 16_000}}
    record = RunRecord(
        run_id=f"run-{digest}", system=name, kind=path, representation=representation, head=head,
        hypothesis=recipe.hypothesis, seed=seed, recipe=recipe.model_dump(mode="json"), data=data,
        data_hash="d" * 16, licence=None, split="random" if leaky else "cv5",
        split_authority="LEAKY: random" if leaky else "two folds", split_hash=f"s{leaky}",
        excluded=[{"track_id": NASTY, "path": f"{HOME}/p", "label": "x", "reason": "cut short"}],
        scores=evaluate(answers, n_bootstrap=40).to_dict(), parameters=1234, chosen=[], seconds={"train": 3},
        representation_card=card, revisions={"split": 1}, commit="1+", versions={"mgc": "0"},
        device="cpu", leaky=leaky,
        name=name, notes=["checked: what /home/me/quarantine.csv says is left out"],
        created=f"2026-01-01T00:00:{skill * 10:05.2f}", folder=here().results_of(data) / f"run-{digest}",
    )  # fmt: skip
    record.save(answers)
    return record


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("paper")


@pytest.fixture(scope="module")
def gathered(results: Path) -> Iterator[Content]:
    """Two floors, 6 networks (one with a second seed and a leaky twin), 16 probes, many words."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MGC_RESULTS", str(results))
        patch.setenv("MGC_QUARANTINE", str(results / "quarantine"))
        run("many", "floor", "majority", 0.0)
        run("many", "floor", "statistics", 0.5, head="logistic")
        for number, network in enumerate(("cnn", "gru", "cnn5", "mlp57", "cnn_gru", "unet_encoder")):
            skill = 3.1 if network == "unet_encoder" else 0.6 + number / 5
            best = run("many", "baseline", f"net {number} {NASTY}", skill, network=network)
        run("many", "baseline", best.name, 3.1, network="unet_encoder", seed=1)
        run("many", "baseline", best.name, 5, network="unet_encoder", leaky=True)
        for number in range(16):
            name, skill = f"ear {number} {NASTY}", 0.5 + number / 6
            run("many", "probe", name, skill, head="svm", representation=f"e{number}")
        epochs = {"fold": [0, 0], "epoch": [0, 1], "best": [False, True], "train_accuracy": [0.5, 0.91]}
        epochs |= {"val_accuracy": [0.4, 0.62], "train_loss": [1, 0.5], "val_loss": [1, 0.8]}
        pd.DataFrame(epochs).to_csv(best.folder / "curves.csv", index=False)
        (best.folder / "fold0.safetensors").write_bytes(bytes(MOST_WEIGHTS))
        (best.folder / "fold1.safetensors").write_bytes(bytes(MOST_WEIGHTS + 1))
        (best.folder / "excerpt.mp3").write_bytes(b"music")
        (results / "many" / "cut-off").mkdir()
        write(here().quarantine_file("many"), QUARANTINE)
        note = f"decisions for later commands: {here().quarantine_file('many').absolute()}"
        notes = note, "read from '/home/me/songs'"
        save(Check("many", 70, 70, "cv5", (), (), (), {}, {"artists": []}, (), notes), here())
        (results / "many" / "own.py").write_text(f"open('{results}/many/table.csv')  # data/root/x\n")
        titles = pd.DataFrame({"track_id": best.predictions().track_ids, "label": "", "artist": "Дождь"})
        titles.assign(title=NASTY, album="", seconds=30.0).to_csv(
            tracks_file(here().results_of("many"), "d" * 16), index=False
        )
        yield gather(ReportRecipe(data=DataRecipe(source="many")), workspace=here())


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures that are drawn fast."""
    monkeypatch.setattr(figures, "DPI", 40)


@pytest.fixture
def content(gathered: Content, results: Path, monkeypatch: pytest.MonkeyPatch) -> Content:
    """The same, where its records are found."""
    monkeypatch.setenv("MGC_RESULTS", str(results))
    return gathered


@pytest.fixture
def files(content: Content, results: Path) -> dict[str, bytes]:
    """The members of the bundle, which holds the paper in all forms."""
    if not (results / "out" / "hand-in.zip").exists():
        write_bundle(content, results / "out")
    with zipfile.ZipFile(results / "out" / "hand-in.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rows_of(table: Xml.Element) -> list[list[str]]:
    return [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")]


def test_markdown_shows_foreign_text_as_text_and_the_records_numbers(
    files: dict[str, bytes], content: Content
) -> None:
    html = MarkdownIt("commonmark").enable("table").render(files["paper.md"].decode())
    page = Xml.fromstring(f"<page>{html}</page>")  # well-formed, so nothing of it became markup by chance
    tags = {element.tag for element in page.iter()}
    lines = {"page", "h1", "h2", "p", "ul", "li", "img", "pre", "code", "strong"}
    assert tags <= lines | {"table", "thead", "tbody", "tr", "th", "td"}
    _, main, genres, errors = map(rows_of, page.iter("table"))
    by_title = {entry.title: entry for entry in content.systems}
    assert len(main) == 1 + MOST_ROWS < 1 + len(by_title)
    for title, accuracy, f1, *_ in main[1:]:
        s = by_title[title].scores
        assert accuracy.startswith(f"{s.accuracy:.3f} [{s.accuracy_low:.3f}, {s.accuracy_high:.3f}]")
        assert f1 == f"{s.macro_f1:.3f}"
    shown = {row[0] for row in main}
    assert {"majority", content.baseline.title} | {e.title for e in content.pair} <= shown
    assert genres[1][0] == CLASSES[0]
    assert len(genres) == 1 + figures.MOST_CLASSES
    assert errors[1][0] == f"{NASTY}, Дождь"
    text = "".join(page.itertext())
    assert "a training accuracy of 91 % and a validation accuracy of 62 %" in text
    assert "On the split that leaks, the accuracy of" in text
    assert "/home/me" not in text


def test_latex_is_balanced_and_escaped(files: dict[str, bytes]) -> None:
    text = files["paper.tex"].decode()
    assert r"\textless{}script\textgreater{}a()" in text
    assert r"x\_y \& 50\% \textbar{} \$z\$ \{b\} \textbackslash{}w \textasciigrave{}c" in text
    assert r"\# -{}- '{}' [U+97F3]" in text
    assert "éthé" in text
    bare = re.sub(r"\\[\\{}&%$#_]", "", text)
    depth = np.cumsum([(c == "{") - (c == "}") for c in bare])
    assert depth[-1] == 0
    assert depth.min() == 0
    assert not re.search(
        r"[#^<>|~\"]",
        bare.replace(r"Table~\ref", "").replace(r"Figure~\ref", "").replace(r">{\raggedright", ""),
    )
    opened = []
    for word, name in re.findall(r"\\(begin|end)\{(\w+)\}", bare):
        assert word == "begin" or opened.pop() == name
        opened += [name] if word == "begin" else []
    assert not opened
    for body in re.findall(r"\\begin\{tabular\}.*?\\end\{tabular\}", text, re.DOTALL):
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1
    labels = set(re.findall(r"\\label\{([^}]*)\}", text))
    assert set(re.findall(r"\\ref\{([^}]*)\}", text)) <= labels
    for picture in re.findall(r"\\includegraphics\[[^]]*\]\{([^}]*)\}", text):
        assert files[picture].startswith(b"%PDF")


def pages_of(pdf: bytes) -> int:
    return len(re.findall(rb"/Type/Page\b", pdf))


def test_pdf_has_six_pages_and_optional_figures_are_dropped(
    files: dict[str, bytes], content: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 3 < pages_of(files["paper.pdf"]) <= MOST_PAGES
    monkeypatch.setattr("mgc.report.paper.MOST_PAGES", 1)
    monkeypatch.setattr("mgc.report.paper.draw_figures", lambda *_: None)
    for name, body in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(body)
    markdown, short = write_papers(content, ("markdown", "pdf"), tmp_path)
    less = markdown.read_text("utf-8")
    assert "figures/accuracies.png" in less
    assert "figures/roc.png" not in less
    assert "figures/roc.pdf" in less  # what the text refers to is still there, as a file
    pictures = [body.count(b"/S/Figure") for body in (files["paper.pdf"], short.read_bytes())]
    assert pictures == [3, 2]  # so many long words leave no room for the ROC curves
    with pytest.raises(MgcError, match="word"):
        write_papers(content, ["word"], tmp_path)


def test_pdf_is_tagged_for_screen_readers(files: dict[str, bytes]) -> None:
    pdf = files["paper.pdf"]
    assert b"/MarkInfo<</Marked true" in pdf
    assert b"/Lang(en)" in pdf
    assert pdf.count(b"/Alt") == 3  # figures
    assert all(pdf.count(tag) > 3 for tag in (b"/S/H1", b"/S/Table", b"/S/TH"))


def test_typst_shows_foreign_text_as_text() -> None:
    blocks = [forms.Block(kind, [NASTY]) for kind in ("text", "item", "code")]
    source = forms.write_as("typst", forms.Paper(NASTY, NASTY, blocks, {}))
    literals = [json.loads(literal) for literal in re.findall(r'"(?:[^"\\]|\\.)*"', source)]
    assert literals.count(NASTY.replace("音", "[U+97F3]")) == 6
    assert "x_y" not in re.sub(r'"(?:[^"\\]|\\.)*"', "", source)


def test_characters_that_no_font_has_are_shown_by_number() -> None:
    assert forms.displayable(NASTY + " Дождь é ☃") == NASTY.replace("音", "[U+97F3]") + " Дождь é ☃"


def test_references_are_those_of_the_evaluation(files: dict[str, bytes]) -> None:
    known = " ".join((mgc.evaluate.__doc__ or "").replace('"', "").split())
    references = files["paper.md"].decode().split(" References\n")[1]
    cited = re.findall(r"^- (.*?)\. (.*?)\. (.*\d{4})\.$", references, re.MULTILINE)
    assert len(cited) == 7  # all of them apply to these records
    for who, title, place in cited:
        assert f"{who}, {title}, {place}" in known


def test_bundle_is_complete_and_its_commands_run(
    files: dict[str, bytes], content: Content, results: Path
) -> None:
    sums = dict(reversed(line.split("  ", 1)) for line in files["MANIFEST"].decode().splitlines())
    assert sums == {
        name: hashlib.sha256(body).hexdigest() for name, body in files.items() if name != "MANIFEST"
    }
    systems = pd.read_csv(io.BytesIO(files["tables/systems.csv"]))
    assert list(systems["system"]) == [entry.title for entry in content.systems]
    for record in content.records:
        assert {f"runs/{record.run_id}/{name}" for name in ("record.json", "predictions.parquet")} <= set(
            files
        )
        if record.kind != "floor":
            file = results / "again.toml"
            file.write_bytes(files[f"configs/{record.run_id}.toml"])
            kind = ProbeRecipe if record.kind == "probe" else BaselineRecipe
            assert read_recipe(kind, file) == kind.model_validate(without_places(record).recipe)
            assert (
                files["commands.sh"]
                .decode()
                .count(f"mgc {record.kind} --config configs/{record.run_id}.toml ")
                == 1
            )
    subprocess.run(["sh", "-n"], input=files["commands.sh"], check=True)
    assert not [name for name in files if name.endswith(("mp3", "fold1.safetensors"))]
    readme = files["README.md"].decode()
    assert all(word in readme for word in ("excerpt.mp3", "fold1.safetensors", "cut-off/"))
    assert any(name.endswith("fold0.safetensors") for name in files)


def unpacked(body: bytes) -> bytes:
    """A file with the streams of a PDF."""
    streams = re.findall(rb"stream\r?\n(.*?)endstream", body, re.DOTALL) if body.startswith(b"%PDF") else []
    texts = []
    for stream in streams:
        with contextlib.suppress(zlib.error):
            texts.append(zlib.decompressobj().decompress(stream))
    return b"\n".join([body, *texts])


def test_bundle_contains_no_paths_of_this_machine_and_no_audio(
    files: dict[str, bytes], results: Path
) -> None:
    places = [b"/home/", b"own music", str(results).encode(), str(Path.cwd()).encode()]
    leaking = [name for name, body in files.items() if any(place in unpacked(body) for place in places)]
    assert not leaking
    assert b"decisions for later commands: many.csv" in files["check.md"]
    assert b"decisions for later commands: many.csv" in files["report.html"]
    assert files["own.py"] == b"open('many/table.csv')  # data/root/x\n"
    page = files["report.html"].decode()
    assert "data:audio" not in page
    assert "Reliability of" in page
    record = next(body for name, body in files.items() if name.endswith("record.json"))
    assert b"what quarantine.csv says is left out" in record
    assert b",t01.mp3," in files["quarantine.csv"].replace(b'"', b"")
    recipe = tomllib.loads(next(body for name, body in files.items() if name.startswith("configs/")).decode())
    assert recipe["data"]["source"] == "many"


def test_bundle_is_reproducible(
    files: dict[str, bytes], content: Content, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (results / "out" / "hand-in.zip").read_bytes()
    # What takes long is made again by the slow test.
    monkeypatch.setattr("mgc.report.paper.draw_figures", lambda *_: None)
    monkeypatch.setattr("mgc.report.bundle.render_page", lambda _: files["report.html"].decode())
    assert write_bundle(content, results / "out").read_bytes() == before


@pytest.mark.slow
def test_figures_and_page_are_reproducible(content: Content, files: dict[str, bytes], tmp_path: Path) -> None:
    with zipfile.ZipFile(write_bundle(content, tmp_path)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files


def test_every_paragraph_of_the_template_is_a_block(content: Content) -> None:
    kinds = {block.kind for block in paper_of(content).blocks}
    assert kinds == {"heading", "text", "item", "code", "table", "figure"}


def test_one_probe_alone_is_a_paper_too(tmp_path: Path) -> None:
    run("one", "probe", "ear", 1.0, head="svm", classes=("x", "y"))
    content = gather(ReportRecipe(data=DataRecipe(source="one")), workspace=here())
    [paper] = write_papers(content, ["markdown"], tmp_path)
    text = paper.read_text("utf-8")
    assert "There is no baseline." in text
    assert text.count("baseline") == 2  # in this sentence, and as an empty column of the main table


def test_names_cannot_imitate_the_marks_of_mentions_and_bold_text(tmp_path: Path) -> None:
    run("marked", "probe", "\ue000bold:ear\ue001", 1.0, head="svm", classes=("x", "y"))
    content = gather(ReportRecipe(data=DataRecipe(source="marked")), workspace=here())
    [paper] = write_papers(content, ["markdown"], tmp_path)
    assert r"\\ue000bold:ear\\ue001" in paper.read_text("utf-8")


def test_one_fold_and_a_genre_without_test_tracks_are_reported(tmp_path: Path) -> None:
    record = run("given", "probe", "ear", 1.0, head="svm", classes=("x", "y", "z"))
    answers = record.predictions()
    alone = replace(
        answers, fold=np.zeros_like(answers.fold), labels=np.where(answers.labels == 2, 0, answers.labels)
    )
    replace(record, scores=evaluate(alone, n_bootstrap=40).to_dict()).save(alone)
    content = gather(ReportRecipe(data=DataRecipe(source="given")), workspace=here())
    [paper] = write_papers(content, ["markdown"], tmp_path)
    text = paper.read_text("utf-8")
    assert "No test track is labelled z: nothing is known about that genre." in text
    assert not [words for words in ("per fold", "all folds", "over folds") if words in text]


def test_a_bundle_warns_about_track_ids_that_are_absolute_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run("placed", "probe", "ear", 1.0, head="svm", classes=("x", "y"))
    answers = record.predictions()
    record.save(replace(answers, track_ids=tuple(f"{HOME}/{i}.mp3" for i in answers.track_ids)))
    write_bundle(
        gather(ReportRecipe(data=DataRecipe(source="placed"), audio=False), workspace=here()), tmp_path
    )
    assert f"the ids of 70 tracks are absolute paths, such as {HOME}/t00.mp3" in capsys.readouterr().err


def test_the_dataset_and_the_encoders_are_cited(tmp_path: Path) -> None:
    for name in ("musicnn", "own ear"):
        run("emotify", "probe", name, 1.0, head="svm", classes=("x", "y"), representation=name)
    content = gather(ReportRecipe(data=DataRecipe(source="emotify")), workspace=here())
    cited = [block.lines for block in paper_of(content).blocks if block.kind == "item"][-1]
    assert "Aljanaki, Wiering & Veltkamp. Studying emotion" in cited[-3]
    assert {"musicnn: Pons & Serra. ", "own ear: folder own ear"} <= {text[:23] for text in cited[-2:]}


def test_the_paper_describes_the_baseline_in_full_and_beside_the_best_system(content: Content) -> None:
    text = " ".join(line for block in paper_of(content).blocks for line in block.lines)
    assert "learning rate 0.0" in text and "optimizer " in text and "3x3 kernels" in text
    assert content.baseline and content.matrices[0] is content.baseline and len(content.matrices) == 2
    titles = {row.title for row in content.main_rows}
    assert {row.title for row in content.compared} <= titles  # every system that is quoted is in a table
