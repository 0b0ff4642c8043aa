"""The clips that motion sources are compared on, with the true flow where the videos are generated.

T frames of a clip, R frame pairs, size x size px. Flow is (R, size, size, 2) float32 px on the clip's grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import av
import numpy as np
from numpy.typing import NDArray

from system.core.masks import Noise
from system.core.pairs import FramePair
from system.data.assemble import clip_bytes, clip_maker, limits_of
from system.data.augment import Box
from system.data.clips import Choice, ClipMaker
from system.data.dataset import SYNTHETIC, synthetic_fields
from system.data.decode import ClipRequest
from system.data.reading import fetch
from system.data.sandbox import Sandbox, Video
from system.data.scale import Frames, Scaler
from system.data.sources import stored_video
from system.data.synthetic import Scene, moving_scene
from system.errors import DecodeError
from system.recipe import Recipe

Flow = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MotionClip:
    """One clip, with all that a motion source may start from.

    Attributes:
        name: of its video.
        video: its bytes, for a source that reads the stream.
        request: frame numbers, crop and size.
        frames: (T, size, size, 3) uint8 RGB.
        noise: (1, S, F) the draws of its mask.
        truth: the true flow of every pair; None where it is not known.
    """

    name: str
    video: Video
    request: ClipRequest
    frames: Frames
    noise: Noise
    truth: Flow | None


def flow_in_crop(flow: Flow, box: Box, size: int) -> Flow:
    """Bring flow from a frame to a crop of it that is scaled to a square.

    Args:
        flow: (H, W, 2) px of the frame.
        box: of the crop.
        size: side of the square, px.

    Returns:
        (size, size, 2) px of the square: the flow at the nearest px, since a mean over an edge is nobody's motion.
    """
    centres = (np.arange(size) + 0.5) / size
    rows = np.clip((box.y + centres * box.height).astype(np.int64), 0, flow.shape[0] - 1)
    cols = np.clip((box.x + centres * box.width).astype(np.int64), 0, flow.shape[1] - 1)
    return np.asarray(flow[rows[:, None], cols] * np.array([size / box.width, size / box.height]), np.float32)


def true_flow(scene: Scene, request: ClipRequest, pairs: Sequence[FramePair]) -> Flow:
    """Return the flow that a clip of a generated scene has: (R, size, size, 2)."""
    encoded = av.VideoFrame(scene.width, scene.height, "yuv420p")  # as generated videos are
    (box,) = Scaler(request.crops, request.size).boxes(encoded)
    numbers = request.frames
    return np.stack([flow_in_crop(scene.flow(numbers[a], numbers[b]), box, request.size) for a, b in pairs])


def _scene_of(uri: str) -> Callable[[str], Scene] | None:
    """Return what makes the scene of a generated video from its file's name; None for other data."""
    if not uri.startswith(SYNTHETIC):
        return None
    fields = synthetic_fields(uri)
    size = (fields["height"], fields["width"])

    def scene(video_uri: str) -> Scene:
        return moving_scene(fields["seed"], int(PurePosixPath(video_uri).stem), size=size, num_frames=fields["frames"])

    return scene


def motion_clips(
    recipe: Recipe, index_uri: str, count: int, bad: Callable[[str, DecodeError], None]
) -> Iterator[MotionClip]:
    """Yield the first clips of a recipe's plan, decoded; one that cannot be decoded is told to `bad` and left out.

    Args:
        recipe: of a method that follows motion, with one view.
        index_uri: of its index.
        count: clips to try.
        bad: takes a video's name and what is wrong with it.
    """
    maker, grid = clip_maker(recipe, index_uri), recipe.grid
    scene_of = _scene_of(recipe.data.uri)
    pairs = recipe.record.pairs(recipe.method, grid.num_frames)
    sandbox = Sandbox(recipe.data.views * clip_bytes(recipe), limits_of(recipe))
    try:
        for slot in range(count):
            choice = maker.choose(slot)
            name = PurePosixPath(choice.video.uri).name
            try:
                video, frames = _decoded(maker, sandbox, choice)
            except DecodeError as error:
                bad(name, error)
                continue
            request = maker.request(choice)
            truth = None if scene_of is None else true_flow(scene_of(choice.video.uri), request, pairs)
            yield MotionClip(name, video, request, frames, maker.noise(slot), truth)
    finally:
        sandbox.close()


def _decoded(maker: ClipMaker, sandbox: Sandbox, choice: Choice) -> tuple[Video, Frames]:
    (segments,) = fetch([maker.reading(choice)])
    if isinstance(segments, DecodeError):
        raise segments
    answer = sandbox.one(maker.job(choice, segments))
    if isinstance(answer, DecodeError):
        raise answer
    assert answer.frames is not None
    video = stored_video(choice.video.uri, choice.video.byte_start, choice.video.num_bytes, segments)
    return video, answer.frames[0].copy()  # the sandbox writes the next clip into the same memory
