"""MotionMAE: predicts pixels and how they change (Yang et al., BMVC 2024, arXiv:2210.04154).

Of each hidden token the decoder predicts the pixels, as VideoMAE does, and the difference of neighbouring frames. No
code was ever published; what the paper leaves open is an option here, and docs/methods/motionmae.md says what is known
and what is our choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from system.config import ModelSection
from system.core.clip import TokenGrid
from system.lazy import lazy
from system.methods.base import Clips, Drawing, Method
from system.methods.videomae import (
    PixelOptions,
    check_decoder_mask,
    decoded,
    mask,
    num_decoded,
    num_visible,
    pixel_target,
)
from system.models.sizes import motion_head_flops, pretraining_flops, shapes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from system.core import losses, targets
    from system.models import decoders
else:
    torch = lazy("torch")
    losses, targets = lazy("system.core.losses"), lazy("system.core.targets")
    decoders = lazy("system.models.decoders")

# Shares of red, green and blue in grey (ITU-R BT.601).
GREY = (0.299, 0.587, 0.114)


class MotionMAEOptions(PixelOptions):
    """What the paper leaves open, each a switch."""

    name: Literal["motionmae"] = "motionmae"
    mask: Literal["tube", "random"] = Field("tube", description="random: places drawn anew for each slot.")
    decoder: Literal["shared", "independent"] = Field("shared", description="One decoder with two heads, or two.")
    difference: Literal["absolute", "signed"] = Field("absolute", description="Of two frames' pixels in [0, 1].")
    neighbour: Literal["sampled", "raw"] = Field(
        "sampled",
        description="The frame that a frame is compared with: the next sampled one, or the next of the video.",
    )
    last_frame: Literal["extra", "repeat"] = Field(
        "extra", description="sampled: decode one frame more, or let the last frame be its own neighbour."
    )
    differences: Literal["frame", "tubelet"] = Field(
        "frame", description="A difference for each frame, or one inside of each tubelet."
    )
    colours: Literal["rgb", "grey"] = Field("rgb", description="grey: by ITU-R BT.601's shares.")
    normalize_motion: bool | None = Field(None, description="As normalize_target where nothing is said.")
    motion_weight: float = Field(1.0, gt=0, description="Weight of the differences' loss beside the pixels'.")
    positions: Literal["fixed", "learned"] = Field("fixed", description="VideoMAE's table, or trained codes.")


def check(options: MotionMAEOptions, grid: TokenGrid, model: ModelSection) -> None:
    """Refuse what does not fit the grid.

    Raises:
        ValueError: a decoder mask that decodes unequally much, or tubelets that hold no difference.
    """
    check_decoder_mask(options, grid, model)
    if options.differences == "tubelet" and grid.tubelet_frames < 2:
        raise ValueError(
            "method.differences=tubelet needs model.tubelet_frames of at least 2, got 1; use method.differences=frame"
        )


def extra_frames(options: MotionMAEOptions, num_frames: int, stride: int) -> tuple[int, ...]:
    """Name the frames that the sampled ones are compared with, where they are none of them."""
    if options.differences == "tubelet":
        return ()
    if options.neighbour == "raw":
        return tuple(frame * stride + 1 for frame in range(num_frames)) if stride > 1 else (num_frames,)
    return (num_frames * stride,) if options.last_frame == "extra" else ()


def _differences(clips: Clips, grid: TokenGrid, options: MotionMAEOptions) -> Tensor:
    """Return neighbour minus frame: (B, 3, T, H, W), or (B, 3, S, H, W) for one inside of each tubelet."""
    frames, extra = clips.frames, clips.extra
    if options.differences == "tubelet":
        return targets.slot_differences(frames, grid)
    if extra is not None and extra.shape[2] == frames.shape[2]:
        return extra - frames
    last = frames[:, :, -1:] if extra is None else extra
    return torch.cat([frames[:, :, 1:], last], 2) - frames


def motion_target(clips: Clips, grid: TokenGrid, options: MotionMAEOptions) -> Tensor:
    """Return the temporal differences of every token: (B, N, values)."""
    change = _differences(clips, grid, options)
    if options.colours == "grey":
        change = torch.einsum("bcthw,c->bthw", change, change.new_tensor(GREY))[:, None]
    if options.difference == "absolute":
        change = change.abs()
    cut = targets.flat_grid(grid) if options.differences == "tubelet" else grid
    patches = targets.patchify(change, cut)
    normalize = options.normalize_target if options.normalize_motion is None else options.normalize_motion
    return targets.normalized(patches) if normalize else patches.flatten(2)


def motion_values(grid: TokenGrid, options: MotionMAEOptions) -> int:
    """Count the numbers of a token's differences: 1,536 for 2 x 16 x 16 RGB pixels."""
    images = 1 if options.differences == "tubelet" else grid.tubelet_frames
    return images * grid.patch_px**2 * (1 if options.colours == "grey" else 3)


def build(model: ModelSection, grid: TokenGrid, options: MotionMAEOptions) -> decoders.PixelMotionModel:
    """Build the encoder, and one decoder with two heads or two decoders."""
    encoder, decoder = shapes(model)
    return decoders.PixelMotionModel(
        grid,
        encoder,
        decoder,
        motion_values(grid, options),
        independent=options.decoder == "independent",
        learned_positions=options.positions == "learned",
    )


def loss(
    predicted: Mapping[str, Tensor], wanted: Mapping[str, Tensor], counted: Tensor | None, options: MotionMAEOptions
) -> dict[str, Tensor]:
    """Return the mean squared errors of pixels and of differences, 1:1 unless `motion_weight` says otherwise."""
    motion = losses.mean_squared(predicted["motion"], wanted["motion"], counted)
    pixels = losses.mean_squared(predicted["pixels"], wanted["pixels"], counted)
    return {"pixels": pixels, "motion": options.motion_weight * motion}


def draw_motion(values: Tensor, _clips: Clips, grid: TokenGrid, options: MotionMAEOptions) -> Tensor:
    """Show differences as frames."""
    return targets.shown_as_frames(values, grid, 1 if options.differences == "tubelet" else grid.tubelet_frames)


def drawn(_options: MotionMAEOptions) -> dict[str, Drawing]:
    """Show the differences beside the pixels."""
    return {"motion": Drawing(draw_motion)}


def flops(model: ModelSection, grid: TokenGrid, options: MotionMAEOptions) -> int:
    """Return what the forward pass of one clip costs."""
    visible, decoded_tokens = num_visible(options, grid), num_decoded(options, grid)
    predicted = grid.tokens - visible if decoded_tokens is None else decoded_tokens
    second = options.decoder == "independent"
    return pretraining_flops(model, grid, visible, predicted) + motion_head_flops(
        model, visible, predicted, motion_values(grid, options), independent=second
    )


MOTIONMAE = Method(
    name="motionmae",
    source="arXiv:2210.04154",
    options=MotionMAEOptions,
    check=check,
    extra_frames=extra_frames,
    num_visible=num_visible,
    mask=mask,
    num_decoded=num_decoded,
    decoded=decoded,
    targets={"pixels": pixel_target, "motion": motion_target},
    build=build,
    loss=loss,
    drawn=drawn,
    flops=flops,
)
