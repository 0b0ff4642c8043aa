"""Two clips mixed with each other: mixup, and cutmix in height and width, the same rectangle in all frames.

timm's mixing takes the last but one axis of a batch for its height. Of clips (B, 3, T, H, W) its indexing cuts the
axes T and H, and leaves the width whole; so this is ours. Both clips of a pair get the other one's part, by the same
draw. Pixels are uint8 and mixed by whole numbers, so the share of a clip is a multiple of 1/256 in mixup, and of one
pixel in cutmix.

T frames of H x W px.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from system.data.augment import Box
from system.data.scale import Frames

# A pixel's value is mixed of 256 parts.
BITS = 8
PARTS = 1 << BITS
HALF = np.uint16(PARTS // 2)


@dataclass(frozen=True, slots=True)
class Mixing:
    """How often and how clips are mixed; the fields of `LabelledOptions`.

    Attributes:
        mixup: Beta's parameter; 0: none.
        cutmix: Beta's parameter; 0: none.
        mix_share: of pairs that are mixed.
        switch_share: of cutmix among them, where both are on.
    """

    mixup: float
    cutmix: float
    mix_share: float
    switch_share: float

    def __call__(self, one: Frames, other: Frames, generator: np.random.Generator) -> float:
        """Mix two clips (T, H, W, 3), in their places, and return the share of itself that each keeps.

        Args:
            one: of the pair.
            other: of the pair.
            generator: of this pair alone.
        """
        mixes, cuts = (generator.random(2) < (self.mix_share, self.switch_share)).tolist()
        if not mixes or not (self.mixup or self.cutmix):
            return 1.0
        cuts = cuts if self.mixup and self.cutmix else bool(self.cutmix)
        beta = self.cutmix if cuts else self.mixup
        share = float(generator.beta(beta, beta))
        if not cuts:
            return mixup(one, other, share)
        across, down = generator.random(2).tolist()
        return cutmix(one, other, cut_box(share, across, down, one.shape[1], one.shape[2]))


def mixup(one: Frames, other: Frames, share: float) -> float:
    """Average two clips, in their places, each with `share` of itself; return the share that it has, in 256ths."""
    parts = round(share * PARTS)
    if parts < PARTS:
        own, others = np.uint16(parts), np.uint16(PARTS - parts)
        first, second = one.astype(np.uint16), other.astype(np.uint16)
        # At most 255 x 256 + 128, which uint16 holds.
        one[:] = (first * own + second * others + HALF) >> BITS
        other[:] = (second * own + first * others + HALF) >> BITS
    return parts / PARTS


def cut_box(share: float, across: float, down: float, height: int, width: int) -> Box:
    """Return the rectangle of about 1 - `share` of the area round a random centre, cut off at the frame's edges.

    As CutMix's authors (arXiv:1905.04899) and timm: sides of sqrt(1 - share), and the centre anywhere in the frame.

    Args:
        share: that stays, in [0, 1].
        across: of the centre, uniform in [0, 1).
        down: of the centre, uniform in [0, 1).
        height: px.
        width: px.
    """
    side = math.sqrt(1 - share)
    x, y = int(across * width), int(down * height)
    reach_x, reach_y = int(width * side) // 2, int(height * side) // 2
    left, right = max(x - reach_x, 0), min(x + reach_x, width)
    top, bottom = max(y - reach_y, 0), min(y + reach_y, height)
    return Box(left, top, right - left, bottom - top)


def cutmix(one: Frames, other: Frames, box: Box) -> float:
    """Exchange a rectangle of two clips, in their places; return the share of its area that each keeps."""
    here = (slice(None), slice(box.y, box.y + box.height), slice(box.x, box.x + box.width))
    kept = one[here].copy()
    one[here], other[here] = other[here], kept
    return float(1 - box.width * box.height / (one.shape[1] * one.shape[2]))
