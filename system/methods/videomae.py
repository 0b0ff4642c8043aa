"""VideoMAE: the same places are hidden in every slot (Tong et al., NeurIPS 2022, arXiv:2203.12602).

The base of all the others: their model, target and loss are these unless their own file says otherwise. With
`decoder_mask: running_cell` the decoder predicts half of the tokens only (VideoMAE V2, Wang et al., CVPR 2023,
arXiv:2303.16727, section 3.1), which every method with a pixel target offers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import Field

from system.config import ModelSection
from system.core.clip import TokenGrid, slot_visible
from system.lazy import lazy
from system.methods.base import Clips, MaskedOptions, Method, MethodOptions
from system.models.sizes import pretraining_flops, shapes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from system.core import losses, masks, targets
    from system.core.masks import Noise, Visible
    from system.models import decoders
else:
    losses, masks, targets = lazy("system.core.losses"), lazy("system.core.masks"), lazy("system.core.targets")
    decoders = lazy("system.models.decoders")


class PixelOptions(MaskedOptions):
    """What every method with VideoMAE's pixel target shares."""

    normalize_target: bool = Field(
        True, description="Predict each token's pixels less their mean, over their deviation, per colour."
    )
    decoder_mask: Literal["none", "running_cell"] = Field(
        "none", description="running_cell: the decoder predicts half of the tokens (VideoMAE V2)."
    )


class DrawnMask(Protocol):
    """The options of a mask that follows from the draws alone."""

    @property
    def mask_ratio(self) -> float:
        """Share of a slot's places that is hidden."""

    @property
    def mask(self) -> Literal["tube", "random"]:
        """The same places in every slot, or places drawn anew for each."""


class VideoMAEOptions(PixelOptions):
    """`mask: tube` hides the same places in every slot, `random` draws them anew for each slot."""

    name: Literal["videomae"] = "videomae"
    mask: Literal["tube", "random"] = Field("tube", description="random: places drawn anew for each slot.")


def check_decoder_mask(options: PixelOptions, grid: TokenGrid, _model: ModelSection) -> None:
    """Refuse a decoder mask that would decode another number of tokens in each clip.

    Raises:
        ValueError: if neither the places nor the slots come out even.
    """
    if options.decoder_mask == "running_cell" and (grid.rows % 2 or grid.cols % 2) and grid.slots % 4:
        raise ValueError(
            f"method.decoder_mask=running_cell needs an even number of patches a side, or a multiple of 4 slots; got"
            f" {grid.rows} x {grid.cols} patches and {grid.slots} slots; use method.decoder_mask=none"
        )


def num_visible(options: DrawnMask, grid: TokenGrid) -> int:
    """Count the visible tokens of a clip: 160 of 1,568 at a ratio of 0.9."""
    return grid.slots * slot_visible(grid.places, options.mask_ratio)


def mask(noise: Noise, _flow: Tensor | None, grid: TokenGrid, options: DrawnMask) -> Visible:
    """Hide tubes, or places drawn anew for each slot."""
    make = masks.tube_visible if options.mask == "tube" else masks.random_visible
    return make(noise, grid, options.mask_ratio)


def num_decoded(options: PixelOptions, grid: TokenGrid) -> int | None:
    """Count the tokens that the decoder predicts: 784 of 1,568 with running cells; None: all hidden ones."""
    return grid.tokens // 2 if options.decoder_mask == "running_cell" else None


def decoded(phase: NDArray[np.int64], grid: TokenGrid, _options: PixelOptions) -> Visible:
    """Choose the tokens that the decoder predicts, visible ones among them."""
    return masks.running_cell(phase, grid)


def pixel_target(clips: Clips, grid: TokenGrid, options: PixelOptions) -> Tensor:
    """Return the pixels of every token, normalised per token and colour."""
    make = targets.normalized_pixels if options.normalize_target else targets.pixels
    return make(clips.frames, grid)


def pixel_model(model: ModelSection, grid: TokenGrid, _options: MethodOptions) -> decoders.PixelModel:
    """Build the encoder and the pixel decoder."""
    encoder, decoder = shapes(model)
    return decoders.PixelModel(grid, encoder, decoder)


def pixel_loss(
    predicted: Mapping[str, Tensor], wanted: Mapping[str, Tensor], counted: Tensor | None, _options: MethodOptions
) -> dict[str, Tensor]:
    """Return the mean squared error over the hidden tokens."""
    return {"pixels": losses.mean_squared(predicted["pixels"], wanted["pixels"], counted)}


def flops(model: ModelSection, grid: TokenGrid, options: VideoMAEOptions) -> int:
    """Return what the forward pass of one clip costs."""
    return pretraining_flops(model, grid, num_visible(options, grid), num_decoded(options, grid))


VIDEOMAE = Method(
    name="videomae",
    source="arXiv:2203.12602",
    options=VideoMAEOptions,
    check=check_decoder_mask,
    num_visible=num_visible,
    mask=mask,
    num_decoded=num_decoded,
    decoded=decoded,
    targets={"pixels": pixel_target},
    build=pixel_model,
    loss=pixel_loss,
    flops=flops,
)
