"""The content of reports and the page, from records alone, without a browser."""

import html.parser
import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import here, tone

from mgc.config import BaselineRecipe, DataRecipe, ProbeRecipe, ReportRecipe, read_recipe, recipe_toml
from mgc.evaluate import Predictions, evaluate
from mgc.report.audio import excerpt
from mgc.report.content import Content, gather
from mgc.report.figures import Axis, Chart, Line, axis_for
from mgc.report.maps import kept_map
from mgc.report.page import render_page, write_page
from mgc.runs.record import RunRecord, tracks_file
from mgc.util.errors import MgcError

EVIL = "<script>alert(1)</script>"
CLASSES = ("folk", "pop", "rock")


def predictions(seed: int, skill: float, tracks: int = 60) -> Predictions:
    """Probabilities that favour the truth by `skill`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(tracks) % len(CLASSES)
    scores = rng.gumbel(size=(tracks, len(CLASSES)))
    scores[np.arange(tracks), labels] += skill
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    ids = tuple(f"t{i:03d}" for i in range(tracks))
    return Predictions(
        CLASSES, ids, labels, shares, tuple(f"artist {i // 2}" for i in range(tracks)), labels * 0
    )


def make_run(system: str, path: str, predictions: Predictions, **changes: object) -> RunRecord:
    recipe = (BaselineRecipe if path == "baseline" else ProbeRecipe)(data=DataRecipe(source="nowhere.csv"))
    plain = {
        "run_id": f"{system}-{path}", "system": system, "kind": path, "representation": f"{system} ear",
        "head": "logistic" if path == "probe" else "", "hypothesis": f"{EVIL} & more", "seed": 0,
        "recipe": recipe.model_dump(mode="json"), "data": "tunes", "data_hash": "d0", "licence": EVIL,
        "split": "holdout", "split_authority": f"drawn {EVIL}", "split_hash": "s0",
        "excluded": [{"track_id": EVIL, "path": "x", "label": "pop", "reason": f"silent {EVIL}"}],
        "scores": evaluate(predictions).to_dict(), "parameters": 7, "chosen": [], "seconds": {"train": 3.0},
        "representation_card": {
            "fingerprint": system, "source": EVIL, "parameters": 3, "licence": EVIL, "trained_on": "tags",
        },
        "revisions": {"split": 1}, "commit": None, "versions": {"mgc": EVIL}, "device": EVIL,
        "created": f"2026-01-01T00:00:0{len(system) % 10}", "name": f"{system} {EVIL}", "reported": EVIL,
    }  # fmt: skip
    plain["folder"] = here().results_of("tunes") / str(plain["run_id"])
    record = RunRecord(**{**plain, **changes})  # type: ignore[arg-type]
    record.save(predictions)
    return record


@pytest.fixture
def runs() -> list[RunRecord]:
    """A floor, two networks, one of them with curves, and two probes, all of whose texts are hostile."""
    made = [
        make_run("majority", "floor", predictions(0, 0.0)),
        make_run("cnn", "baseline", predictions(1, 1.0)),
        make_run("gru", "baseline", predictions(2, 0.8)),
        make_run("musicnn", "probe", predictions(3, 2.5)),
        make_run("whisper", "probe", predictions(4, 1.5)),
    ]
    epochs = np.arange(6)
    table = {"fold": 0, "epoch": epochs, "train_loss": 1 / (1 + epochs), "val_loss": 1.0, "best": epochs == 3}
    accuracies = {"train_accuracy": epochs / 6, "val_accuracy": 0.4, "learning_rate": 0.1, "seconds": 1.0}
    pd.DataFrame(table | accuracies).to_csv(made[1].folder / "curves.csv", index=False)
    return made


def name_tracks(record: RunRecord) -> None:
    run = record.predictions()
    rows = [
        (i, CLASSES[k], EVIL, f"{EVIL} {i}", "", 30.0) for i, k in zip(run.track_ids, run.labels, strict=True)
    ]
    columns = ["track_id", "label", "artist", "title", "album", "seconds"]
    pd.DataFrame(rows, columns=columns).to_csv(tracks_file(here().results_of("tunes"), "d0"), index=False)


def content(**options: object) -> Content:
    return gather(ReportRecipe(data=DataRecipe(source="tunes"), **options), workspace=here())  # type: ignore[arg-type]


class Page(html.parser.HTMLParser):
    """Tags, headings, links and text of a page."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


