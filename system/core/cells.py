"""The mask that moves with the scene, on the cells that its flow comes on: warp.py does the same px by px.

Not a map is carried from frame to frame but a position: where in the base frame lies what a cell of this frame shows?
One look-up a frame takes it there, and the base frame's map is evaluated once for all frames. What is carried is 16
times smaller with cells of 4 px, and no map is blurred by being looked up again and again.

B clips, T frames, S slots, F places per slot, n x n cells of a clip, F of them a whole number of cells each.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from system.core.clip import TokenGrid
from system.core.masks import Visible

Floats = NDArray[np.float32]

# Points along a cell's side at which the base frame's map is evaluated: every 2 px for cells of 4. Even, so that a
# cell's middle is one of them.
POINTS = 2
# What stands half a cell outside of the frame and beyond: so low that whatever is mixed with it is below 0.
_OUTSIDE = np.float32(-1e6)
# A distance at which nothing is left of a bump, and the rows of places beside its own that one reaches: 5e-6 is left of
# it in the next.
_FAR, _REACH = 1e6, 3


def fits(cells: int, grid: TokenGrid) -> bool:
    """Say whether every place of a grid is a whole number of so many cells a side."""
    return grid.rows == grid.cols and not cells % grid.rows


@lru_cache(maxsize=8)
def _corners(cells: int) -> Floats:
    """Return the corners of a frame's cells, (n, n, 2), in cells."""
    corner = np.arange(cells, dtype=np.float32)
    return np.stack(np.meshgrid(corner, corner), -1)


def _looked_up(field: Floats, at: Floats) -> Floats:
    """Look a field up at (x, y), bilinear; its border goes on. OpenCV takes both as one map."""
    linear, border = cv2.INTER_LINEAR, cv2.BORDER_REPLICATE
    found = cv2.remap(field, at, None, linear, borderMode=border)  # type: ignore[call-overload]
    return np.asarray(found, np.float32)


def displacements(flow: Floats, base: int, size: int) -> Floats:
    """Say how far from a cell of each frame that lies in the base frame which the cell shows.

    Beyond the frame's border things move as at the border.

    Args:
        flow: (T - 1, n, n, 2) px, in the order of `pairs_toward(base, T)`.
        base: the base frame.
        size: side of the clip, px.

    Returns:
        (T, n, n, 2) in cells, x then y; what comes from outside of the frame is taken there.
    """
    cells = flow.shape[1]
    near = flow * np.float32(cells / size)
    there = near + _corners(cells)
    out = np.zeros((len(flow) + 1, cells, cells, 2), np.float32)
    for frame in (*range(base + 1, len(out)), *range(base - 1, -1, -1)):
        nearer, pair = (frame - 1, frame - 1) if frame > base else (frame + 1, frame)
        np.add(near[pair], _looked_up(out[nearer], there[pair]), out=out[frame])
    return out


@lru_cache(maxsize=8)
def _distances(cells: int, rows: int) -> Floats:
    """Return the squared distance in cells of each point along one side from each place's middle: (rows, L).

    The first point lies a cell before the frame, so that what lies outside of it has points too.
    """
    points = np.arange((cells + 2) * POINTS + 1) / POINTS - 1
    middles = (np.arange(rows) + 0.5) * (cells / rows)
    return ((points - middles[:, None]) ** 2).astype(np.float32)


def _bumps(drawn: Visible, cells: int, grid: TokenGrid) -> Floats:
    """Return `warp.gaussian_map` at the points, each the mean over a cell around it: (L, L).

    A mean over a cell makes the bump as much wider as a cell's variance is, 1/12 of its side squared.
    """
    apart = _distances(cells, grid.rows)
    hidden = np.where(drawn.reshape(grid.rows, grid.cols), np.float32(0), np.float32(_FAR))
    along = (apart + hidden[:, :, None]).min(1)  # to the nearest drawn place of each row: (rows, L)
    nearest = np.full((apart.shape[1],) * 2, _FAR, np.float32)
    patch = POINTS * cells // grid.rows
    for row in np.flatnonzero(along.min(1) < _FAR):
        reach = slice(max(0, POINTS + int(row - _REACH) * patch), POINTS + int(row + 1 + _REACH) * patch)
        np.minimum(nearest[reach], apart[row, reach, None] + along[row], out=nearest[reach])
    bumps = np.exp(nearest * np.float32(-1 / ((cells / grid.rows) ** 2 + 1 / 6)))
    edge = POINTS // 2
    bumps[:edge], bumps[-edge:], bumps[:, :edge], bumps[:, -edge:] = _OUTSIDE, _OUTSIDE, _OUTSIDE, _OUTSIDE
    return np.asarray(bumps, np.float32)


def carried_scores(drawn: Visible, flow: Floats, base: int, grid: TokenGrid, *, fill_holes: bool = True) -> Floats:
    """Carry the map of drawn places to every frame, and sum it over each tubelet.

    What comes from outside of the frame has the initial map's value at the same place, as in `warp.carry`.

    Args:
        drawn: (B, F) the places drawn in the base frame.
        flow: (B, T - 1, n, n, 2) px, in the order of `pairs_toward(base, T)`; see `fits`.
        base: the base frame.
        grid: the token grid.
        fill_holes: False leaves those at 0.

    Returns:
        (B, S, F), in units of a cell.
    """
    cells = flow.shape[2]
    out = np.empty((len(flow), grid.slots, grid.places), np.float32)
    for clip, (places, vectors) in enumerate(zip(drawn, flow, strict=True)):
        at = displacements(vectors, base, grid.height)
        at += _corners(cells)
        at *= np.float32(POINTS)
        at += np.float32(1.5 * POINTS)  # of the cell's middle, and the first point lies a cell before the frame
        at = at.reshape(-1, cells, 2)  # (T * n, n, 2)
        values = _looked_up(_bumps(places, cells, grid), at).reshape(-1, cells, cells)
        np.copyto(values, values[base] if fill_holes else np.float32(0), where=values < 0)
        out[clip] = _summed(values, grid).reshape(grid.slots, grid.places)
    return out


def _summed(values: Floats, grid: TokenGrid) -> Floats:
    """Sum over tubelets: (T, n, n) -> (S, rows, cols). Axis by axis: numpy is slow over several short ones at once."""
    for axis, parts in enumerate((grid.tubelet_frames, values.shape[1] // grid.rows, values.shape[2] // grid.cols)):
        step = (slice(None),) * axis
        total = values[(*step, slice(0, None, parts))].copy()
        for part in range(1, parts):
            total += values[(*step, slice(part, None, parts))]
        values = total
    return values
