"""The report as one HTML file that loads nothing from outside: templates filled from `Content`."""

import base64
from collections import Counter
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mgc import __version__
from mgc.evaluate import calibration_error, reliability, roc_aucs, roc_curves
from mgc.report import figures
from mgc.report.audio import Excerpt, Music, excerpt, find_music
from mgc.report.content import NAMES, Clip, Content, Entry, recipe_toml
from mgc.report.figures import Axis, Line, axis_for, key, share_axis
from mgc.report.maps import MAPS, Map, kept_map, make_map
from mgc.runs.record import without_places
from mgc.runs.tables import Row, Section, caption, verdicts
from mgc.util.errors import MgcError
from mgc.util.files import write
from mgc.util.progress import Progress

FAMILIES = {"floor": "floor", "baseline": "from scratch", "probe": "probe"}


@dataclass(frozen=True)
class Heard:
    """A clip with what of it can be heard and seen; `excerpt` is None where its audio was not found."""

    clip: Clip
    excerpt: Excerpt | None

    @property
    def sound(self) -> str:
        """A data URI, or nothing."""
        return (
            f"data:audio/mpeg;base64,{base64.b64encode(self.excerpt.sound).decode()}" if self.excerpt else ""
        )

    @property
    def picture(self) -> str:
        """A data URI, or nothing."""
        return (
            f"data:image/jpeg;base64,{base64.b64encode(self.excerpt.picture).decode()}"
            if self.excerpt
            else ""
        )


def write_page(content: Content, folder: Path) -> Path:
    """`report.html` in `folder`.

    Raises:
        MgcError: records whose predictions or curves cannot be read.
    """
    page = render_page(content)
    return write(folder / "report.html", page.encode(errors="backslashreplace"))


def render_page(content: Content) -> str:
    """The page's text. Whatever could not be told stands in a section of its own."""
    missing = [*content.missing]
    maps = {entry.title: kept_map(content, entry) for entry in content.probes[:MAPS]}
    needed = content.recipe.audio or None in maps.values()
    music = find_music(content) if needed else Music(None, False, "")
    if music.problem:
        missing.append(music.problem)
    if music.dataset and not any(content.tracks["title"]):
        content, missing = _named(content, music), [m for m in missing if not m.startswith("Titles")]
    drawn = _maps(content, maps, music, missing)
    heard = _heard(content, music, missing)
    curves = [(entry, _curves(entry)) for entry in content.systems if entry.curves is not None]
    lost = [e.title for e in content.systems if e.kind == "baseline" and e.curves is None]
    missing += [f"There are no training curves of {', '.join(lost)}."] if lost else []

    environment = Environment(
        autoescape=True, loader=PackageLoader("mgc.report"), undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "percent": lambda x: f"{100 * x:.0f} %",
        "f2": lambda x: f"{x:.2f}",
        "p": _p_value,
        "points": _points,
    }
    number = {entry.title: place for place, entry in enumerate(content.front)}
    return environment.get_template("page.html").render(
        c=content,
        style=_own("page.css"),
        script=_own("page.js"),
        sections=[_table(content, section) for section in content.sections],
        captions=[caption(section) for section in content.sections],
        verdicts=[verdicts(section) for section in content.sections],
        families=FAMILIES,
        front=content.front,
        others=[entry for entry in content.systems if entry.title not in number],
        legend_entries=[(e.title, key(k, shape=False)) for k, e in enumerate(content.front)],
        side_keys=[(side, key(k, shape=False)) for k, side in enumerate(("training", "validation"))],
        bars=_bars(content),
        f1={entry.title: entry.per_class["f1"] for entry in content.systems},
        auc={entry.title: roc_aucs(entry.row.system.predictions[0]) for entry in content.systems},
        rocs=_rocs(content),
        curves=curves,
        shown_curves=[e.title for e, _ in curves if e.title in number] or [e.title for e, _ in curves[:1]],
        calibration=[(e, _reliability(e, k)) for k, e in enumerate(content.front)],
        errors_of={e.title: calibration_error(e.row.system.predictions[0]) for e in content.systems},
        maps=drawn,
        genre_keys=[(label, key(k, shape=True)) for k, label in enumerate(content.classes)],
        heard=heard,
        left_out=_left_out(content),
        found=_found(content),
        hypotheses=[e for e in content.systems if e.record.hypothesis or e.record.reported],
        versions=_versions(content),
        runs=[without_places(record) for record in content.records],  # the page is handed on
        recipe_toml=recipe_toml,
        missing=missing,
        mgc_version=__version__,
    )


