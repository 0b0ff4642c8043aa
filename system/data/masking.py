"""Frames to masks: what the decode stage does for motion from a CPU, and a stage of its own for motion from a network.

V views a slot, T frames, N tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from system.data.clips import ClipMaker
from system.data.columns import Batch, mask_spec
from system.data.scale import Frames
from system.methods.base import Method, MethodOptions
from system.motion.base import MotionSource


class Masker:
    """Draws and, where the method follows motion, flow to `visible`.

    Args:
        method: the method's record.
        options: its section of the recipe.
        source: where motion comes from; None for a method without motion.
    """

    def __init__(self, method: Method, options: MethodOptions, source: MotionSource | None) -> None:
        self._method, self._options, self._source = method, options, source

    def __call__(self, maker: ClipMaker, slot: int, frames: Frames) -> NDArray[np.bool_]:
        """Mask the views of one slot: (V, T, H, W, 3) uint8 -> (V, N) bool."""
        grid = maker.spec.grid
        pairs = self._method.pairs(self._options, grid.num_frames)
        flow = self._source(frames, pairs) if self._source is not None and pairs else None
        return self._method.mask(maker.noise(slot), flow, grid, self._options)

    def of_nothing(self, maker: ClipMaker) -> NDArray[np.bool_]:
        """Return the mask of a row of weight zero: (V, N), as many tokens as any other."""
        grid = maker.spec.grid
        visible = np.zeros((maker.spec.views, grid.tokens), np.bool_)
        visible[:, : self._method.num_visible(self._options, grid)] = True
        return visible


class MaskStage:
    """Frames to masks, for motion that comes from a network on a device.

    Args:
        maker: of the run's clips.
        masker: with its source on the device.
    """

    def __init__(self, maker: ClipMaker, masker: Masker) -> None:
        self.spec = mask_spec(maker.spec.grid)
        self._maker, self._masker = maker, masker

    def __call__(self, batch: Batch) -> Batch:
        """Clips in, the same clips with `visible` out."""
        views = self._maker.spec.views
        slots = len(batch["slot"]) // views
        visible = np.empty((slots, views, self._maker.spec.grid.tokens), np.bool_)
        for place in range(slots):
            rows = slice(place * views, (place + 1) * views)
            skipped = not batch["weight"][place * views]
            visible[place] = (
                self._masker.of_nothing(self._maker)
                if skipped
                else self._masker(self._maker, int(batch["slot"][place * views]), batch["frames"][rows])
            )
        return {**batch, "visible": visible.reshape(slots * views, -1)}
