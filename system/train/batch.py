"""From a block of the stream to tensors: what one micro-batch is.

B clips, T frames of H x W px, N tokens, V visible and M hidden ones. Frames cross to the device as uint8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from system.data.columns import Batch


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Clips on the device.

    Attributes:
        frames: (B, 3, T, H, W) float32 in [0, 1].
        shown: (B, V) int64, visible tokens, ascending.
        hidden: (B, M) int64, hidden tokens, ascending.
        weight: (B,) float32, 0 for padding and skipped slots, else 1.
    """

    frames: Tensor
    shown: Tensor
    hidden: Tensor
    weight: Tensor


def split_tokens(visible: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the visible and the hidden tokens of each clip, ascending: (B, N) -> (B, V) and (B, M).

    Raises:
        ValueError: if the clips do not see equally many tokens.
    """
    counts = visible.sum(1)
    if (counts != counts[0]).any():
        raise ValueError(f"every clip of a batch sees the same number of tokens, got {sorted(set(counts.tolist()))}")
    order = np.argsort(~visible, axis=1, kind="stable")
    return order[:, : counts[0]], order[:, counts[0] :]


def micro_batches(block: Batch, clips: int, device: torch.device) -> Iterator[MicroBatch]:
    """Cut a block into micro-batches of at most `clips` clips and bring each to the device."""
    shown, hidden = split_tokens(block["visible"])
    for start in range(0, len(shown), clips):
        part = slice(start, start + clips)
        # A copy: the block is a read-only view of shared memory.
        frames = torch.from_numpy(block["frames"][part].copy()).to(device, non_blocking=True)
        yield MicroBatch(
            frames.permute(0, 4, 1, 2, 3).float() / 255,
            torch.from_numpy(shown[part]).to(device, non_blocking=True),
            torch.from_numpy(hidden[part]).to(device, non_blocking=True),
            torch.from_numpy(block["weight"][part].copy()).to(device, non_blocking=True),
        )


def num_micro_batches(clips_per_block: int, blocks: int, clips: int) -> int:
    """Return how many micro-batches a rank's share of a step makes."""
    return blocks * -(-clips_per_block // clips)
