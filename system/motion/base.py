"""What flow means here, and what a motion source is.

B clips, T sampled frames of H x W px, R frame pairs. Flow from frame a to frame b is (H, W, 2) float32 in px, x then y,
on the grid of frame a: frame a at x shows what frame b shows at x + flow(x). "Forward in time" is a < b.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from system.config import MotionSection
from system.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from system.core.pairs import FramePair
    from system.motion import dis, frame_difference, raft

    Frames = NDArray[np.uint8]
else:
    dis, raft = lazy("system.motion.dis"), lazy("system.motion.raft")
    frame_difference = lazy("system.motion.frame_difference")

# Sources that run on a CPU core beside the decoder; the others are a stage of their own.
CPU_SOURCES = frozenset({"dis", "frame_difference"})

# RAFT's correlation pyramid has four levels over maps of 1/8 of the frame.
RAFT_MIN_PX = 128


class MotionSource(Protocol):
    """Turns frames into flow."""

    def __call__(self, frames: Frames, pairs: Sequence[FramePair]) -> Tensor:
        """Return the flow of every pair: (B, T, H, W, 3) uint8 RGB -> (B, R, H, W, 2) float32 px."""
        ...


def check_motion(motion: MotionSection, size: int) -> None:
    """Refuse settings that a source cannot work with.

    Raises:
        ValueError: RAFT without weights, or frames below its smallest size.
    """
    if motion.source != "raft":
        return
    if motion.weights is None:
        raise ValueError(
            "motion.source=raft needs motion.weights, the URI of torchvision's raft_small file (C_T_V1 to match the"
            " original RAFT-small; docs/motion.md says where to get it); or use motion.source=dis, which needs none"
        )
    if size < RAFT_MIN_PX:
        raise ValueError(
            f"motion.source=raft needs frames of at least {RAFT_MIN_PX} px, got data.size={size};"
            f" use data.size={RAFT_MIN_PX} or motion.source=dis"
        )


def motion_source(motion: MotionSection, device: str = "cpu") -> MotionSource:
    """Make the source that a recipe names.

    Args:
        motion: the motion section of a recipe.
        device: torch device for the sources that are networks.

    Raises:
        WeightsError: the weights are missing or of another network.
    """
    if motion.source == "dis":
        return dis.DIS(motion.preset)
    if motion.source == "frame_difference":
        return frame_difference.FrameDifference()
    return raft.load_raft(motion, device)
