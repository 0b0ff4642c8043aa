"""Sizes of the transformers by name. Plain Python: recipes are validated with it.

Widths, depths and heads of small to huge are those of VideoMAE's code (arXiv:2203.12602) with the decoder depth of
VideoMAE V2 and MGMAE; VideoMAE's own scripts for large and huge use a decoder of depth 12 (their recipes say so).
`tiny` is ours, with DeiT's tiny width, for CPUs and tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from system.config import ModelSection
from system.core.clip import TokenGrid


@dataclass(frozen=True, slots=True)
class Shape:
    """A stack of transformer blocks."""

    width: int
    depth: int
    heads: int


# name: (encoder, decoder)
SIZES: dict[str, tuple[Shape, Shape]] = {
    "tiny": (Shape(192, 12, 3), Shape(96, 4, 3)),
    "small": (Shape(384, 12, 6), Shape(192, 4, 3)),
    "base": (Shape(768, 12, 12), Shape(384, 4, 6)),
    "large": (Shape(1024, 24, 16), Shape(512, 4, 8)),
    "huge": (Shape(1280, 32, 16), Shape(512, 4, 8)),
}


def shapes(model: ModelSection) -> tuple[Shape, Shape]:
    """Return encoder and decoder of a model section.

    Raises:
        ValueError: if a width is not a multiple of its heads or is odd.
    """
    encoder, decoder = SIZES[model.size]
    encoder = Shape(model.width or encoder.width, model.depth or encoder.depth, model.heads or encoder.heads)
    decoder = Shape(
        model.decoder_width or decoder.width, model.decoder_depth or decoder.depth, model.decoder_heads or decoder.heads
    )
    for name, shape in (("model", encoder), ("model.decoder", decoder)):
        if shape.width % (2 * shape.heads):
            raise ValueError(
                f"{name}: width must be a multiple of twice the heads, got {shape.width} and {shape.heads};"
                f" use a width of {max(1, shape.width // (2 * shape.heads)) * 2 * shape.heads}"
            )
    return encoder, decoder


def stack_flops(shape: Shape, tokens: int) -> int:
    """Return the operations of one forward of a stack: 2 per multiply-add, 12 d^2 a token and block, and attention."""
    linear = 2 * 12 * shape.width**2 * tokens
    attention = 2 * 2 * tokens**2 * shape.width
    return shape.depth * (linear + attention)


def encoder_flops(model: ModelSection, grid: TokenGrid, num_visible: int) -> int:
    """Return the operations of one forward of the encoder over the visible tokens of one clip."""
    encoder, _ = shapes(model)
    return 2 * grid.values * encoder.width * num_visible + stack_flops(encoder, num_visible)


def pretraining_flops(model: ModelSection, grid: TokenGrid, num_visible: int, num_predicted: int | None = None) -> int:
    """Return the floating-point operations of one pre-training forward of one clip (2 per multiply-add).

    Args:
        model: the model section.
        grid: the token grid.
        num_visible: tokens that the encoder sees.
        num_predicted: tokens that the decoder predicts, beside the visible ones that it sees; default the hidden ones.
    """
    encoder, decoder = shapes(model)
    predicted = grid.tokens - num_visible if num_predicted is None else num_predicted
    bridge = 2 * encoder.width * decoder.width * num_visible
    head = 2 * decoder.width * grid.values * predicted
    return encoder_flops(model, grid, num_visible) + bridge + stack_flops(decoder, num_visible + predicted) + head


def motion_head_flops(
    model: ModelSection, num_visible: int, num_predicted: int, values: int, *, independent: bool
) -> int:
    """Return the operations that a second prediction costs besides `pretraining_flops`.

    Args:
        model: the model section.
        num_visible: tokens that the encoder sees.
        num_predicted: tokens that are predicted.
        values: numbers that are predicted for a token.
        independent: whether a decoder of its own predicts them.
    """
    _, decoder = shapes(model)
    head = 2 * decoder.width * values * num_predicted
    return head + (stack_flops(decoder, num_visible + num_predicted) if independent else 0)


def regressor_flops(shape: Shape, num_predicted: int, num_seen: int) -> int:
    """Return the operations of CAE's regressor: in each block cross-attention from the predicted tokens, and an MLP.

    Args:
        shape: of the regressor.
        num_predicted: tokens that are predicted.
        num_seen: tokens that they look at.
    """
    linear = 2 * shape.width**2 * (10 * num_predicted + 2 * num_seen)
    attention = 2 * 2 * num_predicted * num_seen * shape.width
    return shape.depth * (linear + attention)


def regressor_model_flops(
    model: ModelSection,
    grid: TokenGrid,
    num_visible: int,
    values: Sequence[int],
    *,
    regressor_depth: int,
    visible_only: bool,
    decode_all: bool,
) -> int:
    """Return the operations of one forward of encoder, regressor and decoders for one clip.

    Args:
        model: the model section.
        grid: the token grid.
        num_visible: tokens that the encoder sees.
        values: numbers that each decoder predicts for a token.
        regressor_depth: blocks of the regressor.
        visible_only: whether the regressor looks at the visible latents alone.
        decode_all: whether the decoders see the visible latents.
    """
    encoder, decoder = shapes(model)
    predicted = grid.tokens - num_visible
    decoded = grid.tokens if decode_all else predicted
    shape = Shape(encoder.width, regressor_depth, encoder.heads)
    total = encoder_flops(model, grid, num_visible)
    total += regressor_flops(shape, predicted, num_visible if visible_only else grid.tokens)
    for count in values:
        total += 2 * encoder.width * decoder.width * decoded + stack_flops(decoder, decoded)
        total += 2 * decoder.width * count * predicted
    return total
