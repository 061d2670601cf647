"""Small figures as inline SVG: text that follows the page's font and colours, in light and in dark.

Each is drawn 340 units wide and shown at most a little larger, so that its text is read on a phone. Numbers
are rounded to a tenth of a unit, and points of a line that change nothing are left out. Colours are `--c0` to
`--c7` of the page; lines differ in their dashes and points in their shapes as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

WIDTH = 340
COLOURS = 8
LONGEST = 36  # letters that fit beside a number
DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 4", "10 4", "4 2 1 2", "12 2")
SHAPES = ("M-3-3h6v6h-6z", "M0-4l4 7h-8z", "M0-4.4l4.4 4.4l-4.4 4.4l-4.4-4.4z", "M-3.4 0h6.8M0-3.4v6.8")


@dataclass(frozen=True)
class Line:
    """x and y (n,) of one line, in the units of its axes. `colour`: its number. `faint`: one of many."""

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: int
    faint: bool = False


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, with a number at each of `ticks`."""

    name: str
    low: float
    high: float
    ticks: Sequence[float]

    def place(self, values: np.ndarray) -> np.ndarray:
        """`values` as shares 0..1 of the axis."""
        return (np.clip(values, self.low, self.high) - self.low) / ((self.high - self.low) or 1.0)


def share_axis(name: str) -> Axis:
    """From 0 to 1."""
    return Axis(name, 0.0, 1.0, (0.0, 0.5, 1.0))


def axis_for(name: str, values: np.ndarray, zero: bool = False) -> Axis:
    """An axis with round numbers that holds all `values`."""
    low, high = (0.0 if zero else float(np.min(values))), float(np.max(values))
    span = max(high - low, 1e-9)
    step = 10.0 ** np.floor(np.log10(span))
    step *= next(m for m in (0.2, 0.5, 1.0, 2.0) if span / (step * m) <= 6)
    first, last = np.floor(low / step), np.ceil(high / step)
    ticks = [float(np.round(k * step, 9)) for k in np.arange(first, last + 1)]
    return Axis(name, ticks[0], ticks[-1], ticks)


def interval(low: float, value: float, high: float, axis: Axis, reference: float | None) -> Markup:
    """A dot and its interval on `axis`, a line at `reference`: one cell of a table."""
    left, dot, right = (4 + 182 * axis.place(np.array([low, value, high]))).round(1)
    mark = ""
    if reference is not None:
        at = round(float(4 + 182 * axis.place(np.array(reference))), 1)
        mark = f'<path class="reference" d="M{at} 0v20"/>'
    return Markup(
        '<svg class="interval" viewBox="0 0 190 20" aria-hidden="true">'
        f'{mark}<path class="span" d="M{left} 10H{right}M{left} 6.5v7M{right} 6.5v7"/>'
        f'<circle cx="{dot}" cy="10" r="4"/></svg>'
    )  # numbers alone: nothing to escape


def bars(title: str, values: Sequence[tuple[str, float, int]]) -> Markup:
    """Bars of shares 0..1: (name, value, number of the colour) each, the name above its bar."""
    parts = []
    for row, (name, value, colour) in enumerate(values):
        top = 4 + 33 * row
        short = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
        parts.append(
            Markup(
                '<text x="0" y="{}">{}</text><text x="340" y="{}" class="end">{:.2f}</text>'
                '<path class="track" d="M0 {}h340"/><path class="bar c{}" d="M0 {}h{:.1f}"/>'
            ).format(top + 10, short, top + 10, value, top + 20, colour, top + 20, WIDTH * value)
        )
    said = ", ".join(f"{name} {value:.2f}" for name, value, _ in values)
    return _svg(f"{title}: {said}", 33 * len(values) + 4, parts)


