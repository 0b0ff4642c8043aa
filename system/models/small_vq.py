"""A small tokenizer's encoder and decoder, of ours: cheap enough to be fitted to a run's own videos on one core.

Images are cut into squares of half a code's side, and two residual blocks at that resolution and at the code's see
little beyond the square that a code stands for. B images of H x W px, h x w codes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class _Residual(nn.Module):
    """x + conv1x1(gelu(conv3x3(gelu(x)))) ."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(F.gelu(self.conv1(F.gelu(x))))
        return out


class SmallEncoder(nn.Module):
    """Images to latents.

    Args:
        factor: image px of one latent's side, even.
        width: channels.
        out_channels: of the latents.
    """

    def __init__(self, factor: int, width: int, out_channels: int) -> None:
        super().__init__()
        half = factor // 2
        self.conv_in = nn.Conv2d(3, width, half, stride=half)
        self.downsample = nn.Conv2d(width, width, 2, stride=2)
        self.block = _Residual(width)
        self.conv_out = nn.Conv2d(width, out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, out_channels, H / factor, W / factor)."""
        x = self.downsample(F.gelu(self.conv_in(images)))
        out: Tensor = self.conv_out(F.gelu(self.block(x)))
        return out


class SmallDecoder(nn.Module):
    """Latents to images; arguments as the encoder's."""

    def __init__(self, factor: int, width: int, in_channels: int) -> None:
        super().__init__()
        # Squares of pixels as channels and not transposed convolutions, which are slow on CPUs.
        self._square = factor // 2
        self.conv_in = nn.Conv2d(in_channels, width, 1)
        self.block = _Residual(width)
        self.upsample = nn.Conv2d(width, 4 * width, 1)
        self.conv_out = nn.Conv2d(width, 3 * self._square**2, 1)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, 3, h * factor, w * factor), about [-1, 1] and not cut."""
        x = F.pixel_shuffle(self.upsample(F.gelu(self.block(self.conv_in(latents)))), 2)
        return F.pixel_shuffle(self.conv_out(F.gelu(x)), self._square)
