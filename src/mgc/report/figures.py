"""Small figures as inline SVG, whose text and colours follow the page, in light and in dark mode.

Each is drawn 340 units wide and shown at most a little larger, so that its text is legible on a phone.
Colours are `--c0` to `--c7` of the page; lines also differ in their dashes and points in their shapes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from matplotlib.ticker import MaxNLocator

from mgc.util.text import shortened

WIDTH = 340
COLOURS = 8
LONGEST = 36  # characters that fit beside a number
DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 4", "10 4", "4 2 1 2", "12 2")
SHAPES = ("M-3-3h6v6h-6z", "M0-4l4 7h-8z", "M0-4.4l4.4 4.4l-4.4 4.4l-4.4-4.4z", "M-3.4 0h6.8M0-3.4v6.8")


@dataclass(frozen=True)
class Line:
    """x and y (n,) of a line, in units of its axes. `colour` is a number; `faint` is for one of many."""

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: int
    faint: bool = False


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high`, with a number at each of `ticks`."""

    name: str
    low: float
    high: float
    ticks: Sequence[float]

    def position(self, values: np.ndarray) -> np.ndarray:
        """`values` as shares 0..1 of the axis."""
        return (np.clip(values, self.low, self.high) - self.low) / ((self.high - self.low) or 1.0)


def share_axis(name: str) -> Axis:
    """An axis from 0 to 1."""
    return Axis(name, 0.0, 1.0, (0.0, 0.5, 1.0))


def axis_for(name: str, values: np.ndarray, zero: bool = False) -> Axis:
    """An axis with round numbers that covers all `values`, and 0 if `zero`."""
    low, high = 0.0 if zero else float(values.min()), float(values.max())
    locator = MaxNLocator(nbins=6, steps=[1, 2, 5, 10])
    ticks = [float(tick) for tick in locator.tick_values(low, high if high > low else low + 1)]
    return Axis(name, ticks[0], ticks[-1], ticks)


def interval(low: float, value: float, high: float, axis: Axis, reference: float | None) -> Markup:
    """A dot and its interval on `axis`, with a line at `reference`: one cell of a table."""
    left, dot, right = (4 + 182 * axis.position(np.array([low, value, high]))).round(1)
    mark = ""
    if reference is not None:
        at = round(float(4 + 182 * axis.position(np.array(reference))), 1)
        mark = f'<path class="reference" d="M{at} 0v20"/>'
    return Markup(
        '<svg class="interval" viewBox="0 0 190 20" aria-hidden="true">'
        f'{mark}<path class="span" d="M{left} 10H{right}M{left} 6.5v7M{right} 6.5v7"/>'
        f'<circle cx="{dot}" cy="10" r="4"/></svg>'
    )  # only numbers, nothing to escape


def bars(title: str, values: Sequence[tuple[str, float, int]]) -> Markup:
    """Bars of shares 0..1, given as (name, value, number of the colour); the name is above its bar."""
    parts = []
    for row, (name, value, colour) in enumerate(values):
        top = 4 + 33 * row
        parts.append(
            Markup(
                '<text x="0" y="{}">{}</text><text x="340" y="{}" class="end">{:.2f}</text>'
                '<path class="track" d="M0 {}h340"/><path class="bar c{}" d="M0 {}h{:.1f}"/>'
            ).format(
                top + 10, shortened(name, LONGEST), top + 10, value, top + 20, colour, top + 20, WIDTH * value
            )
        )
    description = ", ".join(f"{name} {value:.2f}" for name, value, _ in values)
    return _svg(f"{title}: {description}", 33 * len(values) + 4, parts)


