"""Generated videos and the flow that a decoder makes of their motion vectors, beside the true one."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from typing import Any

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from system.core.clip import token_grid
from system.core.masks import Visible
from system.core.pairs import FramePair, pairs_toward
from system.core.seeds import Purpose, generator
from system.data.augment import Box, CropDraw, crop_box
from system.data.decode import ClipRequest, decode_pyav
from system.data.synthetic import Scene, encode, moving_scene
from system.data.transcode import transcode
from system.data.vectors import VectorCollector
from system.methods.mgmae import MGMAE, MGMAEOptions
from system.motion.base import decoded_flow

SIZE, STRIDE, FRAMES = 224, 4, 16
HEIGHT, WIDTH, LENGTH = 256, 320, 64
CENTRE = CropDraw(0, 4)
GRID = token_grid(FRAMES, SIZE, 2, 16)
NUMBERS = tuple(range(0, FRAMES * STRIDE, STRIDE))
FORWARD = [FramePair(place, place + 1) for place in range(FRAMES - 1)]
BACKWARD = [FramePair(place + 1, place) for place in range(FRAMES - 1)]
OUTWARD = pairs_toward(FRAMES // 2, FRAMES)


@cache
def scene(label: str, speed: float) -> Scene:
    return moving_scene(3, 0, size=(HEIGHT, WIDTH), num_frames=LENGTH, label=label, speeds=(speed, speed))


@cache
def source(label: str, speed: float) -> bytes:
    """The scene as a video of good quality."""
    made = scene(label, speed)
    return encode((made.frame(number) for number in range(LENGTH)), HEIGHT, WIDTH)


@cache
def packed(label: str, speed: float, layout: str) -> bytes:
    """The scene as it lies in a shard of some layout; `default` is what x264 does when it is told nothing."""
    data = source(label, speed)
    if layout == "default":
        return rewritten(data, "libx264", {"crf": "23"})
    layers, key_every = (STRIDE, 8 * STRIDE) if layout == "layered" else (0, 16)
    return transcode(io.BytesIO(data), short_side=HEIGHT, key_every=key_every, crf=23, layers=layers)


def rewritten(data: bytes, codec: str, options: dict[str, str], container: str = "mp4", rotation: int = 0) -> bytes:
    """Encode a video once more."""
    target = io.BytesIO()
    with av.open(io.BytesIO(data), "r") as before, av.open(target, "w", format=container) as out:
        stream: Any = out.add_stream(codec, rate=25)
        stream.height, stream.width = before.streams.video[0].height, before.streams.video[0].width
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.options = options
        if rotation:
            stream.set_display_rotation(rotation)
        for frame in before.decode(video=0):
            frame.pict_type = 0
            out.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        out.mux(stream.encode())
    return target.getvalue()


def decoded(
    data: bytes, pairs: Sequence[FramePair], crops: tuple[CropDraw, ...] = (CENTRE,), layers: int = 0
) -> NDArray[np.int16] | None:
    """What a child gives for a clip that starts with the video: (V, R, cells, cells, 2)."""
    request = ClipRequest(NUMBERS, crops, SIZE, layers=layers, pairs=tuple(pairs))
    collector = VectorCollector(request)
    decode_pyav(io.BytesIO(data), request, collector)
    return collector.flow()


def found(data: bytes, pairs: Sequence[FramePair], crop: CropDraw = CENTRE, layers: int = 0) -> Tensor:
    """Flow of every pair for one view: (R, SIZE, SIZE, 2) px."""
    flow = decoded(data, pairs, (crop,), layers)
    assert flow is not None
    return decoded_flow(flow, SIZE)[0]


def truth(made: Scene, pairs: Sequence[FramePair], crop: CropDraw = CENTRE) -> Tensor:
    """The true flow of every pair at the clip's crop: (R, SIZE, SIZE, 2) px."""
    box = even(crop_box(crop, WIDTH, HEIGHT, SIZE))
    middle = (np.arange(SIZE) + 0.5) / SIZE
    xs, ys = np.meshgrid(box.x + middle * box.width - 0.5, box.y + middle * box.height - 0.5)
    scale = np.array([SIZE / box.width, SIZE / box.height], np.float32)
    flows = [
        cv2.remap(
            made.flow(NUMBERS[pair.start], NUMBERS[pair.end]),
            xs.astype(np.float32),
            ys.astype(np.float32),
            cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for pair in pairs
    ]
    return torch.from_numpy(np.stack(flows) * scale)


def even(box: Box) -> Box:
    """A box that is cut to whole chroma samples."""
    return Box(box.x // 2 * 2, box.y // 2 * 2, box.width // 2 * 2, box.height // 2 * 2)


def errors(flow: Tensor, true: Tensor) -> NDArray[np.float32]:
    """Errors over what moves, px."""
    found: NDArray[np.float32] = (flow - true).norm(dim=-1)[true.norm(dim=-1) > 0.5].numpy()
    return found


def mask(flow: Tensor, draw: int) -> Visible:
    """MGMAE's mask for a flow of the pairs OUTWARD."""
    noise = generator(1, Purpose.MASK, position=draw).random((1, GRID.slots, GRID.places), np.float32)
    visible: Visible = MGMAE.mask(noise, flow[None], GRID, MGMAEOptions())[0]
    return visible


def agreement(flow: Tensor, true: Tensor, draws: int = 4) -> float:
    """Intersection over union of the masks of two flows, mean over draws."""
    both = [(mask(flow, draw), mask(true, draw)) for draw in range(draws)]
    return float(np.mean([(a & b).sum() / (a | b).sum() for a, b in both]))
