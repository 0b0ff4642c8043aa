"""Encoder and decoder of the VQGANs of Esser et al. (CVPR 2021, arXiv:2012.09841), written from their shapes.

Modules carry the names that the authors' checkpoints use, so that a state dict of theirs loads as it is. One tower is
`levels` stages of two residual blocks, each stage but the last at half the resolution of the one before. Attention sits
in the last stage and in the middle. The number of stages, and not the image's size, says where attention is: the
authors placed it by the size that they trained on (256 px), which is the last stage of both towers.

B images, h x w a stage's resolution, C its channels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

# Channels of the stages, as multiples of the first convolution's, by factor (image px of one code).
MULTIPLIERS = {8: (1, 1, 2, 4), 16: (1, 1, 2, 2, 4)}
# Residual blocks of a stage; the decoder has one more.
BLOCKS = 2
GROUPS = 32


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """x + conv(swish(norm(conv(swish(norm(x)))))), with a 1x1 convolution of x where channels change."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = _norm(channels)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = _norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h, w)."""
        change = self.conv1(F.silu(self.norm1(x)))
        change = self.conv2(F.silu(self.norm2(change)))
        out: Tensor = (x if self.nin_shortcut is None else self.nin_shortcut(x)) + change
        return out


class AttentionBlock(nn.Module):
    """x + self-attention over all places, one head as wide as the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        normed = self.norm(x)
        query, key, value = (part(normed).flatten(2).transpose(1, 2) for part in (self.q, self.k, self.v))
        logits = query @ key.transpose(1, 2) * x.shape[1] ** -0.5  # (B, h * w, h * w)
        mixed = logits.softmax(-1) @ value
        out: Tensor = x + self.proj_out(mixed.transpose(1, 2).reshape(x.shape))
        return out


class _Halve(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))  # at the right and at the bottom only
        return out


class _Double(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class _Stage(nn.Module):
    """Residual blocks of one resolution, each followed by attention if wanted, then a change of resolution."""

    def __init__(self, channels: int, out_channels: int, blocks: int, *, attention: bool) -> None:
        super().__init__()
        inputs = [channels, *[out_channels] * (blocks - 1)]
        self.block = nn.ModuleList(ResidualBlock(each, out_channels) for each in inputs)
        self.attn = nn.ModuleList(AttentionBlock(out_channels) for _ in inputs if attention)
        self.downsample: nn.Module | None = None
        self.upsample: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        for number, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[number](x)
        for change in (self.downsample, self.upsample):
            x = x if change is None else change(x)
        return x


class _Middle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels)
        self.attn_1 = AttentionBlock(channels)
        self.block_2 = ResidualBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class VQGANEncoder(nn.Module):
    """Images to latents.

    Args:
        factor: image px of one latent's side, 8 or 16.
        width: channels of the first convolution.
        out_channels: of the latents.
    """

    def __init__(self, factor: int, width: int, out_channels: int) -> None:
        super().__init__()
        channels = [width * times for times in MULTIPLIERS[factor]]
        last = len(channels) - 1
        self.conv_in = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList()
        for number, (before, after) in enumerate(zip([width, *channels], channels, strict=False)):
            stage = _Stage(before, after, BLOCKS, attention=number == last)
            stage.downsample = None if number == last else _Halve(after)
            self.down.append(stage)
        self.mid = _Middle(channels[-1])
        self.norm_out = _norm(channels[-1])
        self.conv_out = nn.Conv2d(channels[-1], out_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, out_channels, H / factor, W / factor)."""
        x = self.conv_in(images)
        for stage in self.down:
            x = stage(x)
        out: Tensor = self.conv_out(F.silu(self.norm_out(self.mid(x))))
        return out


class VQGANDecoder(nn.Module):
    """Latents to images; `up.0` is the stage of full resolution and runs last. Arguments as the encoder's."""

    def __init__(self, factor: int, width: int, in_channels: int) -> None:
        super().__init__()
        channels = [width * times for times in MULTIPLIERS[factor]]
        last = len(channels) - 1
        self.conv_in = nn.Conv2d(in_channels, channels[-1], 3, padding=1)
        self.mid = _Middle(channels[-1])
        self.up = nn.ModuleList()
        for number, after in enumerate(channels):
            stage = _Stage(channels[min(number + 1, last)], after, BLOCKS + 1, attention=number == last)
            stage.upsample = _Double(after) if number else None
            self.up.append(stage)
        self.norm_out = _norm(width)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, 3, h * factor, w * factor), about [-1, 1] and not cut."""
        x = self.mid(self.conv_in(latents))
        for stage in reversed(self.up):
            x = stage(x)
        out: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return out


def factor_of(stages: int) -> int | None:
    """Return the factor of a tower of so many stages; None if there is no such tower."""
    return {len(multipliers): factor for factor, multipliers in MULTIPLIERS.items()}.get(stages)
