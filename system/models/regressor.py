"""Encoder, regressor and two decoders: the model of MAM2 (Song et al., arXiv:2210.05234).

Of MAM2 only the abstract's description is public: an encoder-regressor-decoder pipeline whose two decoders predict
appearance and motion. The regressor here is that of CAE (Chen et al., arXiv:2202.03026), the nearest public design.

B clips, N tokens of the grid, V visible and K predicted ones, D width of encoder and regressor, E of the decoders.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from system.core.clip import TokenGrid
from system.models.blocks import NORM_EPS, initialize, sinusoid
from system.models.decoders import Decoder
from system.models.encoder import Encoder
from system.models.sizes import Shape

# LayerScale of CAE's blocks at the start.
LAYER_SCALE = 0.1


class CrossAttention(nn.Module):
    """Attention from one sequence to another; queries and values have a bias, keys need none."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, K, D), (B, L, D), (B, L, D) -> (B, K, D)."""
        batch, length, width = query.shape

        def split(x: Tensor) -> Tensor:
            return x.reshape(batch, -1, self.heads, width // self.heads).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(split(self.query(query)), split(self.key(key)), split(self.value(value)))
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return out


class RegressorBlock(nn.Module):
    """One block of CAE's regressor: predicted latents look at the visible ones and at themselves.

    Queries and keys carry position codes, values do not. Before the MLP the LayerNorm's output replaces the residual
    stream, as in CAE's released code.
    """

    def __init__(self, width: int, heads: int, *, visible_only: bool) -> None:
        super().__init__()
        self.visible_only = visible_only
        self.norm_query = nn.LayerNorm(width, eps=NORM_EPS)
        self.norm_key = nn.LayerNorm(width, eps=NORM_EPS)
        self.norm_value = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = CrossAttention(width, heads)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, 4 * width, act_layer=nn.GELU)
        self.scale_attn = nn.Parameter(torch.full((width,), LAYER_SCALE))
        self.scale_mlp = nn.Parameter(torch.full((width,), LAYER_SCALE))

    def forward(self, x: Tensor, visible: Tensor, at_x: Tensor, at_visible: Tensor) -> Tensor:
        """Improve the predicted latents.

        Args:
            x: (B, K, D), predicted latents so far.
            visible: (B, V, D), the encoder's latents.
            at_x: (B, K, D), position codes of the predicted tokens.
            at_visible: (B, V, D), position codes of the visible ones.
        """
        seen = visible if self.visible_only else torch.cat([visible, x], 1)
        where = at_visible if self.visible_only else torch.cat([at_visible, at_x], 1)
        mixed = self.attn(self.norm_query(x + at_x), self.norm_key(seen + where), self.norm_value(seen))
        x = self.norm(x + self.scale_attn * mixed)
        out: Tensor = x + self.scale_mlp * self.mlp(x)
        return out


class Regressor(nn.Module):
    """Blocks that predict the hidden tokens' latents from one learned query."""

    def __init__(self, shape: Shape, *, visible_only: bool) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.blocks = nn.ModuleList(
            RegressorBlock(shape.width, shape.heads, visible_only=visible_only) for _ in range(shape.depth)
        )
        self.norm = nn.LayerNorm(shape.width, eps=NORM_EPS)
        self.checkpointing = False

    def forward(self, visible: Tensor, at_x: Tensor, at_visible: Tensor) -> Tensor:
        """(B, V, D) latents and the position codes of both -> (B, K, D)."""
        x = self.mask_token.to(visible.dtype).expand(len(visible), at_x.shape[1], -1)
        for block in self.blocks:
            inputs = (x, visible, at_x, at_visible)
            again = self.checkpointing and torch.is_grad_enabled()
            x = checkpoint(block, *inputs, use_reentrant=False) if again else block(*inputs)
        out: Tensor = self.norm(x)
        return out


class RegressorModel(nn.Module):
    """Encoder, regressor, an appearance decoder and a motion decoder.

    Args:
        grid: the token grid.
        encoder: shape of the encoder; the regressor's width and heads are its.
        decoder: shape of each decoder.
        regressor_depth: blocks of the regressor.
        values: numbers that are predicted for a token, by decoder: `codes` and `motion`.
        visible_only: the regressor looks at the visible latents alone, not at its own.
        decode_all: decoders see the visible latents beside the predicted ones.
        aligned: give the latents that the encoder makes of the hidden tokens, for an alignment loss.
    """

    positions: Tensor
    decoder_positions: Tensor

    def __init__(  # noqa: PLR0913  one of each
        self,
        grid: TokenGrid,
        encoder: Shape,
        decoder: Shape,
        *,
        regressor_depth: int,
        values: dict[str, int],
        visible_only: bool = False,
        decode_all: bool = False,
        aligned: bool = False,
    ) -> None:
        super().__init__()
        self.decode_all, self.aligned = decode_all, aligned
        self.encoder = Encoder(grid, encoder)
        shape = Shape(encoder.width, regressor_depth, encoder.heads)
        self.regressor = Regressor(shape, visible_only=visible_only)
        self.bridges = nn.ModuleDict({name: nn.Linear(encoder.width, decoder.width, bias=False) for name in values})
        self.decoders = nn.ModuleDict({name: Decoder(decoder, count) for name, count in values.items()})
        self.register_buffer("positions", sinusoid(grid.tokens, encoder.width), persistent=False)
        self.register_buffer("decoder_positions", sinusoid(grid.tokens, decoder.width), persistent=False)
        initialize(self)
        nn.init.trunc_normal_(self.regressor.mask_token, std=0.02, a=-0.02, b=0.02)

    def forward(self, frames: Tensor, shown: Tensor, predicted: Tensor) -> dict[str, Tensor]:
        """Predict tokens from the visible ones.

        Args:
            frames: (B, 3, T, H, W) float in [0, 1].
            shown: (B, V) int64, visible tokens in ascending order.
            predicted: (B, K) int64, tokens to predict in ascending order.

        Returns:
            (B, K, values) for each decoder's name; with `aligned` also `regressed` and `encoded`, (B, K, D) each: the
            regressor's latents and the encoder's own of the same tokens, without a gradient.
        """
        visible = self.encoder(frames, shown)
        at = self.positions.to(visible.dtype)
        latents = self.regressor(visible, at[predicted], at[shown])
        positions = self.decoder_positions.to(visible.dtype)
        sequence = torch.cat([visible, latents], 1) if self.decode_all else latents
        where = positions[torch.cat([shown, predicted], 1) if self.decode_all else predicted]
        out = {
            name: decoder(self.bridges[name](sequence) + where, predicted.shape[1])
            for name, decoder in self.decoders.items()
        }
        if self.aligned:
            with torch.no_grad():
                out["encoded"] = self.encoder(frames, predicted)
            out["regressed"] = latents
        return out