def test_content_finds_the_best_of_each_kind(runs: list[RunRecord]) -> None:
    name_tracks(runs[0])
    c = content(baseline="cnn-baseline")
    best = {path: entry.record.system for path in ("floor", "baseline", "probe") if (entry := c.best(path))}
    assert best == {"floor": "majority", "baseline": "cnn", "probe": "musicnn"}
    assert [entry.record.system for entry in c.probes] == ["musicnn", "whisper"]
    assert c.baseline and c.baseline.record.system == "cnn"
    assert {entry.record.kind for entry in c.front} == {"floor", "baseline", "probe"}
    entry = c.probes[0]
    scores = entry.record.evaluation
    assert entry.system.confusion.tolist() == [list(row) for row in scores.confusion]
    assert entry.system.per_class("f1") == pytest.approx([row.f1 for row in scores.per_class])
    assert c.genres["label"].tolist() == [*CLASSES]
    assert c.genres[["tracks", "groups", "seconds"]].values.tolist() == [[20, 20, 600]] * 3
    assert "check" in c.missing[0] and len(c.missing) == 1


def test_clips_are_the_worst_errors_and_the_most_disputed(runs: list[RunRecord]) -> None:
    c = content()
    errors = [clip for clip in c.clips if clip.why == "error"]
    disputed = [clip for clip in c.clips if clip.why == "disagreement"]
    assert len(errors) == len(disputed) == 8
    assert not {clip.track_id for clip in errors} & {clip.track_id for clip in disputed}
    blame = [sum(one.probability for one in clip.answers if one.label != clip.label) for clip in errors]
    assert blame == sorted(blame, reverse=True)
    assert len(disputed[0].votes) == 3  # four systems disagree on all three classes
    assert {len(clip.answers) for clip in c.clips} == {4}  # the floor has no vote
    assert all(sum(one.label != clip.label for one in clip.answers) >= 2 for clip in errors)


def test_the_page_is_whole_self_contained_and_harmless(runs: list[RunRecord]) -> None:
    name_tracks(runs[0])
    text = render_page(content(audio=False))
    page = Page(text)
    assert not page.open
    assert sum(tag == "script" for tag, _ in page.tags) == 1  # its own
    assert "<script>alert" not in text
    assert page.text.count(EVIL) > 20  # shown as text
    for tag, attributes in page.tags:
        assert not {name for name in attributes if name.startswith("on")}
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    assert not re.search(r"url\(|@import|https?://", text)
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))
    tables, captions = (sum(tag == name for tag, _ in page.tags) for name in ("table", "caption"))
    assert tables == captions > 5
    assert all(attributes.get("scope") for tag, attributes in page.tags if tag == "th")
    titled = text.count('role="img"><title>')
    assert titled == sum(attributes.get("role") == "img" for _, attributes in page.tags) > 5


def test_the_page_shows_the_numbers_and_lists_what_is_missing(runs: list[RunRecord]) -> None:
    text = Page(render_page(content())).text
    for record in runs:
        assert f"{record.evaluation.accuracy:.3f}" in text
        assert f"mgc rerun {record.run_id}" in text
    assert content().verdict in text
    missing = text[text.index("Not available") :]
    for words in ("Titles and artists are unknown", "mgc data check", "audio was not found", "no map of"):
        assert words in missing
    assert "no training curves of gru" in missing


def test_a_map_is_read_from_the_run(runs: list[RunRecord]) -> None:
    name_tracks(runs[0])
    ids = runs[3].predictions().track_ids
    table = pd.DataFrame({"track_id": ids, "x": np.arange(60), "y": np.arange(60) % 7})
    table.to_csv(runs[3].folder / "map.csv", index=False)
    c = content(audio=False)
    kept = kept_map(c, c.probes[0])
    assert kept is not None and kept.loc[5].tolist() == [ids[5], 5.0, 5.0]
    text = render_page(c)
    assert "Map of 60 tracks" in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; t059 (rock)</title>" in text
    table.assign(track_id=[f"other {i}" for i in ids]).to_csv(runs[3].folder / "map.csv", index=False)
    assert kept_map(c, c.probes[0]) is None


def test_check_and_damaged_check(runs: list[RunRecord]) -> None:
    file = here().results / "tunes" / "check.json"
    finding = {
        "track_id": EVIL,
        "label": "pop",
        "kind": "clipped",
        "detail": EVIL,
        "excluded": False,
        "known": "",
    }
    check = {
        "data": "tunes",
        "split": "cv5",
        "classes": {},
        "kept": [],
        "tracks": 61,
        "used": 60,
        "findings": [finding],
        "copies": [],
        "properties": [],
        "crossing": {},
        "notes": [],
    }
    file.write_text(json.dumps(check))
    text = render_page(content(audio=False))
    assert "61 tracks checked, 60 used" in text and "1 × clipped" in text and "<script>alert" not in text
    for damaged in ("{", "[]", "{}", json.dumps(check | {"findings": 5})):
        file.write_text(damaged)
        with pytest.raises(MgcError, match="result of the data check cannot be read"):
            content()


