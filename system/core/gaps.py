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

from system.core.vectors import FINE_PX, FLOW_STEPS, MOST_STEPS, VECTOR_ERROR_PX, num_cells

Fields = NDArray[np.complex64]
Cells = NDArray[np.bool_]
Indexes = NDArray[np.intp] | NDArray[np.int32]

# FFmpeg's AVMotionVector, what is used of it; ten words of 32 bits, the lowest byte first.
RECORD = np.dtype(
    {
        "names": ["source", "w", "h", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale"],
        "formats": ["<i4", "u1", "u1", "<i2", "<i2", "<i4", "<i4", "<u2"],
        "offsets": [0, 4, 5, 10, 12, 24, 28, 32],
        "itemsize": 40,
    }
)
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
    # Numpy takes half a millisecond to agree on the fields of so many records, and is twice as fast over whole words.
    words = np.concatenate([each.records.view(np.int32) for each in coded]).reshape(-1, RECORD.itemsize // 4)
    source, sizes, x, y = np.ascontiguousarray(words[:, :4].T)
    wide, high = sizes >> 4 & 1, sizes >> 12 & 1  # whether a side is 16 px
    left, top = (x >> 19) - wide, (y << 16 >> 19) - high  # the middle's upper and lower half-word, in cells
    at = top * across + left + np.repeat(np.arange(len(coded), dtype=np.int32) * (down * across), counts)
    scale = (words[:, 8] & 0xFFFF).astype(np.float32)
    usable = (source < 0) & (left >= 0) & (top >= 0) & (left + wide < across) & (top + high < down) & (scale > 0)
    moved = words[:, 6:8].astype(np.float32).view(np.complex64)[:, 0]
    moved *= np.repeat(np.array([each.stretch for each in coded], np.float32), counts) / np.maximum(
        scale, np.float32(1)
    )
    if not usable.all():
        at, moved, wide, high = at[usable], moved[usable], wide[usable], high[usable]
    flat, places = out.reshape(-1), at.astype(np.intp)
    for step in (0, wide, high * across, -wide):  # the four cells of a block, or those that it has, again
        places += step
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
    most: Fields = np.nan_to_num(middle).view(np.complex64)[:, 0]
    return most


def completed(fields: Fields, unknown: Cells) -> None:
    """Give every cell a displacement: that of the next gap that knows one there, else of the one before.

    A cell that no gap knows has those of the nearest cell in its row, or in the nearest row. In place, both arguments.
    """
    some = [bool(gap.any()) for gap in unknown]
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
    nearest: Indexes = row[:, None] * width + col[row]
    return nearest


def steadied(fields: Fields) -> None:
    """Average complete fields with the ones beside them, cell by cell, where those differ by no more than vectors err.

    Vectors are quarters of a px, an encoder prefers whole ones and halves, and what it rounds away in one frame it adds
    in the next: a pan by 7.25 px comes out as 7, 7.5, 7, ... In place.
    """
    planes = fields.view(np.float32).reshape(*fields.shape, 2)
    across, down = np.ascontiguousarray(planes[..., 0]), np.ascontiguousarray(planes[..., 1])
    more_across, more_down = np.zeros_like(across), np.zeros_like(down)  # the sums of what others differ by
    count = np.ones_like(across)
    for step in range(1, min(STEADY_GAPS, len(fields) - 1) + 1):
        x, y = across[step:] - across[:-step], down[step:] - down[:-step]
        near = (np.maximum(np.abs(x), np.abs(y)) <= VECTOR_ERROR_PX).astype(np.float32)
        x *= near
        y *= near
        for total, part, sign in ((more_across, x, 1), (more_down, y, 1), (count, near, -1)):
            total[:-step] += part
            if sign > 0:
                total[step:] -= part
            else:
                total[step:] += part
    planes[..., 0] += more_across / count
    planes[..., 1] += more_down / count


def pushed(fields: Fields, rest: Fields) -> Indexes:
    """Say which cells lie where in the earlier frames, where what they show came from.

    Args:
        fields: (G, h, w), complete.
        rest: (G,) the displacement that most of each frame has.

    Returns:
        (G, 2h, 2w) indexes into the flat fields, and behind them `rest`, on cells of `FINE_PX`: whole cells would move
        edges by up to 4 px. The rest of a frame stays in its place, since its neighbours move alike; where it is
        uncovered there is `rest`. What moves otherwise arrives where it came from, and of two that arrive the odder one
        is in front.
    """
    count, height, width = fields.shape
    oddness = _longest(fields - rest[:, None, None])
    odd = oddness > ODD_PX
    out = np.arange(fields.size, dtype=np.int32).reshape(fields.shape)
    np.copyto(out, np.arange(fields.size, fields.size + count, dtype=np.int32)[:, None, None], where=odd)
    out = np.repeat(np.repeat(out, 2, 1), 2, 2)
    gap, row, col = np.nonzero(odd)
    # Of repeated indexes the last one stays; numpy sorts 16 bits much faster than 32.
    order = np.minimum(oddness[odd] * np.float32(16), np.float32(65535)).astype(np.uint16).argsort(kind="stable")
    gap, row, col = gap[order], row[order], col[order]
    cells = (gap * height + row) * width + col
    steps = np.rint(fields.reshape(-1)[cells] * np.float32(1 / FINE_PX)).view(np.float32).astype(np.intp)
    down, across = 2 * height, 2 * width
    row, col = 2 * row + steps[1::2], 2 * col + steps[::2]
    here = (row >= 0) & (row < down - 1) & (col >= 0) & (col < across - 1)
    at, cells, flat = ((gap * down + row) * across + col)[here], cells[here], out.reshape(-1)
    for step in (0, 1, across - 1, 1):
        at += step
        flat[at] = cells
    return out


def in_steps(fields: Fields, x: float, y: float, most: int) -> NDArray[np.int32]:
    """Return fields in steps of 1/`FLOW_STEPS` px of a clip, each an int32 that holds two int16, x then y.

    Args:
        fields: of any shape.
        x: px of the clip for a px of the stream, across.
        y: the same, down.
        most: the most that flow may be, px of the clip.
    """
    steps = fields[..., None].view(np.float32) * (np.float32(FLOW_STEPS) * np.array([x, y], np.float32))
    limit = min(FLOW_STEPS * most, MOST_STEPS)
    np.clip(np.rint(steps, out=steps), -limit, limit, out=steps)
    return steps.astype(np.int16).view(np.int32)[..., 0]


def places(ys: NDArray[np.float32], xs: NDArray[np.float32], cell: int, width: int) -> Indexes:
    """Return the indexes of the cells of a flat field that a grid's places lie in: (ys, xs).

    A block moves as a whole, so nothing lies between cells.

    Args:
        ys: px from the field's upper edge, inside of it.
        xs: px from its left edge.
        cell: side of a cell, px.
        width: of the field, cells.
    """
    return (ys // cell).astype(np.intp)[:, None] * width + (xs // cell).astype(np.intp)