def _own(name: str) -> Markup:
    """A file of this package, as it stands: none of it comes from outside."""
    return Markup((files("mgc.report") / "templates" / name).read_text(encoding="utf-8"))


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _named(content: Content, music: Music) -> Content:
    """With the names that the data set knows, where the records kept none."""
    assert music.dataset
    known = pd.DataFrame([vars(track) for track in music.dataset.tracks]).set_index("track_id")
    known = known[[*NAMES, "seconds"]].reindex(content.tracks.index)
    known[[*NAMES]] = known[[*NAMES]].astype(object).fillna("")
    known["label"] = content.tracks["label"]
    return replace(content, tracks=known)


def _table(content: Content, section: Section) -> list[dict[str, Any]]:
    """What a line of the table shows; the dots of a section stand on one axis."""
    scores = [row.system.scores for row in section.rows]
    ends = np.array([[s.accuracy_low, s.accuracy_high] for s in scores])
    low, high = np.floor(10 * ends.min()) / 10, np.ceil(10 * ends.max()) / 10
    axis = Axis("accuracy", float(low), float(high), ())
    against = section.baseline.scores.accuracy if section.baseline else None
    titles = {id(entry.row): entry.title for entry in content.systems}
    return [
        {
            "title": titles.get(id(row), row.system.title),
            "row": row,
            "record": row.system.record,
            "scores": score,
            "glyph": figures.interval(score.accuracy_low, score.accuracy, score.accuracy_high, axis, against),
            "axis": axis,
            "seconds": _seconds(row),
            "family": FAMILIES[row.system.record.kind],
            "is_baseline": row.system is section.baseline,
        }
        for row, score in zip(section.rows, scores, strict=True)
    ]


def _seconds(row: Row) -> float:
    records = row.system.records
    return sum(sum(record.seconds.values()) for record in records) / len(records)


def _bars(content: Content) -> list[tuple[str, Markup]]:
    """A genre each: the F1 of the systems shown first."""
    bars = []
    for number, label in enumerate(content.classes):
        values = [(e.title, float(e.per_class["f1"][number]), k) for k, e in enumerate(content.front)]
        bars.append((label, figures.bars(f"F1 of {label}", values)))
    return bars


def _rocs(content: Content) -> list[tuple[str, Markup]]:
    """A genre each: the curves of the systems shown first, of their first seed."""
    curves = [roc_curves(entry.row.system.predictions[0]) for entry in content.front]
    rocs = []
    for label in content.classes:
        drawn = [
            Line(entry.title, *of_label[label], colour=k)
            for k, (entry, of_label) in enumerate(zip(content.front, curves, strict=True))
            if label in of_label
        ]
        x, y = share_axis("false positives (share)"), share_axis("true positives (share)")
        title = f"ROC curves of {label} against the rest"
        rocs.append((label, figures.lines(title, x, y, drawn, diagonal=True)))
    return rocs


def _curves(entry: Entry) -> list[Markup]:
    """Loss and accuracy by epoch: a faint line a fold and side, a strong one for the mean."""
    table = entry.curves
    assert table is not None
    pictures = []
    epochs = axis_for("epoch", table["epoch"].to_numpy() + 1)
    for quantity, unit in (("loss", "nats"), ("accuracy", "share")):
        columns = [f"train_{quantity}", f"val_{quantity}"]
        drawn, best = [], table[table["best"]]
        for colour, column in enumerate(columns):
            side = ("training", "validation")[colour]
            for fold, own in table.groupby("fold"):
                x, y = own["epoch"].to_numpy() + 1, own[column].to_numpy()
                drawn.append(Line(f"{side}, fold {fold}", x, y, colour, faint=True))
            mean = table.groupby("epoch")[column].mean()
            drawn.append(Line(f"{side}, mean of folds", mean.index.to_numpy() + 1, mean.to_numpy(), colour))
        dots = [(float(e) + 1, float(v), 1) for e, v in zip(best["epoch"], best[columns[1]], strict=True)]
        finite = table[columns].to_numpy(float)
        y_axis = axis_for(f"{quantity} ({unit})", finite[np.isfinite(finite)], zero=quantity == "loss")
        picture = figures.lines(f"{quantity} of {entry.title}", epochs, y_axis, drawn, height=200, dots=dots)
        pictures.append(picture)
    return pictures


