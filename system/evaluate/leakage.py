"""What a mask gives away: the share of hidden tokens whose content is visible in another slot.

A hidden token's content can be copied, instead of understood, where the scene has carried it into a place that the
encoder sees in some other slot. That is what "tube" masks prevent in a still clip and motion-guided masks in a moving
one. Each slot stands for its first frame here.

B clips, S slots, F places per slot, N = S x F tokens, H x W px, R frame pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from system.core.clip import TokenGrid
from system.core.pairs import FramePair


def slot_pairs(grid: TokenGrid) -> tuple[FramePair, ...]:
    """Return the frame pairs whose flow `leaked_share` wants: the first frames of every two slots, both ways."""
    firsts = [slot * grid.tubelet_frames for slot in range(grid.slots)]
    return tuple(FramePair(start, end) for start in firsts for end in firsts if start != end)


def _seen_there(visible: Tensor, flow: Tensor, grid: TokenGrid) -> Tensor:
    """Return whether a pixel lies in a visible place after it has moved: (B, F) and (B, H, W, 2) -> (B, H, W)."""
    xs = torch.arange(grid.width, dtype=flow.dtype) + flow[..., 0]
    ys = torch.arange(grid.height, dtype=flow.dtype)[:, None] + flow[..., 1]
    # Places cover half-open intervals of pixel centres: -0.5 belongs to the first one.
    col, row = ((xs + 0.5) / grid.patch_px).floor().long(), ((ys + 0.5) / grid.patch_px).floor().long()
    inside = (col >= 0) & (col < grid.cols) & (row >= 0) & (row < grid.rows)
    place = row.clamp(0, grid.rows - 1) * grid.cols + col.clamp(0, grid.cols - 1)
    return visible.gather(1, place.flatten(1)).view_as(inside) & inside


def leaked_share(visible: Tensor, flow: Tensor, grid: TokenGrid, in_sight: Tensor | None = None) -> Tensor:
    """Return for each token the share of its pixels that are visible in another slot.

    Args:
        visible: (B, N) bool.
        flow: (B, R, H, W, 2) px, the true flow of `slot_pairs(grid)`.
        grid: the token grid.
        in_sight: (B, R, H, W) bool, False where another object hides the pixel in the second frame. Default: nothing
            hides anything.

    Returns:
        (B, N) float32 in [0, 1], for visible tokens as well as for hidden ones.
    """
    by_slot = visible.reshape(len(visible), grid.slots, grid.places)
    seen = visible.new_zeros((len(visible), grid.slots, grid.height, grid.width))
    for number, pair in enumerate(slot_pairs(grid)):
        start, end = pair.start // grid.tubelet_frames, pair.end // grid.tubelet_frames
        there = _seen_there(by_slot[:, end], flow[:, number], grid)
        seen[:, start] |= there if in_sight is None else there & in_sight[:, number]
    patch = grid.patch_px
    # (B, S, H, W) -> (B, S, rows, p, cols, p) -> (B, N)
    cut = seen.float().reshape(len(seen), grid.slots, grid.rows, patch, grid.cols, patch)
    return cut.mean((3, 5)).flatten(1)


def leakage(visible: Tensor, flow: Tensor, grid: TokenGrid, in_sight: Tensor | None = None) -> Tensor:
    """Return the share of a clip's hidden tokens that leak: at least half of their pixels are visible in another slot.

    Args as `leaked_share`.

    Returns:
        (B,) float32 in [0, 1].
    """
    leaks = leaked_share(visible, flow, grid, in_sight) >= 0.5
    hidden = ~visible
    return (leaks & hidden).sum(1) / hidden.sum(1)
