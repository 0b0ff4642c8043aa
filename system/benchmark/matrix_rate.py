"""How fast a device multiplies matrices: what a step's operations are held against."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from system.models.products import linear

# (rows, inner, columns): the linear layers of ViT-B's encoder and decoder for a few clips, and large squares.
SHAPES = ((640, 768, 3072), (3136, 384, 1536), (2048, 2048, 2048))
GPU_SHAPES = ((10240, 1024, 4096), (50176, 512, 2048), (8192, 8192, 8192))
SHORT_SHAPES = ((64, 64, 64),)
# Long enough for several products of each shape, short beside a step, seconds.
SPEND_S = 0.2

Way = Callable[[Tensor, Tensor], Tensor]


def matrix_rate(device: torch.device, dtype: torch.dtype, *, short: bool = False) -> float:
    """Return the best rate of dense products in a precision, FLOP/s (2 per multiply-add), over a few shapes.

    PyTorch's product and that of our layers, which on a CPU is another library's; with this thread's number of threads.
    """
    shapes = SHORT_SHAPES if short else GPU_SHAPES if device.type == "cuda" else SHAPES
    ways = (torch.nn.functional.linear, linear)
    return max(
        _rate(way, shape, device, dtype, SPEND_S / 100 if short else SPEND_S) for shape in shapes for way in ways
    )


@torch.no_grad()
def _rate(way: Way, shape: tuple[int, int, int], device: torch.device, dtype: torch.dtype, spend_s: float) -> float:
    rows, inner, columns = shape
    left = torch.randn(rows, inner, device=device, dtype=dtype)
    right = torch.randn(columns, inner, device=device, dtype=dtype)
    best, until = 0.0, time.perf_counter() + spend_s
    _seconds(way, left, right, 1)
    while time.perf_counter() < until:
        # On a GPU several at once: one alone is shorter than its launch.
        times = 10 if device.type == "cuda" else 1
        best = max(best, times * 2 * rows * inner * columns / _seconds(way, left, right, times))
    return best


def _seconds(way: Way, left: Tensor, right: Tensor, times: int) -> float:
    if left.is_cuda:
        torch.cuda.synchronize(left.device)
    began = time.perf_counter()
    for _ in range(times):
        way(left, right)
    if left.is_cuda:
        torch.cuda.synchronize(left.device)
    return time.perf_counter() - began
