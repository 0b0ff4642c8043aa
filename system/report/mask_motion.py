"""How masks move: whether what the encoder sees in one slot is what it sees in the next.

The definition: a visible token of slot s is carried along the mean flow of its patch, from the slot's first frame to
the next slot's. It is *kept* if the token on which its centre lands is visible there. Those that leave the frame do not
count. A mask that ignores motion keeps what stands still and, of what moves, about as many as chance says; a mask that
follows it keeps both.

S slots, F places per slot, N = S x F tokens; flow is (S - 1, H, W, 2) float32 px, x then y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from system.core.clip import TokenGrid

Visible = NDArray[np.bool_]
Flow = NDArray[np.float32]
Image = NDArray[np.uint8]

# A token moves if it is carried this share of a patch or more from one slot to the next.
MOVES = 0.5
# Side of a frame of the strip, px, at least: boxes on a smaller one would run into each other.
STRIP_PX = 160
KEPT, LOST = (46, 160, 105), (214, 72, 60)


@dataclass(frozen=True, slots=True)
class MaskMotion:
    """How many visible tokens are kept.

    Attributes:
        tokens: visible tokens that stay in the frame, of all slots but the last.
        kept: of these.
        moving: of these tokens, the ones that move.
        moving_kept: of those, the ones that are kept.
        moving_in_place: of those, the ones whose own place is visible in the next slot.
        chance: share of tokens that are visible.
    """

    tokens: int
    kept: int
    moving: int
    moving_kept: int
    moving_in_place: int
    chance: float

    def __add__(self, other: MaskMotion) -> MaskMotion:
        """Return both together."""
        weights = (self.tokens, other.tokens)
        return MaskMotion(
            self.tokens + other.tokens,
            self.kept + other.kept,
            self.moving + other.moving,
            self.moving_kept + other.moving_kept,
            self.moving_in_place + other.moving_in_place,
            (self.chance * weights[0] + other.chance * weights[1]) / max(1, sum(weights)),
        )

    def told(self) -> str:
        """Return a sentence."""
        line = f"{_share(self.kept, self.tokens)} of the visible tokens are kept along the flow"
        if self.moving:
            line += (
                f"; of the {self.moving} that move, {_share(self.moving_kept, self.moving)} (the same place is visible"
                f" for {_share(self.moving_in_place, self.moving)} of them)"
            )
        else:
            line += "; none of them moves"
        return f"{line}; by chance it would be {self.chance:.0%}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "none"


def patch_flow(flow: Flow, grid: TokenGrid) -> NDArray[np.float64]:
    """Return the mean flow of each patch: (S - 1, F, 2) px."""
    patch = grid.patch_px
    cells = flow.reshape(len(flow), grid.rows, patch, grid.cols, patch, 2).mean((2, 4), dtype=np.float64)
    return cells.reshape(len(flow), grid.places, 2)


def landings(moved: NDArray[np.float64], grid: TokenGrid) -> NDArray[np.int64]:
    """Return on which place of the next slot each token's centre lands: (S - 1, F), -1 outside of the frame."""
    row, col = np.divmod(np.arange(grid.places), grid.cols)
    to_col = np.floor(col + 0.5 + moved[..., 0] / grid.patch_px).astype(np.int64)
    to_row = np.floor(row + 0.5 + moved[..., 1] / grid.patch_px).astype(np.int64)
    inside = (to_col >= 0) & (to_col < grid.cols) & (to_row >= 0) & (to_row < grid.rows)
    return np.where(inside, to_row * grid.cols + to_col, -1)


def mask_motion(visible: Visible, flow: Flow, grid: TokenGrid) -> MaskMotion:
    """Count the visible tokens of a clip that are kept along its flow.

    Args:
        visible: (N,).
        flow: from each slot's first frame to the next one's.
        grid: the token grid.
    """
    seen = visible.reshape(grid.slots, grid.places)
    moved = patch_flow(flow, grid)
    to = landings(moved, grid)
    counted = seen[:-1] & (to >= 0)
    kept = counted & np.take_along_axis(seen[1:], np.maximum(to, 0), 1)
    moving = counted & (np.hypot(moved[..., 0], moved[..., 1]) >= MOVES * grid.patch_px)
    return MaskMotion(
        int(counted.sum()),
        int(kept.sum()),
        int(moving.sum()),
        int((moving & kept).sum()),
        int((moving & seen[1:]).sum()),
        float(seen.mean()),
    )


def strip(frames: Sequence[Image], visible: Visible, flow: Flow, grid: TokenGrid) -> list[Image]:
    """Draw where the visible tokens of each slot land in the next: boxes, green where it sees them, red where not.

    Args:
        frames: (H, W, 3) uint8, the first of each slot.
        visible: (N,).
        flow: as for `mask_motion`.
        grid: the token grid.

    Returns:
        An image for each slot but the first, with what is hidden dimmed.
    """
    seen, moved = visible.reshape(grid.slots, grid.places), patch_flow(flow, grid)
    to, factor = landings(moved, grid), -(-STRIP_PX // grid.height)
    side = grid.patch_px * factor
    images = []
    for slot in range(1, grid.slots):
        cells = seen[slot].reshape(grid.rows, grid.cols).repeat(grid.patch_px, 0).repeat(grid.patch_px, 1)
        dimmed = np.where(cells[..., None], frames[slot], frames[slot] // 4 + 150).astype(np.uint8)
        image = cv2.resize(dimmed, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
        for place in np.flatnonzero(seen[slot - 1] & (to[slot - 1] >= 0)):
            row, col = divmod(int(place), grid.cols)
            dx, dy = (moved[slot - 1, place] * factor).round().astype(int).tolist()
            corner = (col * side + dx, row * side + dy)
            colour = KEPT if seen[slot, to[slot - 1, place]] else LOST
            inset = max(1, side // 10)
            first = (corner[0] + inset, corner[1] + inset)
            cv2.rectangle(image, first, (corner[0] + side - inset, corner[1] + side - inset), colour, max(1, factor))
        images.append(np.asarray(image, np.uint8))
    return images
