"""MGMAE: the mask moves with the scene (Huang et al., ICCV 2023, arXiv:2308.10794).

Places are drawn in a base frame, a map of them is carried along the optical flow to all other frames, and in every slot
the tokens with the most of the map are shown. So an object's visible part stays visible, a hidden one stays hidden, and
a hidden token's content cannot be copied from another slot.

What the released code does differently is a switch: `direction: release` looks the flow up against the motion in the
frames before the base frame, scales flow by W/2, finds holes by "exactly 0" and fills them at every step; and
`visible_count: release` shows int(places * (1 - ratio)) tokens of a slot, 19 instead of 20 of 196.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from system.config import ModelSection
from system.core.clip import TokenGrid, slot_visible
from system.core.pairs import FramePair, pairs_toward
from system.lazy import lazy
from system.methods.base import Method
from system.methods.videomae import (
    PixelOptions,
    check_decoder_mask,
    decoded,
    num_decoded,
    pixel_loss,
    pixel_model,
    pixel_target,
)
from system.models.sizes import pretraining_flops

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from system.core import cells, masks, warp
    from system.core.masks import Noise, Visible
else:
    torch, masks, warp = lazy("torch"), lazy("system.core.masks"), lazy("system.core.warp")
    cells = lazy("system.core.cells")


class CarriedMaskOptions(PixelOptions):
    """Switches of a mask that is carried along motion; the defaults are those of MGMAE's models."""

    base_frame: Literal["first", "middle"] = Field(
        "middle", description="The frame that the mask is drawn in, and carried from to all others."
    )
    initial_map: Literal["gaussian", "places"] = Field(
        "gaussian", description="What is carried: a bump about each drawn place, or its square."
    )
    hole_filling: Literal["base", "none"] = Field(
        "base", description="What stands where nothing was carried to: the base frame's map, or nothing."
    )
    top: Literal["slot", "clip"] = Field(
        "slot", description="Choose the visible tokens of each slot on its own, or of the whole clip at once."
    )
    carry: Literal["cells", "pixels"] = Field(
        "cells", description="Where flow comes on cells (codec), carry the map on them; pixels: bring it to px first."
    )


class MGMAEOptions(CarriedMaskOptions):
    """The same, with the released code's direction and count as switches; the default puts the direction right."""

    name: Literal["mgmae"] = "mgmae"
    direction: Literal["corrected", "release"] = Field(
        "corrected", description="release: flow before the base frame is used the wrong way round, as in released code."
    )
    visible_count: Literal["shared", "release"] = Field(
        "shared", description="Tokens of a slot that are visible: as for all methods (20 of 196), or cut off (19)."
    )


def _like_release(options: CarriedMaskOptions) -> tuple[bool, bool]:
    """Say whether direction and count are those of the released code."""
    if not isinstance(options, MGMAEOptions):
        return False, False
    return options.direction == "release", options.visible_count == "release"


def visible_places(options: CarriedMaskOptions, grid: TokenGrid) -> int:
    """Count the visible tokens of a slot, by the rule of all methods or by the release's."""
    if _like_release(options)[1]:
        # In floating point and cut, as the released code counts: 196 * (1 - 0.9) = 19.59... -> 19.
        return int(grid.places * (1 - options.mask_ratio))
    return slot_visible(grid.places, options.mask_ratio)


def num_visible(options: CarriedMaskOptions, grid: TokenGrid) -> int:
    """Count the visible tokens of a clip."""
    return grid.slots * visible_places(options, grid)


def base_index(options: CarriedMaskOptions, num_frames: int) -> int:
    """Return the frame in which the places are drawn."""
    return 0 if options.base_frame == "first" else num_frames // 2


def carried_pairs(options: CarriedMaskOptions, num_frames: int) -> tuple[FramePair, ...]:
    """Name the flows of section 3.2: each frame toward its neighbour nearer to the base frame.

    The released code swaps the frames only after the base frame, so before it uses the flow of the opposite direction.
    """
    base = base_index(options, num_frames)
    wanted = pairs_toward(base, num_frames)
    if _like_release(options)[0]:
        return tuple(FramePair(pair.end, pair.start) if pair.start < base else pair for pair in wanted)
    return wanted


def carried_mask(noise: Noise, flow: Tensor | None, grid: TokenGrid, options: CarriedMaskOptions) -> Visible:
    """Draw places in the base frame, carry their map along the flow, and show the top tokens of every slot."""
    assert flow is not None, "a method that names frame pairs is given their flow"
    drawn = warp.drawn_places(noise, slot_visible(grid.places, options.mask_ratio))
    if _on_cells(flow, grid, options):
        return _cell_mask(drawn, flow, grid, options)
    flow = warp.on_pixels(flow, grid.height, grid.width)
    make = warp.gaussian_map if options.initial_map == "gaussian" else warp.place_map
    initial = make(torch.from_numpy(drawn).to(flow.device), grid)
    carry = warp.carry_as_released if _like_release(options)[0] else warp.carry
    base = base_index(options, grid.num_frames)
    maps = carry(initial, flow.float(), base, fill_holes=options.hole_filling == "base")
    return _shown(warp.cube_scores(maps, grid).cpu().numpy(), grid, options)


def _on_cells(flow: Tensor, grid: TokenGrid, options: CarriedMaskOptions) -> bool:
    """Say whether the map is carried on the cells that flow comes on."""
    coarse = flow.shape[2] < grid.height and cells.fits(flow.shape[2], grid)
    plain = options.initial_map == "gaussian" and not _like_release(options)[0]
    return coarse and plain and options.carry == "cells"


def _cell_mask(drawn: Visible, flow: Tensor, grid: TokenGrid, options: CarriedMaskOptions) -> Visible:
    base, fill = base_index(options, grid.num_frames), options.hole_filling == "base"
    scores = cells.carried_scores(drawn, flow.float().cpu().numpy(), base, grid, fill_holes=fill)
    return _shown(scores, grid, options)


def _shown(scores: NDArray[np.float32], grid: TokenGrid, options: CarriedMaskOptions) -> Visible:
    """Show the tokens with the most of the map: (B, S, F) -> (B, N)."""
    return masks.top_visible(scores, visible_places(options, grid), over_clip=options.top == "clip")


def flops(model: ModelSection, grid: TokenGrid, options: CarriedMaskOptions) -> int:
    """Return what the forward pass of one clip costs."""
    return pretraining_flops(model, grid, num_visible(options, grid), num_decoded(options, grid))


MGMAE = Method(
    name="mgmae",
    source="arXiv:2308.10794",
    options=MGMAEOptions,
    check=check_decoder_mask,
    pairs=carried_pairs,
    num_visible=num_visible,
    mask=carried_mask,
    num_decoded=num_decoded,
    decoded=decoded,
    targets={"pixels": pixel_target},
    build=pixel_model,
    loss=pixel_loss,
    flops=flops,
)
