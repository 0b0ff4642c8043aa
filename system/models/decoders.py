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
from system.models.sizes import Shape


class Decoder(nn.Module):
    """Transformer blocks over a sequence of tokens, and one linear head for the last ones of it."""

    def __init__(self, shape: Shape, values: int) -> None:
        super().__init__()
        self.blocks = Stack(shape)
        self.norm = nn.LayerNorm(shape.width, eps=NORM_EPS)
        self.head = nn.Linear(shape.width, values)

    def forward(self, x: Tensor, num_predicted: int) -> Tensor:
        """(B, L, E) -> (B, num_predicted, P), a prediction for each of the last `num_predicted` tokens."""
        x = self.blocks.run(x)[:, -num_predicted:]
        out: Tensor = self.head(self.norm(x))
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
        self.encoder_to_decoder = nn.Linear(encoder.width, decoder.width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder.width))
        self.decoder = Decoder(decoder, grid.values)
        self.register_buffer("decoder_positions", sinusoid(grid.tokens, decoder.width), persistent=False)
        initialize(self)
        # Cut at one standard deviation, as VideoMAE does.
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)

    def forward(self, frames: Tensor, shown: Tensor, predicted: Tensor) -> dict[str, Tensor]:
        """Predict tokens from the visible ones.

        Args:
            frames: (B, 3, T, H, W) float in [0, 1].
            shown: (B, V) int64, visible tokens in ascending order.
            predicted: (B, K) int64, tokens to predict in ascending order.

        Returns:
            `pixels`: (B, K, P), one prediction for each of them in that order.
        """
        latents = self.encoder_to_decoder(self.encoder(frames, shown))
        positions = self.decoder_positions.to(latents.dtype)
        masked = self.mask_token.to(latents.dtype) + positions[predicted]
        sequence = torch.cat([latents + positions[shown], masked], 1)
        return {"pixels": self.decoder(sequence, predicted.shape[1])}


def set_activation_checkpointing(module: nn.Module, on: bool) -> None:
    """Switch activation checkpointing of every stack of blocks in a model."""
    for part in module.modules():
        if isinstance(part, Stack):
            part.checkpointing = on
