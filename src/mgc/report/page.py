"""The report as one HTML file that loads nothing from outside: a template filled with `Content`."""

import base64
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from mgc import __version__
from mgc.config import recipe_toml
from mgc.evaluate import Predictions, calibration_error, reliability, roc_aucs, roc_curves
from mgc.report.audio import Excerpt, FoundDataset, excerpt, find_dataset
from mgc.report.content import NAMES, Content, training_curves
from mgc.report.figures import Axis, Chart, Line, axis_for, scaled
from mgc.report.maps import MAPS, kept_map, make_map
from mgc.report.notes import BOLD
from mgc.runs.record import text_without_places
from mgc.runs.tables import CATEGORIES, Section, as_dict, caption, further_verdicts
from mgc.util.errors import MgcError
from mgc.util.files import write
from mgc.util.progress import Progress


def write_page(content: Content, folder: Path) -> Path:
    """Write `report.html` into `folder`.

    Raises:
        MgcError: records whose predictions or curves cannot be read.
    """
    page = render_page(content)
    return write(folder / "report.html", page.encode(errors="backslashreplace"))


def render_page(content: Content) -> str:
    """The page as text. Its last section lists what is not available."""
    missing = [*content.missing]
    maps = {row.title: kept_map(content, row) for row in content.probes[:MAPS]}
    needed = content.recipe.audio or any(one is None for one in maps.values())
    found = find_dataset(content) if needed else FoundDataset(None, False, "")
    if found.problem:
        missing.append(found.problem)
    if found.dataset and not any(content.tracks["title"]):
        content, missing = _named(content, found), [m for m in missing if not m.startswith("Titles")]
    scatters = _maps(content, maps, found, missing)
    excerpts = _excerpts(content, found, missing)
    curves, without = {}, []
    for row in content.systems:
        table = training_curves(row)
        if table is not None:
            curves[row.title] = _curves(row.title, table)
        elif row.record.kind == "baseline":
            without.append(row.title)
    missing += [f"There are no training curves of {', '.join(without)}."] if without else []

    environment = Environment(
        autoescape=True, loader=PackageLoader("mgc.report"), undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "bold": lambda text: Markup(BOLD.sub(r"<b>\1</b>", str(escape(text)))),
        "percent": lambda x: f"{100 * x:.0f} %",
        "base64": lambda x: base64.b64encode(x).decode(),
        "f2": lambda x: f"{x:.2f}",
        "f3": lambda x: f"{x:.3f}",
        "p": lambda x: "< 0.001" if x < 0.001 else f"{x:.3f}",
        "points": lambda x: f"{100 * x:+.1f}".replace("-", "−"),
        "thousands": lambda x: f"{x:,.0f}",
    }
    front = [row.title for row in content.front]
    runs = {row.title: row.system.predictions[0] for row in content.systems}
    return environment.get_template("page.html").render(
        c=content,
        tables=[_table(section) for section in content.sections],
        kinds=CATEGORIES,
        as_dict=as_dict,
        others=[row for row in content.systems if row.title not in front],
        f1={row.title: row.system.per_class("f1") for row in content.systems},
        rocs=_rocs(content),
        auc={title: roc_aucs(run) for title, run in runs.items()},
        curves=curves,
        front_curves=[title for title in curves if title in front] or [*curves][:1],
        reliabilities={title: _reliability(title, runs[title], k) for k, title in enumerate(front)},
        calibration={title: calibration_error(run) for title, run in runs.items()},
        maps=scatters,
        excerpts=excerpts,
        findings=_findings(content),
        hypotheses=[row for row in content.systems if row.record.hypothesis or row.record.reported],
        versions=_versions(content),
        recipe_toml=recipe_toml,
        missing=[*map(text_without_places, missing)],
        mgc_version=__version__,
    )


def _named(content: Content, found: FoundDataset) -> Content:
    """With the titles and artists that the dataset knows, where the records have none."""
    assert found.dataset
    known = pd.DataFrame([vars(track) for track in found.dataset.tracks]).set_index("track_id")
    known = known[[*NAMES, "seconds"]].reindex(content.tracks.index)
    known[[*NAMES]] = known[[*NAMES]].astype(object).fillna("")
    known["label"] = content.tracks["label"]
    return replace(content, tracks=known)


def _table(section: Section) -> dict[str, Any]:
    """The rows of a table with their intervals on one axis, and its sentences."""
    ends = np.array([[row.scores.accuracy_low, row.scores.accuracy_high] for row in section.rows])
    axis = Axis("accuracy", np.floor(10 * ends.min()) / 10, np.ceil(10 * ends.max()) / 10)
    against = [section.baseline.scores.accuracy] if section.baseline else []
    rows = []
    for row, (low, high) in zip(section.rows, ends, strict=True):
        rows.append((row, axis.position([low, row.scores.accuracy, high, *against], 4, 186).round(1)))
    sentences = {"caption": caption(section), "verdicts": further_verdicts(section)}
    return {"rows": rows, "axis": axis, "section": section, "baseline": section.baseline, **sentences}


