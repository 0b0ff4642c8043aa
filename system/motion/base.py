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

    from system.core import warp
    from system.core.pairs import FramePair
    from system.motion import codec, dis, frame_difference, raft

    Frames = NDArray[np.uint8]
else:
    codec, dis, raft = lazy("system.motion.codec"), lazy("system.motion.dis"), lazy("system.motion.raft")
    frame_difference, warp = lazy("system.motion.frame_difference"), lazy("system.core.warp")

# Sources that run on a CPU core beside the decoder; the others are a stage of their own.
CPU_SOURCES = frozenset({"dis", "frame_difference", "codec"})

# RAFT's maps have 1/8 of the frame's side, and the coarsest of their four levels of correlation needs 2 x 2 places.
RAFT_MULTIPLE_PX = 8
RAFT_MIN_PX = 128


class MotionSource(Protocol):
    """Turns frames into flow."""

    def __call__(self, frames: Frames, pairs: Sequence[FramePair]) -> Tensor:
        """Return the flow of every pair: (B, T, H, W, 3) uint8 RGB -> (B, R, H, W, 2) float32 px."""
        ...


def check_motion(motion: MotionSection, size: int, decoder: str = "auto") -> None:
    """Refuse settings that a source cannot work with.

    Raises:
        ValueError: RAFT without weights, or frames that it cannot take as they are; a decoder that exports no motion
            vectors.
    """
    if motion.source == "codec" and decoder not in ("auto", "pyav"):
        raise ValueError(
            f"motion.source=codec needs the motion vectors that data.decoder=pyav exports, got data.decoder={decoder};"
            " use data.decoder=auto or motion.source=dis"
        )
    if motion.source != "raft":
        return
    if motion.weights is None:
        raise ValueError(
            "motion.source=raft needs motion.weights, the URI of RAFT-small's file, torchvision's (C_T_V1 to match the"
            " original) or the original's; docs/motion.md says where to get it; or use motion.source=dis, which needs"
            " none"
        )
    check_raft_size(motion.size, size, size)


def check_raft_size(scaled_to: int | None, height: int, width: int) -> None:
    """Refuse frames that RAFT cannot take as they are, unless they are scaled for it.

    Args:
        scaled_to: `motion.size`, which satisfies the rule itself.
        height: of the frames, px.
        width: of the frames, px.

    Raises:
        ValueError: names the `motion.size` that makes it work.
    """
    sides = (height, width)
    if scaled_to is not None or all(side >= RAFT_MIN_PX and side % RAFT_MULTIPLE_PX == 0 for side in sides):
        return
    nearest = max(RAFT_MIN_PX, round(max(sides) / RAFT_MULTIPLE_PX) * RAFT_MULTIPLE_PX)
    raise ValueError(
        f"motion.source=raft needs frames of at least {RAFT_MIN_PX} px and a multiple of {RAFT_MULTIPLE_PX},"
        f" got {width} x {height} px (data.size); use motion.size={nearest}, which scales them for the flow alone"
    )


def motion_source(motion: MotionSection, device: str = "cpu") -> MotionSource:
    """Make the source that a recipe names; for `codec` the one that turns frames into flow where a stream has none.

    Args:
        motion: the motion section of a recipe.
        device: torch device for the sources that are networks.

    Raises:
        WeightsError: the weights are missing or of another network.
    """
    name = motion.fallback if motion.source == "codec" else motion.source
    if name == "dis":
        return dis.DIS(motion.preset)
    if name == "frame_difference":
        return frame_difference.FrameDifference()
    return raft.load_raft(motion, device)


def flow_on_cells(flow: NDArray[np.int16]) -> Tensor:
    """Return what a decoder made of a stream's vectors, on its cells: (V, R, cells, cells, 2) float32 px."""
    return codec.on_cells(flow)


def decoded_flow(flow: NDArray[np.int16], size: int) -> Tensor:
    """Return what a decoder made of a stream's vectors as a source would: (V, R, size, size, 2) float32 px."""
    return warp.on_pixels(codec.on_cells(flow), size, size)
