"""Frames to masks: what the decode stage does for motion from a CPU, and a stage of its own for motion from a network.

V views a slot, T frames, R frame pairs, N tokens, Q carried values per token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from system.core.clip import TokenGrid
from system.data.clips import ClipMaker
from system.data.columns import Batch, Column, mask_spec
from system.data.scale import Frames
from system.lazy import lazy
from system.methods.base import Method, MethodOptions
from system.motion.base import MotionSource, flow_on_cells

if TYPE_CHECKING:
    from torch import Tensor

    from system.core import warp
else:
    warp = lazy("system.core.warp")


class Masker:
    """Draws and, where the method follows motion, flow to the columns that a method's masks are.

    Args:
        method: the method's record.
        options: its section of the recipe.
        source: where motion comes from; None for a method without motion.
        from_codec: whether motion comes from the stream, and from `source` only where a stream has none.
    """

    def __init__(
        self, method: Method, options: MethodOptions, source: MotionSource | None, *, from_codec: bool = False
    ) -> None:
        self._method, self._options, self._source = method, options, source
        self._from_codec = from_codec

    def columns(self, grid: TokenGrid) -> dict[str, Column]:
        """Describe the columns: `visible`; `decoded` and `carried` where the method has them; `fallback` for codec."""
        columns = {"visible": Column("bool", (grid.tokens,))}
        if self._method.num_decoded(self._options, grid) is not None:
            columns["decoded"] = Column("bool", (grid.tokens,))
        carried = self._method.num_carried(self._options, grid)
        if carried:
            columns["carried"] = Column("float16", (grid.tokens, carried))
        if self._from_codec:
            columns["fallback"] = Column("bool")
        return columns

    def __call__(
        self,
        maker: ClipMaker,
        slot: int,
        frames: Frames,
        coded_flow: NDArray[np.int16] | None = None,
        flow: Tensor | None = None,
    ) -> Batch:
        """Mask the views of one slot.

        Args:
            maker: of the run's clips.
            slot: whose draws are taken.
            frames: (V, T, H, W, 3) uint8.
            coded_flow: (V, R, cells, cells, 2) steps of 1/`FLOW_STEPS` px, what came with the frames of the stream's
                motion vectors, if anything did (`Answer.flow`).
            flow: (V, R, H, W, 2) px, if it is known already.

        Returns:
            A value of each column for each of V.
        """
        grid, options, method = maker.spec.grid, self._options, self._method
        if coded_flow is not None:
            flow = flow_on_cells(coded_flow)
        elif flow is None:
            flow = self.flow(frames)
        made: Batch = {"visible": method.mask(maker.noise(slot), flow, grid, options)}
        if method.num_decoded(options, grid) is not None:
            made["decoded"] = method.decoded(maker.phases(slot), grid, options)
        if method.num_carried(options, grid):
            assert flow is not None, "a method that carries flow names frame pairs"
            made["carried"] = (
                method.carry(warp.on_pixels(flow, grid.height, grid.width), grid, options)
                .cpu()
                .numpy()
                .astype(np.float16)
            )
        if self._from_codec:
            made["fallback"] = np.full(len(frames), coded_flow is None)
        return made

    def flow(self, frames: Frames) -> Tensor | None:
        """Return the flow of any number of clips, in one call of the source: (B, R, H, W, 2) px; None for no motion."""
        pairs = self._method.pairs(self._options, frames.shape[1])
        return self._source(frames, pairs) if self._source is not None and pairs else None

    def of_nothing(self, maker: ClipMaker) -> Batch:
        """Return the masks of rows of weight zero, of V views: as many tokens as any other."""
        grid, views = maker.spec.grid, maker.spec.views
        made = {name: np.zeros((views, *col.shape), col.dtype) for name, col in self.columns(grid).items()}
        made["visible"][:, : self._method.num_visible(self._options, grid)] = True
        if "decoded" in made:
            made["decoded"][:, : self._method.num_decoded(self._options, grid)] = True
        return made


class MaskStage:
    """Frames to masks, for motion that comes from a network on a device.

    Args:
        maker: of the run's clips.
        masker: with its source on the device.
    """

    def __init__(self, maker: ClipMaker, masker: Masker) -> None:
        self._columns = masker.columns(maker.spec.grid)
        self.spec = mask_spec(maker.spec.grid, len(maker.spec.extra), self._columns)
        self._maker, self._masker = maker, masker

    def __call__(self, batch: Batch) -> Batch:
        """Clips in, the same clips with their masks out."""
        views = self._maker.spec.views
        out = {name: np.empty((len(batch["slot"]), *col.shape), col.dtype) for name, col in self._columns.items()}
        real = batch["weight"] > 0
        flow = self._masker.flow(batch["frames"][real]) if real.any() else None
        done = 0
        for first in range(0, len(batch["slot"]), views):
            rows = slice(first, first + views)
            if real[first]:
                known = flow[done : done + views] if flow is not None else None
                made = self._masker(self._maker, int(batch["slot"][first]), batch["frames"][rows], flow=known)
                done += views
            else:
                made = self._masker.of_nothing(self._maker)
            for name, values in made.items():
                out[name][rows] = values
        return {**batch, **out}