def _rocs(content: Content) -> dict[str, Chart]:
    """For each genre, the ROC curves of the systems shown first, with their first seed."""
    curves = {row.title: roc_curves(row.system.predictions[0]) for row in content.front}
    axes = Axis("false positive rate"), Axis("true positive rate")
    rocs = {}
    for label in content.classes:
        drawn = [
            Line(title, *of_label[label], colour=k)
            for k, (title, of_label) in enumerate(curves.items())
            if label in of_label
        ]
        rocs[label] = Chart(f"ROC curves of {label} against the rest", *axes, drawn, diagonal=True)
    return rocs


def _curves(title: str, table: pd.DataFrame) -> list[Chart]:
    """Loss and accuracy by epoch: faint lines for the folds, and a strong line for their mean."""
    charts = []
    epochs = axis_for("epoch", table["epoch"].to_numpy() + 1)
    for quantity, unit in (("loss", "nats"), ("accuracy", "share")):
        columns = {"training": f"train_{quantity}", "validation": f"val_{quantity}"}
        drawn, best = [], table[table["best"]]
        for colour, (part, column) in enumerate(columns.items()):
            for fold, own in table.groupby("fold"):
                x, y = own["epoch"].to_numpy() + 1, own[column].to_numpy()
                drawn.append(Line(f"{part}, fold {fold}", x, y, colour, faint=True))
            mean = table.groupby("epoch")[column].mean()
            drawn.append(Line(f"{part}, mean of folds", mean.index.to_numpy() + 1, mean.to_numpy(), colour))
        kept = zip(best["epoch"], best[columns["validation"]], strict=True)
        dots = [(float(epoch) + 1, float(value), 1) for epoch, value in kept]
        values = table[[*columns.values()]].to_numpy(float)
        y_axis = axis_for(f"{quantity} ({unit})", values[np.isfinite(values)], zero=quantity == "loss")
        charts.append(Chart(f"{quantity} of {title}", epochs, y_axis, drawn, dots, height=200))
    return charts


def _reliability(title: str, run: Predictions, colour: int) -> Chart:
    points = [(b.confidence, b.accuracy) for b in reliability(run)]
    axes = Axis("predicted probability"), Axis("share of correct predictions")
    x, y = np.array(points).T
    dots = [(*point, colour) for point in points]
    return Chart(f"Reliability of {title}", *axes, [Line(title, x, y, colour)], dots, diagonal=True)


def _maps(
    content: Content, maps: Mapping[str, pd.DataFrame | None], found: FoundDataset, missing: list[str]
) -> dict[str, list[list[tuple[float, float, str]]]]:
    """The maps of the best probes: for each class, the positions and names of its tracks."""
    drawn = {}
    for row in content.probes[:MAPS]:
        one = maps[row.title]
        if one is None and found.dataset and found.unchanged:
            try:
                one = make_map(content, row, found.dataset)
            except MgcError as error:
                missing.append(f"There is no map of {row.title}: {error.what}. {error.fix or ''}".strip())
        elif one is None:
            missing.append(f"There is no map of {row.title}: the evaluated tracks were not found.")
        if one is not None:
            drawn[row.title] = _points(content, one)
    return drawn


def _points(content: Content, one: pd.DataFrame) -> list[list[tuple[float, float, str]]]:
    classes: dict[str, list[tuple[float, float, str]]] = {label: [] for label in content.classes}
    for track_id, (x, y) in zip(one["track_id"], scaled(one[["x", "y"]].to_numpy()), strict=True):
        artist, title, label = (str(content.tracks.at[track_id, key]) for key in ("artist", "title", "label"))
        name = " – ".join(filter(None, (artist, title))) or track_id
        classes[label].append((x, y, f"{name} ({label})"))
    return [*classes.values()]


def _excerpts(content: Content, found: FoundDataset, missing: list[str]) -> dict[str, Excerpt]:
    """Excerpts by track id, for the clips whose audio is found."""
    excerpts: dict[str, Excerpt] = {}
    if found.dataset is None or not content.recipe.audio:
        return excerpts
    with Progress("excerpts", len(content.clips), "clips") as progress:
        for clip in content.clips:
            track = found.dataset.by_id.get(clip.track_id)
            if track and track.label == clip.label:
                try:
                    excerpts[clip.track_id] = excerpt(track.path, track.seconds)
                except MgcError as error:
                    missing.append(f"{clip.track_id} cannot be played: {error.what}.")
            progress.step()
    return excerpts


def _findings(content: Content) -> list[tuple[str, int, str]]:
    """Findings of the audio check on tracks that are used: kind, number of tracks, an example."""
    used = [finding for finding in content.check.findings if not finding.excluded] if content.check else []
    examples = {finding.kind: f"{finding.track_id}: {finding.detail}" for finding in reversed(used)}
    counts = Counter(finding.kind for finding in used)
    return [(kind, count, examples[kind]) for kind, count in counts.items()]


def _versions(content: Content) -> list[str]:
    """Each library, with its versions over all runs."""
    pairs = sorted({pair for record in content.records for pair in record.versions.items()})
    by_library = groupby(pairs, key=lambda pair: pair[0])
    return [f"{library} {', '.join(number for _, number in group)}" for library, group in by_library]
