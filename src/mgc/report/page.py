"""The report as one HTML file that loads nothing from outside: a template filled with `Content`."""

import base64
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from mgc import __version__
from mgc.config import recipe_toml
from mgc.evaluate import calibration_error, reliability, roc_aucs, roc_curves
from mgc.report.audio import Excerpt, FoundDataset, excerpt, find_dataset
from mgc.report.content import NAMES, Content, Entry
from mgc.report.figures import Axis, Chart, Line, axis_for, scaled, share_axis
from mgc.report.maps import MAPS, kept_map, make_map
from mgc.runs.record import text_without_places
from mgc.runs.tables import KINDS, Section, as_dict, caption, verdicts
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
    maps = {entry.title: kept_map(content, entry) for entry in content.probes[:MAPS]}
    needed = content.recipe.audio or any(one is None for one in maps.values())
    found = find_dataset(content) if needed else FoundDataset(None, False, "")
    if found.problem:
        missing.append(found.problem)
    if found.dataset and not any(content.tracks["title"]):
        content, missing = _named(content, found), [m for m in missing if not m.startswith("Titles")]
    scatters = _maps(content, maps, found, missing)
    excerpts = _excerpts(content, found, missing)
    curves = [(entry, _curves(entry)) for entry in content.systems if entry.curves is not None]
    without = [e.title for e in content.systems if e.kind == "baseline" and e.curves is None]
    missing += [f"There are no training curves of {', '.join(without)}."] if without else []

    environment = Environment(
        autoescape=True, loader=PackageLoader("mgc.report"), undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "percent": lambda x: f"{100 * x:.0f} %",
        "base64": lambda x: base64.b64encode(x).decode(),
        "f2": lambda x: f"{x:.2f}",
        "f3": lambda x: f"{x:.3f}",
        "p": lambda x: "< 0.001" if x < 0.001 else f"{x:.3f}",
        "points": lambda x: f"{100 * x:+.1f}".replace("-", "−"),
        "thousands": lambda x: f"{x:,.0f}",
    }
    front = {entry.title for entry in content.front}
    return environment.get_template("page.html").render(
        c=content,
        tables=[_table(content, section) for section in content.sections],
        others=[entry for entry in content.systems if entry.title not in front],
        f1={entry.title: entry.per_class["f1"] for entry in content.systems},
        rocs=_rocs(content),
        auc={entry.title: roc_aucs(entry.row.system.predictions[0]) for entry in content.systems},
        curves=curves,
        front_curves=[e.title for e, _ in curves if e.title in front] or [e.title for e, _ in curves[:1]],
        reliabilities=[(e, _reliability(e, k)) for k, e in enumerate(content.front)],
        calibration={e.title: calibration_error(e.row.system.predictions[0]) for e in content.systems},
        maps=scatters,
        excerpts=excerpts,
        findings=_findings(content),
        hypotheses=[e for e in content.systems if e.record.hypothesis or e.record.reported],
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


def _table(content: Content, section: Section) -> dict[str, Any]:
    """The rows of a table and its sentences; the accuracies of all rows are drawn on one axis."""
    scores = [row.system.scores for row in section.rows]
    ends = np.array([[s.accuracy_low, s.accuracy_high] for s in scores])
    low, high = np.floor(10 * ends.min()) / 10, np.ceil(10 * ends.max()) / 10
    axis = Axis("accuracy", float(low), float(high))
    against = [section.baseline.scores.accuracy] if section.baseline else []
    titles = {id(entry.row): entry.title for entry in content.systems}
    rows = [
        {
            "title": titles.get(id(row), row.system.title),
            "row": row,
            "record": row.system.record,
            "scores": s,
            "interval": axis.position([s.accuracy_low, s.accuracy, s.accuracy_high, *against], 4, 186).round(
                1
            ),
            "seconds": as_dict(row)["seconds"],
            "kind": KINDS[row.system.record.kind],
            "is_baseline": row.system is section.baseline,
        }
        for row, s in zip(section.rows, scores, strict=True)
    ]
    return {"rows": rows, "axis": axis, "caption": caption(section), "verdicts": verdicts(section)}


def _rocs(content: Content) -> list[tuple[str, Chart]]:
    """For each genre, the ROC curves of the systems shown first, with their first seed."""
    curves = [roc_curves(entry.row.system.predictions[0]) for entry in content.front]
    rocs = []
    for label in content.classes:
        drawn = [
            Line(entry.title, *of_label[label], colour=k)
            for k, (entry, of_label) in enumerate(zip(content.front, curves, strict=True))
            if label in of_label
        ]
        axes = share_axis("false positive rate"), share_axis("true positive rate")
        title = f"ROC curves of {label} against the rest"
        rocs.append((label, Chart(title, *axes, drawn, diagonal=True)))
    return rocs


def _curves(entry: Entry) -> list[Chart]:
    """Loss and accuracy by epoch: faint lines for the folds, and a strong line for their mean."""
    table = entry.curves
    assert table is not None
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
        title = f"{quantity} of {entry.title}"
        charts.append(Chart(title, epochs, y_axis, drawn, dots, height=200))
    return charts


def _reliability(entry: Entry, colour: int) -> Chart:
    bins = reliability(entry.row.system.predictions[0])
    x, y = np.array([b.confidence for b in bins]), np.array([b.accuracy for b in bins])
    axes = share_axis("predicted probability"), share_axis("share of correct predictions")
    dots = [(float(a), float(b), colour) for a, b in zip(x, y, strict=True)]
    drawn = [Line(entry.title, x, y, colour)]
    return Chart(f"Reliability of {entry.title}", *axes, drawn, dots, diagonal=True)


def _maps(
    content: Content, maps: Mapping[str, pd.DataFrame | None], found: FoundDataset, missing: list[str]
) -> list[tuple[Entry, list[list[tuple[float, float, str]]]]]:
    """The maps of the best probes: for each class, the positions and names of its tracks."""
    drawn = []
    for entry in content.probes[:MAPS]:
        one = maps[entry.title]
        if one is None and found.dataset and found.unchanged:
            try:
                one = make_map(content, entry, found.dataset)
            except MgcError as error:
                missing.append(f"There is no map of {entry.title}: {error.what}. {error.fix or ''}".strip())
        elif one is None:
            missing.append(f"There is no map of {entry.title}: the evaluated tracks were not found.")
        if one is not None:
            drawn.append((entry, _points(content, one)))
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
            if track := found.track(clip.track_id, clip.label):
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


def _versions(content: Content) -> list[tuple[str, str]]:
    """Each library, with its versions over all runs."""
    seen: dict[str, set[str]] = defaultdict(set)
    for record in content.records:
        for library, number in record.versions.items():
            seen[library].add(number)
    return [(library, ", ".join(sorted(numbers))) for library, numbers in sorted(seen.items())]
