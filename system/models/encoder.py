"""The encoder: a plain vision transformer over the visible tokens of a clip.

B clips, T frames of H x W px, N tokens of the grid, V visible ones, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from system.core.clip import TokenGrid
from system.core.targets import IMAGENET_MEAN, IMAGENET_STD
from system.models.blocks import NORM_EPS, Stack, sinusoid
from system.models.products import linear
from system.models.sizes import Shape


class TubeletEmbed(nn.Module):
    """One linear map from a tubelet to a token: a Conv3d with kernel = stride, applied to the chosen tubelets only."""

    mean: Tensor
    std: Tensor

    def __init__(self, grid: TokenGrid, width: int) -> None:
        super().__init__()
        self.grid = grid
        kernel = (grid.tubelet_frames, grid.patch_px, grid.patch_px)
        self.proj = nn.Conv3d(3, width, kernel_size=kernel, stride=kernel)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1, 1), persistent=False)

    def forward(self, frames: Tensor, index: Tensor) -> Tensor:
        """Embed the tubelets at `index`.

        Args:
            frames: (B, 3, T, H, W) float in [0, 1]; normalised here, with ImageNet's statistics.
            index: (B, V) int64, tokens to embed.

        Returns:
            (B, V, D).
        """
        grid, patch = self.grid, self.grid.patch_px
        cut = frames.reshape(
            len(frames), 3, grid.slots, grid.tubelet_frames, grid.rows, patch, grid.cols, patch
        ).permute(0, 2, 4, 6, 1, 3, 5, 7)  # (B, S, rows, cols, C, t, p, p), a view
        clip = torch.arange(len(frames), device=frames.device)[:, None]
        slot, place = index // grid.places, index % grid.places
        tubelets = cut[clip, slot, place // grid.cols, place % grid.cols]  # (B, V, C, t, p, p), only these are copied
        normalized = (tubelets - self.mean) / self.std
        return linear(normalized.flatten(2), self.proj.weight.flatten(1), self.proj.bias)


class Encoder(nn.Module):
    """Joint space-time attention over visible tokens, with a fixed position table and no class token."""

    positions: Tensor

    def __init__(self, grid: TokenGrid, shape: Shape, *, last_norm: bool = True) -> None:
        super().__init__()
        self.grid = grid
        self.patch_embed = TubeletEmbed(grid, shape.width)
        self.blocks = Stack(shape)
        self.norm = nn.LayerNorm(shape.width, eps=NORM_EPS) if last_norm else nn.Identity()
        self.register_buffer("positions", sinusoid(grid.tokens, shape.width), persistent=False)

    def forward(self, frames: Tensor, shown: Tensor, kept: Tensor | None = None) -> Tensor:
        """Encode the visible tokens.

        Args:
            frames: (B, 3, T, H, W) float in [0, 1].
            shown: (B, V) int64, the visible tokens in ascending order.
            kept: (B, L, 2), factors of the branches of L blocks (stochastic depth); None: all 1.

        Returns:
            (B, V, D), normalised by the last LayerNorm where there is one.
        """
        x = self.patch_embed(frames, shown)
        x = x + self.positions[shown].to(x.dtype)
        out: Tensor = self.norm(self.blocks.run(x, kept))
        return out