def lines(title: str, x: Axis, y: Axis, drawn: Sequence[Line], *, height: int = 240, diagonal: bool = False,
          dots: Sequence[tuple[float, float, int]] = ()) -> Markup:  # fmt: skip
    """Lines over two axes, single points `dots` (x, y, colour), and a `diagonal` from corner to corner."""
    left, right, top, bottom = 34, WIDTH - 8, 24, height - 36
    parts = [_axes(x, y, left, right, top, bottom)]
    if diagonal:
        parts.append(Markup('<path class="reference" d="M{} {}L{} {}"/>').format(left, bottom, right, top))

    def points(xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
        across = left + (right - left) * x.place(xs)
        return np.stack([across, bottom - (bottom - top) * y.place(ys)], axis=1).round(1)

    for line in drawn:
        path = " ".join(f"{a:g},{b:g}" for a, b in _thinned(points(line.x, line.y)))
        dash = "" if line.faint else DASHES[line.colour % COLOURS]
        css = f"line c{line.colour % COLOURS}{' faint' if line.faint else ''}"
        parts.append(
            Markup('<polyline class="{}" stroke-dasharray="{}" points="{}"><title>{}</title></polyline>')
            .format(css, dash, path, line.name)
        )  # fmt: skip
    for at_x, at_y, colour in dots:
        ((a, b),) = points(np.array([at_x]), np.array([at_y]))
        parts.append(Markup('<circle class="point c{}" cx="{}" cy="{}" r="3.5"/>').format(colour, a, b))
    return _svg(title, height, parts)


def scatter(title: str, points: np.ndarray, kinds: Sequence[int], names: Sequence[str]) -> Markup:
    """(N, 2) points without axes: `kinds` are numbers of colour and shape, `names` are told on hover."""
    low, span = points.min(axis=0), np.maximum(np.ptp(points, axis=0), 1e-9)
    at = (8 + (WIDTH - 16) * (points - low) / span).round(1)
    parts = []
    for kind in sorted(set(kinds)):
        own = [i for i, k in enumerate(kinds) if k == kind]
        shape = SHAPES[kind % len(SHAPES)]
        marks = [
            Markup('<path d="{}" transform="translate({} {})"><title>{}</title></path>')
            .format(shape, *at[i], names[i]) for i in own
        ]  # fmt: skip
        parts.append(Markup('<g class="mark c{}">{}</g>').format(kind % COLOURS, Markup("").join(marks)))
    return _svg(title, WIDTH, parts)


def key(kind: int, shape: bool) -> Markup:
    """What stands before a name in a legend: the point of a map, or a piece of a line."""
    css, d = ("mark", SHAPES[kind % len(SHAPES)]) if shape else ("line", "M-12 0H12")
    dash = "" if shape else DASHES[kind % COLOURS]
    return Markup(
        '<svg class="key" viewBox="-12 -6 24 12" aria-hidden="true">'
        '<path class="{} c{}" stroke-dasharray="{}" d="{}"/></svg>'
    ).format(css, kind % COLOURS, dash, d)


def _axes(x: Axis, y: Axis, left: int, right: int, top: int, bottom: int) -> Markup:
    parts = []
    for value, share in zip(y.ticks, y.place(np.array(y.ticks)), strict=True):
        at = round(bottom - (bottom - top) * share, 1)
        parts.append(
            Markup('<path class="grid" d="M{} {}H{}"/><text class="end" x="{}" y="{}">{:g}</text>')
            .format(left, at, right, left - 6, at + 4, value)
        )  # fmt: skip
    for value, share in zip(x.ticks, x.place(np.array(x.ticks)), strict=True):
        at = round(left + (right - left) * share, 1)
        parts.append(Markup('<text class="middle" x="{}" y="{}">{:g}</text>').format(at, bottom + 15, value))
    parts.append(Markup('<path class="axis" d="M{} {}H{}"/>').format(left, bottom, right))
    middle = (left + right) // 2
    parts.append(
        Markup('<text class="middle name" x="{}" y="{}">{}</text>').format(middle, bottom + 32, x.name)
    )
    parts.append(Markup('<text class="name" x="0" y="{}">{}</text>').format(top - 12, y.name))
    return Markup("").join(parts)


def _thinned(points: np.ndarray) -> np.ndarray:
    """(n, 2) without points that lie within half a unit of the straight line to their successor."""
    if len(points) < 3:
        return points
    kept = [0]
    for i in range(1, len(points) - 1):
        a, b = points[kept[-1]], points[i + 1]
        between = points[kept[-1] + 1 : i + 1]
        along = b - a
        off = np.abs(along[0] * (between[:, 1] - a[1]) - along[1] * (between[:, 0] - a[0]))
        if (off > 0.5 * max(float(np.hypot(*along)), 1e-9)).any():
            kept.append(i)
    return points[[*kept, len(points) - 1]]


def _svg(title: str, height: float, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg class="figure" viewBox="0 0 {} {}" role="img"><title>{}</title>{}</svg>').format(
        WIDTH, height, escape(title), Markup("").join(parts)
    )