def lines(title: str, x: Axis, y: Axis, drawn: Sequence[Line], *, height: int = 240, diagonal: bool = False,
          dots: Sequence[tuple[float, float, int]] = ()) -> Markup:  # fmt: skip
    """Lines over two axes, single points `dots` (x, y, colour), and a `diagonal` from corner to corner."""
    left, right, top, bottom = 34, WIDTH - 8, 24, height - 36
    parts = [_axes(x, y, left, right, top, bottom)]
    if diagonal:
        parts.append(Markup('<path class="reference" d="M{} {}L{} {}"/>').format(left, bottom, right, top))

    def points(xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
        across = left + (right - left) * x.position(xs)
        return np.stack([across, bottom - (bottom - top) * y.position(ys)], axis=1)  # (n, 2)

    for line in drawn:
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in _thinned(points(line.x, line.y)))
        dash = "" if line.faint else DASHES[line.colour % COLOURS]
        css = f"line c{line.colour % COLOURS}{' faint' if line.faint else ''}"
        polyline = '<polyline class="{}" stroke-dasharray="{}" points="{}"><title>{}</title></polyline>'
        parts.append(Markup(polyline).format(css, dash, path, line.name))
    for at_x, at_y, colour in dots:
        ((a, b),) = points(np.array([at_x]), np.array([at_y])).round(1)
        parts.append(Markup('<circle class="point c{}" cx="{}" cy="{}" r="3.5"/>').format(colour, a, b))
    return _svg(title, height, parts)


def scatter(title: str, points: np.ndarray, kinds: Sequence[int], names: Sequence[str]) -> Markup:
    """(N, 2) points without axes: `kinds` are numbers of colour and shape, `names` appear on hover."""
    low, span = points.min(axis=0), np.maximum(np.ptp(points, axis=0), 1e-9)
    at = (8 + (WIDTH - 16) * (points - low) / span).round(1)
    mark = Markup('<path d="{}" transform="translate({} {})"><title>{}</title></path>')
    parts = []
    for kind in sorted(set(kinds)):
        shape = SHAPES[kind % len(SHAPES)]
        marks = [mark.format(shape, *at[i], names[i]) for i, k in enumerate(kinds) if k == kind]
        parts.append(Markup('<g class="mark c{}">{}</g>').format(kind % COLOURS, Markup("").join(marks)))
    return _svg(title, WIDTH, parts)


def key(kind: int, shape: bool) -> Markup:
    """The symbol in front of a name in a legend: a point of a map, or a piece of a line."""
    css, d = ("mark", SHAPES[kind % len(SHAPES)]) if shape else ("line", "M-12 0H12")
    dash = "" if shape else DASHES[kind % COLOURS]
    return Markup(
        '<svg class="key" viewBox="-12 -6 24 12" aria-hidden="true">'
        '<path class="{} c{}" stroke-dasharray="{}" d="{}"/></svg>'
    ).format(css, kind % COLOURS, dash, d)


def _axes(x: Axis, y: Axis, left: int, right: int, top: int, bottom: int) -> Markup:
    across = [round(left + (right - left) * share, 1) for share in x.position(np.array(x.ticks))]
    up = [round(bottom - (bottom - top) * share, 1) for share in y.position(np.array(y.ticks))]
    number = '<text class="{}" x="{}" y="{}">{:g}</text>'
    grid = Markup('<path class="grid" d="M{} {}H{}"/>' + number)
    rows = [
        grid.format(left, at, right, "end", left - 6, at + 4, tick)
        for at, tick in zip(up, y.ticks, strict=True)
    ]
    columns = [
        Markup(number).format("middle", at, bottom + 15, tick)
        for at, tick in zip(across, x.ticks, strict=True)
    ]
    names = Markup(
        '<path class="axis" d="M{} {}H{}"/><text class="middle name" x="{}" y="{}">{}</text>'
        '<text class="name" x="0" y="{}">{}</text>'
    ).format(left, bottom, right, (left + right) // 2, bottom + 32, x.name, top - 12, y.name)
    return Markup("").join([*rows, *columns, names])


def _thinned(points: np.ndarray) -> np.ndarray:
    """(n, 2) points of a line, without those that would move it by less than half a unit."""
    kept = [0]
    for i in range(1, len(points) - 1):
        start, step = points[kept[-1]], points[i + 1] - points[kept[-1]]
        offsets = points[kept[-1] + 1 : i + 1] - start
        distance = np.abs(step[0] * offsets[:, 1] - step[1] * offsets[:, 0]) / max(np.hypot(*step), 1e-9)
        if (distance > 0.5).any():
            kept.append(i)
    return points[[*kept, len(points) - 1]]


def _svg(title: str, height: float, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg class="figure" viewBox="0 0 {} {}" role="img"><title>{}</title>{}</svg>').format(
        WIDTH, height, escape(title), Markup("").join(parts)
    )
