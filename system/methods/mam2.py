"""MAM2-style pre-training: codes for appearance, differences for motion (Song et al., arXiv:2210.05234).

An encoder sees the visible tokens, a regressor predicts the latents of the hidden ones, and two decoders read from
those latents the codes of a frozen tokenizer and how the frames change. Only the paper's abstract is public and no code
ever was; what it leaves open follows CAE or is an option, and docs/methods/mam2.md says which is which.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from system.config import ModelSection
from system.core.clip import TokenGrid
from system.core.pairs import FramePair
from system.errors import WeightsError
from system.lazy import lazy
from system.methods.base import Clips, Drawing, MaskedOptions, Method, Networks, ToFit
from system.methods.videomae import mask, num_visible
from system.models.sizes import regressor_model_flops, shapes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from system.core import codes, losses, targets
    from system.models import regressor, tokenizer
else:
    torch, codes = lazy("torch"), lazy("system.core.codes")
    losses, targets = lazy("system.core.losses"), lazy("system.core.targets")
    regressor, tokenizer = lazy("system.models.regressor"), lazy("system.models.tokenizer")

# What `tokenizer: auto` is called in the run's folder.
FITTED = "tokenizer.safetensors"


class MAM2Options(MaskedOptions):
    """What the abstract leaves open, each a switch."""

    name: Literal["mam2"] = "mam2"
    mask: Literal["tube", "random"] = Field("tube", description="random: places drawn anew for each slot.")
    tokenizer: str = Field("auto", description="URI of a tokenizer; auto: one is fitted on the run's own videos first.")
    codes: int = Field(512, ge=2, description="Codes of the tokenizer.")
    code_frames: Literal["first", "both"] = Field(
        "first", description="Which frames of a tubelet have their codes told."
    )
    regressor_depth: int = Field(4, ge=1, description="Blocks between encoder and decoders, as in CAE.")
    regressor_sees: Literal["all", "visible"] = Field("all", description="all: its own latents too, as in CAE.")
    decoders_see: Literal["predicted", "all"] = Field("predicted", description="all: the visible latents too.")
    motion_target: Literal["rgb_difference", "flow", "hog"] = Field(
        "rgb_difference", description="What the second decoder predicts."
    )
    normalize_target: bool = Field(True, description="Normalise the RGB difference per token and colour.")
    motion_weight: float = Field(1.0, gt=0, description="Weight of that loss beside the codes'.")
    alignment_weight: float = Field(0.0, ge=0, description="Of regressed to encoded latents; CAE: 2. Costs an encoder.")


def check(options: MAM2Options, grid: TokenGrid, _model: ModelSection) -> None:
    """Refuse tubelets that hold no change.

    Raises:
        ValueError: if a tubelet is one frame.
    """
    if grid.tubelet_frames < 2:
        raise ValueError("method.name=mam2 needs model.tubelet_frames of at least 2, got 1; use 2")


def pairs(options: MAM2Options, num_frames: int) -> tuple[FramePair, ...]:
    """Name the flow from each frame to the next one where flow is the target.

    What lies between two slots is not used; the slots are not known here.
    """
    if options.motion_target != "flow":
        return ()
    return tuple(FramePair(frame, frame + 1) for frame in range(num_frames - 1))


def num_carried(options: MAM2Options, _grid: TokenGrid) -> int:
    """Count the values of pooled flow that a token has."""
    return 2 * targets.FLOW_CELLS**2 if options.motion_target == "flow" else 0


def carry(flow: Tensor, grid: TokenGrid, _options: MAM2Options) -> Tensor:
    """Add up the flow inside of each slot, and average it over cells of a patch: (B, T - 1, H, W, 2) -> (B, N, 32)."""
    step = grid.tubelet_frames
    inside = torch.stack([flow[:, first : first + step - 1].sum(1) for first in range(0, grid.num_frames, step)], 1)
    return targets.pooled_flow(inside, grid)


def to_fit(options: MAM2Options, folder: str) -> ToFit | None:
    """Name the tokenizer that has to be fitted on the run's own videos before training."""
    return ToFit(f"{folder.rstrip('/')}/{FITTED}", options.codes) if options.tokenizer == "auto" else None


def frozen(options: MAM2Options, _grid: TokenGrid, folder: str) -> Networks:
    """Load the tokenizer.

    Raises:
        WeightsError: if it is missing, is none, or has another number of codes.
    """
    own = to_fit(options, folder)
    uri = own.uri if own else options.tokenizer
    coder = tokenizer.load_tokenizer(uri)
    if coder.num_codes != options.codes:
        raise WeightsError(
            f"method.tokenizer={uri} has {coder.num_codes} codes, the recipe says method.codes={options.codes}; set"
            f" method.codes={coder.num_codes}"
        )
    return {"tokenizer": coder}


def _tokenizer(clips: Clips) -> tokenizer.Tokenizer:
    coder = clips.frozen["tokenizer"]
    assert isinstance(coder, tokenizer.Tokenizer)
    return coder


def code_target(clips: Clips, grid: TokenGrid, options: MAM2Options) -> Tensor:
    """Return each token's codes: (B, N, 1) int64, or (B, N, tubelet frames) for those of every frame."""
    step = 1 if options.code_frames == "both" else grid.tubelet_frames
    frames = clips.frames[:, :, ::step]  # (B, 3, S * n, H, W)
    images = frames.transpose(1, 2).flatten(0, 1)
    labels = _tokenizer(clips).codes(images, grid.rows, grid.cols).reshape(len(frames), grid.slots, -1, grid.places)
    return labels.transpose(2, 3).reshape(len(frames), grid.tokens, -1)


