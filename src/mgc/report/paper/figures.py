"""The figures of a paper, each as PDF and PNG."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure as Canvas

from mgc.evaluate import roc_aucs, roc_curves
from mgc.report.content import Content
from mgc.report.paper.forms import displayable
from mgc.runs.record import draw_curves
from mgc.runs.tables import CATEGORIES, Row
from mgc.util.files import write_figure
from mgc.util.text import shortened

MOST_CLASSES = 12  # more classes get no rows, curves or numbers of their own
STYLE: Any = {
    "font.family": ["STIXGeneral", "DejaVu Sans"],
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a dollar in a name is a dollar
}
DPI = 300
WIDE = 6.46  # inches, the width of the text
# Okabe & Ito (2008): colours that people with colour vision deficiency can distinguish.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#7f7f7f"]
BLUE, ORANGE, GREY = COLOURS[0], COLOURS[1], COLOURS[-1]
MARKS = {"floor": (GREY, "s"), "untrained": (COLOURS[3], "v"), "features": (COLOURS[2], "^")}
MARKS |= {"scratch": (BLUE, "o"), "frozen": (ORANGE, "D")}
OPTIONAL = ("roc", "curves")  # figures that are dropped, the first one first, if a paper gets too long


def draw_figures(content: Content, names: Sequence[str], folder: Path) -> None:
    """Write `<name>.pdf` and `<name>.png` of figures into `folder`."""
    draw = {
        "accuracies": (_accuracies, 0.13 + 0.026 * len(content.main_rows)),  # height / width
        "confusion": (_confusion, 0.42 if len(content.matrices) < 3 else 0.35),
        "roc": (_roc, 0.45 + 0.025 * min(MOST_CLASSES, len(content.classes)) / 2),
        "curves": (_curves, 0.02 + 0.31 * len(content.trained_networks)),
    }
    for name in names:
        figure, height = draw[name]
        with mpl.rc_context(STYLE):
            canvas = Canvas(figsize=(WIDE, WIDE * height), layout="constrained")
            figure(canvas, content)
            write_figure(canvas, folder / f"{name}.pdf", metadata={"CreationDate": None})
            write_figure(canvas, folder / f"{name}.png", dpi=DPI, metadata={"Software": None})


def _accuracies(canvas: Any, content: Content) -> None:
    axis, rows = canvas.subplots(), content.main_rows
    for place, row in enumerate(rows):
        s, (colour, mark) = row.scores, MARKS[row.system.category]
        axis.plot([s.accuracy_low, s.accuracy_high], [place, place], color=colour, lw=1.3)
        axis.plot(s.accuracy, place, mark, color=colour, ms=4.5, label=CATEGORIES[row.system.category])
    if content.baseline:
        axis.axvline(content.baseline.scores.accuracy, color="black", lw=0.7, ls=(0, (4, 3)), zorder=0)
    axis.set_yticks(range(len(rows)), [_short(row.title, 46) for row in rows])
    axis.set(xlabel="accuracy", ylim=(-0.7, len(rows) - 0.3))
    axis.grid(axis="x", alpha=0.25)
    names = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))  # one handle for each kind
    canvas.legend(names.values(), names, loc="outside upper center", ncols=len(names))


def _short(text: str, length: int) -> str:
    return displayable(shortened(text, length))


def _for_each(canvas: Any, rows: Sequence[Row], draw: Callable[[Any, Row], None]) -> None:
    """A part of the canvas for each system."""
    axes = canvas.subplots(1, max(2, len(rows)))
    for axis, row in zip(axes, rows, strict=False):
        axis.set_title(_short(row.title, 88 // len(axes)), fontsize=9.5)
        draw(axis, row)
    for axis in axes[len(rows) :]:
        axis.set_visible(False)


def _confusion(canvas: Any, content: Content) -> None:
    names = [_short(label, 14) for label in content.classes]
    few = len(names) <= MOST_CLASSES
    size = 8.5 if few else max(2.0, min(7.0, 130 / len(names)))
    turned: Any = {"rotation": 35, "ha": "right"} if few else {"rotation": 90, "ha": "center"}

    def draw(axis: Any, row: Row) -> None:
        counts = row.system.confusion
        percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axis.imshow(percent, cmap="Blues", vmin=0, vmax=100)
        for (i, k), value in np.ndenumerate(percent if few else np.zeros((0, 0))):
            colour = "white" if value > 55 else "black"
            axis.text(k, i, f"{value:.0f}", ha="center", va="center", color=colour)
        axis.set_xticks(range(len(names)), names, fontsize=size, **turned)
        axis.set_yticks(range(len(names)), names, fontsize=size)
        axis.set(xlabel="predicted", ylabel="true")
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)

    _for_each(canvas, content.matrices, draw)


def _roc(canvas: Any, content: Content) -> None:
    few = len(content.classes) <= MOST_CLASSES

    def draw(axis: Any, row: Row) -> None:
        run = row.system.predictions[0]
        areas = dict(zip(run.classes, roc_aucs(run), strict=True))
        for number, (label, (wrong, right)) in enumerate(roc_curves(run).items()):
            name = f"{_short(label, 16)} {areas[label]:.3f}" if few else None
            style = ("-", "--", "-.", ":")[number % 4]  # for readers who see no colours
            axis.plot(wrong, right, style, color=COLOURS[number % len(COLOURS)], lw=1.2, label=name)
        axis.plot([0, 1], [0, 1], color="#bbbbbb", lw=0.7, zorder=0)
        axis.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
        if few:
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=8)

    _for_each(canvas, content.pair, draw)


def _curves(canvas: Any, content: Content) -> None:
    parts = canvas.subfigures(len(content.trained_networks), 1, squeeze=False).ravel()
    for part, (row, table) in zip(parts, content.trained_networks, strict=True):
        part.suptitle(_short(row.title, 88), fontsize=9.5)
        draw_curves(part, table)
