"""The method's record: what a pre-training method is, for everything that runs it.

A record and not a base class: a method is a handful of functions, and the trainer is none of its business. Importing
this file imports neither numpy nor torch; the functions of a method import what they need when they are called.

B clips, T frames, S slots, F places per slot, N = S x F tokens, V visible and M hidden ones, P values per token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from system.config import ModelSection, Section
from system.core.clip import TokenGrid

if TYPE_CHECKING:
    from torch import Tensor, nn

    from system.core.masks import Noise, Visible
    from system.core.warp import FramePair

    Pairs = tuple[FramePair, ...]
    Tensors = Mapping[str, Tensor]


class MethodOptions(Section):
    """The section `method` of a recipe; every method adds its own fields."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Method:
    """One pre-training method.

    Attributes:
        name: as in `method.name`.
        source: arXiv id of the paper.
        options: the type of its section of a recipe.
        needs_motion: whether `mask` wants optical flow.
        pairs: (options, T) -> the frame pairs whose flow it wants; none for a method without motion.
        num_visible: (options, grid) -> V, visible tokens of every clip.
        mask: (noise (B, S, F), flow (B, pairs, H, W, 2) px or None, grid, options) -> `visible` (B, N) bool.
        targets: name -> (frames (B, 3, T, H, W) in [0, 1], grid, options) -> (B, N, P).
        build: (model section, grid, options) -> a module; called with (frames, shown (B, V), hidden (B, M)) it returns
            a prediction (B, M, P) for each target's name.
        loss: (predicted, wanted, options) -> per-clip losses (B,) by name; a clip's loss is their sum.
    """

    name: str
    source: str
    options: type[MethodOptions]
    needs_motion: bool
    pairs: Callable[[Any, int], Pairs]
    num_visible: Callable[[Any, TokenGrid], int]
    mask: Callable[[Noise, Tensor | None, TokenGrid, Any], Visible]
    targets: Mapping[str, Callable[[Tensor, TokenGrid, Any], Tensor]]
    build: Callable[[ModelSection, TokenGrid, Any], nn.Module]
    loss: Callable[[Tensors, Tensors, Any], Tensors]


def no_pairs(_options: MethodOptions, _num_frames: int) -> Pairs:
    """Say that a method needs no motion."""
    return ()
