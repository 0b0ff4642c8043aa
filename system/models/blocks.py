"""Transformer blocks and the position table that all models share.

B clips, L tokens of a sequence, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from system.models.products import Linear, Mlp, attend, linear
from system.models.sizes import Shape

# LayerNorm's epsilon in VideoMAE's code.
NORM_EPS = 1e-6


class Attention(nn.Module):
    """Self-attention whose queries and values have a bias and whose keys have none (BEiT's habit, kept by VideoMAE).

    A key bias adds the same number to all of a query's logits, so softmax ignores it; it is left out, as a constant
    zero, so that parameters and their counts equal VideoMAE's.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        batch, length, width = x.shape
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = linear(x, self.qkv.weight, bias).reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, L, D / heads)
        mixed = attend(query, key, value)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return out


class Block(nn.Module):
    """A pre-norm block: x + Attn(LN(x)), then x + MLP(LN(x)), MLP ratio 4, exact GELU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """(B, L, D) -> (B, L, D); `kept` (B, 2) are factors of the two branches, for stochastic depth."""
        if kept is None:
            x = x + self.attn(self.norm1(x))
            plain: Tensor = x + self.mlp(self.norm2(x))
            return plain
        first, second = kept.to(x.dtype)[..., None, None].unbind(1)  # each (B, 1, 1)
        x = x + first * self.attn(self.norm1(x))
        out: Tensor = x + second * self.mlp(self.norm2(x))
        return out


class Stack(nn.ModuleList):
    """Blocks in a row; with `checkpointing`, activations are computed again in the backward pass."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(Block(shape.width, shape.heads) for _ in range(shape.depth))
        self.checkpointing = False

    def run(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """(B, L, D) -> (B, L, D); `kept` (B, blocks, 2) are factors of the blocks' branches."""
        again = self.checkpointing and torch.is_grad_enabled()
        for number, block in enumerate(self):
            given = (x,) if kept is None else (x, kept[:, number])
            x = checkpoint(block, *given, use_reentrant=False) if again else block(*given)
        return x


def sinusoid(length: int, width: int) -> Tensor:
    """Return the fixed position table over the flattened token index: (length, width) float32.

    One-dimensional over all tokens of the clip, sine on even and cosine on odd channels, base 10000: VideoMAE's table,
    not a factorised code of time, row and column. Computed in float64 and rounded once.
    """
    channel = torch.arange(width, dtype=torch.float64)
    angle = torch.arange(length, dtype=torch.float64)[:, None] / 10000 ** (2 * (channel // 2) / width)
    table = torch.where(channel.long() % 2 == 0, angle.sin(), angle.cos())
    return table.float()


def initialize(module: nn.Module) -> None:
    """Give every Linear Xavier-uniform weights and a zero bias, and every LayerNorm (1, 0), as VideoMAE does."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)


def gather_tokens(x: Tensor, index: Tensor) -> Tensor:
    """Pick tokens: (B, N, D) and (B, M) int64 -> (B, M, D)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
