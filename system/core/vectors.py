"""Motion vectors of a video stream to flow between any two of its frames.

A stream's P-frames say, block by block, where in the anchor before them a block came from. An *anchor* is an I- or
P-frame; a *span* lies between one anchor and the next in the order of presentation, and holds the velocity of what the
later one shows. Frames between two anchors (B-frames) are passed through at constant velocity; their own vectors are
not used, since a stream does not export which frames those point to.

h x w cells of `CELL_PX` cover a frame, coded px. Fields are (h, w, 2) float32, x then y; NaN where nothing is known.
Points are (..., 2) px, with x = 0 at the left edge of the frame: the first pixel's centre is at 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Points = NDArray[np.float32]
Cells = NDArray[np.int64]

# Side of a cell: the smallest block that FFmpeg exports; all blocks lie on its multiples.
CELL_PX = 8
# Cells on which points are followed to where a field has been carried: whole cells would move its edges by up to 4 px.
FINE_PX = 4
# Side of a cell of the flow that a clip is given, px of the clip; and the steps of a px that it is given in, as int16:
# all bits mean a number then, and numpy is 20 times as fast as with float16.
CLIP_CELL_PX = 4
FLOW_STEPS = 64
MOST_STEPS = 32767
# Cells from which the median of a frame is taken: 1,000 of them tell a background as well as all.
MEDIAN_CELLS = 1000
# How far the vectors of spans near each other may differ for the same motion, px; and how near they are: about so many
# frames, at most so many spans.
VECTOR_ERROR_PX = 0.8
STEADY_FRAMES, STEADY_SPANS = 8, 4
# Holes are filled from the cells beside them, so many rings deep, if they are at most this share of a field: 4 cells
# of 4 px are what a motion of 4 px a frame leaves open in 4 frames.
FILL_RINGS, FILL_SHARE = 4, 0.1
_AROUND = np.array([(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)])


@dataclass(frozen=True, slots=True)
class Span:
    """What moved between two anchors.

    Attributes:
        start: frame number of the earlier anchor.
        stop: frame number of the later one.
        velocity: of what the later anchor shows, px a frame, on its grid; NaN where it is intra.
    """

    start: int
    stop: int
    velocity: Field


def num_cells(px: int) -> int:
    """Return how many cells cover a side of a frame."""
    return -(-px // CELL_PX)


def rasterized(vectors: NDArray[Any], height: int, width: int) -> Field:
    """Paint the vectors of one frame that point to the past.

    Args:
        vectors: FFmpeg's records: source, w, h, dst_x, dst_y (a block's middle, px), motion_x, motion_y, motion_scale.
        height: of the frame, px.
        width: of the frame, px.

    Returns:
        (h, w, 2) px: what lies here was at x + field(x) in the frame before. NaN where no block is painted.
    """
    field = np.full((num_cells(height), num_cells(width), 2), np.nan, np.float32)
    past = vectors[(vectors["source"] < 0) & (vectors["motion_scale"] > 0)]
    moved = np.stack([past["motion_x"], past["motion_y"]], -1) / past["motion_scale"][:, None].astype(np.float32)
    left = (past["dst_x"].astype(np.int64) - past["w"] // 2 + CELL_PX // 2) // CELL_PX
    top = (past["dst_y"].astype(np.int64) - past["h"] // 2 + CELL_PX // 2) // CELL_PX
    across, down = np.maximum(1, past["w"] // CELL_PX), np.maximum(1, past["h"] // CELL_PX)
    for dy in range(int(down.max(initial=0))):
        for dx in range(int(across.max(initial=0))):
            y, x = top + dy, left + dx
            inside = (dy < down) & (dx < across) & (y >= 0) & (y < len(field)) & (x >= 0) & (x < field.shape[1])
            field[y[inside], x[inside]] = moved[inside]
    return field


def _longest(field: Field) -> NDArray[np.float32]:
    """Return the larger of |x| and |y|; numpy's own reductions are slow over two numbers."""
    return np.maximum(np.abs(field[..., 0]), np.abs(field[..., 1]))


