"""Curves without a library: what is left of many points on few pixels, axes with round numbers, and the SVG of them.

A chart is drawn for a card of 360 px and scales with it, so that its text is readable on a phone. Colours are CSS
variables of the page, so light and dark are the page's affair.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from system.report.markup import escape

Values = NDArray[np.float64]

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 24
PLOT_W, PLOT_H = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
# Points that a page's hover reads, of each line: the page stays small however long the run was.
HOVER_POINTS = 160
# Of positive values, the largest over the smallest above which an axis is logarithmic.
LOG_FROM = 30.0


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart: its name, x and y (both (n,)), and the number of its colour."""

    name: str
    x: Values
    y: Values
    colour: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at an x: where, what is told of it, and up to which x it went back; nan: nowhere."""

    x: float
    text: str
    back_to: float = math.nan


@dataclass(frozen=True, slots=True)
class Band:
    """What is expected: x, and y from `low` to `high`, each (n,)."""

    x: Values
    low: Values
    high: Values


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title: of it.
        lines: to draw; those without a finite value are left out.
        unit: of y.
        x_name: what x is.
        marks: restarts and rewinds.
        band: what is expected.
        log: y may be logarithmic: it is where positive values span much.
    """

    title: str
    lines: tuple[Line, ...]
    unit: str = ""
    x_name: str = "step"
    marks: tuple[Mark, ...] = ()
    band: Band | None = None
    log: bool = False


def thinned(x: Values, y: Values, buckets: int) -> NDArray[np.int64]:
    """Return which points to draw: of each bucket of x the first, the last, the lowest and the highest, in order.

    So a spike of one step is seen, however many steps share its pixel. Points without a finite y are left out; all
    others are taken if there are at most four for each bucket.
    """
    there = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if len(there) <= 4 * buckets:
        return there
    low, high = float(x[there[0]]), float(x[there[-1]])
    bucket = np.minimum(((x[there] - low) / max(high - low, 1e-12) * buckets).astype(np.int64), buckets - 1)
    edges = [*np.flatnonzero(np.diff(bucket, prepend=-1)).tolist(), len(there)]
    kept: set[int] = set()
    for first, stop in pairwise(edges):
        values = y[there[first:stop]]
        kept |= {first, stop - 1, first + int(values.argmin()), first + int(values.argmax())}
    return there[np.array(sorted(kept), np.int64)]


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Return round numbers inside [low, high], about as many as wanted: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten inside [low, high], with 2 and 5 times them where there would be fewer than three."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        found = [factor * 10.0**power for power in powers for factor in factors]
        inside = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(inside) >= 3:
            return inside[:: -(-len(inside) // 6)]
    return inside


def short(value: float) -> str:
    """Write a number in at most six characters or so: 0.0145, 1.5k, 2M, 3e-05."""
    size = abs(value)
    if not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= factor:
            return f"{value / (1e3 if letter == 'k' else factor):.3g}{letter}"
    return f"{value:.4g}" if size >= 1 else f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values of an axis to px: [low, high] to [start, stop]."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, values: Values) -> Values:
        """Return px; values outside of the axis are drawn on its edge."""
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        if self.log:
            values = np.log10(np.maximum(values, self.low))
        share = np.clip((values - low) / max(high - low, 1e-300), 0, 1)
        px: Values = self.start + share * (self.stop - self.start)
        return px


def scale_y(values: Values, *, log: bool) -> Scale:
    """Return the axis for finite values: logarithmic where it may be and they span much, else with a margin."""
    low, high = float(values.min()), float(values.max())
    start, stop = TOP + PLOT_H, TOP
    if log and low > 0 and high / low > LOG_FROM:
        return Scale(low / 1.1, high * 1.1, start, stop, log=True)
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    zero = low >= 0 and low < 0.3 * high
    return Scale(0.0 if zero else low - margin, high + margin, start, stop)


def svg(chart: Chart) -> str:
    """Return the chart as an SVG element; one without a finite value says so."""
    lines = [line for line in chart.lines if (np.isfinite(line.x) & np.isfinite(line.y)).any()]
    if not lines:
        return '<p class="none">nothing was logged</p>'
    every_x = np.concatenate([line.x[np.isfinite(line.x)] for line in lines])
    every_y = np.concatenate([line.y[np.isfinite(line.y)] for line in lines])
    if chart.band is not None:
        every_y = np.concatenate([every_y, chart.band.low, chart.band.high])
    low, high = float(every_x.min()), float(every_x.max())
    x, y = Scale(low, high if high > low else low + 1, LEFT, LEFT + PLOT_W), scale_y(every_y, log=chart.log)
    parts = [*_axes(x, y, chart), *_band(chart.band, x, y), *_marks(chart.marks, x)]
    for line in lines:
        parts.append(_line(line, x, y))
    label = escape(f"{chart.title}, {chart.unit}" if chart.unit else chart.title)
    hover = escape(json.dumps(_hover(lines, x, y)))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}" data-hover="{hover}"'
        f' data-x="{escape(chart.x_name)}">{"".join(parts)}</svg>'
    )


