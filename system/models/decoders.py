"""Decoders, and the pre-training models that join them to an encoder.

B clips, N tokens of the grid, V visible and K predicted ones, D width of the encoder, E of the decoder, P values a
token. The predicted tokens are the hidden ones, or those that a decoder mask chose.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from system.core.clip import TokenGrid
from system.models.blocks import NORM_EPS, Stack, initialize, sinusoid
from system.models.encoder import Encoder
from system.models.products import Linear
from system.models.sizes import Shape


class Decoder(nn.Module):
    """Transformer blocks over a sequence of tokens, and one linear head for the last ones of it."""

    def __init__(self, shape: Shape, values: int) -> None:
        super().__init__()
        self.blocks = Stack(shape)
        self.norm = nn.LayerNorm(shape.width, eps=NORM_EPS)
        self.head = Linear(shape.width, values)

    def features(self, x: Tensor, num_predicted: int) -> Tensor:
        """(B, L, E) -> (B, num_predicted, E), what the head sees of the last `num_predicted` tokens."""
        out: Tensor = self.norm(self.blocks.run(x)[:, -num_predicted:])
        return out

    def forward(self, x: Tensor, num_predicted: int) -> Tensor:
        """(B, L, E) -> (B, num_predicted, P), a prediction for each of the last `num_predicted` tokens."""
        out: Tensor = self.head(self.features(x, num_predicted))
        return out


class PixelModel(nn.Module):
    """Encoder and pixel decoder of VideoMAE (arXiv:2203.12602, section 3).

    The decoder sees the visible latents first and a mask token for each predicted position after them; the sequence is
    never brought back to the grid's order, since every token carries its position code. With VideoMAE V2's decoder mask
    (arXiv:2303.16727) some predicted positions are visible ones: they get a mask token all the same, as there.
    """

    decoder_positions: Tensor

    def __init__(self, grid: TokenGrid, encoder: Shape, decoder: Shape) -> None:
        super().__init__()
        self.encoder = Encoder(grid, encoder)
        self.encoder_to_decoder = Linear(encoder.width, decoder.width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder.width))
        self.decoder = Decoder(decoder, grid.values)
        self.register_buffer("decoder_positions", sinusoid(grid.tokens, decoder.width), persistent=False)
        self._start()

    def _start(self) -> None:
        initialize(self)
        # Cut at one standard deviation, as VideoMAE does.
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)

    def sequence(self, frames: Tensor, shown: Tensor, predicted: Tensor) -> Tensor:
        """Return what the decoder sees, (B, V + K, E): visible latents, then mask tokens, all with their positions."""
        latents = self.encoder_to_decoder(self.encoder(frames, shown))
        positions = self.decoder_positions.to(latents.dtype)
        masked = self.mask_token.to(latents.dtype) + positions[predicted]
        return torch.cat([latents + positions[shown], masked], 1)

    def forward(self, frames: Tensor, shown: Tensor, predicted: Tensor) -> dict[str, Tensor]:
        """Predict tokens from the visible ones.

        Args:
            frames: (B, 3, T, H, W) float in [0, 1].
            shown: (B, V) int64, visible tokens in ascending order.
            predicted: (B, K) int64, tokens to predict in ascending order.

        Returns:
            `pixels`: (B, K, P), one prediction for each of them in that order.
        """
        return {"pixels": self.decoder(self.sequence(frames, shown, predicted), predicted.shape[1])}


class PixelMotionModel(PixelModel):
    """VideoMAE's model with a second prediction for each token (MotionMAE, arXiv:2210.04154).

    Args:
        grid: the token grid.
        encoder: shape of the encoder.
        decoder: shape of a decoder.
        motion_values: numbers that are predicted for a token besides its pixels.
        independent: a decoder of its own for them; else one decoder with two linear heads.
        learned_positions: position codes that are trained, in place of the fixed tables.
    """

    def __init__(
        self,
        grid: TokenGrid,
        encoder: Shape,
        decoder: Shape,
        motion_values: int,
        *,
        independent: bool,
        learned_positions: bool,
    ) -> None:
        super().__init__(grid, encoder, decoder)
        self.motion_decoder = Decoder(decoder, motion_values) if independent else None
        self.motion_head = None if independent else nn.Linear(decoder.width, motion_values)
        if learned_positions:
            _learn(self, "decoder_positions")
            _learn(self.encoder, "positions")
        self._start()

    def forward(self, frames: Tensor, shown: Tensor, predicted: Tensor) -> dict[str, Tensor]:
        """Predict `pixels` (B, K, P) and `motion` (B, K, motion_values); arguments as of `PixelModel`."""
        sequence, count = self.sequence(frames, shown, predicted), predicted.shape[1]
        if self.motion_decoder is not None:
            return {"pixels": self.decoder(sequence, count), "motion": self.motion_decoder(sequence, count)}
        assert self.motion_head is not None
        features = self.decoder.features(sequence, count)
        return {"pixels": self.decoder.head(features), "motion": self.motion_head(features)}


def _learn(module: nn.Module, name: str) -> None:
    """Turn a table of positions into a parameter that starts as truncated normal noise."""
    table = getattr(module, name)
    delattr(module, name)
    setattr(module, name, nn.Parameter(nn.init.trunc_normal_(torch.empty_like(table), std=0.02)))


def set_activation_checkpointing(module: nn.Module, on: bool) -> None:
    """Switch activation checkpointing of every stack of blocks in a model."""
    for part in module.modules():
        if hasattr(part, "checkpointing"):
            setattr(part, "checkpointing", on)  # noqa: B010  a plain attribute, which the annotations do not know