def _common(field: Field) -> NDArray[np.float32]:
    """Return the velocity that most of a frame has: (2,). What moves otherwise is taken to be in front of it."""
    known = field[~np.isnan(field[..., 0])]
    return np.asarray(np.median(known[:: 1 + len(known) // MEDIAN_CELLS], 0), np.float32)


def pushed(velocity: Field, frames: float, cell: int = CELL_PX, onto: NDArray[np.bool_] | None = None) -> Field:
    """Carry a field of velocities to where its own motion takes it.

    Args:
        velocity: px a frame; NaN stays behind.
        frames: how long it moves; negative for back in time.
        cell: px.
        onto: (h, w), the cells whose velocity is asked for; default: all.

    Returns:
        The same velocities on the grid of another frame. Where two arrive, the one that is less common in its frame is
        in front. NaN where none arrives.
    """
    height, width = velocity.shape[:2]
    out = np.full_like(velocity, np.nan)
    ys, xs = np.nonzero(~np.isnan(velocity[..., 0]))
    if not len(ys):
        return out
    values = velocity[ys, xs]
    arrive = np.rint(values * np.float32(frames / cell)).astype(np.int64)
    tx, ty = xs + arrive[:, 0], ys + arrive[:, 1]
    here = (ty >= 0) & (ty < height) & (tx >= 0) & (tx < width)
    if onto is not None:
        here[here] = onto[ty[here], tx[here]]
    tx, ty, values = tx[here], ty[here], values[here]
    order = _longest(values - _common(velocity)).argsort(kind="stable")
    out[ty[order], tx[order]] = values[order]  # of repeated indexes the last one stays
    return out


def _most_common_around(wide: Field, ys: Cells, xs: Cells, common: NDArray[np.float32]) -> Field:
    """Return the most common velocity beside each of some cells: (cells, 2), NaN where none is known."""
    around = wide[ys + _AROUND[:, :1], xs + _AROUND[:, 1:]]  # (8, cells, 2)
    odd = _longest(around - common)
    odd[np.isnan(odd)] = np.inf
    return np.asarray(around[odd.argmin(0), np.arange(len(ys))], np.float32)


def filled(field: Field) -> Field:
    """Fill what is unknown with the most common velocity beside it: beside the cell, then in larger and larger squares.

    What cannot be seen in both frames is behind what can: so the background is continued, not the object.
    """
    unknown = np.isnan(field[..., 0])
    if not unknown.any():
        return field
    if unknown.all():
        return np.zeros_like(field)
    common = _common(field)
    height, width = unknown.shape
    wide = np.full((height + 2, width + 2, 2), np.nan, np.float32)
    wide[1:-1, 1:-1] = field
    ys, xs = np.nonzero(unknown)
    for _ in range(FILL_RINGS if len(ys) < FILL_SHARE * unknown.size else 0):
        wide[ys + 1, xs + 1] = _most_common_around(wide, ys + 1, xs + 1, common)
    found = wide[1:-1, 1:-1]
    return _from_squares(found, common) if np.isnan(found).any() else found


def _from_squares(field: Field, common: NDArray[np.float32]) -> Field:
    """Fill unknown cells with the most common velocity of the square of 2 x 2 cells that they lie in, or of its own."""
    height, width = field.shape[:2]
    even = np.full((height + height % 2, width + width % 2, 2), np.nan, np.float32)
    even[:height, :width] = field
    four = np.stack([even[y::2, x::2] for y in (0, 1) for x in (0, 1)])  # (4, h / 2, w / 2, 2)
    odd = _longest(four - common)
    odd[np.isnan(odd)] = np.inf
    coarse = np.take_along_axis(four, odd.argmin(0)[None, ..., None], 0)[0]
    if np.isnan(coarse).any():
        coarse = _from_squares(coarse, common)
    wide = coarse.repeat(2, 0).repeat(2, 1)[:height, :width]
    return np.where(np.isnan(field), wide, field)


def completed(spans: Sequence[Span]) -> list[Span]:
    """Give every cell of every span a velocity: intra blocks and intra frames move as they do before and after.

    A cell's velocity is that of the next span, carried back; else that of the span before, carried on; else that of
    the cells around it.
    """
    fields = [span.velocity for span in spans]
    for index in range(len(spans) - 2, -1, -1):
        unknown = np.isnan(fields[index][..., 0])
        if unknown.any():
            after = spans[index + 1]
            coming = pushed(fields[index + 1], after.start - after.stop, onto=unknown)
            fields[index] = np.where(unknown[..., None], coming, fields[index])
    for index in range(1, len(spans)):
        unknown = np.isnan(fields[index][..., 0])
        if unknown.any():
            going = pushed(fields[index - 1], spans[index].stop - spans[index].start, onto=unknown)
            fields[index] = np.where(unknown[..., None], going, fields[index])
    return [Span(span.start, span.stop, filled(field)) for span, field in zip(spans, fields, strict=True)]


def regrouped(spans: Sequence[Span], marks: Sequence[int]) -> list[Span]:
    """Join complete spans, or cut them, to those between frames that follow each other in `marks`, ascending."""
    height, width = spans[0].velocity.shape[:2]
    middles = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    points: Points = (np.stack(middles, -1) + np.float32(0.5)) * CELL_PX
    as_they_are = {(span.start, span.stop): span for span in spans}
    out = []
    for start, stop in pairwise(marks):
        if (start, stop) in as_they_are:
            out.append(as_they_are[start, stop])
        else:
            velocity: Field = (walked(points, spans, stop, start) - points) / np.float32(start - stop)
            out.append(Span(start, stop, velocity))
    return out


def steadied(spans: Sequence[Span]) -> list[Span]:
    """Average complete spans with the ones beside them, cell by cell, where those differ by no more than vectors err.

    Vectors are quarters of a px, an encoder prefers whole ones and halves, and what it rounds away in one frame it adds
    in the next: a pan by 7.25 px comes out as 7, 7.5, 7, ...
    """
    lengths = np.array([max(1, span.stop - span.start) for span in spans], np.float32)[:, None, None]
    velocity = np.stack([span.velocity for span in spans])  # (spans, h, w, 2)
    total, count = np.zeros_like(velocity), np.ones(velocity.shape[:3], np.float32)  # of what others differ by
    reach = min(STEADY_SPANS, len(spans) - 1, max(1, round(STEADY_FRAMES / float(np.median(lengths)))))
    for step in range(1, reach + 1):
        change = velocity[step:] - velocity[:-step]
        near = _longest(change) * np.maximum(lengths[step:], lengths[:-step]) <= VECTOR_ERROR_PX
        change *= near[..., None]
        total[:-step] += change
        total[step:] -= change
        count[:-step] += near
        count[step:] += near
    velocity += total / count[..., None]
    return [Span(span.start, span.stop, field) for span, field in zip(spans, velocity, strict=True)]


def sampled(field: Field, points: Points, cell: int = CELL_PX) -> Points:
    """Look a field up at points, bilinear; outside of the frame its border goes on."""
    height, width = field.shape[:2]
    x = np.clip(points[..., 0] / np.float32(cell) - np.float32(0.5), 0, width - 1)
    y = np.clip(points[..., 1] / np.float32(cell) - np.float32(0.5), 0, height - 1)
    left, top = np.minimum(x.astype(np.int64), max(0, width - 2)), np.minimum(y.astype(np.int64), max(0, height - 2))
    fx, fy = (x - left).astype(np.float32), (y - top).astype(np.float32)
    corner = top * width + left
    right, under = min(1, width - 1), width * min(1, height - 1)
    both = np.ascontiguousarray(field).view(np.complex64).ravel()  # x and y in one number: half the work
    upper = both[corner] * (1 - fx) + both[corner + right] * fx
    lower = both[corner + under] * (1 - fx) + both[corner + under + right] * fx
    found: Points = (upper * (1 - fy) + lower * fy)[..., None].view(np.float32)
    return found


def walked(points: Points, spans: Sequence[Span], start: int, end: int) -> Points:
    """Follow points from frame `start` to frame `end`, forward or backward in time, through complete spans."""
    at = start
    order = spans if end > start else spans[::-1]
    for span in order:
        goal = min(end, span.stop) if end > start else max(end, span.start)
        if not span.start <= at <= span.stop or goal == at or (goal > at) != (end > start):
            continue
        field, cell = span.velocity, CELL_PX
        if at != span.stop:
            finer = field.repeat(CELL_PX // FINE_PX, 0).repeat(CELL_PX // FINE_PX, 1)
            field, cell = filled(pushed(finer, at - span.stop, FINE_PX)), FINE_PX
        points = points + sampled(field, points, cell) * np.float32(goal - at)
        at = goal
    return points
