"""Motion vectors to the flow of all gaps of a clip at once, where its sampled frames are the stream's references.

So it is in layered shards: a *gap* lies between a sampled frame and the next one, and the vectors of the later one say
where its blocks came from in the earlier. Nothing has to be followed from frame to frame (vectors.py does that for
other streams), so each step here is one operation over the whole clip.

G gaps, h x w cells of `CELL_PX` px of the stream. Fields are (G, h, w) complex64, x + iy px of the stream from the
later frame of a gap back to the earlier one, what a cell of the later frame shows; NaN where nothing is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from system.core.vectors import CELL_PX, FINE_PX, VECTOR_ERROR_PX, num_cells

Fields = NDArray[np.complex64]
Cells = NDArray[np.bool_]
Indexes = NDArray[np.intp]

# Cells from which the median of a frame is taken: as many tell a background.
COMMON_CELLS = 100
# What moves by no more than this unlike the rest of its frame, px, may stay in its place when its frame's field is
# brought to another: half of a fine cell.
ODD_PX = FINE_PX / 2
# Gaps beside a gap over which it is averaged: those within about 8 frames at stride 4.
STEADY_GAPS = 2
_UNKNOWN = np.complex64(complex(np.nan, np.nan))


@dataclass(frozen=True, slots=True)
class Coded:
    """What a stream says about one gap.

    Attributes:
        records: FFmpeg's motion vectors of the frame that ends it, or of the one before where that is a key frame.
        stretch: length of the gap over the time that the vectors tell of.
    """

    records: NDArray[Any]
    stretch: float


def painted(coded: Sequence[Coded], height: int, width: int) -> Fields:
    """Paint the vectors of every gap.

    Args:
        coded: G of them; blocks are of 8 or 16 px and lie on multiples of 8, as in H.264.
        height: of the frames, px.
        width: of the frames, px.

    Returns:
        (G, h, w).
    """
    rows, cols = num_cells(height), num_cells(width)
    down, across = rows + rows % 2, cols + cols % 2  # the last block may reach beyond the frame
    out = np.full((len(coded), down, across), _UNKNOWN, np.complex64)
    counts = [len(each.records) for each in coded]
    records = np.concatenate([each.records for each in coded])
    wide, high = (records["w"] > CELL_PX).astype(np.intp), (records["h"] > CELL_PX).astype(np.intp)
    left, top = (records["dst_x"] >> 3) - wide, (records["dst_y"] >> 3) - high
    gap = np.repeat(np.arange(len(coded)), counts)
    at = (gap * down + top) * across + left
    moved = np.stack([records["motion_x"], records["motion_y"]], -1).astype(np.float32).view(np.complex64)[:, 0]
    moved *= np.repeat(np.array([each.stretch for each in coded], np.float32), counts) / records["motion_scale"]
    usable = (records["source"] < 0) & (records["motion_scale"] > 0)
    usable &= (left >= 0) & (top >= 0) & (left + wide < across) & (top + high < down)
    if not usable.all():
        at, moved, wide, high = at[usable], moved[usable], wide[usable], high[usable]
    flat, below = out.reshape(-1), high * across
    for places in (at, at + wide, at + below, at + wide + below):
        flat[places] = moved
    return out[:, :rows, :cols]


def _longest(field: Fields) -> NDArray[np.float32]:
    """Return the larger of |x| and |y|."""
    both = np.abs(field.view(np.float32).reshape(*field.shape, 2))
    return np.maximum(both[..., 0], both[..., 1])


def common(fields: Fields) -> Fields:
    """Return the displacement that most of each frame has: (G,). What moves otherwise is taken to be in front of it."""
    gaps = len(fields)
    some = fields.reshape(gaps, -1)
    some = np.ascontiguousarray(some[:, :: max(1, some.shape[1] // COMMON_CELLS)])
    values = np.sort(some.view(np.float32).reshape(gaps, -1, 2), 1)  # NaN at the end
    known = values.shape[1] - np.isnan(values[..., 0]).sum(1)
    middle = values[np.arange(gaps), np.maximum(known - 1, 0) // 2]
    return np.nan_to_num(middle).view(np.complex64)[:, 0]


def completed(fields: Fields, unknown: Cells) -> None:
    """Give every cell a displacement: that of the next gap that knows one there, else of the one before.

    A cell that no gap knows has those of the nearest cell in its row, or in the nearest row. In place, both arguments.
    """
    some = unknown.any((1, 2))
    for order in (range(len(fields) - 2, -1, -1), range(1, len(fields))):
        step = 1 if order.step < 0 else -1
        for gap in order:
            if some[gap]:
                np.copyto(fields[gap], fields[gap + step], where=unknown[gap])
                unknown[gap] &= unknown[gap + step]
    never = unknown[-1]
    if never.any():
        flat, cells = fields.reshape(len(fields), -1), np.flatnonzero(never)
        flat[:, cells] = flat[:, _nearest(~never).reshape(-1)[cells]]


def _nearest(known: Cells) -> Indexes:
    """Return which known cell, of the flat field, is nearest to each: in its row, else in the nearest row that has one.

    Of a field of which nothing is known it is the first one.
    """
    height, width = known.shape
    cols = np.arange(width)
    before = np.maximum.accumulate(np.where(known, cols, -height - width), 1)
    behind = np.minimum.accumulate(np.where(known, cols, 2 * (height + width))[:, ::-1], 1)[:, ::-1]
    col = np.where(cols - before <= behind - cols, before, behind)
    rows = np.flatnonzero(known.any(1))
    if not len(rows):
        return np.zeros(known.shape, np.intp)
    row = rows[np.abs(rows - np.arange(height)[:, None]).argmin(1)]
    return row[:, None] * width + col[row]


def steadied(fields: Fields) -> None:
    """Average complete fields with the ones beside them, cell by cell, where those differ by no more than vectors err.

    Vectors are quarters of a px, an encoder prefers whole ones and halves, and what it rounds away in one frame it adds
    in the next: a pan by 7.25 px comes out as 7, 7.5, 7, ... In place.
    """
    total, count = np.zeros_like(fields), np.ones(fields.shape, np.float32)  # of what others differ by
    for step in range(1, min(STEADY_GAPS, len(fields) - 1) + 1):
        change = fields[step:] - fields[:-step]
        near = _longest(change) <= VECTOR_ERROR_PX
        change *= near
        total[:-step] += change
        total[step:] -= change
        count[:-step] += near
        count[step:] += near
    total /= count
    fields += total


def pushed(fields: Fields, rest: Fields) -> Fields:
    """Bring complete fields to the grids of the earlier frames, where what they show came from.

    Args:
        fields: (G, h, w).
        rest: (G,) the displacement that most of each frame has.

    Returns:
        (G, 2h, 2w), on cells of `FINE_PX`: whole cells would move edges by up to 4 px. The rest of a frame stays in its
        place, since its neighbours move alike; where it is uncovered it moves as `rest`. What moves otherwise arrives
        where it came from, and of two that arrive the odder one is in front.
    """
    gaps, height, width = fields.shape
    oddness = _longest(fields - rest[:, None, None])
    odd = oddness > ODD_PX
    out = np.empty((gaps, height, 2, width, 2), np.complex64)
    out[:] = np.where(odd, rest[:, None, None], fields)[:, :, None, :, None]
    cells = np.flatnonzero(odd)
    cells = cells[oddness.reshape(-1)[cells].argsort(kind="stable")]  # of repeated indexes the last one stays
    moved = fields.reshape(-1)[cells]
    steps = np.rint(moved * np.float32(1 / FINE_PX)).view(np.float32).reshape(-1, 2).astype(np.intp)
    rows, cols = np.divmod(cells, width)
    gap, rows = np.divmod(rows, height)
    rows, cols = 2 * rows + steps[:, 1], 2 * cols + steps[:, 0]
    here = (rows >= 0) & (rows < 2 * height - 1) & (cols >= 0) & (cols < 2 * width - 1)
    at, moved, flat = ((gap * 2 * height + rows) * 2 * width + cols)[here], moved[here], out.reshape(-1)
    for corner in (0, 1, 2 * width, 2 * width + 1):
        flat[at + corner] = moved
    return out.reshape(gaps, 2 * height, 2 * width)


def looked_up(fields: Fields, ys: NDArray[np.float32], xs: NDArray[np.float32], cell: int) -> Fields:
    """Return the fields at places of a grid: (G, ys, xs). A block moves as a whole, so nothing lies between cells.

    Args:
        fields: (G, h, w).
        ys: px from the fields' upper edge, inside of them.
        xs: px from their left edge.
        cell: side of a cell, px.
    """
    places = (ys // cell).astype(np.intp)[:, None] * fields.shape[2] + (xs // cell).astype(np.intp)
    return fields.reshape(len(fields), -1).take(places, 1, mode="clip")
