"""Which tokens the encoder sees, and which ones the decoder predicts.

B clips, S slots, F places per slot (rows x cols), N = S x F tokens, slot-major. A mask is a bool array called
`visible`: True where the encoder sees the token. Every clip of a batch sees the same number of tokens, so a batch is
gathered without padding. Masks that follow motion are made in warp.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from system.core.clip import TokenGrid, slot_visible

Noise = NDArray[np.float32]
Visible = NDArray[np.bool_]


def check_noise(noise: Noise, grid: TokenGrid) -> None:
    """Refuse draws that do not hold one number per token of the grid."""
    if noise.ndim != 3 or noise.shape[1:] != (grid.slots, grid.places):
        raise ValueError(f"noise must be (clips, {grid.slots}, {grid.places}) for this grid, got {noise.shape}")


def smallest(noise: Noise, count: int) -> Visible:
    """Mark the `count` smallest numbers along the last axis; equal numbers count from the left."""
    marked = np.zeros(noise.shape, np.bool_)
    np.put_along_axis(marked, noise.argsort(axis=-1, kind="stable")[..., :count], True, axis=-1)
    return marked


def largest(scores: NDArray[np.float32], count: int) -> Visible:
    """Mark the `count` largest numbers along the last axis; equal numbers count from the left."""
    least = np.partition(scores, -count, -1)[..., -count, None]
    marked: Visible = scores >= least
    if (marked.sum(-1) != count).any():  # some are equal to the least, or it is no number
        marked = smallest(-scores, count)
    return marked


def top_visible(scores: NDArray[np.float32], count: int, *, over_clip: bool = False) -> Visible:
    """Show the tokens with the highest scores; equal scores count from the first token on.

    Args:
        scores: (B, S, F).
        count: visible tokens of a slot.
        over_clip: choose `count * S` tokens of the whole clip instead, so that slots may differ.

    Returns:
        (B, N) `visible`.
    """
    clips, slots, _ = scores.shape
    shown = largest(scores.reshape(clips, -1), count * slots) if over_clip else largest(scores, count)
    return shown.reshape(clips, -1)


def all_visible(noise: Noise, grid: TokenGrid) -> Visible:
    """Hide nothing: (B, S, F) -> (B, N) of True."""
    return np.ones((len(noise), grid.tokens), np.bool_)


def tube_visible(noise: Noise, grid: TokenGrid, mask_ratio: float) -> Visible:
    """Show the same places in every slot ("tube masking", VideoMAE, arXiv:2203.12602).

    Args:
        noise: (B, S, F) uniform in [0, 1), one draw per token; the first slot's draws decide.
        grid: the token grid of the clips.
        mask_ratio: share of the places of a slot that is hidden, in (0, 1).

    Returns:
        (B, N) `visible`.

    Raises:
        ValueError: if `noise` does not fit the grid.
    """
    check_noise(noise, grid)
    shown = smallest(noise[:, 0], slot_visible(grid.places, mask_ratio))
    return np.tile(shown, (1, grid.slots))


def random_visible(noise: Noise, grid: TokenGrid, mask_ratio: float) -> Visible:
    """Show an equal number of places in every slot, drawn anew for each slot.

    Args:
        noise: (B, S, F) uniform in [0, 1), one draw per token.
        grid: the token grid of the clips.
        mask_ratio: share of the places of a slot that is hidden, in (0, 1).

    Returns:
        (B, N) `visible`.

    Raises:
        ValueError: if `noise` does not fit the grid.
    """
    check_noise(noise, grid)
    return smallest(noise, slot_visible(grid.places, mask_ratio)).reshape(len(noise), grid.tokens)


def running_cell(phase: NDArray[np.int64], grid: TokenGrid) -> Visible:
    """Choose the half of the tokens that is decoded ("running cell", VideoMAE V2, arXiv:2303.16727, section 3.1).

    Each 2 x 2 cell of places holds the queue (not, not, decoded, decoded), row by row, which turns by one place with
    every slot. Over any four slots each place is decoded twice, and of every whole cell half of each slot.

    Args:
        phase: (B,) integers, the turn of a clip's first slot; 0 to 3 are the four different ones.
        grid: the token grid; it holds whole cells only, or a multiple of 4 slots, so that every clip decodes as many.

    Returns:
        (B, N) bool, True where the decoder predicts: exactly half of the tokens.

    Raises:
        ValueError: if some clips would decode more tokens than others.
    """
    if (grid.rows % 2 or grid.cols % 2) and grid.slots % 4:
        raise ValueError(
            f"a running cell needs an even number of rows and columns, or a multiple of 4 slots; got {grid.rows} x"
            f" {grid.cols} places and {grid.slots} slots"
        )
    rows, cols = np.arange(grid.rows)[:, None] % 2, np.arange(grid.cols)[None, :] % 2
    place = 2 * rows + cols
    turn = phase[:, None] + np.arange(grid.slots)
    # (B, S, 1, 1) + (rows, cols) -> (B, S, rows, cols)
    decoded = (turn[:, :, None, None] + place) % 4 >= 2
    return decoded.reshape(len(phase), grid.tokens)
