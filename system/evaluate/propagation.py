"""Labels of a first frame carried through a video by the likeness of features: nothing is learnt.

The protocol of space-time correspondence (Jabri et al., NeurIPS 2020, arXiv:2006.14613) as DINO's public evaluation has
it (arXiv:2104.14294): each place of a frame looks at the first frame and at the last few ones, near its own place, and
takes the mean of the labels of the places that are most like it, weighted by exp(cosine / temperature).

F places of a frame (rows x cols), D width of a feature, C labels (0 is background), K context frames.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

# Numbers of the largest likeness matrix that is made at once: 128 MiB in float32.
_MOST = 1 << 25

# What a frame passes on to later ones: its mixture of labels, or the label of the largest share alone.
Queue = Literal["soft", "hard"]


@dataclass(frozen=True, slots=True)
class Propagation:
    """How labels are carried. Defaults are DINO's.

    Attributes:
        context: K - 1, frames before the present one that are looked at beside the first.
        window: places that a source may lie away, in rows and in cols; 0: anywhere.
        top_k: sources that are kept for each place, of all context frames together; more where several are equal.
        temperature: of the weights exp(cosine / temperature).
        queue: what a frame passes on.
    """

    context: int = 7
    window: int = 12
    top_k: int = 5
    temperature: float = 0.1
    queue: Queue = "soft"


def near(rows: int, cols: int, window: int, device: torch.device | str = "cpu") -> Tensor | None:
    """Return which places lie within `window` rows and cols of each other: (F, F) bool; None where all do."""
    if window <= 0 or window >= max(rows, cols):
        return None
    place = torch.arange(rows * cols, device=device)
    row, col = place // cols, place % cols
    return ((row[:, None] - row).abs() <= window) & ((col[:, None] - col).abs() <= window)


def carry_labels(
    target: Tensor, sources: Sequence[Tensor], labels: Sequence[Tensor], allowed: Tensor | None, how: Propagation
) -> Tensor:
    """Give a frame the labels of the places that are like its own.

    Args:
        target: (F, D), of length 1.
        sources: K of (F, D), of length 1.
        labels: K of (F, C), shares of labels.
        allowed: (F, F) bool, which source places each target place may look at, in every context frame.
        how: top_k and temperature.

    Returns:
        (F, C).
    """
    keys, values = torch.cat(list(sources)), torch.cat(list(labels))  # (K F, D), (K F, C)
    rows = max(1, _MOST // len(keys))
    parts = []
    for start in range(0, len(target), rows):
        likeness = target[start : start + rows] @ keys.T  # (part of F, K F)
        if allowed is not None:
            shut = ~allowed[start : start + rows]
            likeness.view(len(likeness), len(sources), -1).masked_fill_(shut[:, None], -torch.inf)
        least = likeness.topk(min(how.top_k, len(keys)), 1).values[:, -1:]
        likeness.masked_fill_(likeness < least, -torch.inf)
        parts.append(torch.softmax(likeness / how.temperature, 1) @ values)
    return torch.cat(parts)


def hardened(labels: Tensor) -> Tensor:
    """Return the largest share alone: (F, C) -> (F, C) of ones and zeros."""
    return F.one_hot(labels.argmax(1), labels.shape[1]).to(labels.dtype)


def carried(
    features: Iterable[Tensor], first: Tensor, rows_cols: tuple[int, int], how: Propagation
) -> Iterator[Tensor]:
    """Yield the labels of the second frame and of each that follows.

    Args:
        features: (F, D) of every frame, the first one's first, of any length.
        first: (F, C), the labels of the first frame.
        rows_cols: rows and cols of the places.
        how: the protocol.

    Yields:
        (F, C) shares of labels.
    """
    allowed = near(*rows_cols, how.window, first.device)
    past: deque[tuple[Tensor, Tensor]] = deque(maxlen=how.context)
    anchor: Tensor | None = None
    for raw in features:
        present = F.normalize(raw.float(), dim=1)
        if anchor is None:
            anchor = present
            continue
        sources, labels = [anchor, *(each for each, _ in past)], [first, *(each for _, each in past)]
        found = carry_labels(present, sources, labels, allowed, how)
        past.append((present, hardened(found) if how.queue == "hard" else found))
        yield found


def nearest(mask: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize a mask to (height, width): each pixel takes the one that its middle falls on."""
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(np.int64)
    cols = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(np.int64)
    return np.asarray(mask[rows[:, None], cols], np.uint8)


def first_labels(mask: NDArray[np.uint8], objects: Sequence[int], rows_cols: tuple[int, int]) -> Tensor:
    """Return the labels of the first frame's places: background, then the objects in their order.

    Args:
        mask: (H, W) numbers of objects.
        objects: the numbers that count; others are background.
        rows_cols: rows and cols of the places.

    Returns:
        (F, 1 + objects) float32, ones and zeros: each place has the label of the pixel in its middle.
    """
    small = nearest(mask, *rows_cols).reshape(-1)
    shares = np.stack([small == number for number in objects], 1)
    return torch.from_numpy(np.concatenate([~shares.any(1, keepdims=True), shares], 1).astype(np.float32))


def true_shares(mask: NDArray[np.uint8], objects: Sequence[int], rows_cols: tuple[int, int]) -> Tensor:
    """Return the share of each place's pixels that have a label: (F, 1 + objects) float32, background first."""
    shares = np.stack([mask == number for number in objects])
    maps = torch.from_numpy(np.concatenate([~shares.any(0, keepdims=True), shares]).astype(np.float32))
    return F.adaptive_avg_pool2d(maps, rows_cols).flatten(1).T


def mask_of(
    labels: Tensor, objects: Sequence[int], rows_cols: tuple[int, int], patch_px: int, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Turn the labels of places into a mask.

    Shares are resized to pixels (bilinear), each label's are stretched to 0..1, the largest wins, and the result is
    resized to the frame's own size (nearest).

    Args:
        labels: (F, C).
        objects: the number of each label but the first, which is background.
        rows_cols: rows and cols of the places.
        patch_px: side of a place, px.
        size: height and width of the mask, px.
    """
    maps = labels.T.reshape(1, labels.shape[1], *rows_cols)
    maps = F.interpolate(maps, scale_factor=patch_px, mode="bilinear", align_corners=False)[0]  # (C, h, w)
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    # A label that is the same everywhere stays what it is: 0 of an object that is gone, 1 of one that fills the frame.
    maps = torch.where(high > low, (maps - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny), maps)
    numbers = np.array([0, *objects], np.uint8)
    return nearest(numbers[maps.argmax(0).cpu().numpy()], *size)
