"""From a block of the stream to tensors: what one micro-batch is.

B clips, T sampled frames and E extra ones of H x W px, N tokens, V visible and K predicted ones, Q carried values per
token. Frames cross to the device as uint8.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from system.data.columns import LABELS, Batch

# Nothing writes to the frames of a block.
warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Clips on the device.

    Attributes:
        frames: (B, 3, T, H, W) float32 in [0, 1].
        shown: (B, V) int64, visible tokens, ascending.
        predicted: (B, K) int64, tokens to predict, ascending: the hidden ones, or what a decoder mask chose.
        weight: (B,) float32, 0 for padding and skipped slots, else 1.
        counted: (B, K) float32, 0 for predicted tokens that the encoder saw; None where there are none.
        extra: (B, 3, E, H, W) float32 in [0, 1]; None where no target wants more frames.
        carried: (B, N, Q) float32; None where no target wants flow.
        labels: `label` and `other` (B,) int64, `share` (B,) float32; None for a method without labels.
        draws: (B, R) float32 in [0, 1), what the forward pass takes of chance; None where it takes nothing.
    """

    frames: Tensor
    shown: Tensor
    predicted: Tensor
    weight: Tensor
    counted: Tensor | None = None
    extra: Tensor | None = None
    carried: Tensor | None = None
    labels: Mapping[str, Tensor] | None = None
    draws: Tensor | None = None


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


def predicted_tokens(block: Batch, hidden: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32] | None]:
    """Return the tokens to predict and which of them count: two (B, K), the latter None where all do.

    Args:
        block: with `visible` and, under a decoder mask, `decoded`.
        hidden: (B, M), the hidden tokens.
    """
    if "decoded" not in block:
        return hidden, None
    chosen, _ = split_tokens(block["decoded"])
    return chosen, (~np.take_along_axis(block["visible"], chosen, 1)).astype(np.float32)


def micro_batches(block: Batch, clips: int, device: torch.device) -> Iterator[MicroBatch]:
    """Cut a block into micro-batches of at most `clips` clips and bring each to the device."""
    shown, hidden = split_tokens(block["visible"])
    predicted, counted = predicted_tokens(block, hidden)

    def bring(values: NDArray[Any], part: slice) -> Tensor:
        # A copy: the block is a read-only view of shared memory.
        return torch.from_numpy(values[part].copy()).to(device, non_blocking=True)

    def frames(values: NDArray[Any], part: slice) -> Tensor:
        # No copy on the host: what is read-only is read once, on its way to the device or into float32.
        return _frames(torch.from_numpy(values[part]).to(device, non_blocking=True))

    for start in range(0, len(shown), clips):
        part = slice(start, start + clips)
        yield MicroBatch(
            frames(block["frames"], part),
            bring(shown, part),
            bring(predicted, part),
            bring(block["weight"], part),
            bring(counted, part) if counted is not None else None,
            frames(block["extra"], part) if "extra" in block else None,
            bring(block["carried"], part).float() if "carried" in block else None,
            {name: bring(block[name], part) for name in LABELS} if "label" in block else None,
            bring(block["draws"], part) if "draws" in block else None,
        )


def _frames(frames: Tensor) -> Tensor:
    """(B, T, H, W, 3) uint8 -> (B, 3, T, H, W) float32 in [0, 1]."""
    return frames.permute(0, 4, 1, 2, 3).float().div_(255)  # `float` has made a copy


def num_micro_batches(clips_per_block: int, blocks: int, clips: int) -> int:
    """Return how many micro-batches a rank's share of a step makes."""
    return blocks * -(-clips_per_block // clips)
