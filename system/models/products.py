"""Matrix products of a transformer, each by the way that is fastest where it runs; the numbers are the same.

On a GPU these are PyTorch's own. On a CPU they are not, for three reasons, all measured (docs/benchmarks):

- PyTorch multiplies float32 with MKL, which on AMD's processors leaves half of the vector unit idle. oneDNN, which
  PyTorch brings for convolutions, does not. Its linear operator is reached by the name that torch.compile uses.
- The fused attention of PyTorch's CPU kernels costs more than its products alone. A head's scores are computed here in
  blocks of rows that stay in the cache, forward and again backward, so no more memory is kept than there.
- Short sequences in bf16 are fastest without any of this, as three plain operations.

B clips, H heads, L tokens, D values of a head.
"""

from __future__ import annotations

import platform
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# From so many tokens on a head's scores are computed in blocks.
LONG = 512
# Rows of a block: 784 x 1568 scores are 2.4 MB in bf16.
BLOCK_ROWS = 784
# Values of a weight from which oneDNN is worth its reordering of it. By the weight alone: how a batch is cut must not
# choose another kernel.
LARGE_WEIGHT = 1 << 17


@cache
def _has_onednn() -> bool:
    """Say whether oneDNN's linear operator is there, on a processor that it is written for."""
    built: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    known = platform.machine() in ("x86_64", "AMD64")
    return built and known and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `left @ right.T + bias` of float32 matrices by oneDNN.

    `right` is contiguous or the transpose of what is: with other strides it takes a thousand times as long.
    """
    out: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    return out


def _onednn_helps(x: Tensor, weight: Tensor) -> bool:
    if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    float32 = x.dtype == weight.dtype == torch.float32
    return float32 and weight.numel() >= LARGE_WEIGHT and weight.is_contiguous() and _has_onednn()


class _OneDNNLinear(torch.autograd.Function):
    """A linear layer of float32 by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(.., K), (N, K) and (N,) -> (.., N)."""
        ctx.save_for_backward(x, weight)
        return _product(x.reshape(-1, x.shape[-1]).contiguous(), weight, bias).reshape(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of input, weight and bias."""
        x, weight = ctx.saved_tensors
        of_out = gradient.reshape(-1, gradient.shape[-1]).contiguous()
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = _product(of_out, weight.t()).reshape(x.shape)
        if ctx.needs_input_grad[1]:
            of_weight = _product(of_out.t(), x.reshape(-1, x.shape[-1]).contiguous().t())
        if ctx.needs_input_grad[2]:
            of_bias = of_out.sum(0)
        return of_x, of_weight, of_bias


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `x @ weight.T + bias`: (.., K), (N, K) and (N,) -> (.., N)."""
    if not _onednn_helps(x, weight):
        return F.linear(x, weight, bias)
    out: Tensor = _OneDNNLinear.apply(x, weight, bias)
    return out


class Linear(nn.Linear):
    """PyTorch's, with the product above."""

    def forward(self, x: Tensor) -> Tensor:
        """(.., K) -> (.., N)."""
        return linear(x, self.weight, self.bias)


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them; its parameters have timm's names."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(.., D) -> (.., D)."""
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


def _times_transposed(left: Tensor, right: Tensor) -> Tensor:
    """Return `left @ right.T`."""
    if left.dtype == torch.float32 and _has_onednn():
        return _product(left, right)
    return left @ right.t()


class _BlockedAttention(torch.autograd.Function):
    """Attention of long sequences on a CPU, head after head, in blocks of queries."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Three (B, H, L, D) -> (B, H, L, D)."""
        ctx.save_for_backward(query, key, value)
        batch, heads, length, size = query.shape
        out = query.new_empty(batch, length, heads, size).transpose(1, 2)  # as the next layer wants it
        with torch.autocast("cpu", enabled=False):
            for clip, head in torch.cartesian_prod(torch.arange(batch), torch.arange(heads)).tolist():
                scaled = query[clip, head] * size**-0.5
                keys, values = key[clip, head].contiguous(), value[clip, head].contiguous()
                for start in range(0, length, BLOCK_ROWS):
                    rows = slice(start, start + BLOCK_ROWS)
                    shares = _times_transposed(scaled[rows], keys).softmax(-1)
                    out[clip, head, rows] = _times_transposed(shares, values.t())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of query, key and value; the shares are computed again."""
        query, key, value = ctx.saved_tensors
        batch, heads, length, size = query.shape
        # One tensor, as the layer that made the three made one: (B, L, 3, H, D) -> 3 x (B, H, L, D)
        out = query.new_empty(batch, length, 3, heads, size).permute(2, 0, 3, 1, 4)
        for clip, head in torch.cartesian_prod(torch.arange(batch), torch.arange(heads)).tolist():
            scaled, of_out = query[clip, head] * size**-0.5, gradient[clip, head].contiguous()
            keys, values = key[clip, head].contiguous(), value[clip, head].contiguous()
            of_key, of_value = torch.zeros_like(keys), torch.zeros_like(values)
            for start in range(0, length, BLOCK_ROWS):
                rows = slice(start, start + BLOCK_ROWS)
                shares = _times_transposed(scaled[rows], keys).softmax(-1)
                of_shares = _times_transposed(of_out[rows], values)
                of_scores = torch._softmax_backward_data(of_shares, shares, -1, shares.dtype)
                out[0, clip, head, rows] = _times_transposed(of_scores, keys.t()) * size**-0.5
                of_key += _times_transposed(of_scores.t(), scaled[rows].t())
                of_value += _times_transposed(shares.t(), of_out[rows].t())
            out[1, clip, head], out[2, clip, head] = of_key, of_value
        return out[0], out[1], out[2]


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(query key^T / sqrt(D)) value: three (B, H, L, D) -> (B, H, L, D)."""
    if query.device.type != "cpu" or torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(query, key, value)
    if query.shape[2] >= LONG and (query.dtype == torch.bfloat16 or _has_onednn()):
        out: Tensor = _BlockedAttention.apply(query, key, value)
    elif query.dtype == torch.bfloat16:
        out = ((query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)).softmax(-1) @ value
    else:
        out = F.scaled_dot_product_attention(query, key, value)
    return out
