"""The mask that moves with the scene, on the cells that its flow comes on: warp.py does the same px by px.

Not a map is carried from frame to frame but a position: where in the base frame lies what a cell of this frame shows?
One look-up a frame takes it there, and the base frame's map is evaluated once for all frames. So no map is blurred by
being looked up again and again, and what is carried is 64 times smaller with cells of 8 px.

B clips, T frames, S slots, F places per slot, n x n cells of a clip, F of them a whole number of cells each.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from system.core.clip import TokenGrid
from system.core.masks import Visible

Floats = NDArray[np.float32]
Positions = NDArray[np.complex64]

# Points of a cell's side at which the base frame's map is evaluated: every 2 px for cells of 8.
POINTS = 4


def fits(cells: int, grid: TokenGrid) -> bool:
    """Say whether every place of a grid is a whole number of so many cells a side."""
    return grid.rows == grid.cols and not cells % grid.rows


@lru_cache(maxsize=8)
def _middles(cells: int) -> Positions:
    """Return the middles of a frame's cells, (n, n), in cells."""
    middle = np.arange(cells, dtype=np.float32) + np.float32(0.5)
    return (middle[None] + 1j * middle[:, None]).astype(np.complex64)


def _places(positions: Floats, side: int) -> NDArray[np.intp]:
    """Return the indexes in a flat square of `side` of whole (x, y) in it, last axis."""
    at = positions[..., 1] * np.float32(side)
    at += positions[..., 0]
    return at.astype(np.intp)


def positions(flow: Floats, base: int, size: int) -> Positions:
    """Say where in the base frame that lies which a cell of each frame shows.

    Args:
        flow: (T - 1, n, n, 2) px, in the order of `pairs_toward(base, T)`.
        base: the base frame.
        size: side of the clip, px.

    Returns:
        (T, n, n) in cells; what comes from outside of the frame, on its way even, lies outside.
    """
    cells = flow.shape[1]
    there = np.ascontiguousarray(flow).view(np.complex64)[..., 0] * np.float32(cells / size)
    there += _middles(cells)
    xy = there.view(np.float32).reshape(flow.shape)
    whole = np.floor(xy)
    np.clip(whole, 0, np.float32(cells - 1), out=whole)
    xy -= whole
    xy -= np.float32(0.5)  # a cell moves as a whole: its points keep their distance from its middle
    at = _places(whole, cells)
    out = np.empty((len(flow) + 1, cells, cells), np.complex64)
    out[base] = _middles(cells)
    for frame in range(base + 1, len(out)):
        np.add(out[frame - 1].reshape(-1)[at[frame - 1]], there[frame - 1], out=out[frame])
    for frame in range(base - 1, -1, -1):
        np.add(out[frame + 1].reshape(-1)[at[frame]], there[frame], out=out[frame])
    return out


@lru_cache(maxsize=8)
def _distances(cells: int, rows: int) -> Floats:
    """Return the squared distance in cells of each point of the lattice, along one side, from each place: (rows, L)."""
    points = np.arange((cells + 2) * POINTS + 1) / POINTS - 1
    centres = (np.arange(rows) + 0.5) * (cells / rows)
    return ((points - centres[:, None]) ** 2).astype(np.float32)


def _bumps(drawn: Visible, cells: int, grid: TokenGrid) -> Floats:
    """Return `warp.gaussian_map` on the lattice, each point the mean over a cell around it: (L, L); -1 outside.

    A mean over a cell makes the bump as much wider as a cell's variance is, 1/12 of its side squared.
    """
    apart = _distances(cells, grid.rows)
    hidden = np.where(drawn.reshape(grid.rows, grid.cols), np.float32(0), np.float32(1e6))
    along = (apart + hidden[:, :, None]).min(1)  # the nearest drawn place of each row: (rows, L)
    nearest = (along[:, None] + apart[:, :, None]).min(0)
    bumps = np.exp(nearest * np.float32(-1 / ((cells / grid.rows) ** 2 + 1 / 6)))
    inner = slice(POINTS, -POINTS)
    out = np.full_like(bumps, -1)
    out[inner, inner] = bumps[inner, inner]
    return out


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
        bumps = _bumps(places, cells, grid)
        points = positions(vectors, base, grid.height).view(np.float32).reshape(grid.num_frames, cells, cells, 2)
        points += 1
        points *= np.float32(POINTS)
        np.clip(points, 0, len(bumps) - 1, out=points)
        values = bumps.reshape(-1)[_places(np.rint(points, out=points), len(bumps))]  # (T, n, n)
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
