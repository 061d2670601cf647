"""The figures of a paper, each as PDF and PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure as Canvas

from mgc.evaluate import roc_aucs, roc_curves
from mgc.report.content import Content
from mgc.report.paper.blocks import Block, Figure
from mgc.report.paper.pdf import visible
from mgc.report.paper.systems import pair_of, shown_rows, trained
from mgc.report.paper.words import clipped
from mgc.util.files import write_figure

MOST_CLASSES = 12  # with a row, a curve or a number in a cell each
STYLE: Any = {
    "font.family": ["STIXGeneral", "DejaVu Sans"],
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a dollar in a name is a dollar
}
DPI = 300
WIDE = 6.46  # inches, the width of the text
COLOURS = {"floor": "#7f7f7f", "baseline": "#0072b2", "probe": "#d55e00"}  # colour-blind safe: Okabe and Ito
MARKS = {"floor": "s", "baseline": "o", "probe": "D"}
KINDS = {"floor": "floor", "baseline": "from scratch", "probe": "probe"}


def draw_figures(content: Content, blocks: Sequence[Block], folder: Path) -> None:
    """Write `<name>.pdf` and `<name>.png` of every figure among the blocks into `folder`."""
    draw = {"accuracies": _accuracies, "confusion": _confusion, "roc": _roc, "curves": _curves}
    for block in blocks:
        if isinstance(block, Figure):
            with mpl.rc_context(STYLE):
                canvas = Canvas(figsize=(WIDE, WIDE * block.height), layout="constrained")
                draw[block.name](canvas, content)
                write_figure(canvas, folder / f"{block.name}.pdf", metadata={"CreationDate": None})
                write_figure(canvas, folder / f"{block.name}.png", dpi=DPI, metadata={"Software": None})


def _accuracies(canvas: Any, content: Content) -> None:
    axis, rows = canvas.subplots(), shown_rows(content)
    for place, entry in enumerate(rows):
        s = entry.row.system.scores
        axis.plot([s.accuracy_low, s.accuracy_high], [place, place], color=COLOURS[entry.kind], lw=1.3)
        axis.plot(s.accuracy, place, MARKS[entry.kind], color=COLOURS[entry.kind], ms=4.5)
    for path in dict.fromkeys(entry.kind for entry in rows):
        axis.plot([], [], MARKS[path], color=COLOURS[path], ms=4.5, label=KINDS[path])
    if content.baseline:
        axis.axvline(content.baseline.accuracy, color="black", lw=0.7, ls=(0, (4, 3)), zorder=0)
    axis.set_yticks(range(len(rows)), [_short(entry.title, 46) for entry in rows])
    axis.set(xlabel="accuracy", ylim=(-0.7, len(rows) - 0.3))
    axis.grid(axis="x", alpha=0.25)
    axis.legend(frameon=False, loc="upper left", fontsize=8.5)


def _short(text: str, most: int) -> str:
    return visible(clipped(text, most))


def _confusion(canvas: Any, content: Content) -> None:
    names = [_short(label, 14) for label in content.classes]
    few = len(names) <= MOST_CLASSES
    for axis, entry in zip(np.ravel(canvas.subplots(1, 2)), pair_of(content), strict=False):
        percent = 100 * entry.confusion / np.maximum(entry.confusion.sum(axis=1, keepdims=True), 1)
        axis.imshow(percent, cmap="Blues", vmin=0, vmax=100)
        for (i, j), value in np.ndenumerate(percent if few else np.zeros((0, 0))):
            colour = "white" if value > 55 else "black"
            axis.text(j, i, f"{value:.0f}", ha="center", va="center", color=colour)
        axis.set_title(_short(entry.title, 44), fontsize=9.5)
        size = 8.5 if few else max(2.0, min(7.0, 130 / len(names)))
        turned: Any = {"rotation": 35, "ha": "right"} if few else {"rotation": 90, "ha": "center"}
        axis.set_xticks(range(len(names)), names, fontsize=size, **turned)
        axis.set_yticks(range(len(names)), names, fontsize=size)
        axis.set(xlabel="said", ylabel="labelled")
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
    _hide_unused(canvas)


def _roc(canvas: Any, content: Content) -> None:
    styles = ["-", "--", "-.", ":"]  # for those who see no colours
    colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999"]
    for axis, entry in zip(np.ravel(canvas.subplots(1, 2)), pair_of(content), strict=False):
        run = entry.row.system.predictions[0]
        areas = dict(zip(run.classes, roc_aucs(run), strict=True))
        for number, (label, (wrong, right)) in enumerate(roc_curves(run).items()):
            named = f"{_short(label, 16)} {areas[label]:.3f}" if len(areas) <= MOST_CLASSES else None
            style = {"ls": styles[number % 4], "color": colours[number % 8]}
            axis.plot(wrong, right, lw=1.2, label=named, **style)
        axis.plot([0, 1], [0, 1], color="#bbbbbb", lw=0.7, zorder=0)
        axis.set_title(_short(entry.title, 44), fontsize=9.5)
        axis.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
        if len(areas) <= MOST_CLASSES:
            axis.legend(title="area", frameon=False, loc="lower right", fontsize=8, title_fontsize=8)
    _hide_unused(canvas)


def _hide_unused(canvas: Any) -> None:
    for axis in canvas.axes:
        axis.set_visible(axis.has_data())


def _curves(canvas: Any, content: Content) -> None:
    curves = trained(content)[0].curves
    assert curves is not None
    sides = (("loss", "loss (nats)"), ("accuracy", "accuracy"))
    for axis, (quantity, label_) in zip(canvas.subplots(1, 2), sides, strict=True):
        for side, said, colour in (("train", "training", "#999999"), ("val", "validation", "#0072b2")):
            for number, (_, fold) in enumerate(curves.groupby("fold")):
                label = said if number == 0 else None
                axis.plot(fold["epoch"] + 1, fold[f"{side}_{quantity}"], color=colour, lw=0.8, label=label)
        best = curves[curves["best"]]
        axis.plot(best["epoch"] + 1, best[f"val_{quantity}"], "o", color="#d55e00", ms=4, label="epoch kept")
        axis.set(xlabel="epoch", ylabel=label_)
        axis.grid(alpha=0.25)
    canvas.axes[0].legend(frameon=False, fontsize=8.5)
