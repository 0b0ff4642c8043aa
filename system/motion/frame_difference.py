"""Optical flow from frame differences alone: one least-squares step per neighbourhood (Lucas and Kanade, 1981).

The cheapest signed flow there is: image gradients and the difference of the two frames, summed over a window. Each
pyramid level reaches about one pixel of its own size, so the whole reaches a few pixels and then underestimates. For
tests, for slow scenes, and as the floor that other sources are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from system.core.pairs import FramePair

if TYPE_CHECKING:
    from system.motion.base import Frames

Grey = NDArray[np.float32]

# Levels of halved size; the coarsest one sees motion of about 2^LEVELS px.
LEVELS = 3
# Window of the least squares on each level, px.
WINDOW = 9
# Added to the diagonal of the normal equations, in squared grey levels (0 to 255) per px: flat windows stay still.
DAMPING = 4.0


def _step(first: Grey, second: Grey, flow: Grey) -> Grey:
    """Improve a flow (H, W, 2) by one least-squares step on one level."""
    ys, xs = np.mgrid[: first.shape[0], : first.shape[1]].astype(np.float32)
    moved = cv2.remap(second, xs + flow[..., 0], ys + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    difference = moved - first
    both = (first + moved) / 2
    gx = cv2.Sobel(both, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    gy = cv2.Sobel(both, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)

    def over_window(values: Grey) -> Grey:
        return np.asarray(cv2.GaussianBlur(values, (2 * WINDOW + 1, 2 * WINDOW + 1), WINDOW / 2), np.float32)

    xx, yy, xy = over_window(gx * gx) + DAMPING, over_window(gy * gy) + DAMPING, over_window(gx * gy)
    xt, yt = over_window(gx * difference), over_window(gy * difference)
    determinant = xx * yy - xy * xy
    step = np.stack([(xy * yt - yy * xt) / determinant, (xy * xt - xx * yt) / determinant], -1)
    return np.asarray(flow + np.clip(step, -1.5, 1.5), np.float32)


def _pyramid(grey: Grey) -> list[Grey]:
    levels = [grey]
    for _ in range(LEVELS):
        levels.append(np.asarray(cv2.pyrDown(levels[-1]), np.float32))
    return levels


def flow_between(first: list[Grey], second: list[Grey]) -> Grey:
    """Return the flow (H, W, 2) px from the frame of one pyramid to the frame of another."""
    flow = np.zeros((*first[-1].shape, 2), np.float32)
    for level in range(len(first) - 1, -1, -1):
        height, width = first[level].shape
        if flow.shape[:2] != (height, width):
            scale = np.array([width / flow.shape[1], height / flow.shape[0]], np.float32)
            flow = np.asarray(cv2.resize(flow, (width, height)) * scale, np.float32)
        flow = _step(first[level], second[level], flow)
    return flow


class FrameDifference:
    """Coarse-to-fine least squares on frame differences."""

    def __call__(self, frames: Frames, pairs: Sequence[FramePair]) -> Tensor:
        """Return the flow of every pair: (B, T, H, W, 3) uint8 RGB -> (B, R, H, W, 2) float32 px."""
        batch, _, height, width, _ = frames.shape
        out = np.empty((batch, len(pairs), height, width, 2), np.float32)
        for clip, flows in zip(frames, out, strict=True):
            grey = [_pyramid(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)) for frame in clip]
            for flow, pair in zip(flows, pairs, strict=True):
                flow[:] = flow_between(grey[pair.start], grey[pair.end])
        return torch.from_numpy(out)
