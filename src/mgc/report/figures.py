"""The geometry of the page's figures, which `templates/figures.html` draws as inline SVG.

Each figure is 340 units wide and shown at most a little larger, so that its text is legible on a phone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

WIDTH = 340
LEFT, RIGHT, TOP, BELOW = 34, WIDTH - 8, 24, 36  # the frame of a chart; BELOW is its distance from the bottom


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high`, with a number at each of `ticks`; by default that of a share."""

    name: str
    low: float = 0.0
    high: float = 1.0
    ticks: Sequence[float] = (0.0, 0.5, 1.0)

    def position(self, values: np.ndarray | Sequence[float], start: float, end: float) -> np.ndarray:
        """(n,) `values` in figure units, if the axis goes from `start` to `end`."""
        shares = (np.clip(values, self.low, self.high) - self.low) / ((self.high - self.low) or 1.0)
        return start + (end - start) * shares


def axis_for(name: str, values: np.ndarray, zero: bool = False) -> Axis:
    """An axis with round numbers that covers all `values`, and 0 if `zero`."""
    low, high = 0.0 if zero else float(values.min()), float(values.max())
    locator = MaxNLocator(nbins=6, steps=[1, 2, 5, 10])
    ticks = [float(tick) for tick in locator.tick_values(low, high if high > low else low + 1)]
    return Axis(name, ticks[0], ticks[-1], ticks)


@dataclass(frozen=True)
class Line:
    """x and y (n,) of a line, in units of its axes. `colour` is a number; `faint` is for one of many."""

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: int
    faint: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over two axes, single points `dots` (x, y, colour), and a `diagonal` from corner to corner."""

    title: str
    x: Axis
    y: Axis
    lines: Sequence[Line]
    dots: Sequence[tuple[float, float, int]] = ()
    height: int = 240
    diagonal: bool = False

    def points(self, x: np.ndarray | Sequence[float], y: np.ndarray | Sequence[float]) -> np.ndarray:
        """(n, 2) positions in the figure."""
        return np.stack(
            [self.x.position(x, LEFT, RIGHT), self.y.position(y, self.height - BELOW, TOP)], axis=1
        )

    def path(self, line: Line) -> str:
        """The points of a line as SVG writes them."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in _thinned(self.points(line.x, line.y)))


def scaled(points: np.ndarray) -> np.ndarray:
    """(N, 2) points of a map, moved and stretched to fill a square figure."""
    low, span = points.min(axis=0), np.maximum(np.ptp(points, axis=0), 1e-9)
    return (8 + (WIDTH - 16) * (points - low) / span).round(1)


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
