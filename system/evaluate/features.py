"""Frozen features of clips.

B clips, T frames of H x W px, S slots, N tokens, D width of the encoder, F' features of a clip.

Features are the encoder's output, its last LayerNorm included: the decoder was trained on that output, and without the
norm a few channels with large values would rule every distance. Fine-tuning leaves the norm out
(models/classifier.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from system.core.clip import TokenGrid

# `mean`: one vector a clip, the mean over all tokens, as the head of a fine-tuned model takes it.
# `slots`: the means over each slot's tokens, one after the other, so that a linear probe can compare moments.
Pool = Literal["mean", "slots"]


def float_frames(frames: NDArray[np.uint8] | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Bring decoded frames into the form that models take: (B, T, H, W, 3) uint8 -> (B, 3, T, H, W) in [0, 1]."""
    # An array may be a read-only map of a file, which torch does not like.
    clips = torch.from_numpy(np.array(frames)) if isinstance(frames, np.ndarray) else frames
    return clips.to(device).permute(0, 4, 1, 2, 3).float() / 255


def all_tokens(count: int, grid: TokenGrid, device: torch.device | str = "cpu") -> Tensor:
    """Return the index that shows the encoder every token: (count, N) int64."""
    return torch.arange(grid.tokens, device=device).expand(count, -1)


def batches(count: int, size: int) -> Iterator[slice]:
    """Yield the slices of `size` that cover `count` rows."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def pooled(tokens: Tensor, grid: TokenGrid, pool: Pool) -> Tensor:
    """Pool the tokens of clips: (B, N, D) -> (B, F'), F' = D or S x D."""
    by_slot = tokens.reshape(len(tokens), grid.slots, grid.places, -1).mean(2)  # (B, S, D)
    return by_slot.mean(1) if pool == "mean" else by_slot.flatten(1)
