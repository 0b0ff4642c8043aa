"""VideoMAE: the same places are hidden in every slot (Tong et al., NeurIPS 2022, arXiv:2203.12602).

The base of all the others: their model, target and loss are these unless their own file says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from system.config import ModelSection, Ratio
from system.core.clip import TokenGrid
from system.lazy import lazy
from system.methods.base import Method, MethodOptions, no_pairs
from system.models.sizes import shapes

if TYPE_CHECKING:
    from torch import Tensor

    from system.core import losses, masks, targets
    from system.core.masks import Noise, Visible
    from system.models import decoders
else:
    losses, masks, targets = lazy("system.core.losses"), lazy("system.core.masks"), lazy("system.core.targets")
    decoders = lazy("system.models.decoders")


class PixelOptions(MethodOptions):
    """What every method with VideoMAE's pixel target shares."""

    mask_ratio: Ratio = 0.9
    normalize_target: bool = True


class VideoMAEOptions(PixelOptions):
    """`mask: tube` hides the same places in every slot, `random` draws them anew for each slot."""

    name: Literal["videomae"] = "videomae"
    mask: Literal["tube", "random"] = "tube"


def num_visible(options: VideoMAEOptions, grid: TokenGrid) -> int:
    """Count the visible tokens of a clip: 160 of 1,568 at a ratio of 0.9."""
    return grid.slots * masks.num_visible(grid.places, options.mask_ratio)


def mask(noise: Noise, _flow: Tensor | None, grid: TokenGrid, options: VideoMAEOptions) -> Visible:
    """Hide tubes, or places drawn anew for each slot."""
    make = masks.tube_visible if options.mask == "tube" else masks.random_visible
    return make(noise, grid, options.mask_ratio)


def pixel_target(frames: Tensor, grid: TokenGrid, options: PixelOptions) -> Tensor:
    """Return the pixels of every token, normalised per token and colour."""
    return targets.normalized_pixels(frames, grid) if options.normalize_target else targets.pixels(frames, grid)


def pixel_model(model: ModelSection, grid: TokenGrid, _options: MethodOptions) -> decoders.PixelModel:
    """Build the encoder and the pixel decoder."""
    encoder, decoder = shapes(model)
    return decoders.PixelModel(grid, encoder, decoder)


def pixel_loss(
    predicted: Mapping[str, Tensor], wanted: Mapping[str, Tensor], _options: MethodOptions
) -> dict[str, Tensor]:
    """Return the mean squared error over the hidden tokens."""
    return {"pixels": losses.mean_squared(predicted["pixels"], wanted["pixels"])}


VIDEOMAE = Method(
    name="videomae",
    source="arXiv:2203.12602",
    options=VideoMAEOptions,
    needs_motion=False,
    pairs=no_pairs,
    num_visible=num_visible,
    mask=mask,
    targets={"pixels": pixel_target},
    build=pixel_model,
    loss=pixel_loss,
)
