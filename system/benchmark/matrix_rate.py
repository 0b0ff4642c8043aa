"""How fast a device multiplies matrices: what a step's operations are held against."""

from __future__ import annotations

import time

import torch

# (rows, inner, columns): the linear layers of ViT-B's encoder and decoder for a few clips, and large squares.
SHAPES = ((640, 768, 3072), (3136, 384, 1536), (2048, 2048, 2048))
GPU_SHAPES = ((10240, 1024, 4096), (50176, 512, 2048), (8192, 8192, 8192))
SHORT_SHAPES = ((64, 64, 64),)
# Long enough for several products of each shape, short beside a step, seconds.
SPEND_S = 0.4


def matrix_rate(device: torch.device, dtype: torch.dtype, *, short: bool = False) -> float:
    """Return the best rate of dense products in a precision, FLOP/s (2 per multiply-add), over a few shapes.

    On a CPU in float32 with this thread's number of threads; products run as the libraries choose.
    """
    shapes = SHORT_SHAPES if short else GPU_SHAPES if device.type == "cuda" else SHAPES
    return max(_rate(shape, device, dtype, SPEND_S / 100 if short else SPEND_S) for shape in shapes)


def _rate(shape: tuple[int, int, int], device: torch.device, dtype: torch.dtype, spend_s: float) -> float:
    rows, inner, columns = shape
    left = torch.randn(rows, inner, device=device, dtype=dtype)
    right = torch.randn(inner, columns, device=device, dtype=dtype)
    best, until = 0.0, time.perf_counter() + spend_s
    _seconds(left, right, 1)
    while time.perf_counter() < until:
        # On a GPU several at once: one alone is shorter than its launch.
        times = 10 if device.type == "cuda" else 1
        best = max(best, times * 2 * rows * inner * columns / _seconds(left, right, times))
    return best


def _seconds(left: torch.Tensor, right: torch.Tensor, times: int) -> float:
    if left.is_cuda:
        torch.cuda.synchronize(left.device)
    began = time.perf_counter()
    for _ in range(times):
        torch.mm(left, right)
    if left.is_cuda:
        torch.cuda.synchronize(left.device)
    return time.perf_counter() - began