def _axes(x: Scale, y: Scale, chart: Chart) -> list[str]:
    parts = []
    for value in log_ticks(y.low, y.high) if y.log else ticks(y.low, y.high):
        at = float(y(np.array([value]))[0])
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + PLOT_W}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">{short(value)}</text>')
    for value in ticks(x.low, x.high):
        at = float(x(np.array([value]))[0])
        anchor = "end" if at > WIDTH - 30 else "middle"
        place = min(at, WIDTH - 4) if anchor == "end" else at
        parts.append(f'<text x="{place:.1f}" y="{HEIGHT - 7}" text-anchor="{anchor}">{short(value)}</text>')
    return parts


def _band(band: Band | None, x: Scale, y: Scale) -> list[str]:
    if band is None or not len(band.x):
        return []
    above, below = zip(x(band.x), y(band.high), strict=True), zip(x(band.x[::-1]), y(band.low[::-1]), strict=True)
    points = " ".join(f"{px:.1f},{py:.1f}" for px, py in [*above, *below])
    return [f'<polygon class="band" points="{points}"><title>reference band</title></polygon>']


def _marks(marks: Sequence[Mark], x: Scale) -> list[str]:
    parts = []
    for mark in marks:
        if not x.low <= mark.x <= x.high:
            continue
        at = float(x(np.array([mark.x]))[0])
        title = f"<title>{escape(mark.text)}</title>"
        if math.isfinite(mark.back_to) and mark.back_to != mark.x:
            to = float(x(np.array([mark.back_to]))[0])
            left, width = min(at, to), abs(at - to)
            parts.append(
                f'<rect class="lost" x="{left:.1f}" y="{TOP}" width="{width:.1f}" height="{PLOT_H}">{title}</rect>'
            )
        parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{TOP + PLOT_H}">{title}</line>')
    return parts


def _line(line: Line, x: Scale, y: Scale) -> str:
    """Draw a line with gaps where values are missing; a point that stands alone is a dot."""
    kept = thinned(line.x, line.y, PLOT_W)
    px, py = x(line.x[kept]), y(line.y[kept])
    gone = np.cumsum(~np.isfinite(line.y))
    parts, dots = [], []
    apart = np.flatnonzero(np.diff(gone[kept]) > 0) + 1
    for piece in np.split(np.arange(len(kept)), apart):
        if len(piece) == 1:
            dots.append(f'<circle class="dot c{line.colour}" cx="{px[piece[0]]:.1f}" cy="{py[piece[0]]:.1f}" r="2.5"/>')
            continue
        points = [f"{px[each]:.1f} {py[each]:.1f}" for each in piece]
        parts.append(f"M{points[0]}L{' '.join(points[1:])}")
    path = f'<path class="line c{line.colour}" d="{"".join(parts)}"/>' if parts else ""
    return path + "".join(dots)


def _hover(lines: Sequence[Line], x: Scale, y: Scale) -> list[dict[str, object]]:
    """Return what the page's script shows under a pointer: for each line its name and points, px and words."""
    found: list[dict[str, object]] = []
    for line in lines:
        kept = np.flatnonzero(np.isfinite(line.x) & np.isfinite(line.y))
        kept = kept[:: -(-len(kept) // HOVER_POINTS)]
        px, py = x(line.x[kept]).round().astype(int).tolist(), y(line.y[kept]).round().astype(int).tolist()
        words = [f"{a:.6g}: {short(b)}" for a, b in zip(line.x[kept].tolist(), line.y[kept].tolist(), strict=True)]
        found.append({"name": line.name, "at": list(zip(px, py, words, strict=True))})
    return found