def motion_target(clips: Clips, grid: TokenGrid, options: MAM2Options) -> Tensor:
    """Return what changes inside of each tubelet: (B, N, values)."""
    if options.motion_target == "flow":
        assert clips.carried is not None
        return clips.carried
    change = targets.slot_differences(clips.frames, grid)
    if options.motion_target == "hog":
        return targets.hog(change, grid)
    patches = targets.patchify(change, targets.flat_grid(grid))
    return targets.normalized(patches) if options.normalize_target else patches.flatten(2)


def motion_values(grid: TokenGrid, options: MAM2Options) -> int:
    """Count the numbers of a token's motion target: 768 for an RGB difference of 16 x 16 px."""
    if options.motion_target == "flow":
        return 2 * targets.FLOW_CELLS**2
    return targets.HOG_BINS * targets.HOG_CELLS**2 if options.motion_target == "hog" else 3 * grid.patch_px**2


def _values(grid: TokenGrid, options: MAM2Options) -> dict[str, int]:
    frames = grid.tubelet_frames if options.code_frames == "both" else 1
    return {"codes": frames * options.codes, "motion": motion_values(grid, options)}


def build(model: ModelSection, grid: TokenGrid, options: MAM2Options) -> regressor.RegressorModel:
    """Build the encoder, the regressor and both decoders."""
    encoder, decoder = shapes(model)
    return regressor.RegressorModel(
        grid,
        encoder,
        decoder,
        regressor_depth=options.regressor_depth,
        values=_values(grid, options),
        visible_only=options.regressor_sees == "visible",
        decode_all=options.decoders_see == "all",
        aligned=options.alignment_weight > 0,
    )


def loss(
    predicted: Mapping[str, Tensor], wanted: Mapping[str, Tensor], _counted: Tensor | None, options: MAM2Options
) -> dict[str, Tensor]:
    """Return cross-entropy of the codes, nats, squared error of the motion, and of the latents where wanted."""
    motion = losses.mean_squared(predicted["motion"], wanted["motion"])
    parts = {
        "codes": losses.mean_cross_entropy(predicted["codes"], wanted["codes"], options.codes),
        "motion": options.motion_weight * motion,
    }
    if options.alignment_weight:
        aligned = losses.mean_squared(predicted["regressed"], predicted["encoded"])
        parts["alignment"] = options.alignment_weight * aligned
    return parts


def count(wanted: Mapping[str, Tensor], options: MAM2Options) -> dict[str, Tensor]:
    """Count how often each code is a label: a tokenizer that has collapsed has a perplexity near 1."""
    return {"codes": codes.code_histogram(wanted["codes"], options.codes)}


def draw_motion(values: Tensor, _clips: Clips, grid: TokenGrid, _options: MAM2Options) -> Tensor:
    """Show the RGB difference as frames."""
    return targets.shown_as_frames(values, grid, 1)


def draw_codes(values: Tensor, clips: Clips, grid: TokenGrid, options: MAM2Options) -> Tensor:
    """Show what the tokenizer's decoder makes of codes, or their numbers as greys: (B, N, n) -> (B, 3, T, H, W)."""
    count = values.shape[-1]
    labels = values.reshape(len(values), grid.slots, grid.rows, grid.cols, count).permute(0, 1, 4, 2, 3)
    labels, coder = labels.flatten(0, 2), _tokenizer(clips)
    greys = (labels / options.codes)[:, None].expand(-1, 3, -1, -1)
    images = greys if coder.decoder is None else coder.pixels(labels)
    images = torch.nn.functional.interpolate(images, (grid.height, grid.width), mode="bilinear")
    frames = images.reshape(len(values), grid.slots * count, 3, grid.height, grid.width).transpose(1, 2)
    return frames.repeat_interleave(grid.tubelet_frames // count, 2)


def read_codes(predicted: Tensor, options: MAM2Options) -> Tensor:
    """Return the likeliest codes: (B, K, n * codes) -> (B, K, n)."""
    return predicted.reshape(*predicted.shape[:-1], -1, options.codes).argmax(-1)


def drawn(options: MAM2Options) -> dict[str, Drawing]:
    """Show the codes, and the motion where it is an image."""
    motion = {"motion": Drawing(draw_motion)} if options.motion_target == "rgb_difference" else {}
    return {"codes": Drawing(draw_codes, read_codes), **motion}


def flops(model: ModelSection, grid: TokenGrid, options: MAM2Options) -> int:
    """Return what the forward pass of one clip costs, an alignment loss's not counted: it wants no gradient.

    The tokenizer's is in docs/methods/tokenizers.md.
    """
    return regressor_model_flops(
        model,
        grid,
        num_visible(options, grid),
        list(_values(grid, options).values()),
        regressor_depth=options.regressor_depth,
        visible_only=options.regressor_sees == "visible",
        decode_all=options.decoders_see == "all",
    )


MAM2 = Method(
    name="mam2",
    source="arXiv:2210.05234",
    options=MAM2Options,
    check=check,
    pairs=pairs,
    num_visible=num_visible,
    mask=mask,
    num_carried=num_carried,
    carry=carry,
    frozen=frozen,
    to_fit=to_fit,
    files=("tokenizer",),
    targets={"codes": code_target, "motion": motion_target},
    build=build,
    loss=loss,
    count=count,
    drawn=drawn,
    flops=flops,
)