@pytest.mark.parametrize("text", ["", "hello\nworld", "fold,epoch\n0,0\n", "\x00"])
def test_damaged_curves_are_named(runs: list[RunRecord], text: str) -> None:
    file = runs[1].folder / "curves.csv"
    file.write_text(text)
    with pytest.raises(MgcError, match="curves cannot be read") as refusal:
        render_page(content(audio=False))
    assert refusal.value.where == file and refusal.value.fix


@pytest.mark.parametrize("damage", ["title,artist\nx,y\n", "twice", "seconds"])
def test_damaged_names_of_tracks_are_reported_on_the_page(runs: list[RunRecord], damage: str) -> None:
    name_tracks(runs[0])
    file = tracks_file(here().results_of("tunes"), "d0")
    text = {"twice": file.read_text() * 2, "seconds": file.read_text().replace("30.0", "x")}.get(
        damage, damage
    )
    file.write_text(text)
    assert f"Titles and artists are unknown: {file.name}: the names of the tracks cannot be read" in " ".join(
        content().missing
    )


def test_a_single_floor_makes_a_page() -> None:
    make_run("majority", "floor", predictions(0, 0.0))
    page = Page(render_page(content()))
    headings = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert not {"training", "maps", "listen", "notes"} & {*headings}  # nothing is empty
    assert "1 system from 1 run." in page.text


def test_every_link_has_a_section_and_every_scroll_area_can_be_focused(runs: list[RunRecord]) -> None:
    name_tracks(runs[0])
    page = Page(render_page(content(audio=False)))
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    links = [str(attributes["href"])[1:] for tag, attributes in page.tags if tag == "a"]
    assert [*links[1:], "missing"] == sections and "maps" not in links
    areas = [attributes for _, attributes in page.tags if attributes.get("class") == "wide"]
    assert len(areas) > 5
    assert all((a["tabindex"], a["role"]) == ("0", "region") and a["aria-label"] for a in areas)
    assert len({a["aria-label"] for a in areas}) == len(areas)


def test_floors_have_no_verdict(runs: list[RunRecord]) -> None:
    page = render_page(content(audio=False))
    rows = dict(re.findall(r'<tr class="(\w+)[^"]*">(.*?)</tr>', page, re.DOTALL))
    assert not re.search("worse|better|one seed|−", rows["floor"])
    assert "one seed" in rows["probe"]  # as the baseline has


def test_artists_of_several_genres_are_explained(runs: list[RunRecord]) -> None:
    assert "There are 30 artists. Those with tracks of several genres are counted" in render_page(content())


def test_writing_replaces_the_page_at_once(runs: list[RunRecord], tmp_path: Path) -> None:
    file = write_page(content(audio=False), tmp_path / "new" / "folder")
    assert file.name == "report.html" and [*file.parent.iterdir()] == [file]


@pytest.mark.parametrize(
    "recipe", [BaselineRecipe(name='a "b"\n\\ \x7f ü', augment={"pitch": (-1.0, 2.0)}), ProbeRecipe()]
)
def test_a_recipe_is_read_back_from_its_toml(recipe: BaselineRecipe | ProbeRecipe, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(recipe_toml(recipe.model_dump(mode="json")), encoding="utf-8")
    assert read_recipe(type(recipe), file) == recipe


def test_an_excerpt_is_the_middle_and_small(tmp_path: Path) -> None:
    samples = np.concatenate([np.zeros(160_000), tone(0, 12.0, 16_000, 0), np.zeros(160_000)])
    soundfile.write(tmp_path / "long.wav", samples, 16_000)
    one = excerpt(tmp_path / "long.wav", len(samples) / 16_000)
    assert one.seconds == pytest.approx(12.0, abs=0.01)
    assert 0 < len(one.sound) < 100_000
    (tmp_path / "cut.mp3").write_bytes(one.sound)
    sound, rate = soundfile.read(tmp_path / "cut.mp3")
    assert sound.ndim == 1 and np.abs(sound[: rate // 2]).max() > 0.1  # no silence before it
    assert one.picture.startswith(b"\xff\xd8") and len(one.picture) < 40_000


def test_lines_are_thinned_and_axes_round() -> None:
    steps = np.repeat(np.linspace(0, 1, 2001), 2)
    line = Line(EVIL, steps[:-1], steps[1:], 0)
    points = Chart("a", Axis("x"), Axis("y"), [line]).path(line).split()
    assert len(points) < 20  # a staircase finer than a point is a line
    assert (points[0], points[-1]) == ("34.0,204.0", "332.0,24.0")
    axis = axis_for("loss", np.array([0.31, 1.42]), zero=True)
    assert axis.low == 0 and axis.high >= 1.42 and len(axis.ticks) <= 8
