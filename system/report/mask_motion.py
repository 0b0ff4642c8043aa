"""How masks move: whether what the encoder sees at one time is what it sees half a clip later.

The definition: each visible token of slot s is carried along the flow to slot s + L, L being half of the clip's slots.
Its centre goes from slot to slot by the mean flow of the patch around it. The token is *kept* if the one on which it
lands is visible. Those that leave the frame do not count. A mask that ignores motion keeps what stands still and, of
what moves, about as many as chance says; a mask that follows it keeps both.

S slots, F places per slot, N = S x F tokens; flow is (S - 1, H, W, 2) float32 px, x then y, from each slot's first
frame to the next one's.
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
Values = NDArray[np.float64]

# A token moves if it is carried this share of a patch or more.
MOVES = 0.5
# Fewer tokens that move say nothing about a mask.
FEW = 10
# Side of a frame of the strip, px, at least: boxes on a smaller one would run into each other.
STRIP_PX = 160
KEPT, LOST = (46, 160, 105), (214, 72, 60)


@dataclass(frozen=True, slots=True)
class MaskMotion:
    """How many visible tokens are kept.

    Attributes:
        tokens: visible tokens of the slots with one half a clip later, that stay in the frame.
        kept: of these.
        moving: of these tokens, the ones that move.
        moving_kept: of those, the ones that are kept.
        moving_in_place: of those, the ones whose own place is visible then.
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
        line = f"{_share(self.kept, self.tokens)} of the visible tokens are seen again half a clip later"
        if self.moving >= FEW:
            line += (
                f"; of the {self.moving} that move, {_share(self.moving_kept, self.moving)} (the same place is visible"
                f" for {_share(self.moving_in_place, self.moving)} of them)"
            )
        else:
            line += f"; {self.moving or 'none'} of them move{'' if self.moving > 1 else 's'}, too few to judge by"
        return f"{line}; by chance it would be {self.chance:.0%}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "none"


def lag(grid: TokenGrid) -> int:
    """Return L, over how many slots tokens are carried; 0 of a clip of one slot."""
    return grid.slots // 2


def carried(flow: Flow, grid: TokenGrid) -> Values:
    """Return where the centre of each place is half a clip later: (S - L, F, 2) px, x then y."""
    row, col = np.divmod(np.arange(grid.places), grid.cols)
    centres = np.stack([col, row], -1) * grid.patch_px + grid.patch_px / 2
    side = (grid.patch_px, grid.patch_px)
    # Of each px the mean flow of the patch around it.
    around = [cv2.blur(each, side, borderType=cv2.BORDER_REPLICATE) for each in flow]
    found = np.empty((grid.slots - lag(grid), grid.places, 2))
    for slot in range(len(found)):
        at = centres.copy()
        for each in around[slot : slot + lag(grid)]:
            x, y = (np.clip(at[:, axis].astype(int), 0, each.shape[1 - axis] - 1) for axis in (0, 1))
            at += each[y, x]
        found[slot] = at
    return found


def landings(at: Values, grid: TokenGrid) -> NDArray[np.int64]:
    """Return in which place px (..., 2) lie: -1 outside of the frame."""
    to = np.floor(at / grid.patch_px).astype(np.int64)
    inside = (to >= 0).all(-1) & (to[..., 0] < grid.cols) & (to[..., 1] < grid.rows)
    return np.where(inside, to[..., 1] * grid.cols + to[..., 0], -1)


def mask_motion(visible: Visible, flow: Flow, grid: TokenGrid) -> MaskMotion:
    """Count the visible tokens of a clip that are kept along its flow.

    Args:
        visible: (N,).
        flow: from each slot's first frame to the next one's.
        grid: the token grid.
    """
    seen, later = visible.reshape(grid.slots, grid.places), lag(grid)
    at = carried(flow, grid)
    to, moved = landings(at, grid), at - carried(np.zeros_like(flow), grid)
    counted = seen[: len(at)] & (to >= 0) & (later > 0)
    kept = counted & np.take_along_axis(seen[later:], np.maximum(to, 0), 1)
    moving = counted & (np.hypot(moved[..., 0], moved[..., 1]) >= MOVES * grid.patch_px)
    return MaskMotion(
        int(counted.sum()),
        int(kept.sum()),
        int(moving.sum()),
        int((moving & kept).sum()),
        int((moving & seen[later:]).sum()),
        float(seen.mean()),
    )


def strip(frames: Sequence[Image], visible: Visible, flow: Flow, grid: TokenGrid) -> list[Image]:
    """Draw where the visible tokens of half a clip before are: boxes, green where they are seen, red where not.

    Args:
        frames: (H, W, 3) uint8, the first of each slot.
        visible: (N,).
        flow: as for `mask_motion`.
        grid: the token grid.

    Returns:
        An image for each slot that has one half a clip before, with what is hidden dimmed.
    """
    seen, later, at = visible.reshape(grid.slots, grid.places), lag(grid), carried(flow, grid)
    to, factor = landings(at, grid), -(-STRIP_PX // grid.height)
    half = max(1, int(0.4 * grid.patch_px * factor))
    images = []
    for slot in range(later, grid.slots):
        cells = seen[slot].reshape(grid.rows, grid.cols).repeat(grid.patch_px, 0).repeat(grid.patch_px, 1)
        dimmed = np.where(cells[..., None], frames[slot], frames[slot] // 4 + 150).astype(np.uint8)
        image = cv2.resize(dimmed, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
        for place in np.flatnonzero(seen[slot - later] & (to[slot - later] >= 0)):
            x, y = (at[slot - later, place] * factor).round().astype(int).tolist()
            colour = KEPT if seen[slot, to[slot - later, place]] else LOST
            cv2.rectangle(image, (x - half, y - half), (x + half, y + half), colour, max(1, factor))
        images.append(np.asarray(image, np.uint8))
    return images