def _reliability(entry: Entry, colour: int) -> Markup:
    bins = reliability(entry.row.system.predictions[0])
    x, y = np.array([b.confidence for b in bins]), np.array([b.accuracy for b in bins])
    axes = share_axis("what it says (probability)"), share_axis("what is right (share)")
    dots = [(float(a), float(b), colour) for a, b in zip(x, y, strict=True)]
    drawn = [Line(entry.title, x, y, colour)]
    return figures.lines(f"Reliability of {entry.title}", *axes, drawn, diagonal=True, dots=dots)


def _maps(content: Content, maps: dict[str, Map | None], music: Music, missing: list[str]) -> list[Any]:
    drawn = []
    for entry in content.probes[:MAPS]:
        one = maps[entry.title]
        if one is None and music.dataset and music.same:
            try:
                one = make_map(content, entry, music.dataset)
            except MgcError as error:
                missing.append(f"There is no map of {entry.title}: {error.what}. {error.fix or ''}".strip())
        elif one is None:
            missing.append(f"There is no map of {entry.title}: the tracks that were judged cannot be found.")
        if one is not None:
            drawn.append((entry, _scatter(content, one)))
    return drawn


def _scatter(content: Content, one: Map) -> Markup:
    known = content.tracks.loc[[*one.track_ids]].astype({"label": str})
    columns = zip(known.index, known["artist"], known["title"], known["label"], strict=True)
    names = [
        f"{' – '.join(filter(None, (artist, title))) or i} ({label})" for i, artist, title, label in columns
    ]
    kinds = [content.classes.index(label) for label in known["label"]]
    return figures.scatter(f"Map of {len(names)} tracks by {one.entry.title}", one.points, kinds, names)


def _heard(content: Content, music: Music, missing: list[str]) -> list[Heard]:
    if music.dataset is None or not content.recipe.audio:
        return [Heard(clip, None) for clip in content.clips]
    heard = []
    with Progress("excerpts", len(content.clips), "clips") as progress:
        for clip in content.clips:
            track = music.track(clip.track_id, clip.label)
            one = None
            if track:
                try:
                    one = excerpt(track.path, track.seconds)
                except MgcError as error:
                    missing.append(f"{clip.track_id} cannot be played: {error.what}.")
            heard.append(Heard(clip, one))
            progress.step()
    return heard


def _left_out(content: Content) -> list[tuple[str, str, str]]:
    """(track, genre, reason) of every track that no system was judged on."""
    return [(bad["track_id"], bad["label"], bad["reason"]) for bad in content.first.excluded]


def _found(content: Content) -> list[tuple[str, int, str]]:
    """What the check found and was used all the same: (kind, tracks, an example)."""
    if content.check is None:
        return []
    used = [finding for finding in content.check["findings"] if not finding["excluded"]]
    first = {finding["kind"]: finding for finding in reversed(used)}
    counts = Counter(finding["kind"] for finding in used)
    return [(kind, n, f"{first[kind]['track_id']}: {first[kind]['detail']}") for kind, n in counts.items()]


def _versions(content: Content) -> list[tuple[str, str]]:
    """(library, its versions over all runs)."""
    seen: dict[str, set[str]] = {}
    for record in content.records:
        for library, number in record.versions.items():
            seen.setdefault(library, set()).add(number)
    return [(library, ", ".join(sorted(numbers))) for library, numbers in sorted(seen.items())]
