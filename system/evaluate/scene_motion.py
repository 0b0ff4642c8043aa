"""Where the motion of generated clips comes from: the truth, a codec's motion vectors, or an estimate.

B clips, R frame pairs of H x W px.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from torch import Tensor

from system.config import MotionSection
from system.core.pairs import FramePair
from system.data.augment import CropDraw
from system.data.decode import ClipRequest, decode_pyav
from system.data.scene_set import SceneSet
from system.data.synthetic import encode
from system.data.vectors import VectorCollector
from system.evaluate.pretraining import FlowOf
from system.methods.base import Method
from system.motion.base import decoded_flow, motion_source

# Sources by the names that the check knows them by.
SOURCES = ("truth", "codec", "dis", "frame_difference")
# The whole of a square frame, as a crop.
WHOLE = CropDraw(0, 4)


def true_flow(clips: SceneSet, pairs: Sequence[FramePair]) -> Tensor:
    """Return the true flow."""
    return clips.flow(pairs)


def codec_flow(clips: SceneSet, pairs: Sequence[FramePair]) -> Tensor:
    """Return what the motion vectors of H.264 say: every clip is encoded as a video, and decoded again.

    Clips whose vectors say too little get the flow of `dis`, as in a run with `motion.fallback: dis`.
    """
    size = clips.frames.shape[2]
    request = ClipRequest(tuple(range(clips.frames.shape[1])), (WHOLE,), size, pairs=tuple(pairs))
    flows = []
    for number, frames in enumerate(clips.frames):
        vectors = VectorCollector(request)
        decode_pyav(io.BytesIO(encode(iter(frames), size, size)), request, vectors)
        found = vectors.flow()
        one = clips.part(slice(number, number + 1))
        flows.append(decoded_flow(found, size) if found is not None else scene_motion("dis")(one, pairs))
    return torch.cat(flows)


def source_for(method: Method, name: str) -> str:
    """Return the source that a method is given: the one that is named, unless the method takes only another."""
    return name if method.sources is None or name in method.sources else method.motion


def scene_motion(name: str) -> FlowOf:
    """Return the motion source of a name in `SOURCES`."""
    if name == "truth":
        return true_flow
    if name == "codec":
        return codec_flow
    source = motion_source(MotionSection.model_validate({"source": name}))
    return lambda clips, pairs: source(clips.frames, pairs)
