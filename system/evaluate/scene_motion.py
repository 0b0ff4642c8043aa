"""Where the motion of generated clips comes from: the truth, the truth as a codec would say it, or an estimate.

B clips, R frame pairs of H x W px.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from system.config import MotionSection
from system.core.pairs import FramePair
from system.data.scene_set import SceneSet
from system.evaluate.pretraining import FlowOf
from system.methods.base import Method
from system.motion.base import motion_source

# Side of the blocks that have one vector: H.264's macroblocks are 16 px and may be split to 4 px.
BLOCK_PX = 8
# H.264's vectors are whole multiples of this.
STEP_PX = 0.25

SOURCES = ("truth", "blocks", "dis", "frame_difference")


def true_flow(clips: SceneSet, pairs: Sequence[FramePair]) -> Tensor:
    """Return the true flow."""
    return clips.flow(pairs)


def block_flow(clips: SceneSet, pairs: Sequence[FramePair]) -> Tensor:
    """Return the true flow as coarse as motion vectors: one for each block, in quarters of a pixel."""
    flow = clips.flow(pairs)
    height, width = flow.shape[2:4]
    if height % BLOCK_PX or width % BLOCK_PX:
        raise ValueError(f"blocks of {BLOCK_PX} px do not divide frames of {height} x {width} px")
    clip_pairs, rows, cols = flow.shape[:2], height // BLOCK_PX, width // BLOCK_PX
    # (B, R, H, W, 2) -> (B, R, rows, cols, p * p, 2)
    cut = flow.reshape(*clip_pairs, rows, BLOCK_PX, cols, BLOCK_PX, 2).transpose(3, 4).flatten(4, 5)
    # The middle value keeps to one object where two share a block.
    vectors: Tensor = (cut.median(4).values / STEP_PX).round() * STEP_PX
    return vectors.repeat_interleave(BLOCK_PX, 2).repeat_interleave(BLOCK_PX, 3)


def source_for(method: Method, name: str) -> str:
    """Return the source that a method is given: one that reads bitstreams has none here and is given `blocks`."""
    return name if method.sources is None else "blocks"


def scene_motion(name: str) -> FlowOf:
    """Return the motion source of a name in `SOURCES`."""
    if name == "truth":
        return true_flow
    if name == "blocks":
        return block_flow
    source = motion_source(MotionSection.model_validate({"source": name}))
    return lambda clips, pairs: source(clips.frames, pairs)
