"""The method's record: what a pre-training method is, for everything that runs it.

A record and not a base class: a method is a handful of functions, and the trainer is none of its business. Importing
this file imports neither numpy nor torch; the functions of a method import what they need when they are called.

B clips, T sampled frames and E extra ones of H x W px, S slots, F places per slot, N = S x F tokens, V visible and K
predicted ones, P values per token, R frame pairs, Q carried values per token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field

from system.config import ModelSection
from system.core.clip import TokenGrid
from system.core.pairs import FramePair
from system.section import Ratio, Section

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from system.core.masks import Noise, Visible

    Tensors = Mapping[str, Tensor]

Networks = Mapping[str, "nn.Module"]
Pairs = tuple[FramePair, ...]


class MethodOptions(Section):
    """The section `method` of a recipe; every method adds its own fields."""

    name: str


class MaskedOptions(MethodOptions):
    """The section of a method that hides tokens."""

    mask_ratio: Ratio = Field(0.9, description="Share of the tokens of each slot that is hidden.")


@dataclass(frozen=True, slots=True)
class Clips:
    """What targets are made of, on the training device.

    Attributes:
        frames: (B, 3, T, H, W) float in [0, 1], the sampled frames.
        extra: (B, 3, E, H, W) float in [0, 1], the frames of `Method.extra_frames`; None if there are none.
        carried: (B, N, Q) float, what `Method.carry` made of the flow; None if it carries nothing.
        frozen: the networks of `Method.frozen`.
    """

    frames: Tensor
    extra: Tensor | None = None
    carried: Tensor | None = None
    frozen: Networks = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Drawing:
    """How one of a method's targets is shown in the picture of a run.

    Attributes:
        frames: (values (B, N, P), clips, grid, options) -> (B, 3, T, H, W) in [0, 1].
        read: (predicted (B, K, Q), options) -> (B, K, P), a prediction in the form of its target.
    """

    frames: Callable[[Tensor, Clips, TokenGrid, Any], Tensor]
    read: Callable[[Tensor, Any], Tensor] = lambda predicted, _options: predicted


def wants_no_draws(_options: MethodOptions, _model: ModelSection) -> int:
    """Say that nothing of the forward pass is random."""
    return 0


def same_for_all(_name: str, _model: ModelSection, _options: MethodOptions) -> float:
    """Say that every parameter has the same learning rate."""
    return 1.0


def draws_nothing(_options: MethodOptions) -> Mapping[str, Drawing]:
    """Say that nothing but pixels is shown."""
    return {}


def no_pairs(_options: MethodOptions, _num_frames: int) -> Pairs:
    """Say that a method needs no motion."""
    return ()


def no_extra_frames(_options: MethodOptions, _num_frames: int, _stride: int) -> tuple[int, ...]:
    """Say that the sampled frames are enough."""
    return ()


def all_hidden(_options: MethodOptions, _grid: TokenGrid) -> None:
    """Say that every hidden token is predicted."""


def carries_nothing(_options: MethodOptions, _grid: TokenGrid) -> int:
    """Say that no flow reaches the targets."""
    return 0


def nothing_frozen(_options: MethodOptions, _grid: TokenGrid, _folder: str) -> Networks:
    """Say that targets need no network."""
    return {}


class ToFit(NamedTuple):
    """A tokenizer that is fitted on the run's own videos before training: where it will lie, and its codes."""

    uri: str
    num_codes: int


def nothing_to_fit(_options: MethodOptions, _folder: str) -> None:
    """Say that nothing is fitted before training."""


def nothing_to_count(_wanted: Tensors, _options: MethodOptions) -> Tensors:
    """Say that there are no codes to count."""
    return {}


def fits_any(_options: MethodOptions, _grid: TokenGrid, _model: ModelSection) -> None:
    """Say that a method works with every grid."""


def no_mask_of_decoder(_phase: NDArray[np.int64], _grid: TokenGrid, _options: MethodOptions) -> Visible:
    """Refuse to choose tokens for a decoder that predicts all hidden ones."""
    raise ValueError("this method predicts every hidden token")


def no_values_of_flow(_flow: Tensor, _grid: TokenGrid, _options: MethodOptions) -> Tensor:
    """Refuse to reduce flow that no target needs."""
    raise ValueError("this method's targets need no flow")


