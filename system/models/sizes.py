"""Sizes of the transformers by name. Plain Python: recipes are validated with it.

Widths, depths and heads of small to huge are those of VideoMAE's code (arXiv:2203.12602) with the decoder depth of
VideoMAE V2 and MGMAE; VideoMAE's own scripts for large and huge use a decoder of depth 12 (their recipes say so).
`tiny` is ours, with DeiT's tiny width, for CPUs and tests.
"""

from __future__ import annotations

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
