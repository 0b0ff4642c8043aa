"""Optical flow by dense inverse search (Kroeger et al., ECCV 2016, arXiv:1603.03590), as OpenCV has it.

Runs on one CPU core and needs no weights, so it is the default. Its reach (how far things may move from one sampled
frame to the next before the median error exceeds 1 px) is measured by tests/motion/test_reach.py and stated in
docs/motion.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor

from system.core.pairs import FramePair

if TYPE_CHECKING:
    from system.motion.base import Frames

PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "fine": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}


def make_dis(preset: str) -> cv2.DISOpticalFlow:
    """Return OpenCV's search with the settings of a preset."""
    flow = cv2.DISOpticalFlow.create(PRESETS[preset])
    if preset == "fine":
        # Ours: down to half resolution as `medium`, without its refinement. On generated scenes the masks agree with
        # those of the true flow as well as `medium`'s (intersection over union .97), at 2.7 times its speed.
        flow.setFinestScale(1)
        flow.setGradientDescentIterations(12)
        flow.setVariationalRefinementIterations(0)
    return flow


class DIS:
    """OpenCV's DIS flow on grey frames."""

    def __init__(self, preset: str) -> None:
        cv2.setNumThreads(1)  # a decode actor owns one core
        self._flow = make_dis(preset)

    def __call__(self, frames: Frames, pairs: Sequence[FramePair]) -> Tensor:
        """Return the flow of every pair: (B, T, H, W, 3) uint8 RGB -> (B, R, H, W, 2) float32 px."""
        batch, _, height, width, _ = frames.shape
        out = np.empty((batch, len(pairs), height, width, 2), np.float32)
        for clip, flows in zip(frames, out, strict=True):
            grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip]
            for flow, pair in zip(flows, pairs, strict=True):
                # None, which OpenCV's annotations forget: a flow that is given is where the search starts.
                flow[:] = self._flow.calc(grey[pair.start], grey[pair.end], None)  # type: ignore[call-overload]
        return torch.from_numpy(out)