@dataclass(frozen=True, kw_only=True)
class Method:
    """One pre-training method.

    Attributes:
        name: as in `method.name`.
        source: arXiv id of the paper.
        options: the type of its section of a recipe.
        labelled: whether its videos have labels. Then the model is called with (frames, draws (B, R)), `wanted` of its
            loss is `label`, `other` (B,) int64 and `share` (B,), and there are no other targets.
        motion: what `motion.source: auto` means for it.
        sources: the motion sources that it works with; None: any.
        check: (options, grid, model section) raises a ValueError where they do not fit.
        pairs: (options, T) -> the frame pairs whose flow it wants; none where it needs no motion.
        extra_frames: (options, T, stride) -> offsets from the clip's first frame, in original frames, of frames that
            its targets want beyond the sampled ones.
        num_visible: (options, grid) -> V, visible tokens of every clip.
        mask: (noise (B, S, F), flow (B, R, h, w, 2) px or None, grid, options) -> `visible` (B, N) bool. Flow is on the
            px of the clip, or on h x w larger cells that cover it, if it comes so (`motion.source: codec`).
        num_draws: (options, model section) -> R, uniform numbers of a clip's row that the forward pass takes.
        num_decoded: (options, grid) -> K, predicted tokens of every clip; None: all hidden ones.
        decoded: (phase (B,), grid, options) -> (B, N) bool, the predicted tokens where `num_decoded` is a number; there
            may be visible ones among them, which do not count in the loss.
        num_carried: (options, grid) -> Q, values per token that targets are made of besides the frames; 0 for none.
        carry: (flow (B, R, H, W, 2) px, grid, options) -> (B, N, Q), made where the flow is and sent with the frames.
        frozen: (options, grid, the run's folder) -> networks that targets are made with, by name.
        to_fit: (options, the run's folder) -> the tokenizer that has to be fitted on the run's own videos first.
        files: options that name a file, by URI or path; `auto` names none.
        targets: name -> (clips, grid, options) -> (B, N, P).
        build: (model section, grid, options) -> a module; called with (frames, shown (B, V), predicted (B, K)) it
            returns a prediction (B, K, P) for each target's name.
        loss: (predicted, wanted, counted (B, K) or None, options) -> per-clip losses (B,) by name; a clip's loss is
            their sum. Tokens with `counted` 0 do not count; None: all count.
        count: (wanted, options) -> histograms of the labels by name, for their perplexity.
        drawn: (options) -> how targets other than pixels are shown in the picture of a run, by name.
        flops: (model section, grid, options) -> floating-point operations of the forward pass of one clip, 2 per
            multiply-add; flow, frozen networks and passes without gradients not counted. Training costs three times
            as much.
        lr_scale: (parameter's name, model section, options) -> factor of its learning rate.
    """

    name: str
    source: str
    options: type[MethodOptions]
    labelled: bool = False
    motion: str = "dis"
    sources: frozenset[str] | None = None
    check: Callable[[Any, TokenGrid, ModelSection], None] = fits_any
    pairs: Callable[[Any, int], Pairs] = no_pairs
    extra_frames: Callable[[Any, int, int], tuple[int, ...]] = no_extra_frames
    num_visible: Callable[[Any, TokenGrid], int]
    mask: Callable[[Noise, Tensor | None, TokenGrid, Any], Visible]
    num_draws: Callable[[Any, ModelSection], int] = wants_no_draws
    num_decoded: Callable[[Any, TokenGrid], int | None] = all_hidden
    decoded: Callable[[NDArray[np.int64], TokenGrid, Any], Visible] = no_mask_of_decoder
    num_carried: Callable[[Any, TokenGrid], int] = carries_nothing
    carry: Callable[[Tensor, TokenGrid, Any], Tensor] = no_values_of_flow
    frozen: Callable[[Any, TokenGrid, str], Networks] = nothing_frozen
    to_fit: Callable[[Any, str], ToFit | None] = nothing_to_fit
    files: tuple[str, ...] = ()
    targets: Mapping[str, Callable[[Clips, TokenGrid, Any], Tensor]]
    build: Callable[[ModelSection, TokenGrid, Any], nn.Module]
    loss: Callable[[Tensors, Tensors, Tensor | None, Any], Tensors]
    count: Callable[[Tensors, Any], Tensors] = nothing_to_count
    drawn: Callable[[Any], Mapping[str, Drawing]] = draws_nothing
    flops: Callable[[ModelSection, TokenGrid, Any], int]
    lr_scale: Callable[[str, ModelSection, Any], float] = same_for_all
